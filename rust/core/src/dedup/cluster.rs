//! From candidates to clusters: who is removed, in favour of whom.
//!
//! Rows come in keep order, the one to keep first. Every decision is by exact similarity, so a bucket that joined
//! strangers costs time and never a document.

use super::bands::Buckets;
use super::components::{root, union};
use super::shingle::{Shingler, Unit};
use super::verify::{Verifier, jaccard};
use crate::par::map_rows;

/// Large, since each part allocates a table for its longest row.
const GRAIN: usize = 1 << 18;

/// What becomes of each row.
#[derive(Debug, PartialEq)]
pub struct Assignment {
    /// The row kept in favour of row `r`: `r` itself if it is kept.
    pub keeper: Vec<u32>,
    /// Exact similarity of each row with its keeper.
    pub similarity: Vec<f32>,
    /// What it took.
    pub work: Work,
}

/// Counts of what clustering did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Pairs whose exact similarity was computed.
    pub compared: u64,
    /// Of these, pairs at or over the threshold.
    pub similar: u64,
    /// Buckets in which some comparison was left out.
    pub capped_buckets: u64,
    /// How often a row was left out of a bucket, or a bucket's rest left out for a row.
    pub capped_rows: u64,
}

/// A corpus to cluster: rows by their place in keep order, and the buckets that they share.
pub struct Corpus<'c, R> {
    /// The units of a row.
    pub row: R,
    /// Where the rows lie if laid end to end.
    pub offsets: &'c [i64],
    /// How rows are shingled.
    pub shingler: &'c Shingler,
    /// Least similarity of duplicates.
    pub threshold: f64,
    /// Most rows of one bucket that a row is compared with.
    pub cap: usize,
}

impl<R> Corpus<'_, R> {
    fn rows(&self) -> usize {
        self.offsets.len() - 1
    }
}

/// Leader clustering: in keep order, a row is removed if it is similar to a row already kept, and is kept otherwise.
///
/// The keeper is the first such row in keep order. So every removed row has at least the threshold's similarity with
/// the one kept. Cost: a row is compared with at most `cap` kept rows a bucket, usually with one.
pub fn leader<'r, T: Unit + 'r>(
    corpus: &Corpus<'_, impl Fn(usize) -> &'r [T] + Sync>,
    mut buckets: Buckets,
) -> Assignment {
    let mut pairs = Pairs::new(corpus, &buckets);
    let mut out = Assignment::alone(corpus.rows());
    // The head of a bucket's members is overwritten by the leaders among those already decided.
    let mut members = std::mem::take(&mut buckets.members);
    let mut leaders = vec![0; buckets.count()];
    let mut full = vec![false; buckets.count()];
    let mut seen = vec![u32::MAX; corpus.rows()];
    let mut candidates = Vec::new();
    for r in 0..corpus.rows() {
        candidates.clear();
        for bucket in buckets.of(r) {
            for &leader in &members[buckets.starts[bucket]..][..leaders[bucket]] {
                if seen[leader as usize] != r as u32 {
                    seen[leader as usize] = r as u32;
                    candidates.push(leader);
                }
            }
        }
        candidates.sort_unstable();
        let found = candidates.iter().find_map(|&leader| Some((leader, pairs.similar(r, leader as usize)?)));
        if let Some((leader, similarity)) = found {
            out.keeper[r] = leader;
            out.similarity[r] = similarity as f32;
            continue;
        }
        for bucket in buckets.of(r) {
            if leaders[bucket] < corpus.cap {
                members[buckets.starts[bucket] + leaders[bucket]] = r as u32;
                leaders[bucket] += 1;
            } else {
                pairs.work.capped_rows += 1;
                full[bucket] = true;
            }
        }
    }
    pairs.work.capped_buckets = full.into_iter().filter(|&full| full).count() as u64;
    out.work = pairs.work;
    out
}

/// Transitive clustering: rows joined by a chain of similar pairs, of which the first in keep order is kept.
///
/// A removed row may be less similar to the one kept than the threshold; its similarity says how much. Cost: in a
/// bucket a row is compared with at most `cap` rows of clusters other than its own; rows that are already joined are
/// passed over together, so a bucket of copies is linear.
pub fn transitive<'r, T: Unit + 'r>(
    corpus: &Corpus<'_, impl Fn(usize) -> &'r [T] + Sync>,
    buckets: &Buckets,
) -> Assignment {
    let mut pairs = Pairs::new(corpus, buckets);
    let mut out = Assignment::alone(corpus.rows());
    let mut chains = Chains::default();
    for bucket in buckets.starts.windows(2) {
        let mut left_out = 0;
        chains.clear();
        for &r in &buckets.members[bucket[0]..bucket[1]] {
            let mut tries = corpus.cap;
            let mut joined = Vec::new();
            'chains: for chain in 0..chains.heads.len() {
                let first = chains.members[chains.heads[chain]].row;
                if root(&mut out.keeper, first) == root(&mut out.keeper, r) {
                    joined.push(chain);
                    continue;
                }
                for member in chains.rows(chain) {
                    if tries == 0 {
                        left_out += 1;
                        break 'chains;
                    }
                    tries -= 1;
                    if pairs.similar(r as usize, member as usize).is_some() {
                        union(&mut out.keeper, first, r);
                        joined.push(chain);
                        break;
                    }
                }
            }
            chains.join(&joined, r);
        }
        pairs.work.capped_rows += left_out;
        pairs.work.capped_buckets += u64::from(left_out > 0);
    }
    for r in 0..corpus.rows() {
        let keeper = root(&mut out.keeper, r as u32);
        if keeper as usize != r {
            out.similarity[r] = pairs.similarity(r, keeper as usize) as f32;
        }
    }
    out.work = pairs.work;
    out
}

impl Assignment {
    pub(super) fn alone(rows: usize) -> Self {
        Assignment { keeper: (0..rows as u32).collect(), similarity: vec![1.0; rows], work: Work::default() }
    }
}

/// The rows of one bucket, chained by cluster.
#[derive(Default)]
struct Chains {
    members: Vec<Link>,
    heads: Vec<usize>,
    tails: Vec<usize>,
}

struct Link {
    row: u32,
    next: usize,
}

const END: usize = usize::MAX;

impl Chains {
    fn clear(&mut self) {
        self.members.clear();
        self.heads.clear();
        self.tails.clear();
    }

    fn rows(&self, chain: usize) -> impl Iterator<Item = u32> + '_ {
        let mut at = self.heads[chain];
        std::iter::from_fn(move || {
            let link = self.members.get(at)?;
            at = link.next;
            Some(link.row)
        })
    }

    /// Ties the chains of `joined` (ascending) into the first of them, and appends `row`; a chain of its own if none.
    fn join(&mut self, joined: &[usize], row: u32) {
        let at = self.members.len();
        self.members.push(Link { row, next: END });
        let Some((&first, others)) = joined.split_first() else {
            self.heads.push(at);
            self.tails.push(at);
            return;
        };
        for &other in others.iter().rev() {
            self.members[self.tails[first]].next = self.heads[other];
            self.tails[first] = self.tails[other];
            self.heads.swap_remove(other);
            self.tails.swap_remove(other);
        }
        self.members[self.tails[first]].next = at;
        self.tails[first] = at;
    }
}

/// Exact similarities of pairs.
///
/// Those that are sure to be asked for, or nearly so, are found beforehand on all threads: of each row with the first
/// of all rows that share a bucket with it.
struct Pairs<'p, 'c, R> {
    corpus: &'p Corpus<'c, R>,
    verifier: Verifier<'c>,
    loaded: Option<usize>,
    known: Vec<Known>,
    work: Work,
}

/// What is known of a row that shares a bucket.
#[derive(Clone, Copy, Default)]
struct Known {
    /// Size of its shingle set.
    size: u32,
    /// The first row that shares a bucket with it.
    first: u32,
    /// How many shingles the two share.
    common: u32,
}

impl<'p, 'c, 'r, T: Unit + 'r, R: Fn(usize) -> &'r [T] + Sync> Pairs<'p, 'c, R> {
    fn new(corpus: &'p Corpus<'c, R>, buckets: &Buckets) -> Self {
        let known = map_rows(corpus.offsets, GRAIN, |range| {
            let mut verifier = Verifier::new(corpus.shingler);
            let know = |r| {
                let Some(first) = buckets.first(r) else { return Known::default() };
                let size = verifier.load((corpus.row)(r));
                let common = if first as usize == r { size } else { verifier.common((corpus.row)(first as usize)) };
                Known { size, first, common }
            };
            range.map(know).collect::<Vec<_>>()
        })
        .concat();
        Pairs { corpus, verifier: Verifier::new(corpus.shingler), loaded: None, known, work: Work::default() }
    }

    /// The similarity of `r` and `other` if it reaches the threshold.
    fn similar(&mut self, r: usize, other: usize) -> Option<f64> {
        self.work.compared += 1;
        let (mine, its) = (self.known[r].size, self.known[other].size);
        // The best that sets of these sizes can do.
        if jaccard(mine, its, mine.min(its)) < self.corpus.threshold {
            return None;
        }
        let similarity = self.similarity(r, other);
        let similar = similarity >= self.corpus.threshold;
        self.work.similar += u64::from(similar);
        similar.then_some(similarity)
    }

    /// Of two rows that share buckets, if not with one another. Cheapest where `r` repeats.
    fn similarity(&mut self, r: usize, other: usize) -> f64 {
        let Known { size, first, common } = self.known[r];
        let common = if first as usize == other {
            common
        } else {
            if self.loaded.replace(r) != Some(r) {
                self.verifier.load((self.corpus.row)(r));
            }
            self.verifier.common((self.corpus.row)(other))
        };
        jaccard(size, self.known[other].size, common)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_hold_every_row_once_in_whatever_way_they_are_tied() {
        let mut chains = Chains::default();
        for row in 0..6 {
            chains.join(&[], row);
        }
        chains.join(&[1, 3, 5], 6);
        chains.join(&[0, 1], 7);
        let mut all: Vec<Vec<u32>> = (0..chains.heads.len()).map(|chain| chains.rows(chain).collect()).collect();
        all.iter_mut().for_each(|rows| rows.sort_unstable());
        all.sort();
        assert_eq!(all, [vec![0, 1, 3, 5, 6, 7], vec![2], vec![4]]);
    }
}
