//! Sentence permutation (Lewis et al., "BART: Denoising sequence-to-sequence pre-training", ACL 2020).

use std::ops::Range;

use serde::Deserialize;

use super::draw::Draw;
use super::plan::{Plan, Row, TokenOp};
use super::protect::IdSet;
use crate::error::{Error, Result};
use crate::rng::Words;

/// Lets a share of a row's sentences change places among themselves. The targets are the row as it was.
#[derive(Debug)]
pub(crate) struct SentencePermute {
    ratio: f64,
    ends: Ends,
}

/// What says where a sentence ends: its last token.
#[derive(Debug)]
enum Ends {
    Ids(IdSet),
    Column(String),
    /// Spans of a tag, which are sentences; so is what lies between them.
    Spans(String),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    permute_sentence_ratio: f64,
    #[serde(default)]
    end_ids: Option<Vec<i64>>,
    #[serde(default)]
    end_column: Option<String>,
    #[serde(default)]
    sentence_tag: Option<String>,
}

const KIND: &str = "SentencePermute";

impl SentencePermute {
    pub(crate) fn new(parameters: Parameters) -> Result<Self> {
        let ends = match (parameters.end_ids, parameters.end_column, parameters.sentence_tag) {
            (Some(ids), None, None) => {
                let ids: Vec<u32> =
                    ids.into_iter().map(|id| super::token_id(KIND, "end_ids", id)).collect::<Result<_>>()?;
                Ends::Ids(IdSet::new(&ids))
            }
            (None, Some(name), None) => Ends::Column(name),
            (None, None, Some(tag)) => Ends::Spans(tag),
            _ => return Err(Error::invalid(format!("{KIND}: pass end_ids, end_column or sentence_tag, one of them"))),
        };
        Ok(SentencePermute {
            ratio: super::rate(KIND, "permute_sentence_ratio", parameters.permute_sentence_ratio)?,
            ends,
        })
    }

    /// The parts of a row in order, and whether each may move. Protected tokens at the start and at the end of the row
    /// are parts of their own; a sentence with a protected token stays.
    fn parts(&self, row: Row<'_>, marks: &mut [u8]) -> Vec<(Range<usize>, bool)> {
        let n = row.tokens.len();
        match &self.ends {
            Ends::Ids(ids) => ids.mark(row.tokens, marks),
            Ends::Column(_) => marks.copy_from_slice(row.column),
            Ends::Spans(_) => {
                marks.fill(0);
                for end in row.spans.iter().filter(|span| !span.is_empty()).flat_map(|span| [span.start, span.end]) {
                    // The token before a sentence ends one too.
                    if end > 0 {
                        marks[end - 1] = 1;
                    }
                }
            }
        }
        let shut = |i: usize| row.protected.is_some_and(|protected| protected[i] != 0);
        let first = (0..n).find(|&i| !shut(i)).unwrap_or(n);
        let last = (first..n).rfind(|&i| !shut(i)).map_or(first, |i| i + 1);
        let ends = |i: usize| marks[i] != 0 || i + 1 == last;
        let mut parts = vec![(0..first, false)];
        let mut start = first;
        for i in first..last {
            if ends(i) {
                parts.push((start..i + 1, !(start..=i).any(shut)));
                start = i + 1;
            }
        }
        parts.push((last..n, false));
        parts
    }
}

impl TokenOp for SentencePermute {
    fn restores(&self) -> bool {
        true
    }

    fn reads(&self) -> Option<(&str, usize)> {
        match &self.ends {
            Ends::Ids(_) | Ends::Spans(_) => None,
            Ends::Column(name) => Some((name, 1)),
        }
    }

    fn reads_spans(&self) -> Option<&str> {
        match &self.ends {
            Ends::Spans(tag) => Some(tag),
            _ => None,
        }
    }

    fn plan(&self, row: Row<'_>, draw: &mut Draw, plan: &mut Plan) -> Result<()> {
        let n = row.tokens.len();
        let parts = self.parts(row, draw.marks(n));
        let mut movers: Vec<usize> = (0..parts.len()).filter(|&part| parts[part].1).collect();
        let chosen = (movers.len() as f64 * self.ratio).ceil() as usize;
        shuffle(&mut movers, chosen, &mut draw.stream.words(0));
        let mut places = movers[..chosen].to_vec();
        places.sort_unstable();
        let mut order: Vec<usize> = (0..parts.len()).collect();
        for (&place, &part) in places.iter().zip(&movers) {
            order[place] = part;
        }
        let Plan { out, moved, marked, .. } = plan;
        (*moved, *marked) = (true, true);
        out.reserve(n);
        for (place, &part) in order.iter().enumerate() {
            let from = out.len;
            out.copy(row.tokens, parts[part].0.start, parts[part].0.end);
            out.edited[from..out.len].fill(u8::from(part != place));
        }
        Ok(())
    }
}

/// Brings a uniform sample of `n` items, in random order, to the front (the first steps of Fisher and Yates).
fn shuffle(items: &mut [usize], n: usize, words: &mut Words) {
    for i in 0..n {
        items.swap(i, i + words.below((items.len() - i) as u32) as usize);
    }
}
