//! Span corruption (Raffel et al., "Exploring the limits of transfer learning with a unified text-to-text transformer",
//! JMLR 2020), with the law of the authors' `random_spans_noise_mask`.

use std::ops::Range;

use serde::Deserialize;

use super::draw::Draw;
use super::plan::{Plan, Row, TokenOp};
use crate::error::{Error, Result};
use crate::rng::Words;

/// Cuts noise spans out of the row, puts a sentinel in the place of each, and gives them, each behind its sentinel, as
/// the targets.
#[derive(Debug)]
pub(crate) struct SpanCorruption {
    noise_density: f64,
    mean_noise_span_length: f64,
    sentinel_id: i64,
    sentinel_step: i64,
    num_sentinels: usize,
    eos_id: Option<u32>,
    inherit: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    noise_density: f64,
    mean_noise_span_length: f64,
    sentinel_id: i64,
    sentinel_step: i64,
    num_sentinels: i64,
    #[serde(default)]
    eos_id: Option<i64>,
    #[serde(default)]
    inserted: Inserted,
}

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Inserted {
    #[default]
    Ignore,
    Inherit,
}

const KIND: &str = "SpanCorruption";

impl SpanCorruption {
    pub(crate) fn new(parameters: Parameters) -> Result<Self> {
        let Parameters { mean_noise_span_length: mean, sentinel_id, sentinel_step, .. } = parameters;
        if !(1.0..=1e9).contains(&mean) {
            return Err(Error::invalid(format!("{KIND}: mean_noise_span_length must lie in [1, 1e9] (it is {mean})")));
        }
        if sentinel_step != 1 && sentinel_step != -1 {
            return Err(Error::invalid(format!("{KIND}: sentinel_step must be 1 or -1 (it is {sentinel_step})")));
        }
        let num_sentinels = super::count(KIND, "num_sentinels", parameters.num_sentinels)?;
        super::token_id(KIND, "sentinel_id", sentinel_id)?;
        let last = sentinel_id + sentinel_step * (i64::from(num_sentinels) - 1);
        super::token_id(KIND, "the last sentinel", last)?;
        Ok(SpanCorruption {
            noise_density: super::rate(KIND, "noise_density", parameters.noise_density)?,
            mean_noise_span_length: mean,
            sentinel_id,
            sentinel_step,
            num_sentinels: num_sentinels as usize,
            eos_id: parameters.eos_id.map(|id| super::token_id(KIND, "eos_id", id)).transpose()?,
            inherit: parameters.inserted == Inserted::Inherit,
        })
    }

    /// How many of `n` tokens are noise, and in how many spans. T5's numbers; one span for each sentinel at most.
    fn shape(&self, n: usize) -> (usize, usize) {
        if n < 2 || self.noise_density == 0.0 {
            return (0, 0);
        }
        let noise = ((n as f64 * self.noise_density).round_ties_even() as usize).clamp(1, n - 1);
        let spans = (noise as f64 / self.mean_noise_span_length).round_ties_even() as usize;
        (noise, spans.clamp(1, noise.min(n - noise).min(self.num_sentinels)))
    }

    fn sentinel(&self, k: usize) -> u32 {
        (self.sentinel_id + self.sentinel_step * k as i64) as u32
    }
}

impl TokenOp for SpanCorruption {
    fn targets(&self) -> bool {
        true
    }

    fn inherits(&self) -> bool {
        self.inherit
    }

    fn plan(&self, row: Row<'_>, draw: &mut Draw, plan: &mut Plan) -> Result<()> {
        let tokens = row.tokens;
        let n = tokens.len();
        let free = row.protected.map_or(n, |protected| protected.iter().filter(|&&p| p == 0).count());
        let (noise, spans) = self.shape(free);
        let mut runs = noise_runs(draw, free, noise, spans);
        if let Some(protected) = row.protected.filter(|_| free < n) {
            runs = around(&runs, protected);
        }
        runs.truncate(self.num_sentinels);

        let Plan { out, targets, moved, marked, .. } = plan;
        (*moved, *marked) = (true, true);
        out.reserve(n + runs.len() + 1);
        targets.reserve(noise + runs.len() + 2);
        let mut done = 0;
        for (k, run) in runs.iter().enumerate() {
            out.copy(tokens, done, run.start);
            out.insert(self.sentinel(k));
            targets.insert(self.sentinel(k));
            targets.copy(tokens, run.start, run.end);
            done = run.end;
        }
        if done < n {
            out.copy(tokens, done, n);
            // What is left after the last noise span has a sentinel of its own in the targets, if there is one.
            if runs.len() < self.num_sentinels {
                targets.insert(self.sentinel(runs.len()));
            }
        }
        if let Some(eos) = self.eos_id {
            out.insert(eos);
            targets.insert(eos);
        }
        Ok(())
    }
}

/// Noise spans of a row of `n` tokens: `noise` tokens and the rest are each cut into `spans` parts, all cuts equally
/// likely; the parts take turns, and noise comes second. Lane 0 cuts the noise, lane 1 the rest.
fn noise_runs(draw: &Draw, n: usize, noise: usize, spans: usize) -> Vec<Range<usize>> {
    let mut runs = Vec::with_capacity(spans);
    if spans == 0 {
        return runs;
    }
    let mut bits = [Vec::new(), Vec::new()];
    let [noise_cuts, rest_cuts] = &mut bits;
    cuts(&mut draw.stream.words(0), noise, spans, noise_cuts);
    cuts(&mut draw.stream.words(1), n - noise, spans, rest_cuts);
    let (mut start, mut noise_done, mut rest_done) = (0, 0, 0);
    for (noise_end, rest_end) in ends(noise_cuts, noise).zip(ends(rest_cuts, n - noise)) {
        start += rest_end - rest_done;
        let end = start + noise_end - noise_done;
        runs.push(start..end);
        (start, noise_done, rest_done) = (end, noise_end, rest_end);
    }
    runs
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

/// Spans over the free tokens as spans over the row; a protected token within one cuts it.
fn around(runs: &[Range<usize>], protected: &[u8]) -> Vec<Range<usize>> {
    let free: Vec<usize> = (0..protected.len()).filter(|&i| protected[i] == 0).collect();
    let mut out: Vec<Range<usize>> = Vec::new();
    for run in runs {
        let mut fresh = true;
        for &i in &free[run.clone()] {
            match out.last_mut() {
                Some(last) if !fresh && last.end == i => last.end = i + 1,
                _ => out.push(i..i + 1),
            }
            fresh = false;
        }
    }
    out
}
