//! Words left out (Wei and Zou, "EDA", EMNLP 2019).

use serde::Deserialize;

use super::draw::Draw;
use super::graphemes::{before, char_at, space};
use super::text::{TextOp, TextPlan, TextRow};
use super::words::{WordRow, WordSet};
use crate::error::Result;

/// Drops each word with probability `rate`, and the space before it, or else the one after it. A row that would lose
/// all of its words keeps the one whose roll was highest.
#[derive(Debug)]
pub(crate) struct WordDelete {
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

const KIND: &str = "WordDelete";

impl WordDelete {
    pub(crate) fn new(parameters: Parameters) -> Result<Self> {
        Ok(WordDelete {
            rate: super::rate(KIND, "rate", parameters.rate)?,
            negations: WordSet::negations(parameters.negations),
            most: super::rate(KIND, "max_edits", parameters.max_edits)?,
        })
    }
}

impl TextOp for WordDelete {
    fn plan(&self, row: TextRow<'_>, draw: &mut Draw, plan: &mut TextPlan) -> Result<()> {
        let row = WordRow::new(row, &self.negations)?;
        let text = row.text;
        let (mut chosen, held) = row.chosen(draw, self.rate, self.most, |i| row.loose(i));
        plan.held = held;
        if !chosen.is_empty() && chosen.len() == row.words.len() {
            let rolls = draw.rolls(chosen.len(), None);
            if let Some(kept) = (0..chosen.len()).max_by_key(|&i| (rolls[i], std::cmp::Reverse(i))) {
                chosen.remove(kept);
            }
        }
        for i in chosen {
            let word = row.words[i];
            let (mut start, mut end) = (word.start, word.end);
            let left = before(text, start).filter(|&c| space(c)).map_or(start, |c| start - c.len_utf8());
            let right = char_at(text, end).filter(|&c| space(c)).map_or(end, |c| end + c.len_utf8());
            if left < start && left >= plan.done() && row.row.free(left, start) {
                start = left;
            } else if row.row.free(end, right) {
                end = right;
            }
            plan.replace(text, start, end, "");
        }
        plan.finish(text);
        Ok(())
    }
}
