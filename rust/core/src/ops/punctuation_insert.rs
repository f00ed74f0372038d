//! Punctuation between words (Karimi et al., "AEDA", Findings of EMNLP 2021).

use serde::Deserialize;

use super::draw::{Draw, below_at};
use super::text::{TextOp, TextPlan, TextRow};
use super::words::{WordRow, WordSet};
use crate::error::{Error, Result};

/// Puts one of the `marks` and a space before each word with probability `rate`.
#[derive(Debug)]
pub(crate) struct PunctuationInsert {
    rate: f64,
    marks: Vec<char>,
    negations: WordSet,
    most: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    rate: f64,
    marks: String,
    negations: Option<Vec<String>>,
    max_edits: f64,
}

const KIND: &str = "PunctuationInsert";

impl PunctuationInsert {
    pub(crate) fn new(parameters: Parameters) -> Result<Self> {
        let rate = super::rate(KIND, "rate", parameters.rate)?;
        if parameters.marks.is_empty() {
            return Err(Error::invalid(format!("{KIND}: marks must hold at least one character (it is '')")));
        }
        Ok(PunctuationInsert {
            rate,
            marks: parameters.marks.chars().collect(),
            negations: WordSet::negations(parameters.negations),
            most: super::rate(KIND, "max_edits", parameters.max_edits)?,
        })
    }
}

impl TextOp for PunctuationInsert {
    fn plan(&self, row: TextRow<'_>, draw: &mut Draw, plan: &mut TextPlan) -> Result<()> {
        let row = WordRow::new(row, &self.negations)?;
        let (chosen, held) = row.chosen(draw, self.rate, self.most, |i| row.free(i) && row.open(i));
        plan.held = held;
        let mut mark = String::new();
        for i in chosen {
            mark.clear();
            mark.push(self.marks[below_at(&draw.stream, 1, i, self.marks.len() as u32) as usize]);
            mark.push(' ');
            plan.replace(row.text, row.words[i].start, row.words[i].start, &mark);
        }
        plan.finish(row.text);
        Ok(())
    }
}
