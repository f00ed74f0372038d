//! Prefix language modelling (Raffel et al., "T5", JMLR 2020): given the start of a row, the model learns the rest.

use serde::Deserialize;

use super::draw::{Draw, room};
use super::hide::no_label;
use super::plan::{IGNORE_INDEX, Plan, Row, TokenOp};
use crate::error::{Error, Result};

/// Splits a row at a random place. What follows becomes the targets, or keeps its place and becomes the labels.
#[derive(Debug)]
pub(crate) struct PrefixLm {
    shares: [f64; 2],
    form: Form,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    min_prefix: f64,
    max_prefix: f64,
    form: Form,
}

#[derive(Debug, Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Form {
    Targets,
    Labels,
}

const KIND: &str = "PrefixLM";

impl PrefixLm {
    pub(crate) fn new(parameters: Parameters) -> Result<Self> {
        let min = super::rate(KIND, "min_prefix", parameters.min_prefix)?;
        let max = super::rate(KIND, "max_prefix", parameters.max_prefix)?;
        if min > max {
            return Err(Error::invalid(format!("{KIND}: min_prefix must not exceed max_prefix ({min} > {max})")));
        }
        Ok(PrefixLm { shares: [min, max], form: parameters.form })
    }

    /// How many of `n` tokens are the prefix: uniform between the shares, and at least one token on either side where
    /// they allow it.
    fn prefix(&self, n: usize, draw: &Draw) -> usize {
        let [min, max] = self.shares.map(|share| share * n as f64);
        let low = (min.ceil() as usize).max(1).min(n);
        let high = (max as usize).min(n.saturating_sub(1)).max(low);
        low + draw.stream.words(0).below((high - low) as u32 + 1) as usize
    }
}

impl TokenOp for PrefixLm {
    fn in_place(&self) -> bool {
        self.form == Form::Labels
    }

    fn labels(&self) -> bool {
        self.form == Form::Labels
    }

    fn targets(&self) -> bool {
        self.form == Form::Targets
    }

    fn plan(&self, row: Row<'_>, draw: &mut Draw, plan: &mut Plan) -> Result<()> {
        let tokens = row.tokens;
        let n = tokens.len();
        let free = |i: usize| row.protected.is_none_or(|protected| protected[i] == 0);
        let start = match row.protected {
            None => self.prefix(n, draw),
            Some(protected) => {
                let all = protected.iter().filter(|&&p| p == 0).count();
                let prefix = self.prefix(all, draw);
                (0..n).filter(|&i| protected[i] == 0).nth(prefix).unwrap_or(n)
            }
        };
        plan.marked = true;
        match self.form {
            Form::Labels => {
                if tokens.iter().fold(0, |all, token| all | token) > i32::MAX as u32 {
                    return Err(no_label(KIND, tokens));
                }
                room(&mut plan.out.tokens, n).copy_from_slice(tokens);
                let (edited, labels) = (room(&mut plan.out.edited, n), room(&mut plan.labels, n));
                for (i, (edited, label)) in edited.iter_mut().zip(labels).enumerate() {
                    let chosen = i >= start && free(i);
                    *edited = u8::from(chosen);
                    *label = if chosen { tokens[i] as i32 } else { IGNORE_INDEX };
                }
                plan.out.len = n;
            }
            Form::Targets => {
                let Plan { out, targets, moved, .. } = plan;
                *moved = true;
                out.reserve(n);
                targets.reserve(n - start);
                out.copy(tokens, 0, start);
                if row.protected.is_none() {
                    targets.copy(tokens, start, n);
                    return Ok(());
                }
                for i in start..n {
                    if free(i) { targets.copy(tokens, i, i + 1) } else { out.copy(tokens, i, i + 1) }
                }
            }
        }
        Ok(())
    }
}
