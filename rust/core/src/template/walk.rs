//! One walk through a program: decisions in, text, spans and bindings out.
//!
//! The walk keeps its own stack, so a deep grammar costs no thread stack. Each entry carries a number for whoever
//! decides: the rank of the subtree when a derivation is looked up, the weight of one step of the subtree in the
//! rank when it is drawn.

use num_bigint::BigUint;

use super::compile::{Node, Program};
use super::expr::{Code, Fault, Type};
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

/// Texts, spans and bindings, row by row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expanded {
    /// UTF-8.
    pub text: RaggedBuf<u8>,
    /// The tags' places.
    pub spans: SpanBuf,
    /// One for each column of the grammar.
    pub columns: Vec<Column>,
}

impl Expanded {
    /// Appends all rows of `other`.
    pub(super) fn append(&mut self, mut other: Expanded) {
        let rows = self.text.offsets.len() as i64 - 1;
        self.text.append(&mut other.text);
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

/// A walker with its scratch space.
pub(super) struct Walker<'a, D: Decide> {
    program: &'a Program,
    stack: Vec<(u32, D::Number)>,
    open: Vec<usize>,
    values: Vec<i64>,
    drawn: Vec<bool>,
    /// The slot of each column, and whether every derivation draws it.
    columns: Vec<(usize, bool)>,
    pub out: Expanded,
}

impl<'a, D: Decide> Walker<'a, D> {
    /// A walker for about `rows` rows.
    pub fn new(program: &'a Program, rows: usize) -> Self {
        let drawn = program.slots.iter().enumerate().filter(|(_, slot)| slot.drawn);
        let columns: Vec<(usize, bool)> = drawn.map(|(i, slot)| (i, slot.always)).collect();
        let mut out = Expanded { text: RaggedBuf::with_capacity(rows, 0), ..Expanded::default() };
        out.columns.resize_with(columns.len(), Column::default);
        for (column, &(_, always)) in out.columns.iter_mut().zip(&columns) {
            column.values.reserve_exact(rows);
            column.drawn.reserve_exact(if always { 0 } else { rows });
        }
        Walker {
            program,
            stack: Vec::new(),
            open: Vec::new(),
            values: vec![0; program.slots.len()],
            drawn: vec![false; program.slots.len()],
            columns,
            out,
        }
    }

    /// Appends the row that `decide` leads to. A fault comes with the index of its code; after it the walker is of no
    /// more use, save for [`value`](Self::value).
    #[inline]
    pub fn expand(&mut self, decide: &mut D, number: D::Number) -> Result<(), (Fault, u32)> {
        let program = self.program;
        let Expanded { text: RaggedBuf { values: text, offsets }, spans, .. } = &mut self.out;
        let (row, base) = (offsets.len() as i64 - 1, text.len() as i64);
        self.drawn.fill(false);
        self.stack.push((program.root, number));
        while let Some((node, mut number)) = self.stack.pop() {
            match program.nodes[node as usize] {
                Node::Text { start, end } => {
                    text.extend_from_slice(&program.literals.as_bytes()[start as usize..end as usize]);
                }
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
                        push_int(text, value);
                    }
                }
                Node::PickInt { slot, first, n, hidden } => {
                    let value = program.ints[first as usize + decide.below(number, u64::from(n)) as usize];
                    self.values[slot as usize] = value;
                    self.drawn[slot as usize] = true;
                    if !hidden {
                        push_int(text, value);
                    }
                }
                Node::PickText { slot, first, n, hidden } => {
                    let index = first as usize + decide.below(number, u64::from(n)) as usize;
                    self.values[slot as usize] = index as i64;
                    self.drawn[slot as usize] = true;
                    if !hidden {
                        text.extend_from_slice(program.strings[index].as_bytes());
                    }
                }
                Node::ShowInt { slot } => push_int(text, self.values[slot as usize]),
                Node::ShowText { slot } => {
                    text.extend_from_slice(program.strings[self.values[slot as usize] as usize].as_bytes());
                }
                Node::Compute { code } => {
                    compute(&program.codes[code as usize].0, &self.values, &program.strings, text)
                        .map_err(|fault| (fault, code))?;
                }
                Node::Open { tag } => {
                    self.open.push(spans.row.len());
                    spans.row.push(row);
                    spans.start.push(text.len() as i64 - base);
                    spans.end.push(0);
                    spans.tag.push(tag);
                }
                Node::Close => {
                    let span = self.open.pop().expect("tags nest");
                    spans.end[span] = text.len() as i64 - base;
                }
            }
        }
        self.out.text.end_row();
        for (column, &(slot, always)) in self.out.columns.iter_mut().zip(&self.columns) {
            let drawn = self.drawn[slot];
            column.values.push(if drawn { self.values[slot] } else { 0 });
            if !always {
                column.drawn.push(drawn);
            }
        }
        Ok(())
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

/// Appends the value of `code`.
fn compute(code: &Code, slots: &[i64], strings: &[String], text: &mut Vec<u8>) -> Result<(), Fault> {
    match code.of() {
        Type::Int => push_int(text, code.int(slots, strings)?),
        Type::Text => text.extend_from_slice(code.text(slots, strings)?.as_bytes()),
        Type::Truth => text.extend_from_slice(if code.truth(slots, strings)? { b"true" } else { b"false" }),
    }
    Ok(())
}

/// `value` in decimal. Arrays of known length are much cheaper to append than slices: most values are small.
#[inline]
fn push_int(text: &mut Vec<u8>, value: i64) {
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
