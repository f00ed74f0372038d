//! Token masking: tokens become the mask token ("blank noising" of Xie et al., "Data noising as smoothing in neural
//! network language models", ICLR 2017).

use serde::Deserialize;

use super::draw::{Draw, room};
use super::plan::{Plan, Row, TokenOp};
use crate::error::Result;
use crate::rng::threshold;
use crate::simd::multiversion;

/// Replaces tokens independently by one token, with probability `rate`.
#[derive(Debug)]
pub(crate) struct TokenMask {
    limit: u32,
    mask_id: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    rate: f64,
    mask_id: i64,
}

const KIND: &str = "TokenMask";

impl TokenMask {
    pub(crate) fn new(parameters: Parameters) -> Result<Self> {
        Ok(TokenMask {
            limit: threshold(super::rate(KIND, "rate", parameters.rate)?),
            mask_id: super::token_id(KIND, "mask_id", parameters.mask_id)?,
        })
    }
}

impl TokenOp for TokenMask {
    fn in_place(&self) -> bool {
        true
    }

    fn plan(&self, row: Row<'_>, draw: &mut Draw, plan: &mut Plan) -> Result<()> {
        let n = row.tokens.len();
        let level = draw.level;
        let rolls = draw.rolls(n, row.protected);
        let (out, edited) = (room(&mut plan.out.tokens, n), room(&mut plan.out.edited, n));
        mask_row(level, rolls, row.tokens, self.limit, self.mask_id, out, edited);
        plan.out.len = n;
        plan.marked = true;
        Ok(())
    }
}

multiversion! {
    fn mask_row(
        rolls: &[u32], tokens: &[u32], limit: u32, mask_id: u32, out: &mut [u32], edited: &mut [u8],
    ) = mask_row_body
}

#[inline(always)]
fn mask_row_body(rolls: &[u32], tokens: &[u32], limit: u32, mask_id: u32, out: &mut [u32], edited: &mut [u8]) {
    let n = tokens.len();
    let (rolls, out, edited) = (&rolls[..n], &mut out[..n], &mut edited[..n]);
    for i in 0..n {
        let hit = rolls[i] < limit;
        out[i] = if hit { mask_id } else { tokens[i] };
        edited[i] = u8::from(hit);
    }
}
