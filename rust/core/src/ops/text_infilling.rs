//! Text infilling (Lewis et al., "BART: Denoising sequence-to-sequence pre-training", ACL 2020).

use serde::Deserialize;

use super::draw::Draw;
use super::plan::{Inserted, Plan, Row, TokenOp};
use super::runs::{Lengths, free};
use crate::error::{Error, Result};

/// Puts one mask token in the place of each of several spans, whose lengths are Poisson; an empty span adds a mask
/// token. The targets are the row as it was.
#[derive(Debug)]
pub(crate) struct TextInfilling {
    mask_ratio: f64,
    lengths: Lengths,
    mask_id: u32,
    inserted: Inserted,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    mask_ratio: f64,
    poisson_lambda: f64,
    mask_id: i64,
    #[serde(default)]
    inserted: Inserted,
}

const KIND: &str = "TextInfilling";

impl TextInfilling {
    pub(crate) fn new(parameters: Parameters) -> Result<Self> {
        let mean = parameters.poisson_lambda;
        if !(0.5..=100.0).contains(&mean) {
            return Err(Error::invalid(format!("{KIND}: poisson_lambda must lie in [0.5, 100] (it is {mean})")));
        }
        Ok(TextInfilling {
            mask_ratio: super::rate(KIND, "mask_ratio", parameters.mask_ratio)?,
            lengths: Lengths::poisson(mean),
            mask_id: super::token_id(KIND, "mask_id", parameters.mask_id)?,
            inserted: parameters.inserted,
        })
    }
}

impl TokenOp for TextInfilling {
    fn restores(&self) -> bool {
        true
    }

    fn inherits(&self) -> bool {
        self.inserted == Inserted::Inherit
    }

    fn plan(&self, row: Row<'_>, draw: &mut Draw, plan: &mut Plan) -> Result<()> {
        let tokens = row.tokens;
        let n = tokens.len();
        let free = free(&row);
        let noise = (free as f64 * self.mask_ratio).ceil() as usize;
        let runs = draw.runs.scatter(draw.stream, free, noise.min(free), &self.lengths).around(row.protected);
        let Plan { out, moved, marked, .. } = plan;
        (*moved, *marked) = (true, true);
        out.reserve(n + runs.len());
        let mut done = 0;
        for run in runs {
            out.copy(tokens, done, run.start);
            out.insert(self.mask_id);
            done = run.end;
        }
        out.copy(tokens, done, n);
        Ok(())
    }
}
