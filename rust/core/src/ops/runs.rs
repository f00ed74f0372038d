//! Runs of noise in a row: how many tokens each holds, and where it lies.

use std::ops::Range;

use super::plan::Row;
use crate::rng::{Stream, Words};

/// A law of lengths, as the cumulative shares of 2^32.
#[derive(Debug)]
pub(crate) struct Lengths {
    limits: Vec<u64>,
}

impl Lengths {
    /// Length k in proportion to `weights[k]`, of which one is positive.
    pub(crate) fn weighted(weights: &[f64]) -> Self {
        let total: f64 = weights.iter().sum();
        let mut sum = 0.0;
        let limit = |w: &f64| {
            sum += w;
            (sum / total * (1u64 << 32) as f64) as u64
        };
        let mut limits: Vec<u64> = weights.iter().map(limit).collect();
        // Where the last lengths weigh nothing, what rounding left belongs to the last that does.
        let last = weights.iter().rposition(|&w| w > 0.0).unwrap_or(0);
        limits[last..].fill(1 << 32);
        Lengths { limits }
    }

    /// The Poisson law, cut where less than 2^-40 of it is left.
    pub(crate) fn poisson(mean: f64) -> Self {
        let (mut weights, mut total) = (vec![1.0], 1.0);
        for k in 1.. {
            let weight = weights[k - 1] * mean / k as f64;
            weights.push(weight);
            total += weight;
            if k as f64 > mean && weight < total / (1u64 << 40) as f64 {
                break;
            }
        }
        Lengths::weighted(&weights)
    }

    fn draw(&self, words: &mut Words) -> usize {
        let word = u64::from(words.next_word());
        self.limits.iter().take_while(|&&limit| limit <= word).count()
    }
}

/// Runs of a row, in room that is used again from row to row.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    runs: Vec<Range<usize>>,
    lengths: Vec<usize>,
    bits: [Vec<u64>; 2],
    free: Vec<usize>,
    cut: Vec<Range<usize>>,
}

impl Runs {
    /// Runs that hold `noise` of `n` tokens: lengths are drawn until they do, the last one cut; one drawn at random goes
    /// first, the others after it in turn; and all ways to place them are equally likely.
    ///
    /// Lane 0 draws the lengths, lane 1 the places, lane 2 which one goes first. The law must give lengths above 0.
    pub(crate) fn scatter(&mut self, stream: Stream, n: usize, noise: usize, lengths: &Lengths) -> &mut Self {
        self.runs.clear();
        self.lengths.clear();
        let (mut words, mut left) = (stream.words(0), noise);
        while left > 0 {
            let length = lengths.draw(&mut words).min(left);
            self.lengths.push(length);
            left -= length;
        }
        let runs = self.lengths.len();
        if runs == 0 {
            return self;
        }
        let first = stream.words(2).below(runs as u32) as usize;
        self.lengths.rotate_left(first);
        let (places, bits) = (n - noise + runs + 1, &mut self.bits[0]);
        cuts(&mut stream.words(1), places, runs + 1, bits);
        let mut done = 0;
        for (k, (end, &length)) in ends(bits, places).zip(&self.lengths).enumerate() {
            let start = end - 1 - k + done;
            done += length;
            self.runs.push(start..start + length);
        }
        self
    }

    /// `count` runs that hold `noise` of `n` tokens: both these and the rest are cut into `count` parts, all cuts equally
    /// likely; the parts take turns, and noise comes second. Lane 0 cuts the noise, lane 1 the rest.
    pub(crate) fn alternate(&mut self, stream: Stream, n: usize, noise: usize, count: usize) -> &mut Self {
        self.runs.clear();
        if count == 0 {
            return self;
        }
        let [noise_cuts, rest_cuts] = &mut self.bits;
        cuts(&mut stream.words(0), noise, count, noise_cuts);
        cuts(&mut stream.words(1), n - noise, count, rest_cuts);
        let (mut start, mut noise_done, mut rest_done) = (0, 0, 0);
        for (noise_end, rest_end) in ends(noise_cuts, noise).zip(ends(rest_cuts, n - noise)) {
            start += rest_end - rest_done;
            let end = start + noise_end - noise_done;
            self.runs.push(start..end);
            (start, noise_done, rest_done) = (end, noise_end, rest_end);
        }
        self
    }

    /// The runs over the row where they were drawn over its free tokens: a protected token within one cuts it. An empty run
    /// lies before the free token that follows it, or behind the last one.
    pub(crate) fn around(&mut self, protected: Option<&[u8]>) -> &[Range<usize>] {
        let Some(protected) = protected else { return &self.runs };
        let Runs { runs, free, cut, .. } = self;
        free.clear();
        free.extend((0..protected.len()).filter(|&i| protected[i] == 0));
        cut.clear();
        for run in runs.iter() {
            if run.is_empty() {
                let at = free.get(run.start).copied().unwrap_or_else(|| free.last().map_or(0, |&last| last + 1));
                cut.push(at..at);
            }
            let mut fresh = true;
            for &i in &free[run.clone()] {
                match cut.last_mut() {
                    Some(last) if !fresh && last.end == i => last.end = i + 1,
                    _ => cut.push(i..i + 1),
                }
                fresh = false;
            }
        }
        cut
    }
}

/// How many tokens of a row are not protected.
pub(crate) fn free(row: &Row<'_>) -> usize {
    row.protected.map_or(row.tokens.len(), |protected| protected.iter().filter(|&&p| p == 0).count())
}

/// Chooses `parts - 1` of the `items - 1` places between items, every set equally likely, as bits (Floyd's algorithm in
/// Bentley, "A sample of brilliance", CACM 1987).
fn cuts(words: &mut Words, items: usize, parts: usize, bits: &mut Vec<u64>) {
    bits.clear();
    bits.resize(items.div_ceil(64), 0);
    for top in items - parts..items - 1 {
        let place = words.below(top as u32 + 1) as usize;
        let place = if bits[place / 64] >> (place % 64) & 1 == 1 { top } else { place };
        bits[place / 64] |= 1 << (place % 64);
    }
}

/// Where the parts end: after each chosen place, and at the end.
fn ends(bits: &[u64], items: usize) -> impl Iterator<Item = usize> + '_ {
    let inner = bits.iter().enumerate().flat_map(|(w, &word)| {
        std::iter::successors((word != 0).then_some(word), |&left| Some(left & (left - 1)).filter(|&left| left != 0))
            .map(move |left| w * 64 + left.trailing_zeros() as usize + 1)
    });
    inner.chain(std::iter::once(items))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stream(seed: u64) -> Stream {
        Stream::new(seed, 0, 1)
    }

    #[test]
    fn lengths_follow_the_poisson_law() {
        let lengths = Lengths::poisson(3.0);
        let mut words = stream(5).words(0);
        let n = 1_000_000;
        let mut counts = [0u32; 12];
        for _ in 0..n {
            counts[lengths.draw(&mut words).min(11)] += 1;
        }
        let mut share = (-3.0f64).exp();
        let (mut chi, mut rest) = (0.0, 1.0);
        for (k, &count) in counts.iter().enumerate() {
            let expected = if k == 11 { rest } else { share } * f64::from(n);
            chi += (f64::from(count) - expected).powi(2) / expected;
            rest -= share;
            share *= 3.0 / (k + 1) as f64;
        }
        // The 1e-3 quantile for eleven degrees of freedom.
        assert!(chi < 31.3, "{chi} {counts:?}");
    }

    #[test]
    fn a_weight_of_zero_is_never_drawn() {
        let lengths = Lengths::weighted(&[0.0, 1.0, 0.0, 2.0, 0.0]);
        let mut words = stream(6).words(0);
        for _ in 0..100_000 {
            assert!([1, 3].contains(&lengths.draw(&mut words)));
        }
    }

    /// One run of two among five tokens, or two of one: each place comes up as often as the next.
    #[test]
    fn places_are_equally_likely() {
        let lengths = Lengths::weighted(&[0.0, 1.0]);
        let mut counts = std::collections::BTreeMap::new();
        for seed in 0..20_000 {
            let mut runs = Runs::default();
            runs.scatter(stream(seed), 5, 2, &lengths);
            let starts: Vec<usize> = runs.around(None).iter().map(|run| run.start).collect();
            *counts.entry(starts).or_insert(0.0) += 1.0;
        }
        assert_eq!(counts.len(), 10);
        let chi: f64 = counts.values().map(|count: &f64| (count - 2000.0).powi(2) / 2000.0).sum();
        // The 1e-3 quantile for nine degrees of freedom.
        assert!(chi < 27.9, "{counts:?}");
    }

    proptest! {
        #[test]
        fn runs_hold_the_noise_in_order(seed: u64, n in 0usize..200, share in 0.0..=1.0, mean in 0.2..9.0) {
            let noise = (n as f64 * share) as usize;
            let mut room = Runs::default();
            let runs = room.scatter(stream(seed), n, noise, &Lengths::poisson(mean)).around(None);
            prop_assert_eq!(runs.iter().map(Range::len).sum::<usize>(), noise);
            prop_assert!(runs.windows(2).all(|pair| pair[0].end <= pair[1].start));
            prop_assert!(runs.last().is_none_or(|run| run.end <= n));
        }
    }
}
