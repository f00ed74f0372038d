//! Letters that were struck too many.

use serde::Deserialize;

use super::alphabet::{Alphabet, cased};
use super::draw::{Draw, below_at};
use super::text::{TextOp, TextPlan, TextRow};
use crate::error::Result;
use crate::rng::threshold;

/// Puts a letter of the same alphabet and case after each letter, with probability `rate`.
#[derive(Debug)]
pub(crate) struct CharInsert {
    rate: f64,
    alphabet: Alphabet,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    rate: f64,
    alphabet: Option<String>,
}

const KIND: &str = "CharInsert";

impl CharInsert {
    pub(crate) fn new(parameters: Parameters) -> Result<Self> {
        let rate = super::rate(KIND, "rate", parameters.rate)?;
        Ok(CharInsert { rate, alphabet: Alphabet::new(KIND, parameters.alphabet)? })
    }
}

impl TextOp for CharInsert {
    fn plan(&self, row: TextRow<'_>, draw: &mut Draw, plan: &mut TextPlan) -> Result<()> {
        let (text, stream) = (row.text()?, draw.stream);
        let mut bytes = [0; 4];
        for &i in draw.hits(text.len(), row.protected, threshold(self.rate)) {
            let i = i as usize;
            let Some(letter) = row.letter(text, i) else { continue };
            let Some((letters, _)) = self.alphabet.of(letter.char) else { continue };
            let other = letters[below_at(&stream, 1, i, letters.len() as u32) as usize];
            plan.replace(text, letter.end, letter.end, cased(other, letter.char).encode_utf8(&mut bytes));
        }
        plan.finish(text);
        Ok(())
    }
}
