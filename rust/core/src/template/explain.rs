//! A derivation as the tree of what was decided.

use num_bigint::BigUint;

use super::Grammar;
use super::compile::{NO_ARM, Node, Program};
use super::expr::{Type, show};
use super::walk::{Decide, Find, FindBig, Sink, SpanBuf, Walker, push_int};
use crate::error::{Error, Result};
use crate::ragged::RaggedBuf;

/// A part of a derivation; parts come in the order of the text, outer before inner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// How many parts it lies in.
    pub depth: usize,
    /// What it is.
    pub what: What,
    /// Which alternative was taken of how many, where there was a choice; counted from 1, and 0 for a group left out.
    pub choice: Option<(usize, usize)>,
    /// The bytes of the text that came of it.
    pub start: usize,
    /// One past the last.
    pub end: usize,
}

/// What a part of a derivation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A rule, by its name.
    Rule(String),
    /// An optional group, or another choice without a name.
    Group,
    /// A value drawn for a binding.
    Draw {
        /// The binding.
        name: String,
        /// The value as text.
        value: String,
    },
    /// A computed or filtered slot, as it is written.
    Compute(String),
    /// A tag, by its name.
    Tag(String),
}

impl Grammar {
    /// How many derivations each rule has where it goes deepest, in the order of the source; nothing for a rule that no
    /// derivation calls.
    pub fn rule_counts(&self) -> &[(String, Option<BigUint>)] {
        &self.program.rules
    }

    /// The text of a derivation, and the parts that it was made of.
    ///
    /// # Errors
    /// As [`nth`](Self::nth).
    pub fn explain(&self, index: &BigUint) -> Result<(String, Vec<Step>)> {
        self.nth(index)?;
        let program = &self.program;
        let (mut taken, trace) = (Vec::new(), Trace::default());
        let what = || format!("derivation {index}");
        let trace = match u64::try_from(index) {
            Ok(index) if program.big.is_none() => {
                let mut walker = Walker::new(program, 1, trace);
                self.expand(&mut walker, &mut Recorded { inner: Find, taken: &mut taken }, index, &what)?;
                walker.pieces.sink
            }
            _ => {
                let mut walker = Walker::new(program, 1, trace);
                self.expand(&mut walker, &mut Recorded { inner: FindBig, taken: &mut taken }, index.clone(), &what)?;
                walker.pieces.sink
            }
        };
        let steps = self.steps(&trace, taken.into_iter());
        let text = String::from_utf8(trace.text).map_err(|_| Error::invalid("a derivation is no UTF-8"))?;
        Ok((text, steps))
    }

    fn steps(&self, trace: &Trace, mut taken: impl Iterator<Item = u64>) -> Vec<Step> {
        let program = &self.program;
        let mut tree = Tree::default();
        // The group whose alternative is the next decision.
        let mut group: Option<usize> = None;
        for (i, &Visit { node, height, at }) in trace.visits.iter().enumerate() {
            let end = trace.visits.get(i + 1).map_or(trace.text.len(), |next| next.at);
            tree.close(height, at);
            let within = group.take();
            if let Some(&rule) = program.rule_of.get(&node) {
                let step = tree.open(What::Rule(program.rules[rule as usize].0.clone()), height, at);
                group = Some(step).filter(|_| matches!(program.nodes[node as usize], Node::Choice { .. }));
            }
            match program.nodes[node as usize] {
                Node::Choice { first, end, .. } => {
                    let (way, n) = (taken.next().unwrap_or(0) as usize, (end - first) as usize);
                    let ways = &program.ways[first as usize..end as usize];
                    let empty =
                        |node: u32| matches!(program.nodes[node as usize], Node::Text { start, end } if start == end);
                    // The words of a weighted lexicon are no alternatives: the draw behind says which.
                    let words = ways[0].arm == NO_ARM;
                    if words {
                        group = None;
                    } else if let Some(step) = group.take().or(within) {
                        tree.steps[step].choice = Some((way + 1, n));
                    } else {
                        let optional = n == 2 && empty(ways[0].node);
                        let step = tree.open(What::Group, height, at);
                        tree.steps[step].choice = Some(if optional { (way, 1) } else { (way + 1, n) });
                        group = (optional && ways[way].arm == NO_ARM).then_some(step);
                    }
                }
                Node::Int { slot, range, .. } | Node::Range { slot, range } => {
                    let value = program.ranges[range as usize].at(taken.next().unwrap_or(0));
                    tree.leaf(self.draw(slot, value), at, end);
                }
                Node::PickInt { slot, first, .. } => {
                    let value = program.ints[first as usize + taken.next().unwrap_or(0) as usize];
                    tree.leaf(self.draw(slot, value), at, end);
                }
                Node::PickText { slot, first, .. } => {
                    let value = i64::from(first) + taken.next().unwrap_or(0) as i64;
                    tree.leaf(self.draw(slot, value), at, end);
                }
                Node::Row => {
                    let value = taken.next().unwrap_or(0).to_string();
                    tree.leaf(What::Draw { name: "_row".to_owned(), value }, at, end);
                }
                Node::Compute { code } | Node::Apply { code } => {
                    tree.leaf(What::Compute(program.codes[code as usize].source.clone()), at, end);
                }
                Node::Open { tag } => {
                    tree.open(What::Tag(program.tags[tag as usize].clone()), 0, at);
                }
                Node::Close => tree.close_tag(at),
                _ => {}
            }
        }
        tree.close_all(trace.text.len());
        tree.steps
    }

    fn draw(&self, slot: u32, value: i64) -> What {
        let said = &self.program.slots[slot as usize];
        let mut text = Vec::new();
        match said.of {
            Type::Text => text.extend_from_slice(self.program.strings[value as usize].as_bytes()),
            of => show(value, of, &mut text),
        }
        What::Draw { name: said.name.clone(), value: String::from_utf8_lossy(&text).into_owned() }
    }
}

/// Steps in the making.
#[derive(Default)]
struct Tree {
    steps: Vec<Step>,
    /// The steps that go on, and how high the stack of the walk is while they do; 0 for a tag, which says when it ends.
    open: Vec<(usize, usize)>,
}

impl Tree {
    fn open(&mut self, what: What, height: usize, at: usize) -> usize {
        self.leaf(what, at, at);
        self.open.push((self.steps.len() - 1, height));
        self.steps.len() - 1
    }

    fn leaf(&mut self, what: What, start: usize, end: usize) {
        self.steps.push(Step { depth: self.open.len(), what, choice: None, start, end });
    }

    /// Ends the steps that lie above a height of the stack.
    fn close(&mut self, height: usize, at: usize) {
        while let Some((step, _)) = self.open.pop_if(|(_, from)| *from > height) {
            self.steps[step].end = at;
        }
    }

    fn close_tag(&mut self, at: usize) {
        while let Some((step, from)) = self.open.pop() {
            self.steps[step].end = at;
            if from == 0 && matches!(self.steps[step].what, What::Tag(_)) {
                return;
            }
        }
    }

    fn close_all(&mut self, at: usize) {
        self.open.drain(..).for_each(|(step, _)| self.steps[step].end = at);
    }
}

/// A node of the walk, how high the stack was below it, and how far the text had come.
#[derive(Debug, Clone, Copy)]
struct Visit {
    node: u32,
    height: usize,
    at: usize,
}

/// Remembers the nodes of a walk.
#[derive(Debug, Default)]
struct Trace {
    visits: Vec<Visit>,
    text: Vec<u8>,
}

impl Sink for Trace {
    type Item = u8;

    fn visit(&mut self, _program: &Program, node: u32, height: usize) -> bool {
        self.visits.push(Visit { node, height, at: self.text.len() });
        true
    }

    fn literal(&mut self, program: &Program, _node: u32, start: u32, end: u32) {
        self.text.extend_from_slice(&program.literals.as_bytes()[start as usize..end as usize]);
    }

    fn text(&mut self, text: &[u8]) {
        self.text.extend_from_slice(text);
    }

    fn int(&mut self, value: i64) {
        push_int(&mut self.text, value);
    }

    fn open(&mut self, _tag: u32) {}

    fn close(&mut self) {}

    fn end_row(&mut self) -> Result<()> {
        Ok(())
    }

    fn finish(self) -> (RaggedBuf<u8>, SpanBuf) {
        Default::default()
    }
}

/// Remembers what another decides.
struct Recorded<'a, D> {
    inner: D,
    taken: &'a mut Vec<u64>,
}

impl<D: Decide> Decide for Recorded<'_, D> {
    type Number = D::Number;

    fn child(&mut self, number: &mut D::Number, program: &Program, i: usize) -> D::Number {
        self.inner.child(number, program, i)
    }

    fn way(&mut self, number: D::Number, program: &Program, first: u32, end: u32, total: u32) -> (usize, D::Number) {
        let (way, number) = self.inner.way(number, program, first, end, total);
        self.taken.push(way as u64 - u64::from(first));
        (way, number)
    }

    fn below(&mut self, number: D::Number, n: u64) -> u64 {
        let value = self.inner.below(number, n);
        self.taken.push(value);
        value
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{grammar, rules, texts};
    use super::*;
    use crate::template::parse::canonical;
    use proptest::prelude::*;

    fn shown(source: &str, index: u32) -> Vec<String> {
        let (text, steps) = grammar(source).explain(&index.into()).unwrap();
        let one = |step: &Step| {
            let what = match &step.what {
                What::Rule(name) => name.clone(),
                What::Group => "()?".to_owned(),
                What::Draw { name, value } => format!("{name}={value}"),
                What::Compute(source) => source.clone(),
                What::Tag(name) => format!("<{name}>"),
            };
            let choice = step.choice.map_or(String::new(), |(k, n)| format!(" {k}/{n}"));
            format!("{}{what}{choice} '{}'", " ".repeat(step.depth), &text[step.start..step.end])
        };
        steps.iter().map(one).collect()
    }

    #[test]
    fn a_derivation_is_the_tree_of_its_decisions() {
        let source = "task = <q>{!n=int 2..3}{who} has {a=choice p, q}</q>(, yes | , no {=n*n})?.\nwho = Anna | {child}\nchild = Bo";
        assert_eq!(
            shown(source, 23),
            [
                "task 'Bo has q, no 9.'",
                " <q> 'Bo has q'",
                "  n=3 ''",
                "  who 2/2 'Bo'",
                "   child 'Bo'",
                "  a=q 'q'",
                " ()? 2/2 ', no 9'",
                "  =n*n '9'",
            ]
        );
        assert_eq!(shown(source, 0)[5], " ()? 0/1 ''");
    }

    proptest! {
        /// Steps lie in the text and in the steps around them.
        #[test]
        fn steps_nest(rules in rules()) {
            let g = grammar(&canonical(&rules));
            let last = g.count() - 1u8;
            let (text, steps) = g.explain(&last).unwrap();
            prop_assert_eq!(&text, &texts(&g.nth(&last).unwrap())[0]);
            let mut around: Vec<&Step> = Vec::new();
            for step in &steps {
                around.truncate(step.depth);
                prop_assert_eq!(around.len(), step.depth);
                prop_assert!(step.start <= step.end && step.end <= text.len());
                prop_assert!(around.last().is_none_or(|outer| outer.start <= step.start && step.end <= outer.end));
                around.push(step);
            }
            prop_assert_eq!(&steps[0].what, &What::Rule(g.start().to_owned()));
            prop_assert_eq!((steps[0].start, steps[0].end), (0, text.len()));
        }
    }
}
