//! One walk through a program: decisions in, text, spans and bindings out.
//!
//! The walk keeps its own stack, so a deep grammar costs no thread stack. Each entry carries a number for whoever
//! decides: the rank of the subtree when a derivation is looked up, the weight of one step of the subtree in the
//! rank when it is drawn.

use num_bigint::BigUint;

use super::compile::{Node, Program};
use super::expr::{Code, Fault, Type};
use crate::error::Error;
use crate::ragged::RaggedBuf;
use crate::rng::Words;

/// Who decides at choices and draws.
pub(super) trait Decide {
    type Number: Clone;

    /// The number of child `i` of a sequence; called for every child, last to first, with the same `number`.
    fn child(&mut self, number: &mut Self::Number, program: &Program, i: usize) -> Self::Number;

    /// The way taken among `first..end`, and its number.
    fn way(
        &mut self,
        number: Self::Number,
        program: &Program,
        first: u32,
        end: u32,
        total: u32,
    ) -> (usize, Self::Number);

    /// A number below `n`.
    fn below(&mut self, number: Self::Number, n: u64) -> u64;
}

/// Draws by the weights; `rank` adds up to the index of the derivation, where 64 bits hold it.
pub(super) struct Draw {
    pub words: Words,
    pub rank: u64,
}

impl Decide for Draw {
    type Number = u64;

    #[inline]
    fn child(&mut self, step: &mut u64, program: &Program, i: usize) -> u64 {
        let part = *step;
        *step = part.wrapping_mul(program.children[i].count);
        part
    }

    #[inline]
    fn way(&mut self, step: u64, program: &Program, first: u32, end: u32, total: u32) -> (usize, u64) {
        let mut column = self.words.below(end - first);
        if total > 0 {
            let way = program.ways[(first + column) as usize];
            if self.words.below(total) >= way.share {
                column = way.other;
            }
        }
        let way = (first + column) as usize;
        self.rank = self.rank.wrapping_add(step.wrapping_mul(program.ways[way].before));
        (way, step)
    }

    #[inline]
    fn below(&mut self, step: u64, n: u64) -> u64 {
        let value = match u32::try_from(n) {
            Ok(n) => u64::from(self.words.below(n)),
            Err(_) => self.words.below_u64(n),
        };
        self.rank = self.rank.wrapping_add(step.wrapping_mul(value));
        value
    }
}

/// Looks up the derivation of a rank below 2^64.
pub(super) struct Find;

impl Decide for Find {
    type Number = u64;

    #[inline]
    fn child(&mut self, rest: &mut u64, program: &Program, i: usize) -> u64 {
        let count = program.children[i].count;
        if count == 1 {
            return 0;
        }
        let part = *rest % count;
        *rest /= count;
        part
    }

    #[inline]
    fn way(&mut self, rank: u64, program: &Program, first: u32, end: u32, _total: u32) -> (usize, u64) {
        let ways = &program.ways[first as usize..end as usize];
        let way = first as usize + ways.partition_point(|way| way.before <= rank) - 1;
        (way, rank - program.ways[way].before)
    }

    #[inline]
    fn below(&mut self, rank: u64, _n: u64) -> u64 {
        rank
    }
}

/// Looks up the derivation of any rank.
pub(super) struct FindBig;

impl Decide for FindBig {
    type Number = BigUint;

    fn child(&mut self, rest: &mut BigUint, program: &Program, i: usize) -> BigUint {
        let count = &program.big.as_ref().expect("made for big programs").count[i];
        let part = &*rest % count;
        *rest /= count;
        part
    }

    fn way(&mut self, rank: BigUint, program: &Program, first: u32, end: u32, _total: u32) -> (usize, BigUint) {
        let before = &program.big.as_ref().expect("made for big programs").before;
        let ways = &before[first as usize..end as usize];
        let way = first as usize + ways.partition_point(|before| *before <= rank) - 1;
        let rest = rank - &before[way];
        (way, rest)
    }

    fn below(&mut self, rank: BigUint, _n: u64) -> u64 {
        u64::try_from(&rank).expect("a rank lies below its node's count")
    }
}

/// Spans of all rows, by row and start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpanBuf {
    /// The row of each span.
    pub row: Vec<i64>,
    /// Its first byte in the row.
    pub start: Vec<i64>,
    /// The byte after its last.
    pub end: Vec<i64>,
    /// Its tag: an index into the grammar's tags.
    pub tag: Vec<u32>,
}

/// The values of one binding.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Column {
    /// Integers, or indices into the grammar's strings; 0 where the row did not draw the binding.
    pub values: Vec<i64>,
    /// Whether each row drew it; empty for a binding that every row draws.
    pub drawn: Vec<bool>,
}

/// Texts or tokens, spans and bindings, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expanded<T> {
    /// UTF-8, or tokens.
    pub rows: RaggedBuf<T>,
    /// The tags' places.
    pub spans: SpanBuf,
    /// One for each column of the grammar.
    pub columns: Vec<Column>,
}

impl<T> Expanded<T> {
    /// Appends all rows of `other`.
    pub(super) fn append(&mut self, mut other: Expanded<T>) {
        let rows = self.rows.offsets.len() as i64 - 1;
        self.rows.append(&mut other.rows);
        self.spans.row.extend(other.spans.row.iter().map(|row| row + rows));
        self.spans.start.append(&mut other.spans.start);
        self.spans.end.append(&mut other.spans.end);
        self.spans.tag.append(&mut other.spans.tag);
        for (mine, mut theirs) in self.columns.iter_mut().zip(other.columns) {
            mine.values.append(&mut theirs.values);
            mine.drawn.append(&mut theirs.drawn);
        }
    }
}

/// What a walk writes to: the final text in pieces, and where tags open and close.
pub(super) trait Sink {
    type Item;

    /// The text of the node `node`, `program.literals[start..end]`.
    fn literal(&mut self, program: &Program, node: u32, start: u32, end: u32);

    /// Any other text.
    fn text(&mut self, text: &[u8]);

    /// An integer in decimal.
    fn int(&mut self, value: i64);

    fn open(&mut self, tag: u32);

    fn close(&mut self);

    /// Ends the row.
    ///
    /// # Errors
    /// If the text of the row cannot be written.
    fn end_row(&mut self) -> crate::error::Result<()>;

    /// All rows and spans.
    fn finish(self) -> (RaggedBuf<Self::Item>, SpanBuf);
}

/// Why a row could not be expanded.
pub(super) enum Failure {
    /// A computed slot has no value: which code.
    Fault(Fault, u32),
    /// The sink refuses the text.
    Row(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Row(error)
    }
}

/// Writes texts.
#[derive(Debug)]
pub(super) struct Texts {
    rows: RaggedBuf<u8>,
    spans: SpanBuf,
    open: Vec<usize>,
}

impl Texts {
    /// Room for about `rows` rows.
    pub fn new(rows: usize) -> Self {
        Texts { rows: RaggedBuf::with_capacity(rows, 0), spans: SpanBuf::default(), open: Vec::new() }
    }

    fn place(&self) -> i64 {
        self.rows.values.len() as i64 - self.rows.offsets.last().copied().unwrap_or(0)
    }
}

impl Sink for Texts {
    type Item = u8;

    #[inline]
    fn literal(&mut self, program: &Program, _node: u32, start: u32, end: u32) {
        self.rows.values.extend_from_slice(&program.literals.as_bytes()[start as usize..end as usize]);
    }

    #[inline]
    fn text(&mut self, text: &[u8]) {
        self.rows.values.extend_from_slice(text);
    }

    #[inline]
    fn int(&mut self, value: i64) {
        push_int(&mut self.rows.values, value);
    }

    #[inline]
    fn open(&mut self, tag: u32) {
        self.open.push(self.spans.row.len());
        self.spans.row.push(self.rows.offsets.len() as i64 - 1);
        self.spans.start.push(self.place());
        self.spans.end.push(0);
        self.spans.tag.push(tag);
    }

    #[inline]
    fn close(&mut self) {
        let span = self.open.pop().expect("tags nest");
        self.spans.end[span] = self.place();
    }

    #[inline]
    fn end_row(&mut self) -> crate::error::Result<()> {
        self.rows.end_row();
        Ok(())
    }

    fn finish(self) -> (RaggedBuf<u8>, SpanBuf) {
        (self.rows, self.spans)
    }
}

/// Writes nothing.
pub(super) struct Nothing;

impl Sink for Nothing {
    type Item = u8;

    fn literal(&mut self, _program: &Program, _node: u32, _start: u32, _end: u32) {}

    fn text(&mut self, _text: &[u8]) {}

    fn int(&mut self, _value: i64) {}

    fn open(&mut self, _tag: u32) {}

    fn close(&mut self) {}

    fn end_row(&mut self) -> crate::error::Result<()> {
        Ok(())
    }

    fn finish(self) -> (RaggedBuf<u8>, SpanBuf) {
        Default::default()
    }
}

/// A walker with its scratch space.
pub(super) struct Walker<'a, D: Decide, S> {
    program: &'a Program,
    stack: Vec<(u32, D::Number)>,
    values: Vec<i64>,
    drawn: Vec<bool>,
    /// The slot of each column, and whether every derivation draws it.
    slots: Vec<(usize, bool)>,
    columns: Vec<Column>,
    sink: S,
}

impl<'a, D: Decide, S: Sink> Walker<'a, D, S> {
    /// A walker for about `rows` rows.
    pub fn new(program: &'a Program, rows: usize, sink: S) -> Self {
        let drawn = program.slots.iter().enumerate().filter(|(_, slot)| slot.drawn);
        let slots: Vec<(usize, bool)> = drawn.map(|(i, slot)| (i, slot.always)).collect();
        let mut columns = Vec::new();
        columns.resize_with(slots.len(), Column::default);
        for (column, &(_, always)) in columns.iter_mut().zip(&slots) {
            column.values.reserve_exact(rows);
            column.drawn.reserve_exact(if always { 0 } else { rows });
        }
        Walker {
            program,
            stack: Vec::new(),
            values: vec![0; program.slots.len()],
            drawn: vec![false; program.slots.len()],
            slots,
            columns,
            sink,
        }
    }

    /// Appends the row that `decide` leads to. After a failure the walker is of no more use, save for
    /// [`value`](Self::value).
    #[inline]
    pub fn expand(&mut self, decide: &mut D, number: D::Number) -> Result<(), Failure> {
        let program = self.program;
        self.drawn.fill(false);
        self.stack.push((program.root, number));
        while let Some((node, mut number)) = self.stack.pop() {
            match program.nodes[node as usize] {
                Node::Text { start, end } => self.sink.literal(program, node, start, end),
                Node::Seq { first, end } => {
                    for i in (first as usize..end as usize).rev() {
                        let part = decide.child(&mut number, program, i);
                        self.stack.push((program.children[i].node, part));
                    }
                }
                Node::Choice { first, end, total } => {
                    let (way, number) = decide.way(number, program, first, end, total);
                    self.stack.push((program.ways[way].node, number));
                }
                Node::Int { slot, range, hidden } => {
                    let range = program.ranges[range as usize];
                    let k = decide.below(number, range.n);
                    let value = range.low.wrapping_add_unsigned(k.wrapping_mul(range.step));
                    self.values[slot as usize] = value;
                    self.drawn[slot as usize] = true;
                    if !hidden {
                        self.sink.int(value);
                    }
                }
                Node::PickInt { slot, first, n, hidden } => {
                    let value = program.ints[first as usize + decide.below(number, u64::from(n)) as usize];
                    self.values[slot as usize] = value;
                    self.drawn[slot as usize] = true;
                    if !hidden {
                        self.sink.int(value);
                    }
                }
                Node::PickText { slot, first, n, hidden } => {
                    let index = first as usize + decide.below(number, u64::from(n)) as usize;
                    self.values[slot as usize] = index as i64;
                    self.drawn[slot as usize] = true;
                    if !hidden {
                        self.sink.text(program.strings[index].as_bytes());
                    }
                }
                Node::ShowInt { slot } => self.sink.int(self.values[slot as usize]),
                Node::ShowText { slot } => {
                    self.sink.text(program.strings[self.values[slot as usize] as usize].as_bytes());
                }
                Node::Compute { code } => {
                    compute(&program.codes[code as usize].0, &self.values, &program.strings, &mut self.sink)
                        .map_err(|fault| Failure::Fault(fault, code))?;
                }
                Node::Open { tag } => self.sink.open(tag),
                Node::Close => self.sink.close(),
            }
        }
        self.sink.end_row()?;
        for (column, &(slot, always)) in self.columns.iter_mut().zip(&self.slots) {
            let drawn = self.drawn[slot];
            column.values.push(if drawn { self.values[slot] } else { 0 });
            if !always {
                column.drawn.push(drawn);
            }
        }
        Ok(())
    }

    /// All rows.
    pub fn finish(self) -> Expanded<S::Item> {
        let (rows, spans) = self.sink.finish();
        Expanded { rows, spans, columns: self.columns }
    }

    /// The current value of a slot as text, for the message of a fault.
    pub fn value(&self, slot: usize) -> String {
        let value = self.values[slot];
        match self.program.slots[slot].of {
            Type::Text => format!("'{}'", self.program.strings[value as usize]),
            _ => value.to_string(),
        }
    }
}

/// Writes the value of `code`.
fn compute(code: &Code, slots: &[i64], strings: &[String], sink: &mut impl Sink) -> Result<(), Fault> {
    match code.of() {
        Type::Int => sink.int(code.int(slots, strings)?),
        Type::Text => sink.text(code.text(slots, strings)?.as_bytes()),
        Type::Truth => sink.text(if code.truth(slots, strings)? { b"true" } else { b"false" }),
    }
    Ok(())
}

/// `value` in decimal. Arrays of known length are much cheaper to append than slices: most values are small.
#[inline]
pub(super) fn push_int(text: &mut Vec<u8>, value: i64) {
    let digit = |value: i64| b'0' + (value % 10) as u8;
    match value {
        0..10 => text.push(digit(value)),
        10..100 => text.extend_from_slice(&[digit(value / 10), digit(value)]),
        100..1000 => text.extend_from_slice(&[digit(value / 100), digit(value / 10), digit(value)]),
        _ => push_long(text, value),
    }
}

fn push_long(text: &mut Vec<u8>, value: i64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        at -= 1;
        digits[at] = b'-';
    }
    text.extend_from_slice(&digits[at..]);
}
