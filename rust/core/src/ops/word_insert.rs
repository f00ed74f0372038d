//! Words added (Wei and Zou, "EDA", EMNLP 2019).

use serde::Deserialize;

use super::draw::{Draw, below_at};
use super::lexicon::{Lexicon, Told};
use super::text::{TextOp, TextPlan, TextRow};
use super::words::{WordRow, WordSet};
use crate::error::Result;

/// Puts a synonym of each word that has one, with probability `rate`, before any word of the row.
#[derive(Debug)]
pub(crate) struct WordInsert {
    rate: f64,
    lexicon: Lexicon,
    parts: Vec<String>,
    negations: WordSet,
    most: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    rate: f64,
    lexicon: Option<Vec<Vec<String>>>,
    #[serde(default)]
    pos: Vec<String>,
    negations: Option<Vec<String>>,
    max_edits: f64,
}

const KIND: &str = "WordInsert";

impl WordInsert {
    pub(crate) fn new(parameters: Parameters) -> Result<Self> {
        Ok(WordInsert {
            rate: super::rate(KIND, "rate", parameters.rate)?,
            lexicon: Lexicon::new(KIND, parameters.lexicon)?,
            parts: parameters.pos,
            negations: WordSet::negations(parameters.negations),
            most: super::rate(KIND, "max_edits", parameters.max_edits)?,
        })
    }
}

impl TextOp for WordInsert {
    fn plan(&self, row: TextRow<'_>, draw: &mut Draw, plan: &mut TextPlan) -> Result<()> {
        let row = WordRow::new(row, &self.negations)?;
        let stream = draw.stream;
        let n = row.words.len() as u32;
        let place = |i: usize| below_at(&stream, 8, i, n) as usize;
        let known =
            |i: usize| row.free(i) && !self.lexicon.choices(row.word(i), &self.parts, || Told::Nothing).is_empty();
        let (chosen, held) = row.chosen(draw, self.rate, self.most, |i| known(i) && row.open(place(i)));
        plan.held = held;
        let mut inserted: Vec<(usize, String)> = chosen
            .into_iter()
            .map(|i| {
                let choices = self.lexicon.choices(row.word(i), &self.parts, || Told::Nothing);
                let choice = choices[below_at(&stream, 1, i, choices.len() as u32) as usize];
                (place(i), choice.inflected() + " ")
            })
            .collect();
        inserted.sort_by_key(|&(place, _)| place);
        for (place, word) in inserted {
            let at = row.words[place].start;
            plan.replace(row.text, at, at, &word);
        }
        plan.finish(row.text);
        Ok(())
    }
}
