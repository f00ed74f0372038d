//! Running a pipeline over rows of text.

use std::fmt::Debug;
use std::ops::Range;

use super::compose::{Keys, Leaves, Lineage, Node, Pipeline, Work};
use super::draw::Draw;
use super::graphemes::{self, boundary, joint};
use super::protect::{Shield, Span, SpanPolicy, Spans};
use super::tokens::{GRAIN, LineageOut, SpansOut, append_offsets, check_rows, read_spans};
use super::{Call, Stats};
use crate::error::{Error, Result};
use crate::ragged::Ragged;
use crate::rng::Stream;
use crate::room::with_room;
use crate::{par, simd};

/// An op over rows of text. It draws and writes; the edits that it lists move everything else.
pub(super) trait TextOp: Debug + Send + Sync {
    /// Plans one row; the plan comes empty. The text in and out is UTF-8. Edits are ascending and apart, and what lies
    /// between them is the source's.
    fn plan(&self, row: TextRow<'_>, draw: &mut Draw, plan: &mut TextPlan) -> Result<()>;

    /// Whether words change places, so that no span can follow them.
    fn moves(&self) -> bool {
        false
    }

    /// The tag of the spans that the op reads.
    fn reads_spans(&self) -> Option<&str> {
        None
    }
}

/// What an op sees of a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct TextRow<'a> {
    pub(super) text: &'a [u8],
    /// 1 for each byte that the op must leave as it is.
    pub(super) protected: Option<&'a [u8]>,
    /// The spans that the op [reads](TextOp::reads_spans), by their start.
    pub(super) spans: &'a [Range<usize>],
}

impl<'a> TextRow<'a> {
    /// The row as a string.
    pub(super) fn text(&self) -> Result<&'a str> {
        str::from_utf8(self.text)
            .map_err(|error| Error::invalid(format!("text must be UTF-8 (byte {})", error.valid_up_to())))
    }

    /// Whether nothing in `start..end` is protected.
    pub(super) fn free(&self, start: usize, end: usize) -> bool {
        self.protected.is_none_or(|mask| mask[start..end].iter().all(|&m| m == 0))
    }

    /// Whether something may be inserted at a byte: not between two that are protected.
    pub(super) fn open(&self, at: usize) -> bool {
        self.protected.is_none_or(|mask| at == 0 || at == mask.len() || mask[at - 1] == 0 || mask[at] == 0)
    }

    /// The letter that starts at a byte, if a grapheme cluster starts with it that may be edited.
    pub(super) fn letter(&self, text: &str, at: usize) -> Option<Letter> {
        let char = graphemes::char_at(text, at).filter(|c| c.is_alphabetic())?;
        if !boundary(text, at) {
            return None;
        }
        let end = graphemes::cluster_end(text, at);
        self.free(at, end).then_some(Letter { char, start: at, end })
    }
}

/// A letter with the marks that it carries.
#[derive(Debug, Clone, Copy)]
pub(super) struct Letter {
    pub(super) char: char,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Letter {
    /// Whether it carries no mark.
    pub(super) fn bare(self) -> bool {
        self.end - self.start == self.char.len_utf8()
    }
}

/// The decision about one row.
#[derive(Debug, Default)]
pub(super) struct TextPlan {
    pub(super) text: Vec<u8>,
    pub(super) edits: Vec<Edit>,
    /// Edits that were drawn, and held back by a limit.
    pub(super) held: u64,
}

impl TextPlan {
    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.edits.clear();
        self.held = 0;
    }

    /// Puts `with` in the place of `start..end`, and returns true; or does nothing where that would cut a grapheme
    /// cluster or join two. Edits come in ascending order.
    pub(super) fn replace(&mut self, text: &str, start: usize, end: usize, with: &str) -> bool {
        let (bytes, from) = (text.as_bytes(), self.text.len());
        if !boundary(text, start) || !boundary(text, end) {
            return false;
        }
        self.text.extend_from_slice(&bytes[self.done()..start]);
        let clean = joint(&self.text, with.as_bytes());
        self.text.extend_from_slice(with.as_bytes());
        if !clean || !joint(&self.text, &bytes[end..]) {
            self.text.truncate(from);
            return false;
        }
        match self.edits.last_mut() {
            Some(last) if last.end == start && (start == end || last.start == last.end) => {
                last.end = end;
                last.length += with.len();
            }
            _ => self.edits.push(Edit { start, end, length: with.len() }),
        }
        true
    }

    /// How much of the source the plan has dealt with.
    pub(super) fn done(&self) -> usize {
        self.edits.last().map_or(0, |edit| edit.end)
    }

    /// Copies what comes after the last edit.
    pub(super) fn finish(&mut self, text: &str) {
        self.text.extend_from_slice(&text.as_bytes()[self.done()..]);
    }
}

/// `length` bytes stand where `start..end` stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Edit {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) length: usize,
}

/// A batch of text, borrowed.
#[derive(Debug, Clone)]
pub struct Texts<'a> {
    text: Ragged<'a, u8>,
    ids: &'a [u64],
    spans: Option<Spans<'a>>,
}

impl<'a> Texts<'a> {
    /// Rows of UTF-8 and their ids.
    ///
    /// # Errors
    /// If a row is not UTF-8 or longer than 2^30 bytes, or there is not one id per row.
    pub fn new(text: Ragged<'a, u8>, ids: &'a [u64]) -> Result<Self> {
        check_rows(text.offsets(), ids)?;
        crate::text::check(text)?;
        Ok(Texts { text, ids, spans: None })
    }

    /// Adds the spans.
    ///
    /// # Errors
    /// If one lies outside its row, or they are not sorted by row and start.
    pub fn spans(mut self, spans: Spans<'a>) -> Result<Self> {
        spans.check(self.text.offsets())?;
        self.spans = Some(spans);
        Ok(self)
    }
}

/// What a pipeline makes of a batch of text. What is `None` was not asked for, or is as it was.
#[derive(Debug, Default)]
pub struct TextsOut {
    /// The text.
    pub text: Vec<u8>,
    /// The offsets.
    pub offsets: Vec<i64>,
    /// The spans, if the batch has them.
    pub spans: Option<SpansOut>,
    /// What was edited, in bytes of the input.
    pub edits: Option<EditRuns>,
    /// The rows, where they are not those of the input.
    pub lineage: Option<LineageOut>,
    /// What each op did, in the order of [`Pipeline::paths`].
    pub stats: Vec<Stats>,
}

/// Runs of a source row and how long what replaced them is; all else is as it was.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct EditRuns {
    /// The row of each run.
    pub row: Vec<i64>,
    /// Where it starts in the source.
    pub start: Vec<i64>,
    /// Where it ends in the source.
    pub end: Vec<i64>,
    /// Bytes that replaced it.
    pub length: Vec<i64>,
}

impl Pipeline {
    /// Runs over a batch of text.
    ///
    /// # Errors
    /// If the pipeline works on tokens, or protects tokens by id or column.
    pub fn run_texts(&self, batch: &Texts<'_>, call: Call) -> Result<TextsOut> {
        let Leaves::Text(nodes, _) = &self.leaves else {
            return Err(Error::invalid(format!(
                "{} works on tokens, and this is a batch of text: encode it with a tokenizer first",
                self.paths()[0]
            )));
        };
        if let Some(node) = nodes.iter().find(|node| !(node.protect.ids.is_empty() && node.protect.columns.is_empty()))
        {
            return Err(Error::invalid(format!(
                "{}: protect.ids and protect.columns name tokens, and this is a batch of text: protect spans",
                node.path
            )));
        }
        let shields: Vec<Shield> = nodes
            .iter()
            .map(|node| {
                let policy = node.spans.of(node.op.moves());
                Shield::new(&node.path, &node.protect, policy, self.tags(), &[])
            })
            .collect::<Result<_>>()?;
        let read_spans = nodes.iter().map(|node| node.op.reads_spans().and_then(|name| self.tag(name))).collect();
        let shape = Shape { pipeline: self, nodes, batch, call, keys: self.keys(&call), shields, read_spans };
        let chunks = par::map_rows(batch.text.offsets(), 4 * GRAIN, |rows| shape.run(rows));
        let mut chunks = chunks.into_iter();
        let mut out = chunks.next().transpose()?.unwrap_or_default();
        for chunk in chunks {
            out.append(chunk?);
        }
        Ok(out)
    }
}

impl TextsOut {
    fn append(&mut self, other: TextsOut) {
        let rows = self.offsets.len() as i64 - 1;
        self.text.extend_from_slice(&other.text);
        append_offsets(&mut self.offsets, &other.offsets);
        if let (Some(all), Some(more)) = (&mut self.spans, other.spans) {
            all.append(&more, 0..more.row.len(), rows);
        }
        if let (Some(all), Some(more)) = (&mut self.edits, other.edits) {
            all.row.extend(more.row.into_iter().map(|row| row + rows));
            all.start.extend(more.start);
            all.end.extend(more.end);
            all.length.extend(more.length);
        }
        if let (Some(all), Some(more)) = (&mut self.lineage, other.lineage) {
            all.append(&more, 0..more.ids.len());
        }
        for (sum, stats) in self.stats.iter_mut().zip(&other.stats) {
            sum.add(stats);
        }
    }
}

/// A pipeline bound to a batch: what every task reads.
struct Shape<'a> {
    pipeline: &'a Pipeline,
    nodes: &'a [Node<dyn TextOp>],
    batch: &'a Texts<'a>,
    call: Call,
    keys: Keys,
    shields: Vec<Shield>,
    /// The number of the span tag that each op reads.
    read_spans: Vec<Option<i32>>,
}

impl Shape<'_> {
    fn run(&self, rows: Range<usize>) -> Result<TextsOut> {
        let batch = self.batch;
        let offsets = batch.text.offsets();
        let spans = batch.spans.unwrap_or_default();
        let mut next_span = spans.row.partition_point(|&row| row < rows.start as i64);
        let mut work = Worker {
            shape: self,
            row: rows.start,
            state: State::default(),
            plan: TextPlan::default(),
            draw: Draw::new(simd::level()),
            mask: Vec::new(),
            spans_read: Vec::new(),
            out: TextsOut {
                text: with_room((offsets[rows.end] - offsets[rows.start]) as usize),
                offsets: vec![0],
                spans: batch.spans.map(|_| SpansOut::default()),
                edits: self.call.return_source.then(EditRuns::default),
                lineage: self.pipeline.repeats.then(LineageOut::default),
                stats: vec![Stats::default(); self.nodes.len()],
            },
        };
        for row in rows {
            work.row = row;
            work.state.fresh = true;
            work.state.edits.clear();
            work.state.spans.clear();
            while next_span < spans.row.len() && spans.row[next_span] == row as i64 {
                let (start, end) = (spans.start[next_span] as usize, spans.end[next_span] as usize);
                work.state.spans.push(Span { start, end, origin: next_span });
                next_span += 1;
            }
            self.pipeline.run(batch.ids[row], &self.keys, &mut work)?;
        }
        Ok(work.out)
    }
}

/// A row on its way through the steps.
#[derive(Debug, Clone, Default)]
struct State {
    /// Whether the row is still the input's.
    fresh: bool,
    text: Vec<u8>,
    edits: Vec<Edit>,
    spans: Vec<Span>,
}

struct Worker<'a> {
    shape: &'a Shape<'a>,
    row: usize,
    state: State,
    plan: TextPlan,
    draw: Draw,
    mask: Vec<u8>,
    spans_read: Vec<Range<usize>>,
    out: TextsOut,
}

impl Work for Worker<'_> {
    type Saved = State;

    fn op(&mut self, leaf: usize, key: u64, id: u64) -> Result<()> {
        let Worker { shape, row, state, plan, draw, mask, spans_read, out } = self;
        let node = &shape.nodes[leaf];
        let stats = &mut out.stats[leaf];
        let text = if state.fresh { shape.batch.text.row(*row) } else { &state.text };
        let tag = shape.batch.spans.map_or(&[][..], |spans| spans.tag);
        let protected = shape.shields[leaf].text_mask(text, &state.spans, tag, mask)?;
        draw.stream = Stream::new(key, shape.keys.epoch(), id);
        plan.clear();
        read_spans(shape.read_spans[leaf], &state.spans, tag, spans_read);
        node.op.plan(TextRow { text, protected, spans: spans_read }, draw, plan)?;
        stats.rows += 1;
        stats.seen += text.len() as u64;
        stats.edited += plan.edits.len() as u64;
        stats.held += plan.held;
        for edit in &plan.edits {
            let before = edit.end - edit.start;
            stats.deleted += before.saturating_sub(edit.length) as u64;
            stats.inserted += edit.length.saturating_sub(before) as u64;
        }
        move_spans(&mut state.spans, &plan.edits, node.spans, stats);
        if state.edits.is_empty() {
            std::mem::swap(&mut state.edits, &mut plan.edits);
        } else {
            state.edits = compose(&state.edits, &plan.edits);
        }
        std::mem::swap(&mut state.text, &mut plan.text);
        state.fresh = false;
        Ok(())
    }

    fn save(&self) -> State {
        self.state.clone()
    }

    fn restore(&mut self, saved: &State) {
        self.state.clone_from(saved);
    }

    fn emit(&mut self, lineage: Lineage) {
        let Worker { shape, row, state, out, .. } = self;
        let number = out.offsets.len() as i64 - 1;
        out.text.extend_from_slice(if state.fresh { shape.batch.text.row(*row) } else { &state.text });
        out.offsets.push(out.text.len() as i64);
        if let Some(all) = &mut out.spans {
            all.push(number, &state.spans);
        }
        if let Some(all) = &mut out.edits {
            for edit in &state.edits {
                all.row.push(number);
                all.start.push(edit.start as i64);
                all.end.push(edit.end as i64);
                all.length.push(edit.length as i64);
            }
        }
        if let Some(all) = &mut out.lineage {
            all.push(*row, lineage);
        }
    }
}

/// Edits of a text, and then edits of what came out, as edits of the text.
///
/// Edits of the two lists that overlap, or where an empty one touches another, become one.
fn compose(first: &[Edit], second: &[Edit]) -> Vec<Edit> {
    // Both lists as ranges of the text between them: where it starts, where it ends, what it was, what it will be.
    let mut shift = 0isize;
    let mut ranges: Vec<(usize, usize, usize, usize)> = Vec::with_capacity(first.len() + second.len());
    for edit in first {
        let start = edit.start.wrapping_add_signed(shift);
        ranges.push((start, start + edit.length, edit.end - edit.start, edit.length));
        shift += edit.length as isize - (edit.end - edit.start) as isize;
    }
    ranges.extend(second.iter().map(|edit| (edit.start, edit.end, edit.end - edit.start, edit.length)));
    ranges.sort_by_key(|&(start, end, ..)| (start, end));
    let mut joined: Vec<Joined> = Vec::with_capacity(ranges.len());
    for (start, end, before, after) in ranges {
        match joined.last_mut() {
            Some(last) if start < last.end || start == last.end && (start == end || last.start == last.end) => {
                last.before += before as isize - (end - start) as isize;
                last.after += after as isize - (end - start) as isize;
                last.end = last.end.max(end);
            }
            _ => joined.push(Joined {
                start,
                end,
                before: before as isize - (end - start) as isize,
                after: after as isize - (end - start) as isize,
            }),
        }
    }
    let mut shift = 0isize;
    joined
        .into_iter()
        .map(|Joined { start, end, before, after }| {
            let from = start.wrapping_add_signed(shift);
            shift += before;
            Edit {
                start: from,
                end: from + (end - start).wrapping_add_signed(before),
                length: (end - start).wrapping_add_signed(after),
            }
        })
        .collect()
}

/// A range of the text between two lists of edits, and how much longer it was before and is after.
struct Joined {
    start: usize,
    end: usize,
    before: isize,
    after: isize,
}

/// Moves the spans of a row. What is inserted at the edge of a span is outside it; where a span's edge lies within an
/// edit, it lies as far within the replacement, or at its end.
fn move_spans(spans: &mut Vec<Span>, edits: &[Edit], policy: SpanPolicy, stats: &mut Stats) {
    if spans.is_empty() || edits.is_empty() {
        return;
    }
    // How far everything after edit i moves, by the edits up to it.
    let mut ends = Vec::with_capacity(edits.len());
    let mut shift = 0isize;
    for edit in edits {
        shift += edit.length as isize - (edit.end - edit.start) as isize;
        ends.push(shift);
    }
    let place = |at: usize, done: usize| {
        let shift = if done == 0 { 0 } else { ends[done - 1] };
        match edits.get(done) {
            Some(edit) if edit.start < at => edit.start.wrapping_add_signed(shift) + (at - edit.start).min(edit.length),
            _ => at.wrapping_add_signed(shift),
        }
    };
    let mut dropped = 0;
    spans.retain_mut(|span| {
        let before = edits.partition_point(|edit| edit.end <= span.start);
        let after = edits.partition_point(|edit| edit.start < span.end);
        let last = edits.partition_point(|edit| edit.end <= span.end).min(after);
        let touched = before < after;
        let start = place(span.start, before);
        let end = place(span.end, last).max(start);
        if span.start < span.end && (start == end || policy == SpanPolicy::Drop && touched) {
            dropped += 1;
            return false;
        }
        stats.spans_shrunk += u64::from(end - start < span.end - span.start);
        (span.start, span.end) = (start, end);
        true
    });
    stats.spans_dropped += dropped;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Edits as (bytes to pass, bytes to replace, bytes in their place), cut to a text.
    fn edits(steps: &[(usize, usize, usize)], n: usize) -> Vec<Edit> {
        let mut at = 0;
        let mut out = Vec::new();
        for &(pass, replace, length) in steps {
            let start = at + pass + 1;
            if start + replace > n {
                break;
            }
            if replace + length > 0 {
                out.push(Edit { start, end: start + replace, length });
            }
            at = start + replace;
        }
        out
    }

    /// The text after edits: what was copied, and a fresh sign for what was written.
    fn apply(text: &[Option<usize>], edits: &[Edit]) -> Vec<Option<usize>> {
        let (mut out, mut at) = (Vec::new(), 0);
        for edit in edits {
            out.extend_from_slice(&text[at..edit.start]);
            out.extend(std::iter::repeat_n(None, edit.length));
            at = edit.end;
        }
        out.extend_from_slice(&text[at..]);
        out
    }

    fn steps() -> impl Strategy<Value = Vec<(usize, usize, usize)>> {
        prop::collection::vec((0usize..4, 0usize..4, 0usize..4), 0..6)
    }

    proptest! {
        #[test]
        fn composed_edits_are_one_edit_after_the_other(a in steps(), b in steps()) {
            let text: Vec<Option<usize>> = (0..30).map(Some).collect();
            let first = edits(&a, text.len());
            let middle = apply(&text, &first);
            let second = edits(&b, middle.len());
            let end = apply(&middle, &second);
            let both = compose(&first, &second);
            let direct = apply(&text, &both);
            prop_assert_eq!(direct.len(), end.len());
            // What the composition says was copied was copied; a joined run may hold more.
            for (direct, end) in direct.iter().zip(&end) {
                prop_assert!(direct.is_none() || direct == end);
            }
            prop_assert!(both.windows(2).all(|pair| pair[0].end <= pair[1].start));
        }

        #[test]
        fn spans_hold_what_they_held(steps in steps(), start in 0usize..30, length in 1usize..30) {
            let span = Span { start, end: (start + length).min(30), origin: 0 };
            let text: Vec<Option<usize>> = (0..30).map(Some).collect();
            let edits = edits(&steps, 30);
            let out = apply(&text, &edits);
            let mut spans = vec![span];
            move_spans(&mut spans, &edits, SpanPolicy::Follow, &mut Stats::default());
            let held: Vec<usize> = out.iter().flatten().copied().filter(|i| (span.start..span.end).contains(i)).collect();
            match spans.first() {
                None => prop_assert!(held.is_empty()),
                Some(moved) => {
                    let now: Vec<usize> = out[moved.start..moved.end].iter().flatten().copied().collect();
                    prop_assert_eq!(now, held);
                }
            }
        }
    }
}
