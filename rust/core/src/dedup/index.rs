//! Search: which stored rows are similar to given ones.
//!
//! A segment is rows with their keys in sorted runs, one run a band, so that the rows that share a key are found by search.
//! Segments are slices: whoever stores them may map them from a file. A row number that a damaged run holds is an
//! error, never a panic.

use std::ops::Range;

use super::bands::{band_keys, high};
use super::exact::Hashed;
use super::shingle::Unit;
use super::verify::{Verifier, jaccard};
use super::{Engine, NONE, Params, check_rows};
use crate::Ragged;
use crate::error::{Error, Result};
use crate::par::{map_rows, map_tasks};

const GRAIN: usize = 1 << 16;

/// The keys of rows, sorted: what a segment is searched by, and what it is searched for.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Keyed {
    /// Shingles in each row's set.
    pub sizes: Vec<u32>,
    /// Hashes of the contents of rows that have no shingle, ascending.
    pub short_keys: Vec<u64>,
    /// Their rows, ascending where hashes are equal.
    pub short_rows: Vec<u32>,
    /// For each band the keys of the rows that have a shingle, ascending, then their rows, ascending where keys are equal.
    pub runs: Vec<u32>,
}

/// Rows and their keys, as slices.
#[derive(Debug, Clone, Copy)]
pub struct Segment<'a, T> {
    rows: Ragged<'a, T>,
    sizes: &'a [u32],
    short: Run<'a, u64>,
    runs: &'a [u32],
    bands: usize,
    /// A byte that is not 0 for each row that is gone, or nothing.
    removed: &'a [u8],
}

/// Keys, ascending, and their rows.
#[derive(Debug, Clone, Copy)]
struct Run<'a, K> {
    keys: &'a [K],
    rows: &'a [u32],
}

/// Which rows are similar: row `left[i]` of one segment and row `right[i]` of another.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Matches {
    /// Ascending.
    pub left: Vec<u32>,
    /// Ascending where `left` is equal.
    pub right: Vec<u32>,
    /// Exact Jaccard similarity.
    pub similarity: Vec<f32>,
}

/// Sorts the keys of rows. Cost: two passes over the units, and a sort a band.
///
/// # Errors
/// If a parameter is out of range, or a row is too long.
pub fn keyed<T: Unit + Hashed>(rows: Ragged<'_, T>, params: &Params) -> Result<Keyed> {
    check_rows(rows)?;
    let engine = Engine::new(params)?;
    let shingler = &engine.sketcher.shingler;
    let (short, shingled): (Vec<u32>, Vec<u32>) =
        (0..rows.rows() as u32).partition(|&r| shingler.count(rows.row(r as usize).len()) == 0);
    let mut hashes: Vec<(u64, u32)> =
        short.into_iter().map(|r| (T::hash(engine.level, rows.row(r as usize)), r)).collect();
    hashes.sort_unstable();
    let sizes = map_rows(rows.offsets(), GRAIN, |range| {
        let mut verifier = Verifier::new(shingler);
        range.map(|r| verifier.load(rows.row(r))).collect::<Vec<_>>()
    })
    .concat();
    let mut keys = vec![];
    band_keys(&engine.sketcher, engine.layout, rows.offsets(), |r| rows.row(r), high, &mut keys);
    let runs = map_tasks(engine.layout.bands, |band| {
        let keys = &keys[band * rows.rows()..];
        let mut pairs: Vec<u64> = shingled.iter().map(|&r| u64::from(keys[r as usize]) << 32 | u64::from(r)).collect();
        pairs.sort_unstable();
        split(&pairs)
    })
    .concat();
    let (short_keys, short_rows) = hashes.into_iter().unzip();
    Ok(Keyed { sizes, short_keys, short_rows, runs })
}

/// The keys, then the rows.
fn split(pairs: &[u64]) -> Vec<u32> {
    pairs.iter().map(|&pair| high(pair)).chain(pairs.iter().map(|&pair| pair as u32)).collect()
}

impl<'a, T> Segment<'a, T> {
    /// Rows with their keys. `removed` has a byte a row, or none.
    ///
    /// # Errors
    /// If the lengths do not fit one another.
    pub fn new(
        rows: Ragged<'a, T>,
        sizes: &'a [u32],
        (short_keys, short_rows): (&'a [u64], &'a [u32]),
        runs: &'a [u32],
        removed: &'a [u8],
        params: &Params,
    ) -> Result<Self> {
        let (n, bands) = (rows.rows(), params.bands()?);
        check_rows(rows)?;
        let fits = sizes.len() == n
            && short_keys.len() == short_rows.len()
            && short_keys.len() <= n
            && runs.len() == 2 * bands * (n - short_keys.len())
            && (removed.is_empty() || removed.len() == n);
        if !fits {
            return Err(Error::invalid(format!("the parts of a segment of {n} rows do not fit one another")));
        }
        Ok(Segment { rows, sizes, short: Run { keys: short_keys, rows: short_rows }, runs, bands, removed })
    }

    fn run(&self, band: usize) -> Run<'a, u32> {
        let count = self.runs.len() / (2 * self.bands);
        let (keys, rows) = self.runs[2 * band * count..][..2 * count].split_at(count);
        Run { keys, rows }
    }

    fn stays(&self, row: u32) -> bool {
        self.removed.get(row as usize).is_none_or(|&gone| gone == 0)
    }

    /// Where the rows of `mine` have keys of `self`, by row.
    fn hits(&self, mine: &Segment<'_, T>) -> Vec<Hit>
    where
        T: Sync,
    {
        let mut hits = map_tasks(self.bands + 1, |band| {
            let mut hits = vec![];
            let mut push = |row, range: Range<usize>| hits.push(Hit { row, band: band as u32, range });
            if band < self.bands {
                mine.run(band).meet(&self.run(band), &mut push);
            } else {
                mine.short.meet(&self.short, &mut push);
            }
            hits
        })
        .concat();
        hits.sort_unstable_by_key(|hit| (hit.row, hit.band));
        hits
    }

    /// The rows of a hit, ascending.
    fn found(&self, hit: &Hit) -> &'a [u32] {
        let run = if (hit.band as usize) < self.bands { self.run(hit.band as usize).rows } else { self.short.rows };
        &run[hit.range.clone()]
    }
}

/// A row whose key of a band is that of some rows.
#[derive(Debug, Clone)]
struct Hit {
    row: u32,
    band: u32,
    range: Range<usize>,
}

/// Keys that are spread evenly, or not.
trait Key: Copy + Ord {
    /// Its place among `n` keys that are spread evenly.
    fn place(self, n: usize) -> usize;
}

impl Key for u32 {
    fn place(self, n: usize) -> usize {
        (self as usize * n) >> 32
    }
}

impl Key for u64 {
    fn place(self, n: usize) -> usize {
        ((u128::from(self) * n as u128) >> 64) as usize
    }
}

impl<K: Key> Run<'_, K> {
    /// Calls `visit` with each row of `self` whose key `other` has, and where.
    fn meet(&self, other: &Run<'_, K>, mut visit: impl FnMut(u32, Range<usize>)) {
        /// Runs of about one length are walked side by side; a short one is looked up in a long one.
        const DENSE: usize = 16;
        let dense = self.keys.len() * DENSE > other.keys.len();
        let mut range = 0..0;
        let mut last = None;
        for (&key, &row) in self.keys.iter().zip(self.rows) {
            if last.replace(key) != Some(key) {
                let guess = if dense { range.end } else { key.place(other.keys.len()) };
                let start = lower_bound(other.keys, guess, |k| k < key);
                let end = if other.keys.get(start) == Some(&key) {
                    lower_bound(other.keys, start, |k| k <= key)
                } else {
                    start
                };
                range = start..end;
            }
            if !range.is_empty() {
                visit(row, range.clone());
            }
        }
    }
}

/// How many keys come before, looked for from `guess` on in steps that double.
fn lower_bound<K: Copy>(keys: &[K], guess: usize, before: impl Fn(K) -> bool) -> usize {
    let guess = guess.min(keys.len());
    let (mut low, mut high, mut step) = (guess, guess, 1);
    if keys.get(guess).is_some_and(|&key| before(key)) {
        while high < keys.len() && before(keys[high]) {
            low = high + 1;
            high = keys.len().min(high + step);
            step *= 2;
        }
    } else {
        while low > 0 && !before(keys[low - 1]) {
            high = low - 1;
            low = low.saturating_sub(step);
            step *= 2;
        }
    }
    low + keys[low..high.max(low)].partition_point(|&key| before(key))
}

/// Compares rows of two segments.
struct Judge<'j, 'a, T> {
    left: &'j Segment<'a, T>,
    right: &'j Segment<'a, T>,
    verifier: Verifier<'j>,
    loaded: u32,
    threshold: f64,
}

impl<'j, 'a, T: Unit> Judge<'j, 'a, T> {
    fn new(engine: &'j Engine, left: &'j Segment<'a, T>, right: &'j Segment<'a, T>) -> Self {
        let verifier = Verifier::new(&engine.sketcher.shingler);
        Judge { left, right, verifier, loaded: NONE, threshold: engine.params.threshold }
    }

    /// The similarity of row `l` with row `r` if it reaches the threshold. Cheapest where `l` repeats.
    fn similar(&mut self, l: u32, r: u32) -> Result<Option<f64>> {
        let Some(&its) = self.right.sizes.get(r as usize) else {
            return Err(Error::invalid(format!("a segment of {} rows has no row {r}", self.right.sizes.len())));
        };
        let (mine, other) = (self.left.rows.row(l as usize), self.right.rows.row(r as usize));
        let size = self.left.sizes[l as usize];
        if size == 0 || its == 0 {
            return Ok((mine == other).then_some(1.0));
        }
        // The best that sets of these sizes can do.
        if jaccard(size, its, size.min(its)) < self.threshold {
            return Ok(None);
        }
        if self.loaded != l {
            self.verifier.load(mine);
            self.loaded = l;
        }
        let similarity = jaccard(size, its, self.verifier.common(other));
        Ok((similarity >= self.threshold).then_some(similarity))
    }
}

/// Every row of `left` with every row of `right` that shares a key with it and is similar; rows that are gone have none.
///
/// # Errors
/// If a parameter is out of range, or a run holds the number of a row that is not there.
pub fn matches<T: Unit + Hashed>(left: &Segment<'_, T>, right: &Segment<'_, T>, params: &Params) -> Result<Matches> {
    let engine = Engine::new(params)?;
    let hits = right.hits(left);
    each_row(left, &hits, |range, hits| {
        let mut judge = Judge::new(&engine, left, right);
        let mut found = Matches::default();
        let mut candidates = vec![];
        for mine in rows_of(left, range, hits) {
            candidates.clear();
            mine.iter().for_each(|hit| candidates.extend_from_slice(right.found(hit)));
            // Sorted runs end to end, which this sort merges.
            candidates.sort();
            candidates.dedup();
            let row = mine[0].row;
            for &other in candidates.iter().filter(|&&other| right.stays(other)) {
                if let Some(similarity) = judge.similar(row, other)? {
                    found.left.push(row);
                    found.right.push(other);
                    found.similarity.push(similarity as f32);
                }
            }
        }
        Ok(found)
    })
}

/// For each row of `left` that has one, the first row of `right` that shares a key with it and is similar.
///
/// With `earlier`, both are one segment, and only rows before a row are looked at. Of the rows that have a row's key
/// of a band only the first [`Params::cap`] are compared with it.
///
/// # Errors
/// As [`matches()`].
pub fn first_matches<T: Unit + Hashed>(
    left: &Segment<'_, T>,
    right: &Segment<'_, T>,
    earlier: bool,
    params: &Params,
) -> Result<Matches> {
    let engine = Engine::new(params)?;
    let hits = right.hits(left);
    each_row(left, &hits, |range, hits| {
        let mut judge = Judge::new(&engine, left, right);
        let mut found = Matches::default();
        let mut heads: Vec<&[u32]> = vec![];
        for mine in rows_of(left, range, hits) {
            let row = mine[0].row;
            heads.clear();
            heads.extend(mine.iter().map(|hit| right.found(hit)).map(|rows| &rows[..rows.len().min(params.cap)]));
            while let Some(&next) = heads.iter().filter_map(|head| head.first()).min() {
                if earlier && next >= row {
                    break;
                }
                heads.iter_mut().for_each(|head| *head = &head[usize::from(head.first() == Some(&next))..]);
                if !right.stays(next) {
                    continue;
                }
                if let Some(similarity) = judge.similar(row, next)? {
                    found.left.push(row);
                    found.right.push(next);
                    found.similarity.push(similarity as f32);
                    break;
                }
            }
        }
        Ok(found)
    })
}

/// What `work` finds in ranges of rows, told hits that contain theirs.
fn each_row<T: Sync>(
    left: &Segment<'_, T>,
    hits: &[Hit],
    work: impl Fn(Range<usize>, &[Hit]) -> Result<Matches> + Sync,
) -> Result<Matches> {
    let mut all = Matches::default();
    for part in map_rows(left.rows.offsets(), GRAIN, |range| work(range, hits)) {
        let part = part?;
        all.left.extend(part.left);
        all.right.extend(part.right);
        all.similarity.extend(part.similarity);
    }
    Ok(all)
}

/// The hits of each row of a range that has any, and is not gone.
fn rows_of<'h, T>(left: &'h Segment<'_, T>, range: Range<usize>, hits: &'h [Hit]) -> impl Iterator<Item = &'h [Hit]> {
    let at = |row: usize| hits.partition_point(|hit| (hit.row as usize) < row);
    let hits = &hits[at(range.start)..at(range.end)];
    hits.chunk_by(|a, b| a.row == b.row).filter(|mine| left.stays(mine[0].row))
}

/// For each segment the new number of each row, where they are laid end to end without the rows that are gone.
fn renumbered<T>(segments: &[Segment<'_, T>]) -> Vec<Vec<u32>> {
    let mut next = 0;
    let mut numbers = vec![];
    for segment in segments {
        let mut number = |row| {
            let stays = segment.stays(row);
            next += u32::from(stays);
            if stays { next - 1 } else { NONE }
        };
        numbers.push((0..segment.rows.rows() as u32).map(&mut number).collect());
    }
    numbers
}

/// The run of one band of segments laid end to end, without the rows that are gone: the keys, then the rows.
///
/// # Errors
/// If there is no such band, or a run holds the number of a row that is not there.
pub fn merge_run<T>(segments: &[Segment<'_, T>], band: usize) -> Result<Vec<u32>> {
    if let Some(segment) = segments.iter().find(|segment| band >= segment.bands) {
        return Err(Error::invalid(format!("band must lie below {} (it is {band})", segment.bands)));
    }
    let mut pairs = vec![];
    for (segment, numbers) in segments.iter().zip(renumbered(segments)) {
        let run = segment.run(band);
        for (&key, &row) in run.keys.iter().zip(run.rows) {
            let new = number_of(&numbers, row)?;
            if new != NONE {
                pairs.push(u64::from(key) << 32 | u64::from(new));
            }
        }
    }
    // Sorted runs end to end, which this sort merges.
    pairs.sort();
    Ok(split(&pairs))
}

/// As [`merge_run`], for the rows that have no shingle.
///
/// # Errors
/// If a run holds the number of a row that is not there.
pub fn merge_short<T>(segments: &[Segment<'_, T>]) -> Result<(Vec<u64>, Vec<u32>)> {
    let mut pairs = vec![];
    for (segment, numbers) in segments.iter().zip(renumbered(segments)) {
        for (&key, &row) in segment.short.keys.iter().zip(segment.short.rows) {
            let new = number_of(&numbers, row)?;
            if new != NONE {
                pairs.push((key, new));
            }
        }
    }
    pairs.sort();
    Ok(pairs.into_iter().unzip())
}

fn number_of(numbers: &[u32], row: u32) -> Result<u32> {
    let missing = || Error::invalid(format!("a segment of {} rows has no row {row}", numbers.len()));
    numbers.get(row as usize).copied().ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RaggedBuf;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn pack(rows: &[Vec<u32>]) -> RaggedBuf<u32> {
        let mut buf = RaggedBuf::default();
        for row in rows {
            buf.values.extend_from_slice(row);
            buf.end_row();
        }
        buf
    }

    fn segment<'a>(rows: &'a RaggedBuf<u32>, keyed: &'a Keyed, removed: &'a [u8], params: &Params) -> Segment<'a, u32> {
        let short = (&keyed.short_keys[..], &keyed.short_rows[..]);
        Segment::new(rows.view(), &keyed.sizes, short, &keyed.runs, removed, params).unwrap()
    }

    fn similarity(a: &[u32], b: &[u32], ngram: usize) -> f64 {
        let set = |row: &[u32]| row.windows(ngram).map(<[u32]>::to_vec).collect::<BTreeSet<_>>();
        let (a_set, b_set) = (set(a), set(b));
        if a_set.is_empty() || b_set.is_empty() {
            return f64::from(u8::from(a == b));
        }
        a_set.intersection(&b_set).count() as f64 / a_set.union(&b_set).count() as f64
    }

    /// A recall at which no pair of these small sets is missed.
    const SURE: Params = Params {
        threshold: 0.5,
        ngram: 2,
        mode: crate::dedup::Mode::Lsh,
        recall: 0.999_999,
        closure: crate::dedup::Closure::Leader,
        keep: crate::dedup::Keep::First,
        seed: 0,
        cap: 1000,
    };

    #[test]
    fn a_bound_is_found_from_any_guess() {
        let keys = [1u32, 1, 4, 4, 4, 9];
        for guess in 0..10 {
            for key in 0..11 {
                let expected = keys.iter().filter(|&&k| k < key).count();
                assert_eq!(lower_bound(&keys, guess, |k| k < key), expected, "{key} from {guess}");
            }
        }
        assert_eq!(lower_bound(&[] as &[u32], 3, |_| true), 0);
    }

    #[test]
    fn a_run_with_a_foreign_row_is_refused() {
        let rows = pack(&[vec![1, 2, 3], vec![4, 5, 6]]);
        let mut broken = keyed(rows.view(), &SURE).unwrap();
        let half = broken.runs.len() / 2 / SURE.bands().unwrap();
        for pair in broken.runs.chunks_mut(2 * half) {
            pair[half..].fill(7);
        }
        let good = keyed(rows.view(), &SURE).unwrap();
        let (left, right) = (segment(&rows, &good, &[], &SURE), segment(&rows, &broken, &[], &SURE));
        let message = "a segment of 2 rows has no row 7";
        assert_eq!(matches(&left, &right, &SURE).unwrap_err().to_string(), message);
        assert_eq!(first_matches(&left, &right, false, &SURE).unwrap_err().to_string(), message);
        assert_eq!(merge_run(&[right], 0).unwrap_err().to_string(), message);
        assert_eq!(
            merge_run(&[right], 999).unwrap_err().to_string(),
            format!("band must lie below {} (it is 999)", SURE.bands().unwrap())
        );
        let short = (&[][..], &[][..]);
        let message = "the parts of a segment of 2 rows do not fit one another";
        let made = Segment::new(rows.view(), &good.sizes[1..], short, &good.runs, &[], &SURE);
        assert_eq!(made.unwrap_err().to_string(), message);
    }

    proptest! {
        #[test]
        fn matches_are_those_of_comparing_all_pairs(
            left in prop::collection::vec((prop::collection::vec(0u32..3, 0..7), any::<bool>()), 0..14),
            right in prop::collection::vec((prop::collection::vec(0u32..3, 0..7), any::<bool>()), 0..14),
        ) {
            let flags = |rows: Vec<(Vec<u32>, bool)>| -> (Vec<_>, Vec<_>) {
                rows.into_iter().map(|(row, gone)| (row, u8::from(gone))).unzip()
            };
            let ((left, left_gone), (right, removed)) = (flags(left), flags(right));
            let (a, b) = (pack(&left), pack(&right));
            let (a_keys, b_keys) = (keyed(a.view(), &SURE).unwrap(), keyed(b.view(), &SURE).unwrap());
            let (a, b) = (segment(&a, &a_keys, &left_gone, &SURE), segment(&b, &b_keys, &removed, &SURE));
            let mut expected = Matches::default();
            let mut firsts = Matches::default();
            for (l, row) in left.iter().enumerate() {
                let mut first = true;
                for (r, other) in right.iter().enumerate() {
                    let found = similarity(row, other, 2);
                    if found >= 0.5 && left_gone[l] + removed[r] == 0 {
                        for all in [Some(&mut expected), first.then_some(&mut firsts)].into_iter().flatten() {
                            all.left.push(l as u32);
                            all.right.push(r as u32);
                            all.similarity.push(found as f32);
                        }
                        first = false;
                    }
                }
            }
            prop_assert_eq!(matches(&a, &b, &SURE).unwrap(), expected);
            prop_assert_eq!(first_matches(&a, &b, false, &SURE).unwrap(), firsts);
        }

        #[test]
        fn earlier_rows_are_those_before(rows in prop::collection::vec(prop::collection::vec(0u32..3, 0..7), 0..14)) {
            let buf = pack(&rows);
            let keys = keyed(buf.view(), &SURE).unwrap();
            let all = segment(&buf, &keys, &[], &SURE);
            let expected: Vec<(u32, u32)> = (0..rows.len())
                .filter_map(|r| Some((r as u32, (0..r).find(|&o| similarity(&rows[r], &rows[o], 2) >= 0.5)? as u32)))
                .collect();
            let found = first_matches(&all, &all, true, &SURE).unwrap();
            prop_assert_eq!(found.left.into_iter().zip(found.right).collect::<Vec<_>>(), expected);
        }

        #[test]
        fn merged_segments_are_that_of_the_rows_that_stay(
            parts in prop::collection::vec(prop::collection::vec((prop::collection::vec(0u32..3, 0..5), any::<bool>()), 0..6), 1..4),
        ) {
            let bufs: Vec<_> = parts
                .iter()
                .map(|part| {
                    let rows = pack(&part.iter().map(|(row, _)| row.clone()).collect::<Vec<_>>());
                    let keys = keyed(rows.view(), &SURE).unwrap();
                    (rows, keys, part.iter().map(|&(_, gone)| u8::from(gone)).collect::<Vec<_>>())
                })
                .collect();
            let segments: Vec<_> = bufs.iter().map(|(rows, keys, gone)| segment(rows, keys, gone, &SURE)).collect();
            let stay: Vec<_> = parts.into_iter().flatten().filter(|(_, gone)| !gone).map(|(row, _)| row).collect();
            let expected = keyed(pack(&stay).view(), &SURE).unwrap();
            let runs: Vec<u32> =
                (0..SURE.bands().unwrap()).flat_map(|band| merge_run(&segments, band).unwrap()).collect();
            prop_assert_eq!(runs, expected.runs);
            prop_assert_eq!(merge_short(&segments).unwrap(), (expected.short_keys, expected.short_rows));
        }
    }
}
