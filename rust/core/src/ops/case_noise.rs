//! Letters in the wrong case.

use serde::Deserialize;

use super::alphabet::single;
use super::draw::Draw;
use super::text::{TextOp, TextPlan, TextRow};
use crate::error::Result;
use crate::rng::threshold;

/// Changes the case of each letter that has one with probability `rate`; its marks stay. A letter whose other case is
/// more than one character stays too.
#[derive(Debug)]
pub(crate) struct CaseNoise {
    rate: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    rate: f64,
}

impl CaseNoise {
    pub(crate) fn new(parameters: Parameters) -> Result<Self> {
        Ok(CaseNoise { rate: super::rate("CaseNoise", "rate", parameters.rate)? })
    }
}

impl TextOp for CaseNoise {
    fn plan(&self, row: TextRow<'_>, draw: &mut Draw, plan: &mut TextPlan) -> Result<()> {
        let text = row.text()?;
        let mut flipped = String::new();
        for &i in draw.hits(text.len(), row.protected, threshold(self.rate)) {
            let Some(letter) = row.letter(text, i as usize) else { continue };
            let other = match letter.char.is_uppercase() {
                true => single(letter.char.to_lowercase()),
                false => single(letter.char.to_uppercase()),
            };
            if let Some(other) = other.filter(|&other| other != letter.char) {
                flipped.clear();
                flipped.push(other);
                flipped.push_str(&text[letter.start + letter.char.len_utf8()..letter.end]);
                plan.replace(text, letter.start, letter.end, &flipped);
            }
        }
        plan.finish(text);
        Ok(())
    }
}
