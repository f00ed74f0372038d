//! Words as people misspell them.

use std::collections::HashMap;

use serde::Deserialize;

use super::draw::{Draw, below_at};
use super::tables::MISSPELLINGS;
use super::text::{TextOp, TextPlan, TextRow};
use super::words::{WordRow, WordSet, folded, like};
use crate::error::{Error, Result};

/// Replaces each word of a table by one of its misspellings, in its case, with probability `rate`.
#[derive(Debug)]
pub(crate) struct Misspelling {
    rate: f64,
    table: HashMap<String, Vec<String>>,
    negations: WordSet,
    most: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    rate: f64,
    table: Option<Vec<Vec<String>>>,
    negations: Option<Vec<String>>,
    max_edits: f64,
}

const KIND: &str = "Misspelling";

impl Misspelling {
    pub(crate) fn new(parameters: Parameters) -> Result<Self> {
        Ok(Misspelling {
            rate: super::rate(KIND, "rate", parameters.rate)?,
            table: table(parameters.table)?,
            negations: WordSet::negations(parameters.negations),
            most: super::rate(KIND, "max_edits", parameters.max_edits)?,
        })
    }
}

/// Words and their misspellings: rows as a lexicon has them, whose parts of speech do not matter.
fn table(rows: Option<Vec<Vec<String>>>) -> Result<HashMap<String, Vec<String>>> {
    let own = |list: &[&str]| list.iter().map(|&word| word.into()).collect();
    let Some(rows) = rows else {
        return Ok(MISSPELLINGS.iter().map(|(word, list)| ((*word).into(), own(list))).collect());
    };
    let mut table: HashMap<String, Vec<String>> = HashMap::new();
    for (i, row) in rows.into_iter().enumerate() {
        let [word, _, list @ ..] = row.as_slice() else {
            return Err(Error::invalid(format!(
                "{KIND}: table row {i} must hold a word, a part of speech and misspellings (it is {row:?})"
            )));
        };
        table.entry(folded(word)).or_default().extend_from_slice(list);
    }
    table.retain(|_, list| !list.is_empty());
    Ok(table)
}

impl TextOp for Misspelling {
    fn plan(&self, row: TextRow<'_>, draw: &mut Draw, plan: &mut TextPlan) -> Result<()> {
        let row = WordRow::new(row, &self.negations)?;
        let find = |i: usize| self.table.get(&folded(row.word(i)));
        let (chosen, held) = row.chosen(draw, self.rate, self.most, |i| find(i).is_some() && row.free(i));
        plan.held = held;
        for i in chosen {
            let Some(list) = find(i) else { continue };
            let other = &list[below_at(&draw.stream, 1, i, list.len() as u32) as usize];
            let word = row.words[i];
            plan.replace(row.text, word.start, word.end, &like(other, word.of(row.text)));
        }
        plan.finish(row.text);
        Ok(())
    }
}
