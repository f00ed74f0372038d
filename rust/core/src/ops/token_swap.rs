//! Token swap: neighbours change places.

use serde::Deserialize;

use super::draw::Draw;
use super::plan::{Plan, Row, TokenOp};
use crate::error::Result;
use crate::rng::threshold;

/// Walks the row from the left; a token changes places with its right neighbour with probability `rate`, and a pair that
/// did is passed over, so no token moves further than one place. Both tokens of a pair count as edited.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenSwap {
    rate: f64,
}

impl TokenSwap {
    pub(crate) fn new(op: Self) -> Result<Self> {
        super::rate("TokenSwap", "rate", op.rate)?;
        Ok(op)
    }
}

impl TokenOp for TokenSwap {
    fn plan(&self, row: Row<'_>, draw: &mut Draw, plan: &mut Plan) -> Result<()> {
        let n = row.tokens.len();
        let rolls = draw.rolls(n, row.protected);
        let limit = threshold(self.rate);
        plan.out.reserve(n);
        plan.out.copy(row.tokens, 0, n);
        plan.moved = true;
        plan.marked = true;
        let free = |i: usize| row.protected.is_none_or(|protected| protected[i] == 0);
        let mut i = 0;
        while i + 1 < n {
            if rolls[i] < limit && free(i + 1) {
                plan.out.tokens.swap(i, i + 1);
                plan.out.source.swap(i, i + 1);
                plan.out.edited[i..i + 2].fill(1);
                i += 1;
            }
            i += 1;
        }
        Ok(())
    }
}
