//! Syntax tree -> a directed acyclic graph of sums and products, with exact counts.
//!
//! A rule is compiled once for each context it is called in. The context is what is left of the depths of recursive
//! rules, so that the graph has no cycle, and the features that the call asks for (`agree`), so that alternatives which
//! do not agree are no part of the count; a rule that no derivation can finish in its context has no node there, and
//! the alternatives that call it are left out. Everything that could fail later is refused here, save what depends on
//! the values drawn: an overflow, a division by zero, a date that does not exist.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use num_bigint::BigUint;

use super::agree::{Agreement, Features, Fit, Steering};
use super::expr::{Clash, Code, Expr, MAX_STRING, Type};
use super::parse::{Arm, Ask, Item, Rule, Sampler, Source, Weight, fault, suggestion};
use super::{Cells, Given};
use crate::english;
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
    pub codes: Vec<Formula>,
    pub switches: Vec<Switch>,
    /// Columns of the source rows: numbers, or indices into `strings`.
    pub cells: Vec<i64>,
    /// How many source rows there are, where derivations use them.
    pub rows: Option<u64>,
    /// How many features are remembered while their rules expand.
    pub notes: usize,
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
    /// Any value that is no string, as its type shows.
    ShowValue {
        slot: u32,
    },
    Compute {
        code: u32,
    },
    Open {
        tag: u32,
    },
    Close,
    /// A value of a range, of any type; shows nothing.
    Range {
        slot: u32,
        range: u32,
    },
    /// Binds the value of an expression; shows nothing.
    Assign {
        slot: u32,
        code: u32,
    },
    /// Draws the source row.
    Row,
    /// Binds the cell of the source row: `cells[first + row]`.
    Cell {
        slot: u32,
        first: u32,
    },
    /// From here on text is held back, until `Apply` or `Bind` takes what came.
    Hold,
    /// Shows what a filter makes of the text held.
    Apply {
        code: u32,
    },
    /// Binds the text held, and shows it unless it is hidden; the code is what a fault names.
    Bind {
        slot: u32,
        code: u32,
        hidden: bool,
    },
    /// Keeps the value of a local binding while an alternative has one of its own, and gives it back.
    Save {
        slot: u32,
    },
    Restore {
        slot: u32,
    },
    /// Remembers a feature of the alternative taken.
    Note {
        note: u32,
        value: u32,
    },
    /// Binds the feature remembered.
    Keep {
        slot: u32,
        note: u32,
    },
    /// Goes on with the variant that the value of a binding selects; all have as many derivations.
    Switch {
        switch: u32,
    },
}

/// An expression, and the slot that it stands in as written.
#[derive(Debug)]
pub(super) struct Formula {
    pub code: Code,
    pub source: String,
    pub at: usize,
}

/// Which of `nodes` a value selects.
#[derive(Debug)]
pub(super) struct Switch {
    pub slot: u32,
    /// The node of each value, in the order of values; nothing for a number, which selects the first if it is 1.
    pub cases: Vec<(i64, u32)>,
    pub nodes: Vec<u32>,
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

impl IntRange {
    /// The `k`-th value.
    #[inline]
    pub fn at(self, k: u64) -> i64 {
        self.low.wrapping_add_unsigned(k.wrapping_mul(self.step))
    }
}

/// A binding.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub name: String,
    pub of: Type,
    /// Whether some derivation draws it, and whether all do.
    pub drawn: bool,
    pub always: bool,
    /// Whether its string can be one that the row made.
    pub made: bool,
}

/// Checks and compiles the grammar that begins with `start`, the first rule if nothing.
pub(super) fn compile(source: &Source, rules: &[Rule], start: Option<&str>, given: &Given) -> Result<Program> {
    let mut by_name: HashMap<&str, usize> = HashMap::new();
    for (i, rule) in rules.iter().enumerate() {
        if let Some(first) = by_name.insert(&rule.name, i) {
            let place = source.place(rules[first].at);
            return Err(fault(source, rule.at, format!("duplicate rule '{}': it is defined in {place}", rule.name)));
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
    let mut compiler = Compiler::new(source, rules, by_name, given);
    compiler.find_slots()?;
    compiler.find_calls()?;
    compiler.find_locals();
    compiler.resolve()?;
    compiler.refuse_recursion()?;
    let instances = compiler.instantiate(start)?;
    compiler.emit_all(&instances)?;
    compiler.check_flow(&instances)?;
    compiler.finish(&instances)
}

struct Compiler<'a> {
    source: &'a Source,
    rules: &'a [Rule],
    by_name: HashMap<&'a str, usize>,
    given: &'a Given,
    agreement: Agreement<'a>,
    slot_of: HashMap<&'a str, u32>,
    /// The slots that end with the alternative that draws them.
    locals: Slots,
    /// The longest string each slot can hold.
    longest: Vec<u64>,
    /// Calls of each rule in the order of its text: `calls[call_ranges[rule]]`.
    calls: Vec<Call<'a>>,
    call_ranges: Vec<Range<usize>>,
    call_of: HashMap<*const Item, usize>,
    /// The first string of each lexicon, and the first cell of each column, that some sampler uses.
    lexicon_of: HashMap<&'a str, u32>,
    /// The slots that keep features, by the binding's slot and the feature's number.
    kept: HashMap<(u32, u32), u32>,
    /// Whether some derivation uses the source row.
    used_row: bool,
    column_of: HashMap<&'a str, u32>,
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
    /// By node: whether it can open a tag.
    tagged: Vec<bool>,
    child_counts: Vec<BigUint>,
    before: Vec<BigUint>,
    program: Program,
}

/// The call that an item makes.
struct Call<'a> {
    rule: usize,
    /// The alternative that it stands in.
    arm: usize,
    at: usize,
    /// Whether nothing but optional text lies before it.
    leading: bool,
    /// What it asks for, and whether it also asks for what its own rule was asked for.
    asks: &'a [Ask],
    inherits: bool,
    steering: Option<Steering>,
    /// Where its callees begin among those of an instance, and how many there are: one for each steered value.
    first: usize,
    width: usize,
}

/// A rule in a context; `calls` are its callees, nothing where a depth or a feature forbids the call.
struct Instance {
    rule: usize,
    context: Context,
    fits: Vec<Fit>,
    calls: Option<Range<usize>>,
}

/// The node of an alternative, its weight and its number; or that of a choice among several, and the sum of theirs.
#[derive(Clone, Copy)]
struct Found {
    node: u32,
    weight: u64,
    arm: u32,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Context {
    depths: Vec<u32>,
    features: Features,
}

/// All instances, callees before callers in `order`.
struct Instances {
    all: Vec<Instance>,
    calls: Vec<Option<u32>>,
    order: Vec<u32>,
}

impl<'a> Compiler<'a> {
    fn new(source: &'a Source, rules: &'a [Rule], by_name: HashMap<&'a str, usize>, given: &'a Given) -> Self {
        let mut arms = HashMap::new();
        number_arms(rules, &mut |arm, number| {
            arms.insert(std::ptr::from_ref(arm), number);
        });
        Compiler {
            source,
            rules,
            arms,
            agreement: Agreement::new(rules, &by_name),
            by_name,
            given,
            slot_of: HashMap::new(),
            locals: Slots(Vec::new()),
            longest: Vec::new(),
            calls: Vec::new(),
            call_ranges: Vec::new(),
            call_of: HashMap::new(),
            lexicon_of: HashMap::new(),
            kept: HashMap::new(),
            used_row: false,
            column_of: HashMap::new(),
            leaves: HashMap::new(),
            roots: Vec::new(),
            counts: Vec::new(),
            bits: Vec::new(),
            sizes: Vec::new(),
            tagged: Vec::new(),
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
                switches: Vec::new(),
                cells: Vec::new(),
                rows: None,
                notes: 0,
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

    fn clash(&self, clash: Clash) -> Error {
        fault(self.source, clash.at, clash.message)
    }

    /// Gives every binding a slot and a type: first those that are drawn, then those whose value is computed, in an order
    /// in which each knows the types that it needs.
    fn find_slots(&mut self) -> Result<()> {
        let rules = self.rules;
        let mut computed: Vec<(&'a str, &'a Expr, usize)> = Vec::new();
        each_item(rules, &mut |item| {
            let Item::Draw { name, sampler, at, .. } = item else { return Ok(()) };
            if let Some(&rule) = self.by_name.get(name.as_str()) {
                let place = self.source.place(rules[rule].at);
                return self
                    .fail(*at, format!("'{name}' is a rule, defined in {place}: give the binding another name"));
            }
            if let Sampler::Value { expr, .. } = sampler {
                computed.push((name, expr, *at));
                return Ok(());
            }
            let (of, longest) = self.sampled(sampler)?;
            self.bind(name, of, longest, matches!(sampler, Sampler::Rule { .. }), *at)
        })?;
        while !computed.is_empty() {
            let before = computed.len();
            let mut failed: Option<Clash> = None;
            let mut waiting = Vec::new();
            for (name, expr, at) in std::mem::take(&mut computed) {
                match expr.check(&|name, at| self.slot(name, at)) {
                    Ok(code) => self.bind(name, code.of(), MAX_STRING, true, at)?,
                    Err(clash) => {
                        failed.get_or_insert(clash);
                        waiting.push((name, expr, at));
                    }
                }
            }
            if let Some(clash) = failed.filter(|_| waiting.len() == before) {
                return Err(self.clash(clash));
            }
            computed = waiting;
        }
        Ok(())
    }

    fn bind(&mut self, name: &'a str, of: Type, longest: u64, made: bool, at: usize) -> Result<()> {
        let slot = *self.slot_of.entry(name).or_insert_with(|| {
            let slot = Slot { name: name.to_owned(), of, drawn: false, always: false, made: false };
            self.program.slots.push(slot);
            self.longest.push(0);
            self.program.slots.len() as u32 - 1
        }) as usize;
        let first = self.program.slots[slot].of;
        if first != of {
            let places = |of| match of {
                Type::Decimal(places) => format!(" with {places} places"),
                _ => String::new(),
            };
            let (here, there) = (places(of), places(first));
            return self.fail(
                at,
                format!("type clash: '{name}' is {of}{here} here and {first}{there} where it is drawn first"),
            );
        }
        self.program.slots[slot].made |= made && of == Type::Text;
        self.longest[slot] = self.longest[slot].max(longest);
        Ok(())
    }

    /// The type of what a sampler draws, and its most bytes.
    fn sampled(&self, sampler: &Sampler) -> Result<(Type, u64)> {
        let longest = |texts: &[String]| texts.iter().map(String::len).max().unwrap_or(0) as u64;
        match sampler {
            Sampler::Range { of, .. } => Ok((*of, of.longest())),
            Sampler::Choice(options) => Ok((choice_type(options), longest(options))),
            Sampler::Lexicon { name, at } => {
                let lexicons = &self.given.lexicons;
                match lexicons.iter().find(|lexicon| lexicon.name == *name) {
                    Some(lexicon) => Ok((Type::Text, longest(&lexicon.items))),
                    None => self.fail(*at, missing("lexicon", "lexicons", name, lexicons.iter().map(|l| &l.name))),
                }
            }
            Sampler::Column { name, at } => match self.given.columns.iter().find(|(known, _)| known == name) {
                Some((_, Cells::Texts(texts))) => Ok((Type::Text, longest(texts))),
                Some((_, Cells::Values(of, _))) => Ok((*of, of.longest())),
                None => {
                    self.fail(*at, missing("column", "rows", name, self.given.columns.iter().map(|(name, _)| name)))
                }
            },
            Sampler::Rule { name, at, .. } if !self.by_name.contains_key(name.as_str()) => {
                let samplers = ["choice", "date", "float", "int"];
                let near = suggestion(name, self.by_name.keys().copied().chain(samplers));
                self.fail(*at, format!("'{name}' is no sampler and no rule{near}"))
            }
            Sampler::Rule { .. } | Sampler::Value { .. } => Ok((Type::Text, MAX_STRING)),
        }
    }

    /// Lists the calls of every rule, and what they ask for.
    fn find_calls(&mut self) -> Result<()> {
        let rules = self.rules;
        for rule in rules {
            let start = self.calls.len();
            let mut first = 0;
            for (arm, Arm { items, .. }) in rule.arms.iter().enumerate() {
                each(items, &mut |item| {
                    let (name, asks, at) = match item {
                        Item::Name { name, asks, at, .. } => (name, asks, *at),
                        Item::Draw { sampler: Sampler::Rule { name, asks, at }, .. } => (name, asks, *at),
                        _ => return Ok(()),
                    };
                    let Some(&rule) = self.by_name.get(name.as_str()) else { return Ok(()) };
                    let steering = self.steering(asks)?;
                    let width = steering.as_ref().map_or(1, |steering| steering.values.len());
                    self.call_of.insert(std::ptr::from_ref(item), self.calls.len());
                    let inherits = self.agreement.inherits(item);
                    self.calls.push(Call { rule, arm, at, leading: false, asks, inherits, steering, first, width });
                    first += width;
                    Ok(())
                })?;
            }
            self.call_ranges.push(start..self.calls.len());
            for call in &self.calls[start..] {
                for ask in call.asks {
                    let steered = call.steering.as_ref().is_some_and(|steering| steering.key == ask.key);
                    let fixed = ask.value.as_deref().filter(|_| !steered);
                    let values = call.steering.as_ref().filter(|_| steered).map_or(&[][..], |s| &s.values);
                    self.agreement
                        .check_ask(call.rule, ask, fixed, values)
                        .map_err(|message| fault(self.source, ask.at, message))?;
                }
            }
        }
        Ok(())
    }

    fn find_locals(&mut self) {
        let slots = &self.program.slots;
        self.locals = Slots(vec![0; slots.len().div_ceil(64)]);
        for (slot, _) in slots.iter().enumerate().filter(|(_, said)| said.name.starts_with('_')) {
            self.locals.add(slot as u32);
        }
    }

    /// The slots of the local bindings that `items` draw.
    fn local_slots(&self, items: &[Item]) -> Vec<u32> {
        let mut found = Vec::new();
        if self.locals.is_empty() {
            return found;
        }
        let mut add = |item: &Item| {
            if let Item::Draw { name, .. } = item {
                let slot = self.slot_of[name.as_str()];
                if self.locals.has(slot) && !found.contains(&slot) {
                    found.push(slot);
                    found.extend(self.kept.iter().filter(|((of, _), _)| *of == slot).map(|(_, &kept)| kept));
                }
            }
            Ok(())
        };
        let visited = each(items, &mut add);
        debug_assert!(visited.is_ok());
        found.sort_unstable();
        found
    }

    /// What a binding decides about a call, if one does.
    fn steering(&mut self, asks: &'a [Ask]) -> Result<Option<Steering>> {
        let mut found: Option<Steering> = None;
        for ask in asks {
            let Some(name) = ask.value.as_deref() else { continue };
            let Some(&slot) = self.slot_of.get(name) else { continue };
            if found.is_some() {
                return self
                    .fail(ask.at, "one feature of a call can follow a binding: give the other a value".to_owned());
            }
            let of = self.program.slots[slot as usize].of;
            if of == Type::Int && ask.key == "num" {
                let values = vec!["sg".to_owned(), "pl".to_owned()];
                found = Some(Steering { key: ask.key.clone(), slot, note: None, values });
                continue;
            }
            if of != Type::Text {
                let message =
                    format!("a feature cannot follow '{name}', which is {of}: a string can, and num=n an integer");
                return self.fail(ask.at, message);
            }
            let (mut values, mut drawn) = (Vec::new(), Vec::new());
            let mut only: Option<bool> = None;
            each_item(self.rules, &mut |item| {
                let Item::Draw { name: other, sampler, at, .. } = item else { return Ok(()) };
                if other != name {
                    return Ok(());
                }
                let of_rule = match sampler {
                    Sampler::Choice(options) => {
                        values.extend(options.iter().cloned());
                        false
                    }
                    Sampler::Rule { name, .. } => {
                        drawn.push(self.by_name[name.as_str()]);
                        true
                    }
                    _ => {
                        let message =
                            format!("'{name}' is not drawn by choice or from a rule here, so no feature can follow it");
                        return self.fail(*at, message);
                    }
                };
                if *only.get_or_insert(of_rule) != of_rule {
                    let message = format!("'{name}' is drawn by choice and from a rule, so no feature can follow it");
                    return self.fail(*at, message);
                }
                Ok(())
            })?;
            let mut slot = slot;
            let mut note = None;
            if only == Some(true) {
                for rule in drawn {
                    let stated = self.agreement.stated(rule, &ask.key);
                    values.extend(stated.map_err(|(at, message)| fault(self.source, at, message))?);
                }
                let number = self.agreement.remember(&ask.key);
                self.program.notes = self.program.notes.max(number as usize + 1);
                note = Some(number);
                slot = self.kept_slot(slot, number);
            }
            let mut seen = HashSet::new();
            values.retain(|value| seen.insert(value.clone()));
            self.agreement.know(&values);
            found = Some(Steering { key: ask.key.clone(), slot, note, values });
        }
        Ok(found)
    }

    /// The slot that keeps a feature of what `slot` was drawn from.
    fn kept_slot(&mut self, slot: u32, note: u32) -> u32 {
        *self.kept.entry((slot, note)).or_insert_with(|| {
            let name = self.program.slots[slot as usize].name.clone();
            self.program.slots.push(Slot { name, of: Type::Int, drawn: false, always: false, made: false });
            self.longest.push(0);
            self.program.slots.len() as u32 - 1
        })
    }

    /// Resolves every name, types every expression, and makes the nodes that no context changes.
    fn resolve(&mut self) -> Result<()> {
        each_item(self.rules, &mut |item| {
            let node = match item {
                Item::Text(text) => Some(self.text_node(text)),
                Item::Draw { sampler: Sampler::Rule { .. }, .. } => {
                    return Ok(());
                }
                Item::Draw { name, sampler, hidden, filter, .. } => {
                    let slot = self.slot_of[name.as_str()];
                    let node = self.draw_node(slot, sampler, *hidden || filter.is_some())?;
                    Some(self.shown(node, slot, *hidden, filter.as_ref(), item)?)
                }
                Item::Compute { expr, source } => Some(self.compute_node(expr, format!("={source}"))?),
                Item::Name { name, asks, filter, at } => {
                    if self.by_name.contains_key(name.as_str()) {
                        return Ok(());
                    }
                    let Some(&slot) = self.slot_of.get(name.as_str()) else {
                        let near = suggestion(name, self.by_name.keys().chain(self.slot_of.keys()).copied());
                        return self.fail(*at, format!("undefined rule '{name}'{near}"));
                    };
                    if let Some(ask) = asks.first() {
                        let message =
                            format!("'{name}' is a binding, and features select among the alternatives of a rule");
                        return self.fail(ask.at, message);
                    }
                    Some(match filter {
                        Some(filter) => self.filter_node(filter, name, *at)?,
                        None => self.show_node(slot),
                    })
                }
                Item::Optional { .. } | Item::Tag { .. } => None,
            };
            if let Some(node) = node {
                self.leaves.insert(std::ptr::from_ref(item), node);
            }
            Ok(())
        })
    }

    fn compute_node(&mut self, expr: &Expr, source: String) -> Result<u32> {
        let (code, longest) = self.code(expr, source, 0, 0)?;
        Ok(self.node(Node::Compute { code }, BigUint::from(1u8), 0, longest))
    }

    /// A checked expression, and the most bytes that it shows as where a filter holds at most `held`.
    fn code(&mut self, expr: &Expr, source: String, at: usize, held: u64) -> Result<(u32, u64)> {
        let code = expr.check(&|name, at| self.slot(name, at)).map_err(|clash| self.clash(clash))?;
        let longest = code.longest(&|slot| self.longest[slot as usize], held);
        self.program.codes.push(Formula { code, source, at });
        Ok((self.program.codes.len() as u32 - 1, longest))
    }

    /// A filter on the value of the binding `name`.
    fn filter_node(&mut self, filter: &Expr, name: &str, at: usize) -> Result<u32> {
        let value = Expr::Name { name: name.to_owned(), at };
        let source = format!("{name}{}", filter.as_filter());
        self.compute_node(&filter.with_held(&value), source)
    }

    fn show_node(&mut self, slot: u32) -> u32 {
        let longest = self.longest[slot as usize];
        let node = match self.program.slots[slot as usize].of {
            Type::Text => Node::ShowText { slot },
            Type::Int => Node::ShowInt { slot },
            _ => Node::ShowValue { slot },
        };
        self.node(node, BigUint::from(1u8), 0, longest.max(22 * u64::from(!matches!(node, Node::ShowText { .. }))))
    }

    /// A draw, and what it shows where that is not the draw's own doing.
    fn shown(&mut self, draw: u32, slot: u32, hidden: bool, filter: Option<&Expr>, item: &Item) -> Result<u32> {
        let Item::Draw { name, at, .. } = item else { return Ok(draw) };
        let shows = match (filter, self.program.nodes[draw as usize]) {
            (Some(filter), _) => self.filter_node(filter, name, *at)?,
            (None, Node::Int { .. } | Node::PickText { .. } | Node::PickInt { .. } | Node::Choice { .. })
                if matches!(self.program.slots[slot as usize].of, Type::Int | Type::Text) =>
            {
                return Ok(draw);
            }
            (None, _) if hidden => return Ok(draw),
            (None, _) => self.show_node(slot),
        };
        self.sequence(&[draw, shows], *at)
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
        self.tagged.push(matches!(node, Node::Open { .. }));
        self.program.nodes.len() as u32 - 1
    }

    fn text_node(&mut self, text: &str) -> u32 {
        let start = self.program.literals.len() as u32;
        self.program.literals.push_str(text);
        let end = self.program.literals.len() as u32;
        self.node(Node::Text { start, end }, BigUint::from(1u8), 0, text.len() as u64)
    }

    /// The node of a draw, from anything but a rule.
    fn draw_node(&mut self, slot: u32, sampler: &'a Sampler, hidden: bool) -> Result<u32> {
        let one = BigUint::from(1u8);
        match sampler {
            &Sampler::Range { of, low, high, step } => {
                let n = high.abs_diff(low) / step + 1;
                self.program.ranges.push(IntRange { low, step, n });
                let range = self.program.ranges.len() as u32 - 1;
                let node = match of {
                    Type::Int => Node::Int { slot, range, hidden },
                    _ => Node::Range { slot, range },
                };
                Ok(self.node(node, BigUint::from(n), u64::from(n.ilog2()) + 1, 20))
            }
            Sampler::Choice(options) => {
                let n = options.len() as u32;
                let of = choice_type(options);
                if of == Type::Text {
                    let first = self.strings(options.iter().cloned());
                    return Ok(self.pick(slot, first, n, hidden));
                }
                let first = self.program.ints.len() as u32;
                self.program.ints.extend(options.iter().map(|option| match of {
                    Type::Truth => i64::from(option == "true"),
                    _ => option.parse().expect("checked: all are integers"),
                }));
                let node = Node::PickInt { slot, first, n, hidden: hidden || of == Type::Truth };
                Ok(self.node(node, BigUint::from(n), u64::from(n.ilog2()) + 1, 20))
            }
            Sampler::Lexicon { name, at } => {
                let given = self.given;
                let lexicon =
                    given.lexicons.iter().find(|lexicon| lexicon.name == *name).expect("checked: it is given");
                let first = match self.lexicon_of.get(name.as_str()) {
                    Some(&first) => first,
                    None => {
                        let first = self.strings(lexicon.items.iter().cloned());
                        self.lexicon_of.insert(name, first);
                        first
                    }
                };
                let n = lexicon.items.len() as u32;
                match &lexicon.weights {
                    Some(weights) if n > 1 => {
                        let arms: Vec<Found> = (first..first + n)
                            .zip(weights)
                            .map(|(item, &weight)| Found {
                                node: self.pick(slot, item, 1, hidden),
                                weight,
                                arm: NO_ARM,
                            })
                            .collect();
                        self.choice(&arms, *at)
                    }
                    _ => Ok(self.pick(slot, first, n, hidden)),
                }
            }
            Sampler::Column { name, .. } => {
                let first = match self.column_of.get(name.as_str()) {
                    Some(&first) => first,
                    None => {
                        let given = self.given;
                        let (_, cells) =
                            given.columns.iter().find(|(known, _)| known == name).expect("checked: it is given");
                        let start = self.program.cells.len() as u32;
                        match cells {
                            Cells::Values(_, values) => self.program.cells.extend(values),
                            Cells::Texts(texts) => {
                                let first = i64::from(self.strings(texts.iter().cloned()));
                                self.program.cells.extend(first..first + texts.len() as i64);
                            }
                        }
                        self.column_of.insert(name, start);
                        start
                    }
                };
                Ok(self.node(Node::Cell { slot, first }, one, 0, 0))
            }
            Sampler::Value { expr, source, at } => {
                let name = self.program.slots[slot as usize].name.clone();
                let (code, _) = self.code(expr, format!("{name}={source}"), *at, 0)?;
                Ok(self.node(Node::Assign { slot, code }, one, 0, 0))
            }
            Sampler::Rule { .. } => unreachable!("a rule is called, not drawn"),
        }
    }

    /// Appends strings, and returns where they begin.
    fn strings(&mut self, strings: impl Iterator<Item = String>) -> u32 {
        let first = self.program.strings.len() as u32;
        self.program.strings.extend(strings);
        first
    }

    fn pick(&mut self, slot: u32, first: u32, n: u32, hidden: bool) -> u32 {
        let strings = &self.program.strings[first as usize..(first + n) as usize];
        let longest = strings.iter().map(String::len).max().unwrap_or(0) as u64;
        self.node(Node::PickText { slot, first, n, hidden }, BigUint::from(n), u64::from(n.ilog2()) + 1, longest)
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
        for rule in self.rules {
            for arm in &rule.arms {
                self.mark_items(&arm.items, true, &empty);
            }
        }
    }

    fn can_be_empty(&self, items: &[Item], empty: &[bool]) -> bool {
        let rule_empty = |name: &str| self.by_name.get(name).is_some_and(|&rule| empty[rule]);
        items.iter().all(|item| match item {
            Item::Optional { .. } | Item::Draw { hidden: true, .. } => true,
            Item::Tag { items, .. } => self.can_be_empty(items, empty),
            Item::Name { name, .. } | Item::Draw { sampler: Sampler::Rule { name, .. }, .. } => rule_empty(name),
            _ => false,
        })
    }

    fn mark_items(&mut self, items: &[Item], mut leading: bool, empty: &[bool]) {
        for item in items {
            match item {
                Item::Optional { arms, .. } => {
                    for arm in arms {
                        self.mark_items(&arm.items, leading, empty);
                    }
                }
                Item::Tag { items, .. } => self.mark_items(items, leading, empty),
                _ => {
                    if let Some(&call) = self.call_of.get(&std::ptr::from_ref(item)) {
                        self.calls[call].leading = leading;
                    }
                }
            }
            leading &= self.can_be_empty(std::slice::from_ref(item), empty);
        }
    }

    /// A cycle among rules without a depth over the calls that `follow` takes, and the call that closes it.
    fn cycle(&self, follow: impl Fn(&Call<'_>) -> bool) -> Option<(Vec<usize>, usize)> {
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
                let call = &self.calls[call];
                if !follow(call) || self.rules[call.rule].depth.is_some() {
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
        let enter = |rule: usize, depths: &[u32], features: Features| {
            let mut depths = depths.to_vec();
            for (depth, (&b, reach)) in depths.iter_mut().zip(bounded.iter().zip(&reach)) {
                if b == rule {
                    *depth = depth.checked_sub(1)?;
                } else if !reach[rule] {
                    *depth = 0;
                }
            }
            Some((rule, Context { depths, features }))
        };
        let full: Vec<u32> = bounded.iter().filter_map(|&rule| self.rules[rule].depth).collect();
        let mut known: HashMap<(usize, Context), u32> = HashMap::new();
        let mut out = Instances { all: Vec::new(), calls: Vec::new(), order: Vec::new() };
        let mut add = |all: &mut Vec<Instance>, key: (usize, Context)| {
            *known.entry(key).or_insert_with_key(|(rule, context)| {
                all.push(Instance { rule: *rule, context: context.clone(), fits: Vec::new(), calls: None });
                all.len() as u32 - 1
            })
        };
        let mut path: Vec<(u32, usize)> = Vec::new();
        if let Some(key) = enter(start, &full, Features::default()) {
            path.push((add(&mut out.all, key), 0));
        }
        while let Some((instance, next)) = path.last_mut() {
            let i = *instance as usize;
            let calls = match out.all[i].calls.clone() {
                Some(calls) => calls,
                None => {
                    let first = out.calls.len();
                    let Instance { rule, context: Context { depths, features }, .. } = &out.all[i];
                    let (rule, depths, features) = (*rule, depths.clone(), features.clone());
                    let fits = self
                        .agreement
                        .fits(rule, &features)
                        .map_err(|(at, message)| fault(self.source, at, message))?;
                    for call in &self.calls[self.call_ranges[rule].clone()] {
                        let out_of_it = fits.get(call.arm) == Some(&Fit::Out);
                        for variant in 0..call.width {
                            let steered = call.steering.as_ref().map(|s| (s.key.as_str(), s.values[variant].as_str()));
                            let asked = self.agreement.asked(call.rule, call.asks, call.inherits, steered, &features);
                            let key = if out_of_it { None } else { enter(call.rule, &depths, asked) };
                            out.calls.push(key.map(|key| add(&mut out.all, key)));
                        }
                    }
                    out.all[i].fits = fits;
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
            let mut found = Vec::new();
            for (k, arm) in rule.arms.iter().enumerate() {
                let fit = instance.fits.get(k).unwrap_or(&Fit::AsIs);
                if let Some(node) = self.emit_arm(arm, fit, rule.at, instance, instances)? {
                    found.push(self.found(arm, node));
                }
            }
            let found = self.one_of(&found, rule.at)?;
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
        // Where features are asked, alternatives may have none: the call that asks says so.
        let free = instances.order.iter().map(|&i| &instances.all[i as usize]);
        let mut free = free.filter(|instance| instance.context.features.is_empty());
        match free.find(|instance| !finishes[instance.rule]).map(|instance| instance.rule) {
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

    /// An alternative of a rule in the form that agrees.
    fn emit_arm(&mut self, arm: &'a Arm, fit: &Fit, at: usize, from: &Instance, of: &Instances) -> Result<Option<u32>> {
        let node = match fit {
            Fit::Out => return Ok(None),
            Fit::AsIs => self.emit_items(&arm.items, at, from, of)?,
            Fit::Form(form) => Some(self.text_node(form)),
            Fit::Plural => match &arm.items[..] {
                [Item::Text(text)] => Some(self.text_node(&english::plural(text))),
                items => match self.emit_items(items, at, from, of)? {
                    Some(node) => {
                        let plural = Expr::Call { name: "plural".to_owned(), args: vec![Expr::Held], at: arm.at };
                        Some(self.filtered(node, &plural, String::new(), arm.at)?)
                    }
                    None => None,
                },
            },
        };
        let Some(node) = node else { return Ok(None) };
        let one = || BigUint::from(1u8);
        let locals = self.local_slots(&arm.items);
        let mut parts = Vec::with_capacity(1 + 2 * locals.len());
        for &slot in &locals {
            parts.push(self.node(Node::Save { slot }, one(), 0, 0));
        }
        parts.push(node);
        for &slot in locals.iter().rev() {
            parts.push(self.node(Node::Restore { slot }, one(), 0, 0));
        }
        for note in &arm.notes {
            if let Some((note, value)) = self.agreement.noted(note) {
                parts.push(self.node(Node::Note { note, value }, one(), 0, 0));
            }
        }
        match parts[..] {
            [only] => Ok(Some(only)),
            _ => self.sequence(&parts, at).map(Some),
        }
    }

    /// What `arms` come to; nothing if none can be finished.
    fn emit_arms(&mut self, arms: &'a [Arm], at: usize, from: &Instance, of: &Instances) -> Result<Option<Found>> {
        let mut found = Vec::new();
        for arm in arms {
            if let Some(node) = self.emit_items(&arm.items, at, from, of)? {
                found.push(self.found(arm, node));
            }
        }
        self.one_of(&found, at)
    }

    fn found(&self, arm: &Arm, node: u32) -> Found {
        Found { node, weight: arm.weight.unwrap_or(Weight::ONE).0, arm: self.arms[&std::ptr::from_ref(arm)] }
    }

    fn one_of(&mut self, found: &[Found], at: usize) -> Result<Option<Found>> {
        match found {
            [] => Ok(None),
            [only] => Ok(Some(*only)),
            _ => {
                let weight = found.iter().fold(0u64, |sum, arm| sum.saturating_add(arm.weight));
                Ok(Some(Found { node: self.choice(found, at)?, weight, arm: NO_ARM }))
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
        let tagged = arms.iter().any(|arm| self.tagged[arm.node as usize]);
        let node = self.node(Node::Choice { first, end, total }, before, bits, size);
        self.tagged[node as usize] = tagged;
        Ok(node)
    }

    fn emit_items(&mut self, items: &'a [Item], at: usize, from: &Instance, of: &Instances) -> Result<Option<u32>> {
        let mut parts = Vec::with_capacity(items.len());
        if !self.emit_parts(items, from, of, &mut parts)? {
            return Ok(None);
        }
        match parts[..] {
            [only] => Ok(Some(only)),
            _ => self.sequence(&parts, at).map(Some),
        }
    }

    /// Appends the nodes of `items` to `parts`; false if one of them has none.
    fn emit_parts(&mut self, items: &'a [Item], from: &Instance, of: &Instances, parts: &mut Vec<u32>) -> Result<bool> {
        let mut possible = true;
        for item in items {
            let node = match item {
                Item::Optional { arms, without, at } => {
                    let none = self.text_node("");
                    match self.emit_arms(arms, *at, from, of)? {
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
                    possible &= self.emit_parts(items, from, of, parts)?;
                    Some(self.node(Node::Close, BigUint::from(1u8), 0, 0))
                }
                item => match self.call_of.get(&std::ptr::from_ref(item)) {
                    Some(&call) => self.emit_call(item, call, from, of)?,
                    None => {
                        self.used_row |= matches!(item, Item::Draw { sampler: Sampler::Column { .. }, .. });
                        self.leaves.get(&std::ptr::from_ref(item)).copied()
                    }
                },
            };
            possible &= node.is_some();
            parts.extend(node);
        }
        Ok(possible)
    }

    /// The node of an item that calls a rule: the rule's, or what a filter or a binding makes of its text.
    fn emit_call(&mut self, item: &Item, call: usize, from: &Instance, of: &Instances) -> Result<Option<u32>> {
        let Some(callee) = self.emit_callee(call, from, of)? else { return Ok(None) };
        match item {
            Item::Name { filter: Some(filter), name, at, .. } => {
                self.filtered(callee, filter, format!("{name}{}", filter.as_filter()), *at).map(Some)
            }
            Item::Draw { name, sampler: Sampler::Rule { name: rule, .. }, hidden, filter, at } => {
                let slot = self.slot_of[name.as_str()];
                let hides = *hidden || filter.is_some();
                if hides && self.tagged[callee as usize] {
                    let message = format!("tags within '{rule}' would be lost here: put them around the slot");
                    return self.fail(*at, message);
                }
                let one = || BigUint::from(1u8);
                self.program.codes.push(Formula { code: Code::Held, source: format!("{name}={rule}"), at: *at });
                let code = self.program.codes.len() as u32 - 1;
                let mut parts = vec![self.node(Node::Hold, one(), 0, 0), callee];
                parts.push(self.node(Node::Bind { slot, code, hidden: hides }, one(), 0, 0));
                for note in 0..self.program.notes as u32 {
                    if let Some(&kept) = self.kept.get(&(slot, note)) {
                        parts.push(self.node(Node::Keep { slot: kept, note }, one(), 0, 0));
                    }
                }
                if let Some(filter) = filter {
                    parts.push(self.filter_node(filter, name, *at)?);
                }
                self.sequence(&parts, *at).map(Some)
            }
            _ => Ok(Some(callee)),
        }
    }

    fn emit_callee(&mut self, call: usize, from: &Instance, of: &Instances) -> Result<Option<u32>> {
        let Call { first, width, at, rule, .. } = self.calls[call];
        let steering = self.calls[call].steering.clone();
        let start = from.calls.clone().map_or(0, |calls| calls.start) + first;
        let nodes: Vec<Option<u32>> =
            of.calls[start..start + width].iter().map(|callee| self.roots[(*callee)? as usize]).collect();
        let Some(steering) = steering else {
            let callee = of.calls[start].map(|callee| &of.all[callee as usize]);
            let asks = self.calls[call].asks.iter().any(|ask| ask.value.is_some());
            let refused = |callee: &&Instance| {
                let Context { depths, .. } = &callee.context;
                asks && (depths.is_empty() || callee.fits.iter().all(|fit| *fit == Fit::Out))
            };
            if let (None, Some(callee)) = (nodes[0], callee.filter(refused)) {
                let asked = self.agreement.written(&callee.context.features);
                return self.fail(at, format!("no alternative of '{}' agrees with {asked}", self.rules[rule].name));
            }
            return Ok(nodes[0]);
        };
        let Some(known) = nodes.iter().copied().collect::<Option<Vec<u32>>>() else {
            if nodes.iter().all(Option::is_none) {
                return Ok(None);
            }
            let missing = nodes.iter().position(Option::is_none).expect("one of them has none");
            let (key, value) = (&steering.key, &steering.values[missing]);
            return self.fail(at, format!("no alternative of '{}' agrees with {key}={value}", self.rules[rule].name));
        };
        let count = &self.counts[known[0] as usize];
        if let Some(other) = known.iter().position(|&node| self.counts[node as usize] != *count) {
            let (a, b) = (&steering.values[0], &steering.values[other]);
            let message = format!(
                "a binding decides here, so every value must leave as many derivations: {key}={a} leaves {count} of '{name}', \
                 {key}={b} {}",
                self.counts[known[other] as usize],
                key = steering.key,
                name = self.rules[rule].name,
            );
            return self.fail(at, message);
        }
        let count = count.clone();
        let bits = known.iter().map(|&node| self.bits[node as usize]).max().unwrap_or(0);
        let size = known.iter().map(|&node| self.sizes[node as usize]).max().unwrap_or(0);
        let tagged = known.iter().any(|&node| self.tagged[node as usize]);
        let cases = self.cases(&steering);
        self.program.switches.push(Switch { slot: steering.slot, cases, nodes: known });
        let switch = self.program.switches.len() as u32 - 1;
        let node = self.node(Node::Switch { switch }, count, bits, size);
        self.tagged[node as usize] = tagged;
        Ok(Some(node))
    }

    /// Which variant each value of the binding selects.
    fn cases(&self, steering: &Steering) -> Vec<(i64, u32)> {
        let variant = |text: &str| steering.values.iter().position(|value| value == text).map(|i| i as u32);
        let mut cases: Vec<(i64, u32)> = match steering.note {
            Some(_) => steering.values.iter().zip(0..).map(|(value, i)| (self.agreement.value(value), i)).collect(),
            None if self.program.slots[steering.slot as usize].of == Type::Int => Vec::new(),
            None => {
                let strings = self.program.strings.iter().enumerate();
                strings.filter_map(|(i, text)| Some((i as i64, variant(text)?))).collect()
            }
        };
        cases.sort_unstable();
        cases
    }

    /// What `filter` makes of the text of `node`.
    fn filtered(&mut self, node: u32, filter: &Expr, source: String, at: usize) -> Result<u32> {
        let (code, longest) = self.code(filter, source, at, self.sizes[node as usize])?;
        if self.tagged[node as usize] && !self.program.codes[code as usize].code.moves_tags() {
            let message = "this filter would lose the tags within the text that it changes: put them around the slot";
            return self.fail(at, message.to_owned());
        }
        let one = || BigUint::from(1u8);
        let hold = self.node(Node::Hold, one(), 0, 0);
        let apply = self.node(Node::Apply { code }, one(), 0, longest);
        self.sequence(&[hold, node, apply], at)
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
        let tagged = parts.iter().any(|&node| self.tagged[node as usize]);
        let node = self.node(Node::Seq { first: first as u32, end }, product, bits, size);
        self.tagged[node as usize] = tagged;
        Ok(node)
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
            let from = &of.all[i as usize];
            let flow = Flow { from, of, draws: &draws };
            let found = self.flow_rule(&none, &flow, &mut |_, _, _| Ok(()))?;
            draws[i as usize] = found.unwrap_or(none.clone());
        }
        let mut entry: Vec<Option<Slots>> = vec![None; of.all.len()];
        let mut drawn = none.clone();
        let (slot_of, slots) = (&self.slot_of, &self.program.slots);
        for &i in of.order.iter().rev() {
            let from = &of.all[i as usize];
            let set = entry[i as usize].take().unwrap_or(none.clone());
            let flow = Flow { from, of, draws: &draws };
            self.flow_rule(&set, &flow, &mut |item, set, callees| {
                let need = |name: &str, at: usize| match slot_of.get(name) {
                    Some(&slot) if !set.has(slot) => {
                        let message = format!("unbound variable '{name}': not every way to this place draws it before");
                        self.fail(at, message)
                    }
                    _ => Ok(()),
                };
                let need_all = |expr: &Expr, but: Option<&str>| {
                    let mut outcome = Ok(());
                    expr.names(&mut |name, at| {
                        if outcome.is_ok() && but != Some(name) {
                            outcome = need(name, at);
                        }
                    });
                    outcome
                };
                let need_asks = |asks: &[Ask]| {
                    asks.iter().try_for_each(|ask| ask.value.as_deref().map_or(Ok(()), |name| need(name, ask.at)))
                };
                match item {
                    Item::Draw { name, sampler, filter, .. } => {
                        match sampler {
                            Sampler::Value { expr, .. } => need_all(expr, None)?,
                            Sampler::Rule { asks, .. } => need_asks(asks)?,
                            _ => {}
                        }
                        if let Some(filter) = filter {
                            need_all(filter, Some(name))?;
                        }
                        let slot = slot_of[name.as_str()];
                        if !self.locals.has(slot) {
                            drawn.add(slot);
                        }
                    }
                    Item::Name { name, asks, filter, at } => {
                        need(name, *at)?;
                        need_asks(asks)?;
                        if let Some(filter) = filter {
                            need_all(filter, None)?;
                        }
                    }
                    Item::Compute { expr, .. } => need_all(expr, None)?,
                    _ => {}
                }
                for &callee in callees {
                    let mut handed = set.clone();
                    handed.leave(&self.locals);
                    match &mut entry[callee as usize] {
                        Some(known) => known.keep(&handed),
                        unknown => *unknown = Some(handed),
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

    /// What is drawn for certain after the rule, where `set` is drawn before; nothing if it cannot be finished.
    fn flow_rule(
        &self,
        set: &Slots,
        flow: &Flow<'_>,
        visit: &mut impl FnMut(&Item, &Slots, &[u32]) -> Result<()>,
    ) -> Result<Option<Slots>> {
        let arms = &self.rules[flow.from.rule].arms;
        let agreeing =
            arms.iter().enumerate().filter(|(i, _)| !matches!(flow.from.fits.get(*i), Some(Fit::Out | Fit::Form(_))));
        let replaced = flow.from.fits.iter().any(|fit| matches!(fit, Fit::Form(_)));
        let after = self.flow_arms(agreeing.map(|(_, arm)| arm), set, flow, visit)?;
        // A form is text that stands for the alternative: it draws nothing.
        let mut after = match after {
            Some(mut after) if replaced => {
                after.keep(set);
                Some(after)
            }
            None if replaced => Some(set.clone()),
            after => after,
        };
        if let Some(after) = &mut after {
            after.leave(&self.locals);
        }
        Ok(after)
    }

    /// The same after one of `arms`.
    fn flow_arms<'b>(
        &self,
        arms: impl Iterator<Item = &'b Arm>,
        set: &Slots,
        flow: &Flow<'_>,
        visit: &mut impl FnMut(&Item, &Slots, &[u32]) -> Result<()>,
    ) -> Result<Option<Slots>> {
        let mut after: Option<Slots> = None;
        for arm in arms {
            let mut set = set.clone();
            if self.can_finish(&arm.items, flow) {
                self.flow_items(&arm.items, &mut set, flow, visit)?;
                match &mut after {
                    Some(after) => after.keep(&set),
                    None => after = Some(set),
                }
            }
        }
        Ok(after)
    }

    /// Whether every call of `items` that is made for certain has a derivation.
    fn can_finish(&self, items: &[Item], flow: &Flow<'_>) -> bool {
        items.iter().all(|item| match item {
            Item::Tag { items, .. } => self.can_finish(items, flow),
            Item::Optional { .. } => true,
            item => self
                .call_of
                .get(&std::ptr::from_ref(item))
                .is_none_or(|&call| self.callees(&self.calls[call], flow).next().is_some()),
        })
    }

    /// The instances that a call leads to and that have a derivation.
    fn callees(&self, call: &Call<'_>, flow: &Flow<'_>) -> impl Iterator<Item = u32> {
        let start = flow.from.calls.clone().map_or(0, |calls| calls.start) + call.first;
        let callees = flow.of.calls[start..start + call.width].iter().flatten().copied();
        callees.filter(|&callee| self.roots[callee as usize].is_some())
    }

    /// Adds to `set` what `items` draw for certain.
    fn flow_items(
        &self,
        items: &[Item],
        set: &mut Slots,
        flow: &Flow<'_>,
        visit: &mut impl FnMut(&Item, &Slots, &[u32]) -> Result<()>,
    ) -> Result<()> {
        for item in items {
            match item {
                Item::Optional { arms, .. } => {
                    self.flow_arms(arms.iter(), set, flow, visit)?;
                }
                Item::Tag { items, .. } => self.flow_items(items, set, flow, visit)?,
                item => {
                    let call = self.call_of.get(&std::ptr::from_ref(item)).map(|&call| &self.calls[call]);
                    let callees: Vec<u32> = call.map_or(Vec::new(), |call| self.callees(call, flow).collect());
                    visit(item, set, &callees)?;
                    if let Some((&first, others)) = callees.split_first() {
                        let mut drawn = flow.draws[first as usize].clone();
                        others.iter().for_each(|&other| drawn.keep(&flow.draws[other as usize]));
                        set.join(&drawn);
                    }
                    if let Item::Draw { name, .. } = item {
                        set.add(self.slot_of[name.as_str()]);
                    }
                }
            }
        }
        Ok(())
    }

    fn finish(mut self, instances: &Instances) -> Result<Program> {
        let root = instances.order.last().and_then(|&start| self.roots[start as usize]);
        self.program.root = root.expect("a start without derivations was refused");
        if self.used_row {
            let n = self.given.rows as u64;
            let row = self.node(Node::Row, BigUint::from(n), u64::from(n.ilog2()) + 1, 0);
            self.program.root = self.sequence(&[row, self.program.root], 0)?;
            self.program.rows = Some(n);
        }
        self.program.count = std::mem::take(&mut self.counts[self.program.root as usize]);
        if u64::try_from(&self.program.count).is_err() {
            self.program.big = Some(Big { count: self.child_counts, before: self.before });
        }
        Ok(self.program)
    }
}

/// Where a check of the bindings stands: the instance, all of them, and what each draws for certain.
struct Flow<'a> {
    from: &'a Instance,
    of: &'a Instances,
    draws: &'a [Slots],
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

    fn is_empty(&self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }

    fn leave(&mut self, other: &Slots) {
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| *a &= !b);
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
pub(super) fn each_item<'a>(rules: &'a [Rule], visit: &mut impl FnMut(&'a Item) -> Result<()>) -> Result<()> {
    rules.iter().flat_map(|rule| &rule.arms).try_for_each(|arm| each(&arm.items, visit))
}

/// Calls `visit` on every one of `items` and all within them.
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

fn missing<'a>(what: &str, argument: &str, name: &str, given: impl Iterator<Item = &'a String> + Clone) -> String {
    let near = suggestion(name, given.clone().map(String::as_str));
    let all: Vec<&str> = given.map(String::as_str).collect();
    let all = if all.is_empty() {
        format!("none were given: pass {argument}=")
    } else {
        format!("given are {}", all.join(", "))
    };
    format!("there is no {what} '{name}'{near}: {all}")
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

/// A choice is of integers if every option is one, written the usual way, and of truth values if all are `true` or
/// `false`.
fn choice_type(options: &[String]) -> Type {
    if options.iter().all(|option| option.parse::<i64>().is_ok_and(|value| value.to_string() == *option)) {
        return Type::Int;
    }
    let truth = options.iter().all(|option| option == "true" || option == "false");
    if truth { Type::Truth } else { Type::Text }
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
