//! Sketches: one-permutation MinHash with optimal densification.
//!
//! Each shingle falls into one slot and the slot keeps its least value (Li, Owen and Zhang, "One permutation hashing",
//! 2012), so a shingle costs one hash however many slots there are. A slot that nothing fell into copies the first
//! filled slot of its own random order of slots (Shrivastava, "Optimal densification for fast and accurate minwise
//! hashing", 2017). Two sets then agree in a slot with probability equal to their Jaccard similarity.

use super::shingle::{Shingler, Unit};
use crate::rng::{Domain, Stream, op_key};
use crate::simd::{Level, multiversion};

/// The largest sketch: a slot index fits a byte.
pub const MAX_SLOTS: usize = 256;

const EMPTY: u32 = u32::MAX;

/// Makes sketches of one size from one seed.
#[derive(Debug, Clone)]
pub struct Sketcher {
    /// What the sketches are of.
    pub shingler: Shingler,
    slots: usize,
    /// How loops over its sketches run.
    pub level: Level,
    /// `tries[a * slots + i]`: the slot that empty slot `i` tries in its attempt `a`.
    tries: Vec<u8>,
    /// `rank[j * slots + i]`: the attempt in which slot `i` tries slot `j`, times 256, plus `j`.
    rank: Vec<u16>,
}

impl Sketcher {
    /// Sketches of `slots` slots over the shingles of `shingler`; the orders of slots are draws of `seed`.
    pub fn new(shingler: Shingler, slots: usize, seed: u64, level: Level) -> Self {
        debug_assert!((1..=MAX_SLOTS).contains(&slots));
        let key = op_key(Domain::Dedup, seed, "densify", slots as u64);
        let (mut tries, mut rank) = (vec![0; slots * slots], vec![0; slots * slots]);
        for i in 0..slots {
            let mut words = Stream::new(key, 0, i as u64).words(0);
            let mut order: Vec<u8> = (0..=(slots - 1) as u8).collect();
            for a in (1..slots).rev() {
                order.swap(a, words.below(a as u32 + 1) as usize);
            }
            for (a, j) in order.into_iter().enumerate() {
                tries[a * slots + i] = j;
                rank[usize::from(j) * slots + i] = (a as u16) << 8 | u16::from(j);
            }
        }
        Sketcher { shingler, slots, level, tries, rank }
    }

    /// Writes the sketch of `row`, which has at least one shingle, into `out[..slots]`.
    ///
    /// Cost: one pass over the row; a row with few shingles pays up to `slots^2` vectorised steps more.
    pub fn sketch<T: Unit>(&self, row: &[T], out: &mut [u32; MAX_SLOTS]) {
        debug_assert!(self.shingler.count(row.len()) > 0);
        out.fill(EMPTY);
        let slots = self.slots as u64;
        self.shingler.for_each_block(row, |keys| {
            for &key in keys {
                let slot = &mut out[(((key >> 32) * slots) >> 32) as usize % MAX_SLOTS];
                *slot = (*slot).min(key as u32 >> 1);
            }
        });
        self.densify(&mut out[..self.slots]);
    }

    fn densify(&self, sketch: &mut [u32]) {
        let slots = self.slots;
        let mut holes = [0u64; MAX_SLOTS / 64];
        empty(self.level, sketch, &mut holes);
        let missing = holes.iter().map(|word| word.count_ones() as usize).sum::<usize>();
        let count = slots - missing;
        if missing * slots < 4 * count * count {
            // Few empty slots: a try rarely fails. Values are copied always, and again where a try failed.
            let mut left = [0u8; MAX_SLOTS];
            for (left, slot) in left.iter_mut().zip(ones(holes)) {
                *left = slot as u8;
            }
            let mut missing = missing;
            for tries in self.tries.chunks_exact(slots) {
                let mut failed = 0;
                for k in 0..missing {
                    let slot = left[k];
                    let other = usize::from(tries[usize::from(slot)]);
                    sketch[usize::from(slot)] = sketch[other];
                    left[failed] = slot;
                    failed += (holes[other / 64] >> (other % 64) & 1) as usize;
                }
                missing = failed;
                if missing == 0 {
                    return;
                }
            }
            return;
        }
        // Many: the filled slot of the lowest rank, which is in the low byte, for all slots at once.
        let mut source = [u16::MAX; MAX_SLOTS];
        let source = &mut source[..slots];
        for slot in ones(holes.map(|word| !word)).take(count) {
            least(self.level, source, &self.rank[slot * slots..][..slots]);
        }
        for slot in ones(holes) {
            sketch[slot] = sketch[usize::from(source[slot] as u8)];
        }
    }
}

/// The numbers of the bits that are set.
fn ones(words: [u64; MAX_SLOTS / 64]) -> impl Iterator<Item = usize> {
    words.into_iter().enumerate().flat_map(|(w, word)| {
        std::iter::successors((word != 0).then_some(word), |&left| Some(left & (left - 1)).filter(|&left| left != 0))
            .map(move |left| w * 64 + left.trailing_zeros() as usize)
    })
}

multiversion! {
    /// A bit for each slot that is empty.
    fn empty(sketch: &[u32], holes: &mut [u64; MAX_SLOTS / 64]) = empty_body
}

#[inline(always)]
fn empty_body(sketch: &[u32], holes: &mut [u64; MAX_SLOTS / 64]) {
    for (word, slots) in holes.iter_mut().zip(sketch.chunks(64)) {
        let mut some = [0u32; 64];
        some[..slots.len()].copy_from_slice(slots);
        *word = some.iter().enumerate().fold(0, |word, (i, &slot)| word | u64::from(slot == EMPTY) << i);
    }
}

multiversion! { fn least(best: &mut [u16], other: &[u16]) = least_body }

#[inline(always)]
fn least_body(best: &mut [u16], other: &[u16]) {
    for (best, &other) in best.iter_mut().zip(other) {
        *best = (*best).min(other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::mix;
    use proptest::prelude::*;

    fn sketch(row: &[u32], slots: usize, seed: u64, level: Level) -> Vec<u32> {
        let mut out = [0; MAX_SLOTS];
        Sketcher::new(Shingler::new(2, seed, level), slots, seed, level).sketch(row, &mut out);
        out[..slots].to_vec()
    }

    proptest! {
        /// The definition, slot by slot: the least value of the shingles of the first filled slot that it tries.
        #[test]
        fn sketches_follow_the_definition_on_every_level(row in prop::collection::vec(0u32..50, 2..300), slots in 1usize..=256, seed: u64) {
            let level = Level::available().next().unwrap();
            let sketcher = Sketcher::new(Shingler::new(2, seed, level), slots, seed, level);
            let mut least = vec![None; slots];
            sketcher.shingler.for_each_block(&row, |keys| {
                for &key in keys {
                    let slot: &mut Option<u32> = &mut least[(((key >> 32) * slots as u64) >> 32) as usize];
                    let value = key as u32 >> 1;
                    *slot = Some(slot.map_or(value, |v| v.min(value)));
                }
            });
            let expected: Vec<u32> = (0..slots)
                .map(|i| least[i].unwrap_or_else(|| {
                    sketcher.tries.chunks(slots).find_map(|tries| least[usize::from(tries[i])]).unwrap()
                }))
                .collect();
            for level in Level::available() {
                prop_assert_eq!(&sketch(&row, slots, seed, level), &expected);
            }
        }
    }

    #[test]
    fn every_slot_tries_every_other_once() {
        let level = Level::available().next().unwrap();
        let sketcher = Sketcher::new(Shingler::new(5, 3, level), 100, 3, level);
        for i in 0..100 {
            let mut sorted: Vec<u8> = sketcher.tries.chunks(100).map(|tries| tries[i]).collect();
            sorted.sort_unstable();
            assert!(sorted.into_iter().eq(0..100));
        }
    }

    /// The share of agreeing slots estimates Jaccard without bias, also where most slots are copies.
    #[test]
    fn slots_agree_as_often_as_the_sets_do() {
        for (common, own) in [(8u64, 1u64), (40, 5), (80, 10), (400, 50)] {
            let (mut agree, mut seen) = (0usize, 0usize);
            for trial in 0..400u64 {
                // Shingles of one unit, so that the row is the set.
                let row = |who: u64| -> Vec<u64> {
                    let own = (0..own).map(|i| mix(trial << 40 | who << 32 | i));
                    (0..common).map(|i| mix(trial << 40 | i)).chain(own).collect()
                };
                let level = crate::simd::level();
                let sketcher = Sketcher::new(Shingler::new(1, trial, level), 128, trial, level);
                let (mut a, mut b) = ([0; MAX_SLOTS], [0; MAX_SLOTS]);
                sketcher.sketch(&row(1), &mut a);
                sketcher.sketch(&row(2), &mut b);
                agree += (0..128).filter(|&i| a[i] == b[i]).count();
                seen += 128;
            }
            let jaccard = common as f64 / (common + 2 * own) as f64;
            let share = agree as f64 / seen as f64;
            assert!((share - jaccard).abs() < 0.015, "{common} common, {own} own: {share} against {jaccard}");
        }
    }
}
