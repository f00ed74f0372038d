//! The mixture of denoisers (Tay et al., "UL2: Unifying language learning paradigms", ICLR 2023).

use serde::Deserialize;

use super::compose::limits;
use super::draw::Draw;
use super::plan::{Inserted, Plan, Row, TokenOp};
use super::span_corruption::{self, SpanCorruption};
use crate::error::{Error, Result};

/// Corrupts each row by one of seven span corruptions: regular (R), sequential (S: the end of the row is one span) and
/// extreme (X) ones, each kind announced by a token of its own.
#[derive(Debug)]
pub(crate) struct Ul2 {
    denoisers: Vec<SpanCorruption>,
    limits: Vec<u32>,
    inserted: Inserted,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    weights: Vec<f64>,
    #[serde(default)]
    r_id: Option<i64>,
    #[serde(default)]
    s_id: Option<i64>,
    #[serde(default)]
    x_id: Option<i64>,
    sentinel_id: i64,
    sentinel_step: i64,
    num_sentinels: i64,
    #[serde(default)]
    eos_id: Option<i64>,
    #[serde(default)]
    inserted: Inserted,
}

const KIND: &str = "UL2";
/// Noise density and mean length of a span, by kind: table 1 of the paper. One span always ends the row.
const SETTINGS: [&[(f64, f64)]; 3] =
    [&[(0.15, 3.0), (0.15, 8.0)], &[(0.25, 1e9)], &[(0.5, 3.0), (0.5, 8.0), (0.15, 64.0), (0.5, 64.0)]];

impl Ul2 {
    pub(crate) fn new(parameters: Parameters) -> Result<Self> {
        let Parameters { weights, r_id, s_id, x_id, sentinel_id, sentinel_step, num_sentinels, .. } = parameters;
        if weights.len() != 3 {
            let n = weights.len();
            return Err(Error::invalid(format!("{KIND}: weights must hold three numbers, of R, S and X ({n})")));
        }
        for (name, id) in [("r_id", r_id), ("s_id", s_id), ("x_id", x_id)] {
            id.map(|id| super::token_id(KIND, name, id)).transpose()?;
        }
        let (mut denoisers, mut each) = (Vec::new(), Vec::new());
        for ((settings, weight), id) in SETTINGS.into_iter().zip(&weights).zip([r_id, s_id, x_id]) {
            for &(noise_density, mean_noise_span_length) in settings {
                each.push(weight / settings.len() as f64);
                denoisers.push(SpanCorruption::of(
                    KIND,
                    span_corruption::Parameters {
                        noise_density,
                        mean_noise_span_length,
                        sentinel_id,
                        sentinel_step,
                        num_sentinels,
                        prefix_id: id,
                        eos_id: parameters.eos_id,
                        inserted: parameters.inserted,
                    },
                )?);
            }
        }
        limits(KIND, &weights, 3)?;
        Ok(Ul2 { denoisers, limits: limits(KIND, &each, each.len())?, inserted: parameters.inserted })
    }
}

impl TokenOp for Ul2 {
    fn targets(&self) -> bool {
        true
    }

    fn inherits(&self) -> bool {
        self.inserted == Inserted::Inherit
    }

    fn plan(&self, row: Row<'_>, draw: &mut Draw, plan: &mut Plan) -> Result<()> {
        let roll = draw.stream.word(2, 0) >> 8;
        self.denoisers[self.limits.partition_point(|&limit| limit <= roll)].plan(row, draw, plan)
    }
}
