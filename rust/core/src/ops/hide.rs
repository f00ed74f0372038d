//! What an objective puts in the place of a token that it chose, and the labels that go with it.

use super::draw::{below, below_at, room};
use super::plan::{IGNORE_INDEX, Plan};
use crate::error::{Error, Result};
use crate::rng::{Stream, threshold};
use crate::simd::{Level, multiversion};

/// One roll a token decides everything: below `mask` the mask token, below `random` a random one, below `chosen` the
/// token itself; above, the token was not chosen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hide {
    pub(crate) mask: u32,
    pub(crate) random: u32,
    pub(crate) chosen: u32,
    pub(crate) mask_id: u32,
    pub(crate) vocab_size: u32,
    /// 2^32 modulo the vocabulary.
    unfair: u32,
}

/// A roll that no threshold exceeds.
pub(crate) const NEVER: u32 = 1 << 24;

impl Hide {
    /// The law of an op that chooses with probability `p`; `shares` are those of mask and random tokens.
    pub(crate) fn new(kind: &str, p: f64, mask_id: i64, vocab_size: i64, shares: [f64; 2]) -> Result<Self> {
        let mask = super::rate(kind, "mask_replace_prob", shares[0])?;
        let random = super::rate(kind, "random_replace_prob", shares[1])?;
        if mask + random > 1.0 {
            return Err(Error::invalid(format!(
                "{kind}: mask_replace_prob + random_replace_prob must not exceed 1 (it is {})",
                mask + random
            )));
        }
        let vocab_size = super::count(kind, "vocab_size", vocab_size)?;
        Ok(Hide {
            mask: threshold(p * mask),
            random: threshold(p * (mask + random)),
            chosen: threshold(p),
            mask_id: super::token_id(kind, "mask_id", mask_id)?,
            vocab_size,
            unfair: vocab_size.wrapping_neg() % vocab_size,
        })
    }

    /// Plans a row from a roll and a word per token; `words` are those of lane `first`.
    pub(crate) fn row(
        self,
        kind: &str,
        level: Level,
        tokens: &[u32],
        rolls: &[u32],
        (words, stream, first): (&[u32], Stream, u32),
        plan: &mut Plan,
    ) -> Result<()> {
        let n = tokens.len();
        let out = (room(&mut plan.out.tokens, n), room(&mut plan.labels, n), room(&mut plan.out.edited, n));
        plan.out.len = n;
        plan.marked = true;
        let (seen, again) = hide_row(level, rolls, words, tokens, self, out.0, out.1, out.2);
        if seen > i32::MAX as u32 {
            return Err(no_label(kind, tokens));
        }
        if again {
            for (i, (token, &roll)) in plan.out.tokens.iter_mut().zip(rolls).enumerate() {
                if self.mask <= roll && roll < self.random {
                    *token = below_at(&stream, first, i, self.vocab_size);
                }
            }
        }
        Ok(())
    }
}

/// The error of a row with a token that no int32 label holds.
pub(crate) fn no_label(kind: &str, tokens: &[u32]) -> Error {
    let token = tokens.iter().max().copied().unwrap_or_default();
    Error::invalid(format!("{kind}: token {token} does not fit an int32 label"))
}

multiversion! {
    /// A row, all but the integers that must be drawn again; returns the bits that its tokens have, and whether there
    /// are such integers.
    fn hide_row(
        rolls: &[u32], words: &[u32], tokens: &[u32], law: Hide, out: &mut [u32], labels: &mut [i32], edited: &mut [u8],
    ) -> (u32, bool) = hide_row_body
}

#[inline(always)]
fn hide_row_body(
    rolls: &[u32],
    words: &[u32],
    tokens: &[u32],
    law: Hide,
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
