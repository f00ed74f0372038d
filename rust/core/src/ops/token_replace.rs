//! Token replacement: a token becomes one drawn from the vocabulary (Xie et al., "Data noising as smoothing in neural
//! network language models", ICLR 2017).

use serde::Deserialize;

use super::draw::Draw;
use super::plan::{Plan, Row, TokenOp};
use super::vocabulary::Vocabulary;
use crate::error::{Error, Result};
use crate::rng::threshold;

/// Replaces tokens independently, by one drawn uniformly or by weight. The drawn token may be the one that was there.
#[derive(Debug)]
pub(crate) struct TokenReplace {
    rate: Rate,
    vocabulary: Vocabulary,
}

/// How likely a token is replaced, as a threshold.
#[derive(Debug)]
enum Rate {
    Same(u32),
    /// By token id; an id beyond is never replaced.
    Each(Vec<u32>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    rate: f64,
    #[serde(default)]
    vocab_size: Option<i64>,
    #[serde(default)]
    weights: Option<Vec<f64>>,
    #[serde(default)]
    rates: Option<Vec<f64>>,
}

const KIND: &str = "TokenReplace";

impl TokenReplace {
    pub(crate) fn new(parameters: Parameters) -> Result<Self> {
        let rate = super::rate(KIND, "rate", parameters.rate)?;
        let vocabulary = Vocabulary::new(KIND, parameters.vocab_size, parameters.weights.as_deref())?;
        let Some(rates) = parameters.rates else {
            return Ok(TokenReplace { rate: Rate::Same(threshold(rate)), vocabulary });
        };
        if let Some(i) = rates.iter().position(|own| !(0.0..=1.0).contains(own)) {
            return Err(Error::invalid(format!("{KIND}: rates must lie in [0, 1] (rates[{i}] is {})", rates[i])));
        }
        let each = rates.into_iter().map(|own| threshold(rate * own)).collect();
        Ok(TokenReplace { rate: Rate::Each(each), vocabulary })
    }
}

impl TokenOp for TokenReplace {
    fn in_place(&self) -> bool {
        true
    }

    fn plan(&self, row: Row<'_>, draw: &mut Draw, plan: &mut Plan) -> Result<()> {
        let n = row.tokens.len();
        let stream = draw.stream;
        let rolls = draw.rolls(n, row.protected);
        plan.out.reserve(n);
        plan.out.len = n;
        plan.marked = true;
        plan.out.tokens[..n].copy_from_slice(row.tokens);
        let edited = &mut plan.out.edited[..n];
        match &self.rate {
            Rate::Same(limit) => {
                for (edited, &roll) in edited.iter_mut().zip(rolls) {
                    *edited = u8::from(roll < *limit);
                }
            }
            Rate::Each(limits) => {
                for ((edited, &roll), &token) in edited.iter_mut().zip(rolls).zip(row.tokens) {
                    *edited = u8::from(roll < limits.get(token as usize).copied().unwrap_or(0));
                }
            }
        }
        for (i, (token, &edited)) in plan.out.tokens.iter_mut().zip(&plan.out.edited[..n]).enumerate() {
            if edited == 1 {
                *token = self.vocabulary.draw(&stream, i);
            }
        }
        Ok(())
    }
}
