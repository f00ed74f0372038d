//! Unigram sampling: words are written in pieces that are drawn from the language model of the tokenizer.

use serde::Deserialize;

use super::draw::Draw;
use super::plan::{Plan, Row, TokenOp};
use super::resegment::{Outcome, Parts, Word, model, resegment};
use crate::error::{Error, Result};
use crate::rng::threshold;
use crate::subword::{Model, Subword, Unigram};
use crate::tokenize::Tokenizer;

/// Draws a segmentation of each word, with probability in proportion to its own to the power `alpha`, over the whole
/// lattice (Kudo 2018). A word is drawn with probability `rate`, else it keeps its tokens.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UnigramSample {
    alpha: f64,
    rate: f64,
}

const KIND: &str = "UnigramSample";
/// Beyond it the best segmentation is all that is drawn.
const MOST_ALPHA: f64 = 1000.0;

impl UnigramSample {
    pub(crate) fn new(op: Self) -> Result<Self> {
        super::rate(KIND, "rate", op.rate)?;
        if !(0.0..=MOST_ALPHA).contains(&op.alpha) {
            return Err(Error::invalid(format!("{KIND}: alpha must lie in [0, {MOST_ALPHA}] (it is {})", op.alpha)));
        }
        Ok(op)
    }
}

fn unigram(tokenizer: Option<&Tokenizer>) -> Result<(&Tokenizer, &Subword, &Unigram)> {
    let (tokenizer, subword) = model(KIND, tokenizer)?;
    match &subword.model {
        Model::Unigram(unigram) => Ok((tokenizer, subword, unigram)),
        Model::Bpe(_) => Err(Error::invalid(format!("{KIND} needs a Unigram tokenizer, and this one is BPE"))),
    }
}

impl TokenOp for UnigramSample {
    fn fits(&self, tokenizer: Option<&Tokenizer>) -> Result<()> {
        let (_, _, unigram) = unigram(tokenizer)?;
        let most = unigram.largest_score();
        if most > 1e6 {
            return Err(Error::invalid(format!("{KIND} needs log probabilities of at most 1e6 (one is {most})")));
        }
        Ok(())
    }

    fn plan(&self, row: Row<'_>, draw: &mut Draw, plan: &mut Plan) -> Result<()> {
        let (tokenizer, subword, unigram) = unigram(row.tokenizer)?;
        tokenizer.check(row.tokens)?;
        let limit = threshold(self.rate);
        let mut scratch = subword.scratch();
        let stream = draw.stream;
        let segment = |word: Word<'_>, must: bool, parts: &mut Parts<'_>| {
            let hit = stream.word(0, word.at) >> 8 < limit;
            if !(hit || must) {
                return Outcome::Plain;
            }
            let from = parts.made.len();
            // The piece that ends at a byte is drawn by the words of that byte: 64 bits from lanes 1 and 2, and on
            // from lanes 3 and 4 where the product says that the result would be biased.
            let below = |end: usize, n: u64| {
                let i = word.at + end - 1;
                let mut lane = 1;
                loop {
                    let bits = u64::from(stream.word(lane, i)) << 32 | u64::from(stream.word(lane + 1, i));
                    let product = u128::from(bits) * u128::from(n);
                    if product as u64 >= n.wrapping_neg() % n || lane == 13 {
                        return (product >> 64) as u64;
                    }
                    lane += 2;
                }
            };
            let alpha = if hit { self.alpha } else { MOST_ALPHA };
            if unigram.sample(word.bytes, alpha, parts.lattice, below, parts.made).is_none() {
                return Outcome::Stuck;
            }
            parts.made[from..].reverse();
            if hit { Outcome::Drawn } else { Outcome::Plain }
        };
        resegment(row, (tokenizer, subword), &mut scratch, plan, segment)
    }
}
