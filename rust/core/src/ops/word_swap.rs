//! Words that change places (Wei and Zou, "EDA", EMNLP 2019).

use serde::Deserialize;

use super::draw::{Draw, below_at};
use super::graphemes::boundary;
use super::text::{TextOp, TextPlan, TextRow};
use super::words::{WordRow, WordSet};
use crate::error::Result;

/// Lets each word change places, with probability `rate`, with any other word of the row; spaces and punctuation stay.
/// Swaps come one after the other, from the left.
#[derive(Debug)]
pub(crate) struct WordSwap {
    rate: f64,
    negations: WordSet,
    most: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    rate: f64,
    negations: Option<Vec<String>>,
    max_edits: f64,
}

const KIND: &str = "WordSwap";

impl WordSwap {
    pub(crate) fn new(parameters: Parameters) -> Result<Self> {
        Ok(WordSwap {
            rate: super::rate(KIND, "rate", parameters.rate)?,
            negations: WordSet::negations(parameters.negations),
            most: super::rate(KIND, "max_edits", parameters.max_edits)?,
        })
    }
}

impl TextOp for WordSwap {
    fn plan(&self, row: TextRow<'_>, draw: &mut Draw, plan: &mut TextPlan) -> Result<()> {
        let row = WordRow::new(row, &self.negations)?;
        let text = row.text;
        let whole = |i: usize| boundary(text, row.words[i].start) && boundary(text, row.words[i].end);
        let loose: Vec<usize> = match self.rate > 0.0 {
            true => (0..row.words.len()).filter(|&i| row.loose(i) && whole(i)).collect(),
            false => Vec::new(),
        };
        // A swap is two edits.
        let most = if self.most < 1.0 { self.most / 2.0 } else { 1.0 };
        let (chosen, held) = row.chosen(draw, self.rate, most, |i| loose.len() > 1 && loose.binary_search(&i).is_ok());
        plan.held = held;
        let mut order = loose.clone();
        for i in chosen {
            let Ok(place) = loose.binary_search(&i) else { continue };
            let other = below_at(&draw.stream, 1, i, loose.len() as u32 - 1) as usize;
            order.swap(place, other + usize::from(other >= place));
        }
        for (&to, &from) in loose.iter().zip(&order) {
            let (word, place) = (row.word(from), row.words[to]);
            // Where a word does not fit into its new place, none may move.
            if word != row.word(to) && !plan.replace(text, place.start, place.end, word) {
                plan.clear();
                break;
            }
        }
        plan.finish(text);
        Ok(())
    }

    fn moves(&self) -> bool {
        true
    }
}
