//! Masked language modelling (Devlin et al., "BERT", NAACL 2019).

use serde::Deserialize;

use super::draw::Draw;
use super::hide::Hide;
use super::plan::{Plan, Row, TokenOp};
use crate::error::Result;

/// Chooses tokens with `mlm_probability`; of these a share becomes the mask token, a share a random token, the rest
/// stays. The labels are the tokens before, where one was chosen, and -100 elsewhere.
#[derive(Debug)]
pub(crate) struct MaskedLm {
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
}

const KIND: &str = "MaskedLM";

impl MaskedLm {
    pub(crate) fn new(parameters: Parameters) -> Result<Self> {
        let p = super::rate(KIND, "mlm_probability", parameters.mlm_probability)?;
        let shares = [parameters.mask_replace_prob, parameters.random_replace_prob];
        Ok(MaskedLm { law: Hide::new(KIND, p, parameters.mask_id, parameters.vocab_size, shares)? })
    }
}

impl TokenOp for MaskedLm {
    fn in_place(&self) -> bool {
        true
    }

    fn labels(&self) -> bool {
        true
    }

    fn plan(&self, row: Row<'_>, draw: &mut Draw, plan: &mut Plan) -> Result<()> {
        let (stream, level) = (draw.stream, draw.level);
        let (rolls, words) = draw.rolls_and_words(row.tokens.len(), row.protected);
        self.law.row(KIND, level, row.tokens, rolls, (words, stream, 1), plan)
    }
}
