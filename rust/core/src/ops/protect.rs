//! What no op may touch, and what becomes of spans.

use serde::Deserialize;

use super::draw::room;
use super::tokens::Column;
use super::words::WordSet;
use crate::error::{Error, Result};

/// What an op leaves alone: tokens by id, by a per-token column, by the tag of a span; words of text.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Protect {
    pub(crate) ids: Vec<u32>,
    pub(crate) columns: Vec<String>,
    pub(crate) spans: Vec<String>,
    pub(crate) words: Vec<String>,
}

impl Protect {
    /// Both: what an op says itself, and what the compositions around it say.
    pub(crate) fn union(&self, outer: &Protect) -> Protect {
        fn join<T: Clone + Ord>(a: &[T], b: &[T]) -> Vec<T> {
            let mut both = [a, b].concat();
            both.sort();
            both.dedup();
            both
        }
        Protect {
            ids: join(&self.ids, &outer.ids),
            columns: join(&self.columns, &outer.columns),
            spans: join(&self.spans, &outer.spans),
            words: join(&self.words, &outer.words),
        }
    }
}

/// What happens to a span that an op meets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SpanPolicy {
    /// It moves with its tokens: shifts, shrinks, splits, and goes when none of them is left.
    #[default]
    Follow,
    /// It goes when an edit touches it.
    Drop,
    /// No edit touches it.
    Forbid,
}

impl SpanPolicy {
    /// The policy for an op: where it moves words no span can follow, so none is touched.
    pub(super) fn of(self, moves: bool) -> SpanPolicy {
        if moves && self == SpanPolicy::Follow { SpanPolicy::Forbid } else { self }
    }
}

/// The spans of a batch, sorted by row and start; half-open, in tokens (or bytes) of the row.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spans<'a> {
    /// The row of each span.
    pub row: &'a [i64],
    /// Where it starts.
    pub start: &'a [i64],
    /// Where it ends.
    pub end: &'a [i64],
    /// Its tag as an index into [`Pipeline::tags`](super::Pipeline::tags), or -1 for a tag that nothing protects.
    pub tag: &'a [i32],
}

impl Spans<'_> {
    /// Checks order and bounds against the offsets of the batch.
    pub(crate) fn check(&self, offsets: &[i64]) -> Result<()> {
        let n = self.row.len();
        if self.start.len() != n || self.end.len() != n || self.tag.len() != n {
            return Err(Error::invalid(format!(
                "spans must have one start, end and tag per row number ({n} rows, {} starts, {} ends, {} tags)",
                self.start.len(),
                self.end.len(),
                self.tag.len()
            )));
        }
        let rows = offsets.len() as i64 - 1;
        for i in 0..n {
            let (row, start, end) = (self.row[i], self.start[i], self.end[i]);
            if !(0..rows).contains(&row) {
                return Err(Error::invalid(format!("span {i} names row {row}, and the batch has {rows} rows")));
            }
            if i > 0 && (self.row[i - 1], self.start[i - 1]) > (row, start) {
                return Err(Error::invalid(format!(
                    "spans must be sorted by row and start (span {i} is out of order)"
                )));
            }
            let length = offsets[row as usize + 1] - offsets[row as usize];
            if !(0 <= start && start <= end && end <= length) {
                return Err(Error::invalid(format!(
                    "span {i} must lie in its row (row {row} has length {length}, the span is {start}..{end})"
                )));
            }
        }
        Ok(())
    }
}

/// A span of the row at work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// Which span of the input it comes from.
    pub(crate) origin: usize,
}

/// A leaf's protection, bound to one batch: columns by number, tags by number, ids in a bit set.
#[derive(Debug)]
pub(crate) struct Shield {
    ids: IdSet,
    pub(crate) columns: Vec<usize>,
    tags: Vec<i32>,
    all_spans: bool,
    words: WordSet,
}

impl Shield {
    pub(crate) fn new(
        path: &str,
        protect: &Protect,
        policy: SpanPolicy,
        tags: &[String],
        columns: &[Column<'_>],
    ) -> Result<Self> {
        let find = |name: &String| {
            let index = columns.iter().position(|column| column.name == name.as_str()).ok_or_else(|| {
                let names: Vec<_> = columns.iter().map(|column| column.name).collect();
                Error::invalid(format!("{path}: protect names column '{name}', and the batch has {names:?}"))
            })?;
            if columns[index].width != 1 {
                return Err(Error::invalid(format!("{path}: protect needs column '{name}' as bool or uint8")));
            }
            Ok(index)
        };
        Ok(Shield {
            ids: IdSet::new(&protect.ids),
            columns: protect.columns.iter().map(find).collect::<Result<_>>()?,
            tags: tags.iter().zip(0..).filter(|(tag, _)| protect.spans.contains(tag)).map(|(_, i)| i).collect(),
            all_spans: policy == SpanPolicy::Forbid,
            words: WordSet::new(&protect.words),
        })
    }

    /// [`mask`](Self::mask) of a row of text, which may be protected by its words too.
    pub(crate) fn text_mask<'m>(
        &self,
        text: &[u8],
        spans: &[Span],
        tag: &[i32],
        mask: &'m mut Vec<u8>,
    ) -> Result<Option<&'m [u8]>> {
        if self.words.is_empty() {
            return Ok(self.mask(text.len(), &[], |_| &[], spans, tag, mask));
        }
        if self.mask(text.len(), &[], |_| &[], spans, tag, mask).is_none() {
            room(mask, text.len()).fill(0);
        }
        let row = str::from_utf8(text)
            .map_err(|error| Error::invalid(format!("text must be UTF-8 (byte {})", error.valid_up_to())))?;
        self.words.mark(row, &mut mask[..text.len()]);
        Ok(Some(&mask[..text.len()]))
    }

    /// 1 for each position that is protected; nothing where none can be. `column` gives a column of the row.
    pub(crate) fn mask<'m, 'c>(
        &self,
        n: usize,
        tokens: &[u32],
        column: impl Fn(usize) -> &'c [u8],
        spans: &[Span],
        tag: &[i32],
        mask: &'m mut Vec<u8>,
    ) -> Option<&'m [u8]> {
        let by_span = !spans.is_empty() && (self.all_spans || !self.tags.is_empty());
        if self.ids.is_empty() && self.columns.is_empty() && !by_span {
            return None;
        }
        let mask = room(mask, n);
        self.ids.mark(tokens, mask);
        for &index in &self.columns {
            for (m, &value) in mask.iter_mut().zip(column(index)) {
                *m |= u8::from(value != 0);
            }
        }
        if by_span {
            for span in spans.iter().filter(|span| self.all_spans || self.tags.contains(&tag[span.origin])) {
                mask[span.start..span.end].fill(1);
            }
        }
        Some(mask)
    }
}

/// A set of token ids: bits where they are small, a sorted list where they are not.
#[derive(Debug)]
pub(crate) enum IdSet {
    Bits(Vec<u64>),
    List(Vec<u32>),
}

impl IdSet {
    pub(crate) fn new(ids: &[u32]) -> Self {
        let most = ids.iter().copied().max().map_or(0, |id| id as usize + 1);
        if most > 1 << 22 {
            let mut list = ids.to_vec();
            list.sort_unstable();
            return IdSet::List(list);
        }
        let mut bits = vec![0u64; most.div_ceil(64)];
        for &id in ids {
            bits[id as usize / 64] |= 1 << (id % 64);
        }
        IdSet::Bits(bits)
    }

    fn is_empty(&self) -> bool {
        matches!(self, IdSet::Bits(bits) if bits.is_empty())
    }

    /// Writes 1 where a token is in the set and 0 elsewhere.
    pub(crate) fn mark(&self, tokens: &[u32], mask: &mut [u8]) {
        match self {
            IdSet::Bits(bits) if bits.is_empty() => mask.fill(0),
            IdSet::Bits(bits) => {
                for (m, &token) in mask.iter_mut().zip(tokens) {
                    *m = bits.get(token as usize / 64).map_or(0, |word| (word >> (token % 64)) as u8 & 1);
                }
            }
            IdSet::List(list) => {
                for (m, token) in mask.iter_mut().zip(tokens) {
                    *m = u8::from(list.binary_search(token).is_ok());
                }
            }
        }
    }
}
