//! Names replaced by others of their kind.

use std::ops::Range;

use serde::Deserialize;

use super::draw::{Draw, below_at};
use super::text::{TextOp, TextPlan, TextRow};
use super::words::{Word, WordSet, chosen, words};
use crate::error::{Error, Result};
use crate::rng::threshold;

/// Replaces each span of a tag by another of the `entities` with probability `rate`.
#[derive(Debug)]
pub(crate) struct EntitySwap {
    rate: f64,
    tag: String,
    entities: Vec<String>,
    negations: WordSet,
    most: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    rate: f64,
    tag: String,
    entities: Vec<String>,
    negations: Option<Vec<String>>,
    max_edits: f64,
}

const KIND: &str = "EntitySwap";

impl EntitySwap {
    pub(crate) fn new(parameters: Parameters) -> Result<Self> {
        if parameters.entities.is_empty() || parameters.entities.iter().any(String::is_empty) {
            return Err(Error::invalid(format!(
                "{KIND}: entities must hold at least one name, and none that is empty (they are {:?})",
                parameters.entities
            )));
        }
        Ok(EntitySwap {
            rate: super::rate(KIND, "rate", parameters.rate)?,
            tag: parameters.tag,
            entities: parameters.entities,
            negations: WordSet::negations(parameters.negations),
            most: super::rate(KIND, "max_edits", parameters.max_edits)?,
        })
    }
}

impl TextOp for EntitySwap {
    fn plan(&self, row: TextRow<'_>, draw: &mut Draw, plan: &mut TextPlan) -> Result<()> {
        let text = row.text()?;
        let name = |i: usize| text.get(row.spans[i].clone()).filter(|name| !name.is_empty());
        let others = |i: usize| self.entities.iter().filter(move |entity| name(i) != Some(entity.as_str()));
        let words = if row.spans.is_empty() { Vec::new() } else { words(text) };
        let kept: Vec<&Word> = words.iter().filter(|word| self.negations.contains(word.of(text))).collect();
        let negated = |span: &Range<usize>| {
            let next = kept.partition_point(|word| word.end <= span.start);
            kept.get(next).is_some_and(|word| word.start < span.end)
        };
        let mut reach = 0;
        let fits = |i: usize| {
            let span = &row.spans[i];
            let apart = reach <= span.start;
            reach = reach.max(span.end);
            apart && row.free(span.start, span.end) && name(i).is_some() && !negated(span) && others(i).next().is_some()
        };
        let room = match self.most < 1.0 {
            true => (self.most * words.len() as f64) as usize,
            false => usize::MAX,
        };
        let stream = draw.stream;
        let (chosen, held) = chosen(draw.rolls(row.spans.len(), None), threshold(self.rate), room, fits);
        plan.held = held;
        for i in chosen {
            let span = &row.spans[i];
            let drawn = below_at(&stream, 1, i, others(i).count() as u32) as usize;
            if let Some(entity) = others(i).nth(drawn) {
                plan.replace(text, span.start, span.end, entity);
            }
        }
        plan.finish(text);
        Ok(())
    }

    fn reads_spans(&self) -> Option<&str> {
        Some(&self.tag)
    }
}
