//! Weights from derivations: those under which what was chosen is most likely.
//!
//! A choice among all its alternatives has the frequencies as its estimate. Where bounded recursion leaves some of them
//! out, Luce's choice axiom holds among the others, and the estimate is the fixed point of Hunter's iteration ("MM
//! algorithms for generalized Bradley-Terry models", Annals of Statistics 32, 2004).

use std::collections::BTreeMap;

use num_bigint::BigUint;

use super::Grammar;
use super::compile::{NO_ARM, Node, Program, number_arms};
use super::parse::{Arm, Item, Rule, Weight, canonical};
use super::walk::{Decide, Find, FindBig, Nothing, Walker};
use crate::error::{Error, Result};

const ROUNDS: usize = 1000;

impl Grammar {
    /// The grammar with the weights that are most likely for the derivations `indices`, as its text.
    ///
    /// No alternative gets less than `floor` times the mean of its choice; a choice that no derivation makes keeps its
    /// weights. They are probabilities in billionths.
    ///
    /// # Errors
    /// A floor that is not in (0, 1]; an index that is not below [`count`](Self::count); a computed slot without a
    /// value. Cost: one walk for each index.
    pub fn reweight(&self, indices: impl IntoIterator<Item = BigUint>, floor: f64) -> Result<String> {
        if !(floor > 0.0 && floor <= 1.0) {
            return Err(Error::invalid(format!("floor must be in (0, 1] (it is {floor})")));
        }
        let mut ways = vec![0u64; self.program.ways.len()];
        for (i, index) in indices.into_iter().enumerate() {
            if index >= self.program.count {
                let count = self.count();
                return Err(Error::invalid(format!(
                    "reweight: indices must be below count() = {count} (item {i} is {index})"
                )));
            }
            let what = || format!("derivation {index}");
            match u64::try_from(&index) {
                Ok(index) if self.program.big.is_none() => {
                    let mut walker = Walker::new(&self.program, 0, Nothing);
                    self.expand(&mut walker, &mut Tally { inner: Find, ways: &mut ways }, index, &what)?;
                }
                _ => {
                    let mut walker = Walker::new(&self.program, 0, Nothing);
                    self.expand(&mut walker, &mut Tally { inner: FindBig, ways: &mut ways }, index.clone(), &what)?;
                }
            }
        }
        let mut shares = vec![None; arms_of(&self.rules)];
        for choice in choices(&self.program, &ways, &self.rules) {
            estimate(&choice, floor, &mut shares);
        }
        let mut rules = self.rules.clone();
        let mut next = 0;
        rules.iter_mut().for_each(|rule| write_arms(&mut rule.arms, &shares, &mut next));
        Ok(canonical(&rules))
    }
}

/// Counts how often each way is taken.
struct Tally<'a, D> {
    inner: D,
    ways: &'a mut [u64],
}

impl<D: Decide> Decide for Tally<'_, D> {
    type Number = D::Number;

    fn child(&mut self, number: &mut D::Number, program: &Program, i: usize) -> D::Number {
        self.inner.child(number, program, i)
    }

    fn way(&mut self, number: D::Number, program: &Program, first: u32, end: u32, total: u32) -> (usize, D::Number) {
        let (way, number) = self.inner.way(number, program, first, end, total);
        self.ways[way] += 1;
        (way, number)
    }

    fn below(&mut self, number: D::Number, n: u64) -> u64 {
        self.inner.below(number, n)
    }
}

/// A choice of the source, in each set of alternatives that it was made among.
#[derive(Default)]
struct Choice {
    /// How often each alternative was taken.
    taken: BTreeMap<u32, u64>,
    /// How often a choice was made among these.
    among: BTreeMap<Vec<u32>, u64>,
}

/// The choices that were made, by the number of their first alternative.
fn choices(program: &Program, ways: &[u64], rules: &[Rule]) -> Vec<Choice> {
    let mut owner = vec![0; arms_of(rules)];
    own(rules, &mut owner);
    let mut found: BTreeMap<u32, Choice> = BTreeMap::new();
    let mut inner = vec![false; program.nodes.len()];
    let choice = |node: u32| match program.nodes[node as usize] {
        Node::Choice { first, end, .. } => first as usize..end as usize,
        _ => 0..0,
    };
    // A node comes after those below it: those of groups come before the choices among their alternatives.
    for node in (0..program.nodes.len() as u32).rev() {
        let range = choice(node);
        if range.is_empty() || inner[node as usize] {
            continue;
        }
        let made: u64 = ways[range.clone()].iter().sum();
        let mut taken: Vec<(u32, u64)> = Vec::new();
        for way in range {
            match program.ways[way].arm {
                NO_ARM => {
                    inner[program.ways[way].node as usize] = true;
                    taken.extend(choice(program.ways[way].node).map(|way| (program.ways[way].arm, ways[way])));
                }
                arm => taken.push((arm, ways[way])),
            }
        }
        // The words of a weighted lexicon are no alternatives.
        if made > 0 && !taken.is_empty() {
            let choice = found.entry(owner[taken[0].0 as usize]).or_default();
            for &(arm, times) in &taken {
                *choice.taken.entry(arm).or_default() += times;
            }
            *choice.among.entry(taken.into_iter().map(|(arm, _)| arm).collect()).or_default() += made;
        }
    }
    for (arm, first) in (0..).zip(&owner) {
        if let Some(choice) = found.get_mut(first) {
            choice.taken.entry(arm).or_default();
        }
    }
    found.into_values().collect()
}

/// Sets the shares of the alternatives of a choice; they sum to 1.
fn estimate(choice: &Choice, floor: f64, shares: &mut [Option<f64>]) {
    let n = choice.taken.len() as f64;
    let mut share: BTreeMap<u32, f64> = choice.taken.keys().map(|&arm| (arm, 1.0 / n)).collect();
    for _ in 0..ROUNDS {
        let mut rates: BTreeMap<u32, f64> = share.keys().map(|&arm| (arm, 0.0)).collect();
        for (arms, &made) in &choice.among {
            let rate = made as f64 / arms.iter().map(|arm| share[arm]).sum::<f64>();
            arms.iter().filter_map(|arm| rates.get_mut(arm).map(|sum| *sum += rate)).count();
        }
        let mut next: BTreeMap<u32, f64> = choice
            .taken
            .iter()
            .map(|(&arm, &taken)| (arm, if taken > 0 { taken as f64 / rates[&arm] } else { 0.0 }))
            .collect();
        let sum: f64 = next.values().sum();
        next.values_mut().for_each(|share| *share /= sum);
        let moved = next.iter().map(|(arm, new)| (new - share[arm]).abs()).fold(0.0, f64::max);
        share = next;
        if moved < 1e-12 {
            break;
        }
    }
    // Those below the floor are raised to it, and the others share what is left.
    let least = floor / n;
    let mut raised = 0;
    loop {
        let above: f64 = share.values().filter(|&&share| share > least).sum();
        let scale = (1.0 - raised as f64 * least) / above;
        let low = share.values().filter(|&&share| share > least && share * scale <= least).count();
        let under = share.values().filter(|&&share| share <= least).count();
        if low == 0 && under == raised {
            for (&arm, &part) in &share {
                shares[arm as usize] = Some(if part > least && above > 0.0 { part * scale } else { least });
            }
            return;
        }
        raised = under + low;
        share.values_mut().filter(|share| **share > least && **share * scale <= least).for_each(|share| *share = least);
    }
}

fn arms_of(rules: &[Rule]) -> usize {
    let mut most = 0;
    number_arms(rules, &mut |_, number| most = most.max(number as usize + 1));
    most
}

/// Sets the choice that each alternative belongs to.
fn own(rules: &[Rule], owner: &mut [u32]) {
    fn each(arms: &[Arm], group: bool, next: &mut u32, owner: &mut [u32]) {
        let first = *next;
        *next += u32::from(group) + arms.len() as u32;
        owner[first as usize..*next as usize].fill(first);
        arms.iter().for_each(|arm| groups(&arm.items, next, owner));
    }
    fn groups(items: &[Item], next: &mut u32, owner: &mut [u32]) {
        for item in items {
            match item {
                Item::Optional { arms, .. } => each(arms, true, next, owner),
                Item::Tag { items, .. } => groups(items, next, owner),
                _ => {}
            }
        }
    }
    let mut next = 0;
    rules.iter().for_each(|rule| each(&rule.arms, false, &mut next, owner));
}

fn write_arms(arms: &mut [Arm], shares: &[Option<f64>], next: &mut u32) {
    for arm in arms.iter_mut() {
        if let Some(share) = shares[*next as usize] {
            arm.weight = Some(weight(share));
        }
        *next += 1;
    }
    arms.iter_mut().for_each(|arm| write_groups(&mut arm.items, shares, next));
}

fn write_groups(items: &mut [Item], shares: &[Option<f64>], next: &mut u32) {
    for item in items {
        match item {
            Item::Optional { arms, without, .. } => {
                if let Some(share) = shares[*next as usize] {
                    *without = Some(weight(share));
                }
                *next += 1;
                write_arms(arms, shares, next);
            }
            Item::Tag { items, .. } => write_groups(items, shares, next),
            _ => {}
        }
    }
}

fn weight(share: f64) -> Weight {
    Weight(((share * Weight::ONE.0 as f64).round() as u64).max(1))
}

#[cfg(test)]
mod tests {
    use super::super::{Grammar, Law, Sampling};
    use super::*;
    use proptest::prelude::*;

    fn all(grammar: &Grammar) -> Vec<BigUint> {
        let count = u64::try_from(grammar.count()).unwrap();
        (0..count).map(BigUint::from).collect()
    }

    fn reweighted(source: &str, indices: &[u32], floor: f64) -> String {
        let indices: Vec<BigUint> = indices.iter().map(|&index| index.into()).collect();
        Grammar::compile(source, None).unwrap().reweight(indices, floor).unwrap()
    }

    #[test]
    fn frequencies_become_weights() {
        assert_eq!(reweighted("x = a | b", &[0, 0, 0, 1], 0.01), "x = a::0.750000000|b::0.250000000\n");
        assert_eq!(
            reweighted("x = a | b :: 7 | c", &[0, 1], 0.3),
            "x = a::0.450000000|b::0.450000000|c::0.100000000\n"
        );
        assert_eq!(
            reweighted("x = a(b | c)?", &[0, 1, 1, 2], 0.01),
            "x = a(::0.250000000|b::0.500000000|c::0.250000000)?\n"
        );
        assert_eq!(
            reweighted("x = a | {y}\ny = p | q :: 2", &[0], 0.2),
            "x = a::0.900000000|{y}::0.100000000\ny = p|q::2.000000000\n"
        );
    }

    #[test]
    fn bad_floors_and_indices_are_named() {
        let g = Grammar::compile("x = a | b", None).unwrap();
        assert_eq!(g.reweight([], 0.0).unwrap_err().message(), "floor must be in (0, 1] (it is 0)");
        let error = g.reweight([0u8.into(), 2u8.into()], 0.1).unwrap_err();
        assert_eq!(error.message(), "reweight: indices must be below count() = 2 (item 1 is 2)");
    }

    /// In the innermost place only `x` is left, and says nothing of what is liked elsewhere.
    #[test]
    fn forced_choices_do_not_count() {
        let source = "e[depth=2] = ({e}) | x";
        assert_eq!(
            reweighted(source, &[0], 0.2),
            "e[depth=2] = \\({e}\\)::0.900000000|x::0.100000000\n".replace("\\\\", "\\")
        );
    }

    proptest! {
        /// Every derivation once is what uniform draws give, so each alternative's weight is its share of derivations.
        #[test]
        fn all_derivations_give_their_shares(sizes in prop::collection::vec(1usize..5, 1..4)) {
            let rules: Vec<String> = sizes.iter().enumerate().map(|(i, &n)| {
                format!("r{i} = {}", (0..n).map(|k| format!("{}-{{v{i}{k}=int 0..{k}}}", k)).collect::<Vec<_>>().join(" | "))
            }).collect();
            let start: String = (0..sizes.len()).map(|i| format!("{{r{i}}}")).collect();
            let g = Grammar::compile(&format!("s = {start}\n{}", rules.join("\n")), None).unwrap();
            let again = Grammar::compile(&g.reweight(all(&g), 1e-6).unwrap(), None).unwrap();
            let drawn = Sampling { seed: 1, name: "s", rows: 1, shard: (0, 1), law: Law::Weights, replace: true };
            prop_assert!(again.sample(&drawn).is_ok());
            prop_assert_eq!(again.count(), g.count());
            for (i, &n) in sizes.iter().enumerate().filter(|&(_, &n)| n > 1) {
                let total = (n * (n + 1) / 2) as f64;
                for k in 0..n {
                    let weight = format!("::{:.9}", (k + 1) as f64 / total);
                    let line = again.canonical().lines().nth(i + 1).unwrap().to_owned();
                    prop_assert!(line.split('|').nth(k).unwrap().ends_with(&weight), "{} {}", line, weight);
                }
            }
        }
    }
}
