//! The counts behind Kneser-Ney noise (Xie et al., "Data noising as smoothing in neural network language models", ICLR
//! 2017): how many different neighbours each token has.

use crate::error::{Error, Result};
use crate::ragged::Ragged;

/// What the bigrams within rows say about each token id below a vocabulary size.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Neighbours {
    /// How often the token occurs.
    pub count: Vec<u64>,
    /// How many different tokens stand before it: N1+(., x).
    pub left: Vec<u64>,
    /// How many different tokens stand after it: N1+(x, .).
    pub right: Vec<u64>,
}

/// The most ids that [`Neighbours::of`] counts.
pub const MAX_VOCABULARY: usize = 1 << 26;

impl Neighbours {
    /// Counts the rows of a batch.
    ///
    /// Cost: O(tokens + `vocab_size`), 8 bytes a token and 44 an id.
    ///
    /// # Errors
    /// If `vocab_size` is 0 or above [`MAX_VOCABULARY`], or a token is not below it.
    pub fn of(tokens: Ragged<'_, u32>, vocab_size: usize) -> Result<Self> {
        if !(1..=MAX_VOCABULARY).contains(&vocab_size) {
            return Err(Error::invalid(format!("vocab_size must lie in [1, {MAX_VOCABULARY}] (it is {vocab_size})")));
        }
        let mut out = Neighbours { count: vec![0; vocab_size], left: vec![0; vocab_size], right: vec![0; vocab_size] };
        for (row, tokens) in tokens.iter().enumerate() {
            for &token in tokens {
                match out.count.get_mut(token as usize) {
                    Some(count) => *count += 1,
                    None => {
                        return Err(Error::invalid(format!(
                            "vocab_size must exceed every token (row {row} has token {token}, it is {vocab_size})"
                        )));
                    }
                }
            }
        }
        // Followers grouped by what they follow, so that one stamp a token finds the different ones.
        let mut ends: Vec<usize> = Vec::with_capacity(vocab_size);
        let mut sum = 0;
        for &count in &out.count {
            ends.push(sum);
            sum += count as usize;
        }
        let mut followers = vec![0u32; sum];
        for row in tokens.iter() {
            for pair in row.windows(2) {
                let end = &mut ends[pair[0] as usize];
                followers[*end] = pair[1];
                *end += 1;
            }
        }
        let mut stamps = vec![u32::MAX; vocab_size];
        let mut start = 0;
        for (token, (&end, &count)) in ends.iter().zip(&out.count).enumerate() {
            for &follower in &followers[start..end] {
                let stamp = &mut stamps[follower as usize];
                if *stamp != token as u32 {
                    *stamp = token as u32;
                    out.left[follower as usize] += 1;
                    out.right[token] += 1;
                }
            }
            start += count as usize;
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn what_cannot_be_counted_is_named() {
        let rows = Ragged::new(&[1u32, 9], &[0, 1, 2]).unwrap();
        let message = |n| Neighbours::of(rows, n).unwrap_err().to_string();
        assert_eq!(message(9), "vocab_size must exceed every token (row 1 has token 9, it is 9)");
        assert_eq!(message(0), "vocab_size must lie in [1, 67108864] (it is 0)");
    }

    proptest! {
        #[test]
        fn counts_are_those_of_a_set_of_pairs(rows in prop::collection::vec(prop::collection::vec(0u32..9, 0..20), 0..8)) {
            let mut offsets = vec![0];
            rows.iter().for_each(|row| offsets.push(offsets[offsets.len() - 1] + row.len() as i64));
            let flat = rows.concat();
            let found = Neighbours::of(Ragged::new(&flat, &offsets).unwrap(), 9).unwrap();
            let pairs: BTreeSet<_> = rows.iter().flat_map(|row| row.windows(2)).map(|pair| (pair[0], pair[1])).collect();
            for x in 0..9 {
                let number = |n: usize| n as u64;
                prop_assert_eq!(found.count[x as usize], number(flat.iter().filter(|&&t| t == x).count()));
                prop_assert_eq!(found.left[x as usize], number(pairs.iter().filter(|pair| pair.1 == x).count()));
                prop_assert_eq!(found.right[x as usize], number(pairs.iter().filter(|pair| pair.0 == x).count()));
            }
        }
    }
}
