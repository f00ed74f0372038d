//! Token replacement: a token becomes one drawn from the vocabulary (Xie et al., "Data noising as smoothing in neural
//! network language models", ICLR 2017).

use serde::Deserialize;

use super::draw::{Draw, below_at};
use super::plan::{Plan, Row, TokenOp};
use crate::error::{Error, Result};
use crate::rng::{Stream, threshold};

/// Replaces tokens independently, by one drawn uniformly or by weight. The drawn token may be the one that was there.
#[derive(Debug)]
pub(crate) struct TokenReplace {
    rate: f64,
    law: Law,
}

#[derive(Debug)]
enum Law {
    Uniform(u32),
    Weighted(Alias),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    rate: f64,
    #[serde(default)]
    vocab_size: Option<i64>,
    #[serde(default)]
    weights: Option<Vec<f64>>,
}

const KIND: &str = "TokenReplace";

impl TokenReplace {
    pub(crate) fn new(parameters: Parameters) -> Result<Self> {
        let rate = super::rate(KIND, "rate", parameters.rate)?;
        let law = match (parameters.vocab_size, parameters.weights) {
            (Some(n), None) => Law::Uniform(super::count(KIND, "vocab_size", n)?),
            (None, Some(weights)) => Law::Weighted(Alias::new(&weights)?),
            _ => return Err(Error::invalid(format!("{KIND}: pass vocab_size or weights, one of them"))),
        };
        Ok(TokenReplace { rate, law })
    }
}

impl TokenOp for TokenReplace {
    fn in_place(&self) -> bool {
        true
    }

    fn plan(&self, row: Row<'_>, draw: &mut Draw, plan: &mut Plan) -> Result<()> {
        let n = row.tokens.len();
        let stream = draw.stream;
        let rolls = draw.rolls(n, row.protected);
        let limit = threshold(self.rate);
        plan.out.reserve(n);
        plan.out.len = n;
        plan.marked = true;
        plan.out.tokens[..n].copy_from_slice(row.tokens);
        for (edited, &roll) in plan.out.edited.iter_mut().zip(rolls) {
            *edited = u8::from(roll < limit);
        }
        for (i, (token, &roll)) in plan.out.tokens.iter_mut().zip(rolls).enumerate() {
            if roll < limit {
                *token = match &self.law {
                    Law::Uniform(size) => below_at(&stream, 1, i, *size),
                    Law::Weighted(alias) => alias.draw(&stream, i),
                };
            }
        }
        Ok(())
    }
}

/// Walker's alias method over integers (Vose 1991): one bounded integer and one comparison a draw.
#[derive(Debug)]
struct Alias {
    /// Per column: below `limit` (of 2^32) it is the column itself, else `other`.
    columns: Vec<(u64, u32)>,
}

impl Alias {
    /// Weights become integers, 2^52 for the largest, rounded and never down to 0; every probability is then right to
    /// 2^-32 of a column.
    fn new(weights: &[f64]) -> Result<Self> {
        let most = weights.iter().copied().fold(0.0, f64::max);
        if let Some(i) = weights.iter().position(|w| !w.is_finite() || *w < 0.0) {
            let w = weights[i];
            return Err(Error::invalid(format!(
                "{KIND}: weights must be finite and not negative (weights[{i}] is {w})"
            )));
        }
        if most == 0.0 || u32::try_from(weights.len()).is_err() {
            return Err(Error::invalid(format!(
                "{KIND}: weights must hold a positive number, and at most 2^32 of them"
            )));
        }
        let n = weights.len() as u128;
        let whole: Vec<u128> = weights
            .iter()
            .map(|&w| ((w / most * (1u64 << 52) as f64).round_ties_even() as u128).max(u128::from(w > 0.0)))
            .collect();
        let total: u128 = whole.iter().sum();
        let mut left: Vec<u128> = whole.iter().map(|w| w * n).collect();
        let mut columns: Vec<(u64, u32)> = (0..weights.len() as u32).map(|i| (1 << 32, i)).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..weights.len()).partition(|&i| left[i] < total);
        while let (Some(&s), Some(&l)) = (small.last(), large.last()) {
            small.pop();
            columns[s] = (((left[s] << 32) / total) as u64, l as u32);
            left[l] -= total - left[s];
            if left[l] < total {
                large.pop();
                small.push(l);
            }
        }
        Ok(Alias { columns })
    }

    /// Lane 1 decides between the column and its alias, lanes 2 and on draw the column.
    fn draw(&self, stream: &Stream, i: usize) -> u32 {
        let column = below_at(stream, 2, i, self.columns.len() as u32);
        let (limit, other) = self.columns[column as usize];
        if u64::from(stream.word(1, i)) < limit { column } else { other }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alias_draws_follow_the_weights_and_never_draw_a_zero() {
        let weights = [5.0, 0.0, 1.0, 3.0, 1e-3, 0.5];
        let alias = Alias::new(&weights).unwrap();
        let stream = Stream::new(3, 0, 1);
        let mut counts = [0u32; 6];
        let n = 300_000;
        for i in 0..n {
            counts[alias.draw(&stream, i) as usize] += 1;
        }
        assert_eq!(counts[1], 0);
        let total: f64 = weights.iter().sum();
        let chi: f64 = (0..6)
            .filter(|&i| i != 1)
            .map(|i| (weights[i] / total * n as f64, f64::from(counts[i])))
            .map(|(expected, seen)| (seen - expected).powi(2) / expected)
            .sum();
        // The 1e-6 quantile for four degrees of freedom.
        assert!(chi < 33.4, "{counts:?}: {chi}");
    }

    #[test]
    fn weights_that_make_no_law_are_refused() {
        let message = |weights: &[f64]| Alias::new(weights).unwrap_err().to_string();
        assert_eq!(message(&[1.0, -2.0]), "TokenReplace: weights must be finite and not negative (weights[1] is -2)");
        assert_eq!(message(&[0.0]), "TokenReplace: weights must hold a positive number, and at most 2^32 of them");
        assert_eq!(message(&[]), "TokenReplace: weights must hold a positive number, and at most 2^32 of them");
    }
}
