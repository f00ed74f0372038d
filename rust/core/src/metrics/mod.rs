//! Measures of a corpus, against the real data that it should resemble.
//!
//! Model collapse shows first in the tail: rare types vanish while their mass, a martingale under resampling, stays the
//! same in the mean. So the tail is measured by how many of its types are still there.

mod counts;

use std::collections::HashSet;

pub use counts::Counts;

use crate::Ragged;
use crate::error::{Error, Result};
use crate::identity::hash128;
use crate::par::map_rows;

const GRAIN: usize = 1 << 16;

/// The measures of one corpus.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measures {
    /// Number of rows.
    pub rows: u64,
    /// Number of tokens.
    pub tokens: u64,
    /// Number of different tokens.
    pub types: u64,
    /// Shannon entropy of the token distribution, in bits; 0 for no tokens.
    pub entropy: f64,
    /// Share of the reference's types that occur; nothing without a reference.
    pub coverage: Option<f64>,
    /// Share of the reference's tail types that occur; nothing without a reference, or if it has no tail.
    pub tail_coverage: Option<f64>,
    /// Share of rows that repeat an earlier row token by token; 0 for no rows.
    pub duplicate_share: f64,
}

/// Measures a corpus in parts; the result is that of the whole, in any order and split.
///
/// Holds eight bytes for each token id up to the highest (below 2^18; a map above), and about 32 bytes for each
/// different row.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    counts: Counts,
    seen: HashSet<u128>,
}

impl Meter {
    /// Takes rows in. Cost: a SHA-256 of each row and one increment a token.
    pub fn add(&mut self, rows: Ragged<'_, u32>) {
        self.counts.add(rows);
        let hashes = map_rows(rows.offsets(), GRAIN, |range| {
            let mut bytes = Vec::new();
            let hash = |r| {
                bytes.clear();
                bytes.extend(rows.row(r).iter().flat_map(|token| token.to_le_bytes()));
                u128::from_le_bytes(hash128([&bytes[..]]))
            };
            range.map(hash).collect::<Vec<_>>()
        });
        self.seen.extend(hashes.into_iter().flatten());
    }

    /// Takes in what `other` has.
    ///
    /// # Errors
    /// If the sums exceed 64 bits; nothing is taken.
    pub fn merge(&mut self, other: &Meter) -> Result<()> {
        self.counts.merge(&other.counts)?;
        self.seen.extend(&other.seen);
        Ok(())
    }

    /// The token counts of what was taken in.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The measures of what was taken in, against `reference` if there is one.
    ///
    /// # Errors
    /// If the reference has no tokens.
    pub fn measures(&self, reference: Option<&Counts>) -> Result<Measures> {
        Measures::new(&self.counts, self.seen.len() as u64, reference)
    }
}

impl Measures {
    /// The measures of a corpus with these counts and this many different rows.
    ///
    /// # Errors
    /// If the reference has no tokens, or there are more different rows than rows.
    pub fn new(counts: &Counts, distinct: u64, reference: Option<&Counts>) -> Result<Self> {
        let Counted { coverage, tail_coverage } = match reference {
            Some(reference) if reference.tokens() == 0 => {
                return Err(Error::invalid("reference has no tokens: build it from the real data first"));
            }
            Some(reference) => Counted::new(counts, reference),
            None => Counted { coverage: None, tail_coverage: None },
        };
        let rows = counts.rows();
        let Some(repeated) = rows.checked_sub(distinct) else {
            return Err(Error::invalid(format!("there cannot be {distinct} different rows among {rows}")));
        };
        Ok(Measures {
            rows,
            tokens: counts.tokens(),
            types: counts.types(),
            entropy: entropy(counts),
            coverage,
            tail_coverage,
            duplicate_share: share(repeated, rows).unwrap_or(0.0),
        })
    }
}

struct Counted {
    coverage: Option<f64>,
    tail_coverage: Option<f64>,
}

impl Counted {
    fn new(counts: &Counts, reference: &Counts) -> Self {
        let there = |types: &[u32]| {
            let found = types.iter().filter(|&&token| counts.of(token) > 0).count();
            share(found as u64, types.len() as u64)
        };
        let all: Vec<u32> = reference.sorted().into_iter().map(|(token, _)| token).collect();
        Counted { coverage: there(&all), tail_coverage: there(&reference.tail()) }
    }
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// `sum p log2(1/p)`, lowest token first. All terms are positive, and `ln_1p` keeps the digits of a `p` near 1.
fn entropy(counts: &Counts) -> f64 {
    let total = counts.tokens() as f64;
    let term = |(_, count): (u32, u64)| {
        let others = (counts.tokens() - count) as f64;
        count as f64 / total * (others / count as f64).ln_1p() * std::f64::consts::LOG2_E
    };
    // Neumaier's sum: the error does not grow with the number of types.
    let (mut sum, mut lost) = (0.0f64, 0.0f64);
    for x in counts.sorted().into_iter().map(term) {
        let next = sum + x;
        lost += if sum >= x { (sum - next) + x } else { (x - next) + sum };
        sum = next;
    }
    sum + lost
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RaggedBuf;
    use proptest::prelude::*;

    fn pack(rows: &[Vec<u32>]) -> RaggedBuf<u32> {
        let mut buf = RaggedBuf::default();
        for row in rows {
            buf.values.extend_from_slice(row);
            buf.end_row();
        }
        buf
    }

    fn meter(rows: &[Vec<u32>]) -> Meter {
        let mut meter = Meter::default();
        meter.add(pack(rows).view());
        meter
    }

    #[test]
    fn golden_vectors() {
        let cases: Vec<serde_json::Value> =
            serde_json::from_str(include_str!("../../../../tests/vectors/collapse.json")).expect("JSON");
        assert!(!cases.is_empty());
        for case in cases {
            let rows = |name: &str| serde_json::from_value::<Option<Vec<Vec<u32>>>>(case[name].clone()).unwrap();
            let reference = rows("reference").map(|rows| meter(&rows));
            let got = meter(&rows("rows").unwrap());
            let Measures { rows, tokens, types, entropy, coverage, tail_coverage, duplicate_share } =
                got.measures(reference.as_ref().map(Meter::counts)).unwrap();
            let expected = &case["measures"];
            assert_eq!([rows, tokens, types], ["rows", "tokens", "types"].map(|name| expected[name].as_u64().unwrap()));
            let near = |got: Option<f64>, name: &str| match (got, expected[name].as_f64()) {
                (Some(got), Some(expected)) => (got - expected).abs() <= 1e-9 * expected,
                (got, expected) => got == expected,
            };
            assert!(near(Some(entropy), "entropy") && near(Some(duplicate_share), "duplicate_share"));
            assert!(near(coverage, "coverage") && near(tail_coverage, "tail_coverage"));
            assert_eq!(serde_json::to_value(got.counts().tail()).unwrap(), case["tail"]);
            let bytes: String = got.counts().to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(bytes, case["sketch"]);
        }
    }

    #[test]
    fn closed_forms() {
        let uniform = meter(&[(0..1024).collect()]);
        assert_eq!(uniform.measures(None).unwrap().entropy, 10.0);
        let one = meter(&[vec![7; 99], vec![7; 99]]).measures(None).unwrap();
        assert_eq!((one.entropy, one.types, one.duplicate_share), (0.0, 1, 0.5));
        let none = Meter::default().measures(None).unwrap();
        assert_eq!((none.rows, none.tokens, none.entropy, none.duplicate_share), (0, 0, 0.0, 0.0));
        assert_eq!((none.coverage, none.tail_coverage), (None, None));
    }

    /// One token in 2^40 is of another kind: a difference of logarithms would lose all digits of this entropy.
    #[test]
    fn entropy_keeps_its_digits_where_it_is_tiny() {
        let mut counts = meter(&[vec![1]]).counts().clone();
        for _ in 0..40 {
            let twice = counts.clone();
            counts.merge(&twice).unwrap();
        }
        counts.merge(meter(&[vec![2]]).counts()).unwrap();
        let expected = (40.0 + std::f64::consts::LOG2_E) / (1u64 << 40) as f64;
        assert!((entropy(&counts) / expected - 1.0).abs() < 1e-10, "{} against {expected}", entropy(&counts));
    }

    #[test]
    fn coverage_counts_types_of_the_reference() {
        let mut real = vec![1; 95];
        real.extend([2, 3, 4, 5, 6]);
        let reference = meter(&[real]).counts().clone();
        let measures = meter(&[vec![1, 2, 2, 99], vec![3]]).measures(Some(&reference)).unwrap();
        assert_eq!((measures.coverage, measures.tail_coverage), (Some(0.5), Some(0.4)));
        let flat = meter(&[vec![1]]).counts().clone();
        let measures = meter(&[vec![2]]).measures(Some(&flat)).unwrap();
        assert_eq!((measures.coverage, measures.tail_coverage), (Some(0.0), None));
        let error = meter(&[vec![2]]).measures(Some(&Counts::default())).unwrap_err();
        assert_eq!(error.to_string(), "reference has no tokens: build it from the real data first");
    }

    proptest! {
        #[test]
        fn measures_do_not_depend_on_split_order_or_threads(
            rows in prop::collection::vec(prop::collection::vec(prop_oneof![0u32..5, any::<u32>()], 0..6), 0..40), cut: prop::sample::Index,
        ) {
            let cut = cut.index(rows.len() + 1);
            let whole = meter(&rows);
            let mut parts = meter(&rows[cut..]);
            parts.add(pack(&rows[..cut]).view());
            let mut merged = meter(&rows[cut..]);
            merged.merge(&meter(&rows[..cut])).unwrap();
            let reference = meter(&rows[cut..]);
            let reference = (reference.counts().tokens() > 0).then(|| reference.counts());
            let expected = whole.measures(reference).unwrap();
            prop_assert_eq!(parts.measures(reference).unwrap(), expected);
            prop_assert_eq!(merged.measures(reference).unwrap(), expected);
            let distinct: std::collections::BTreeSet<_> = rows.iter().collect();
            let repeats = (rows.len() - distinct.len()) as f64;
            prop_assert_eq!(expected.duplicate_share, if rows.is_empty() { 0.0 } else { repeats / rows.len() as f64 });
        }
    }
}
