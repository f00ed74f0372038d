//! How ops compose: a spec becomes a flat program, and a row runs through it once.
//!
//! Paths, which key the draws: an op is its `name`, or its kind and its ordinal among its siblings of that kind
//! (`TokenDropout#0`); `Sometimes`, `OneOf`, `SomeOf`, `Repeat` and a named `Compose` put their own path and a `/`
//! before their children's. A `Compose` without a name adds nothing, so that wrapping an op in one, or nesting two,
//! changes no draw.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::on_tokens::OnTokens;
use super::plan::TokenOp;
use super::protect::{Protect, SpanPolicy};
use super::text::TextOp;
use super::{Call, Leaf};
use crate::error::{Error, Result};
use crate::identity::hash64;
use crate::rng::{self, Stream, Words, hit, op_key, threshold};

/// What a pipeline works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Domain {
    /// Rows of token ids.
    Token,
    /// Rows of UTF-8 text.
    Text,
}

/// An op, or a composition of ops, ready to run. Immutable, and free to be shared between threads.
#[derive(Debug)]
pub struct Pipeline {
    steps: Vec<Step>,
    gates: Vec<String>,
    pub(super) leaves: Leaves,
    tags: Vec<String>,
    pub(super) repeats: bool,
}

#[derive(Debug)]
pub(super) enum Leaves {
    Token(Vec<Node<dyn TokenOp>>),
    /// Ops on text, and the same over tokens.
    Text(Vec<Node<dyn TextOp>>, Vec<Node<dyn TokenOp>>),
}

/// An op in its place.
#[derive(Debug)]
pub(super) struct Node<Op: ?Sized> {
    pub(super) path: String,
    pub(super) op: Arc<Op>,
    pub(super) protect: Protect,
    pub(super) spans: SpanPolicy,
}

#[derive(Debug)]
enum Step {
    Op(usize),
    /// Runs the next step with the probability of `limit`, else goes on at `skip`.
    Sometimes {
        gate: usize,
        limit: u32,
        skip: usize,
    },
    /// Runs the next step where `option` is among those that a row draws of `options`, else goes on at `skip`.
    SomeOf {
        gate: usize,
        numbers: [u32; 2],
        options: u32,
        option: u32,
        skip: usize,
    },
    /// Goes on at the start whose limit is the first above the roll.
    OneOf {
        gate: usize,
        limits: Vec<u32>,
        starts: Vec<usize>,
    },
    Jump(usize),
    /// Runs all that follows `n` times, each on a row of its own.
    Repeat {
        gate: usize,
        n: u32,
    },
}

/// Which row a row is, and which one it was made from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lineage {
    pub(super) id: u64,
    pub(super) parent: u64,
    pub(super) variant: u32,
}

/// What runs the steps: the state of one row, and where its outcome goes.
pub(super) trait Work {
    type Saved;
    fn op(&mut self, leaf: usize, key: u64, id: u64) -> Result<()>;
    fn save(&self) -> Self::Saved;
    fn restore(&mut self, saved: &Self::Saved);
    fn emit(&mut self, lineage: Lineage);
}

/// The keys of one call: per leaf and per gate.
#[derive(Debug)]
pub(super) struct Keys {
    leaves: Vec<u64>,
    gates: Vec<u64>,
    epoch: u32,
}

impl Keys {
    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }
}

impl Pipeline {
    /// Compiles a spec: an object with one key, the kind of the op, and its parameters as an object.
    ///
    /// # Errors
    /// A spec that is not JSON of that shape, an op that does not exist, a parameter that is unknown, missing or out of
    /// its bounds: each names the op, the parameter and the value.
    pub fn from_json(spec: &str) -> Result<Self> {
        let spec: Value =
            serde_json::from_str(spec).map_err(|error| Error::invalid(format!("the spec is not JSON: {error}")))?;
        let mut build = Build::default();
        build.add(spec, &mut Scope::default())?;
        let mut tags: Vec<String> = build.leaves.iter().flat_map(Place::tags).collect();
        tags.sort();
        tags.dedup();
        let repeats = build.steps.iter().any(|step| matches!(step, Step::Repeat { .. }));
        Ok(Pipeline { steps: build.steps, gates: build.gates, leaves: Leaves::new(build.leaves), tags, repeats })
    }

    /// What it works on. One on text works on tokens too, if their tokenizer is there; one that has ops of both kinds
    /// works on tokens.
    pub fn domain(&self) -> Domain {
        match &self.leaves {
            Leaves::Token(_) => Domain::Token,
            Leaves::Text(..) => Domain::Text,
        }
    }

    /// The path of each op, in order; statistics come in the same order.
    pub fn paths(&self) -> Vec<&str> {
        match &self.leaves {
            Leaves::Token(nodes) => nodes.iter().map(|node| node.path.as_str()).collect(),
            Leaves::Text(nodes, _) => nodes.iter().map(|node| node.path.as_str()).collect(),
        }
    }

    /// Whether some op writes the column `labels`, which must be int32.
    pub fn labels(&self) -> bool {
        matches!(&self.leaves, Leaves::Token(nodes) if nodes.iter().any(|node| node.op.labels()))
    }

    /// Whether some op makes targets.
    pub fn targets(&self) -> bool {
        matches!(&self.leaves, Leaves::Token(nodes) if nodes.iter().any(|node| node.op.targets() || node.op.restores()))
    }

    /// The columns that some op reads, and the bytes of one value.
    pub fn reads(&self) -> Vec<(&str, usize)> {
        match &self.leaves {
            Leaves::Token(nodes) => nodes.iter().filter_map(|node| node.op.reads()).collect(),
            Leaves::Text(..) => Vec::new(),
        }
    }

    /// The span tags that some op protects or reads: what [`Spans::tag`](super::Spans::tag) counts in.
    pub fn tags(&self) -> &[String] {
        &self.tags
    }

    /// The number of a tag.
    pub(super) fn tag(&self, name: &str) -> Option<i32> {
        self.tags.iter().position(|tag| tag == name).map(|number| number as i32)
    }

    pub(super) fn keys(&self, call: &Call) -> Keys {
        let key = |path: &str| op_key(rng::Domain::Ops, call.seed, path, call.variant);
        Keys {
            leaves: self.paths().into_iter().map(key).collect(),
            gates: self.gates.iter().map(|path| key(path)).collect(),
            epoch: call.epoch,
        }
    }

    /// Runs one row from its start.
    pub(super) fn run(&self, id: u64, keys: &Keys, work: &mut impl Work) -> Result<()> {
        self.steps_from(0, Lineage { id, parent: id, variant: 0 }, Vec::new(), keys, work)
    }

    /// `picks` holds, by gate, what `SomeOf` drew before the row became variants.
    fn steps_from(
        &self,
        from: usize,
        lineage: Lineage,
        mut picks: Vec<(usize, u64)>,
        keys: &Keys,
        work: &mut impl Work,
    ) -> Result<()> {
        let roll = |gate: usize| Stream::new(keys.gates[gate], keys.epoch, lineage.id).word(0, 0);
        let mut at = from;
        loop {
            match self.steps.get(at) {
                None => {
                    work.emit(lineage);
                    return Ok(());
                }
                Some(Step::Op(leaf)) => {
                    work.op(*leaf, keys.leaves[*leaf], lineage.id)?;
                    at += 1;
                }
                Some(Step::Sometimes { gate, limit, skip }) => {
                    at = if hit(roll(*gate), *limit) { at + 1 } else { *skip }
                }
                Some(&Step::SomeOf { gate, numbers, options, option, skip }) => {
                    if option == 0 {
                        let mut words = Stream::new(keys.gates[gate], keys.epoch, lineage.id).words(0);
                        picks.push((gate, chosen(&mut words, numbers, options)));
                    }
                    let bits = picks.iter().rev().find(|pick| pick.0 == gate).map_or(0, |pick| pick.1);
                    at = if bits >> option & 1 == 1 { at + 1 } else { skip };
                }
                Some(Step::OneOf { gate, limits, starts }) => {
                    let roll = roll(*gate) >> 8;
                    at = starts[limits.partition_point(|&limit| limit <= roll)];
                }
                Some(Step::Jump(to)) => at = *to,
                Some(Step::Repeat { gate, n }) => {
                    let saved = work.save();
                    let path = self.gates[*gate].as_bytes();
                    for variant in 0..*n {
                        if variant > 0 {
                            work.restore(&saved);
                        }
                        let fields = [&lineage.id.to_le_bytes()[..], path, &u64::from(variant).to_le_bytes()];
                        let next = Lineage { id: hash64(fields), parent: lineage.id, variant };
                        self.steps_from(at + 1, next, picks.clone(), keys, work)?;
                    }
                    return Ok(());
                }
            }
        }
    }
}

/// A program in the making.
#[derive(Default)]
struct Build {
    steps: Vec<Step>,
    gates: Vec<String>,
    leaves: Vec<Place>,
}

/// An op and where it stands.
struct Place {
    path: String,
    leaf: Leaf,
    protect: Protect,
    spans: SpanPolicy,
}

impl Place {
    /// The span tags that the op protects or reads.
    fn tags(&self) -> Vec<String> {
        let read = match &self.leaf {
            Leaf::Text(op) => op.reads_spans(),
            Leaf::Token(op) => op.reads_spans(),
        };
        self.protect.spans.iter().cloned().chain(read.map(String::from)).collect()
    }
}

impl Leaves {
    fn new(places: Vec<Place>) -> Leaves {
        let mut text = Vec::new();
        let mut token: Vec<Node<dyn TokenOp>> = Vec::new();
        for Place { path, leaf, protect, spans } in places {
            let op: Arc<dyn TokenOp> = match leaf {
                Leaf::Token(op) => Arc::from(op),
                Leaf::Text(op) => {
                    let op: Arc<dyn TextOp> = Arc::from(op);
                    text.push(Node { path: path.clone(), op: Arc::clone(&op), protect: protect.clone(), spans });
                    Arc::new(OnTokens::new(path.clone(), op, &protect.words))
                }
            };
            token.push(Node { path, op, protect, spans });
        }
        if text.len() == token.len() { Leaves::Text(text, token) } else { Leaves::Token(token) }
    }
}

/// Where paths are unique: the children of one composition.
#[derive(Default)]
struct Scope {
    prefix: String,
    taken: Vec<String>,
    kinds: Vec<String>,
    protect: Protect,
}

impl Scope {
    /// The path of the next child. A named child counts among its kind too, so that naming it moves nobody else.
    fn path(&mut self, kind: &str, name: Option<String>) -> Result<String> {
        let ordinal = self.kinds.iter().filter(|other| *other == kind).count();
        self.kinds.push(kind.to_string());
        if let Some(name) = &name
            && (name.is_empty() || name.contains(['/', '#']))
        {
            return Err(Error::invalid(format!(
                "{kind}: name must not be empty or contain '/' or '#' (it is '{name}')"
            )));
        }
        let path = format!("{}{}", self.prefix, name.unwrap_or_else(|| format!("{kind}#{ordinal}")));
        if self.taken.contains(&path) {
            return Err(Error::invalid(format!("{kind}: two ops have the name '{path}'")));
        }
        self.taken.push(path.clone());
        Ok(path)
    }

    fn child(&self, path: &str, protect: &Protect) -> Scope {
        Scope { prefix: format!("{path}/"), protect: self.protect.union(protect), ..Scope::default() }
    }
}

impl Build {
    fn add(&mut self, spec: Value, scope: &mut Scope) -> Result<()> {
        let (kind, mut parameters) = only(spec)?;
        let name: Option<String> = super::take(&kind, &mut parameters, "name")?;
        let protect: Protect = super::take(&kind, &mut parameters, "protect")?;
        match kind.as_str() {
            "Compose" => {
                let ops = children(&kind, &mut parameters)?;
                finish(&kind, parameters)?;
                match name {
                    Some(_) => {
                        let path = scope.path(&kind, name)?;
                        let mut inner = scope.child(&path, &protect);
                        ops.into_iter().try_for_each(|op| self.add(op, &mut inner))
                    }
                    None => {
                        let wider = scope.protect.union(&protect);
                        let outer = std::mem::replace(&mut scope.protect, wider);
                        ops.into_iter().try_for_each(|op| self.add(op, scope))?;
                        scope.protect = outer;
                        Ok(())
                    }
                }
            }
            "Sometimes" => {
                let p = super::rate(&kind, "p", required(&kind, &mut parameters, "p")?)?;
                let op = required(&kind, &mut parameters, "op")?;
                finish(&kind, parameters)?;
                let (gate, mut inner) = self.gate(&kind, name, &protect, scope)?;
                let here = self.steps.len();
                self.steps.push(Step::Jump(0));
                self.add(op, &mut inner)?;
                self.steps[here] = Step::Sometimes { gate, limit: threshold(p), skip: self.steps.len() };
                Ok(())
            }
            "OneOf" => {
                let ops = children(&kind, &mut parameters)?;
                let weights: Option<Vec<f64>> = super::take(&kind, &mut parameters, "weights")?;
                finish(&kind, parameters)?;
                let limits = limits(&kind, &weights.unwrap_or_else(|| vec![1.0; ops.len()]), ops.len())?;
                let (gate, mut inner) = self.gate(&kind, name, &protect, scope)?;
                let here = self.steps.len();
                self.steps.push(Step::Jump(0));
                let (mut starts, mut jumps) = (Vec::new(), Vec::new());
                for op in ops {
                    starts.push(self.steps.len());
                    self.add(op, &mut inner)?;
                    jumps.push(self.steps.len());
                    self.steps.push(Step::Jump(0));
                }
                let end = self.steps.len();
                jumps.into_iter().for_each(|jump| self.steps[jump] = Step::Jump(end));
                self.steps[here] = Step::OneOf { gate, limits, starts };
                Ok(())
            }
            "SomeOf" => {
                let ops = children(&kind, &mut parameters)?;
                let k: i64 = required(&kind, &mut parameters, "k")?;
                let at_most: Option<i64> = super::take(&kind, &mut parameters, "at_most")?;
                finish(&kind, parameters)?;
                if ops.len() > 64 {
                    return Err(Error::invalid(format!("{kind}: ops must hold at most 64 ops ({})", ops.len())));
                }
                let (options, most) = (ops.len() as u32, at_most.unwrap_or(k));
                let number = |name: &str, value: i64, low: i64| match value {
                    n if (low..=i64::from(options)).contains(&n) => Ok(n as u32),
                    n => Err(Error::invalid(format!("{kind}: {name} must lie in [{low}, {options}] (it is {n})"))),
                };
                let numbers = [number("k", k, 0)?, number("at_most", most, k)?];
                let (gate, mut inner) = self.gate(&kind, name, &protect, scope)?;
                for (op, option) in ops.into_iter().zip(0..) {
                    let here = self.steps.len();
                    self.steps.push(Step::Jump(0));
                    self.add(op, &mut inner)?;
                    self.steps[here] = Step::SomeOf { gate, numbers, options, option, skip: self.steps.len() };
                }
                Ok(())
            }
            "Repeat" => {
                let n = super::count(&kind, "n", required(&kind, &mut parameters, "n")?)?;
                let op = required(&kind, &mut parameters, "op")?;
                finish(&kind, parameters)?;
                let (gate, mut inner) = self.gate(&kind, name, &protect, scope)?;
                self.steps.push(Step::Repeat { gate, n });
                self.add(op, &mut inner)
            }
            _ => {
                let spans: SpanPolicy = super::take(&kind, &mut parameters, "spans")?;
                let path = scope.path(&kind, name)?;
                let protect = scope.protect.union(&protect);
                let leaf = super::leaf(&kind, Value::Object(parameters))?
                    .ok_or_else(|| Error::invalid(format!("there is no op '{kind}'")))?;
                if matches!(leaf, Leaf::Token(_)) && !protect.words.is_empty() {
                    return Err(Error::invalid(format!(
                        "{kind}: protect.words names words of text, and this op works on tokens: protect ids, columns or spans"
                    )));
                }
                self.steps.push(Step::Op(self.leaves.len()));
                self.leaves.push(Place { path, leaf, protect, spans });
                Ok(())
            }
        }
    }

    /// A path that draws but is no op, and the scope of its children.
    fn gate(
        &mut self,
        kind: &str,
        name: Option<String>,
        protect: &Protect,
        scope: &mut Scope,
    ) -> Result<(usize, Scope)> {
        let path = scope.path(kind, name)?;
        let inner = scope.child(&path, protect);
        self.gates.push(path);
        Ok((self.gates.len() - 1, inner))
    }
}

/// The one key of a spec and its object.
fn only(spec: Value) -> Result<(String, Map<String, Value>)> {
    if let Value::Object(map) = spec
        && map.len() == 1
        && let Some((kind, Value::Object(parameters))) = map.into_iter().next()
    {
        return Ok((kind, parameters));
    }
    Err(Error::invalid(
        "an op is an object with one key, its kind, and its parameters: {\"TokenDropout\": {\"rate\": 0.1}}",
    ))
}

fn required<T: serde::de::DeserializeOwned>(kind: &str, parameters: &mut Map<String, Value>, name: &str) -> Result<T> {
    let value = parameters.remove(name).ok_or_else(|| Error::invalid(format!("{kind}: missing field `{name}`")))?;
    serde_json::from_value(value).map_err(|error| Error::invalid(format!("{kind}: {name}: {error}")))
}

fn children(kind: &str, parameters: &mut Map<String, Value>) -> Result<Vec<Value>> {
    let ops: Vec<Value> = required(kind, parameters, "ops")?;
    if ops.is_empty() {
        return Err(Error::invalid(format!("{kind}: ops must hold at least one op")));
    }
    Ok(ops)
}

fn finish(kind: &str, parameters: Map<String, Value>) -> Result<()> {
    match parameters.keys().next() {
        Some(name) => Err(Error::invalid(format!("{kind}: unknown field `{name}`"))),
        None => Ok(()),
    }
}

/// The options that a row draws, as bits: how many, all numbers between the two equally likely, then which, all sets
/// equally likely (Floyd's algorithm).
fn chosen(words: &mut Words, [low, high]: [u32; 2], options: u32) -> u64 {
    let k = low + words.below(high - low + 1);
    (options - k..options).fold(0, |bits, top| {
        let option = words.below(top + 1);
        bits | 1 << if bits >> option & 1 == 1 { top } else { option }
    })
}

/// Weights as limits of a roll: option `i` is drawn where the roll lies below limit `i` and not below the one before.
pub(super) fn limits(kind: &str, weights: &[f64], n: usize) -> Result<Vec<u32>> {
    let total: f64 = weights.iter().sum();
    if weights.len() != n {
        return Err(Error::invalid(format!(
            "{kind}: weights must hold one number per op ({} for {n} ops)",
            weights.len()
        )));
    }
    if weights.iter().any(|w| *w < 0.0) || !total.is_finite() || total <= 0.0 {
        return Err(Error::invalid(format!("{kind}: weights must not be negative nor all 0 (they are {weights:?})")));
    }
    let mut sum = 0.0;
    let limit = |&w: &f64| {
        sum += w;
        threshold(sum / total)
    };
    Ok(weights.iter().map(limit).collect())
}
