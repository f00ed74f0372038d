//! Text that waits until it is final: what a filter changes, and what a binding takes.
//!
//! A walk changes nothing that it has handed to its [`Sink`], so that a sink may treat each piece by itself. What a filter
//! or a binding takes is held back here, with the places of its tags, and goes on when it is done.

use std::hash::{Hash, Hasher};

use super::compile::Program;
use super::expr::{Code, Env, Fault};
use super::walk::{Sink, push_int};

/// A span that begins (with its tag) or ends at a byte of the text held.
#[derive(Debug, Clone, Copy, Hash)]
struct Mark {
    at: usize,
    tag: Option<u32>,
}

/// Pieces on their way to a sink, held back while a filter or a binding waits for them.
#[derive(Clone)]
pub(super) struct Pieces<S> {
    pub sink: S,
    held: Vec<u8>,
    marks: Vec<Mark>,
    /// Where each one that waits began, in `held` and `marks`.
    holds: Vec<(usize, usize)>,
    /// What a filter makes.
    filtered: Vec<u8>,
}

impl<S: Sink> Pieces<S> {
    pub fn new(sink: S) -> Self {
        Pieces { sink, held: Vec::new(), marks: Vec::new(), holds: Vec::new(), filtered: Vec::new() }
    }

    #[inline]
    pub fn literal(&mut self, program: &Program, node: u32, start: u32, end: u32) {
        if self.holds.is_empty() {
            self.sink.literal(program, node, start, end);
        } else {
            self.held.extend_from_slice(&program.literals.as_bytes()[start as usize..end as usize]);
        }
    }

    #[inline]
    pub fn int(&mut self, value: i64) {
        if self.holds.is_empty() {
            self.sink.int(value);
        } else {
            push_int(&mut self.held, value);
        }
    }

    #[inline]
    pub fn text(&mut self, text: &[u8]) {
        if self.holds.is_empty() {
            self.sink.text(text);
        } else {
            self.held.extend_from_slice(text);
        }
    }

    #[inline]
    pub fn open(&mut self, tag: u32) {
        if self.holds.is_empty() {
            self.sink.open(tag);
        } else {
            self.marks.push(Mark { at: self.held.len(), tag: Some(tag) });
        }
    }

    #[inline]
    pub fn close(&mut self) {
        if self.holds.is_empty() {
            self.sink.close();
        } else {
            self.marks.push(Mark { at: self.held.len(), tag: None });
        }
    }

    /// Whether what comes is held back.
    pub fn holds(&self) -> bool {
        !self.holds.is_empty()
    }

    /// Feeds what is held back.
    pub fn hash(&self, hasher: &mut impl Hasher) {
        (&self.held, &self.marks, &self.holds).hash(hasher);
    }

    /// Holds back what comes.
    pub fn hold(&mut self) {
        self.holds.push((self.held.len(), self.marks.len()));
    }

    /// What came since the last hold.
    pub fn held(&self) -> &str {
        let (start, _) = self.holds.last().copied().unwrap_or_default();
        std::str::from_utf8(&self.held[start..]).expect("pieces are UTF-8")
    }

    /// Ends the last hold: what came goes on if `show`, or nothing.
    pub fn release(&mut self, show: bool) {
        let (start, first) = self.holds.pop().expect("a hold comes before");
        if !show {
            self.held.truncate(start);
            self.marks.truncate(first);
        } else if self.holds.is_empty() {
            self.pass_on();
        }
    }

    /// Ends the last hold: what `code` makes of the text that came goes on, with its spans moved along.
    pub fn apply(&mut self, code: &Code, env: Env<'_>) -> Result<(), Fault> {
        let &(start, first) = self.holds.last().expect("a hold comes before");
        let mut text = std::mem::take(&mut self.filtered);
        text.clear();
        {
            let held = self.held();
            code.show(Env { held, ..env }, &mut text)?;
            let places = self.marks[first..].iter().map(|mark| code.moved(Env { held, ..env }, mark.at - start));
            let places = places.collect::<Result<Vec<usize>, Fault>>()?;
            for (mark, place) in self.marks[first..].iter_mut().zip(places) {
                mark.at = start + place;
            }
        }
        self.held.truncate(start);
        self.held.extend_from_slice(&text);
        self.filtered = text;
        self.release(true);
        Ok(())
    }

    fn pass_on(&mut self) {
        let mut from = 0;
        for mark in self.marks.drain(..) {
            if mark.at > from {
                self.sink.text(&self.held[from..mark.at]);
                from = mark.at;
            }
            match mark.tag {
                Some(tag) => self.sink.open(tag),
                None => self.sink.close(),
            }
        }
        if from < self.held.len() {
            self.sink.text(&self.held[from..]);
        }
        self.held.clear();
    }
}
