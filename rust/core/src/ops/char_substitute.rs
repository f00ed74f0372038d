//! Letters that became others.

use serde::Deserialize;

use super::alphabet::{Alphabet, cased};
use super::draw::{Draw, below_at};
use super::text::{TextOp, TextPlan, TextRow};
use crate::error::Result;
use crate::rng::threshold;

/// Replaces each letter by another of its alphabet, in its case, with probability `rate`.
#[derive(Debug)]
pub(crate) struct CharSubstitute {
    rate: f64,
    alphabet: Alphabet,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    rate: f64,
    alphabet: Option<String>,
}

const KIND: &str = "CharSubstitute";

impl CharSubstitute {
    pub(crate) fn new(parameters: Parameters) -> Result<Self> {
        let rate = super::rate(KIND, "rate", parameters.rate)?;
        Ok(CharSubstitute { rate, alphabet: Alphabet::new(KIND, parameters.alphabet)? })
    }
}

impl TextOp for CharSubstitute {
    fn plan(&self, row: TextRow<'_>, draw: &mut Draw, plan: &mut TextPlan) -> Result<()> {
        let (text, stream) = (row.text()?, draw.stream);
        let mut bytes = [0; 4];
        for &i in draw.hits(text.len(), row.protected, threshold(self.rate)) {
            let i = i as usize;
            let Some(letter) = row.letter(text, i).filter(|letter| letter.bare()) else { continue };
            let Some((letters, own)) = self.alphabet.of(letter.char) else { continue };
            let others = letters.len() - usize::from(own.is_some());
            if others == 0 {
                continue;
            }
            let drawn = below_at(&stream, 1, i, others as u32) as usize;
            let other = letters[drawn + usize::from(own.is_some_and(|own| drawn >= own))];
            plan.replace(text, letter.start, letter.end, cased(other, letter.char).encode_utf8(&mut bytes));
        }
        plan.finish(text);
        Ok(())
    }
}
