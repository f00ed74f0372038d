//! From a text back to a derivation.
//!
//! The search runs the walk itself against the text: it stops at each decision, tries what the text allows in the order of
//! the derivations, and goes back where what is written is not the text. A place that was left (what is still to come,
//! how far the text is read, the values that are bound) is never entered again. A value that is drawn unseen stays
//! unknown until the text shows it or something computed from it, and so does a number computed from it unseen; where
//! something else reads it, its values are tried.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use num_bigint::BigUint;

use super::Grammar;
use super::compile::{Node, Program};
use super::expr::{Env, Type, show};
use super::functions::days;
use super::walk::{Decide, Sink, SpanBuf, Texts, Walker, push_int};
use crate::error::{Error, Result};
use crate::ragged::RaggedBuf;

/// The most options that a search tries.
const MOST: usize = 1 << 21;

/// What a binding must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Nothing: the derivation does not draw it.
    Undrawn,
    /// An integer.
    Int(i64),
    /// A string.
    Text(String),
}

impl Grammar {
    /// The lowest index of a derivation with this text, among those whose bindings hold what is `wanted`: nothing, or one for
    /// each of [`bindings`](Self::bindings) that matters.
    ///
    /// # Errors
    /// If there is none, with how far the text can be read, or if the search gives up after 2^21 tries. Cost: where the
    /// text tells the alternatives apart, a few walks of the derivation.
    pub fn index_of(&self, text: &str, wanted: &[Option<Wanted>]) -> Result<BigUint> {
        let mut search = Search { program: &self.program, tries: 0 };
        let mut state = State::new(&self.program, text);
        let mut frames: Vec<Frame<'_>> = Vec::new();
        let mut left: HashSet<(u64, u64)> = HashSet::new();
        let (mut furthest, mut disagrees) = (0, false);
        let mut best: Option<Vec<u64>> = None;
        let mut going = state.start();
        'search: loop {
            let stop = if going { search.stop(&mut state) } else { Stop::Dead };
            furthest = furthest.max(state.walker.pieces.sink.at);
            match stop {
                Stop::Fork(kind, options) if options.get(1).is_none() => {
                    search.tries += 1;
                    going =
                        search.tries <= MOST && options.get(0).is_some_and(|only| search.take(&mut state, kind, only));
                    continue;
                }
                Stop::Fork(kind, options) => {
                    if left.insert(state.place()) {
                        frames.push(Frame { state: state.clone(), kind, options, next: 0 });
                    }
                }
                Stop::End => {
                    let certain = state.vars.is_empty();
                    match self.agree(&mut state, wanted) && search.settle(&mut state) {
                        true => {
                            let taken = std::mem::take(&mut state.guide.taken);
                            best = Some(best.map_or(taken.clone(), |best| best.min(taken)));
                            if certain {
                                break 'search;
                            }
                        }
                        false => disagrees = true,
                    }
                }
                Stop::Dead => {}
            }
            loop {
                let Some(frame) = frames.last_mut() else { break 'search };
                let Some(option) = frame.options.get(frame.next) else {
                    frames.pop();
                    continue;
                };
                frame.next += 1;
                search.tries += 1;
                state.clone_from(&frame.state);
                going = search.take(&mut state, frame.kind, option);
                break;
            }
            if search.tries > MOST {
                break 'search;
            }
        }
        if search.tries > MOST {
            let message = format!("index_of: gave up after {MOST} tries: the text can be read in too many ways");
            return Err(Error::invalid(message));
        }
        match best {
            Some(taken) => self.rank(&taken),
            None => Err(unread(text, furthest, disagrees && wanted.iter().any(Option::is_some))),
        }
    }

    /// The index of the derivation that the decisions `taken` lead to.
    fn rank(&self, taken: &[u64]) -> Result<BigUint> {
        let mut walker = Walker::new(&self.program, 1, Texts::new(1));
        let mut replay = Replay { taken: taken.iter(), rank: BigUint::ZERO };
        self.expand(&mut walker, &mut replay, BigUint::from(1u8), &|| "a derivation of the text".to_owned())?;
        Ok(replay.rank)
    }

    /// Whether bindings hold what is wanted; those that are unknown then do.
    fn agree(&self, state: &mut State<'_>, wanted: &[Option<Wanted>]) -> bool {
        let drawn = self.program.slots.iter().enumerate().filter(|(_, slot)| slot.drawn);
        drawn.zip(wanted).all(|((slot, _), wanted)| {
            let is = |value: i64| match wanted {
                Some(Wanted::Int(wanted)) => value == *wanted,
                Some(Wanted::Text(wanted)) => state.walker.env().string(value) == wanted,
                _ => true,
            };
            match (wanted, state.walker.bound(slot)) {
                (None, _) | (Some(Wanted::Undrawn), None) => true,
                (Some(Wanted::Undrawn), Some(_)) | (Some(_), None) => false,
                (Some(_), Some(value)) => match state.walker.pieces.sink.unknown[slot] {
                    None => is(value),
                    Some(var) => match (state.vars[var as usize].origin, wanted) {
                        (Origin::Drawn { node, .. }, _) => {
                            let found =
                                (0..domain(&self.program, node)).find(|&k| is(value_of(&self.program, node, k)));
                            found.map(|k| state.assign(&self.program, var, k)).is_some()
                        }
                        (Origin::Computed, Some(Wanted::Int(wanted))) => {
                            let need = Need { shows: Shows::Value(*wanted), ..state.maker(var).clone() };
                            state.needs.push(need);
                            true
                        }
                        (Origin::Computed, _) => false,
                    },
                },
            }
        })
    }
}

fn unread(text: &str, furthest: usize, disagrees: bool) -> Error {
    const SHOWN: usize = 20;
    if disagrees {
        return Error::invalid("index_of: no derivation with this text has these bindings");
    }
    let furthest = (0..=furthest).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    let (read, rest) = text.split_at(furthest);
    let from = read.char_indices().rev().nth(SHOWN - 1).map_or(0, |(at, _)| at);
    let next: String = rest.chars().take(SHOWN).collect();
    Error::invalid(format!(
        "index_of: no derivation has this text: it can be read up to character {}, between {:?} and {next:?}",
        read.chars().count(),
        &read[from..]
    ))
}

/// A decision with more than one option: all before it, and the next option to try.
struct Frame<'a> {
    state: State<'a>,
    kind: Kind,
    options: Options,
    next: u64,
}

/// What an option says.
#[derive(Clone, Copy)]
enum Kind {
    /// The next decision of the walk.
    Decision,
    /// The value of an unknown.
    Value(u32),
    /// What the code at this place shows.
    Shown(u32),
}

/// Options in their order.
enum Options {
    /// All numbers below this.
    All(u64),
    These(Vec<u64>),
}

impl Options {
    fn get(&self, i: u64) -> Option<u64> {
        match self {
            Options::All(n) => (i < *n).then_some(i),
            Options::These(these) => these.get(i as usize).copied(),
        }
    }
}

/// Where a walk along the text has stopped.
enum Stop {
    Fork(Kind, Options),
    /// At its end, and at that of the text.
    End,
    /// Where the text is another.
    Dead,
}

/// A value that was drawn unseen, or computed from such values.
#[derive(Debug, Clone)]
struct Var {
    origin: Origin,
    slot: u32,
    /// What the slot holds, once it is known.
    value: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Origin {
    /// By a node; which decision it was.
    Drawn { node: u32, decision: usize },
    /// By the code of a [`Need`].
    Computed,
}

/// What a code must come to, with the values that were bound there; some of them were unknown: of which slots, and
/// which unknowns.
#[derive(Debug, Clone)]
struct Need {
    code: u32,
    shows: Shows,
    slots: Vec<i64>,
    unknown: Vec<(u32, u32)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Shows {
    /// This value.
    Value(i64),
    /// The value of this unknown.
    Var(u32),
}

/// A walk along the text.
#[derive(Clone)]
struct State<'a> {
    walker: Walker<'a, Guide, Match<'a>>,
    guide: Guide,
    vars: Vec<Var>,
    needs: Vec<Need>,
}

impl<'a> State<'a> {
    fn new(program: &'a Program, text: &'a str) -> Self {
        let unknown = vec![None; program.slots.len()];
        let sink = Match { target: text.as_bytes(), at: 0, wrong: false, ended: false, told: false, unknown };
        let walker = Walker::new(program, 0, sink);
        State { walker, guide: Guide::default(), vars: Vec::new(), needs: Vec::new() }
    }

    fn start(&mut self) -> bool {
        self.walker.expand(&mut self.guide, ()).is_ok()
    }

    fn go(&mut self) -> bool {
        self.walker.resume(&mut self.guide).is_ok()
    }

    /// Gives an unknown that was drawn its value.
    fn assign(&mut self, program: &Program, var: u32, k: u64) {
        if let Origin::Drawn { node, decision } = self.vars[var as usize].origin {
            self.guide.taken[decision] = k;
            self.hold(var, value_of(program, node, k));
        }
    }

    /// Notes the value of an unknown.
    fn hold(&mut self, var: u32, held: i64) {
        let Var { slot, ref mut value, .. } = self.vars[var as usize];
        *value = Some(held);
        if self.walker.pieces.sink.unknown[slot as usize] == Some(var) {
            self.walker.pieces.sink.unknown[slot as usize] = None;
            self.walker.bind(slot, held);
        }
    }

    /// A new unknown in a slot.
    fn wonder(&mut self, origin: Origin, slot: u32) -> u32 {
        let var = self.vars.len() as u32;
        self.walker.pieces.sink.unknown[slot as usize] = Some(var);
        self.vars.push(Var { origin, slot, value: None });
        self.walker.skip();
        self.walker.bind(slot, 0);
        var
    }

    /// What a code must come to where the walk is.
    fn need(&self, program: &Program, code: u32, shows: Shows) -> Need {
        let unknown = self.unknowns(program, code);
        Need { code, shows, slots: self.walker.env().slots.to_vec(), unknown }
    }

    /// The slots that a code reads which hold unknowns, and these.
    fn unknowns(&self, program: &Program, code: u32) -> Vec<(u32, u32)> {
        let mut unknown = Vec::new();
        program.codes[code as usize].code.slots(&mut |slot| {
            unknown.extend(self.walker.pieces.sink.unknown[slot].map(|var| (slot as u32, var)));
        });
        unknown.sort_unstable();
        unknown.dedup();
        unknown
    }

    /// By which need an unknown is computed.
    fn maker(&self, var: u32) -> &Need {
        self.needs.iter().find(|need| need.shows == Shows::Var(var)).expect("computed later")
    }

    /// Calls `found` on the unknown draws that an unknown depends on.
    fn roots(&self, var: u32, found: &mut impl FnMut(u32, u32)) {
        match self.vars[var as usize].origin {
            Origin::Drawn { node, .. } => found(var, node),
            Origin::Computed => {
                let unknown = &self.maker(var).unknown;
                let open = |&&(_, var): &&(u32, u32)| self.vars[var as usize].value.is_none();
                unknown.iter().filter(open).for_each(|&(_, var)| self.roots(var, found));
            }
        }
    }

    /// The value of an unknown if the draw `root` were `held`, where it depends on no other.
    fn value_if(&self, program: &Program, var: u32, root: u32, held: i64) -> Option<i64> {
        if var == root {
            return Some(held);
        }
        if let Some(value) = self.vars[var as usize].value {
            return Some(value);
        }
        let need = self.maker(var);
        let mut slots = need.slots.clone();
        for &(slot, var) in &need.unknown {
            slots[slot as usize] = self.value_if(program, var, root, held)?;
        }
        need.number(program, &slots)
    }

    /// The values of the draw `root` with which a code writes what the text goes on with, where it depends on no other.
    fn writes(&self, program: &Program, code: u32, root: u32, node: u32) -> Vec<u64> {
        let sink = &self.walker.pieces.sink;
        let Env { slots, made, .. } = self.walker.env();
        let mut slots = slots.to_vec();
        let unknown = self.unknowns(program, code);
        let mut text = Vec::new();
        let mut suits = |k: u64| {
            for &(slot, var) in &unknown {
                slots[slot as usize] = self.value_if(program, var, root, value_of(program, node, k))?;
            }
            text.clear();
            let env = Env { slots: &slots, strings: &program.strings, made, held: "" };
            program.codes[code as usize].code.show(env, &mut text).ok()?;
            sink.target[sink.at..].starts_with(&text).then_some(())
        };
        (0..domain(program, node)).filter(|&k| suits(k).is_some()).collect()
    }

    /// All that the rest of the search depends on.
    fn place(&self) -> (u64, u64) {
        let hash = |salt: u8| {
            let mut hasher = DefaultHasher::new();
            salt.hash(&mut hasher);
            self.walker.state(&mut hasher);
            self.walker.pieces.sink.at.hash(&mut hasher);
            self.walker.pieces.sink.unknown.hash(&mut hasher);
            self.vars.iter().for_each(|var| (var.origin, var.value).hash(&mut hasher));
            self.needs.iter().for_each(|need| (need.code, need.shows, &need.slots, &need.unknown).hash(&mut hasher));
            hasher.finish()
        };
        (hash(0), hash(1))
    }
}

impl Need {
    /// What the code comes to.
    fn number(&self, program: &Program, slots: &[i64]) -> Option<i64> {
        let env = Env { slots, strings: &program.strings, made: &[], held: "" };
        program.codes[self.code as usize].code.number(env).ok()
    }
}

/// How many values a draw has.
fn domain(program: &Program, node: u32) -> u64 {
    match program.nodes[node as usize] {
        Node::Int { range, .. } | Node::Range { range, .. } => program.ranges[range as usize].n,
        Node::Row => program.rows.unwrap_or(1),
        Node::PickInt { n, .. } | Node::PickText { n, .. } => u64::from(n),
        _ => 0,
    }
}

/// What a slot holds if a draw is `k`.
fn value_of(program: &Program, node: u32, k: u64) -> i64 {
    match program.nodes[node as usize] {
        Node::Int { range, .. } | Node::Range { range, .. } => program.ranges[range as usize].at(k),
        Node::PickInt { first, .. } => program.ints[first as usize + k as usize],
        Node::PickText { first, .. } => i64::from(first) + k as i64,
        _ => 0,
    }
}

struct Search<'a> {
    program: &'a Program,
    tries: usize,
}

impl Search<'_> {
    /// Where the walk has stopped; draws that show nothing become unknowns on the way.
    fn stop(&mut self, state: &mut State<'_>) -> Stop {
        let program = self.program;
        loop {
            let sink = &state.walker.pieces.sink;
            if sink.wrong {
                return Stop::Dead;
            }
            let Some(node) = state.walker.next() else {
                return if sink.ended && sink.at == sink.target.len() { Stop::End } else { Stop::Dead };
            };
            let held = state.walker.pieces.holds();
            let all = |node: u32| Options::All(domain(program, node));
            let (kind, options) = match program.nodes[node as usize] {
                Node::Choice { first, end, .. } => (Kind::Decision, Options::All(u64::from(end - first))),
                Node::Row => (Kind::Decision, all(node)),
                Node::Int { slot, hidden: true, .. }
                | Node::PickInt { slot, hidden: true, .. }
                | Node::PickText { slot, hidden: true, .. }
                | Node::Range { slot, .. }
                    if domain(program, node) > 1 =>
                {
                    let decision = state.guide.taken.len();
                    state.guide.taken.push(0);
                    state.wonder(Origin::Drawn { node, decision }, slot);
                    if !state.go() {
                        return Stop::Dead;
                    }
                    continue;
                }
                Node::Int { hidden, .. } | Node::PickInt { hidden, .. } | Node::PickText { hidden, .. } => {
                    (Kind::Decision, if hidden || held { all(node) } else { sink.options(program, node) })
                }
                Node::Range { .. } => (Kind::Decision, all(node)),
                Node::Assign { slot, code }
                    if program.codes[code as usize].code.of() != Type::Text && state.walker.env().made.is_empty() =>
                {
                    let need = state.need(program, code, Shows::Value(0));
                    let var = state.wonder(Origin::Computed, slot);
                    state.needs.push(Need { shows: Shows::Var(var), ..need });
                    if !state.go() {
                        return Stop::Dead;
                    }
                    continue;
                }
                reads => {
                    let mut roots = Vec::new();
                    read_by(program, reads, &mut |slot| {
                        if let Some(var) = sink.unknown[slot] {
                            state.roots(var, &mut |var, node| roots.push((var, node)));
                        }
                    });
                    roots.dedup();
                    let Some(&(var, drawn)) = roots.first() else { return Stop::Dead };
                    let alone = roots.iter().all(|root| root.0 == var);
                    match reads {
                        Node::ShowInt { slot } | Node::ShowText { slot } | Node::ShowValue { slot }
                            if !held && sink.unknown[slot as usize] == Some(var) =>
                        {
                            (Kind::Value(var), sink.options(program, drawn))
                        }
                        Node::Compute { code } if !held && state.walker.env().made.is_empty() => {
                            match shown(&sink.target[sink.at..], program.codes[code as usize].code.of()) {
                                Some(values) => {
                                    let values = values.into_iter().map(|value| value as u64);
                                    (Kind::Shown(code), Options::These(values.collect()))
                                }
                                None if alone && domain(program, drawn) <= MOST as u64 => {
                                    self.tries += domain(program, drawn) as usize / 16;
                                    (Kind::Value(var), Options::These(state.writes(program, code, var, drawn)))
                                }
                                None => (Kind::Value(var), all(drawn)),
                            }
                        }
                        _ => (Kind::Value(var), all(drawn)),
                    }
                }
            };
            return Stop::Fork(kind, options);
        }
    }

    /// Goes on with an option; false if that leads nowhere.
    fn take(&mut self, state: &mut State<'_>, kind: Kind, option: u64) -> bool {
        match kind {
            Kind::Decision => {
                if let Some(node) = state.walker.next()
                    && let Node::Int { slot, .. }
                    | Node::PickInt { slot, .. }
                    | Node::PickText { slot, .. }
                    | Node::Range { slot, .. } = self.program.nodes[node as usize]
                {
                    state.walker.pieces.sink.unknown[slot as usize] = None;
                }
                state.guide.next = option;
                state.guide.taken.push(option);
                state.walker.pieces.sink.told = true;
            }
            Kind::Value(var) => {
                state.assign(self.program, var, option);
                if !self.propagate(state) {
                    return false;
                }
            }
            Kind::Shown(code) => {
                let shown = option as i64;
                let mut text = Vec::new();
                show(shown, self.program.codes[code as usize].code.of(), &mut text);
                state.walker.pieces.sink.read(&text);
                state.walker.skip();
                let need = state.need(self.program, code, Shows::Value(shown));
                state.needs.push(need);
                if !self.propagate(state) {
                    return false;
                }
            }
        }
        state.go()
    }

    /// Checks what is known of all needs, and gives the unknowns that only one value suits that value.
    fn propagate(&mut self, state: &mut State<'_>) -> bool {
        let program = self.program;
        let mut i = 0;
        while let Some(need) = state.needs.get_mut(i) {
            for (slot, var) in std::mem::take(&mut need.unknown) {
                match state.vars[var as usize].value {
                    Some(value) => need.slots[slot as usize] = value,
                    None => need.unknown.push((slot, var)),
                }
            }
            match (&need.unknown[..], need.shows) {
                ([], shows) => {
                    self.tries += 1;
                    let Some(value) = need.number(program, &need.slots) else { return false };
                    state.needs.swap_remove(i);
                    match shows {
                        Shows::Value(shown) if value != shown => return false,
                        Shows::Value(_) => {}
                        Shows::Var(var) => {
                            state.hold(var, value);
                            i = 0;
                        }
                    }
                }
                (&[(slot, var)], Shows::Value(shown))
                    if let Origin::Drawn { node, .. } = state.vars[var as usize].origin =>
                {
                    let mut fits = None;
                    let mut several = false;
                    for k in 0..domain(program, node) {
                        self.tries += 1;
                        need.slots[slot as usize] = value_of(program, node, k);
                        if need.number(program, &need.slots) == Some(shown) {
                            several = fits.is_some();
                            fits = fits.or(Some(k));
                        }
                        if several || self.tries > MOST {
                            break;
                        }
                    }
                    match fits {
                        None => return false,
                        Some(_) if several => i += 1,
                        Some(k) => {
                            state.assign(program, var, k);
                            i = 0;
                        }
                    }
                }
                _ => i += 1,
            }
        }
        true
    }

    /// Gives all unknowns the lowest values that the needs allow, the first decision first.
    fn settle(&mut self, state: &mut State<'_>) -> bool {
        if !self.propagate(state) || self.tries > MOST {
            return false;
        }
        let needed = |var: u32| state.needs.iter().any(|need| need.unknown.iter().any(|&(_, v)| v == var));
        let drawn = |(var, held): (u32, &Var)| match held.origin {
            Origin::Drawn { node, .. } if held.value.is_none() && needed(var) => Some((var, node)),
            _ => None,
        };
        let Some((var, node)) = (0u32..).zip(&state.vars).find_map(drawn) else { return true };
        for k in 0..domain(self.program, node) {
            let mut next = state.clone();
            next.assign(self.program, var, k);
            self.tries += 1;
            if self.settle(&mut next) {
                *state = next;
                return true;
            }
            if self.tries > MOST {
                return false;
            }
        }
        false
    }
}

/// Calls `found` on the slots that a node reads before it decides anything.
fn read_by(program: &Program, node: Node, found: &mut impl FnMut(usize)) {
    match node {
        Node::ShowInt { slot } | Node::ShowText { slot } | Node::ShowValue { slot } => found(slot as usize),
        Node::Compute { code } | Node::Assign { code, .. } | Node::Apply { code } => {
            program.codes[code as usize].code.slots(found);
        }
        Node::Switch { switch } => found(program.switches[switch as usize].slot as usize),
        // What is put back later is known then.
        Node::Save { slot } => found(slot as usize),
        _ => {}
    }
}

/// Decides as it is told, and remembers what.
#[derive(Debug, Clone, Default)]
struct Guide {
    next: u64,
    taken: Vec<u64>,
}

impl Decide for Guide {
    type Number = ();

    fn child(&mut self, _number: &mut (), _program: &Program, _i: usize) {}

    fn way(&mut self, _number: (), _program: &Program, first: u32, _end: u32, _total: u32) -> (usize, ()) {
        (first as usize + self.next as usize, ())
    }

    fn below(&mut self, _number: (), _n: u64) -> u64 {
        self.next
    }
}

/// Compares with a text, and stops where that is another, before each decision that is not told, and before what reads
/// an unknown.
#[derive(Debug, Clone)]
struct Match<'a> {
    target: &'a [u8],
    at: usize,
    wrong: bool,
    ended: bool,
    told: bool,
    /// The unknown that each slot holds.
    unknown: Vec<Option<u32>>,
}

impl Match<'_> {
    /// What a draw that shows its value can be where the text goes on as it does.
    fn options(&self, program: &Program, node: u32) -> Options {
        let rest = &self.target[self.at..];
        if let Node::Int { slot, range, .. } | Node::Range { slot, range } = program.nodes[node as usize]
            && let Some(values) = shown(rest, program.slots[slot as usize].of)
        {
            let range = program.ranges[range as usize];
            let number = |value: i64| {
                let above = value.abs_diff(range.low);
                let k = above / range.step;
                (value >= range.low && above.is_multiple_of(range.step) && k < range.n).then_some(k)
            };
            let mut numbers: Vec<u64> = values.into_iter().filter_map(number).collect();
            numbers.sort_unstable();
            return Options::These(numbers);
        }
        let mut text = Vec::new();
        let mut shows = |value: i64| match program.nodes[node as usize] {
            Node::PickText { .. } => rest.starts_with(program.strings[value as usize].as_bytes()),
            Node::PickInt { slot, .. } => {
                text.clear();
                show(value, program.slots[slot as usize].of, &mut text);
                rest.starts_with(&text)
            }
            _ => true,
        };
        Options::These((0..domain(program, node)).filter(|&k| shows(value_of(program, node, k))).collect())
    }

    fn read(&mut self, text: &[u8]) {
        let same = self.target[self.at..].iter().zip(text).take_while(|(a, b)| a == b).count();
        self.at += same;
        self.wrong |= same < text.len();
    }
}

/// The values of a type that `text` begins with, as they are written; nothing for strings, which may be anything.
fn shown(text: &[u8], of: Type) -> Option<Vec<i64>> {
    let sign = usize::from(text.first() == Some(&b'-'));
    let digits = text[sign..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    // The widths that such a value can have here; which of them are one is seen by writing it.
    let widths = match of {
        Type::Int => sign + 1..sign + digits.min(19) + 1,
        Type::Decimal(places) => {
            let width = sign + digits + 1 + usize::from(places);
            width..width + 1
        }
        Type::Date => 10..11,
        Type::Truth => 4..6,
        Type::Text => return None,
    };
    let value = |width: usize| {
        let written = std::str::from_utf8(text.get(..width)?).ok()?;
        let value = match of {
            Type::Truth => i64::from(written == "true"),
            Type::Date => {
                let mut parts = written.split('-').map(str::parse);
                days(parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?)?
            }
            _ => written.replacen('.', "", 1).parse().ok()?,
        };
        let mut again = Vec::new();
        show(value, of, &mut again);
        (again == written.as_bytes()).then_some(value)
    };
    Some(widths.filter_map(value).collect())
}

impl Sink for Match<'_> {
    type Item = u8;

    fn visit(&mut self, program: &Program, node: u32, _height: usize) -> bool {
        let known = match program.nodes[node as usize] {
            Node::Choice { .. }
            | Node::Int { .. }
            | Node::PickInt { .. }
            | Node::PickText { .. }
            | Node::Range { .. }
            | Node::Row => std::mem::take(&mut self.told),
            reads => {
                let mut known = true;
                read_by(program, reads, &mut |slot| known &= self.unknown[slot].is_none());
                if let Node::Assign { slot, .. }
                | Node::Bind { slot, .. }
                | Node::Cell { slot, .. }
                | Node::Keep { slot, .. }
                | Node::Restore { slot } = reads
                    && known
                {
                    self.unknown[slot as usize] = None;
                }
                known
            }
        };
        known && !self.wrong
    }

    fn literal(&mut self, program: &Program, _node: u32, start: u32, end: u32) {
        self.read(&program.literals.as_bytes()[start as usize..end as usize]);
    }

    fn text(&mut self, text: &[u8]) {
        self.read(text);
    }

    fn int(&mut self, value: i64) {
        let mut text = Vec::new();
        push_int(&mut text, value);
        self.read(&text);
    }

    fn open(&mut self, _tag: u32) {}

    fn close(&mut self) {}

    fn end_row(&mut self) -> Result<()> {
        self.ended = !self.wrong;
        Ok(())
    }

    fn finish(self) -> (RaggedBuf<u8>, SpanBuf) {
        Default::default()
    }
}

/// Makes the decisions again; `rank` adds up to the index of the derivation.
struct Replay<'a> {
    taken: std::slice::Iter<'a, u64>,
    rank: BigUint,
}

impl Decide for Replay<'_> {
    type Number = BigUint;

    fn child(&mut self, step: &mut BigUint, program: &Program, i: usize) -> BigUint {
        let part = step.clone();
        match &program.big {
            Some(big) => *step *= &big.count[i],
            None => *step *= program.children[i].count,
        }
        part
    }

    fn way(&mut self, step: BigUint, program: &Program, first: u32, _end: u32, _total: u32) -> (usize, BigUint) {
        let way = first as usize + self.taken.next().map_or(0, |&k| k as usize);
        match &program.big {
            Some(big) => self.rank += &step * &big.before[way],
            None => self.rank += &step * program.ways[way].before,
        }
        (way, step)
    }

    fn below(&mut self, step: BigUint, _n: u64) -> u64 {
        let value = self.taken.next().copied().unwrap_or(0);
        self.rank += step * value;
        value
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{grammar, rules, texts};
    use super::*;
    use crate::template::parse::canonical;
    use crate::template::{Binding, Column, Expanded, Type};
    use proptest::prelude::*;

    fn refusal(source: &str, text: &str) -> String {
        grammar(source).index_of(text, &[]).unwrap_err().message().to_owned()
    }

    #[test]
    fn the_furthest_place_is_told() {
        assert_eq!(
            refusal("x = one {a=int 1..9} two {b} | one more\nb = p | q", "one 5 two r"),
            "index_of: no derivation has this text: it can be read up to character 10, between \"one 5 two \" and \"r\""
        );
        assert_eq!(
            refusal("x = é{n=int 1..3}", "é1é"),
            "index_of: no derivation has this text: it can be read up to character 2, between \"é1\" and \"é\""
        );
    }

    #[test]
    fn hidden_values_are_found() {
        let g = grammar("x = {!d=int 0..500}{!b=int 2..499}{=b+d} minus {b} is {d}.");
        for index in [0u32, 77, 12_345, 249_497] {
            let index = BigUint::from(index);
            let text = texts(&g.nth(&index).unwrap()).remove(0);
            assert_eq!(g.index_of(&text, &[]).unwrap(), index);
        }
    }

    #[test]
    fn values_are_read_as_they_are_written() {
        let none: [i64; 0] = [];
        let read = |text: &str, of: Type| shown(text.as_bytes(), of).unwrap();
        assert_eq!(read("120x", Type::Int), [1, 12, 120]);
        assert_eq!(read("0.5", Type::Int), [0]);
        assert_eq!(read("-07", Type::Int), none);
        assert_eq!(read("-9223372036854775808", Type::Int).last(), Some(&i64::MIN));
        assert_eq!(read("-0.250", Type::Decimal(2)), [-25]);
        assert_eq!(read("00.25", Type::Decimal(2)), none);
        assert_eq!(read("1.2", Type::Decimal(2)), none);
        assert_eq!(read("1970-01-02.", Type::Date), [1]);
        assert_eq!(read("1970-02-30", Type::Date), none);
        assert_eq!(read("falsetto", Type::Truth), [0]);
        assert_eq!(read("é", Type::Truth), none);
        assert_eq!(shown(b"x", Type::Text), None);
    }

    #[test]
    fn what_a_later_part_binds_is_known() {
        let g =
            grammar("x = {!a=int 1..9}{b=int 1..9}{!c=float 0.25..1000000000 step 0.25}{d=(a+1)}{!a=int 2..3}{a} {c}");
        for index in [BigUint::ZERO, g.count() / 3u8, g.count() - 1u8] {
            let text = texts(&g.nth(&index).unwrap()).remove(0);
            let found = g.index_of(&text, &[]).unwrap();
            assert_eq!(texts(&g.nth(&found).unwrap()), [text]);
            assert!(found <= index);
        }
    }

    #[test]
    fn a_text_of_many_readings_is_read_once() {
        let parts: String = (0..40).map(|i| format!("r{i} = a | aa{{r{}}} | a{{r{}}}\n", i + 1, i + 1)).collect();
        let g = grammar(&format!("{parts}r40 = b"));
        let text = "a".repeat(60);
        let index = g.index_of(&text, &[]).unwrap();
        assert_eq!(texts(&g.nth(&index).unwrap()), [text]);
        assert!(g.index_of(&format!("{}c", "a".repeat(50)), &[]).unwrap_err().message().contains("up to character 50"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// The index of a text is the first derivation with that text, and with its bindings that with those too.
        #[test]
        fn texts_lead_to_their_first_derivation(rules in rules()) {
            let g = grammar(&canonical(&rules));
            prop_assume!(*g.count() <= BigUint::from(500u32));
            let count = u64::try_from(g.count()).unwrap();
            let all: Vec<_> = (0..count).map(|k| g.nth(&k.into()).unwrap()).collect();
            for (k, one) in all.iter().enumerate() {
                let text = texts(one).remove(0);
                let first = all.iter().position(|other| other.rows == one.rows).unwrap();
                prop_assert_eq!(g.index_of(&text, &[]).unwrap(), BigUint::from(first));
                let strings = g.strings();
                let wanted: Vec<_> = g.bindings().zip(&one.columns).map(|(binding, column)| {
                    let value = column.values[0];
                    Some(match column.drawn.first() {
                        Some(false) => Wanted::Undrawn,
                        _ if binding.of == Type::Text => Wanted::Text(strings[value as usize].clone()),
                        _ => Wanted::Int(value),
                    })
                }).collect();
                let alike = |other: &Expanded<u8>| {
                    let text = |column: &Column| strings[column.values[0] as usize].clone();
                    let mut columns = g.bindings().zip(other.columns.iter().zip(&one.columns));
                    let same = |(binding, (a, b)): (Binding, (&Column, &Column))| {
                        a == b || (binding.of == Type::Text && a.drawn == b.drawn && text(a) == text(b))
                    };
                    other.rows == one.rows && columns.all(same)
                };
                let first = all.iter().position(alike).unwrap();
                prop_assert_eq!(g.index_of(&text, &wanted).unwrap(), BigUint::from(first));
                prop_assert!(first <= k);
            }
        }
    }
}
