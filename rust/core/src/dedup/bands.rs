//! Bands: which pairs of sketches are worth comparing.
//!
//! A sketch is cut into bands of a few slots; two rows are candidates if some band agrees in all its slots, which
//! happens with probability `1 - (1 - J^slots)^bands`. Rows that share a band share a bucket.

use super::components::for_each_shared;
use super::shingle::Unit;
use super::sketch::{MAX_SLOTS, Sketcher};
use crate::error::{Error, Result};
use crate::par::{map_rows, map_tasks};
use crate::rng::mix;
use crate::simd::multiversion;

const GRAIN: usize = 1 << 16;

/// In [`Buckets`], the bucket of a row whose band nobody shares.
const NONE: u32 = u32::MAX;

/// How the slots of a sketch are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Number of bands.
    pub bands: usize,
    /// Slots in a band.
    pub width: usize,
}

impl Layout {
    /// The widest bands, so the fewest false candidates, whose pairs at `threshold` meet with probability `recall`
    /// within 128 slots; within 256 if 128 cannot.
    ///
    /// The slots of short rows are not independent, so a quarter of the misses that `recall` allows is planned for.
    ///
    /// # Errors
    /// If a number is out of range, or 256 slots are too few.
    pub fn choose(threshold: f64, recall: f64) -> Result<Self> {
        if !(threshold > 0.0 && threshold <= 1.0) {
            return Err(Error::invalid(format!("threshold must lie in (0, 1] (it is {threshold})")));
        }
        if !(recall > 0.0 && recall < 1.0) {
            return Err(Error::invalid(format!("recall must lie in (0, 1) (it is {recall})")));
        }
        let allowed = (1.0 - recall) / 4.0;
        let fits = |slots: usize| (1..=slots).rev().find_map(|width| Self::fit(threshold, allowed, slots, width));
        fits(MAX_SLOTS / 2).or_else(|| fits(MAX_SLOTS)).ok_or_else(|| {
            Error::invalid(format!(
                "threshold {threshold} at recall {recall} needs more than {MAX_SLOTS} slots: raise the threshold or \
                 lower the recall"
            ))
        })
    }

    fn fit(threshold: f64, allowed: f64, slots: usize, width: usize) -> Option<Self> {
        // Repeated products, not powf: the layout must not depend on a maths library.
        let agree = (0..width).fold(1.0, |p, _| p * threshold);
        let mut miss = 1.0;
        (1..=slots / width).find_map(|bands| {
            miss *= 1.0 - agree;
            (miss <= allowed).then_some(Layout { bands, width })
        })
    }

    /// Slots of a sketch.
    pub fn slots(self) -> usize {
        self.bands * self.width
    }
}

/// Which rows share which bands. A bucket has at least two rows.
#[derive(Debug)]
pub struct Buckets {
    bands: usize,
    /// `of[row * bands + band]`, or [`NONE`].
    of: Vec<u32>,
    /// The first row that shares a bucket with a row, or [`NONE`].
    first: Vec<u32>,
    /// Bucket `b` is `members[starts[b]..starts[b + 1]]`, rows ascending.
    pub starts: Vec<usize>,
    /// Rows of all buckets.
    pub members: Vec<u32>,
}

impl Buckets {
    /// Sketches the rows `order`, which are all, in that order (`row(r)` has at least one shingle), and gathers the rows
    /// that share a band. Keeps four bytes a band of each row, and no sketch.
    pub fn build<'r, T: Unit + 'r>(
        sketcher: &Sketcher,
        layout: Layout,
        order: &[u32],
        row: impl Fn(usize) -> &'r [T] + Sync,
    ) -> Self {
        let Layout { bands, .. } = layout;
        let rows = order.len();
        let mut offsets = vec![0];
        offsets.extend(order.iter().scan(0, |at, &r| {
            *at += row(r as usize).len() as i64;
            Some(*at)
        }));
        let mut keys = vec![];
        band_keys(sketcher, layout, &offsets, |i| row(order[i] as usize), high, &mut keys);
        let shared = map_tasks(bands, |band| share(&keys[band * rows..][..rows], order));
        drop(keys);
        let total = shared.iter().map(|s| s.members.len()).sum();
        let (of, first) = (vec![NONE; rows * bands], vec![NONE; rows]);
        let mut buckets = Buckets { bands, of, first, starts: vec![0], members: Vec::with_capacity(total) };
        for (band, shared) in shared.into_iter().enumerate() {
            let base = buckets.members.len();
            for (bucket, ends) in shared.ends.iter().scan(0, |at, &end| Some((std::mem::replace(at, end), end))) {
                let id = buckets.starts.len() as u32 - 1;
                let members = &shared.members[bucket as usize..ends as usize];
                for &member in members {
                    buckets.of[member as usize * bands + band] = id;
                    let first = &mut buckets.first[member as usize];
                    *first = members[0].min(*first);
                }
                buckets.starts.push(base + ends as usize);
            }
            buckets.members.extend_from_slice(&shared.members);
        }
        buckets
    }

    /// The buckets of `row`, one a band where it shares one.
    #[inline]
    pub fn of(&self, row: usize) -> impl Iterator<Item = usize> + '_ {
        let bands = if self.first(row).is_some() { self.bands } else { 0 };
        let of = &self.of[row * self.bands..][..bands];
        of.iter().filter(|&&bucket| bucket != NONE).map(|&bucket| bucket as usize)
    }

    /// The first of all rows that share a bucket with `row`, which may be `row`; nothing if there is no bucket.
    #[inline]
    pub fn first(&self, row: usize) -> Option<u32> {
        Some(self.first[row]).filter(|&first| first != NONE)
    }

    /// Number of buckets.
    pub fn count(&self) -> usize {
        self.starts.len() - 1
    }

    /// Rows in the largest bucket.
    pub fn largest(&self) -> usize {
        self.starts.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
    }
}

/// Appends the keys of all bands of `rows` rows, band after band, to `out`; 0 for a row without a shingle.
///
/// Two rows may share a band only if they share its key, of which `part` is kept. `offsets` says where the rows lie if laid
/// end to end.
pub fn band_keys<'r, T: Unit + 'r, K: Copy + Default + Send>(
    sketcher: &Sketcher,
    layout: Layout,
    offsets: &[i64],
    row: impl Fn(usize) -> &'r [T] + Sync,
    part: impl Fn(u64) -> K + Sync,
    out: &mut Vec<K>,
) {
    let Layout { bands, width } = layout;
    let mut blocks = map_rows(offsets, GRAIN, |range| {
        let mut block = vec![K::default(); bands * range.len()];
        let (mut sketch, mut keys) = ([0; MAX_SLOTS], [0; MAX_SLOTS]);
        for r in range.clone().filter(|&r| sketcher.shingler.count(row(r).len()) > 0) {
            sketcher.sketch(row(r), &mut sketch);
            fold(sketcher.level, &sketch[..bands * width], &mut keys[..bands]);
            for (all, &key) in block.chunks_exact_mut(range.len()).zip(&keys[..bands]) {
                all[r - range.start] = part(key);
            }
        }
        block
    });
    if blocks.len() == 1 && out.is_empty() {
        *out = blocks.remove(0);
        return;
    }
    out.reserve(bands * (offsets.len() - 1));
    for band in 0..bands {
        for block in &blocks {
            let rows = block.len() / bands;
            out.extend_from_slice(&block[band * rows..][..rows]);
        }
    }
}

multiversion! {
    /// The keys of all bands. The slots of band `b` are `b`, `b + bands`, `b + 2 bands`, ..., so that bands are folded side
    /// by side.
    fn fold(slots: &[u32], keys: &mut [u64]) = fold_body
}

#[inline(always)]
fn fold_body(slots: &[u32], keys: &mut [u64]) {
    const FACTOR: u64 = 0x9E6C_63D0_876A_9A63;
    keys.fill(0);
    for slots in slots.chunks_exact(keys.len()) {
        for (key, &slot) in keys.iter_mut().zip(slots) {
            *key = (*key ^ u64::from(slot)).wrapping_mul(FACTOR) ^ *key >> 31;
        }
    }
    for key in keys {
        *key = mix(*key);
    }
}

/// What buckets go by: half a key. Rows that share only that are compared in vain.
pub fn high(key: u64) -> u32 {
    (key >> 32) as u32
}

struct Shared {
    members: Vec<u32>,
    ends: Vec<u32>,
}

/// The rows of one band, sorted by key and row, less those that share their key with nobody; row `rows[i]` has `keys[i]`.
fn share(keys: &[u32], rows: &[u32]) -> Shared {
    let mut shared = Shared { members: vec![], ends: vec![] };
    for_each_shared(
        keys,
        |i| rows[i],
        |pairs| {
            shared.members.extend(pairs.iter().map(|&pair| pair as u32));
            shared.ends.push(shared.members.len() as u32);
        },
    );
    shared
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dedup::shingle::Shingler;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn bands_follow_from_threshold_and_recall() {
        let choose = |t, r| Layout::choose(t, r).map(|l| (l.bands, l.width));
        assert_eq!(choose(0.8, 0.999).unwrap(), (21, 5));
        assert_eq!(choose(0.7, 0.999).unwrap(), (31, 4));
        assert_eq!(choose(1.0, 0.999).unwrap(), (1, 128));
        assert_eq!(choose(0.05, 0.999).unwrap().1, 1);
    }

    #[test]
    fn impossible_requests_are_refused() {
        let message = |t, r| Layout::choose(t, r).unwrap_err().to_string();
        assert_eq!(message(1.5, 0.9), "threshold must lie in (0, 1] (it is 1.5)");
        assert_eq!(message(0.0, 0.9), "threshold must lie in (0, 1] (it is 0)");
        assert_eq!(message(f64::NAN, 0.9), "threshold must lie in (0, 1] (it is NaN)");
        assert_eq!(message(0.5, 1.0), "recall must lie in (0, 1) (it is 1)");
        assert_eq!(
            message(0.01, 0.999),
            "threshold 0.01 at recall 0.999 needs more than 256 slots: raise the threshold or lower the recall"
        );
    }

    /// Misses at the threshold, also where nearly all slots are copies: why `choose` plans for a quarter of them.
    #[test]
    fn pairs_at_the_threshold_are_missed_as_rarely_as_promised() {
        const TRIALS: u64 = 20_000;
        let level = crate::simd::level();
        for (threshold, common, union) in [(0.8, 4, 5), (0.7, 7, 10)] {
            let layout = Layout::choose(threshold, 0.999).unwrap();
            for times in [1, 2, 4, 10, 50] {
                let (common, union) = (common * times, union * times);
                let mut missed = 0;
                let mut sketcher = Sketcher::new(Shingler::new(1, 0, level), layout.slots(), 0, level);
                for trial in 0..TRIALS {
                    if trial % 1000 == 0 {
                        sketcher = Sketcher::new(Shingler::new(1, trial, level), layout.slots(), trial, level);
                    }
                    let all: Vec<u64> = (0..union as u64).map(|i| mix(trial << 32 | i)).collect();
                    let (first, second) = all[common..].split_at((union - common) / 2);
                    let (mut a, mut b) = ([0; MAX_SLOTS], [0; MAX_SLOTS]);
                    sketcher.sketch(&[&all[..common], first].concat(), &mut a);
                    sketcher.sketch(&[&all[..common], second].concat(), &mut b);
                    let bands = |sketch: [u32; MAX_SLOTS]| {
                        let mut keys = vec![0; layout.bands];
                        fold(level, &sketch[..layout.slots()], &mut keys);
                        keys
                    };
                    let (a, b) = (bands(a), bands(b));
                    missed += u32::from(a.iter().zip(&b).all(|(a, b)| a != b));
                }
                let share = f64::from(missed) / TRIALS as f64;
                assert!(share <= 0.001, "threshold {threshold}, {common} of {union} shingles in common: {share}");
            }
        }
    }

    proptest! {
        #[test]
        fn buckets_are_those_of_comparing_all_sketches(
            rows in prop::collection::vec(prop::collection::vec(0u32..3, 3..9), 0..40), bands in 1usize..9, width in 1usize..4,
        ) {
            let level = crate::simd::level();
            let layout = Layout { bands, width };
            let sketcher = Sketcher::new(Shingler::new(2, 5, level), layout.slots(), 5, level);
            let mut order: Vec<u32> = (0..rows.len() as u32).collect();
            order.sort_by_key(|&r| mix(u64::from(r)));
            let buckets = Buckets::build(&sketcher, layout, &order, |r| &rows[r][..]);
            let mut expected = BTreeMap::<(usize, u32), Vec<u32>>::new();
            for (r, row) in rows.iter().enumerate() {
                let mut sketch = [0; MAX_SLOTS];
                sketcher.sketch(row, &mut sketch);
                for band in 0..bands {
                    let slots: Vec<u32> = sketch[..layout.slots()].iter().skip(band).step_by(bands).copied().collect();
                    let mut key = [0];
                    fold(level, &slots, &mut key);
                    expected.entry((band, high(key[0]))).or_default().push(r as u32);
                }
            }
            let expected: Vec<Vec<u32>> = expected.into_values().filter(|rows| rows.len() > 1).collect();
            let got: Vec<Vec<u32>> = buckets.starts.windows(2).map(|p| buckets.members[p[0]..p[1]].to_vec()).collect();
            prop_assert_eq!(&got, &expected);
            for r in 0..rows.len() {
                let mine: Vec<usize> = (0..expected.len()).filter(|&b| expected[b].contains(&(r as u32))).collect();
                prop_assert_eq!(buckets.first(r), mine.iter().map(|&b| expected[b][0]).min());
                prop_assert_eq!(buckets.of(r).collect::<Vec<_>>(), mine);
            }
        }
    }
}
