//! Whole-word masking (Devlin et al., the "Whole Word Masking" models of BERT, 2019; Cui et al., 2021).

use serde::Deserialize;

use super::draw::Draw;
use super::hide::{Hide, NEVER};
use super::plan::{Plan, Row, TokenOp};
use crate::error::Result;
use crate::rng::threshold;

/// Chooses words with `mlm_probability`, by the roll of their first token, and hides all of their tokens, each by a
/// roll of its own. A word is a run of equal numbers in a column; a negative number is no word.
#[derive(Debug)]
pub(crate) struct WholeWordMask {
    limit: u32,
    law: Hide,
    word_ids: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    mlm_probability: f64,
    mask_id: i64,
    vocab_size: i64,
    mask_replace_prob: f64,
    random_replace_prob: f64,
    word_ids: String,
}

const KIND: &str = "WholeWordMask";

impl WholeWordMask {
    pub(crate) fn new(parameters: Parameters) -> Result<Self> {
        let p = super::rate(KIND, "mlm_probability", parameters.mlm_probability)?;
        let shares = [parameters.mask_replace_prob, parameters.random_replace_prob];
        Ok(WholeWordMask {
            limit: threshold(p),
            law: Hide::new(KIND, 1.0, parameters.mask_id, parameters.vocab_size, shares)?,
            word_ids: parameters.word_ids,
        })
    }
}

impl TokenOp for WholeWordMask {
    fn in_place(&self) -> bool {
        true
    }

    fn labels(&self) -> bool {
        true
    }

    fn reads(&self) -> Option<(&str, usize)> {
        Some((&self.word_ids, 4))
    }

    fn plan(&self, row: Row<'_>, draw: &mut Draw, plan: &mut Plan) -> Result<()> {
        let n = row.tokens.len();
        let (stream, level) = (draw.stream, draw.level);
        let [wheres, hows, words] = draw.lanes(n);
        let ids = &row.column.as_chunks::<4>().0[..n];
        let mut start = 0;
        while start < n {
            let end = start + ids[start..].iter().take_while(|id| **id == ids[start]).count();
            let chosen = wheres[start] >> 8 < self.limit
                && i32::from_ne_bytes(ids[start]) >= 0
                && row.protected.is_none_or(|protected| protected[start..end].iter().all(|&p| p == 0));
            for how in &mut hows[start..end] {
                *how = if chosen { *how >> 8 } else { NEVER };
            }
            start = end;
        }
        self.law.row(KIND, level, row.tokens, hows, (words, stream, 2), plan)
    }
}
