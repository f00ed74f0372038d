//! Shingles: every run of `n` units of a row, as one 64-bit key.
//!
//! `key = mix(m[0] u[i] + ... + m[n-1] u[i+n-1] mod 2^64)` with random odd multipliers (multilinear hashing; Lemire and
//! Kaser, "Strongly universal string hashing is fast", 2014). There is no rolling dependency, so a block of shingles
//! is hashed in vector registers, and shingles that differ in one unit never share a key.

use crate::rng::{Domain, Stream, mix, op_key};
use crate::simd::{Level, multiversion};

/// The longest shingle.
pub const MAX_NGRAM: usize = 32;

/// How many keys are made at a time.
const BLOCK: usize = 256;

/// What documents are made of: token ids and code points are `u32`, words are 64-bit hashes.
pub trait Unit: Copy + Eq + Send + Sync + std::fmt::Debug {
    /// The unit as a number.
    fn wide(self) -> u64;
    /// Writes the keys of the shingles that start at `units[0]`, `units[1]`, ...; `out.len() + n - 1 <= units.len()`.
    fn keys(level: Level, units: &[Self], multipliers: &[u64], out: &mut [u64]);
}

impl Unit for u32 {
    #[inline(always)]
    fn wide(self) -> u64 {
        u64::from(self)
    }

    fn keys(level: Level, units: &[u32], multipliers: &[u64], out: &mut [u64]) {
        keys_u32(level, units, multipliers, out);
    }
}

impl Unit for u64 {
    #[inline(always)]
    fn wide(self) -> u64 {
        self
    }

    fn keys(level: Level, units: &[u64], multipliers: &[u64], out: &mut [u64]) {
        keys_u64(level, units, multipliers, out);
    }
}

multiversion! { fn keys_u32(units: &[u32], multipliers: &[u64], out: &mut [u64]) = keys_body }
multiversion! { fn keys_u64(units: &[u64], multipliers: &[u64], out: &mut [u64]) = keys_body }

#[inline(always)]
fn keys_body<T: Unit>(units: &[T], multipliers: &[u64], out: &mut [u64]) {
    // The usual lengths, known to the compiler.
    if let Ok(five) = <&[u64; 5]>::try_from(multipliers) {
        keys_of(units, five, out);
    } else if let Ok(three) = <&[u64; 3]>::try_from(multipliers) {
        keys_of(units, three, out);
    } else if let Ok(thirteen) = <&[u64; 13]>::try_from(multipliers) {
        keys_of(units, thirteen, out);
    } else {
        keys_of(units, multipliers, out);
    }
}

#[inline(always)]
fn keys_of<T: Unit>(units: &[T], multipliers: &[u64], out: &mut [u64]) {
    let n = out.len();
    let (wide, rest) = out.as_chunks_mut::<WIDE>();
    for (i, keys) in wide.iter_mut().enumerate() {
        *keys = some_keys(&units[i * WIDE..], multipliers);
    }
    let rest = rest.len();
    match out.last_chunk_mut() {
        // Some of them for the second time.
        Some(last) if rest > 0 => *last = some_keys(&units[n - WIDE..], multipliers),
        Some(_) => {}
        None => {
            for (key, units) in out.iter_mut().zip(units.windows(multipliers.len())) {
                let sum =
                    units.iter().zip(multipliers).fold(0u64, |h, (u, &m)| h.wrapping_add(m.wrapping_mul(u.wide())));
                *key = mix(sum);
            }
        }
    }
}

/// Keys that are made side by side: a register of AVX-512.
const WIDE: usize = 8;

#[inline(always)]
fn some_keys<T: Unit>(units: &[T], multipliers: &[u64]) -> [u64; WIDE] {
    let units = &units[..multipliers.len() + WIDE - 1];
    let mut keys = [0u64; WIDE];
    for (j, &m) in multipliers.iter().enumerate() {
        for k in 0..WIDE {
            keys[k] = keys[k].wrapping_add(m.wrapping_mul(units[j + k].wide()));
        }
    }
    for key in &mut keys {
        *key = mix(*key);
    }
    keys
}

/// Makes shingle keys of one length from one seed.
#[derive(Debug, Clone)]
pub struct Shingler {
    multipliers: Vec<u64>,
    level: Level,
}

impl Shingler {
    /// Shingles of `ngram` units; the multipliers are draws of `seed`.
    pub fn new(ngram: usize, seed: u64, level: Level) -> Self {
        debug_assert!((1..=MAX_NGRAM).contains(&ngram));
        let mut words = Stream::new(op_key(Domain::Dedup, seed, "shingle", 0), 0, 0).words(0);
        let multipliers =
            (0..ngram).map(|_| u64::from(words.next_word()) << 32 | u64::from(words.next_word()) | 1).collect();
        Shingler { multipliers, level }
    }

    /// Number of shingles, repeats included, of a row of `units` units.
    pub fn count(&self, units: usize) -> usize {
        (units + 1).saturating_sub(self.multipliers.len())
    }

    /// Calls `visit` with the keys of all shingles of `row` in order, a block at a time.
    #[inline]
    pub fn for_each_block<T: Unit>(&self, row: &[T], mut visit: impl FnMut(&[u64])) {
        let mut block = [0; BLOCK];
        let count = self.count(row.len());
        for start in (0..count).step_by(BLOCK) {
            let out = &mut block[..BLOCK.min(count - start)];
            T::keys(self.level, &row[start..], &self.multipliers, out);
            visit(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys<T: Unit>(row: &[T], ngram: usize, seed: u64, level: Level) -> Vec<u64> {
        let mut out = vec![];
        Shingler::new(ngram, seed, level).for_each_block(row, |block| out.extend_from_slice(block));
        out
    }

    proptest! {
        #[test]
        fn keys_follow_the_formula_on_every_level(row in prop::collection::vec(any::<u32>(), 0..600), ngram in 1usize..=32, seed: u64) {
            let m = Shingler::new(ngram, seed, Level::available().next().unwrap()).multipliers;
            let expected: Vec<u64> = row
                .windows(ngram)
                .map(|w| mix(w.iter().zip(&m).fold(0u64, |h, (&u, &m)| h.wrapping_add(m.wrapping_mul(u64::from(u))))))
                .collect();
            let wide: Vec<u64> = row.iter().map(|&u| u64::from(u)).collect();
            for level in Level::available() {
                prop_assert_eq!(&keys(&row, ngram, seed, level), &expected);
                prop_assert_eq!(&keys(&wide, ngram, seed, level), &expected);
            }
        }

        #[test]
        fn shingles_that_differ_in_one_unit_never_share_a_key(row in prop::collection::vec(any::<u32>(), 5), at in 0usize..5, other: u32) {
            let mut edited = row.clone();
            edited[at] = other;
            let level = crate::simd::level();
            prop_assert_eq!(keys(&row, 5, 1, level) == keys(&edited, 5, 1, level), row == edited);
        }
    }
}
