//! A seeded permutation of `0..n` in constant memory: how draws without replacement find their derivations.
//!
//! A balanced Feistel network over the smallest even number of bits that holds `n`, walked along its cycle until it
//! falls below `n` (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002). The domain is less than
//! four times `n`, so a walk takes fewer than four steps on average.

use crate::rng::philox;

const ROUNDS: u32 = 8;

/// A permutation of `0..n`.
pub(super) struct Permutation {
    key: [u32; 2],
    /// `n - 1`, so that 2^128 fits.
    last: u128,
    half: u32,
}

impl Permutation {
    /// The permutation of `0..=last` that belongs to `key`.
    pub fn new(key: u64, last: u128) -> Self {
        let half = (128 - last.leading_zeros()).div_ceil(2).max(1);
        Permutation { key: [key as u32, (key >> 32) as u32], last, half }
    }

    /// The image of `i`, which must not be above `last`.
    pub fn at(&self, i: u128) -> u128 {
        debug_assert!(i <= self.last);
        let mut image = self.step(i);
        while image > self.last {
            image = self.step(image);
        }
        image
    }

    fn step(&self, x: u128) -> u128 {
        let mask = u64::MAX >> (64 - self.half);
        let (mut left, mut right) = ((x >> self.half) as u64, x as u64 & mask);
        for round in 0..ROUNDS {
            let words = philox([right as u32, (right >> 32) as u32, round, 0], self.key);
            let noise = u64::from(words[0]) | u64::from(words[1]) << 32;
            (left, right) = (right, left ^ (noise & mask));
        }
        u128::from(left) << self.half | u128::from(right)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_a_bijection(key: u64, n in 1usize..3000) {
            let permutation = Permutation::new(key, n as u128 - 1);
            let mut hit = vec![false; n];
            for i in 0..n {
                let image = permutation.at(i as u128) as usize;
                prop_assert!(!std::mem::replace(&mut hit[image], true));
            }
        }

        #[test]
        fn it_stays_below_any_bound(key: u64, last: u128, i: u128) {
            let i = if last == u128::MAX { i } else { i % (last + 1) };
            prop_assert!(Permutation::new(key, last).at(i) <= last);
        }
    }

    /// Each image of 0 among 12 is as frequent as any other over many keys; the limit is the 1e-6 quantile.
    #[test]
    fn keys_give_different_permutations() {
        let mut counts = [0u32; 12];
        for key in 0..24_000 {
            counts[Permutation::new(crate::rng::mix(key), 11).at(0) as usize] += 1;
        }
        let chi: f64 = counts.iter().map(|&c| (f64::from(c) - 2000.0).powi(2) / 2000.0).sum();
        assert!(chi < 51.0, "chi-square {chi}");
    }
}
