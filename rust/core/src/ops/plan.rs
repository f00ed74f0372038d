//! What an op decides about a row, and how spans follow the decision.

use std::fmt::Debug;
use std::ops::Range;

use serde::Deserialize;

use super::Stats;
use super::draw::{Draw, room};
use super::protect::{Span, SpanPolicy};
use crate::error::Result;
use crate::tokenize::Tokenizer;

/// The label of a token that the loss ignores.
pub const IGNORE_INDEX: i32 = -100;

/// An op over rows of tokens. It draws; it moves nothing.
pub(crate) trait TokenOp: Debug + Send + Sync {
    /// Whether every output token always stands where its source stood.
    fn in_place(&self) -> bool {
        false
    }

    /// Whether the op writes the column `labels`.
    fn labels(&self) -> bool {
        false
    }

    /// Whether the op makes a second sequence.
    fn targets(&self) -> bool {
        false
    }

    /// Whether the second sequence is the row as it went into the call.
    fn restores(&self) -> bool {
        false
    }

    /// The column that the op reads, and the bytes of one value.
    fn reads(&self) -> Option<(&str, usize)> {
        None
    }

    /// The tag of the spans that the op reads.
    fn reads_spans(&self) -> Option<&str> {
        None
    }

    /// Whether an inserted token takes the column values of its left neighbour (at the start of a row, its right one)
    /// instead of the ignored ones.
    fn inherits(&self) -> bool {
        false
    }

    /// Whether words change places, so that no span can follow them.
    fn moves(&self) -> bool {
        false
    }

    /// Checks that the op can work with the tokenizer of a batch, before the first row.
    fn fits(&self, _tokenizer: Option<&Tokenizer>) -> Result<()> {
        Ok(())
    }

    /// Plans one row. The plan comes with its flags false and `len` 0; its buffers hold rubbish.
    fn plan(&self, row: Row<'_>, draw: &mut Draw, plan: &mut Plan) -> Result<()>;
}

/// What an op sees of a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row<'a> {
    pub(crate) tokens: &'a [u32],
    /// 1 for each token that the op must leave as it is.
    pub(crate) protected: Option<&'a [u8]>,
    /// The values of the column that the op [reads](TokenOp::reads), as bytes.
    pub(crate) column: &'a [u8],
    /// The spans that the op [reads](TokenOp::reads_spans), by their start.
    pub(crate) spans: &'a [Range<usize>],
    pub(crate) tokenizer: Option<&'a Tokenizer>,
}

/// What an inserted token has in columns.
#[derive(Debug, Clone, Copy, Default, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Inserted {
    /// The value that losses and ops ignore.
    #[default]
    Ignore,
    /// What its neighbour has.
    Inherit,
}

/// A sequence of output tokens; the first `len` of each buffer count.
#[derive(Debug, Clone, Default)]
pub(crate) struct Strand {
    pub(crate) len: usize,
    pub(crate) tokens: Vec<u32>,
    /// Where each token comes from in the row that was planned, or -1. Ascending but for tokens that changed places.
    pub(crate) source: Vec<i32>,
    pub(crate) edited: Vec<u8>,
}

impl Strand {
    /// Makes room for `n` tokens.
    pub(crate) fn reserve(&mut self, n: usize) {
        room(&mut self.tokens, n);
        room(&mut self.source, n);
        room(&mut self.edited, n);
    }

    /// Appends source tokens `from..to` as they are. There must be room.
    pub(crate) fn copy(&mut self, tokens: &[u32], from: usize, to: usize) {
        let at = self.len..self.len + to - from;
        self.tokens[at.clone()].copy_from_slice(&tokens[from..to]);
        for (source, i) in self.source[at.clone()].iter_mut().zip(from as i32..) {
            *source = i;
        }
        self.edited[at.clone()].fill(0);
        self.len = at.end;
    }

    /// Appends a token that comes from nowhere. There must be room.
    pub(crate) fn insert(&mut self, token: u32) {
        self.tokens[self.len] = token;
        self.source[self.len] = -1;
        self.edited[self.len] = 1;
        self.len += 1;
    }
}

/// The decision about one row.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// The output row.
    pub(crate) out: Strand,
    /// Whether `out.source` was written; if not, every token stands where it stood.
    pub(crate) moved: bool,
    /// Whether `out.edited` was written; if not, no token was chosen.
    pub(crate) marked: bool,
    /// Whether several output tokens may come from one.
    pub(crate) repeats: bool,
    /// Edits that were drawn, and held back by a limit.
    pub(crate) held: u64,
    /// Labels of the output tokens, from an op that [writes them](TokenOp::labels).
    pub(crate) labels: Vec<i32>,
    /// The second sequence, from an op that [makes one](TokenOp::targets); its `source` and `edited` are written.
    pub(crate) targets: Strand,
}

impl Plan {
    pub(crate) fn clear(&mut self) {
        self.out.len = 0;
        self.moved = false;
        self.marked = false;
        self.repeats = false;
        self.held = 0;
        self.targets.len = 0;
    }

    pub(crate) fn source(&self) -> Option<&[i32]> {
        self.moved.then(|| &self.out.source[..self.out.len])
    }

    pub(crate) fn edited(&self) -> Option<&[u8]> {
        self.marked.then(|| &self.out.edited[..self.out.len])
    }

    /// Adds what the plan does to a row of `n` tokens.
    pub(crate) fn count(&self, n: usize, stats: &mut Stats) {
        stats.rows += 1;
        stats.seen += n as u64;
        stats.held += self.held;
        stats.edited += self.edited().map_or(0, ones);
        if let Some(source) = self.source() {
            let inserted = source.iter().filter(|&&s| s < 0).count();
            stats.inserted += inserted as u64;
            let repeated = if self.repeats { repeated(source, n) } else { 0 };
            stats.deleted += (n + inserted + repeated - source.len()) as u64;
        }
    }
}

/// How many tokens come from where an earlier one comes from, in a row that had `n`.
fn repeated(source: &[i32], n: usize) -> usize {
    let mut seen = vec![false; n];
    let again = |&&s: &&i32| seen.get_mut(s as usize).is_some_and(|seen| std::mem::replace(seen, true));
    source.iter().filter(again).count()
}

/// How many of the bytes, each 0 or 1, are 1. Sums of 128 fit a byte, so the compiler adds whole vectors of them.
fn ones(bytes: &[u8]) -> u64 {
    bytes.chunks(128).map(|chunk| u64::from(chunk.iter().sum::<u8>())).sum()
}

/// Moves the spans of a row by a plan.
///
/// A span holds the output tokens that come from its tokens, and what was inserted between them. Where a token from
/// outside stands between them, it splits. An empty span stays before the token that it stood before.
pub(crate) fn move_spans(
    spans: &mut Vec<Span>,
    plan: &Plan,
    policy: SpanPolicy,
    scratch: &mut SpanScratch,
    stats: &mut Stats,
) {
    if spans.is_empty() || !(plan.moved || plan.marked) {
        return;
    }
    let Some(source) = plan.source() else {
        if policy == SpanPolicy::Drop
            && let Some(edited) = plan.edited()
        {
            let before = spans.len();
            spans.retain(|span| edited[span.start..span.end].iter().all(|&e| e == 0));
            stats.spans_dropped += (before - spans.len()) as u64;
        }
        return;
    };
    let SpanScratch { pairs, places, moved } = scratch;
    pairs.clear();
    pairs.extend(source.iter().zip(0u32..).filter(|&(&s, _)| s >= 0).map(|(&s, j)| (s, j)));
    if !pairs.is_sorted() {
        pairs.sort_unstable();
    }
    moved.clear();
    for &span in spans.iter() {
        let from = pairs.partition_point(|&(s, _)| (s as usize) < span.start);
        let to = pairs.partition_point(|&(s, _)| (s as usize) < span.end);
        if span.start == span.end {
            let at = pairs.get(from).map_or(source.len(), |&(_, j)| j as usize);
            moved.push(Span { start: at, end: at, ..span });
            continue;
        }
        places.clear();
        places.extend(pairs[from..to].iter().map(|&(_, j)| j as usize));
        if !places.is_sorted() {
            places.sort_unstable();
        }
        let inside = |a: usize, b: usize| source[a + 1..b].iter().all(|&s| s < 0);
        let runs = match places.first() {
            None => 0,
            Some(_) => 1 + places.windows(2).filter(|pair| !inside(pair[0], pair[1])).count(),
        };
        let held = match plan.repeats {
            true => pairs[from..to].chunk_by(|a, b| a.0 == b.0).count(),
            false => places.len(),
        };
        let whole = runs == 1 && held == span.end - span.start;
        if policy == SpanPolicy::Drop {
            let intact = whole
                && places[places.len() - 1] - places[0] + 1 == places.len()
                && plan.edited().is_none_or(|edited| places.iter().all(|&j| edited[j] == 0));
            if intact {
                moved.push(Span { start: places[0], end: places[places.len() - 1] + 1, ..span });
            } else {
                stats.spans_dropped += 1;
            }
            continue;
        }
        match runs {
            0 => stats.spans_dropped += 1,
            1 => stats.spans_shrunk += u64::from(!whole),
            _ => stats.spans_split += 1,
        }
        let mut open: Option<(usize, usize)> = None;
        for &place in places.iter() {
            match &mut open {
                Some((_, last)) if inside(*last, place) => *last = place,
                _ => {
                    if let Some((start, last)) = open {
                        moved.push(Span { start, end: last + 1, ..span });
                    }
                    open = Some((place, place));
                }
            }
        }
        if let Some((start, last)) = open {
            moved.push(Span { start, end: last + 1, ..span });
        }
    }
    moved.sort_by_key(|span| span.start);
    std::mem::swap(spans, moved);
}

/// Room for [`move_spans`].
#[derive(Debug, Default)]
pub(crate) struct SpanScratch {
    pairs: Vec<(i32, u32)>,
    places: Vec<usize>,
    moved: Vec<Span>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(source: &[i32], spans: &[(usize, usize)], policy: SpanPolicy) -> (Vec<(usize, usize)>, Stats) {
        let mut plan = Plan { moved: true, ..Plan::default() };
        plan.out.len = source.len();
        plan.out.source = source.to_vec();
        let mut spans: Vec<_> = spans.iter().map(|&(start, end)| Span { start, end, origin: 0 }).collect();
        let mut stats = Stats::default();
        move_spans(&mut spans, &plan, policy, &mut SpanScratch::default(), &mut stats);
        (spans.iter().map(|s| (s.start, s.end)).collect(), stats)
    }

    #[test]
    fn spans_shift_shrink_split_and_go() {
        use SpanPolicy::{Drop, Follow};
        let (spans, stats) = moved(&[1, 3, 4], &[(0, 1), (0, 3), (2, 2), (3, 5)], Follow);
        assert_eq!(spans, [(0, 1), (1, 1), (1, 3)]);
        assert_eq!((stats.spans_dropped, stats.spans_shrunk, stats.spans_split), (1, 1, 0));
        let (spans, stats) = moved(&[1, 3, 4], &[(0, 1), (0, 3), (3, 5)], Drop);
        assert_eq!((spans, stats.spans_dropped), (vec![(1, 3)], 2));
        // Tokens 1 and 2 changed places: the span of 0 and 1 now holds a stranger.
        let (spans, stats) = moved(&[0, 2, 1], &[(0, 2), (1, 3)], Follow);
        assert_eq!(spans, [(0, 1), (1, 3), (2, 3)]);
        assert_eq!(stats.spans_split, 1);
        // An insertion within is part of the span, one at its edge is not; Drop minds the first.
        assert_eq!(moved(&[-1, 0, -1, 1, -1], &[(0, 2)], Follow).0, [(1, 4)]);
        assert_eq!(moved(&[-1, 0, -1, 1, -1], &[(0, 2)], Drop).0, []);
        assert_eq!(moved(&[-1, 0, 1, -1], &[(0, 2)], Drop).0, [(1, 3)]);
    }
}
