//! Running a pipeline over rows of tokens: the apply that follows every plan.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::compose::{Keys, Leaves, Lineage, Node, Pipeline, Work};
use super::draw::{Draw, room};
use super::plan::{IGNORE_INDEX, Plan, Row, SpanScratch, Strand, TokenOp, move_spans};
use super::protect::{Shield, Span, SpanPolicy, Spans};
use super::{Call, Stats};
use crate::error::{Error, Result};
use crate::par::{self, Shared};
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
        let whole = par::splits(rows, GRAIN).then(|| Whole::new(&shape));
        let init = || Worker::new(&shape, whole.as_ref());
        let workers = par::fold_rows(rows, GRAIN, init, |worker, range, rows| worker.run(range, rows));
        let mut made: Vec<Made> = workers.into_iter().map(|worker| worker.made).collect();
        let failed = made.iter_mut().filter_map(|made| made.failed.take()).min_by_key(|(range, _)| *range);
        match (failed, whole) {
            (Some((_, error)), _) => Err(error),
            (None, Some(whole)) => Ok(whole.finish(&made, shape.result(0, 0))),
            (None, None) => Ok(made.remove(0).out),
        }
    }
}

/// A result that all threads write into.
///
/// They take ranges of rows in turn. Where the rows of a range go is known once the ranges before it are done; then the
/// thread moves what it made there, from its cache.
struct Whole {
    main: Sequence,
    targets: Option<Sequence>,
    places: Mutex<Places>,
}

/// Tokens and what comes with each of them.
struct Sequence {
    tokens: Shared<u32>,
    /// Width and bytes.
    columns: Vec<(usize, Shared<u8>)>,
    source: Option<Shared<i32>>,
    edited: Option<Shared<u8>>,
}

/// Tokens and targets, counted.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    tokens: usize,
    targets: usize,
}

/// Where ranges go.
struct Places {
    /// Where the ranges begin before which all is done.
    starts: Vec<Size>,
    /// The sizes of other ranges that are done.
    done: BTreeMap<usize, Size>,
}

/// What a worker made of a range of rows: parts of its result.
#[derive(Debug)]
struct Piece {
    /// The number of the range.
    range: usize,
    rows: Range<usize>,
    spans: Range<usize>,
    tokens: Range<usize>,
    targets: Range<usize>,
}

impl Piece {
    fn size(&self) -> Size {
        Size { tokens: self.tokens.len(), targets: self.targets.len() }
    }
}

impl Sequence {
    fn new(shape: &Shape<'_>, n: usize, columns: impl Iterator<Item = usize>) -> Self {
        let traced = shape.call.return_source;
        let columns = columns.map(|index| {
            let width = shape.column(index).1;
            (width, Shared::new(n * width))
        });
        Sequence {
            tokens: Shared::new(n),
            columns: columns.collect(),
            source: traced.then(|| Shared::new(n)),
            edited: traced.then(|| Shared::new(n)),
        }
    }

    /// Makes room for `n` tokens in all.
    fn grow(&mut self, n: usize) {
        self.tokens.grow(n);
        self.columns.iter_mut().for_each(|(width, column)| column.grow(n * *width));
        self.source.iter_mut().for_each(|source| source.grow(n));
        self.edited.iter_mut().for_each(|edited| edited.grow(n));
    }

    /// Writes a part of what a worker made to place `at`.
    ///
    /// # Safety
    /// Nothing else may be written there.
    unsafe fn write(
        &self,
        at: usize,
        part: Range<usize>,
        tokens: &[u32],
        columns: &[(usize, Vec<u8>)],
        traces: (Option<&Vec<i32>>, Option<&Vec<u8>>),
    ) {
        // SAFETY: the caller's promise, for each array.
        unsafe {
            self.tokens.write(at, &tokens[part.clone()]);
            for ((width, all), (_, values)) in self.columns.iter().zip(columns) {
                all.write(at * width, &values[part.start * width..part.end * width]);
            }
            if let (Some(all), Some(values)) = (&self.source, traces.0) {
                all.write(at, &values[part.clone()]);
            }
            if let (Some(all), Some(values)) = (&self.edited, traces.1) {
                all.write(at, &values[part]);
            }
        }
    }
}

impl Whole {
    fn new(shape: &Shape<'_>) -> Self {
        let (n, second) = shape.expected();
        Whole {
            main: Sequence::new(shape, n, shape.emitted.iter().copied()),
            targets: shape.targets.then(|| Sequence::new(shape, second, 0..shape.columns)),
            places: Mutex::new(Places { starts: vec![Size::default()], done: BTreeMap::new() }),
        }
    }

    /// Says that a range is done.
    fn done(&self, piece: &Piece) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let Places { starts, done } = &mut *places;
        done.insert(piece.range, piece.size());
        let mut start = starts[starts.len() - 1];
        while let Some(size) = done.remove(&(starts.len() - 1)) {
            start.tokens += size.tokens;
            start.targets += size.targets;
            starts.push(start);
        }
    }

    /// The places of pieces in ascending order, where they are known and there is room.
    fn places(&self, pieces: &[Piece]) -> Option<Vec<Size>> {
        let last = pieces.last()?;
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let (start, size) = (places.starts.get(last.range)?, last.size());
        let room = self.targets.as_ref().map_or(usize::MAX, |targets| targets.tokens.room());
        let fits = start.tokens + size.tokens <= self.main.tokens.room() && start.targets + size.targets <= room;
        fits.then(|| pieces.iter().map(|piece| places.starts[piece.range]).collect())
    }

    /// Writes a piece of a worker's result to its place.
    ///
    /// # Safety
    /// Every piece may be written once.
    unsafe fn write(&self, at: Size, piece: &Piece, out: &TokensOut) {
        // SAFETY: the places of ranges do not overlap.
        unsafe {
            let traces = (out.source.as_ref(), out.edited.as_ref());
            self.main.write(at.tokens, piece.tokens.clone(), &out.tokens, &out.columns, traces);
            if let (Some(all), Some(out)) = (&self.targets, &out.targets) {
                let traces = (out.source.as_ref(), out.edited.as_ref());
                all.write(at.targets, piece.targets.clone(), &out.tokens, &out.columns, traces);
            }
        }
    }

    /// Puts together what the workers made.
    fn finish(mut self, made: &[Made], mut out: TokensOut) -> TokensOut {
        let places = std::mem::take(&mut self.places.get_mut().unwrap_or_else(PoisonError::into_inner).starts);
        let size = places[places.len() - 1];
        self.main.grow(size.tokens);
        self.targets.iter_mut().for_each(|targets| targets.grow(size.targets));
        for Made { out, pieces, moved, .. } in made {
            for piece in &pieces[*moved..] {
                // SAFETY: these pieces were not written yet.
                unsafe { self.write(places[piece.range], piece, out) }
            }
        }
        out.tokens = self.main.tokens.finish(size.tokens);
        for ((_, values), (width, all)) in out.columns.iter_mut().zip(self.main.columns) {
            *values = all.finish(size.tokens * width);
        }
        out.source = self.main.source.map(|all| all.finish(size.tokens));
        out.edited = self.main.edited.map(|all| all.finish(size.tokens));
        if let (Some(targets), Some(all)) = (&mut out.targets, self.targets) {
            targets.tokens = all.tokens.finish(size.targets);
            for ((_, values), (width, all)) in targets.columns.iter_mut().zip(all.columns) {
                *values = all.finish(size.targets * width);
            }
            targets.source = all.source.map(|all| all.finish(size.targets));
            targets.edited = all.edited.map(|all| all.finish(size.targets));
        }
        let pieces = made.iter().flat_map(|made| made.pieces.iter().map(|piece| (piece, &made.out)));
        let mut pieces: Vec<_> = pieces.collect();
        pieces.sort_unstable_by_key(|(piece, _)| piece.range);
        pieces.into_iter().for_each(|(piece, more)| out.append(piece, more));
        for made in made {
            out.stats.iter_mut().zip(&made.out.stats).for_each(|(sum, stats)| sum.add(stats));
        }
        out
    }
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
    /// How many rows, spans, tokens and targets there are.
    fn held(&self) -> [usize; 4] {
        let spans = self.spans.as_ref().map_or(0, |spans| spans.row.len());
        let targets = self.targets.as_ref().map_or(0, |targets| targets.tokens.len());
        [self.rows as usize, spans, self.tokens.len(), targets]
    }

    /// Empties what has a value per token.
    fn clear(&mut self) {
        self.tokens.clear();
        self.columns.iter_mut().for_each(|column| column.1.clear());
        self.source.iter_mut().for_each(Vec::clear);
        self.edited.iter_mut().for_each(Vec::clear);
        if let Some(targets) = &mut self.targets {
            targets.tokens.clear();
            targets.columns.iter_mut().for_each(|column| column.1.clear());
            targets.source.iter_mut().for_each(Vec::clear);
            targets.edited.iter_mut().for_each(Vec::clear);
        }
    }

    /// Appends what a piece of another result has per row.
    fn append(&mut self, piece: &Piece, more: &TokensOut) {
        let Range { start, end } = piece.rows;
        if let (Some(all), Some(more)) = (&mut self.offsets, &more.offsets) {
            append_offsets(all, &more[start..=end]);
        }
        if let (Some(all), Some(more)) = (&mut self.targets, &more.targets) {
            append_offsets(&mut all.offsets, &more.offsets[start..=end]);
        }
        if let (Some(all), Some(more)) = (&mut self.spans, &more.spans) {
            all.append(more, piece.spans.clone(), self.rows - start as i64);
        }
        if let (Some(all), Some(more)) = (&mut self.lineage, &more.lineage) {
            all.append(more, piece.rows.clone());
        }
        self.rows += piece.rows.len() as i64;
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

    /// How many tokens and targets to make room for: a quarter more for what ops insert. Room that is not written to costs
    /// nothing, growing costs a copy.
    fn expected(&self) -> (usize, usize) {
        let all = self.batch.tokens.values().len();
        let n = if self.in_place { all } else { all + all / 4 };
        (n, if self.restores { n } else { n / 4 })
    }

    /// A result without rows, with room for some tokens and targets.
    fn result(&self, n: usize, targets: usize) -> TokensOut {
        let traced = self.call.return_source;
        let column = |index: usize, n: usize| (index, with_room(n * self.column(index).1));
        TokensOut {
            tokens: with_room(n),
            offsets: (!self.in_place).then(|| vec![0]),
            columns: self.emitted.iter().map(|&index| column(index, n)).collect(),
            source: traced.then(|| with_room(n)),
            edited: traced.then(|| with_room(n)),
            spans: self.spans.then(SpansOut::default),
            targets: self.targets.then(|| TargetsOut {
                tokens: with_room(targets),
                offsets: vec![0],
                columns: (0..self.columns).map(|index| column(index, targets)).collect(),
                source: traced.then(|| with_room(targets)),
                edited: traced.then(|| with_room(targets)),
            }),
            lineage: self.pipeline.repeats.then(LineageOut::default),
            stats: vec![Stats::default(); self.nodes.len()],
            rows: 0,
        }
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
    whole: Option<&'a Whole>,
    row: usize,
    state: State,
    plan: Plan,
    draw: Draw,
    mask: Vec<u8>,
    spare: Vec<u8>,
    spare_source: Vec<i32>,
    spans_read: Vec<Range<usize>>,
    span_scratch: SpanScratch,
    made: Made,
}

/// What a worker made.
struct Made {
    out: TokensOut,
    /// What of it belongs to which range of rows; the first `moved` of them are in their place in the whole.
    pieces: Vec<Piece>,
    moved: usize,
    /// The range that failed, and why.
    failed: Option<(usize, Error)>,
}

impl<'a> Worker<'a> {
    fn new(shape: &'a Shape<'a>, whole: Option<&'a Whole>) -> Self {
        let (n, second) = match whole {
            Some(_) => (2 * GRAIN, 0),
            None => shape.expected(),
        };
        Worker {
            shape,
            whole,
            row: 0,
            state: State::new(shape.columns),
            plan: Plan::default(),
            draw: Draw::new(simd::level()),
            mask: Vec::new(),
            spare: Vec::new(),
            spare_source: Vec::new(),
            spans_read: Vec::new(),
            span_scratch: SpanScratch::default(),
            made: Made { out: shape.result(n, second), pieces: Vec::new(), moved: 0, failed: None },
        }
    }

    /// Runs a range of rows, one after another; false where one failed.
    fn run(&mut self, range: usize, rows: Range<usize>) -> bool {
        let before = self.made.out.held();
        if let Err(error) = self.rows(rows) {
            self.made.failed = Some((range, error));
            return false;
        }
        let Some(whole) = self.whole else { return true };
        let Made { out, pieces, moved, .. } = &mut self.made;
        let after = out.held();
        let [rows, spans, tokens, targets] = std::array::from_fn(|i| before[i]..after[i]);
        pieces.push(Piece { range, rows, spans, tokens, targets });
        whole.done(&pieces[pieces.len() - 1]);
        if let Some(places) = whole.places(&pieces[*moved..]) {
            for (piece, at) in pieces[*moved..].iter().zip(places) {
                // SAFETY: `moved` keeps a piece from being written again.
                unsafe { whole.write(at, piece, out) }
            }
            *moved = pieces.len();
            out.clear();
        }
        true
    }

    fn rows(&mut self, rows: Range<usize>) -> Result<()> {
        let (shape, batch) = (self.shape, self.shape.batch);
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
            shape.pipeline.run(batch.ids[row], &shape.keys, self)?;
        }
        Ok(())
    }
}

impl Work for Worker<'_> {
    type Saved = State;

    fn op(&mut self, leaf: usize, key: u64, id: u64) -> Result<()> {
        let Worker { shape, row, state, plan, draw, mask, spare, spare_source, spans_read, span_scratch, made, .. } =
            self;
        let (shape, row, out) = (*shape, *row, &mut made.out);
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
        let Worker { shape, row, state, made, .. } = self;
        let (shape, row, out) = (*shape, *row, &mut made.out);
        let n = state.len;
        let tokens = if state.fresh { shape.batch.tokens.row(row) } else { &state.tokens[..n] };
        out.tokens.extend_from_slice(tokens);
        if let Some(offsets) = &mut out.offsets {
            offsets.push(offsets[offsets.len() - 1] + n as i64);
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
            let before = all.tokens.len();
            match state.second {
                Second::None => {}
                Second::State => all.push(&state.targets, &state.target_columns, shape),
                Second::Input => all.push_input(row, shape),
            }
            all.offsets.push(all.offsets[all.offsets.len() - 1] + (all.tokens.len() - before) as i64);
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
