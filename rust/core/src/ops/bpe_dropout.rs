//! BPE dropout: words are merged with merges left out at random.

use serde::Deserialize;

use super::draw::Draw;
use super::plan::{Plan, Row, TokenOp};
use super::resegment::{Outcome, Parts, Word, model, resegment};
use crate::error::{Error, Result};
use crate::rng::{Words, threshold};
use crate::subword::{Bpe, Memory, Model, Subword};
use crate::tokenize::Tokenizer;

/// Writes words in the tokens that BPE makes of them when it passes over each candidate merge with probability `rate`
/// (Provilkov et al. 2020). A word in which nothing was passed over keeps its tokens.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BpeDropout {
    rate: f64,
}

const KIND: &str = "BpeDropout";

impl BpeDropout {
    pub(crate) fn new(op: Self) -> Result<Self> {
        super::rate(KIND, "rate", op.rate)?;
        Ok(op)
    }
}

fn bpe(tokenizer: Option<&Tokenizer>) -> Result<(&Tokenizer, &Subword, &Bpe)> {
    let (tokenizer, subword) = model(KIND, tokenizer)?;
    match &subword.model {
        Model::Bpe(bpe) => Ok((tokenizer, subword, bpe)),
        Model::Unigram(_) => Err(Error::invalid(format!("{KIND} needs a BPE tokenizer, and this one is Unigram"))),
    }
}

impl TokenOp for BpeDropout {
    fn fits(&self, tokenizer: Option<&Tokenizer>) -> Result<()> {
        bpe(tokenizer).map(drop)
    }

    fn plan(&self, row: Row<'_>, draw: &mut Draw, plan: &mut Plan) -> Result<()> {
        let (tokenizer, subword, bpe) = bpe(row.tokenizer)?;
        tokenizer.check(row.tokens)?;
        let limit = threshold(self.rate);
        let mut scratch = subword.scratch();
        let bytes: usize = row.tokens.iter().map(|&token| subword.spelling(token).len()).sum();
        let stream = draw.stream;
        let rolls = draw.rolls(3 * bytes, None);
        let write = |made: &mut Vec<(u32, u32)>, tokens: &mut dyn Iterator<Item = (u32, u32)>| {
            let mut end = 0;
            made.extend(tokens.map(|(token, length)| {
                end += length;
                (token, end)
            }));
        };
        let segment = |word: Word<'_>, must: bool, parts: &mut Parts<'_>| {
            let Parts { made, merging, memory, .. } = parts;
            // Draw k of a word at byte b is roll 3 b + k of the row: its merging needs no more unless some are dropped.
            let own = &rolls[3 * word.at..3 * (word.at + word.bytes.len())];
            let mut again = None;
            if must || word.bytes.len() <= Memory::LONGEST {
                let Some(known) = bpe.encode(word.bytes, merging, memory) else { return Outcome::Stuck };
                if own[..known.looks as usize].iter().all(|&roll| roll >= limit) {
                    if must {
                        write(made, &mut known.tokens.iter().copied());
                    }
                    return Outcome::Plain;
                }
                again = known.again;
            }
            let (mut more, mut dropped): (Option<Words>, bool) = (None, false);
            let drops = |k: usize| {
                let roll = own.get(k).copied().unwrap_or_else(|| {
                    let more = more.get_or_insert_with(|| stream.branch(word.at as u64).words(0));
                    more.next_word() >> 8
                });
                dropped |= roll < limit;
                roll < limit
            };
            let merged = match again {
                Some(first) => bpe.merge_again(word.bytes, memory.candidates(first), merging, drops),
                None => bpe.merge(word.bytes, merging, drops),
            };
            match merged {
                None => Outcome::Stuck,
                Some(_) if dropped => {
                    write(made, &mut merging.tokens());
                    Outcome::Drawn
                }
                Some(_) => Outcome::Plain,
            }
        };
        resegment(row, (tokenizer, subword), &mut scratch, plan, segment)
    }
}
