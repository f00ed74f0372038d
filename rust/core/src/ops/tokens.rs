//! Running a pipeline over rows of tokens: the apply that follows every plan.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::compose::{Keys, Leaves, Lineage, Node, Pipeline, Work};
use super::draw::{Draw, room};
use super::plan::{IGNORE_INDEX, Plan, Row, SpanScratch, Strand, TokenOp, move_spans};
use super::protect::{Shield, Span, SpanPolicy, Spans};
use super::{Call, Stats};
use crate::error::{Error, Result};
use crate::par::{self, Folded, Shared};
use crate::ragged::{MAX_ROW, Ragged};
use crate::room::with_room;
use crate::simd;
use crate::tokenize::Tokenizer;

/// A column with one value per token, as bytes.
#[derive(Debug, Clone, Copy)]
pub struct Column<'a> {
    /// Its name.
    pub name: &'a str,
    /// The values in native byte order.
    pub bytes: &'a [u8],
    /// Bytes per value: 1, 2, 4 or 8.
    pub width: usize,
    /// The value of a token that comes from nowhere, in the first `width` bytes.
    pub fill: [u8; 8],
}

/// A batch of tokens, borrowed.
#[derive(Debug, Clone)]
pub struct Tokens<'a> {
    tokens: Ragged<'a, u32>,
    ids: &'a [u64],
    columns: Vec<Column<'a>>,
    spans: Option<Spans<'a>>,
    tokenizer: Option<&'a Tokenizer>,
}

impl<'a> Tokens<'a> {
    /// Rows and their ids.
    ///
    /// # Errors
    /// If there is not one id per row, or a row is longer than 2^30 tokens.
    pub fn new(tokens: Ragged<'a, u32>, ids: &'a [u64]) -> Result<Self> {
        check_rows(tokens.offsets(), ids)?;
        Ok(Tokens { tokens, ids, columns: Vec::new(), spans: None, tokenizer: None })
    }

    /// Adds a column.
    ///
    /// # Errors
    /// If it does not hold one value per token, or its values are not 1, 2, 4 or 8 bytes wide.
    pub fn column(mut self, column: Column<'a>) -> Result<Self> {
        let Column { name, bytes, width, .. } = column;
        if ![1, 2, 4, 8].contains(&width) {
            return Err(Error::invalid(format!(
                "column '{name}' must have values of 1, 2, 4 or 8 bytes (they have {width})"
            )));
        }
        let n = self.tokens.values().len();
        if bytes.len() != n * width {
            let found = bytes.len() / width;
            return Err(Error::invalid(format!(
                "column '{name}' must hold one value per token ({found} for {n} tokens)"
            )));
        }
        self.columns.push(column);
        Ok(self)
    }

    /// Adds the tokenizer that made the tokens, for ops that need one.
    pub fn tokenizer(mut self, tokenizer: &'a Tokenizer) -> Self {
        self.tokenizer = Some(tokenizer);
        self
    }

    /// Adds the spans.
    ///
    /// # Errors
    /// If one lies outside its row, or they are not sorted by row and start.
    pub fn spans(mut self, spans: Spans<'a>) -> Result<Self> {
        spans.check(self.tokens.offsets())?;
        self.spans = Some(spans);
        Ok(self)
    }
}

pub(super) fn check_rows(offsets: &[i64], ids: &[u64]) -> Result<()> {
    let rows = offsets.len() - 1;
    if ids.len() != rows {
        return Err(Error::invalid(format!("ids must hold one number per row ({} for {rows} rows)", ids.len())));
    }
    match offsets.windows(2).position(|pair| pair[1] - pair[0] > MAX_ROW as i64) {
        Some(row) => Err(Error::invalid(format!("row {row} is longer than {MAX_ROW}"))),
        None => Ok(()),
    }
}

/// What a pipeline makes of a batch of tokens. What is `None` is as it was in the input.
#[derive(Debug, Default)]
pub struct TokensOut {
    /// The tokens.
    pub tokens: Vec<u32>,
    /// The offsets.
    pub offsets: Option<Vec<i64>>,
    /// The columns that changed: number in the input (one past the last for new `labels`) and bytes.
    pub columns: Vec<(usize, Vec<u8>)>,
    /// Per output token, the index in its input row of the token it comes from, or -1.
    pub source: Option<Vec<i32>>,
    /// Per output token, 1 where an op chose it.
    pub edited: Option<Vec<u8>>,
    /// The spans.
    pub spans: Option<SpansOut>,
    /// The second sequence.
    pub targets: Option<TargetsOut>,
    /// The rows, where they are not those of the input.
    pub lineage: Option<LineageOut>,
    /// What each op did, in the order of [`Pipeline::paths`].
    pub stats: Vec<Stats>,
    rows: i64,
}

/// Spans of a result.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct SpansOut {
    /// The row of each span.
    pub row: Vec<i64>,
    /// Where it starts.
    pub start: Vec<i64>,
    /// Where it ends.
    pub end: Vec<i64>,
    /// Which span of the input it comes from.
    pub origin: Vec<i64>,
}

impl SpansOut {
    pub(super) fn push(&mut self, row: i64, spans: &[Span]) {
        for span in spans {
            self.row.push(row);
            self.start.push(span.start as i64);
            self.end.push(span.end as i64);
            self.origin.push(span.origin as i64);
        }
    }

    /// Appends some spans of another result, whose rows now come `rows` later.
    pub(super) fn append(&mut self, other: &SpansOut, some: Range<usize>, rows: i64) {
        self.row.extend(other.row[some.clone()].iter().map(|row| row + rows));
        self.start.extend(&other.start[some.clone()]);
        self.end.extend(&other.end[some.clone()]);
        self.origin.extend(&other.origin[some]);
    }
}

/// The second sequence of an objective; its columns are those of the batch.
#[derive(Debug, Default)]
pub struct TargetsOut {
    /// The tokens.
    pub tokens: Vec<u32>,
    /// The offsets.
    pub offsets: Vec<i64>,
    /// Number and bytes of each column.
    pub columns: Vec<(usize, Vec<u8>)>,
    /// As in [`TokensOut`].
    pub source: Option<Vec<i32>>,
    /// As in [`TokensOut`].
    pub edited: Option<Vec<u8>>,
}

/// Where the rows of a result come from.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LineageOut {
    /// The ids of the rows.
    pub ids: Vec<u64>,
    /// The number of the input row.
    pub row: Vec<i64>,
    /// The id of the row that this one is a variant of.
    pub parent: Vec<u64>,
    /// Which variant it is.
    pub variant: Vec<i32>,
}

impl LineageOut {
    pub(super) fn push(&mut self, row: usize, lineage: Lineage) {
        self.ids.push(lineage.id);
        self.row.push(row as i64);
        self.parent.push(lineage.parent);
        self.variant.push(lineage.variant as i32);
    }

    /// Appends some rows of another result.
    pub(super) fn append(&mut self, other: &LineageOut, some: Range<usize>) {
        self.ids.extend(&other.ids[some.clone()]);
        self.row.extend(&other.row[some.clone()]);
        self.parent.extend(&other.parent[some.clone()]);
        self.variant.extend(&other.variant[some]);
    }
}

/// Elements per parallel task: enough to forget what a task costs, few enough to share.
pub(super) const GRAIN: usize = 1 << 15;

impl Pipeline {
    /// Runs over a batch of tokens.
    ///
    /// # Errors
    /// If an op needs another tokenizer than the batch has, if a protected column is not in the batch, or if a token does not fit a label.
    pub fn run_tokens(&self, batch: &Tokens<'_>, call: Call) -> Result<TokensOut> {
        let (Leaves::Token(nodes) | Leaves::Text(_, nodes)) = &self.leaves;
        nodes.iter().try_for_each(|node| node.op.fits(batch.tokenizer))?;
        let in_place = nodes.iter().all(|node| node.op.in_place()) && !self.repeats;
        let writes_labels = nodes.iter().find(|node| node.op.labels());
        let labels = match writes_labels {
            None => None,
            Some(node) => match batch.columns.iter().position(|column| column.name == "labels") {
                Some(index) if batch.columns[index].width != 4 => {
                    return Err(Error::invalid(format!("{}: column 'labels' must be int32", node.path)));
                }
                found => Some(found.unwrap_or(batch.columns.len())),
            },
        };
        let shields: Vec<Shield> = nodes
            .iter()
            .map(|node| {
                let policy = node.spans.of(node.op.moves());
                Shield::new(&node.path, &node.protect, policy, self.tags(), &batch.columns)
            })
            .collect::<Result<_>>()?;
        let reads = nodes.iter().map(|node| read(node, batch)).collect::<Result<_>>()?;
        let read_spans = nodes.iter().map(|node| node.op.reads_spans().and_then(|name| self.tag(name))).collect();
        let columns = batch.columns.len().max(labels.map_or(0, |index| index + 1));
        let drops = nodes.iter().any(|node| node.spans == SpanPolicy::Drop);
        let shape = Shape {
            pipeline: self,
            nodes,
            batch,
            call,
            keys: self.keys(&call),
            shields,
            reads,
            read_spans,
            labels,
            columns,
            emitted: if in_place { labels.into_iter().collect() } else { (0..columns).collect() },
            in_place,
            spans: batch.spans.is_some() && (!in_place || drops),
            targets: self.targets(),
            restores: nodes.iter().any(|node| node.op.restores()),
        };
        let rows = batch.tokens.offsets();
        // Where every row keeps its length, each thread knows where its rows go.
        let placed = (in_place && par::splits(rows, GRAIN)).then(|| Placed::new(&shape));
        let work = |thread: usize| Worker::new(&shape, thread, placed.as_ref());
        let mut out = assemble(par::fold_rows(rows, GRAIN, work, Worker::run))?;
        if let Some(placed) = placed {
            placed.finish(&mut out);
        }
        Ok(out)
    }
}

/// What a result with rows of known places is written into.
struct Placed {
    tokens: Shared<u32>,
    columns: Vec<Shared<u8>>,
    source: Option<Shared<i32>>,
    edited: Option<Shared<u8>>,
}

impl Placed {
    fn new(shape: &Shape<'_>) -> Self {
        let n = shape.batch.tokens.values().len();
        let traced = shape.call.return_source;
        Placed {
            tokens: Shared::new(n),
            columns: shape.emitted.iter().map(|&index| Shared::new(n * shape.column(index).1)).collect(),
            source: traced.then(|| Shared::new(n)),
            edited: traced.then(|| Shared::new(n)),
        }
    }

    /// Moves what a thread made of rows that start at token `at` to its place.
    ///
    /// # Safety
    /// No other call may do so for these rows.
    unsafe fn write(&self, at: usize, out: &mut TokensOut, shape: &Shape<'_>) {
        // SAFETY: the places of rows do not overlap.
        unsafe {
            self.tokens.write(at, &out.tokens);
            for (all, (index, values)) in self.columns.iter().zip(&out.columns) {
                all.write(at * shape.column(*index).1, values);
            }
            if let (Some(all), Some(values)) = (&self.source, &out.source) {
                all.write(at, values);
            }
            if let (Some(all), Some(values)) = (&self.edited, &out.edited) {
                all.write(at, values);
            }
        }
        out.clear();
    }

    /// Puts the whole into a result, once every row was written.
    fn finish(self, out: &mut TokensOut) {
        out.tokens = self.tokens.finish();
        for ((_, values), all) in out.columns.iter_mut().zip(self.columns) {
            *values = all.finish();
        }
        out.source = self.source.map(Shared::finish);
        out.edited = self.edited.map(Shared::finish);
    }
}

/// What all threads made, in the order of the rows: behind what the first one made, the ranges of the others.
fn assemble(folded: Vec<Folded<Worker<'_>>>) -> Result<TokensOut> {
    let mut ranges = Vec::new();
    let mut outs = Vec::new();
    let mut failed: Option<(usize, Error)> = None;
    for (thread, Folded { state, ranges: numbers }) in folded.into_iter().enumerate() {
        if let Some(error) = state.failed {
            let number = numbers[state.marks.len() - 1];
            if failed.as_ref().is_none_or(|first| number < first.0) {
                failed = Some((number, error));
            }
        }
        if thread > 0 {
            let pairs = state.marks.windows(2).map(|pair| [pair[0], pair[1]]);
            ranges.extend(numbers.into_iter().zip(pairs).map(|(number, marks)| (number, thread - 1, marks)));
        }
        outs.push(state.out);
    }
    if let Some((_, error)) = failed {
        return Err(error);
    }
    let others = outs.split_off(1);
    let mut out = outs.pop().unwrap_or_default();
    ranges.sort_unstable_by_key(|range| range.0);
    let parts: Vec<_> =
        ranges.into_iter().map(|(_, thread, [from, to])| Part { out: &others[thread], from, to }).collect();
    out.append(&parts);
    for other in others {
        for (sum, stats) in out.stats.iter_mut().zip(&other.stats) {
            sum.add(stats);
        }
        other.keep();
    }
    Ok(out)
}

/// Buffers of threads other than the first, for later calls: memory that is used again need not be faulted in again.
/// A forked child, which has one thread, never locks it.
static KEPT: Mutex<Vec<TokensOut>> = Mutex::new(Vec::new());
/// The tokens that a kept result may have room for.
const KEEP: usize = 1 << 21;

/// How much a result held at some moment.
#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    rows: usize,
    tokens: usize,
    targets: usize,
    spans: usize,
}

/// The part of a result between two moments.
#[derive(Debug, Clone, Copy)]
struct Part<'a> {
    out: &'a TokensOut,
    from: Mark,
    to: Mark,
}

/// The number of the column that an op reads.
fn read(node: &Node<dyn TokenOp>, batch: &Tokens<'_>) -> Result<Option<usize>> {
    let Some((name, width)) = node.op.reads() else { return Ok(None) };
    let path = &node.path;
    let index = batch.columns.iter().position(|column| column.name == name).ok_or_else(|| {
        let names: Vec<_> = batch.columns.iter().map(|column| column.name).collect();
        Error::invalid(format!("{path} reads column '{name}', and the batch has {names:?}"))
    })?;
    if batch.columns[index].width != width {
        let dtype = if width == 4 { "int32" } else { "bool or uint8" };
        return Err(Error::invalid(format!("{path} needs column '{name}' as {dtype}")));
    }
    Ok(Some(index))
}

impl TokensOut {
    fn mark(&self) -> Mark {
        Mark {
            rows: self.rows as usize,
            tokens: self.tokens.len(),
            targets: self.targets.as_ref().map_or(0, |targets| targets.tokens.len()),
            spans: self.spans.as_ref().map_or(0, |spans| spans.row.len()),
        }
    }

    /// Empties what has a value per token.
    fn clear(&mut self) {
        self.tokens.clear();
        self.columns.iter_mut().for_each(|column| column.1.clear());
        self.source.iter_mut().for_each(Vec::clear);
        self.edited.iter_mut().for_each(Vec::clear);
    }

    /// Leaves the buffers to a later call.
    fn keep(self) {
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < par::threads() && self.tokens.capacity() <= KEEP {
            kept.push(self);
        }
    }

    /// Appends parts of other results, but for their statistics.
    fn append(&mut self, parts: &[Part<'_>]) {
        type At = fn(&Mark) -> usize;
        /// Values with a fixed number for each of what `at` counts.
        fn values<T: Copy + Send + Sync>(
            all: &mut Vec<T>,
            parts: &[Part<'_>],
            at: At,
            of: impl Fn(&TokensOut) -> Option<&Vec<T>>,
        ) {
            let mut slices = Vec::with_capacity(parts.len());
            for part in parts {
                if let Some(values) = of(part.out) {
                    let width = values.len() / at(&part.out.mark()).max(1);
                    slices.push(&values[at(&part.from) * width..at(&part.to) * width]);
                }
            }
            par::append(all, &slices);
        }
        let tokens: At = |mark| mark.tokens;
        values(&mut self.tokens, parts, tokens, |out| Some(&out.tokens));
        for (index, (_, all)) in self.columns.iter_mut().enumerate() {
            values(all, parts, tokens, |out| out.columns.get(index).map(|column| &column.1));
        }
        if let (Some(source), Some(edited)) = (&mut self.source, &mut self.edited) {
            values(source, parts, tokens, |out| out.source.as_ref());
            values(edited, parts, tokens, |out| out.edited.as_ref());
        }
        if let Some(all) = &mut self.targets {
            let targets: At = |mark| mark.targets;
            values(&mut all.tokens, parts, targets, |out| Some(&out.targets.as_ref()?.tokens));
            for (index, (_, all)) in all.columns.iter_mut().enumerate() {
                values(all, parts, targets, |out| Some(&out.targets.as_ref()?.columns.get(index)?.1));
            }
            if let (Some(source), Some(edited)) = (&mut all.source, &mut all.edited) {
                values(source, parts, targets, |out| out.targets.as_ref()?.source.as_ref());
                values(edited, parts, targets, |out| out.targets.as_ref()?.edited.as_ref());
            }
        }
        for Part { out, from, to } in parts {
            if let (Some(all), Some(more)) = (&mut self.offsets, &out.offsets) {
                append_offsets(all, &more[from.rows..=to.rows]);
            }
            if let (Some(all), Some(more)) = (&mut self.targets, &out.targets) {
                append_offsets(&mut all.offsets, &more.offsets[from.rows..=to.rows]);
            }
            if let (Some(all), Some(more)) = (&mut self.spans, &out.spans) {
                all.append(more, from.spans..to.spans, self.rows - from.rows as i64);
            }
            if let (Some(all), Some(more)) = (&mut self.lineage, &out.lineage) {
                all.append(more, from.rows..to.rows);
            }
            self.rows += (to.rows - from.rows) as i64;
        }
    }
}

/// A pipeline bound to a batch: what every task reads.
struct Shape<'a> {
    pipeline: &'a Pipeline,
    nodes: &'a [Node<dyn TokenOp>],
    batch: &'a Tokens<'a>,
    call: Call,
    keys: Keys,
    shields: Vec<Shield>,
    /// The number of the column that each op reads.
    reads: Vec<Option<usize>>,
    /// The number of the tag of the spans that each op reads.
    read_spans: Vec<Option<i32>>,
    /// The number of the column `labels`, if an op writes it; one past the last if the batch has none.
    labels: Option<usize>,
    columns: usize,
    /// The columns that the result has.
    emitted: Vec<usize>,
    in_place: bool,
    spans: bool,
    targets: bool,
    restores: bool,
}

impl Shape<'_> {
    /// The fill and the width of a column.
    fn column(&self, index: usize) -> ([u8; 8], usize) {
        if self.labels == Some(index) {
            let mut fill = [0; 8];
            fill[..4].copy_from_slice(&IGNORE_INDEX.to_ne_bytes());
            return (fill, 4);
        }
        let column = &self.batch.columns[index];
        (column.fill, column.width)
    }
}

/// A row on its way through the steps.
#[derive(Debug, Clone, Default)]
struct State {
    /// Whether the row is still the input's.
    fresh: bool,
    len: usize,
    tokens: Vec<u32>,
    /// Whether `source` counts; if not, every token stands where it stood.
    moved: bool,
    source: Vec<i32>,
    /// Whether `edited` counts; if not, no token was chosen.
    marked: bool,
    edited: Vec<u8>,
    columns: Vec<(At, Vec<u8>)>,
    spans: Vec<Span>,
    second: Second,
    targets: Strand,
    target_columns: Vec<Vec<u8>>,
}

/// What the second sequence is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Second {
    /// Empty: no op made one.
    #[default]
    None,
    /// What the state says.
    State,
    /// The row of the batch.
    Input,
}

/// Where the values of a column are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// In the batch: nothing moved yet.
    Input,
    /// In the state.
    State,
    /// Nowhere: every value is the fill.
    Absent,
}

impl State {
    fn new(columns: usize) -> Self {
        State {
            columns: (0..columns).map(|_| (At::Absent, Vec::new())).collect(),
            target_columns: vec![Vec::new(); columns],
            ..State::default()
        }
    }

    /// The row's values of a column; nothing where it is absent.
    fn column<'s>(&'s self, shape: &'s Shape<'_>, row: usize, index: usize) -> &'s [u8] {
        let width = shape.column(index).1;
        match &self.columns[index] {
            (At::Absent, _) => &[],
            (At::State, values) => &values[..self.len * width],
            (At::Input, _) => {
                let range = shape.batch.tokens.range(row);
                &shape.batch.columns[index].bytes[range.start * width..range.end * width]
            }
        }
    }
}

struct Worker<'a> {
    shape: &'a Shape<'a>,
    placed: Option<&'a Placed>,
    row: usize,
    state: State,
    plan: Plan,
    draw: Draw,
    mask: Vec<u8>,
    spare: Vec<u8>,
    spare_source: Vec<i32>,
    spans_read: Vec<Range<usize>>,
    span_scratch: SpanScratch,
    out: TokensOut,
    /// What `out` held before the first range of rows and after each.
    marks: Vec<Mark>,
    failed: Option<Error>,
}

impl<'a> Worker<'a> {
    /// The worker of a thread; the first gets room for all rows.
    fn new(shape: &'a Shape<'a>, thread: usize, placed: Option<&'a Placed>) -> Self {
        let all = shape.batch.tokens.values().len();
        // A quarter more for what ops insert: room that is not written to costs nothing, growing costs a copy.
        let n = match (placed, thread) {
            (Some(_), _) => all.min(2 * GRAIN),
            (None, 0) if shape.in_place => all,
            (None, 0) => all + all / 4,
            (None, _) => all / par::threads(),
        };
        let second = if shape.restores { n } else { n / 4 };
        let mut old = match thread {
            0 => TokensOut::default(),
            _ => KEPT.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default(),
        };
        let mut old_targets = old.targets.take().unwrap_or_default();
        let traced = shape.call.return_source;
        let column = |old: &mut Vec<(usize, Vec<u8>)>, index: usize, n: usize| {
            (index, emptied(old.pop().map_or_else(Vec::new, |(_, values)| values), n * shape.column(index).1))
        };
        Worker {
            shape,
            placed,
            row: 0,
            state: State::new(shape.columns),
            plan: Plan::default(),
            draw: Draw::new(simd::level()),
            mask: Vec::new(),
            spare: Vec::new(),
            spare_source: Vec::new(),
            spans_read: Vec::new(),
            span_scratch: SpanScratch::default(),
            out: TokensOut {
                tokens: emptied(old.tokens, n),
                offsets: (!shape.in_place).then(|| vec![0]),
                columns: shape.emitted.iter().map(|&index| column(&mut old.columns, index, n)).collect(),
                source: traced.then(|| emptied(old.source.unwrap_or_default(), n)),
                edited: traced.then(|| emptied(old.edited.unwrap_or_default(), n)),
                spans: shape.spans.then(SpansOut::default),
                targets: shape.targets.then(|| TargetsOut {
                    tokens: emptied(old_targets.tokens, second),
                    offsets: vec![0],
                    columns: (0..shape.columns).map(|index| column(&mut old_targets.columns, index, second)).collect(),
                    source: traced.then(|| emptied(old_targets.source.unwrap_or_default(), second)),
                    edited: traced.then(|| emptied(old_targets.edited.unwrap_or_default(), second)),
                }),
                lineage: shape.pipeline.repeats.then(LineageOut::default),
                stats: vec![Stats::default(); shape.nodes.len()],
                rows: 0,
            },
            marks: vec![Mark::default()],
            failed: None,
        }
    }

    /// Runs some rows, one after another; false where one failed.
    fn run(&mut self, rows: Range<usize>) -> bool {
        let (shape, batch, first) = (self.shape, self.shape.batch, rows.start);
        let spans = batch.spans.unwrap_or_default();
        let mut next_span = spans.row.partition_point(|&row| row < rows.start as i64);
        for row in rows {
            let state = &mut self.state;
            self.row = row;
            state.fresh = true;
            state.moved = false;
            state.marked = false;
            state.second = Second::None;
            state.len = batch.tokens.range(row).len();
            for (index, (at, _)) in state.columns.iter_mut().enumerate() {
                *at = if index < batch.columns.len() { At::Input } else { At::Absent };
            }
            state.spans.clear();
            while next_span < spans.row.len() && spans.row[next_span] == row as i64 {
                let (start, end) = (spans.start[next_span] as usize, spans.end[next_span] as usize);
                state.spans.push(Span { start, end, origin: next_span });
                next_span += 1;
            }
            if let Err(error) = shape.pipeline.run(batch.ids[row], &shape.keys, self) {
                self.failed = Some(error);
                return false;
            }
        }
        if let Some(placed) = self.placed {
            // SAFETY: every range of rows is run once.
            unsafe { placed.write(batch.tokens.offsets()[first] as usize, &mut self.out, shape) }
        }
        self.marks.push(self.out.mark());
        true
    }
}

impl Work for Worker<'_> {
    type Saved = State;

    fn op(&mut self, leaf: usize, key: u64, id: u64) -> Result<()> {
        let Worker { shape, row, state, plan, draw, mask, spare, spare_source, spans_read, span_scratch, out, .. } =
            self;
        let (shape, row) = (*shape, *row);
        let node = &shape.nodes[leaf];
        let stats = &mut out.stats[leaf];
        let tokens = if state.fresh { shape.batch.tokens.row(row) } else { &state.tokens[..state.len] };
        let tag = shape.batch.spans.map_or(&[][..], |spans| spans.tag);
        let protected = shape.shields[leaf].mask(
            state.len,
            tokens,
            |index| state.column(shape, row, index),
            &state.spans,
            tag,
            mask,
        );
        let column = shape.reads[leaf].map_or(&[][..], |index| state.column(shape, row, index));
        read_spans(shape.read_spans[leaf], &state.spans, tag, spans_read);
        draw.stream = crate::rng::Stream::new(key, shape.keys.epoch(), id);
        plan.clear();
        let tokenizer = shape.batch.tokenizer;
        node.op
            .plan(Row { tokens, protected, column, spans: spans_read, tokenizer }, draw, plan)
            .map_err(|error| Error::invalid(format!("{} (row {row})", error.message())))?;
        plan.count(state.len, stats);
        move_spans(&mut state.spans, plan, node.spans, span_scratch, stats);

        if node.op.targets() {
            for index in 0..shape.columns {
                let (fill, width) = shape.column(index);
                let source = &plan.targets.source[..plan.targets.len];
                gather(width, fill, state.column(shape, row, index), source, spare);
                std::mem::swap(spare, &mut state.target_columns[index]);
            }
            std::mem::swap(&mut state.targets, &mut plan.targets);
            let Strand { len, source, edited, .. } = &mut state.targets;
            if state.marked {
                for (edited, &s) in edited.iter_mut().zip(&source[..*len]) {
                    *edited |= state.edited[..state.len].get(s as usize).copied().unwrap_or(0);
                }
            }
            if state.moved {
                source[..*len].iter_mut().for_each(|s| *s = follow(&state.source, *s));
            }
            state.second = Second::State;
        } else if node.op.restores() {
            state.second = Second::Input;
        }
        if let Some(source) = plan.source() {
            let from = match node.op.inherits() {
                true => inherited(source, spare_source),
                false => source,
            };
            for index in 0..shape.columns {
                if state.columns[index].0 != At::Absent {
                    let (fill, width) = shape.column(index);
                    gather(width, fill, state.column(shape, row, index), from, spare);
                    let (at, values) = &mut state.columns[index];
                    *at = At::State;
                    std::mem::swap(values, spare);
                }
            }
        }
        if shape.call.return_source {
            let old = state.marked.then(|| &state.edited[..state.len]);
            if let Some(source) = plan.source() {
                if old.is_some() {
                    let edited = room(spare, source.len());
                    for (j, (edited, &s)) in edited.iter_mut().zip(source).enumerate() {
                        let before = old.and_then(|old| old.get(s as usize)).copied().unwrap_or(0);
                        *edited = before | plan.edited().map_or(0, |new| new[j]);
                    }
                    std::mem::swap(&mut state.edited, spare);
                } else if plan.marked {
                    std::mem::swap(&mut state.edited, &mut plan.out.edited);
                    state.marked = true;
                }
                if state.moved {
                    let composed = room(spare_source, plan.out.len);
                    for (composed, &s) in composed.iter_mut().zip(&plan.out.source[..plan.out.len]) {
                        *composed = follow(&state.source, s);
                    }
                    std::mem::swap(&mut state.source, spare_source);
                } else {
                    std::mem::swap(&mut state.source, &mut plan.out.source);
                    state.moved = true;
                }
            } else if plan.marked {
                if state.marked {
                    for (edited, &new) in state.edited.iter_mut().zip(&plan.out.edited[..plan.out.len]) {
                        *edited |= new;
                    }
                } else {
                    std::mem::swap(&mut state.edited, &mut plan.out.edited);
                    state.marked = true;
                }
            }
        }
        std::mem::swap(&mut state.tokens, &mut plan.out.tokens);
        state.len = plan.out.len;
        state.fresh = false;
        if let Some(index) = shape.labels.filter(|_| node.op.labels()) {
            let (at, values) = &mut state.columns[index];
            *at = At::State;
            let values = room(values, 4 * state.len).as_chunks_mut::<4>().0;
            for (value, label) in values.iter_mut().zip(&plan.labels) {
                *value = label.to_ne_bytes();
            }
        }
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
        let (shape, row) = (*shape, *row);
        let n = state.len;
        let tokens = if state.fresh { shape.batch.tokens.row(row) } else { &state.tokens[..n] };
        out.tokens.extend_from_slice(tokens);
        if let Some(offsets) = &mut out.offsets {
            offsets.push(out.tokens.len() as i64);
        }
        for (index, all) in &mut out.columns {
            match state.columns[*index].0 {
                At::Absent => {
                    let (fill, width) = shape.column(*index);
                    (0..n).for_each(|_| all.extend_from_slice(&fill[..width]));
                }
                _ => all.extend_from_slice(state.column(shape, row, *index)),
            }
        }
        if let Some(all) = &mut out.source {
            match state.moved {
                true => all.extend_from_slice(&state.source[..n]),
                false => all.extend(0..n as i32),
            }
        }
        if let Some(all) = &mut out.edited {
            match state.marked {
                true => all.extend_from_slice(&state.edited[..n]),
                false => all.resize(all.len() + n, 0),
            }
        }
        if let Some(all) = &mut out.spans {
            all.push(out.rows, &state.spans);
        }
        if let Some(all) = &mut out.targets {
            match state.second {
                Second::None => {}
                Second::State => all.push(&state.targets, &state.target_columns, shape),
                Second::Input => all.push_input(row, shape),
            }
            all.offsets.push(all.tokens.len() as i64);
        }
        if let Some(all) = &mut out.lineage {
            all.push(row, lineage);
        }
        out.rows += 1;
    }
}

impl TargetsOut {
    /// Appends a strand and its columns.
    fn push(&mut self, strand: &Strand, columns: &[Vec<u8>], shape: &Shape<'_>) {
        let n = strand.len;
        self.tokens.extend_from_slice(&strand.tokens[..n]);
        for (index, all) in &mut self.columns {
            all.extend_from_slice(&columns[*index][..n * shape.column(*index).1]);
        }
        if let Some(all) = &mut self.source {
            all.extend_from_slice(&strand.source[..n]);
        }
        if let Some(all) = &mut self.edited {
            all.extend_from_slice(&strand.edited[..n]);
        }
    }

    /// Appends a row of the batch as it is.
    fn push_input(&mut self, row: usize, shape: &Shape<'_>) {
        let range = shape.batch.tokens.range(row);
        self.tokens.extend_from_slice(shape.batch.tokens.row(row));
        for (index, all) in &mut self.columns {
            let (fill, width) = shape.column(*index);
            match shape.batch.columns.get(*index) {
                Some(column) => all.extend_from_slice(&column.bytes[range.start * width..range.end * width]),
                None => range.clone().for_each(|_| all.extend_from_slice(&fill[..width])),
            }
        }
        if let Some(all) = &mut self.source {
            all.extend(0..range.len() as i32);
        }
        if let Some(all) = &mut self.edited {
            all.resize(all.len() + range.len(), 0);
        }
    }
}

/// A buffer that was used before, empty, or a new one with room for `n` values.
fn emptied<T>(mut old: Vec<T>, n: usize) -> Vec<T> {
    old.clear();
    if old.capacity() == 0 { with_room(n) } else { old }
}

/// Collects the spans of a row that bear the tag which an op reads.
pub(super) fn read_spans(number: Option<i32>, spans: &[Span], tag: &[i32], read: &mut Vec<Range<usize>>) {
    read.clear();
    if let Some(number) = number {
        let bear = spans.iter().filter(|span| tag[span.origin] == number);
        read.extend(bear.map(|span| span.start..span.end));
    }
}

/// The source of a source; a token that came from nowhere still does.
#[inline(always)]
fn follow(source: &[i32], s: i32) -> i32 {
    source.get(s as usize).copied().unwrap_or(-1)
}

/// A source map in which a token from nowhere has the source of its left neighbour, or at the start its right one's.
fn inherited<'s>(source: &[i32], buffer: &'s mut Vec<i32>) -> &'s [i32] {
    let out = room(buffer, source.len());
    let mut last = source.iter().copied().find(|&s| s >= 0).unwrap_or(-1);
    for (out, &s) in out.iter_mut().zip(source) {
        last = if s >= 0 { s } else { last };
        *out = last;
    }
    out
}

/// Values in the order of a source map, with the fill where a token comes from nowhere or where there are no values.
fn gather(width: usize, fill: [u8; 8], from: &[u8], source: &[i32], out: &mut Vec<u8>) {
    fn wide<const N: usize>(fill: [u8; 8], from: &[u8], source: &[i32], out: &mut Vec<u8>) {
        let mut value = [0; N];
        value.copy_from_slice(&fill[..N]);
        let from = from.as_chunks::<N>().0;
        for (out, &s) in room(out, N * source.len()).as_chunks_mut::<N>().0.iter_mut().zip(source) {
            // A source of -1 is out of every bound.
            *out = from.get(s as usize).copied().unwrap_or(value);
        }
    }
    match width {
        1 => wide::<1>(fill, from, source, out),
        2 => wide::<2>(fill, from, source, out),
        4 => wide::<4>(fill, from, source, out),
        _ => wide::<8>(fill, from, source, out),
    }
}

/// Appends offsets of another result: the first says where its rows start.
pub(super) fn append_offsets(all: &mut Vec<i64>, more: &[i64]) {
    let shift = all[all.len() - 1] - more[0];
    all.extend(more[1..].iter().map(|offset| offset + shift));
}
