//! Token insertion: drawn tokens come between those that are there (Lewis et al., "BART", ACL 2020, inserts noise so).

use serde::Deserialize;

use super::draw::Draw;
use super::plan::{Inserted, Plan, Row, TokenOp};
use super::vocabulary::Vocabulary;
use crate::error::Result;
use crate::rng::threshold;

/// Puts a drawn token before (or after) each token with probability `rate`.
#[derive(Debug)]
pub(crate) struct TokenInsert {
    limit: u32,
    vocabulary: Vocabulary,
    after: bool,
    inserted: Inserted,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    rate: f64,
    #[serde(default)]
    vocab_size: Option<i64>,
    #[serde(default)]
    weights: Option<Vec<f64>>,
    side: Side,
    #[serde(default)]
    inserted: Inserted,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Side {
    Before,
    After,
}

const KIND: &str = "TokenInsert";

impl TokenInsert {
    pub(crate) fn new(parameters: Parameters) -> Result<Self> {
        Ok(TokenInsert {
            limit: threshold(super::rate(KIND, "rate", parameters.rate)?),
            vocabulary: Vocabulary::new(KIND, parameters.vocab_size, parameters.weights.as_deref())?,
            after: parameters.side == Side::After,
            inserted: parameters.inserted,
        })
    }
}

impl TokenOp for TokenInsert {
    fn inherits(&self) -> bool {
        self.inserted == Inserted::Inherit
    }

    fn plan(&self, row: Row<'_>, draw: &mut Draw, plan: &mut Plan) -> Result<()> {
        let n = row.tokens.len();
        let stream = draw.stream;
        let rolls = draw.rolls(n, row.protected);
        let Plan { out, moved, marked, .. } = plan;
        (*moved, *marked) = (true, true);
        out.reserve(2 * n);
        let mut done = 0;
        for (i, &roll) in rolls.iter().enumerate() {
            if roll < self.limit {
                let at = i + usize::from(self.after);
                out.copy(row.tokens, done, at);
                out.insert(self.vocabulary.draw(&stream, i));
                done = at;
            }
        }
        out.copy(row.tokens, done, n);
        Ok(())
    }
}
