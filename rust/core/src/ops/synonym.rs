//! Words replaced by others of the same meaning.

use serde::Deserialize;

use super::draw::{Draw, below_at};
use super::lexicon::{Choice, Lexicon};
use super::text::{TextOp, TextPlan, TextRow};
use super::words::{WordRow, WordSet, like};
use crate::error::Result;

/// Replaces each word that the lexicon knows with probability `rate`; ending and case stay.
#[derive(Debug)]
pub(crate) struct Synonym {
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

const KIND: &str = "Synonym";

impl Synonym {
    pub(crate) fn new(parameters: Parameters) -> Result<Self> {
        Ok(Synonym {
            rate: super::rate(KIND, "rate", parameters.rate)?,
            lexicon: Lexicon::new(KIND, parameters.lexicon)?,
            parts: parameters.pos,
            negations: WordSet::negations(parameters.negations),
            most: super::rate(KIND, "max_edits", parameters.max_edits)?,
        })
    }

    /// What may stand in the place of word `i`; after "a" and "an", what they go with.
    fn choices(&self, row: &WordRow<'_>, i: usize) -> Vec<Choice<'_>> {
        let mut choices = self.lexicon.choices(row.word(i), &self.parts);
        let article = i.checked_sub(1).map_or("", |before| row.word(before));
        for (word, vowel) in [("a", false), ("an", true)] {
            if article.eq_ignore_ascii_case(word) {
                choices.retain(|choice| choice.vowel() == vowel);
            }
        }
        choices
    }
}

impl TextOp for Synonym {
    fn plan(&self, row: TextRow<'_>, draw: &mut Draw, plan: &mut TextPlan) -> Result<()> {
        let row = WordRow::new(row, &self.negations)?;
        let stream = draw.stream;
        let mut found = Vec::new();
        let (chosen, held) = row.chosen(draw, self.rate, self.most, |i| {
            let choices = self.choices(&row, i);
            if choices.is_empty() || !row.free(i) {
                return false;
            }
            found.push((i, choices[below_at(&stream, 1, i, choices.len() as u32) as usize]));
            true
        });
        plan.held = held;
        for (i, choice) in found.into_iter().filter(|(i, _)| chosen.binary_search(i).is_ok()) {
            let word = row.words[i];
            plan.replace(row.text, word.start, word.end, &like(&choice.inflected(), word.of(row.text)));
        }
        plan.finish(row.text);
        Ok(())
    }
}
