//! Letters that were missed.

use serde::Deserialize;

use super::draw::Draw;
use super::graphemes::{before, char_at};
use super::text::{TextOp, TextPlan, TextRow};
use crate::error::Result;
use crate::rng::threshold;

/// Drops each letter, with its marks, with probability `rate`; a run of letters keeps one.
#[derive(Debug)]
pub(crate) struct CharDelete {
    rate: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    rate: f64,
}

impl CharDelete {
    pub(crate) fn new(parameters: Parameters) -> Result<Self> {
        Ok(CharDelete { rate: super::rate("CharDelete", "rate", parameters.rate)? })
    }
}

impl TextOp for CharDelete {
    fn plan(&self, row: TextRow<'_>, draw: &mut Draw, plan: &mut TextPlan) -> Result<()> {
        let text = row.text()?;
        // Where the run of dropped letters begins that ends at the last edit.
        let mut run = 0;
        for &i in draw.hits(text.len(), row.protected, threshold(self.rate)) {
            let Some(letter) = row.letter(text, i as usize) else { continue };
            if plan.done() != letter.start {
                run = letter.start;
            }
            let next = char_at(text, letter.end);
            if before(text, run).is_some_and(char::is_alphabetic) || next.is_some_and(char::is_alphabetic) {
                plan.replace(text, letter.start, letter.end, "");
            }
        }
        plan.finish(text);
        Ok(())
    }
}
