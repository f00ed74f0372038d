//! One walk through a program: decisions in, pieces of final text, spans and bindings out.
//!
//! The walk keeps its own stack, so a deep grammar costs no thread stack. Each entry carries a number for whoever
//! decides: the rank of the subtree when a derivation is looked up, the weight of one step of the subtree in the
//! rank when it is drawn.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};

use num_bigint::BigUint;

use super::agree;
use super::compile::{Node, Program, Switch};
use super::expr::{Env, Fault, MAX_STRING, Type, show};
use super::held::Pieces;
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
    /// Numbers as their type holds them, or indices into the grammar's strings; 0 where the row did not draw the binding.
    pub values: Vec<i64>,
    /// Whether each row drew it; empty for a binding that every row draws.
    pub drawn: Vec<bool>,
    /// Whether the values are indices into [`Expanded::made`].
    pub made: bool,
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
    /// Strings that rows made.
    pub made: Vec<String>,
    /// The source row of each row, where the grammar uses them.
    pub sources: Vec<i64>,
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
            let shift = if mine.made { self.made.len() as i64 } else { 0 };
            mine.values.extend(theirs.values.iter().map(|value| value + shift));
            mine.drawn.append(&mut theirs.drawn);
        }
        self.made.append(&mut other.made);
        self.sources.append(&mut other.sources);
    }
}

/// What a walk writes to: the final text in pieces, none of which changes later, and where tags open and close.
pub(super) trait Sink {
    type Item;

    /// Told of each node before it is walked, and how many wait behind it; false stops the walk there.
    #[inline]
    fn visit(&mut self, _program: &Program, _node: u32, _height: usize) -> bool {
        true
    }

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
    /// Room for about `rows` rows of a usual length.
    pub fn new(rows: usize) -> Self {
        /// In bytes. Room that is not written to costs nothing.
        const USUAL: usize = 64;
        const MOST: usize = 1 << 26;
        Texts {
            rows: RaggedBuf::with_capacity(rows, (rows * USUAL).min(MOST)),
            spans: SpanBuf::default(),
            open: Vec::new(),
        }
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
#[derive(Clone)]
pub(super) struct Walker<'a, D: Decide, S> {
    program: &'a Program,
    stack: Vec<(u32, D::Number)>,
    pub pieces: Pieces<S>,
    values: Vec<i64>,
    drawn: Vec<bool>,
    /// The strings that rows made, each once, and where it is: a string slot may hold one, numbered after those of the
    /// grammar.
    made: Vec<String>,
    made_at: HashMap<String, i64>,
    saved: Vec<i64>,
    notes: Vec<u32>,
    row: i64,
    text: Vec<u8>,
    /// The slot of each column.
    slots: Vec<usize>,
    columns: Vec<Column>,
    sources: Vec<i64>,
}

impl<'a, D: Decide, S: Sink> Walker<'a, D, S> {
    /// A walker for about `rows` rows.
    pub fn new(program: &'a Program, rows: usize, sink: S) -> Self {
        let slots: Vec<usize> = (0..program.slots.len()).filter(|&slot| program.slots[slot].drawn).collect();
        let mut columns = Vec::with_capacity(slots.len());
        for &slot in &slots {
            let said = &program.slots[slot];
            columns.push(Column {
                values: Vec::with_capacity(rows),
                drawn: Vec::with_capacity(if said.always { 0 } else { rows }),
                made: said.made,
            });
        }
        Walker {
            program,
            stack: Vec::new(),
            pieces: Pieces::new(sink),
            values: vec![0; program.slots.len()],
            drawn: vec![false; program.slots.len()],
            made: Vec::new(),
            made_at: HashMap::new(),
            saved: Vec::new(),
            notes: vec![0; program.notes],
            row: 0,
            text: Vec::new(),
            slots,
            columns,
            sources: Vec::new(),
        }
    }

    /// Appends the row that `decide` leads to. After a failure the walker is of no more use, save for
    /// [`value`](Self::value).
    #[inline]
    pub fn expand(&mut self, decide: &mut D, number: D::Number) -> Result<(), Failure> {
        self.drawn.fill(false);
        self.stack.push((self.program.root, number));
        self.resume(decide)
    }

    /// Goes on with a row where the sink stopped it.
    #[inline]
    pub fn resume(&mut self, decide: &mut D) -> Result<(), Failure> {
        let program = self.program;
        while let Some((node, mut number)) = self.stack.pop() {
            if !self.pieces.sink.visit(program, node, self.stack.len()) {
                self.stack.push((node, number));
                return Ok(());
            }
            match program.nodes[node as usize] {
                Node::Text { start, end } => self.pieces.literal(program, node, start, end),
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
                    let value = range.at(decide.below(number, range.n));
                    self.bind(slot, value);
                    if !hidden {
                        self.pieces.int(value);
                    }
                }
                Node::PickInt { slot, first, n, hidden } => {
                    let value = program.ints[first as usize + decide.below(number, u64::from(n)) as usize];
                    self.bind(slot, value);
                    if !hidden {
                        self.pieces.int(value);
                    }
                }
                Node::PickText { slot, first, n, hidden } => {
                    let index = first as usize + decide.below(number, u64::from(n)) as usize;
                    self.bind(slot, index as i64);
                    if !hidden {
                        self.pieces.text(program.strings[index].as_bytes());
                    }
                }
                Node::ShowInt { slot } => self.pieces.int(self.values[slot as usize]),
                Node::ShowText { slot } => {
                    let env = Env { slots: &self.values, strings: &program.strings, made: &self.made, held: "" };
                    self.pieces.text(env.string(self.values[slot as usize]).as_bytes());
                }
                Node::Compute { code } => self.compute(code)?,
                Node::Open { tag } => self.pieces.open(tag),
                Node::Close => self.pieces.close(),
                Node::Switch { switch } => {
                    let Switch { slot, cases, nodes } = &program.switches[switch as usize];
                    let value = self.values[*slot as usize];
                    let variant = match cases.binary_search_by_key(&value, |case| case.0) {
                        Ok(case) => cases[case].1,
                        Err(_) => agree::number(value),
                    };
                    self.stack.push((nodes[variant as usize], number));
                }
                rare => self.rare(rare, decide, number)?,
            }
        }
        self.pieces.sink.end_row()?;
        self.record();
        Ok(())
    }

    /// Binds a value.
    #[inline]
    pub fn bind(&mut self, slot: u32, value: i64) {
        self.values[slot as usize] = value;
        self.drawn[slot as usize] = true;
    }

    /// What expressions read.
    #[inline]
    pub fn env(&self) -> Env<'_> {
        Env { slots: &self.values, strings: &self.program.strings, made: &self.made, held: "" }
    }

    #[inline]
    fn compute(&mut self, code: u32) -> Result<(), Failure> {
        let formula = &self.program.codes[code as usize].code;
        if formula.of() == Type::Int {
            let value = formula.number(self.env()).map_err(|fault| Failure::Fault(fault, code))?;
            self.pieces.int(value);
            return Ok(());
        }
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        formula.show(self.env(), &mut text).map_err(|fault| Failure::Fault(fault, code))?;
        self.pieces.text(&text);
        self.text = text;
        Ok(())
    }

    /// The nodes that are not worth a place in the loop of [`expand`](Self::expand).
    fn rare(&mut self, node: Node, decide: &mut D, number: D::Number) -> Result<(), Failure> {
        let program = self.program;
        match node {
            Node::ShowValue { slot } => {
                let mut text = std::mem::take(&mut self.text);
                text.clear();
                show(self.values[slot as usize], program.slots[slot as usize].of, &mut text);
                self.pieces.text(&text);
                self.text = text;
            }
            Node::Range { slot, range } => {
                let range = program.ranges[range as usize];
                self.bind(slot, range.at(decide.below(number, range.n)));
            }
            Node::Assign { slot, code } => {
                let formula = &program.codes[code as usize];
                let value = if formula.code.of() == Type::Text {
                    let env = Env { slots: &self.values, strings: &program.strings, made: &self.made, held: "" };
                    let text = formula.code.text(env).map_err(|fault| Failure::Fault(fault, code))?.into_owned();
                    made(program, &mut self.made, &mut self.made_at, &text, code)?
                } else {
                    formula.code.number(self.env()).map_err(|fault| Failure::Fault(fault, code))?
                };
                self.bind(slot, value);
            }
            Node::Row => self.row = decide.below(number, program.rows.unwrap_or(1)) as i64,
            Node::Cell { slot, first } => self.bind(slot, program.cells[first as usize + self.row as usize]),
            Node::Hold => self.pieces.hold(),
            Node::Apply { code } => {
                let env = Env { slots: &self.values, strings: &program.strings, made: &self.made, held: "" };
                self.pieces
                    .apply(&program.codes[code as usize].code, env)
                    .map_err(|fault| Failure::Fault(fault, code))?;
            }
            Node::Bind { slot, code, hidden } => {
                let value = made(program, &mut self.made, &mut self.made_at, self.pieces.held(), code)?;
                self.pieces.release(!hidden);
                self.bind(slot, value);
            }
            Node::Save { slot } => self.saved.push(self.values[slot as usize]),
            Node::Restore { slot } => self.values[slot as usize] = self.saved.pop().expect("saved before"),
            Node::Note { note, value } => self.notes[note as usize] = value,
            Node::Keep { slot, note } => self.values[slot as usize] = i64::from(self.notes[note as usize]),
            _ => unreachable!("a node of the loop"),
        }
        Ok(())
    }

    /// Appends the bindings of the row.
    #[inline]
    fn record(&mut self) {
        for (column, &slot) in self.columns.iter_mut().zip(&self.slots) {
            let (drawn, said) = (self.drawn[slot], &self.program.slots[slot]);
            let mut value = if drawn { self.values[slot] } else { 0 };
            if said.made && drawn {
                let known = self.program.strings.len() as i64;
                if value < known {
                    value = intern(&mut self.made, &mut self.made_at, &self.program.strings[value as usize]);
                } else {
                    value -= known;
                }
            }
            column.values.push(value);
            if !said.always {
                column.drawn.push(drawn);
            }
        }
        if self.program.rows.is_some() {
            self.sources.push(self.row);
        }
    }

    /// The node where the walk goes on.
    pub fn next(&self) -> Option<u32> {
        self.stack.last().map(|entry| entry.0)
    }

    /// Leaves out the node where the walk goes on.
    pub fn skip(&mut self) {
        self.stack.pop();
    }

    /// The value of a slot, if it was drawn.
    pub fn bound(&self, slot: usize) -> Option<i64> {
        self.drawn[slot].then_some(self.values[slot])
    }

    /// Feeds all that the rest of the walk depends on, save for the sink.
    pub fn state(&self, hasher: &mut impl Hasher) {
        self.stack.iter().for_each(|entry| hasher.write_u32(entry.0));
        self.values.hash(hasher);
        self.drawn.hash(hasher);
        self.made.hash(hasher);
        (&self.notes, self.row).hash(hasher);
        self.pieces.hash(hasher);
    }

    /// All rows.
    pub fn finish(self) -> Expanded<S::Item> {
        let (rows, spans) = self.pieces.sink.finish();
        Expanded { rows, spans, columns: self.columns, made: self.made, sources: self.sources }
    }

    /// The current value of a slot as text, for the message of a fault.
    pub fn value(&self, slot: usize) -> String {
        let value = self.values[slot];
        match self.program.slots[slot].of {
            Type::Text => format!("'{}'", self.env().string(value)),
            of => {
                let mut text = Vec::new();
                show(value, of, &mut text);
                String::from_utf8_lossy(&text).into_owned()
            }
        }
    }
}

/// Keeps a string that a row made, and returns what a slot holds of it.
fn made(
    program: &Program,
    all: &mut Vec<String>,
    at: &mut HashMap<String, i64>,
    text: &str,
    code: u32,
) -> Result<i64, Failure> {
    if text.len() as u64 > MAX_STRING {
        let at = program.codes[code as usize].at;
        let what = format!("the string has more than {MAX_STRING} bytes").into();
        return Err(Failure::Fault(Fault { at, what }, code));
    }
    Ok(program.strings.len() as i64 + intern(all, at, text))
}

fn intern(all: &mut Vec<String>, at: &mut HashMap<String, i64>, text: &str) -> i64 {
    if let Some(&index) = at.get(text) {
        return index;
    }
    let index = all.len() as i64;
    all.push(text.to_owned());
    at.insert(text.to_owned(), index);
    index
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
