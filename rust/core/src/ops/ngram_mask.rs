//! N-gram masking (Joshi et al., "SpanBERT", TACL 2020; Lan et al., "ALBERT", ICLR 2020).

use serde::Deserialize;

use super::draw::{Draw, below_at, room};
use super::hide::{Hide, no_label};
use super::plan::{IGNORE_INDEX, Plan, Row, TokenOp};
use super::runs::{Lengths, free};
use crate::error::{Error, Result};

/// Chooses runs of tokens, as long as a law of lengths says, until a share of the row is chosen; each run becomes mask
/// tokens, random tokens, or stays, as a whole.
#[derive(Debug)]
pub(crate) struct NgramMask {
    mlm_probability: f64,
    lengths: Lengths,
    law: Hide,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    mlm_probability: f64,
    mask_id: i64,
    vocab_size: i64,
    mask_replace_prob: f64,
    random_replace_prob: f64,
    ngram_weights: Vec<f64>,
}

const KIND: &str = "NgramMask";

impl NgramMask {
    pub(crate) fn new(parameters: Parameters) -> Result<Self> {
        let Parameters { ngram_weights: mut weights, .. } = parameters;
        if let Some(i) = weights.iter().position(|w| !w.is_finite() || *w < 0.0) {
            return Err(Error::invalid(format!(
                "{KIND}: ngram_weights must be finite and not negative (ngram_weights[{i}] is {})",
                weights[i]
            )));
        }
        let total: f64 = weights.iter().sum();
        if !(total > 0.0 && total.is_finite()) {
            return Err(Error::invalid(format!("{KIND}: ngram_weights must hold a positive number")));
        }
        // No run is empty.
        weights.insert(0, 0.0);
        let shares = [parameters.mask_replace_prob, parameters.random_replace_prob];
        Ok(NgramMask {
            mlm_probability: super::rate(KIND, "mlm_probability", parameters.mlm_probability)?,
            lengths: Lengths::weighted(&weights),
            law: Hide::new(KIND, 1.0, parameters.mask_id, parameters.vocab_size, shares)?,
        })
    }
}

impl TokenOp for NgramMask {
    fn in_place(&self) -> bool {
        true
    }

    fn labels(&self) -> bool {
        true
    }

    fn plan(&self, row: Row<'_>, draw: &mut Draw, plan: &mut Plan) -> Result<()> {
        let n = row.tokens.len();
        let (stream, law) = (draw.stream, self.law);
        if row.tokens.iter().fold(0, |all, token| all | token) > i32::MAX as u32 {
            return Err(no_label(KIND, row.tokens));
        }
        let free = free(&row);
        // Rounded up or down at random, so that the share is right on average in rows of any length.
        let noise = (free as f64 * self.mlm_probability + f64::from(stream.words(3).unit())) as usize;
        let runs = draw.runs.scatter(stream, free, noise.min(free), &self.lengths).around(row.protected);

        room(&mut plan.out.tokens, n).copy_from_slice(row.tokens);
        room(&mut plan.out.edited, n).fill(0);
        room(&mut plan.labels, n).fill(IGNORE_INDEX);
        plan.out.len = n;
        plan.marked = true;
        let mut hows = stream.words(4);
        for run in runs {
            let how = hows.next_word() >> 8;
            plan.out.edited[run.clone()].fill(1);
            for i in run.clone() {
                plan.labels[i] = row.tokens[i] as i32;
                if how < law.mask {
                    plan.out.tokens[i] = law.mask_id;
                } else if how < law.random {
                    plan.out.tokens[i] = below_at(&stream, 5, i, law.vocab_size);
                }
            }
        }
        Ok(())
    }
}
