//! Components: rows that a chain of equal keys joins.
//!
//! Clustering compares only rows that share a bucket, so what becomes of a row depends on nothing outside its
//! component: a corpus that does not fit in memory is deduplicated some components at a time.

use super::bands::high;
use super::check_count;
use crate::error::{Error, Result};

/// Rows joined by equal keys. Holds four bytes a row.
///
/// ```
/// use variegate_core::dedup::Components;
/// let mut components = Components::new(5)?;
/// components.join(&[7, 9, 7], &[4, 2, 1])?;
/// components.join(&[3, 3], &[2, 4])?;
/// assert_eq!(components.roots(), [0, 1, 1, 3, 1]);
/// # Ok::<(), variegate_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Components {
    /// A row before it in its component; a root is its own.
    parent: Vec<u32>,
}

impl Components {
    /// Rows `0..rows`, each a component of its own.
    ///
    /// # Errors
    /// If there are more rows than 2^32 - 2.
    pub fn new(rows: usize) -> Result<Self> {
        check_count(rows)?;
        Ok(Components { parent: (0..rows as u32).collect() })
    }

    /// Makes one component of all rows with equal keys: `rows[i]` has `keys[i]`. Scratch: twelve bytes a key.
    ///
    /// # Errors
    /// If there are not as many keys as rows, or there is no such row; nothing is joined then.
    pub fn join(&mut self, keys: &[u64], rows: &[u32]) -> Result<()> {
        if keys.len() != rows.len() {
            return Err(Error::invalid(format!(
                "keys must hold one key a row ({} for {} rows)",
                keys.len(),
                rows.len()
            )));
        }
        check_count(rows.len())?;
        let n = self.parent.len();
        if let Some((at, row)) = rows.iter().enumerate().find(|&(_, &row)| row as usize >= n) {
            return Err(Error::invalid(format!("rows must lie below {n} (position {at}: {row})")));
        }
        let halves: Vec<u32> = keys.iter().map(|&key| high(key)).collect();
        let mut places: Vec<usize> = vec![];
        for_each_shared(
            &halves,
            |at| at as u32,
            |pairs| {
                places.clear();
                places.extend(pairs.iter().map(|&pair| pair as u32 as usize));
                places.sort_unstable_by_key(|&at| keys[at]);
                for pair in places.windows(2).filter(|pair| keys[pair[0]] == keys[pair[1]]) {
                    union(&mut self.parent, rows[pair[0]], rows[pair[1]]);
                }
            },
        );
        Ok(())
    }

    /// The lowest row of each row's component.
    pub fn roots(&self) -> Vec<u32> {
        let mut roots = Vec::with_capacity(self.parent.len());
        for (row, &parent) in (0..).zip(&self.parent) {
            roots.push(if parent == row { row } else { roots[parent as usize] });
        }
        roots
    }
}

/// The rows that share their root with others, root after root, ascending in each. Scratch: four bytes a row.
///
/// # Errors
/// If a root is no row.
///
/// ```
/// use variegate_core::dedup::shared_rows;
/// assert_eq!(shared_rows(&[0, 1, 1, 3, 1, 3])?, [1, 2, 4, 3, 5]);
/// # Ok::<(), variegate_core::Error>(())
/// ```
pub fn shared_rows(roots: &[u32]) -> Result<Vec<u32>> {
    check_count(roots.len())?;
    let mut next = vec![0u32; roots.len()];
    for (row, &root) in roots.iter().enumerate() {
        let Some(count) = next.get_mut(root as usize) else {
            return Err(Error::invalid(format!("roots must lie below {} (row {row}: {root})", roots.len())));
        };
        *count += 1;
    }
    let mut total = 0;
    for next in &mut next {
        let count = if *next > 1 { *next } else { 0 };
        *next = if count > 0 { total } else { u32::MAX };
        total += count;
    }
    let mut out = vec![0; total as usize];
    for (row, &root) in (0..).zip(roots) {
        let next = &mut next[root as usize];
        if *next != u32::MAX {
            out[*next as usize] = row;
            *next += 1;
        }
    }
    Ok(out)
}

/// The lowest row of a row's tree; paths are halved on the way.
pub fn root(parent: &mut [u32], r: u32) -> u32 {
    let mut r = r as usize;
    while parent[r] as usize != r {
        parent[r] = parent[parent[r] as usize];
        r = parent[r] as usize;
    }
    r as u32
}

/// Makes one tree of two.
pub fn union(parent: &mut [u32], a: u32, b: u32) {
    let (a, b) = (root(parent, a), root(parent, b));
    parent[a.max(b) as usize] = a.min(b);
}

/// Calls `visit` for every key that several places have, lowest key first: with a number for each place, ascending,
/// whose high half is the key and whose low half is `row(place)`.
pub fn for_each_shared(keys: &[u32], row: impl Fn(usize) -> u32, mut visit: impl FnMut(&[u64])) {
    /// Pairs that are sorted within the first caches.
    const PIECE: usize = 1 << 11;
    const MAX_BITS: u32 = 11;
    let places = shared_places(keys);
    let bits = (places.len() / PIECE).checked_ilog2().map_or(0, |bits| bits.min(MAX_BITS));
    let piece = |at: u32| (u64::from(keys[at as usize]) >> (32 - bits)) as usize;
    let mut next = vec![0; (1 << bits) + 1];
    for &at in &places {
        next[piece(at) + 1] += 1;
    }
    for p in 0..1 << bits {
        next[p + 1] += next[p];
    }
    let mut pairs = vec![0; places.len()];
    for at in places {
        let next = &mut next[piece(at)];
        pairs[*next] = u64::from(keys[at as usize]) << 32 | u64::from(row(at as usize));
        *next += 1;
    }
    let mut start = 0;
    for &end in &next[..1 << bits] {
        let piece = &mut pairs[start..end];
        piece.sort_unstable();
        piece.chunk_by(|a, b| a >> 32 == b >> 32).filter(|pairs| pairs.len() > 1).for_each(&mut visit);
        start = end;
    }
}

/// Every place that shares its key, ascending, and a few others: those whose key agrees with another in its high bits.
fn shared_places(keys: &[u32]) -> Vec<u32> {
    /// Bits of a map a key: one key in sixteen shares its bit by chance.
    const SPARSE: usize = 16;
    let bits = (keys.len() * SPARSE).next_power_of_two().ilog2().clamp(6, 26);
    let bit = |key: u32| ((key >> (32 - bits)) as usize / 64, 1u64 << (key >> (32 - bits) & 63));
    let (mut once, mut twice) = (vec![0u64; 1 << (bits - 6)], vec![0u64; 1 << (bits - 6)]);
    for &key in keys {
        let (word, bit) = bit(key);
        twice[word] |= once[word] & bit;
        once[word] |= bit;
    }
    // Written always and kept sometimes, as the next is rarely foreseen.
    let mut places = vec![0; keys.len() + 1];
    let mut count = 0;
    for (at, &key) in (0..).zip(keys) {
        let (word, bit) = bit(key);
        places[count] = at;
        count += usize::from(twice[word] & bit != 0);
    }
    places.truncate(count);
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::mix;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn the_root_of_a_cluster_is_its_first_row() {
        let mut parent: Vec<u32> = (0..6).collect();
        for (a, b) in [(5, 4), (4, 2), (1, 3), (3, 5)] {
            union(&mut parent, a, b);
        }
        let roots: Vec<u32> = (0..6).map(|r| root(&mut parent, r)).collect();
        assert_eq!(roots, [0, 1, 1, 1, 1, 1]);
    }

    #[test]
    fn bad_arguments_are_named_and_join_nothing() {
        let mut components = Components::new(3).unwrap();
        let mut join = |keys: &[u64], rows: &[u32]| components.join(keys, rows).unwrap_err().to_string();
        assert_eq!(join(&[1, 1], &[0]), "keys must hold one key a row (2 for 1 rows)");
        assert_eq!(join(&[1, 1, 1], &[0, 2, 3]), "rows must lie below 3 (position 2: 3)");
        assert_eq!(components.roots(), [0, 1, 2]);
        for rows in [u32::MAX as usize, usize::MAX] {
            let message = Components::new(rows).unwrap_err().to_string();
            assert_eq!(message, format!("deduplication takes at most 4294967294 rows (it has {rows})"));
        }
    }

    /// Enough keys to be cut into pieces, spread over all of them or crowded into one.
    #[test]
    fn many_keys_are_gathered_as_few_are() {
        for spread in [1, 1 << 13, 1 << 32] {
            let keys: Vec<u32> = (0..50_000).map(|at| (mix(at % 30_000) % spread) as u32).collect();
            let mut expected = BTreeMap::<u32, Vec<u32>>::new();
            for (at, &key) in keys.iter().enumerate() {
                expected.entry(key).or_default().push(at as u32 ^ 1);
            }
            expected.retain(|_, rows| rows.len() > 1);
            expected.values_mut().for_each(|rows| rows.sort_unstable());
            let mut got = vec![];
            for_each_shared(
                &keys,
                |at| at as u32 ^ 1,
                |pairs| {
                    assert!(pairs.iter().all(|pair| pair >> 32 == pairs[0] >> 32));
                    got.push(((pairs[0] >> 32) as u32, pairs.iter().map(|&pair| pair as u32).collect::<Vec<_>>()));
                },
            );
            assert!(got.into_iter().eq(expected));
        }
    }

    proptest! {
        #[test]
        fn components_are_those_of_joining_all_pairs(
            rows in 1usize..30, calls in prop::collection::vec(prop::collection::vec((0u32..40, any::<prop::sample::Index>()), 0..12), 0..5),
        ) {
            let mut components = Components::new(rows).unwrap();
            let mut label: Vec<u32> = (0..rows as u32).collect();
            for call in calls {
                // Some keys differ in one half only.
                let key = |n: u32| u64::from(n / 4) << 32 | u64::from(n % 4);
                let (keys, places): (Vec<u64>, Vec<u32>) =
                    call.into_iter().map(|(n, at)| (key(n), at.index(rows) as u32)).unzip();
                components.join(&keys, &places).unwrap();
                for (i, j) in (0..keys.len()).flat_map(|i| (0..i).map(move |j| (i, j))) {
                    let (a, b) = (label[places[i] as usize], label[places[j] as usize]);
                    if keys[i] == keys[j] {
                        label.iter_mut().filter(|label| **label == a.max(b)).for_each(|label| *label = a.min(b));
                    }
                }
            }
            prop_assert_eq!(components.roots(), label);
        }
    }
}
