//! Exact join: every pair at or over the threshold is compared, whatever chance would say.
//!
//! Two sets that are similar share many shingles, so they share one among the few first of each, in whatever order all
//! shingles are put: only these prefixes are looked up (Chaudhuri, Ganti and Kaushik, "A primitive operator for
//! similarity joins", 2006; Bayardo, Ma and Srikant, "Scaling up all pairs similarity search", 2007). Rare shingles come
//! first; a table of counts says which are, and one that occurs once in the corpus takes a place of the prefix and
//! matches nothing. A pair is compared if its sizes, the places of its first common shingle (Xiao et al., "Efficient
//! similarity joins for near duplicate detection", 2008) and the bits in which its parity bitmaps differ (Sandes, Teodoro
//! and Melo, "Bitmap filter", 2020) leave room for the threshold. What is left is compared exactly.

use super::cluster::{Assignment, Corpus};
use super::components::{root, union};
use super::shingle::{Shingler, Unit};
use super::verify::{Verifier, jaccard};
use crate::par::{map_rows, map_tasks, threads};
use crate::simd::{Level, multiversion};

const GRAIN: usize = 1 << 18;

/// No row, link or chain.
const NONE: u32 = u32::MAX;

/// Leader clustering, as in [`cluster::leader`](super::cluster::leader), with every pair that counts compared.
///
/// Cost: linear, but for rows that share rare shingles and are not similar: each is looked at once for each other.
pub fn leader<'r, T: Unit + 'r>(corpus: &Corpus<'_, impl Fn(usize) -> &'r [T] + Sync>, level: Level) -> Assignment {
    let sets = Sets::new(corpus);
    let mut pairs = Pairs::new(corpus, &sets, level);
    let rows = sets.sizes.len();
    let mut out = Assignment::alone(rows);
    let buckets = Buckets::new(&sets);
    // The head of a bucket's room is filled with the leaders so far.
    let mut filled = buckets.starts.clone();
    let mut postings = vec![Posting::default(); *buckets.starts.last().unwrap_or(&0) as usize];
    let mut seen = vec![NONE; rows];
    let mut candidates = vec![];
    for r in 0..rows {
        candidates.clear();
        for (place, rank) in sets.prefix(r) {
            let Some(bucket) = buckets.of(rank) else { continue };
            for posting in &postings[buckets.starts[bucket] as usize..filled[bucket] as usize] {
                let other = posting.row as usize;
                if posting.rank != rank || seen[other] == r as u32 {
                    continue;
                }
                seen[other] = r as u32;
                let most = (sets.sizes[r] - place).min(sets.sizes[other] - posting.place);
                if pairs.may_reach(r, other, most) {
                    candidates.push(posting.row);
                }
            }
        }
        candidates.sort_unstable();
        if let Some((leader, similarity)) =
            candidates.iter().find_map(|&leader| Some((leader, pairs.similar(r, leader as usize)?)))
        {
            out.keeper[r] = leader;
            out.similarity[r] = similarity as f32;
            continue;
        }
        for (place, rank) in sets.prefix(r) {
            let Some(bucket) = buckets.of(rank) else { continue };
            postings[filled[bucket] as usize] = Posting { rank, row: r as u32, place };
            filled[bucket] += 1;
        }
    }
    (out.work.compared, out.work.similar) = (pairs.compared, pairs.similar);
    out
}

/// Transitive clustering, as in [`cluster::transitive`](super::cluster::transitive), with every pair that counts
/// compared or joined already.
///
/// Cost: as [`leader`]; rows of one cluster are passed over together.
pub fn transitive<'r, T: Unit + 'r>(corpus: &Corpus<'_, impl Fn(usize) -> &'r [T] + Sync>, level: Level) -> Assignment {
    let sets = Sets::new(corpus);
    let mut pairs = Pairs::new(corpus, &sets, level);
    let rows = sets.sizes.len();
    let mut out = Assignment::alone(rows);
    let buckets = Buckets::new(&sets);
    // The rows of a bucket, chained by cluster.
    let mut first = vec![NONE; buckets.starts.len()];
    let mut chains: Vec<Chain> = vec![];
    let mut links: Vec<Link> = vec![];
    let mut seen = vec![NONE; rows];
    for r in 0..rows {
        for (_, rank) in sets.prefix(r) {
            let Some(bucket) = buckets.of(rank) else { continue };
            let (mut mine, mut before, mut at) = (NONE, NONE, first[bucket]);
            while at != NONE {
                let Chain { head, tail, next } = chains[at as usize];
                let member = links[head as usize].row;
                let mut joined = root(&mut out.keeper, member) == root(&mut out.keeper, r as u32);
                let mut link = head;
                while !joined && link != NONE {
                    let Link { row, next } = links[link as usize];
                    let other = row as usize;
                    if std::mem::replace(&mut seen[other], r as u32) != r as u32 {
                        let most = sets.sizes[r].min(sets.sizes[other]);
                        joined = pairs.may_reach(r, other, most) && pairs.similar(r, other).is_some();
                    }
                    link = next;
                }
                if joined {
                    union(&mut out.keeper, member, r as u32);
                }
                if joined && mine != NONE {
                    links[chains[mine as usize].tail as usize].next = head;
                    chains[mine as usize].tail = tail;
                    chains[before as usize].next = next;
                } else {
                    mine = if joined { at } else { mine };
                    before = at;
                }
                at = next;
            }
            let link = links.len() as u32;
            links.push(Link { row: r as u32, next: NONE });
            if mine == NONE {
                chains.push(Chain { head: link, tail: link, next: first[bucket] });
                first[bucket] = chains.len() as u32 - 1;
            } else {
                let tail = std::mem::replace(&mut chains[mine as usize].tail, link);
                links[tail as usize].next = link;
            }
        }
    }
    for r in 0..rows {
        let keeper = root(&mut out.keeper, r as u32) as usize;
        if keeper != r {
            out.similarity[r] = pairs.similarity(r, keeper) as f32;
        }
    }
    (out.work.compared, out.work.similar) = (pairs.compared, pairs.similar);
    out
}

#[derive(Clone, Copy, Default)]
struct Posting {
    rank: u32,
    row: u32,
    /// The place of the shingle among those of the row, rarest first.
    place: u32,
}

#[derive(Clone, Copy)]
struct Chain {
    head: u32,
    tail: u32,
    next: u32,
}

#[derive(Clone, Copy)]
struct Link {
    row: u32,
    next: u32,
}

/// Where the rows of a rank are listed.
struct Buckets {
    bits: u32,
    /// Bucket `b` has room for the rows of all its ranks: `starts[b]..starts[b + 1]`.
    starts: Vec<u32>,
}

impl Buckets {
    fn new(sets: &Sets) -> Self {
        let bits = (2 * sets.ranks.len()).next_power_of_two().trailing_zeros().clamp(1, 31);
        let mut buckets = Buckets { bits, starts: vec![0; (1 << bits) + 1] };
        for &rank in &sets.ranks {
            let bucket = buckets.place(rank);
            buckets.starts[bucket + 1] += 1;
        }
        for b in 0..1 << bits {
            buckets.starts[b + 1] += buckets.starts[b];
        }
        buckets
    }

    #[inline]
    fn place(&self, rank: u32) -> usize {
        (rank.wrapping_mul(0x9E37_79B1) >> (32 - self.bits)) as usize
    }

    /// The bucket of a rank; nothing if one row alone has ranks there.
    #[inline]
    fn of(&self, rank: u32) -> Option<usize> {
        let bucket = self.place(rank);
        (self.starts[bucket + 1] - self.starts[bucket] > 1).then_some(bucket)
    }
}

/// Words of a parity bitmap.
const WORDS: usize = 8;

/// Of each row's set what the join needs.
#[derive(Default)]
struct Sets {
    /// Number of shingles.
    sizes: Vec<u32>,
    /// How many of them occur once in the corpus: they are the first in order.
    singles: Vec<u32>,
    /// For each bit, whether an odd number of shingles fall to it. Two sets that differ in `d` shingles differ in at
    /// most `d` bits.
    parities: Vec<[u64; WORDS]>,
    /// The ranks of the rest of each row's prefix, ascending: row `r` has `ranks[starts[r]..starts[r + 1]]`.
    ranks: Vec<u32>,
    starts: Vec<usize>,
}

impl Sets {
    fn new<'r, T: Unit + 'r>(corpus: &Corpus<'_, impl Fn(usize) -> &'r [T] + Sync>) -> Self {
        let counts = Counts::new(corpus);
        let parts = map_rows(corpus.offsets, GRAIN, |range| {
            let mut part = Sets::default();
            let mut maker = Maker::new(&counts, corpus.threshold);
            for r in range {
                maker.add((corpus.row)(r), corpus.shingler, &mut part);
            }
            part
        });
        let mut all = Sets { starts: vec![0], ..Sets::default() };
        for mut part in parts {
            let base = all.ranks.len();
            all.sizes.append(&mut part.sizes);
            all.singles.append(&mut part.singles);
            all.parities.append(&mut part.parities);
            all.ranks.append(&mut part.ranks);
            all.starts.extend(part.starts.into_iter().map(|end| base + end));
        }
        all
    }

    /// Place and rank of each shingle of a row's prefix that another row may have.
    #[inline]
    fn prefix(&self, r: usize) -> impl Iterator<Item = (u32, u32)> + '_ {
        (self.singles[r]..).zip(self.ranks[self.starts[r]..self.starts[r + 1]].iter().copied())
    }
}

/// Makes the sets of rows one by one.
struct Maker<'m> {
    counts: &'m Counts,
    threshold: f64,
    keys: Vec<u64>,
    ranks: Vec<u32>,
    table: Distinct,
}

impl<'m> Maker<'m> {
    fn new(counts: &'m Counts, threshold: f64) -> Self {
        Maker { counts, threshold, keys: vec![], ranks: vec![], table: Distinct::default() }
    }

    fn add<T: Unit>(&mut self, row: &[T], shingler: &Shingler, out: &mut Sets) {
        let mut parity = [0u64; WORDS];
        let count = shingler.count(row.len());
        if self.keys.len() < count {
            self.keys.resize(count, 0);
        }
        let mut shared = 0;
        shingler.for_each_block(row, |keys| {
            for &key in keys {
                toggle(&mut parity, key);
                // Written over where it occurs once in the corpus.
                self.keys[shared] = key;
                shared += usize::from(self.counts.of(key) > 1);
            }
        });
        let distinct = self.table.first_of_equals(&mut self.keys[..shared], |repeated| toggle(&mut parity, repeated));
        let singles = (count - shared) as u32;
        self.ranks.clear();
        self.ranks.extend(self.keys[..distinct].iter().map(|&key| self.counts.rank(key)));
        let size = singles + self.ranks.len() as u32;
        let prefix = size + 1 - least_common(size, self.threshold);
        let rest = prefix.saturating_sub(singles) as usize;
        if 0 < rest && rest < self.ranks.len() {
            self.ranks.select_nth_unstable(rest - 1);
        }
        let rest = rest.min(self.ranks.len());
        self.ranks[..rest].sort_unstable();
        out.sizes.push(size);
        out.singles.push(singles);
        out.parities.push(parity);
        out.ranks.extend_from_slice(&self.ranks[..rest]);
        out.starts.push(out.ranks.len());
    }
}

fn toggle(parity: &mut [u64; WORDS], key: u64) {
    parity[key as usize / 64 % WORDS] ^= 1 << (key % 64);
}

/// The fewest shingles that a set of this size must share with another to be similar, of whatever size that is.
fn least_common(size: u32, threshold: f64) -> u32 {
    let reaches = |common: u32| f64::from(common) / f64::from(size) >= threshold;
    let mut least = (f64::from(size) * threshold).ceil() as u32;
    while least > 1 && reaches(least - 1) {
        least -= 1;
    }
    while !reaches(least) {
        least += 1;
    }
    least
}

/// Tells the first of equal keys from the others.
#[derive(Default)]
struct Distinct {
    /// A key and the load that it belongs to.
    entries: Vec<(u64, u32)>,
    load: u32,
}

impl Distinct {
    /// More keys than this are sorted, so that one long row does not leave a large table behind.
    const MOST: usize = 1 << 16;

    /// Moves the first of all equal keys to the front and returns how many there are; `visit` is told of the others.
    fn first_of_equals(&mut self, keys: &mut [u64], mut visit: impl FnMut(u64)) -> usize {
        let mut kept = 0;
        if keys.len() > Self::MOST {
            keys.sort_unstable();
            for at in 0..keys.len() {
                let key = keys[at];
                if kept > 0 && keys[kept - 1] == key {
                    visit(key);
                } else {
                    keys[kept] = key;
                    kept += 1;
                }
            }
            return kept;
        }
        let size = (4 * keys.len()).next_power_of_two().max(16);
        if size > self.entries.len() || self.load == u32::MAX {
            self.entries = vec![(0, 0); size.max(self.entries.len())];
            self.load = 0;
        }
        self.load += 1;
        let (load, mask) = (self.load, size - 1);
        for at in 0..keys.len() {
            let key = keys[at];
            let mut slot = key as usize & mask;
            while self.entries[slot].1 == load && self.entries[slot].0 != key {
                slot = (slot + 1) & mask;
            }
            if self.entries[slot].1 == load {
                visit(key);
                continue;
            }
            self.entries[slot] = (key, load);
            keys[kept] = key;
            kept += 1;
        }
        kept
    }
}

/// About how often each shingle occurs: never less often than it does, up to a limit.
struct Counts {
    slots: Vec<u8>,
    shift: u32,
}

impl Counts {
    /// Counts above this are equal.
    const MOST: u8 = 15;
    const BITS: std::ops::RangeInclusive<u32> = 10..=32;

    fn new<'r, T: Unit + 'r>(corpus: &Corpus<'_, impl Fn(usize) -> &'r [T] + Sync>) -> Self {
        let rows = corpus.offsets.len() - 1;
        let units = *corpus.offsets.last().unwrap_or(&0) as usize;
        let bits = units.next_power_of_two().trailing_zeros().clamp(*Self::BITS.start(), *Self::BITS.end());
        // Every part of the table is counted by itself, over all rows.
        let parts = threads().next_power_of_two().min(64);
        let (shift, part_bits) = (64 - bits, bits - parts.trailing_zeros());
        let slots = map_tasks(parts, |part| {
            let mut slots = vec![0u8; 1 << part_bits];
            for r in 0..rows {
                corpus.shingler.for_each_block((corpus.row)(r), |keys| {
                    for &key in keys {
                        let slot = (key >> shift) as usize;
                        if slot >> part_bits == part {
                            let count = &mut slots[slot & ((1 << part_bits) - 1)];
                            *count = (*count + 1).min(Self::MOST);
                        }
                    }
                });
            }
            slots
        })
        .concat();
        Counts { slots, shift }
    }

    #[inline]
    fn of(&self, key: u64) -> u8 {
        self.slots[(key >> self.shift) as usize]
    }

    /// The order of shingles: rare ones first. Different shingles may be equal in it.
    #[inline]
    fn rank(&self, key: u64) -> u32 {
        u32::from(self.of(key)) << 28 | (key >> 16) as u32 >> 4
    }
}

/// Similarities of pairs, those that cannot reach the threshold first set aside.
struct Pairs<'p, 'c, R> {
    corpus: &'p Corpus<'c, R>,
    sets: &'p Sets,
    level: Level,
    /// A little under the threshold, so that rounding sets nothing aside.
    almost: f64,
    verifier: Verifier<'c>,
    loaded: Option<usize>,
    compared: u64,
    similar: u64,
}

impl<'p, 'c, 'r, T: Unit + 'r, R: Fn(usize) -> &'r [T] + Sync> Pairs<'p, 'c, R> {
    fn new(corpus: &'p Corpus<'c, R>, sets: &'p Sets, level: Level) -> Self {
        let (almost, verifier) = (corpus.threshold * (1.0 - 1e-9), Verifier::new(corpus.shingler));
        Pairs { corpus, sets, level, almost, verifier, loaded: None, compared: 0, similar: 0 }
    }

    /// Whether two rows that share at most `most` shingles may be similar.
    #[inline]
    fn may_reach(&self, r: usize, other: usize, most: u32) -> bool {
        let both = self.sets.sizes[r] + self.sets.sizes[other];
        let enough = |most: u32| f64::from(most) >= self.almost * f64::from(both - most);
        let parities = &self.sets.parities;
        enough(most) && enough((both - differing(self.level, &parities[r], &parities[other])) / 2)
    }

    fn similar(&mut self, r: usize, other: usize) -> Option<f64> {
        self.compared += 1;
        let similarity = self.similarity(r, other);
        let similar = similarity >= self.corpus.threshold;
        self.similar += u64::from(similar);
        similar.then_some(similarity)
    }

    /// Cheapest where `r` repeats.
    fn similarity(&mut self, r: usize, other: usize) -> f64 {
        if self.loaded.replace(r) != Some(r) {
            self.verifier.load((self.corpus.row)(r));
        }
        let common = self.verifier.common((self.corpus.row)(other));
        jaccard(self.sets.sizes[r], self.sets.sizes[other], common)
    }
}

multiversion! { fn differing(a: &[u64; WORDS], b: &[u64; WORDS]) -> u32 = differing_body }

#[inline(always)]
fn differing_body(a: &[u64; WORDS], b: &[u64; WORDS]) -> u32 {
    a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dedup::verify::jaccard;
    use proptest::prelude::*;

    proptest! {
        /// A set of the size shares that many with a subset of itself, and reaches the threshold with no fewer.
        #[test]
        fn the_least_in_common_is_what_the_quotient_says(size in 1u32..3000, threshold in 0.001f64..=1.0) {
            let least = least_common(size, threshold);
            prop_assert!(jaccard(size, least, least) >= threshold);
            prop_assert!(least == 1 || jaccard(size, least - 1, least - 1) < threshold);
        }

        #[test]
        fn the_first_of_equal_keys_come_to_the_front(keys in prop::collection::vec(0u64..40, 0..80)) {
            let mut table = Distinct::default();
            let mut expected: Vec<u64> = vec![];
            let mut repeated = vec![];
            for &key in &keys {
                if expected.contains(&key) { repeated.push(key) } else { expected.push(key) }
            }
            for _ in 0..3 {
                let (mut moved, mut visited) = (keys.clone(), vec![]);
                let distinct = table.first_of_equals(&mut moved, |key| visited.push(key));
                prop_assert_eq!(&moved[..distinct], &expected);
                prop_assert_eq!(&visited, &repeated);
            }
        }
    }

    #[test]
    fn a_row_of_many_keys_is_sorted() {
        let mut keys: Vec<u64> = (0..2 * Distinct::MOST as u64).map(|i| i / 2).rev().collect();
        let mut repeats = 0;
        let distinct = Distinct::default().first_of_equals(&mut keys, |_| repeats += 1);
        assert!(keys[..distinct].iter().copied().eq(0..Distinct::MOST as u64));
        assert_eq!(repeats, Distinct::MOST);
    }
}
