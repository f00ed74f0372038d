//! Exact duplicates: rows with equal content, found by hash and confirmed by comparison.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};

use crate::Ragged;
use crate::par::map_rows;
use crate::rng::{mix, mix64};
use crate::simd::{Level, multiversion};

const GRAIN: usize = 1 << 16;

/// From content to the first row that had it.
///
/// Rows of one hash but different content walk on to the next hash of a chain, so a collision costs a step and never
/// a wrong answer.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    rows: HashMap<u64, u32, BuildHasherDefault<AsIs>>,
}

impl Seen {
    /// The earlier row for which `equal` holds among those with this hash, or `row` itself, which is then remembered.
    pub fn find_or_insert(&mut self, hash: u64, row: u32, mut equal: impl FnMut(u32) -> bool) -> u32 {
        let mut hash = hash;
        loop {
            match self.rows.entry(hash) {
                Entry::Vacant(entry) => return *entry.insert(row),
                Entry::Occupied(entry) if equal(*entry.get()) => return *entry.get(),
                Entry::Occupied(_) => hash = mix(hash.wrapping_add(1)),
            }
        }
    }
}

/// For every row the first row with equal content. Linear in the values; any number of copies.
pub fn groups<T: Hashed>(rows: Ragged<'_, T>, level: Level) -> Vec<u32> {
    let mut seen = Seen { rows: HashMap::with_capacity_and_hasher(rows.rows(), BuildHasherDefault::default()) };
    let find = |(row, hash)| seen.find_or_insert(hash, row, |other| rows.row(other as usize) == rows.row(row as usize));
    (0u32..).zip(hashes(rows, level)).map(find).collect()
}

/// A 64-bit hash of every row's content.
pub fn hashes<T: Hashed>(rows: Ragged<'_, T>, level: Level) -> Vec<u64> {
    map_rows(rows.offsets(), GRAIN, |range| range.map(|r| T::hash(level, rows.row(r))).collect::<Vec<_>>()).concat()
}

/// Values that rows can be hashed over.
pub trait Hashed: Copy + Eq + Send + Sync {
    /// A hash of the values and their number.
    fn hash(level: Level, row: &[Self]) -> u64;
}

impl Hashed for u8 {
    fn hash(level: Level, row: &[u8]) -> u64 {
        hash_u8(level, row)
    }
}

impl Hashed for u32 {
    fn hash(level: Level, row: &[u32]) -> u64 {
        hash_u32(level, row)
    }
}

impl Hashed for u64 {
    fn hash(level: Level, row: &[u64]) -> u64 {
        hash_u64(level, row)
    }
}

multiversion! { fn hash_u8(row: &[u8]) -> u64 = hash_body }
multiversion! { fn hash_u32(row: &[u32]) -> u64 = hash_body }
multiversion! { fn hash_u64(row: &[u64]) -> u64 = hash_body }

/// Sixteen polynomials over every sixteenth value, folded at the end.
#[inline(always)]
fn hash_body<T: Into<u64> + Copy>(row: &[T]) -> u64 {
    const LANES: usize = 16;
    const FACTOR: u64 = 0x9E6C_63D0_876A_9A63;
    let mut lanes = [0u64; LANES];
    let mut chunks = row.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            let value: u64 = value.into();
            *lane = (*lane ^ *lane >> 29).wrapping_mul(FACTOR).wrapping_add(value);
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(chunks.remainder()) {
        let value: u64 = value.into();
        *lane = (*lane ^ *lane >> 29).wrapping_mul(FACTOR).wrapping_add(value);
    }
    let taken = LANES.min(row.len());
    mix(mix64(&lanes[..taken]) ^ row.len() as u64)
}

/// Passes a key that is already a hash.
#[derive(Debug, Default, Clone)]
pub struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = mix(self.0 ^ u64::from(byte));
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RaggedBuf;
    use proptest::prelude::*;

    #[test]
    fn a_hash_collision_does_not_join_rows() {
        let rows: [&[u32]; 4] = [&[1], &[2], &[1], &[2]];
        let mut seen = Seen::default();
        let found: Vec<u32> = (0..4)
            .map(|row| seen.find_or_insert(77, row, |other| rows[other as usize] == rows[row as usize]))
            .collect();
        assert_eq!(found, [0, 1, 0, 1]);
    }

    proptest! {
        #[test]
        fn groups_are_those_of_comparing_all_pairs(rows in prop::collection::vec(prop::collection::vec(0u32..3, 0..4), 0..60)) {
            let mut buf = RaggedBuf::default();
            for row in &rows {
                buf.values.extend_from_slice(row);
                buf.end_row();
            }
            let expected: Vec<u32> = rows.iter().map(|row| rows.iter().position(|other| other == row).unwrap() as u32).collect();
            for level in Level::available() {
                prop_assert_eq!(&groups(buf.view(), level), &expected);
            }
        }

        #[test]
        fn hashes_are_the_same_on_every_level_and_tell_rows_apart(row in prop::collection::vec(any::<u64>(), 0..80), at: prop::sample::Index, by in 1u64..) {
            let hash = |row: &[u64]| {
                let mut all: Vec<u64> = Level::available().map(|level| u64::hash(level, row)).collect();
                all.dedup();
                all
            };
            prop_assert_eq!(hash(&row).len(), 1);
            let mut longer = row.clone();
            longer.push(0);
            prop_assert_ne!(hash(&row), hash(&longer));
            if !row.is_empty() {
                let mut edited = row.clone();
                let at = at.index(row.len());
                edited[at] = edited[at].wrapping_add(by);
                prop_assert_ne!(hash(&row), hash(&edited));
            }
        }
    }
}
