//! Masked language modelling (Devlin et al., "BERT", NAACL 2019).

use serde::Deserialize;

use super::draw::{Draw, below, below_at, room};
use super::plan::{IGNORE_INDEX, Plan, Row, TokenOp};
use crate::error::{Error, Result};
use crate::rng::threshold;
use crate::simd::multiversion;

/// Chooses tokens with `mlm_probability`; of these a share becomes the mask token, a share a random token, the rest
/// stays. The labels are the tokens before, where one was chosen, and -100 elsewhere.
#[derive(Debug)]
pub(crate) struct MaskedLm {
    law: Law,
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

/// One roll a token decides everything: below `mask` the mask token, below `random` a random one, below `chosen` the
/// token itself.
#[derive(Debug, Clone, Copy)]
struct Law {
    mask: u32,
    random: u32,
    chosen: u32,
    mask_id: u32,
    vocab_size: u32,
    /// 2^32 modulo the vocabulary.
    unfair: u32,
}

const KIND: &str = "MaskedLM";

impl MaskedLm {
    pub(crate) fn new(parameters: Parameters) -> Result<Self> {
        let p = super::rate(KIND, "mlm_probability", parameters.mlm_probability)?;
        let mask = super::rate(KIND, "mask_replace_prob", parameters.mask_replace_prob)?;
        let random = super::rate(KIND, "random_replace_prob", parameters.random_replace_prob)?;
        if mask + random > 1.0 {
            return Err(Error::invalid(format!(
                "{KIND}: mask_replace_prob + random_replace_prob must not exceed 1 (it is {})",
                mask + random
            )));
        }
        let vocab_size = super::count(KIND, "vocab_size", parameters.vocab_size)?;
        Ok(MaskedLm {
            law: Law {
                mask: threshold(p * mask),
                random: threshold(p * (mask + random)),
                chosen: threshold(p),
                mask_id: super::token_id(KIND, "mask_id", parameters.mask_id)?,
                vocab_size,
                unfair: vocab_size.wrapping_neg() % vocab_size,
            },
        })
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
        let n = row.tokens.len();
        let (law, stream, level) = (self.law, draw.stream, draw.level);
        let (rolls, words) = draw.rolls_and_words(n, row.protected);
        let out = (room(&mut plan.out.tokens, n), room(&mut plan.labels, n), room(&mut plan.out.edited, n));
        plan.out.len = n;
        plan.marked = true;
        let (seen, again) = mask_row(level, rolls, words, row.tokens, law, out.0, out.1, out.2);
        if seen > i32::MAX as u32 {
            let token = row.tokens.iter().max().copied().unwrap_or_default();
            return Err(Error::invalid(format!("{KIND}: token {token} does not fit an int32 label")));
        }
        if again {
            for (i, (token, &roll)) in plan.out.tokens.iter_mut().zip(rolls).enumerate() {
                if law.mask <= roll && roll < law.random {
                    *token = below_at(&stream, 1, i, law.vocab_size);
                }
            }
        }
        Ok(())
    }
}

multiversion! {
    /// A row, all but the integers that must be drawn again; returns the bits that its tokens have, and whether there
    /// are such integers.
    fn mask_row(
        rolls: &[u32], words: &[u32], tokens: &[u32], law: Law, out: &mut [u32], labels: &mut [i32], edited: &mut [u8],
    ) -> (u32, bool) = mask_row_body
}

#[inline(always)]
fn mask_row_body(
    rolls: &[u32],
    words: &[u32],
    tokens: &[u32],
    law: Law,
    out: &mut [u32],
    labels: &mut [i32],
    edited: &mut [u8],
) -> (u32, bool) {
    let n = tokens.len();
    let (rolls, words, out, labels, edited) =
        (&rolls[..n], &words[..n], &mut out[..n], &mut labels[..n], &mut edited[..n]);
    let (mut seen, mut again) = (0, false);
    for i in 0..n {
        let (roll, token) = (rolls[i], tokens[i]);
        let chosen = roll < law.chosen;
        let (drawn, unfair) = below(words[i], law.vocab_size, law.unfair);
        seen |= token;
        again |= unfair & (roll < law.random);
        let kept = if roll < law.random { drawn } else { token };
        out[i] = if roll < law.mask { law.mask_id } else { kept };
        labels[i] = if chosen { token as i32 } else { IGNORE_INDEX };
        edited[i] = u8::from(chosen);
    }
    (seen, again)
}
