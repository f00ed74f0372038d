//! Exact Jaccard similarity of two rows over their sets of shingles.

use super::shingle::{Shingler, Unit};

/// One row's shingle set in an open-addressed table, asked about other rows.
///
/// The table is reused: an entry counts only if its mark is the current load.
#[derive(Debug)]
pub struct Verifier<'a> {
    shingler: &'a Shingler,
    table: Table,
}

#[derive(Debug, Default)]
struct Table {
    entries: Vec<Entry>,
    mask: usize,
    load: u32,
    probe: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    key: u64,
    load: u32,
    probe: u32,
}

impl<'a> Verifier<'a> {
    /// An empty verifier.
    pub fn new(shingler: &'a Shingler) -> Self {
        Verifier { shingler, table: Table::default() }
    }

    /// Loads the set of `row` and returns its size. Linear in the row.
    pub fn load<T: Unit>(&mut self, row: &[T]) -> u32 {
        self.table.load(self.shingler, row)
    }

    /// How many shingles the set of `row` shares with the loaded one. Linear in the row.
    pub fn common<T: Unit>(&mut self, row: &[T]) -> u32 {
        self.table.common(self.shingler, row)
    }
}

/// Jaccard similarity from two set sizes and the size of what they share; 1 for two empty sets.
///
/// The quotient is correctly rounded, so `jaccard(..) >= 0.8` is true for 4 of 5.
pub fn jaccard(a: u32, b: u32, common: u32) -> f64 {
    match u64::from(a) + u64::from(b) - u64::from(common) {
        0 => 1.0,
        union => f64::from(common) / union as f64,
    }
}

impl Table {
    fn load<T: Unit>(&mut self, shingler: &Shingler, row: &[T]) -> u32 {
        let size = (4 * shingler.count(row.len())).next_power_of_two().max(16);
        if size > self.entries.len() {
            self.entries = vec![Entry::default(); size];
            self.load = 0;
            self.probe = 0;
        }
        self.mask = size - 1;
        self.load = next(self.load, &mut self.entries, |entry| &mut entry.load);
        let mut distinct = 0;
        shingler.for_each_block(row, |keys| {
            for &key in keys {
                let at = self.find(key);
                let entry = &mut self.entries[at];
                distinct += u32::from(entry.load != self.load);
                *entry = Entry { key, load: self.load, probe: entry.probe };
            }
        });
        distinct
    }

    fn common<T: Unit>(&mut self, shingler: &Shingler, row: &[T]) -> u32 {
        self.probe = next(self.probe, &mut self.entries, |entry| &mut entry.probe);
        let mut common = 0;
        shingler.for_each_block(row, |keys| {
            for &key in keys {
                let at = self.find(key);
                let entry = &mut self.entries[at];
                common += u32::from(entry.load == self.load && entry.probe != self.probe);
                entry.probe = self.probe;
            }
        });
        common
    }

    /// Where `key` is, or the free entry where it would go. At most a quarter of the entries is taken, so that a second
    /// step is rare: what it costs is the wrong guess, not the step.
    #[inline(always)]
    fn find(&self, key: u64) -> usize {
        let mut at = key as usize & self.mask;
        while self.entries[at].load == self.load && self.entries[at].key != key {
            at = (at + 1) & self.mask;
        }
        at
    }
}

/// The mark after `mark`; where the marks run out, all entries are reset first.
fn next(mark: u32, entries: &mut [Entry], field: impl Fn(&mut Entry) -> &mut u32) -> u32 {
    if mark == u32::MAX {
        entries.iter_mut().for_each(|entry| *field(entry) = 0);
        return 1;
    }
    mark + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_quotient_meets_a_threshold_that_it_equals() {
        assert!(jaccard(5, 4, 4) >= 0.8);
        assert!(jaccard(10, 7, 7) >= 0.7);
        assert_eq!(jaccard(0, 0, 0), 1.0);
        assert_eq!(jaccard(3, 3, 0), 0.0);
    }

    #[test]
    fn marks_that_run_out_are_reset() {
        let shingler = Shingler::new(1, 0, crate::simd::level());
        let mut table = Table::default();
        table.load(&shingler, &[1u32, 2, 3]);
        table.load = u32::MAX;
        table.probe = u32::MAX;
        assert_eq!(table.load(&shingler, &[3u32, 4]), 2);
        assert_eq!(table.common(&shingler, &[1u32, 3, 3, 4]), 2);
    }

    proptest! {
        #[test]
        fn counts_equal_those_of_plain_sets(
            rows in prop::collection::vec(prop::collection::vec(0u32..6, 0..60), 1..6), ngram in 1usize..4,
        ) {
            let shingler = Shingler::new(ngram, 9, crate::simd::level());
            let mut verifier = Verifier::new(&shingler);
            let set = |row: &[u32]| row.windows(ngram).map(<[u32]>::to_vec).collect::<BTreeSet<_>>();
            for a in &rows {
                prop_assert_eq!(verifier.load(a) as usize, set(a).len());
                for b in &rows {
                    prop_assert_eq!(verifier.common(b) as usize, set(a).intersection(&set(b)).count());
                }
            }
        }
    }
}
