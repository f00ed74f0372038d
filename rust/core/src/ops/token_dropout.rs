//! Token dropout: every token goes with probability `rate`.

use serde::Deserialize;

use super::draw::Draw;
use super::plan::{Plan, Row, TokenOp};
use crate::error::Result;
use crate::rng::threshold;

/// Drops tokens independently. A row that would lose all of its tokens keeps the one whose roll was highest, so that no
/// row becomes empty.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenDropout {
    rate: f64,
}

impl TokenDropout {
    pub(crate) fn new(op: Self) -> Result<Self> {
        super::rate("TokenDropout", "rate", op.rate)?;
        Ok(op)
    }
}

impl TokenOp for TokenDropout {
    fn plan(&self, row: Row<'_>, draw: &mut Draw, plan: &mut Plan) -> Result<()> {
        let n = row.tokens.len();
        let rolls = draw.rolls(n, row.protected);
        let limit = threshold(self.rate);
        plan.out.reserve(n);
        plan.moved = true;
        let (tokens, source) = (&mut plan.out.tokens[..n], &mut plan.out.source[..n]);
        let mut kept = 0;
        for (i, (&roll, &token)) in rolls.iter().zip(row.tokens).enumerate() {
            // Written always and kept sometimes: a branch here would be missed once in every few tokens.
            tokens[kept] = token;
            source[kept] = i as i32;
            kept += usize::from(roll >= limit);
        }
        if kept == 0 && n > 0 {
            let mut best = 0;
            for (i, roll) in rolls.iter().enumerate() {
                if *roll > rolls[best] {
                    best = i;
                }
            }
            tokens[0] = row.tokens[best];
            source[0] = best as i32;
            kept = 1;
        }
        plan.out.len = kept;
        Ok(())
    }
}
