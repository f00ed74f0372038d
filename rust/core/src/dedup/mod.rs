//! Deduplication: exact copies, and near-duplicates by exact Jaccard similarity over sets of shingles.
//!
//! The way of a corpus: rows with equal content become one document (`exact`); a document's shingles
//! (`shingle`) make its sketch (`sketch`); documents that share a band of it are candidates (`bands`); candidates
//! are compared exactly (`verify`); and of each cluster one document is kept (`cluster`). Chance decides only which
//! pairs are compared: a pair at the threshold is missed with the probability that the caller allows, and nothing is
//! removed that is not similar.
//!
//! Runs of units are found exactly: those that occurred before (`substring`), and those of known items (`ngrams`), by
//! hashes of windows (`windows`).

mod bands;
mod cluster;
mod components;
mod exact;
mod index;
mod join;
mod ngrams;
mod shingle;
mod sketch;
mod substring;
mod units;
mod verify;
mod windows;

use crate::error::{Error, Result};
use crate::ragged::MAX_ROW;
use crate::simd::{self, Level};
use crate::{Ragged, RaggedBuf};

use bands::{Buckets, Layout, band_keys};
use cluster::{Assignment, Corpus, Work};
pub use components::{Components, shared_rows};
pub use exact::Hashed;
use exact::Seen;
pub use index::{Keyed, Matches, Segment, first_matches, keyed, matches, merge_run, merge_short};
pub use ngrams::{Hits, Ngrams, TRIED};
pub use shingle::Unit;
use shingle::{MAX_NGRAM, Shingler};
use sketch::Sketcher;
pub use substring::{Occurrence, Repeats, substring};
pub use units::{Form, Normalize, chars, select_tokens, word_spans};
pub use windows::Token;

/// Which documents of a cluster go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closure {
    /// In keep order, a document goes if one already kept is similar: it is similar to its keeper.
    Leader,
    /// Documents joined by a chain of similar pairs are one cluster, of which the first in keep order stays.
    Transitive,
}

/// Which of two duplicates stays, where `order` does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// The longer, then the one with the lower id, then the earlier.
    Longest,
    /// The earlier.
    First,
    /// Neither. The row that others are compared with is the one that [`Longest`](Self::Longest) would keep.
    None,
}

/// Which pairs are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Those that share a band of their sketches: fast, and with the probability [`Params::recall`] enough.
    Lsh,
    /// All that can reach the threshold.
    Exact,
}

/// What a text is compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextUnit {
    /// Words: runs of characters that are not white space.
    Word,
    /// Code points.
    Char,
}

/// How near-duplicates are found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Params {
    /// Least Jaccard similarity of two duplicates, in (0, 1].
    pub threshold: f64,
    /// Units in a shingle, 1 to 32.
    pub ngram: usize,
    /// Which pairs are compared.
    pub mode: Mode,
    /// Least probability, in (0, 1), that a pair at the threshold is compared. [`Mode::Exact`] has no use for it.
    pub recall: f64,
    /// Which documents of a cluster go.
    pub closure: Closure,
    /// Which of two duplicates stays.
    pub keep: Keep,
    /// Key of the hash functions.
    pub seed: u64,
    /// Most documents of one bucket that a document is compared with; what is left out is counted.
    pub cap: usize,
}

impl Default for Params {
    fn default() -> Self {
        Params {
            threshold: 0.8,
            ngram: 5,
            mode: Mode::Lsh,
            recall: 0.999,
            closure: Closure::Leader,
            keep: Keep::Longest,
            seed: 0,
            cap: 1000,
        }
    }
}

impl Params {
    /// Whether near-duplicates can be found this way.
    ///
    /// # Errors
    /// If a number is out of range, or `threshold` and `recall` ask for too large a sketch.
    pub fn check(&self) -> Result<()> {
        self.layout().map(drop)
    }

    /// Bands of a sketch; 0 where there is none.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn bands(&self) -> Result<usize> {
        Ok(self.layout()?.bands)
    }

    fn layout(&self) -> Result<Layout> {
        if !(1..=MAX_NGRAM).contains(&self.ngram) {
            return Err(Error::invalid(format!("ngram must lie in 1 to {MAX_NGRAM} (it is {})", self.ngram)));
        }
        if self.mode == Mode::Exact && self.threshold > 0.0 && self.threshold <= 1.0 {
            return Ok(Layout { bands: 0, width: 0 });
        }
        Layout::choose(self.threshold, self.recall)
    }
}

/// What becomes of each row.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The row kept in favour of each row: the row itself if it stays.
    pub keeper: Vec<i64>,
    /// A number of each row's cluster, counted from 0 by first appearance.
    pub cluster: Vec<i64>,
    /// Exact similarity of each row with its keeper, 1 for a row that stays.
    pub similarity: Vec<f32>,
    /// Counts. Under [`Keep::None`] the row that the others of its cluster name as keeper goes too, and counts as
    /// `near` if it has a near-duplicate, otherwise as `exact`.
    pub stats: Stats,
}

/// Counts of a deduplication.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Rows given.
    pub rows: u64,
    /// Rows that stay.
    pub kept: u64,
    /// Rows that go because an equal row comes before them in keep order.
    pub exact: u64,
    /// Rows that go for another reason: they are near-duplicates.
    pub near: u64,
    /// Rows, each content once, that have fewer units than a shingle, so only the exact stage saw them.
    pub short: u64,
    /// Bands of a sketch.
    pub bands: u64,
    /// Slots of a band.
    pub band_width: u64,
    /// Pairs compared exactly.
    pub compared: u64,
    /// Of these, pairs at or over the threshold.
    pub similar: u64,
    /// Documents in the largest bucket.
    pub largest_bucket: u64,
    /// Buckets in which some comparison was left out, because of [`Params::cap`].
    pub capped_buckets: u64,
    /// How many times a document was left out, or left the rest of a bucket out.
    pub capped_rows: u64,
}

/// Removes rows with equal content.
///
/// Of equal rows the one with the least `order` stays, then by `keep` the one with the lowest id, then the first.
/// `order` may be empty. Linear, however many copies there are.
///
/// # Errors
/// If `ids` or `order` has another length than there are rows.
pub fn exact_rows<T: Hashed>(rows: Ragged<'_, T>, ids: &[u64], order: &[i64], keep: Keep) -> Result<Outcome> {
    check(rows, ids)?;
    check_order(order, rows.rows())?;
    let group = exact::groups(rows, simd::level());
    let ranked = rank(&group, rows, keep, ids, order);
    let documents = Documents::new(&group, rows.rows(), ranked);
    Ok(documents.outcome(&group, &Assignment::alone(documents.head.len()), keep, Stats::default()))
}

/// Removes near-duplicates among rows of units: tokens, or what [`words`] and [`chars`] make of texts.
///
/// # Errors
/// If a parameter is out of range, or `ids` or `order` (which may be empty) has another length than there are rows.
pub fn near_rows<T: Unit + Hashed>(
    rows: Ragged<'_, T>,
    ids: &[u64],
    order: &[i64],
    params: &Params,
) -> Result<Outcome> {
    check(rows, ids)?;
    check_order(order, rows.rows())?;
    let engine = Engine::new(params)?;
    Ok(engine.run(rows, &exact::groups(rows, engine.level), ids, order))
}

/// The keys that join rows into [`Components`]: `1 + bands` runs of one key a row.
///
/// The first run is a hash of the content. The others are the bands of the sketch, with 0 for a row that has fewer
/// units than a shingle, and so no sketch: that 0 must join nothing. What [`near_rows`] makes of a row is what it
/// makes of the row's component alone, whose rows come in the order that they have among all.
///
/// # Errors
/// If a parameter is out of range, the mode is exact, which has no bands, or a row is too long.
pub fn near_keys<T: Unit + Hashed>(rows: Ragged<'_, T>, params: &Params) -> Result<Vec<u64>> {
    check_rows(rows)?;
    if params.mode == Mode::Exact {
        return Err(Error::invalid("mode 'exact' has no bands to join rows by: use mode 'lsh'"));
    }
    let engine = Engine::new(params)?;
    let mut keys = Vec::with_capacity((1 + engine.layout.bands) * rows.rows());
    keys.extend(exact::hashes(rows, engine.level));
    band_keys(&engine.sketcher, engine.layout, rows.offsets(), |r| rows.row(r), |key| key, &mut keys);
    Ok(keys)
}

/// The normalised words of every text, as 64-bit hashes: the units of [`TextUnit::Word`].
///
/// # Errors
/// Names the first row that is not UTF-8.
pub fn words(texts: Ragged<'_, u8>, normalize: &Normalize) -> Result<RaggedBuf<u64>> {
    units::words(texts, normalize, simd::level())
}

/// Numbers keepers from 0 by first appearance, as [`Outcome::cluster`] does.
///
/// # Errors
/// If a keeper is no row.
pub fn clusters(keeper: &[i64]) -> Result<Vec<i64>> {
    check_count(keeper.len())?;
    let mut number = vec![NONE; keeper.len()];
    let mut clusters = 0;
    let mut out = Vec::with_capacity(keeper.len());
    for (row, &kept) in keeper.iter().enumerate() {
        let Some(number) = usize::try_from(kept).ok().and_then(|kept| number.get_mut(kept)) else {
            return Err(Error::invalid(format!("keeper must be a row below {} (row {row}: {kept})", keeper.len())));
        };
        if *number == NONE {
            *number = clusters;
            clusters += 1;
        }
        out.push(i64::from(*number));
    }
    Ok(out)
}

/// Deduplication of rows that come in parts: the result is that of one call with all of them.
///
/// Holds, for each row, 12 bytes; for each different content, its units (four bytes a token or character, eight a
/// word) and about 30 bytes; and while the result is made, about 12 bytes a band of each.
///
/// ```
/// use variegate_core::Ragged;
/// use variegate_core::dedup::{Deduper, Params};
/// let mut deduper = Deduper::tokens(&Params { threshold: 0.5, ngram: 2, ..Params::default() })?;
/// deduper.add_tokens(Ragged::new(&[1, 2, 3, 4, 5], &[0, 5])?, &[70])?;
/// deduper.add_tokens(Ragged::new(&[1, 2, 3, 4, 9, 7, 7], &[0, 5, 7])?, &[71, 72])?;
/// let outcome = deduper.result(&[])?;
/// assert_eq!(outcome.keeper, [0, 0, 2]);
/// assert_eq!(outcome.similarity, [1.0, 0.6, 1.0]);
/// # Ok::<(), variegate_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Deduper {
    engine: Engine,
    units: Units,
    ids: Vec<u64>,
}

#[derive(Debug)]
enum Units {
    Tokens(Store<u32>),
    Words(Store<u64>, Normalize),
    Chars(Store<u32>, Normalize),
}

/// Every content once, and for each row which it has.
#[derive(Debug)]
struct Store<T> {
    contents: RaggedBuf<T>,
    group: Vec<u32>,
    seen: Seen,
}

impl<T> Default for Store<T> {
    fn default() -> Self {
        Store { contents: RaggedBuf::default(), group: vec![], seen: Seen::default() }
    }
}

impl Deduper {
    /// A deduper of rows of tokens.
    ///
    /// # Errors
    /// If a parameter is out of range.
    pub fn tokens(params: &Params) -> Result<Self> {
        Self::new(params, Units::Tokens(Store::default()))
    }

    /// A deduper of texts, which are normalised first.
    ///
    /// # Errors
    /// If a parameter is out of range.
    pub fn texts(params: &Params, unit: TextUnit, normalize: &Normalize) -> Result<Self> {
        let units = match unit {
            TextUnit::Word => Units::Words(Store::default(), *normalize),
            TextUnit::Char => Units::Chars(Store::default(), *normalize),
        };
        Self::new(params, units)
    }

    fn new(params: &Params, units: Units) -> Result<Self> {
        Ok(Deduper { engine: Engine::new(params)?, units, ids: vec![] })
    }

    /// Rows so far.
    pub fn rows(&self) -> usize {
        self.ids.len()
    }

    /// Takes rows of tokens.
    ///
    /// # Errors
    /// If the deduper is one of texts, or `ids` has another length than there are rows; nothing is taken.
    pub fn add_tokens(&mut self, rows: Ragged<'_, u32>, ids: &[u64]) -> Result<()> {
        let Units::Tokens(store) = &mut self.units else {
            return Err(Error::invalid("this Deduper takes texts: it began with a TextBatch, or has a unit of texts"));
        };
        check(rows, ids)?;
        store.add(rows, self.engine.level)?;
        self.ids.extend_from_slice(ids);
        Ok(())
    }

    /// Takes texts.
    ///
    /// # Errors
    /// If the deduper is one of tokens, a row is not UTF-8, or `ids` has another length than there are rows; nothing
    /// is taken.
    pub fn add_texts(&mut self, rows: Ragged<'_, u8>, ids: &[u64]) -> Result<()> {
        check(rows, ids)?;
        let level = self.engine.level;
        match &mut self.units {
            Units::Tokens(_) => {
                return Err(Error::invalid(
                    "this Deduper takes tokens: it began with a TokenBatch, or has unit 'token'",
                ));
            }
            Units::Words(store, normalize) => store.add(units::words(rows, normalize, level)?.view(), level)?,
            Units::Chars(store, normalize) => store.add(units::chars(rows, normalize)?.view(), level)?,
        }
        self.ids.extend_from_slice(ids);
        Ok(())
    }

    /// What becomes of all rows so far, in the order they came. An empty `order` is that of equals.
    ///
    /// # Errors
    /// If `order` has another length than there are rows.
    pub fn result(&self, order: &[i64]) -> Result<Outcome> {
        check_order(order, self.rows())?;
        Ok(match &self.units {
            Units::Tokens(store) | Units::Chars(store, _) => {
                self.engine.run(store.contents.view(), &store.group, &self.ids, order)
            }
            Units::Words(store, _) => self.engine.run(store.contents.view(), &store.group, &self.ids, order),
        })
    }
}

impl<T: Unit + Hashed> Store<T> {
    fn add(&mut self, rows: Ragged<'_, T>, level: Level) -> Result<()> {
        let total = self.group.len() + rows.rows();
        check_count(total)?;
        for (row, hash) in rows.iter().zip(exact::hashes(rows, level)) {
            let next = self.contents.offsets.len() as u32 - 1;
            let contents = self.contents.view();
            let found = self.seen.find_or_insert(hash, next, |other| contents.row(other as usize) == row);
            if found == next {
                self.contents.values.extend_from_slice(row);
                self.contents.end_row();
            }
            self.group.push(found);
        }
        Ok(())
    }
}

fn check<T>(rows: Ragged<'_, T>, ids: &[u64]) -> Result<()> {
    let n = rows.rows();
    if ids.len() != n {
        return Err(Error::invalid(format!("ids must hold one number a row ({} for {n} rows)", ids.len())));
    }
    check_rows(rows)
}

fn check_order(order: &[i64], rows: usize) -> Result<()> {
    if !order.is_empty() && order.len() != rows {
        return Err(Error::invalid(format!("order must hold one number a row ({} for {rows} rows)", order.len())));
    }
    Ok(())
}

fn check_rows<T>(rows: Ragged<'_, T>) -> Result<()> {
    let n = rows.rows();
    check_count(n)?;
    if let Some(row) = (0..n).find(|&row| rows.range(row).len() > MAX_ROW) {
        return Err(Error::invalid(format!("row {row} is longer than 2^30 units ({})", rows.range(row).len())));
    }
    Ok(())
}

/// Row numbers are `u32`, and the largest means none.
fn check_count(rows: usize) -> Result<()> {
    if rows >= u32::MAX as usize {
        return Err(Error::invalid(format!("deduplication takes at most 4294967294 rows (it has {rows})")));
    }
    Ok(())
}

/// Rows in keep order.
fn rank<T>(group: &[u32], contents: Ragged<'_, T>, keep: Keep, ids: &[u64], order: &[i64]) -> Vec<u32> {
    let rows = 0..group.len() as u32;
    let order = |row: u32| order.get(row as usize).copied().unwrap_or(0);
    if keep == Keep::First {
        let mut ranked: Vec<u32> = rows.collect();
        ranked.sort_by_key(|&row| order(row));
        return ranked;
    }
    // Longer rows, lower ids, earlier rows first, in one number.
    let key = |row: u32| {
        let shortness = !(contents.range(group[row as usize] as usize).len() as u32);
        (order(row), u128::from(shortness) << 96 | u128::from(ids[row as usize]) << 32 | u128::from(row))
    };
    let mut keys: Vec<(i64, u128)> = rows.map(key).collect();
    keys.sort_unstable();
    keys.into_iter().map(|(_, key)| key as u32).collect()
}

/// No row or document.
const NONE: u32 = u32::MAX;

/// Rows grouped by content, in keep order.
struct Documents {
    /// The row of each document that comes first in keep order.
    head: Vec<u32>,
    /// The document of each content, or [`NONE`] where no row has it.
    of_content: Vec<u32>,
}

impl Documents {
    fn new(group: &[u32], contents: usize, ranked: Vec<u32>) -> Self {
        let mut documents = Documents { head: vec![], of_content: vec![NONE; contents] };
        for row in ranked {
            let document = &mut documents.of_content[group[row as usize] as usize];
            if *document == NONE {
                *document = documents.head.len() as u32;
                documents.head.push(row);
            }
        }
        documents
    }

    /// Carries what became of documents over to rows.
    fn outcome(&self, group: &[u32], assignment: &Assignment, keep: Keep, stats: Stats) -> Outcome {
        let rows = group.len();
        let mut out = Outcome {
            keeper: Vec::with_capacity(rows),
            cluster: Vec::with_capacity(rows),
            similarity: Vec::with_capacity(rows),
            stats: Stats { rows: rows as u64, ..stats },
        };
        let mut number = vec![-1; self.head.len()];
        let mut clusters = 0;
        // Of each cluster, whether a copy and whether a near-duplicate of its keeper goes.
        let mut gone: Vec<(bool, bool)> = vec![];
        for (row, &content) in group.iter().enumerate() {
            let document = self.of_content[content as usize] as usize;
            let kept = assignment.keeper[document] as usize;
            if number[kept] < 0 {
                number[kept] = clusters;
                clusters += 1;
                gone.push((false, false));
            }
            let gone = &mut gone[number[kept] as usize];
            out.keeper.push(i64::from(self.head[kept]));
            out.cluster.push(number[kept]);
            out.similarity.push(assignment.similarity[document]);
            if self.head[document] as usize != row {
                out.stats.exact += 1;
                gone.0 = true;
            } else if kept == document {
                out.stats.kept += 1;
            } else {
                out.stats.near += 1;
                gone.1 = true;
            }
        }
        if keep == Keep::None {
            let near = gone.iter().filter(|&&(_, near)| near).count() as u64;
            let exact = gone.iter().filter(|&&(exact, near)| exact && !near).count() as u64;
            out.stats.kept -= near + exact;
            out.stats.near += near;
            out.stats.exact += exact;
        }
        out
    }
}

/// Everything that follows from the parameters.
#[derive(Debug)]
struct Engine {
    params: Params,
    layout: Layout,
    sketcher: Sketcher,
    level: Level,
}

impl Engine {
    fn new(params: &Params) -> Result<Self> {
        let layout = params.layout()?;
        let level = simd::level();
        let shingler = Shingler::new(params.ngram, params.seed, level);
        let sketcher = Sketcher::new(shingler, layout.slots().max(1), params.seed, level);
        Ok(Engine { params: *params, layout, sketcher, level })
    }

    /// `group` says which row of `contents` each row has; contents that no row has are passed over.
    fn run<T: Unit>(&self, contents: Ragged<'_, T>, group: &[u32], ids: &[u64], order: &[i64]) -> Outcome {
        let ranked = rank(group, contents, self.params.keep, ids, order);
        let documents = Documents::new(group, contents.rows(), ranked);
        let content = |document: u32| contents.row(group[documents.head[document as usize] as usize] as usize);

        // Documents with a shingle, in keep order; from here to the assignment "row" means a place in this list.
        let shingled: Vec<u32> = (0..documents.head.len() as u32)
            .filter(|&document| self.sketcher.shingler.count(content(document).len()) > 0)
            .collect();
        let row = |r: usize| content(shingled[r]);
        let mut offsets = vec![0];
        offsets.extend(shingled.iter().scan(0, |at, &document| {
            *at += content(document).len() as i64;
            Some(*at)
        }));
        let corpus = Corpus {
            row,
            offsets: &offsets,
            shingler: &self.sketcher.shingler,
            threshold: self.params.threshold,
            cap: self.params.cap,
        };
        let mut largest_bucket = 0;
        let found = match (self.params.mode, self.params.closure) {
            (Mode::Exact, Closure::Leader) => join::leader(&corpus, self.level),
            (Mode::Exact, Closure::Transitive) => join::transitive(&corpus, self.level),
            (Mode::Lsh, closure) => {
                // Sketched in the order in which they lie, since memory is read fastest in order.
                let mut place = vec![NONE; documents.head.len()];
                shingled.iter().zip(0..).for_each(|(&document, r)| place[document as usize] = r);
                let of_content = documents.of_content.iter().filter(|&&document| document != NONE);
                let laid: Vec<u32> =
                    of_content.map(|&document| place[document as usize]).filter(|&r| r != NONE).collect();
                let buckets = Buckets::build(&self.sketcher, self.layout, &laid, row);
                largest_bucket = buckets.largest() as u64;
                match closure {
                    Closure::Leader => cluster::leader(&corpus, buckets),
                    Closure::Transitive => cluster::transitive(&corpus, &buckets),
                }
            }
        };

        let mut assignment = Assignment::alone(documents.head.len());
        for (r, &document) in shingled.iter().enumerate() {
            assignment.keeper[document as usize] = shingled[found.keeper[r] as usize];
            assignment.similarity[document as usize] = found.similarity[r];
        }
        let Work { compared, similar, capped_buckets, capped_rows } = found.work;
        let stats = Stats {
            short: (documents.head.len() - shingled.len()) as u64,
            bands: self.layout.bands as u64,
            band_width: self.layout.width as u64,
            compared,
            similar,
            largest_bucket,
            capped_buckets,
            capped_rows,
            ..Stats::default()
        };
        documents.outcome(group, &assignment, self.params.keep, stats)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn pack<T: Copy>(rows: &[Vec<T>]) -> RaggedBuf<T> {
        let mut buf = RaggedBuf::default();
        for row in rows {
            buf.values.extend_from_slice(row);
            buf.end_row();
        }
        buf
    }

    /// What the definitions say, by comparing every pair.
    struct Oracle {
        ranked: Vec<usize>,
        jaccard: Vec<Vec<f64>>,
    }

    impl Oracle {
        fn new(rows: &[Vec<u32>], ids: &[u64], order: &[i64], keep: Keep, ngram: usize) -> Self {
            let mut ranked: Vec<usize> = (0..rows.len()).collect();
            ranked.sort_by_key(|&r| {
                let order = order.get(r).copied().unwrap_or(0);
                match keep {
                    Keep::First => (order, 0, 0, r),
                    Keep::Longest | Keep::None => (order, -(rows[r].len() as i64), ids[r], r),
                }
            });
            let sets: Vec<BTreeSet<&[u32]>> = rows.iter().map(|row| row.windows(ngram).collect()).collect();
            let similarity = |a: usize, b: usize| {
                let (both, any) = (sets[a].intersection(&sets[b]).count(), sets[a].union(&sets[b]).count());
                if rows[a] == rows[b] {
                    1.0
                } else if any == 0 {
                    0.0
                } else {
                    both as f64 / any as f64
                }
            };
            let jaccard = (0..rows.len()).map(|a| (0..rows.len()).map(|b| similarity(a, b)).collect()).collect();
            Oracle { ranked, jaccard }
        }

        fn leader(&self, threshold: f64) -> Vec<i64> {
            let mut kept: Vec<usize> = vec![];
            let mut keeper = vec![-1; self.ranked.len()];
            for &r in &self.ranked {
                let found = kept.iter().find(|&&k| self.jaccard[r][k] >= threshold);
                keeper[r] = *found.unwrap_or(&r) as i64;
                if found.is_none() {
                    kept.push(r);
                }
            }
            keeper
        }

        fn transitive(&self, threshold: f64) -> Vec<i64> {
            let mut label: Vec<usize> = (0..self.ranked.len()).collect();
            for _ in &self.ranked {
                for a in 0..label.len() {
                    for b in 0..label.len() {
                        if self.jaccard[a][b] >= threshold {
                            label[a] = label[a].min(label[b]);
                        }
                    }
                }
            }
            let first = |r: usize| self.ranked.iter().find(|&&k| label[k] == label[r]).unwrap();
            (0..label.len()).map(|r| *first(r) as i64).collect()
        }
    }

    /// Rows that are often near-copies of one another.
    fn corpus() -> impl Strategy<Value = Vec<Vec<u32>>> {
        (any::<u64>(), 1usize..5, 0usize..25).prop_map(|(key, bases, rows)| {
            let mut words = Stream::new(key, 0, 0).words(0);
            let base: Vec<Vec<u32>> =
                (0..bases).map(|_| (0..words.below(30)).map(|_| words.below(9)).collect()).collect();
            (0..rows)
                .map(|_| {
                    let mut row = base[words.below(bases as u32) as usize].clone();
                    for _ in 0..words.below(3) {
                        if !row.is_empty() {
                            let at = words.below(row.len() as u32) as usize;
                            row[at] = words.below(9);
                        }
                    }
                    row.truncate(row.len() - words.below(3).min(row.len() as u32) as usize);
                    row
                })
                .collect()
        })
    }

    fn params(threshold: f64, ngram: usize, closure: Closure, keep: Keep, seed: u64) -> Params {
        Params { threshold, ngram, recall: 0.999_999, closure, keep, seed, ..Params::default() }
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: proptest::test_runner::RngSeed::Fixed(7), ..ProptestConfig::default() })]

        #[test]
        fn keepers_are_those_of_comparing_all_pairs(
            rows in corpus(), ngram in 1usize..4, ordered: bool, first: bool, transitive: bool, all: bool,
            threshold in prop::sample::select(vec![0.5, 0.6, 0.75, 1.0]),
        ) {
            let mode = if all { Mode::Exact } else { Mode::Lsh };
            let ids: Vec<u64> = (0..rows.len() as u64).map(|r| crate::rng::mix(r) % 5).collect();
            let order: Vec<i64> = if ordered { (0..rows.len() as i64).map(|r| r * 7 % 3).collect() } else { vec![] };
            let keep = if first { Keep::First } else { Keep::Longest };
            let closure = if transitive { Closure::Transitive } else { Closure::Leader };
            let oracle = Oracle::new(&rows, &ids, &order, keep, ngram);
            let expected = if transitive { oracle.transitive(threshold) } else { oracle.leader(threshold) };
            let params = Params { mode, ..params(threshold, ngram, closure, keep, 3) };
            let outcome = near_rows(pack(&rows).view(), &ids, &order, &params).unwrap();
            prop_assert_eq!(&outcome.keeper, &expected);
            let mut numbers = BTreeMap::new();
            for (r, &keeper) in expected.iter().enumerate() {
                let next = numbers.len() as i64;
                prop_assert_eq!(outcome.cluster[r], *numbers.entry(keeper).or_insert(next));
                prop_assert_eq!(outcome.similarity[r], oracle.jaccard[r][keeper as usize] as f32);
            }
            let Stats { rows: all, kept, exact, near, .. } = outcome.stats;
            prop_assert_eq!((all, kept), (rows.len() as u64, numbers.len() as u64));
            prop_assert_eq!(kept + exact + near, all);
        }

        #[test]
        fn parts_make_the_result_of_the_whole(rows in corpus(), cuts in prop::collection::vec(0usize..25, 0..4), transitive: bool) {
            let closure = if transitive { Closure::Transitive } else { Closure::Leader };
            let params = params(0.6, 2, closure, Keep::Longest, 5);
            let ids: Vec<u64> = (0..rows.len() as u64).rev().collect();
            let order: Vec<i64> = ids.iter().map(|&id| id as i64 % 2).collect();
            let whole = near_rows(pack(&rows).view(), &ids, &order, &params).unwrap();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(rows.len())).chain([0, rows.len()]).collect();
            cuts.sort_unstable();
            let mut deduper = Deduper::tokens(&params).unwrap();
            for part in cuts.windows(2).map(|pair| pair[0]..pair[1]) {
                deduper.add_tokens(pack(&rows[part.clone()]).view(), &ids[part]).unwrap();
            }
            prop_assert_eq!(deduper.result(&order).unwrap(), whole);
        }

        #[test]
        fn keys_are_those_of_the_content_and_of_the_bands(rows in corpus(), ngram in 1usize..4, seed: u64) {
            let params = params(0.6, ngram, Closure::Leader, Keep::Longest, seed);
            let (packed, n) = (pack(&rows), rows.len());
            let keys = near_keys(packed.view(), &params).unwrap();
            prop_assert_eq!(keys.len(), n * (1 + params.bands().unwrap()));
            for (a, b) in (0..n).flat_map(|a| (0..a).map(move |b| (a, b))) {
                prop_assert_eq!(keys[a] == keys[b], rows[a] == rows[b]);
            }
            let engine = Engine::new(&params).unwrap();
            let shingled: Vec<usize> = (0..n).filter(|&r| rows[r].len() >= ngram).collect();
            let order: Vec<u32> = (0..shingled.len() as u32).collect();
            let buckets = Buckets::build(&engine.sketcher, engine.layout, &order, |at| &rows[shingled[at]][..]);
            let mut expected = BTreeMap::<_, Vec<u32>>::new();
            for (band, keys) in keys.chunks_exact(n.max(1)).skip(1).enumerate() {
                prop_assert!((0..n).all(|r| rows[r].len() >= ngram || keys[r] == 0));
                for (at, &r) in shingled.iter().enumerate() {
                    expected.entry((band, bands::high(keys[r]))).or_default().push(at as u32);
                }
            }
            expected.retain(|_, rows| rows.len() > 1);
            let got = buckets.starts.windows(2).map(|p| buckets.members[p[0]..p[1]].to_vec());
            prop_assert!(got.eq(expected.into_values()));
        }

        /// What a deduplication out of core rests on.
        #[test]
        fn components_one_by_one_make_the_result_of_the_whole(
            rows in corpus(), ordered: bool, first: bool, transitive: bool, capped: bool, threshold in prop::sample::select(vec![0.5, 0.8]),
        ) {
            let n = rows.len();
            let ids: Vec<u64> = (0..n as u64).map(|r| crate::rng::mix(r) % 5).collect();
            let order: Vec<i64> = (0..n as i64).map(|r| if ordered { r * 7 % 3 } else { 0 }).collect();
            let keep = if first { Keep::First } else { Keep::Longest };
            let closure = if transitive { Closure::Transitive } else { Closure::Leader };
            let cap = if capped { 1 } else { Params::default().cap };
            let params = Params { threshold, ngram: 2, closure, keep, cap, ..Params::default() };
            let whole = near_rows(pack(&rows).view(), &ids, &order, &params).unwrap();

            let keys = near_keys(pack(&rows).view(), &params).unwrap();
            let mut components = Components::new(n).unwrap();
            for (band, keys) in keys.chunks_exact(n.max(1)).enumerate() {
                let (keys, rows): (Vec<u64>, Vec<u32>) =
                    (0..n).filter(|&r| band == 0 || rows[r].len() >= 2).map(|r| (keys[r], r as u32)).unzip();
                components.join(&keys, &rows).unwrap();
            }
            let mut parts = BTreeMap::<u32, Vec<usize>>::new();
            for (r, root) in components.roots().into_iter().enumerate() {
                parts.entry(root).or_default().push(r);
            }
            let mut sum = Stats { bands: whole.stats.bands, band_width: whole.stats.band_width, ..Stats::default() };
            for part in parts.into_values() {
                let packed = pack(&part.iter().map(|&r| rows[r].clone()).collect::<Vec<_>>());
                let (ids, order): (Vec<u64>, Vec<i64>) = part.iter().map(|&r| (ids[r], order[r])).unzip();
                let Outcome { keeper, similarity, stats, .. } = near_rows(packed.view(), &ids, &order, &params).unwrap();
                for (at, &r) in part.iter().enumerate() {
                    prop_assert_eq!(whole.keeper[r], part[keeper[at] as usize] as i64);
                    prop_assert_eq!(whole.similarity[r], similarity[at]);
                }
                sum.rows += stats.rows;
                sum.kept += stats.kept;
                sum.exact += stats.exact;
                sum.near += stats.near;
                sum.short += stats.short;
                sum.compared += stats.compared;
                sum.similar += stats.similar;
                sum.largest_bucket = sum.largest_bucket.max(stats.largest_bucket);
                sum.capped_buckets += stats.capped_buckets;
                sum.capped_rows += stats.capped_rows;
            }
            prop_assert_eq!(sum, whole.stats);
        }

        /// The same clusters, of which those of more than one row go.
        #[test]
        fn clusters_go_as_a_whole_where_none_is_kept(rows in corpus(), transitive: bool) {
            let closure = if transitive { Closure::Transitive } else { Closure::Leader };
            let ids: Vec<u64> = (0..rows.len() as u64).collect();
            let [some, none] = [Keep::Longest, Keep::None].map(|keep| {
                near_rows(pack(&rows).view(), &ids, &[], &params(0.5, 2, closure, keep, 1)).unwrap()
            });
            prop_assert_eq!(&none.keeper, &some.keeper);
            let size = |r: usize| some.keeper.iter().filter(|&&keeper| keeper == some.keeper[r]).count();
            let kept = (0..rows.len()).filter(|&r| size(r) == 1).count() as u64;
            let stats = none.stats;
            prop_assert_eq!((stats.kept, stats.kept + stats.exact + stats.near), (kept, rows.len() as u64));
            prop_assert!(stats.exact >= some.stats.exact && stats.near >= some.stats.near);
        }

        #[test]
        fn exact_rows_keep_the_first_in_order_of_each_content(rows in corpus(), ordered: bool) {
            let ids: Vec<u64> = (0..rows.len() as u64).map(|r| crate::rng::mix(r) % 5).collect();
            let order: Vec<i64> = if ordered { (0..rows.len() as i64).map(|r| r * 7 % 3).collect() } else { vec![] };
            let outcome = exact_rows(pack(&rows).view(), &ids, &order, Keep::Longest).unwrap();
            let best = |r: usize| {
                let key = |k: &usize| (order.get(*k).copied().unwrap_or(0), ids[*k], *k);
                (0..rows.len()).filter(|&k| rows[k] == rows[r]).min_by_key(key).unwrap() as i64
            };
            prop_assert!(outcome.keeper.iter().enumerate().all(|(r, &keeper)| keeper == best(r)));
            prop_assert_eq!(outcome.stats.near, 0);
        }
    }

    #[test]
    fn golden_vectors() {
        let vectors = include_str!("../../../../tests/vectors/dedup.json");
        let cases: Vec<serde_json::Value> = serde_json::from_str(vectors).expect("JSON");
        assert!(!cases.is_empty());
        for case in cases {
            let get = |name: &str| case[name].clone();
            let rows: Vec<Vec<u32>> = serde_json::from_value(get("rows")).unwrap();
            let ids: Vec<u64> = serde_json::from_value(get("ids")).unwrap();
            let order: Option<Vec<i64>> = serde_json::from_value(get("order")).unwrap();
            let closure = if case["closure"] == "leader" { Closure::Leader } else { Closure::Transitive };
            let keep = if case["keep"] == "longest" { Keep::Longest } else { Keep::First };
            let ngram = case["ngram"].as_u64().unwrap() as usize;
            let params = params(case["threshold"].as_f64().unwrap(), ngram, closure, keep, 0);
            let outcome = near_rows(pack(&rows).view(), &ids, &order.unwrap_or_default(), &params).unwrap();
            assert_eq!(serde_json::to_value(&outcome.keeper).unwrap(), case["keeper"]);
            assert_eq!(serde_json::to_value(&outcome.cluster).unwrap(), case["cluster"]);
            let similarity: Vec<f64> = serde_json::from_value(get("similarity")).unwrap();
            // serde_json reads a float to within its last digit.
            assert!(outcome.similarity.iter().zip(similarity).all(|(&got, expected)| got == expected as f32));
        }
    }

    #[test]
    fn threads_do_not_change_the_result() {
        let rows: Vec<Vec<u32>> = (0..4000u64)
            .map(|r| {
                let mut words = Stream::new(1, 0, r % 700).words(0);
                let mut row: Vec<u32> = (0..60).map(|_| words.below(5000)).collect();
                row[(r % 60) as usize] = r as u32;
                row
            })
            .collect();
        let (rows, ids) = (pack(&rows), vec![0; 4000]);
        let modes = [Mode::Lsh, Mode::Exact].into_iter();
        for (mode, closure) in modes.flat_map(|mode| [(mode, Closure::Leader), (mode, Closure::Transitive)]) {
            let params = Params { mode, closure, ..Params::default() };
            let outcomes = [1, 2, 5].map(|threads| {
                crate::par::set_threads(threads);
                near_rows(rows.view(), &ids, &[], &params).unwrap()
            });
            crate::par::set_threads(0);
            assert!(outcomes[0].stats.near > 1000, "{:?}", outcomes[0].stats);
            assert_eq!(outcomes[0], outcomes[1]);
            assert_eq!(outcomes[0], outcomes[2]);
        }
    }

    /// Many copies, empty rows, and near-copies of one row take a comparison a row, or none.
    #[test]
    fn crowds_take_linear_work() {
        let n = 100_000;
        let ids = vec![0; n];
        let base: Vec<u32> = (0..40).collect();
        let modes = [Mode::Lsh, Mode::Exact].into_iter();
        for (mode, closure) in modes.flat_map(|mode| [(mode, Closure::Leader), (mode, Closure::Transitive)]) {
            let params = Params { mode, closure, ngram: 3, ..Params::default() };
            for row in [vec![], base.clone()] {
                let stats = near_rows(pack(&vec![row; n]).view(), &ids, &[], &params).unwrap().stats;
                assert_eq!((stats.kept, stats.exact, stats.compared), (1, n as u64 - 1, 0));
            }
            let near: Vec<Vec<u32>> = (0..n as u32)
                .map(|r| {
                    let mut row = base.clone();
                    row[0] = 1000 + r;
                    row
                })
                .collect();
            let stats = near_rows(pack(&near).view(), &ids, &[], &params).unwrap().stats;
            assert_eq!((stats.kept, stats.near), (1, n as u64 - 1));
            assert!(stats.compared <= 2 * n as u64, "{} comparisons", stats.compared);
            assert_eq!(stats.capped_rows, 0);
        }
    }

    /// Long rows with large vocabularies and small: prefixes, places and bitmaps set nothing aside that is similar.
    #[test]
    fn the_join_finds_what_comparing_all_pairs_finds() {
        for (key, vocabulary, threshold) in [(0, 40, 0.5), (1, 400, 0.7), (2, 1 << 30, 0.7), (3, 400, 0.8), (4, 9, 0.9)]
        {
            let mut words = Stream::new(key, 0, 0).words(0);
            let mut rows: Vec<Vec<u32>> = vec![];
            for r in 0..160 {
                let mut row: Vec<u32> = (0..50 + words.below(150)).map(|_| words.below(vocabulary)).collect();
                if r % 4 > 0 {
                    row = rows[words.below(r) as usize].clone();
                    for _ in 0..words.below(1 + row.len() as u32 / 12) {
                        let at = words.below(row.len() as u32) as usize;
                        row[at] = words.below(vocabulary);
                    }
                    row.truncate(row.len().saturating_sub(words.below(20) as usize).max(1));
                }
                rows.push(row);
            }
            let ids: Vec<u64> = (0..rows.len() as u64).collect();
            let oracle = Oracle::new(&rows, &ids, &[], Keep::Longest, 2);
            for (closure, expected) in
                [(Closure::Leader, oracle.leader(threshold)), (Closure::Transitive, oracle.transitive(threshold))]
            {
                let params = Params { mode: Mode::Exact, ..params(threshold, 2, closure, Keep::Longest, key) };
                let outcome = near_rows(pack(&rows).view(), &ids, &[], &params).unwrap();
                assert_eq!(outcome.keeper, expected);
                assert!(outcome.stats.near > 10 && (outcome.stats.bands, outcome.stats.largest_bucket) == (0, 0));
            }
        }
    }

    /// Rows under the threshold that share buckets: the cap bounds the work, and the report says that it did.
    #[test]
    fn a_full_bucket_is_capped_and_reported() {
        let rows: Vec<Vec<u32>> =
            (0..300u32).map(|r| (0..30).map(|i| if i < 21 { i } else { 100 + 10 * r + i }).collect()).collect();
        let (rows, ids) = (pack(&rows), vec![0; 300]);
        for closure in [Closure::Leader, Closure::Transitive] {
            let open = Params { closure, ngram: 1, ..Params::default() };
            let capped = near_rows(rows.view(), &ids, &[], &Params { cap: 2, ..open }).unwrap();
            let open = near_rows(rows.view(), &ids, &[], &open).unwrap();
            assert_eq!((open.stats.capped_buckets, open.stats.capped_rows), (0, 0));
            assert!(capped.stats.capped_buckets > 0 && capped.stats.capped_rows >= capped.stats.capped_buckets);
            assert!(capped.stats.compared < open.stats.compared);
            assert_eq!((open.stats.kept, capped.stats.kept), (300, 300));
        }
    }

    #[test]
    fn bad_arguments_are_named() {
        let rows = pack(&[vec![1u32], vec![2]]);
        let near =
            |ids: &[u64], order: &[i64], params| near_rows(rows.view(), ids, order, &params).unwrap_err().to_string();
        assert_eq!(near(&[1], &[], Params::default()), "ids must hold one number a row (1 for 2 rows)");
        assert_eq!(near(&[1, 2], &[1, 2, 3], Params::default()), "order must hold one number a row (3 for 2 rows)");
        let message = near(&[1, 2], &[], Params { ngram: 33, ..Params::default() });
        assert_eq!(message, "ngram must lie in 1 to 32 (it is 33)");
        let mut texts = Deduper::texts(&Params::default(), TextUnit::Word, &Normalize::default()).unwrap();
        let message = texts.add_tokens(rows.view(), &[1, 2]).unwrap_err().to_string();
        assert_eq!(message, "this Deduper takes texts: it began with a TextBatch, or has a unit of texts");
        let mut tokens = Deduper::tokens(&Params::default()).unwrap();
        let message = tokens.add_texts(Ragged::new(b"a", &[0, 1]).unwrap(), &[1]).unwrap_err().to_string();
        assert_eq!(message, "this Deduper takes tokens: it began with a TokenBatch, or has unit 'token'");
        assert_eq!((texts.rows(), tokens.rows()), (0, 0));
    }

    #[test]
    fn texts_are_compared_by_words_or_characters() {
        let texts = [
            "The quick brown fox jumps over it",
            "the QUICK  brown\nfox jumps over it",
            "the quick brown fox jumps over us",
        ];
        let texts = pack(&texts.map(|text| text.as_bytes().to_vec()));
        let params = Params { threshold: 0.5, ngram: 2, ..Params::default() };
        let near = |unit| {
            let mut deduper = Deduper::texts(&params, unit, &Normalize::default()).unwrap();
            deduper.add_texts(texts.view(), &[1, 2, 3]).unwrap();
            deduper.result(&[]).unwrap()
        };
        let words = near(TextUnit::Word);
        assert_eq!(words.keeper, [0, 0, 0]);
        assert_eq!(words.similarity, [1.0, 1.0, 5.0 / 7.0]);
        assert_eq!((words.stats.exact, words.stats.near), (1, 1));
        let chars = near(TextUnit::Char);
        assert_eq!(chars.keeper, [0, 0, 0]);
        assert_eq!(chars.similarity[1], 1.0);
    }
}
