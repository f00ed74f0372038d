//! Local shuffling (Lample et al., "Unsupervised machine translation using monolingual corpora only", ICLR 2018).

use serde::Deserialize;

use super::draw::Draw;
use super::plan::{Plan, Row, TokenOp};
use crate::error::{Error, Result};
use crate::rng::threshold;

/// Sorts tokens by i + U(0, k + 1), so that none moves more than k places. A protected token keeps its place, and no
/// token passes it. A token that moved counts as edited.
#[derive(Debug)]
pub(crate) struct LocalShuffle {
    k: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    k: i64,
}

/// Up to this distance insertion is the faster way to sort.
const NEAR: u32 = 32;

impl LocalShuffle {
    pub(crate) fn new(parameters: Parameters) -> Result<Self> {
        let k = u32::try_from(parameters.k).ok().filter(|&k| k <= 1 << 30).ok_or_else(|| {
            Error::invalid(format!("LocalShuffle: k must lie in [0, {}] (it is {})", 1 << 30, parameters.k))
        })?;
        Ok(LocalShuffle { k })
    }
}

impl TokenOp for LocalShuffle {
    fn plan(&self, row: Row<'_>, draw: &mut Draw, plan: &mut Plan) -> Result<()> {
        let n = row.tokens.len();
        let rolls = draw.rolls(n, row.protected);
        plan.out.reserve(n);
        plan.out.copy(row.tokens, 0, n);
        plan.moved = true;
        plan.marked = true;
        let (free, step) = (threshold(1.0), u64::from(self.k) + 1);
        let source = &mut plan.out.source[..n];
        let key = |i: i32| ((i as u64) << 24) + u64::from(rolls[i as usize]) * step;
        let mut start = 0;
        while start < n {
            let end = start + rolls[start..].iter().take_while(|&&roll| roll < free).count();
            let run = &mut source[start..end];
            if self.k <= NEAR {
                for at in 1..run.len() {
                    let (one, mut to) = (run[at], at);
                    let own = key(one);
                    while to > 0 && key(run[to - 1]) > own {
                        run[to] = run[to - 1];
                        to -= 1;
                    }
                    run[to] = one;
                }
            } else {
                run.sort_by_key(|&i| key(i));
            }
            start = end + 1;
        }
        for (i, (token, edited)) in plan.out.tokens.iter_mut().zip(&mut plan.out.edited).enumerate().take(n) {
            *token = row.tokens[source[i] as usize];
            *edited = u8::from(source[i] != i as i32);
        }
        Ok(())
    }
}
