//! The law that noise draws tokens from.

use super::draw::below_at;
use crate::error::{Error, Result};
use crate::rng::Stream;

/// A distribution over token ids.
#[derive(Debug)]
pub(crate) enum Vocabulary {
    /// All ids below a number, equally likely.
    Uniform(u32),
    Weighted(Alias),
}

impl Vocabulary {
    pub(crate) fn new(kind: &str, vocab_size: Option<i64>, weights: Option<&[f64]>) -> Result<Self> {
        match (vocab_size, weights) {
            (Some(n), None) => Ok(Vocabulary::Uniform(super::count(kind, "vocab_size", n)?)),
            (None, Some(weights)) => Ok(Vocabulary::Weighted(Alias::new(kind, weights)?)),
            _ => Err(Error::invalid(format!("{kind}: pass vocab_size or weights, one of them"))),
        }
    }

    /// The token for position `i`, from lane 1 and those after it.
    #[inline]
    pub(crate) fn draw(&self, stream: &Stream, i: usize) -> u32 {
        match self {
            Vocabulary::Uniform(size) => below_at(stream, 1, i, *size),
            Vocabulary::Weighted(alias) => alias.draw(stream, i),
        }
    }
}

/// Walker's alias method over integers (Vose 1991): one bounded integer and one comparison a draw.
#[derive(Debug)]
pub(crate) struct Alias {
    /// Per column: below `limit` (of 2^32) it is the column itself, else `other`.
    columns: Vec<(u64, u32)>,
}

impl Alias {
    /// Weights become integers, 2^52 for the largest, rounded and never down to 0; every probability is then right to
    /// 2^-32 of a column.
    fn new(kind: &str, weights: &[f64]) -> Result<Self> {
        let most = weights.iter().copied().fold(0.0, f64::max);
        if let Some(i) = weights.iter().position(|w| !w.is_finite() || *w < 0.0) {
            let w = weights[i];
            return Err(Error::invalid(format!(
                "{kind}: weights must be finite and not negative (weights[{i}] is {w})"
            )));
        }
        if most == 0.0 || u32::try_from(weights.len()).is_err() {
            return Err(Error::invalid(format!(
                "{kind}: weights must hold a positive number, and at most 2^32 of them"
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
        let alias = Alias::new("TokenReplace", &weights).unwrap();
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
        let message = |weights: &[f64]| Alias::new("TokenReplace", weights).unwrap_err().to_string();
        assert_eq!(message(&[1.0, -2.0]), "TokenReplace: weights must be finite and not negative (weights[1] is -2)");
        assert_eq!(message(&[0.0]), "TokenReplace: weights must hold a positive number, and at most 2^32 of them");
        assert_eq!(message(&[]), "TokenReplace: weights must hold a positive number, and at most 2^32 of them");
    }
}
