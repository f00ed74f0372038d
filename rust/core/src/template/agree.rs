//! Features: which alternatives of a rule agree with a call, and in which form.
//!
//! A call asks for values (`{thing[num=pl]}`), an alternative says some (`Anna[gender=f]`) or lists the form that it has
//! for one (`mouse[pl=mice]`). An alternative that says another value is left out; one that says nothing agrees with all.
//! `num` is built in: its values are `sg` and `pl`, and an alternative without a form for `pl` gets its plural by rule.
//! An alternative that is one call hands on what was asked of it; in any other a call says so: `red {fruit[num]}`.

use std::collections::{HashMap, HashSet};

use super::parse::{Arm, Ask, Item, Note, Rule, Sampler, suggestion};

/// What a call asks of a rule: (feature, value), as symbols, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Features(Vec<(u32, u32)>);

/// How an alternative agrees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fit {
    AsIs,
    /// Not at all.
    Out,
    /// By this form of it.
    Form(String),
    /// By its plural.
    Plural,
}

/// A feature of a call that follows a binding.
#[derive(Debug, Clone)]
pub(super) struct Steering {
    pub key: String,
    /// The binding's slot, or the one that keeps the feature of what it was drawn from.
    pub slot: u32,
    /// The number of that feature.
    pub note: Option<u32>,
    /// The values that it can have, one variant of the callee each.
    pub values: Vec<String>,
}

/// What all rules say.
pub(super) struct Agreement<'a> {
    rules: &'a [Rule],
    symbols: HashMap<String, u32>,
    /// By rule and alternative: the rule that it hands on to, if it is one call. Empty in a grammar without features.
    heirs: Vec<Vec<Option<usize>>>,
    inheriting: HashSet<*const Item>,
    /// By rule: the features that its calls ask for as they were asked, and of whom.
    passes: Vec<Vec<(&'a str, usize)>>,
    /// By rule: the symbols of the features and forms that it, or a rule that it hands on to, knows.
    says: Vec<HashSet<u32>>,
    /// The features that are remembered while a rule expands.
    remembered: Vec<String>,
}

const NUM: u32 = 0;
const SG: u32 = 1;
const PL: u32 = 2;

impl<'a> Agreement<'a> {
    pub fn new(rules: &'a [Rule], by_name: &HashMap<&str, usize>) -> Self {
        let symbols = ["num", "sg", "pl"].iter().zip(0..).map(|(name, i)| ((*name).to_owned(), i)).collect();
        let mut made = Agreement {
            rules,
            symbols,
            heirs: Vec::new(),
            inheriting: HashSet::new(),
            passes: Vec::new(),
            says: Vec::new(),
            remembered: Vec::new(),
        };
        let featured = |arm: &Arm| !arm.notes.is_empty() || calls(&arm.items).any(|(_, asks)| !asks.is_empty());
        if !rules.iter().flat_map(|rule| &rule.arms).any(featured) {
            return made;
        }
        for rule in rules {
            let (mut heirs, mut passes, mut says) = (Vec::new(), Vec::new(), HashSet::new());
            for arm in &rule.arms {
                let heir = only_call(&arm.items).and_then(|(item, name)| Some((item, *by_name.get(name)?)));
                heirs.push(heir.map(|(item, rule)| {
                    made.inheriting.insert(item);
                    rule
                }));
                for note in &arm.notes {
                    says.insert(made.symbol(&note.key));
                    made.symbol(&note.value);
                }
                for (name, ask) in calls(&arm.items).flat_map(|(name, asks)| asks.iter().map(move |ask| (name, ask))) {
                    let key = made.symbol(&ask.key);
                    match &ask.value {
                        Some(value) => _ = made.symbol(value),
                        None => {
                            says.insert(key);
                            passes.extend(by_name.get(name).map(|&rule| (ask.key.as_str(), rule)));
                        }
                    }
                }
            }
            made.heirs.push(heirs);
            made.passes.push(passes);
            made.says.push(says);
        }
        loop {
            let mut changed = false;
            for rule in (0..rules.len()).rev().chain(0..rules.len()) {
                for heir in made.heirs[rule].iter().flatten().copied().collect::<Vec<_>>() {
                    let more: Vec<u32> = made.says[heir].difference(&made.says[rule]).copied().collect();
                    changed |= !more.is_empty();
                    made.says[rule].extend(more);
                }
            }
            if !changed {
                return made;
            }
        }
    }

    fn symbol(&mut self, text: &str) -> u32 {
        if let Some(&symbol) = self.symbols.get(text) {
            return symbol;
        }
        let symbol = self.symbols.len() as u32;
        self.symbols.insert(text.to_owned(), symbol);
        symbol
    }

    /// What stands for a value in the slot of a remembered feature.
    pub fn value(&self, text: &str) -> i64 {
        self.symbols.get(text).map_or(-1, |&symbol| i64::from(symbol))
    }

    /// Makes the values of a steered feature known.
    pub fn know(&mut self, values: &[String]) {
        for value in values {
            self.symbol(value);
        }
    }

    /// Whether the call of `item` hands on all that its rule was asked.
    pub fn inherits(&self, item: &Item) -> bool {
        self.inheriting.contains(&std::ptr::from_ref(item))
    }

    /// The number under which a feature is remembered.
    pub fn remember(&mut self, key: &str) -> u32 {
        let known = self.remembered.iter().position(|other| other == key);
        known.unwrap_or_else(|| {
            self.remembered.push(key.to_owned());
            self.remembered.len() - 1
        }) as u32
    }

    /// What to remember of an alternative, if its note is of use to a later call.
    pub fn noted(&self, note: &Note) -> Option<(u32, u32)> {
        let number = self.remembered.iter().position(|key| *key == note.key)?;
        Some((number as u32, self.symbols[&note.value]))
    }

    /// All values of a feature that the alternatives of `rule` say; each must say one.
    pub fn stated(&self, rule: usize, key: &str) -> Result<Vec<String>, (usize, String)> {
        let mut values = Vec::new();
        let (mut todo, mut seen) = (vec![rule], HashSet::from([rule]));
        while let Some(rule) = todo.pop() {
            for (i, arm) in self.rules[rule].arms.iter().enumerate() {
                let before = values.len();
                values.extend(arm.notes.iter().filter(|note| note.key == key).map(|note| note.value.clone()));
                match self.heirs.get(rule).and_then(|heirs| heirs[i]) {
                    _ if values.len() > before => {}
                    Some(heir) => {
                        if seen.insert(heir) {
                            todo.push(heir);
                        }
                    }
                    None => {
                        let name = &self.rules[rule].name;
                        let message = format!(
                            "this alternative of '{name}' does not say its {key}, which a call takes from a binding: \
                             add [{key}=...]"
                        );
                        return Err((arm.at, message));
                    }
                }
            }
        }
        Ok(values)
    }

    fn knows(&self, rule: usize, key: u32) -> bool {
        key == NUM || self.says.get(rule).is_some_and(|says| says.contains(&key))
    }

    /// Refuses what a call of `rule` asks if no alternative can have an answer; `fixed` is the value if it is one.
    pub fn check_ask(&self, rule: usize, ask: &Ask, fixed: Option<&str>, steered: &[String]) -> Result<(), String> {
        let name = &self.rules[rule].name;
        let Ask { key, .. } = ask;
        if key == "num" {
            return match fixed.into_iter().chain(steered.iter().map(String::as_str)).find(|v| *v != "sg" && *v != "pl")
            {
                Some(value) => Err(format!("num is sg or pl, not '{value}'")),
                None => Ok(()),
            };
        }
        let known = |text: &str| self.symbols.get(text).is_some_and(|&symbol| self.knows(rule, symbol));
        let values: Vec<&str> = fixed.into_iter().chain(steered.iter().map(String::as_str)).collect();
        if !known(key) && !values.iter().any(|value| known(value)) {
            let keys = self.reachable(rule, key).flat_map(|arm| arm.notes.iter().map(|note| note.key.as_str()));
            let near = suggestion(key, keys.chain(["num"]));
            return Err(format!("no alternative of '{name}' says anything of '{key}'{near}"));
        }
        let notes = || self.reachable(rule, key).flat_map(|arm| &arm.notes);
        for value in values {
            if !notes().any(|note| (note.key == *key && note.value == value) || note.key == value) {
                let mut there: Vec<&str> = notes().filter(|n| n.key == *key).map(|n| n.value.as_str()).collect();
                there.sort_unstable();
                there.dedup();
                let near = suggestion(value, there.iter().copied());
                let there = if there.is_empty() { String::new() } else { format!(": there are {}", there.join(", ")) };
                return Err(format!("no alternative of '{name}' has {key}={value}{near}{there}"));
            }
        }
        Ok(())
    }

    /// The alternatives of `rule` and of those that it hands the feature `key` on to.
    fn reachable(&self, rule: usize, key: &str) -> impl Iterator<Item = &'a Arm> {
        let (mut order, mut seen) = (vec![rule], HashSet::from([rule]));
        let mut at = 0;
        while at < order.len() && !self.heirs.is_empty() {
            let passes = self.passes[order[at]].iter().filter(|(passed, _)| *passed == key).map(|(_, rule)| rule);
            for &next in self.heirs[order[at]].iter().flatten().chain(passes) {
                if seen.insert(next) {
                    order.push(next);
                }
            }
            at += 1;
        }
        let rules = self.rules;
        order.into_iter().flat_map(move |rule| &rules[rule].arms)
    }

    /// What a call asks of `rule`, where its own rule was asked for `features`.
    pub fn asked(
        &self,
        rule: usize,
        asks: &[Ask],
        inherits: bool,
        steered: Option<(&str, &str)>,
        features: &Features,
    ) -> Features {
        let mut found: Vec<(u32, u32)> = Vec::new();
        if inherits {
            found.extend(features.0.iter().filter(|&&(key, value)| self.knows(rule, key) || self.knows(rule, value)));
        }
        for Ask { key, value, .. } in asks {
            let symbol = self.symbols[key];
            let asked = features.0.iter().find(|(key, _)| *key == symbol).map(|(_, value)| *value);
            let value = match (value, steered) {
                (_, Some((steered, value))) if steered == key => Some(self.symbols[value]),
                (Some(value), _) => Some(self.symbols[value]),
                (None, _) => asked,
            };
            if let Some(value) = value {
                found.retain(|(key, _)| *key != symbol);
                found.push((symbol, value));
            }
        }
        found.sort_unstable();
        Features(found)
    }

    /// How each alternative of `rule` agrees; empty where nothing is asked, which all do as they are.
    pub fn fits(&self, rule: usize, features: &Features) -> Result<Vec<Fit>, (usize, String)> {
        if features.0.is_empty() {
            return Ok(Vec::new());
        }
        let Rule { name, arms, .. } = &self.rules[rule];
        let is = |text: &str, symbol: u32| self.symbols[text] == symbol;
        let form = |arm: &'a Arm, value: u32| arm.notes.iter().find(|note| is(&note.key, value));
        let mut fits = Vec::with_capacity(arms.len());
        for (i, arm) in arms.iter().enumerate() {
            let heir = self.heirs[rule][i].is_some();
            let mut fit = Fit::AsIs;
            for &(key, value) in &features.0 {
                let mut said = arm.notes.iter().filter(|note| is(&note.key, key)).peekable();
                if let Some(note) = form(arm, value) {
                    if !matches!(arm.items[..], [Item::Text(_)]) {
                        let message = "a form stands for the whole alternative, so this must be text alone: make the word a \
                                       rule of its own";
                        return Err((note.at, message.to_owned()));
                    }
                    fit = Fit::Form(note.value.clone());
                } else if said.peek().is_some() {
                    if !said.any(|note| is(&note.value, value)) {
                        fit = Fit::Out;
                        break;
                    }
                } else if key == NUM {
                    let passed = |ask: &Ask| ask.value.is_none() && is(&ask.key, NUM);
                    let handed = heir || calls(&arm.items).any(|(_, asks)| asks.iter().any(passed));
                    if value == PL && !handed && fit == Fit::AsIs {
                        fit = Fit::Plural;
                    }
                } else if !heir && arms.iter().any(|other| form(other, value).is_some()) {
                    let (value, _) = self.symbols.iter().find(|(_, symbol)| **symbol == value).expect("it is known");
                    let message = format!("this alternative of '{name}' has no form [{value}=...], which others have");
                    return Err((arm.at, message));
                }
            }
            fits.push(fit);
        }
        Ok(fits)
    }

    /// What was asked, as it is written.
    pub fn written(&self, features: &Features) -> String {
        let text = |symbol: u32| {
            let found = self.symbols.iter().find(|(_, other)| **other == symbol);
            found.map_or("", |(text, _)| text.as_str())
        };
        let parts: Vec<String> =
            features.0.iter().map(|&(key, value)| format!("{}={}", text(key), text(value))).collect();
        parts.join(", ")
    }
}

impl Features {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The variant of a number: `sg` for 1, `pl` for all others.
pub(super) fn number(value: i64) -> u32 {
    if value == 1 { SG - 1 } else { PL - 1 }
}

/// The call that is all of `items`, tags aside.
fn only_call(items: &[Item]) -> Option<(*const Item, &str)> {
    match items {
        [Item::Tag { items, .. }] => only_call(items),
        [item @ Item::Name { name, filter: None, .. }] => Some((item, name)),
        _ => None,
    }
}

/// The names that are called in `items`, and what is asked of each.
fn calls(items: &[Item]) -> Box<dyn Iterator<Item = (&str, &[Ask])> + '_> {
    Box::new(items.iter().flat_map(|item| -> Box<dyn Iterator<Item = (&str, &[Ask])>> {
        match item {
            Item::Name { name, asks, .. } | Item::Draw { sampler: Sampler::Rule { name, asks, .. }, .. } => {
                Box::new(std::iter::once((name.as_str(), asks.as_slice())))
            }
            Item::Tag { items, .. } => calls(items),
            Item::Optional { arms, .. } => Box::new(arms.iter().flat_map(|arm| calls(&arm.items))),
            _ => Box::new(std::iter::empty()),
        }
    }))
}
