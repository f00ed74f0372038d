//! Span corruption (Raffel et al., "Exploring the limits of transfer learning with a unified text-to-text transformer",
//! JMLR 2020), with the law of the authors' `random_spans_noise_mask`.

use serde::Deserialize;

use super::draw::Draw;
use super::plan::{Inserted, Plan, Row, TokenOp};
use super::runs::free;
use crate::error::{Error, Result};

/// Cuts noise spans out of the row, puts a sentinel in the place of each, and gives them, each behind its sentinel, as
/// the targets.
#[derive(Debug)]
pub(crate) struct SpanCorruption {
    noise_density: f64,
    mean_noise_span_length: f64,
    sentinel_id: i64,
    sentinel_step: i64,
    num_sentinels: usize,
    prefix_id: Option<u32>,
    eos_id: Option<u32>,
    inserted: Inserted,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    pub(crate) noise_density: f64,
    pub(crate) mean_noise_span_length: f64,
    pub(crate) sentinel_id: i64,
    pub(crate) sentinel_step: i64,
    pub(crate) num_sentinels: i64,
    #[serde(default)]
    pub(crate) prefix_id: Option<i64>,
    #[serde(default)]
    pub(crate) eos_id: Option<i64>,
    #[serde(default)]
    pub(crate) inserted: Inserted,
}

const KIND: &str = "SpanCorruption";

impl SpanCorruption {
    pub(crate) fn new(parameters: Parameters) -> Result<Self> {
        Self::of(KIND, parameters)
    }

    /// The same as a part of the op `kind`, which errors name.
    pub(crate) fn of(kind: &str, parameters: Parameters) -> Result<Self> {
        let Parameters { mean_noise_span_length: mean, sentinel_id, sentinel_step, .. } = parameters;
        if !(1.0..=1e9).contains(&mean) {
            return Err(Error::invalid(format!("{kind}: mean_noise_span_length must lie in [1, 1e9] (it is {mean})")));
        }
        if sentinel_step != 1 && sentinel_step != -1 {
            return Err(Error::invalid(format!("{kind}: sentinel_step must be 1 or -1 (it is {sentinel_step})")));
        }
        let num_sentinels = super::count(kind, "num_sentinels", parameters.num_sentinels)?;
        super::token_id(kind, "sentinel_id", sentinel_id)?;
        let last = sentinel_id + sentinel_step * (i64::from(num_sentinels) - 1);
        super::token_id(kind, "sentinel_id + sentinel_step * (num_sentinels - 1)", last)?;
        Ok(SpanCorruption {
            noise_density: super::rate(kind, "noise_density", parameters.noise_density)?,
            mean_noise_span_length: mean,
            sentinel_id,
            sentinel_step,
            num_sentinels: num_sentinels as usize,
            prefix_id: parameters.prefix_id.map(|id| super::token_id(kind, "prefix_id", id)).transpose()?,
            eos_id: parameters.eos_id.map(|id| super::token_id(kind, "eos_id", id)).transpose()?,
            inserted: parameters.inserted,
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
        self.inserted == Inserted::Inherit
    }

    fn plan(&self, row: Row<'_>, draw: &mut Draw, plan: &mut Plan) -> Result<()> {
        let tokens = row.tokens;
        let n = tokens.len();
        let free = free(&row);
        let (noise, spans) = self.shape(free);
        let runs = draw.runs.alternate(draw.stream, free, noise, spans).around(row.protected);
        let runs = &runs[..runs.len().min(self.num_sentinels)];

        let Plan { out, targets, moved, marked, .. } = plan;
        (*moved, *marked) = (true, true);
        out.reserve(n + runs.len() + 2);
        targets.reserve(noise + runs.len() + 2);
        if let Some(prefix) = self.prefix_id {
            out.insert(prefix);
        }
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
