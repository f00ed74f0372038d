//! Spaces that are missing, doubled, or where none belongs.

use serde::Deserialize;

use super::draw::Draw;
use super::graphemes::{before, char_at, space};
use super::text::{TextOp, TextPlan, TextRow};
use crate::error::Result;
use crate::rng::threshold;

/// Removes or doubles, one as often as the other, each space with probability `rate`, and puts a space between two
/// letters with probability `split_rate`. Line ends stay.
#[derive(Debug)]
pub(crate) struct WhitespaceNoise {
    rate: f64,
    split_rate: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    rate: f64,
    split_rate: f64,
}

const KIND: &str = "WhitespaceNoise";

impl WhitespaceNoise {
    pub(crate) fn new(parameters: Parameters) -> Result<Self> {
        let rate = super::rate(KIND, "rate", parameters.rate)?;
        Ok(WhitespaceNoise { rate, split_rate: super::rate(KIND, "split_rate", parameters.split_rate)? })
    }
}

impl TextOp for WhitespaceNoise {
    fn plan(&self, row: TextRow<'_>, draw: &mut Draw, plan: &mut TextPlan) -> Result<()> {
        let (text, stream) = (row.text()?, draw.stream);
        let (removed, changed, split) = (threshold(self.rate / 2.0), threshold(self.rate), threshold(self.split_rate));
        let mut bytes = [0; 4];
        for &i in draw.hits(text.len(), row.protected, changed.max(split)) {
            let i = i as usize;
            let Some(c) = char_at(text, i) else { continue };
            let roll = stream.word(0, i) >> 8;
            let end = i + c.len_utf8();
            if space(c) {
                if roll < removed && row.free(i, end) {
                    plan.replace(text, i, end, "");
                } else if (removed..changed).contains(&roll) && row.open(end) {
                    plan.replace(text, end, end, c.encode_utf8(&mut bytes));
                }
            } else if roll < split && c.is_alphabetic() && before(text, i).is_some_and(char::is_alphabetic) {
                plan.replace(text, i, i, " ");
            }
        }
        plan.finish(text);
        Ok(())
    }
}
