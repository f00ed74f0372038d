//! Syntax tree -> a directed acyclic graph of sums and products, with exact counts.
//!
//! A rule is compiled once for each context it is called in. The context is what is left of the depths of recursive
//! rules, so that the graph has no cycle; a rule that no derivation can finish in its context has no node there, and
//! the alternatives that call it are left out. Everything that could fail later is refused here: a compiled program
//! can only meet an overflow or a division by zero.

use std::collections::HashMap;
use std::ops::Range;

use num_bigint::BigUint;

use super::expr::{Clash, Code, Type};
use super::parse::{Arm, Item, Rule, Sampler, Weight, fault, suggestion};
use crate::error::{Error, Result};

/// The most bytes and steps of one derivation.
const MAX_SIZE: u64 = 1 << 24;
/// The most bits of a count.
const MAX_BITS: u64 = 1 << 16;
/// The most contexts of rules, and calls between them, that bounded recursion may unfold to.
const MAX_INSTANCES: usize = 1 << 18;
const MAX_CALLS: usize = 1 << 22;
/// The most rules with a depth that call themselves: each context says what is left of every one.
const MAX_BOUNDED: usize = 64;
/// The most nodes, so that they can be numbered and held.
const MAX_NODES: usize = 1 << 24;

/// A compiled grammar.
#[derive(Debug)]
pub(super) struct Program {
    pub nodes: Vec<Node>,
    pub root: u32,
    pub children: Vec<Child>,
    pub ways: Vec<Way>,
    /// `Child::count` and `Way::before` of a grammar with more derivations than 64 bits can number.
    pub big: Option<Big>,
    pub literals: String,
    pub ranges: Vec<IntRange>,
    /// The options of integer choices.
    pub ints: Vec<i64>,
    /// The options of string choices: a string slot holds an index into these.
    pub strings: Vec<String>,
    pub codes: Vec<(Code, String)>,
    pub tags: Vec<String>,
    pub slots: Vec<Slot>,
    pub count: BigUint,
    /// Whether some alternatives weigh more than others.
    pub weighted: bool,
    /// Each rule's name, and how many derivations it has where it goes deepest; nothing if the start never calls it.
    pub rules: Vec<(String, Option<BigUint>)>,
    /// The rule that each node is the whole of.
    pub rule_of: HashMap<u32, u32>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Node {
    Text {
        start: u32,
        end: u32,
    },
    Seq {
        first: u32,
        end: u32,
    },
    /// `total` is the sum of the weights, 0 where all are equal.
    Choice {
        first: u32,
        end: u32,
        total: u32,
    },
    Int {
        slot: u32,
        range: u32,
        hidden: bool,
    },
    PickInt {
        slot: u32,
        first: u32,
        n: u32,
        hidden: bool,
    },
    PickText {
        slot: u32,
        first: u32,
        n: u32,
        hidden: bool,
    },
    ShowInt {
        slot: u32,
    },
    ShowText {
        slot: u32,
    },
    Compute {
        code: u32,
    },
    Open {
        tag: u32,
    },
    Close,
}

/// A part of a sequence, and how many derivations it has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Child {
    pub node: u32,
    pub count: u64,
}

/// An alternative, how many derivations lie in those before it, and its column of the alias table (Vose 1991, in
/// integers): the column is this way's with probability `share / total`, else `other`'s. `arm` is the number of its
/// alternative, see [`number_arms`], or `NO_ARM` where it leads to a choice among the alternatives of a group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    pub node: u32,
    pub before: u64,
    pub share: u32,
    pub other: u32,
    pub arm: u32,
}

/// No alternative.
pub(super) const NO_ARM: u32 = u32::MAX;

#[derive(Debug)]
pub(super) struct Big {
    pub count: Vec<BigUint>,
    pub before: Vec<BigUint>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct IntRange {
    pub low: i64,
    pub step: u64,
    pub n: u64,
}

/// A binding.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub name: String,
    pub of: Type,
    /// Whether some derivation draws it, and whether all do.
    pub drawn: bool,
    pub always: bool,
}

/// Checks and compiles the grammar that begins with `start`, the first rule if nothing.
pub(super) fn compile(source: &str, rules: &[Rule], start: Option<&str>) -> Result<Program> {
    let mut by_name: HashMap<&str, usize> = HashMap::new();
    for (i, rule) in rules.iter().enumerate() {
        if let Some(first) = by_name.insert(&rule.name, i) {
            let line = source[..rules[first].at].matches('\n').count() + 1;
            return Err(fault(
                source,
                rule.at,
                format!("duplicate rule '{}': it is defined in line {line}", rule.name),
            ));
        }
    }
    let start = match start {
        _ if rules.is_empty() => return Err(Error::invalid("the grammar has no rule: write name = text")),
        None => 0,
        Some(name) => *by_name.get(name).ok_or_else(|| {
            let near = suggestion(name, rules.iter().map(|rule| rule.name.as_str()));
            Error::invalid(format!("start: there is no rule '{name}'{near}"))
        })?,
    };
    let mut compiler = Compiler::new(source, rules, by_name);
    compiler.find_slots()?;
    compiler.resolve()?;
    compiler.refuse_recursion()?;
    let instances = compiler.instantiate(start)?;
    compiler.emit_all(&instances)?;
    compiler.check_flow(&instances)?;
    compiler.finish(&instances)
}

struct Compiler<'a> {
    source: &'a str,
    rules: &'a [Rule],
    by_name: HashMap<&'a str, usize>,
    slot_of: HashMap<&'a str, u32>,
    /// The longest string each slot can hold.
    longest: Vec<u64>,
    /// Calls of each rule in the order of its text: `calls[call_ranges[rule]]`.
    calls: Vec<Call>,
    call_ranges: Vec<Range<usize>>,
    /// The node of each item that looks the same in every context.
    leaves: HashMap<*const Item, u32>,
    /// The number of each alternative.
    arms: HashMap<*const Arm, u32>,
    /// The node of each instance, if it has a derivation.
    roots: Vec<Option<u32>>,
    /// By node: its derivations, the bits of that number, the most bytes and steps of one of them.
    counts: Vec<BigUint>,
    bits: Vec<u64>,
    sizes: Vec<u64>,
    child_counts: Vec<BigUint>,
    before: Vec<BigUint>,
    program: Program,
}

#[derive(Clone, Copy)]
struct Call {
    rule: usize,
    at: usize,
    /// Whether nothing but optional text lies before it.
    leading: bool,
}

/// A rule in a context; `calls` are its callees, nothing where a depth forbids the call.
struct Instance {
    rule: usize,
    depths: Vec<u32>,
    calls: Option<Range<usize>>,
}

/// The node of an alternative, its weight and its number; or that of a choice among several, and the sum of theirs.
#[derive(Clone, Copy)]
struct Found {
    node: u32,
    weight: u64,
    arm: u32,
}

/// All instances, callees before callers in `order`.
struct Instances {
    all: Vec<Instance>,
    calls: Vec<Option<u32>>,
    order: Vec<u32>,
}

impl<'a> Compiler<'a> {
    fn new(source: &'a str, rules: &'a [Rule], by_name: HashMap<&'a str, usize>) -> Self {
        let mut arms = HashMap::new();
        number_arms(rules, &mut |arm, number| {
            arms.insert(std::ptr::from_ref(arm), number);
        });
        Compiler {
            source,
            rules,
            arms,
            by_name,
            slot_of: HashMap::new(),
            longest: Vec::new(),
            calls: Vec::new(),
            call_ranges: Vec::new(),
            leaves: HashMap::new(),
            roots: Vec::new(),
            counts: Vec::new(),
            bits: Vec::new(),
            sizes: Vec::new(),
            child_counts: Vec::new(),
            before: Vec::new(),
            program: Program {
                nodes: Vec::new(),
                root: 0,
                children: Vec::new(),
                ways: Vec::new(),
                big: None,
                literals: String::new(),
                ranges: Vec::new(),
                ints: Vec::new(),
                strings: Vec::new(),
                codes: Vec::new(),
                tags: Vec::new(),
                slots: Vec::new(),
                count: BigUint::ZERO,
                weighted: false,
                rules: rules.iter().map(|rule| (rule.name.clone(), None)).collect(),
                rule_of: HashMap::new(),
            },
        }
    }

    fn fail<T>(&self, at: usize, message: String) -> Result<T> {
        Err(fault(self.source, at, message))
    }

    /// Gives every binding a slot and a type.
    fn find_slots(&mut self) -> Result<()> {
        let rules = self.rules;
        each_item(rules, &mut |item| {
            let Item::Draw { name, sampler, at, .. } = item else { return Ok(()) };
            if let Some(&rule) = self.by_name.get(name.as_str()) {
                let line = self.source[..rules[rule].at].matches('\n').count() + 1;
                return self
                    .fail(*at, format!("'{name}' is a rule, defined in line {line}: give the binding another name"));
            }
            let of = sampler_type(sampler);
            let slot = *self.slot_of.entry(name).or_insert_with(|| {
                self.program.slots.push(Slot { name: name.clone(), of, drawn: false, always: false });
                self.longest.push(0);
                self.program.slots.len() as u32 - 1
            });
            let first = self.program.slots[slot as usize].of;
            if first != of {
                return self
                    .fail(*at, format!("type clash: '{name}' is {of} here and {first} where it is drawn first"));
            }
            if let Sampler::Choice(options) = sampler {
                let longest = options.iter().map(String::len).max().unwrap_or(0) as u64;
                self.longest[slot as usize] = self.longest[slot as usize].max(longest);
            }
            Ok(())
        })
    }

    /// Resolves every name, types every expression, and makes the nodes that no context changes.
    fn resolve(&mut self) -> Result<()> {
        let rules = self.rules;
        for rule in rules {
            let first = self.calls.len();
            each_item(std::slice::from_ref(rule), &mut |item| {
                let node = match item {
                    Item::Text(text) => Some(self.text_node(text)),
                    Item::Draw { name, sampler, hidden, .. } => {
                        Some(self.draw_node(self.slot_of[name.as_str()], sampler, *hidden))
                    }
                    Item::Compute { expr, source } => {
                        let code = expr
                            .check(&|name, at| self.slot(name, at))
                            .map_err(|clash| fault(self.source, clash.at, clash.message))?;
                        let longest = code.longest(&|slot| self.longest[slot as usize]);
                        self.program.codes.push((code, source.clone()));
                        let code = self.program.codes.len() as u32 - 1;
                        Some(self.node(Node::Compute { code }, BigUint::from(1u8), 0, longest))
                    }
                    Item::Name { name, at } => match (self.by_name.get(name.as_str()), self.slot_of.get(name.as_str()))
                    {
                        (Some(&rule), _) => {
                            self.calls.push(Call { rule, at: *at, leading: false });
                            None
                        }
                        (None, Some(&slot)) => Some(match self.program.slots[slot as usize].of {
                            Type::Text => {
                                let longest = self.longest[slot as usize];
                                self.node(Node::ShowText { slot }, BigUint::from(1u8), 0, longest)
                            }
                            _ => self.node(Node::ShowInt { slot }, BigUint::from(1u8), 0, 20),
                        }),
                        (None, None) => {
                            let near = suggestion(name, self.by_name.keys().chain(self.slot_of.keys()).copied());
                            return self.fail(*at, format!("undefined rule '{name}'{near}"));
                        }
                    },
                    Item::Optional { .. } | Item::Tag { .. } => None,
                };
                if let Some(node) = node {
                    self.leaves.insert(std::ptr::from_ref(item), node);
                }
                Ok(())
            })?;
            self.call_ranges.push(first..self.calls.len());
        }
        Ok(())
    }

    fn slot(&self, name: &str, at: usize) -> std::result::Result<(u32, Type), Clash> {
        if let Some(&slot) = self.slot_of.get(name) {
            return Ok((slot, self.program.slots[slot as usize].of));
        }
        let message = if self.by_name.contains_key(name) {
            format!("type clash: '{name}' is a rule, and expressions take bindings: {{x=int 1..9}} binds x")
        } else {
            let near = suggestion(name, self.slot_of.keys().copied());
            format!("unbound variable '{name}'{near}: draw it first, as in {{{name}=int 1..9}}")
        };
        Err(Clash { at, message })
    }

    fn node(&mut self, node: Node, count: BigUint, bits: u64, size: u64) -> u32 {
        self.program.nodes.push(node);
        self.counts.push(count);
        self.bits.push(bits);
        self.sizes.push(size.saturating_add(1));
        self.program.nodes.len() as u32 - 1
    }

    fn text_node(&mut self, text: &str) -> u32 {
        let start = self.program.literals.len() as u32;
        self.program.literals.push_str(text);
        let end = self.program.literals.len() as u32;
        self.node(Node::Text { start, end }, BigUint::from(1u8), 0, text.len() as u64)
    }

    fn draw_node(&mut self, slot: u32, sampler: &Sampler, hidden: bool) -> u32 {
        match sampler {
            &Sampler::Int { low, high, step } => {
                let n = high.abs_diff(low) / step + 1;
                self.program.ranges.push(IntRange { low, step, n });
                let range = self.program.ranges.len() as u32 - 1;
                self.node(Node::Int { slot, range, hidden }, BigUint::from(n), u64::from(n.ilog2()) + 1, 20)
            }
            Sampler::Choice(options) => {
                let n = options.len() as u32;
                let node = if sampler_type(sampler) == Type::Int {
                    let first = self.program.ints.len() as u32;
                    self.program.ints.extend(options.iter().filter_map(|option| option.parse::<i64>().ok()));
                    Node::PickInt { slot, first, n, hidden }
                } else {
                    let first = self.program.strings.len() as u32;
                    self.program.strings.extend(options.iter().cloned());
                    Node::PickText { slot, first, n, hidden }
                };
                let longest = options.iter().map(String::len).max().unwrap_or(0) as u64;
                self.node(node, BigUint::from(n), u64::from(n.ilog2()) + 1, longest)
            }
        }
    }

    /// Refuses every cycle of calls that passes through no rule with a depth.
    fn refuse_recursion(&mut self) -> Result<()> {
        self.mark_leading();
        if let Some((cycle, at)) = self.cycle(|call| call.leading) {
            return self.refuse_cycle("left recursion", "begins with", &cycle, at);
        }
        if let Some((cycle, at)) = self.cycle(|_| true) {
            return self.refuse_cycle("unbounded recursion", "calls", &cycle, at);
        }
        Ok(())
    }

    fn refuse_cycle(&self, kind: &str, verb: &str, cycle: &[usize], at: usize) -> Result<()> {
        const SHOWN: usize = 8;
        let name = &self.rules[cycle[0]].name;
        let mut path: Vec<&str> = cycle.iter().take(SHOWN).map(|&rule| self.rules[rule].name.as_str()).collect();
        path.extend((cycle.len() > SHOWN).then_some("..."));
        path.push(name);
        let path = path.join(" -> ");
        self.fail(at, format!("{kind}: '{name}' {verb} itself ({path}); give it a bound: {name}[depth=4] = ..."))
    }

    /// Finds which calls can be the first thing that their rule expands to.
    fn mark_leading(&mut self) {
        let mut empty = vec![false; self.rules.len()];
        loop {
            let mut changed = false;
            for i in (0..self.rules.len()).rev().chain(0..self.rules.len()) {
                let rule = &self.rules[i];
                if !empty[i] && rule.arms.iter().any(|arm| self.can_be_empty(&arm.items, &empty)) {
                    empty[i] = true;
                    changed = true;
                }
            }
            if !changed {
                break;
            }
        }
        for (i, rule) in self.rules.iter().enumerate() {
            let mut cursor = self.call_ranges[i].start;
            for arm in &rule.arms {
                self.mark_items(&arm.items, true, &empty, &mut cursor);
            }
        }
    }

    fn can_be_empty(&self, items: &[Item], empty: &[bool]) -> bool {
        items.iter().all(|item| match item {
            Item::Optional { .. } | Item::Draw { hidden: true, .. } => true,
            Item::Tag { items, .. } => self.can_be_empty(items, empty),
            Item::Name { name, .. } => self.by_name.get(name.as_str()).is_some_and(|&rule| empty[rule]),
            _ => false,
        })
    }

    fn mark_items(&mut self, items: &[Item], mut leading: bool, empty: &[bool], cursor: &mut usize) {
        for item in items {
            match item {
                Item::Optional { arms, .. } => {
                    for arm in arms {
                        self.mark_items(&arm.items, leading, empty, cursor);
                    }
                }
                Item::Tag { items, .. } => self.mark_items(items, leading, empty, cursor),
                Item::Name { name, .. } if self.by_name.contains_key(name.as_str()) => {
                    self.calls[*cursor].leading = leading;
                    *cursor += 1;
                }
                _ => {}
            }
            leading &= self.can_be_empty(std::slice::from_ref(item), empty);
        }
    }

    /// A cycle among rules without a depth over the calls that `follow` takes, and the call that closes it.
    fn cycle(&self, follow: impl Fn(&Call) -> bool) -> Option<(Vec<usize>, usize)> {
        #[derive(Clone, Copy, PartialEq)]
        enum Seen {
            No,
            Open,
            Done,
        }
        let mut seen = vec![Seen::No; self.rules.len()];
        for start in 0..self.rules.len() {
            if seen[start] != Seen::No || self.rules[start].depth.is_some() {
                continue;
            }
            seen[start] = Seen::Open;
            let mut path = vec![(start, self.call_ranges[start].clone())];
            while let Some((rule, rest)) = path.last_mut() {
                let Some(call) = rest.next() else {
                    seen[*rule] = Seen::Done;
                    path.pop();
                    continue;
                };
                let call = self.calls[call];
                if !follow(&call) || self.rules[call.rule].depth.is_some() {
                    continue;
                }
                match seen[call.rule] {
                    Seen::Open => {
                        let cycle = path.iter().map(|&(rule, _)| rule).skip_while(|&rule| rule != call.rule).collect();
                        return Some((cycle, call.at));
                    }
                    Seen::Done => {}
                    Seen::No => {
                        seen[call.rule] = Seen::Open;
                        path.push((call.rule, self.call_ranges[call.rule].clone()));
                    }
                }
            }
        }
        None
    }

    /// Unfolds the calls from `start` into instances, callees before callers.
    fn instantiate(&self, start: usize) -> Result<Instances> {
        let mut callers = vec![Vec::new(); self.rules.len()];
        for (caller, calls) in self.call_ranges.iter().enumerate() {
            for call in &self.calls[calls.clone()] {
                callers[call.rule].push(caller);
            }
        }
        let (mut bounded, mut reach) = (Vec::new(), Vec::new());
        for rule in (0..self.rules.len()).filter(|&rule| self.rules[rule].depth.is_some()) {
            let reaching = reaching(rule, &callers);
            if self.calls[self.call_ranges[rule].clone()].iter().any(|call| reaching[call.rule]) {
                bounded.push(rule);
                reach.push(reaching);
            }
            if bounded.len() > MAX_BOUNDED {
                let message = format!("more than {MAX_BOUNDED} rules with a depth call themselves");
                return self.fail(self.rules[rule].at, message);
            }
        }
        let enter = |rule: usize, depths: &[u32]| {
            let mut depths = depths.to_vec();
            for (depth, (&b, reach)) in depths.iter_mut().zip(bounded.iter().zip(&reach)) {
                if b == rule {
                    *depth = depth.checked_sub(1)?;
                } else if !reach[rule] {
                    *depth = 0;
                }
            }
            Some((rule, depths))
        };
        let full: Vec<u32> = bounded.iter().filter_map(|&rule| self.rules[rule].depth).collect();
        let mut known: HashMap<(usize, Vec<u32>), u32> = HashMap::new();
        let mut out = Instances { all: Vec::new(), calls: Vec::new(), order: Vec::new() };
        let mut add = |all: &mut Vec<Instance>, key: (usize, Vec<u32>)| {
            *known.entry(key).or_insert_with_key(|(rule, depths)| {
                all.push(Instance { rule: *rule, depths: depths.clone(), calls: None });
                all.len() as u32 - 1
            })
        };
        let mut path: Vec<(u32, usize)> = Vec::new();
        if let Some(key) = enter(start, &full) {
            path.push((add(&mut out.all, key), 0));
        }
        while let Some((instance, next)) = path.last_mut() {
            let i = *instance as usize;
            let calls = match out.all[i].calls.clone() {
                Some(calls) => calls,
                None => {
                    let first = out.calls.len();
                    for call in &self.calls[self.call_ranges[out.all[i].rule].clone()] {
                        let key = enter(call.rule, &out.all[i].depths);
                        out.calls.push(key.map(|key| add(&mut out.all, key)));
                    }
                    let calls = first..out.calls.len();
                    out.all[i].calls = Some(calls.clone());
                    calls
                }
            };
            if out.all.len() > MAX_INSTANCES || out.calls.len() > MAX_CALLS {
                let at = self.rules[out.all[i].rule].at;
                return self
                    .fail(at, "the depths of recursive rules unfold to too many contexts: lower them".to_owned());
            }
            if *next == calls.len() {
                out.order.push(*instance);
                path.pop();
                continue;
            }
            let callee = out.calls[calls.start + *next];
            *next += 1;
            if let Some(callee) = callee.filter(|&callee| out.all[callee as usize].calls.is_none()) {
                path.push((callee, 0));
            }
        }
        Ok(out)
    }

    fn emit_all(&mut self, instances: &Instances) -> Result<()> {
        self.roots = vec![None; instances.all.len()];
        let mut finishes = vec![false; self.rules.len()];
        for &i in &instances.order {
            let instance = &instances.all[i as usize];
            let rule = &self.rules[instance.rule];
            let mut cursor = instance.calls.clone().map_or(0, |calls| calls.start);
            let found = self.emit_arms(&rule.arms, rule.at, instances, &mut cursor)?;
            let Some(Found { node: mut root, .. }) = found else { continue };
            finishes[instance.rule] = true;
            let name = instance.rule as u32;
            if *self.program.rule_of.entry(root).or_insert(name) != name {
                root = self.sequence(&[root], rule.at)?;
                self.program.rule_of.insert(root, name);
            }
            self.roots[i as usize] = Some(root);
            let (count, most) = (&self.counts[root as usize], &mut self.program.rules[instance.rule].1);
            if most.as_ref().is_none_or(|most| most < count) {
                *most = Some(count.clone());
            }
        }
        match instances.order.iter().map(|&i| instances.all[i as usize].rule).find(|&rule| !finishes[rule]) {
            Some(rule) => {
                let Rule { name, at, .. } = &self.rules[rule];
                self.fail(
                    *at,
                    format!("rule '{name}' never ends: each of its alternatives calls a rule beyond its depth"),
                )
            }
            None => Ok(()),
        }
    }

    /// What `arms` come to; nothing if none can be finished.
    fn emit_arms(&mut self, arms: &[Arm], at: usize, of: &Instances, cursor: &mut usize) -> Result<Option<Found>> {
        let mut found = Vec::new();
        for arm in arms {
            if let Some(node) = self.emit_items(&arm.items, at, of, cursor)? {
                let weight = arm.weight.unwrap_or(Weight::ONE).0;
                found.push(Found { node, weight, arm: self.arms[&std::ptr::from_ref(arm)] });
            }
        }
        match found[..] {
            [] => Ok(None),
            [only] => Ok(Some(only)),
            _ => {
                let weight = found.iter().fold(0u64, |sum, arm| sum.saturating_add(arm.weight));
                Ok(Some(Found { node: self.choice(&found, at)?, weight, arm: NO_ARM }))
            }
        }
    }

    fn choice(&mut self, arms: &[Found], at: usize) -> Result<u32> {
        let bits = arms.iter().map(|arm| self.bits[arm.node as usize]).max().unwrap_or(0);
        let bits = bits + u64::from(arms.len().ilog2()) + 1;
        let size = arms.iter().map(|arm| self.sizes[arm.node as usize]).max().unwrap_or(0);
        self.check_limits(bits, size, at)?;
        let (total, columns) = if arms.iter().all(|arm| arm.weight == arms[0].weight) {
            (0, vec![(0, 0); arms.len()])
        } else {
            self.program.weighted = true;
            let unit = arms.iter().fold(0, |unit, arm| gcd(unit, arm.weight));
            let weights: Vec<u64> = arms.iter().map(|arm| arm.weight / unit).collect();
            let Ok(total) = u32::try_from(weights.iter().map(|&w| u128::from(w)).sum::<u128>()) else {
                let message =
                    "the weights are too unequal: as whole numbers in lowest terms they must sum to less than 2^32";
                return self.fail(at, message.to_owned());
            };
            (total, alias(&weights, total))
        };
        let first = self.program.ways.len() as u32;
        let mut before = BigUint::ZERO;
        for (&Found { node, arm, .. }, (share, other)) in arms.iter().zip(columns) {
            self.program.ways.push(Way { node, before: small(&before), share, other, arm });
            self.before.push(before.clone());
            before += &self.counts[node as usize];
        }
        let end = self.program.ways.len() as u32;
        Ok(self.node(Node::Choice { first, end, total }, before, bits, size))
    }

    fn emit_items(&mut self, items: &[Item], at: usize, of: &Instances, cursor: &mut usize) -> Result<Option<u32>> {
        let mut parts = Vec::with_capacity(items.len());
        if !self.emit_parts(items, of, cursor, &mut parts)? {
            return Ok(None);
        }
        match parts[..] {
            [only] => Ok(Some(only)),
            _ => self.sequence(&parts, at).map(Some),
        }
    }

    /// Appends the nodes of `items` to `parts`; false if one of them has none.
    fn emit_parts(&mut self, items: &[Item], of: &Instances, cursor: &mut usize, parts: &mut Vec<u32>) -> Result<bool> {
        let mut possible = true;
        for item in items {
            let node = match item {
                Item::Optional { arms, without, at } => {
                    let none = self.text_node("");
                    match self.emit_arms(arms, *at, of, cursor)? {
                        Some(some) => {
                            let (weight, there) = without.map_or((1, 1), |Weight(out)| (out, some.weight));
                            let none = Found { node: none, weight, arm: self.arms[&arms.as_ptr()] - 1 };
                            Some(self.choice(&[none, Found { weight: there, ..some }], *at)?)
                        }
                        None => Some(none),
                    }
                }
                Item::Tag { name, items } => {
                    let tags = &mut self.program.tags;
                    let tag = tags.iter().position(|tag| tag == name).unwrap_or_else(|| {
                        tags.push(name.clone());
                        tags.len() - 1
                    }) as u32;
                    parts.push(self.node(Node::Open { tag }, BigUint::from(1u8), 0, 0));
                    possible &= self.emit_parts(items, of, cursor, parts)?;
                    Some(self.node(Node::Close, BigUint::from(1u8), 0, 0))
                }
                Item::Name { name, .. } if self.by_name.contains_key(name.as_str()) => {
                    *cursor += 1;
                    of.calls[*cursor - 1].and_then(|callee| self.roots[callee as usize])
                }
                leaf => self.leaves.get(&std::ptr::from_ref(leaf)).copied(),
            };
            possible &= node.is_some();
            parts.extend(node);
        }
        Ok(possible)
    }

    fn sequence(&mut self, parts: &[u32], at: usize) -> Result<u32> {
        let bits = parts.iter().fold(0u64, |sum, &node| sum.saturating_add(self.bits[node as usize]));
        let size = parts.iter().fold(0u64, |sum, &node| sum.saturating_add(self.sizes[node as usize]));
        self.check_limits(bits, size, at)?;
        let first = self.program.children.len();
        let mut product = BigUint::from(1u8);
        for &node in parts {
            let count = &self.counts[node as usize];
            product *= count;
            self.program.children.push(Child { node, count: small(count) });
            self.child_counts.push(count.clone());
        }
        let end = self.program.children.len() as u32;
        Ok(self.node(Node::Seq { first: first as u32, end }, product, bits, size))
    }

    fn check_limits(&self, bits: u64, size: u64, at: usize) -> Result<()> {
        if size > MAX_SIZE {
            return self.fail(at, format!("a derivation can take more than {MAX_SIZE} bytes and steps"));
        }
        if self.program.nodes.len() > MAX_NODES {
            return self.fail(at, "the depths of recursive rules unfold to too many parts: lower them".to_owned());
        }
        if bits > MAX_BITS {
            return self.fail(at, format!("there can be more than 2^{MAX_BITS} derivations"));
        }
        Ok(())
    }

    /// Refuses every use of a binding that some way of getting there has not drawn.
    fn check_flow(&mut self, of: &Instances) -> Result<()> {
        let none = Slots(vec![0; self.program.slots.len().div_ceil(64)]);
        let mut draws = vec![none.clone(); of.all.len()];
        for &i in &of.order {
            let instance = &of.all[i as usize];
            let mut cursor = instance.calls.clone().map_or(0, |calls| calls.start);
            let arms = &self.rules[instance.rule].arms;
            draws[i as usize] =
                self.flow_arms(arms, &none, of, &draws, &mut cursor, &mut |_, _, _| Ok(()))?.unwrap_or(none.clone());
        }
        let mut entry: Vec<Option<Slots>> = vec![None; of.all.len()];
        let mut drawn = none.clone();
        let (slot_of, slots) = (&self.slot_of, &self.program.slots);
        for &i in of.order.iter().rev() {
            let instance = &of.all[i as usize];
            let mut cursor = instance.calls.clone().map_or(0, |calls| calls.start);
            let set = entry[i as usize].take().unwrap_or(none.clone());
            let arms = &self.rules[instance.rule].arms;
            self.flow_arms(arms, &set, of, &draws, &mut cursor, &mut |item, set, callee| {
                let need = |name: &str, at: usize| match slot_of.get(name) {
                    Some(&slot) if !set.has(slot) => {
                        let message = format!("unbound variable '{name}': not every way to this place draws it before");
                        self.fail(at, message)
                    }
                    _ => Ok(()),
                };
                match item {
                    Item::Draw { name, .. } => drawn.add(slot_of[name.as_str()]),
                    Item::Name { name, at } => need(name, *at)?,
                    Item::Compute { expr, .. } => {
                        let mut outcome = Ok(());
                        expr.names(&mut |name, at| {
                            if outcome.is_ok() {
                                outcome = need(name, at);
                            }
                        });
                        outcome?;
                    }
                    _ => {}
                }
                if let Some(callee) = callee {
                    match &mut entry[callee as usize] {
                        Some(known) => known.keep(set),
                        unknown => *unknown = Some(set.clone()),
                    }
                }
                Ok(())
            })?;
        }
        let always = of.order.last().map_or(none, |&start| draws[start as usize].clone());
        let flags: Vec<(bool, bool)> =
            (0..slots.len() as u32).map(|slot| (drawn.has(slot), always.has(slot))).collect();
        for (slot, (drawn, always)) in self.program.slots.iter_mut().zip(flags) {
            (slot.drawn, slot.always) = (drawn, always);
        }
        Ok(())
    }

    /// What is drawn for certain after one of `arms`, where `set` is drawn before; nothing if none can be finished.
    fn flow_arms(
        &self,
        arms: &[Arm],
        set: &Slots,
        of: &Instances,
        draws: &[Slots],
        cursor: &mut usize,
        visit: &mut impl FnMut(&Item, &Slots, Option<u32>) -> Result<()>,
    ) -> Result<Option<Slots>> {
        let mut after: Option<Slots> = None;
        for arm in arms {
            let mut set = set.clone();
            if self.flow_items(&arm.items, &mut set, of, draws, cursor, visit)? {
                match &mut after {
                    Some(after) => after.keep(&set),
                    None => after = Some(set),
                }
            }
        }
        Ok(after)
    }

    /// Adds to `set` what `items` draw for certain; false if they cannot be finished.
    fn flow_items(
        &self,
        items: &[Item],
        set: &mut Slots,
        of: &Instances,
        draws: &[Slots],
        cursor: &mut usize,
        visit: &mut impl FnMut(&Item, &Slots, Option<u32>) -> Result<()>,
    ) -> Result<bool> {
        let mut possible = true;
        for item in items {
            match item {
                Item::Optional { arms, .. } => {
                    self.flow_arms(arms, set, of, draws, cursor, visit)?;
                }
                Item::Tag { items, .. } => possible &= self.flow_items(items, set, of, draws, cursor, visit)?,
                Item::Name { name, .. } if self.by_name.contains_key(name.as_str()) => {
                    let callee = of.calls[*cursor].filter(|&callee| self.roots[callee as usize].is_some());
                    *cursor += 1;
                    possible &= callee.is_some();
                    visit(item, set, callee)?;
                    if let Some(callee) = callee {
                        set.join(&draws[callee as usize]);
                    }
                }
                item => {
                    visit(item, set, None)?;
                    if let Item::Draw { name, .. } = item {
                        set.add(self.slot_of[name.as_str()]);
                    }
                }
            }
        }
        Ok(possible)
    }

    fn finish(mut self, instances: &Instances) -> Result<Program> {
        let root = instances.order.last().and_then(|&start| self.roots[start as usize]);
        self.program.root = root.expect("a start without derivations was refused");
        self.program.count = std::mem::take(&mut self.counts[self.program.root as usize]);
        if u64::try_from(&self.program.count).is_err() {
            self.program.big = Some(Big { count: self.child_counts, before: self.before });
        }
        Ok(self.program)
    }
}

/// A set of slots.
#[derive(Clone)]
struct Slots(Vec<u64>);

impl Slots {
    fn has(&self, slot: u32) -> bool {
        self.0[slot as usize / 64] >> (slot % 64) & 1 == 1
    }

    fn add(&mut self, slot: u32) {
        self.0[slot as usize / 64] |= 1 << (slot % 64);
    }

    fn join(&mut self, other: &Slots) {
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| *a |= b);
    }

    fn keep(&mut self, other: &Slots) {
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| *a &= b);
    }
}

/// Calls `found` on every alternative with its number: in the order of the text, where leaving a group out takes the number
/// before its first alternative.
pub(super) fn number_arms<'a>(rules: &'a [Rule], found: &mut impl FnMut(&'a Arm, u32)) {
    fn each<'a>(arms: &'a [Arm], next: &mut u32, found: &mut impl FnMut(&'a Arm, u32)) {
        for arm in arms {
            found(arm, *next);
            *next += 1;
        }
        for arm in arms {
            groups(&arm.items, next, found);
        }
    }
    fn groups<'a>(items: &'a [Item], next: &mut u32, found: &mut impl FnMut(&'a Arm, u32)) {
        for item in items {
            match item {
                Item::Optional { arms, .. } => {
                    *next += 1;
                    each(arms, next, found);
                }
                Item::Tag { items, .. } => groups(items, next, found),
                _ => {}
            }
        }
    }
    let mut next = 0;
    rules.iter().for_each(|rule| each(&rule.arms, &mut next, found));
}

/// Calls `visit` on every item of `rules`, in the order of the text.
fn each_item<'a>(rules: &'a [Rule], visit: &mut impl FnMut(&'a Item) -> Result<()>) -> Result<()> {
    fn each<'a>(items: &'a [Item], visit: &mut impl FnMut(&'a Item) -> Result<()>) -> Result<()> {
        for item in items {
            visit(item)?;
            match item {
                Item::Optional { arms, .. } => arms.iter().try_for_each(|arm| each(&arm.items, visit))?,
                Item::Tag { items, .. } => each(items, visit)?,
                _ => {}
            }
        }
        Ok(())
    }
    rules.iter().flat_map(|rule| &rule.arms).try_for_each(|arm| each(&arm.items, visit))
}

/// Which rules can reach `target` by calls, where `callers` call each rule.
fn reaching(target: usize, callers: &[Vec<usize>]) -> Vec<bool> {
    let mut reach = vec![false; callers.len()];
    let mut todo = vec![target];
    while let Some(rule) = todo.pop() {
        if !std::mem::replace(&mut reach[rule], true) {
            todo.extend(&callers[rule]);
        }
    }
    reach
}

/// A choice is of integers if every option is one, written the usual way.
fn sampler_type(sampler: &Sampler) -> Type {
    match sampler {
        Sampler::Int { .. } => Type::Int,
        Sampler::Choice(options) => {
            let all =
                options.iter().all(|option| option.parse::<i64>().is_ok_and(|value| value.to_string() == *option));
            if all { Type::Int } else { Type::Text }
        }
    }
}

/// `share` and `other` of each column; the weights sum to `total`, and each column holds `total` of `weight * n`.
fn alias(weights: &[u64], total: u32) -> Vec<(u32, u32)> {
    let n = weights.len() as u64;
    let mut mass: Vec<u64> = weights.iter().map(|&weight| weight * n).collect();
    let full = u64::from(total);
    let mut columns: Vec<(u32, u32)> = (0..n as u32).map(|i| (total, i)).collect();
    let (mut under, mut over): (Vec<usize>, Vec<usize>) = (0..mass.len()).partition(|&i| mass[i] < full);
    while let (Some(&low), Some(&high)) = (under.last(), over.last()) {
        columns[low] = (mass[low] as u32, high as u32);
        mass[high] -= full - mass[low];
        under.pop();
        if mass[high] < full {
            over.pop();
            under.push(high);
        }
    }
    columns
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The number if 64 bits hold it; a grammar where they do not never asks for it.
fn small(number: &BigUint) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Every way gets exactly its weight: the shares of its columns sum to `weight * n`.
        #[test]
        fn alias_tables_are_exact(weights in prop::collection::vec(1u64..1_000_000, 1..40)) {
            let total = weights.iter().sum::<u64>() as u32;
            let mut mass = vec![0u64; weights.len()];
            for (i, (share, other)) in alias(&weights, total).into_iter().enumerate() {
                mass[i] += u64::from(share);
                mass[other as usize] += u64::from(total - share);
            }
            for (mass, weight) in mass.iter().zip(&weights) {
                prop_assert_eq!(*mass, weight * weights.len() as u64);
            }
        }
    }
}
