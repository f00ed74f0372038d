//! Template grammars: texts with named alternatives, drawn values and computed answers, counted exactly.
//!
//! ```text
//! task = ({intro} )?{a=int 2..99}, {b=int 2..99}: {ask} <answer>{=a+b}</answer>
//! ask  = what is {a} plus {b}? :: 3 | add {b} to {a}.
//! ```
//!
//! [`Grammar::compile`] parses (`parse`), checks and unfolds (`compile`, `agree`) the text into a graph of sums and
//! products, and one walk over that graph (`walk`) serves every way to choose: the k-th derivation by mixed radix, a
//! weighted draw by alias tables, a uniform one by a rank, and draws without replacement by a permutation of all ranks
//! (`permute`). The walk hands pieces of final text to a sink: what filters and bindings take (`expr`, `functions`)
//! is held back (`held`) until it is final.
//!
//! Draw `k` of a seed reads the words of its own Philox stream, `Stream::new(op_key(Templates, seed, name, 0), 0, k)`,
//! lane 0, in the order of the text: for a choice of `n` one word below `n`, and with unequal weights a second below
//! their sum to pick between the column and its alias; for a value one word below the number of values, two where
//! 32 bits do not hold it. A uniform draw is one rank below the count. So a draw never depends on how many there are.

mod agree;
mod compile;
mod explain;
mod expr;
mod functions;
mod held;
mod include;
mod parse;
mod permute;
mod read;
mod reweight;
mod tokens;
mod walk;

pub use explain::{Step, What};
pub use expr::Type;
pub use include::Files;
pub use num_bigint::BigUint;
pub use read::Wanted;
pub use walk::{Column, Expanded, SpanBuf};

use std::sync::Mutex;

use sha2::{Digest, Sha256};

use self::compile::Program;
use self::expr::Fault;
use self::parse::{Item, Rule, Sampler, Source, fault};
pub(crate) use self::parse::{fault_in, suggestion};
use self::permute::Permutation;
use self::tokens::{Encoding, Known, Tokens};
use self::walk::{Decide, Draw, Failure, Find, FindBig, Sink, Texts, Walker};
use crate::error::{Error, Result};
use crate::par;
use crate::rng::{Domain, Stream, Words, first_blocks, mix64, op_key};
use crate::simd::level;
use crate::tokenize::Tokenizer;

/// How many rows a thread draws at a time.
const GRAIN: usize = 8192;

/// A checked and compiled grammar.
#[derive(Debug)]
pub struct Grammar {
    source: Source,
    canonical: String,
    rules: Vec<Rule>,
    start: String,
    program: Program,
    /// What sampling tokens has learnt.
    idle: Mutex<Vec<Known>>,
}

/// What a grammar's text refers to.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// What `lex:` draws from.
    pub lexicons: Vec<Lexicon>,
    /// How many source rows there are.
    pub rows: usize,
    /// What `col:` takes: a value of each source row.
    pub columns: Vec<(String, Cells)>,
    /// What `include` reads.
    pub files: Files,
}

/// Strings, of which one is drawn.
#[derive(Debug, Clone)]
pub struct Lexicon {
    /// Its name.
    pub name: String,
    /// The strings.
    pub items: Vec<String>,
    /// How often each is drawn, relative to the others; all alike if nothing.
    pub weights: Option<Vec<u64>>,
}

/// A column of the source rows.
#[derive(Debug, Clone)]
pub enum Cells {
    /// Values of any type but [`Type::Text`], as that type holds them.
    Values(Type, Vec<i64>),
    /// Strings.
    Texts(Vec<String>),
}

/// A binding that some derivation draws.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub of: Type,
    /// Whether every derivation draws it.
    pub always: bool,
    /// Whether its column indexes the strings that rows made ([`Expanded::made`]), not those of the grammar.
    pub made: bool,
}

/// How derivations are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Law {
    /// Each choice by its weights.
    Weights,
    /// All derivations alike.
    Uniform,
}

/// What [`Grammar::sample`] draws.
#[derive(Debug, Clone, Copy)]
pub struct Sampling<'a> {
    /// The seed of the job.
    pub seed: u64,
    /// What keeps two grammars of one seed apart.
    pub name: &'a str,
    /// How many rows.
    pub rows: usize,
    /// Row `i` is draw `shard.0 + i * shard.1`.
    pub shard: (u64, u64),
    /// How each is drawn.
    pub law: Law,
    /// Whether a derivation may be drawn twice.
    pub replace: bool,
}

/// What [`Grammar::sample`] returns.
#[derive(Debug)]
pub struct Sample<T> {
    /// Texts or tokens, spans, bindings.
    pub expanded: Expanded<T>,
    /// The draw of each row.
    pub draws: Vec<u64>,
    /// The 64-bit identity of each row: a function of seed, name and draw.
    pub ids: Vec<u64>,
    /// The index of each row's derivation, where 64 bits hold every index.
    pub indices: Option<Vec<u64>>,
}

impl Grammar {
    /// Compiles the grammar `source`, which begins with the rule `start`, or with its first.
    ///
    /// # Errors
    /// Syntax errors with their position, and every mistake that the compiler names. Cost: linear in the source, times
    /// what bounded recursion and features unfold to.
    pub fn compile(source: &str, start: Option<&str>) -> Result<Self> {
        Grammar::compile_with(source, start, &Given::default())
    }

    /// The same, with what the text refers to.
    ///
    /// # Errors
    /// As [`compile`](Self::compile); also a file that cannot be read or includes itself, a lexicon or column that is not
    /// given, an empty one, weights of another length or above 2^32 in sum, columns of unequal length.
    pub fn compile_with(source: &str, start: Option<&str>, given: &Given) -> Result<Self> {
        given.check()?;
        let (source, mut rules) = include::load(source, &given.files)?;
        let program = compile::compile(&source, &rules, start, given)?;
        let first = start.and_then(|start| rules.iter().position(|rule| rule.name == start)).unwrap_or(0);
        rules[..=first].rotate_right(1);
        let (canonical, start) = (parse::canonical(&rules) + &given.written(&rules), rules[0].name.clone());
        rules[..=first].rotate_left(1);
        Ok(Grammar { source, canonical, rules, start, program, idle: Mutex::default() })
    }

    /// The files that the grammar includes, by name and text, as [`Files::Known`] takes them.
    pub fn included(&self) -> impl Iterator<Item = (&str, &str)> {
        self.source.included()
    }

    /// How many source rows there are, if derivations use them: the row is the first and slowest part of an index.
    pub fn rows(&self) -> Option<u64> {
        self.program.rows
    }

    /// The rule that derivations begin with.
    pub fn start(&self) -> &str {
        &self.start
    }

    /// The grammar in one way of writing it: the start first, a line a rule, then a comment with the SHA-256
    /// of each lexicon and column that it uses. It compiles to the same where these are given.
    pub fn canonical(&self) -> &str {
        &self.canonical
    }

    /// SHA-256 of [`canonical`](Self::canonical), in hexadecimal.
    pub fn fingerprint(&self) -> String {
        hex(&Sha256::digest(self.canonical.as_bytes()))
    }

    /// How many derivations there are, exactly. Two derivations may give the same text.
    pub fn count(&self) -> &BigUint {
        &self.program.count
    }

    /// Whether some alternatives weigh more than others.
    pub fn weighted(&self) -> bool {
        self.program.weighted
    }

    /// The bindings that become columns, in the order of the source.
    pub fn bindings(&self) -> impl Iterator<Item = Binding> {
        let drawn = self.program.slots.iter().filter(|slot| slot.drawn);
        drawn.map(|slot| Binding { name: slot.name.clone(), of: slot.of, always: slot.always, made: slot.made })
    }

    /// What the values of a string column index.
    pub fn strings(&self) -> &[String] {
        &self.program.strings
    }

    /// What the tags of spans index.
    pub fn tags(&self) -> &[String] {
        &self.program.tags
    }

    /// The derivation `index` as one row.
    ///
    /// Derivations are in the order of the text, the last part turning fastest; an optional group is left out first.
    ///
    /// # Errors
    /// An index that is not below [`count`](Self::count); a computed slot without a value.
    pub fn nth(&self, index: &BigUint) -> Result<Expanded<u8>> {
        if *index >= self.program.count {
            let count = &self.program.count;
            return Err(Error::invalid(format!("nth: the index must be below count() = {count} (it is {index})")));
        }
        let what = || format!("derivation {index}");
        match u64::try_from(index) {
            Ok(index) if self.program.big.is_none() => {
                let mut walker = Walker::new(&self.program, 1, Texts::new(1));
                self.expand(&mut walker, &mut Find, index, &what)?;
                Ok(walker.finish())
            }
            _ => {
                let mut walker = Walker::new(&self.program, 1, Texts::new(1));
                self.expand(&mut walker, &mut FindBig, index.clone(), &what)?;
                Ok(walker.finish())
            }
        }
    }

    /// Draws rows, in parallel; the first of a longer sample are the shorter one.
    ///
    /// # Errors
    /// A shard that does not exist; more rows than memory holds; without replacement a weighted law, more rows than
    /// derivations, or more than 2^128 derivations; a computed slot without a value, named with its draw.
    pub fn sample(&self, how: &Sampling<'_>) -> Result<Sample<u8>> {
        self.sample_into(how, Texts::new)
    }

    /// Draws rows as [`sample`](Self::sample) does, as the tokens of each text; spans are over the tokens that they touch.
    ///
    /// Each row equals `tokenizer.encode` of its text, with the tokens of the post-processor if `special_tokens`. Parts of
    /// rows that come again are encoded once, where the tokenizer is known to encode them apart from what is around.
    ///
    /// # Errors
    /// As [`sample`](Self::sample); a text that the tokenizer cannot encode; spans with a post-processor that does anything
    /// but put tokens around a text.
    pub fn sample_tokens(
        &self,
        how: &Sampling<'_>,
        tokenizer: &Tokenizer,
        special_tokens: bool,
    ) -> Result<Sample<u32>> {
        let affixes = if special_tokens { tokenizer.affixes()? } else { None };
        let spans = !self.program.tags.is_empty();
        let encoding = Encoding::new(tokenizer, special_tokens, affixes.as_ref(), spans)?;
        self.sample_into(how, |rows| Tokens::new(&self.program, encoding, &self.idle, rows))
    }

    /// Draws rows into the sinks that `sink` makes, one a task, for a number of rows.
    fn sample_into<S: Sink<Item: Send>>(
        &self,
        how: &Sampling<'_>,
        sink: impl Fn(usize) -> S + Sync,
    ) -> Result<Sample<S::Item>> {
        let (shard, shards) = how.shard;
        if shard >= shards {
            return Err(Error::invalid(format!("shard must be (r, R) with r below R (it is ({shard}, {shards}))")));
        }
        let needed =
            how.rows.checked_sub(1).map_or(0, |last| last as u128 * u128::from(shards) + u128::from(shard) + 1);
        if needed > u128::from(u64::MAX) {
            return Err(Error::invalid(format!("n = {} is too many for shard ({shard}, {shards})", how.rows)));
        }
        let source = self.source(how, needed)?;
        let key = op_key(Domain::Templates, how.seed, how.name, 0);
        let mut draws: Vec<u64> = Vec::new();
        if draws.try_reserve_exact(how.rows).is_err() {
            return Err(Error::invalid(format!("n = {} rows do not fit into memory: draw them in parts", how.rows)));
        }
        draws.extend((0..how.rows as u64).map(|row| shard + shards * row));
        let grain = if par::threads() == 1 { how.rows.max(1) } else { GRAIN };
        let parts = par::map_tasks(how.rows.div_ceil(grain), |task| {
            let draws = &draws[task * grain..how.rows.min((task + 1) * grain)];
            self.draw_rows(&source, key, draws, sink(draws.len()))
        });
        let mut parts = parts.into_iter();
        let (mut expanded, mut indices) = parts.next().unwrap_or_else(|| self.draw_rows(&source, key, &[], sink(0)))?;
        for part in parts {
            let (more, more_indices) = part?;
            expanded.append(more);
            indices.extend(more_indices);
        }
        let ids = draws.iter().map(|&k| mix64(&[key, k])).collect();
        Ok(Sample { expanded, draws, ids, indices: self.program.big.is_none().then_some(indices) })
    }

    fn source(&self, how: &Sampling<'_>, needed: u128) -> Result<Ranks> {
        if how.replace {
            return Ok(if how.law == Law::Weights { Ranks::Weights } else { Ranks::Uniform });
        }
        if how.law == Law::Weights && self.program.weighted {
            return Err(Error::invalid(
                "replace=False draws all derivations alike, but the grammar has weights: pass law=\"uniform\" to ignore them",
            ));
        }
        let count = &self.program.count;
        let Ok(last) = u128::try_from(count - 1u8) else {
            return Err(Error::invalid(format!(
                "replace=False takes grammars of up to 2^128 derivations, this has {count}: with so many, pass replace=True"
            )));
        };
        if needed.checked_sub(1).is_some_and(|k| k > last) {
            return Err(Error::invalid(format!(
                "replace=False: n = {} in shard ({}, {}) needs {needed} derivations, the grammar has {count}",
                how.rows, how.shard.0, how.shard.1
            )));
        }
        Ok(Ranks::Permuted(Permutation::new(op_key(Domain::Templates, how.seed, how.name, 1), last)))
    }

    fn draw_rows<S: Sink>(
        &self,
        source: &Ranks,
        key: u64,
        draws: &[u64],
        sink: S,
    ) -> Result<(Expanded<S::Item>, Vec<u64>)> {
        let program = &self.program;
        let mut indices = Vec::with_capacity(if program.big.is_none() { draws.len() } else { 0 });
        let expanded = match (source, u64::try_from(&program.count)) {
            (Ranks::Weights, count) => {
                let mut walker = Walker::new(program, draws.len(), sink);
                each_draw(key, draws, |k, words| {
                    let mut decide = Draw { words, rank: 0 };
                    self.expand(&mut walker, &mut decide, 1, &|| format!("draw {k}"))?;
                    if count.is_ok() {
                        indices.push(decide.rank);
                    }
                    Ok(())
                })?;
                walker.finish()
            }
            (_, Ok(count)) => {
                let mut walker = Walker::new(program, draws.len(), sink);
                each_draw(key, draws, |k, mut words| {
                    let index = match source {
                        Ranks::Permuted(permutation) => permutation.at(u128::from(k)) as u64,
                        _ => words.below_u64(count),
                    };
                    indices.push(index);
                    self.expand(&mut walker, &mut Find, index, &|| format!("draw {k}, derivation {index}"))
                })?;
                walker.finish()
            }
            (_, Err(_)) => {
                let mut walker = Walker::new(program, draws.len(), sink);
                each_draw(key, draws, |k, mut words| {
                    let index = match source {
                        Ranks::Permuted(permutation) => BigUint::from(permutation.at(u128::from(k))),
                        _ => below(&mut words, &program.count),
                    };
                    let what = || format!("draw {k}, derivation {index}");
                    self.expand(&mut walker, &mut FindBig, index.clone(), &what)
                })?;
                walker.finish()
            }
        };
        Ok((expanded, indices))
    }

    #[inline]
    fn expand<D: Decide, S: Sink>(
        &self,
        walker: &mut Walker<'_, D, S>,
        decide: &mut D,
        number: D::Number,
        what: &impl Fn() -> String,
    ) -> Result<()> {
        walker.expand(decide, number).map_err(|failure| match failure {
            Failure::Fault(fault, code) => self.faulty(fault, code, |slot| walker.value(slot), &what()),
            Failure::Row(error) => Error::invalid(format!("{} ({})", error.message(), what())),
        })
    }

    /// The error of a computed slot without a value.
    #[cold]
    fn faulty(&self, Fault { at, what: why }: Fault, code: u32, value: impl Fn(usize) -> String, what: &str) -> Error {
        let formula = &self.program.codes[code as usize];
        let mut values: Vec<String> = Vec::new();
        formula.code.slots(&mut |slot| {
            let value = format!("{} = {}", self.program.slots[slot].name, value(slot));
            if !values.contains(&value) {
                values.push(value);
            }
        });
        let with = if values.is_empty() { String::new() } else { format!(" with {}", values.join(", ")) };
        fault(&self.source, at, format!("{why} in {{{}}}{with} ({what})", formula.source))
    }
}

impl Given {
    fn check(&self) -> Result<()> {
        for Lexicon { name, items, weights } in &self.lexicons {
            if items.is_empty() || items.len() >= u32::MAX as usize {
                return Err(Error::invalid(format!("lexicons: '{name}' has {} strings: it needs some", items.len())));
            }
            let Some(weights) = weights else { continue };
            if weights.len() != items.len() {
                let (n, m) = (items.len(), weights.len());
                return Err(Error::invalid(format!("lexicons: '{name}' has {n} strings and {m} weights")));
            }
            if weights.contains(&0) || weights.iter().map(|&w| u128::from(w)).sum::<u128>() > u128::from(u32::MAX) {
                let message = format!("lexicons: the weights of '{name}' must be above 0 and sum to less than 2^32");
                return Err(Error::invalid(message));
            }
        }
        for (name, cells) in &self.columns {
            let has = match cells {
                Cells::Values(_, values) => values.len(),
                Cells::Texts(texts) => texts.len(),
            };
            if has != self.rows || has == 0 {
                let message = format!("rows: column '{name}' has {has} values where there are {} rows", self.rows);
                return Err(Error::invalid(message));
            }
        }
        Ok(())
    }

    /// A comment for each lexicon and column that the rules use.
    fn written(&self, rules: &[Rule]) -> String {
        let mut used = std::collections::BTreeSet::new();
        let found = compile::each_item(rules, &mut |item| {
            match item {
                Item::Draw { sampler: Sampler::Lexicon { name, .. }, .. } => {
                    _ = used.insert(("lexicon", name.as_str()))
                }
                Item::Draw { sampler: Sampler::Column { name, .. }, .. } => _ = used.insert(("column", name.as_str())),
                _ => {}
            }
            Ok(())
        });
        debug_assert!(found.is_ok());
        let mut out = String::new();
        for (kind, name) in used {
            let mut hash = Sha256::new();
            let mut add = |bytes: &[u8]| {
                hash.update((bytes.len() as u64).to_le_bytes());
                hash.update(bytes);
            };
            if kind == "lexicon" {
                for Lexicon { items, weights, .. } in self.lexicons.iter().filter(|lexicon| lexicon.name == name) {
                    items.iter().for_each(|item| add(item.as_bytes()));
                    weights.iter().flatten().for_each(|weight| add(&weight.to_le_bytes()));
                }
            } else {
                for (_, cells) in self.columns.iter().filter(|(column, _)| column == name) {
                    match cells {
                        Cells::Texts(texts) => texts.iter().for_each(|text| add(text.as_bytes())),
                        Cells::Values(of, values) => {
                            add(format!("{of:?}").as_bytes());
                            values.iter().for_each(|value| add(&value.to_le_bytes()));
                        }
                    }
                }
            }
            out.push_str(&format!("# {kind} {name}: {}\n", hex(&hash.finalize())));
        }
        out
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where derivations come from.
enum Ranks {
    Weights,
    Uniform,
    Permuted(Permutation),
}

/// Calls `work` with each draw and its words.
#[inline]
fn each_draw(key: u64, draws: &[u64], mut work: impl FnMut(u64, Words) -> Result<()>) -> Result<()> {
    const BLOCK: usize = 64;
    let mut first = [[0; 4]; BLOCK];
    for draws in draws.chunks(BLOCK) {
        first_blocks(level(), key, 0, draws, &mut first);
        for (&k, &first) in draws.iter().zip(&first) {
            work(k, Stream::new(key, 0, k).words_after(first))?;
        }
    }
    Ok(())
}

/// A uniform number below `n`, exactly: as many words as `n` has, low first, the top one masked, until it is below.
fn below(words: &mut Words, n: &BigUint) -> BigUint {
    let bits = (n - 1u8).bits();
    let len = bits.div_ceil(32) as usize;
    let mask = u32::MAX >> ((32 - bits % 32) % 32);
    loop {
        let mut digits: Vec<u32> = (0..len).map(|_| words.next_word()).collect();
        if let Some(top) = digits.last_mut() {
            *top &= mask;
        }
        let number = BigUint::new(digits);
        if number < *n {
            return number;
        }
    }
}

#[cfg(test)]
mod tests;
