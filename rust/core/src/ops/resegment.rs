//! Writing words in other tokens: what the subword ops share.

use super::plan::{Plan, Row};
use crate::error::{Error, Result};
use crate::subword::{Scratch, Subword};
use crate::tokenize::Tokenizer;

/// The tokenizer that an op was given, and its model.
pub(super) fn model<'t>(kind: &str, tokenizer: Option<&'t Tokenizer>) -> Result<(&'t Tokenizer, &'t Subword)> {
    let Some(tokenizer) = tokenizer else {
        return Err(Error::invalid(format!(
            "{kind} needs a tokenizer: give the batch one, batch.replace(tokenizer=...)"
        )));
    };
    match tokenizer.subword() {
        Ok(subword) => Ok((tokenizer, subword)),
        Err(reason) => Err(Error::invalid(format!("{kind} cannot use this tokenizer: {reason}"))),
    }
}

/// A word of a row.
pub(super) struct Word<'a> {
    pub(super) bytes: &'a [u8],
    /// Its first byte, counted over all that the row's tokens spell.
    pub(super) at: usize,
}

/// What became of a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Its tokens are those that the tokenizer gives it.
    Plain,
    /// It has drawn tokens, which were written.
    Drawn,
    /// The model cannot write it.
    Stuck,
}

/// Plans a row: shows each word of it to `segment`, which appends tokens and their ends within the word to `made`; a
/// plain word's only if it `must`.
///
/// Tokens that spell no text are copied, and end words. So are words with a protected token. Where tokens lie across
/// the ends of words (the tokens of a row need not be what the tokenizer makes of its text), the words up to the next
/// common end are written together or stay together.
pub(super) fn resegment(
    row: Row<'_>,
    (tokenizer, subword): (&Tokenizer, &Subword),
    scratch: &mut Scratch,
    plan: &mut Plan,
    mut segment: impl FnMut(Word<'_>, bool, &mut Parts<'_>) -> Outcome,
) -> Result<()> {
    let Scratch { text, token_ends, word_ends, made, merging, lattice, memory } = scratch;
    let mut parts = Parts { made, merging, lattice, memory };
    spell(row.tokens, subword, text, token_ends)?;
    let n = row.tokens.len();
    plan.out.reserve(n + text.len());
    plan.moved = true;
    plan.repeats = true;
    let (mut copied, mut i) = (0, 0);
    while i < n {
        if subword.spelling(row.tokens[i]).is_empty() {
            i += 1;
            continue;
        }
        let from = if i == 0 { 0 } else { token_ends[i - 1] as usize };
        let last = row.tokens[i..].iter().position(|&id| subword.spelling(id).is_empty()).map_or(n, |k| i + k);
        let to = token_ends[last - 1] as usize;
        word_ends.clear();
        subword.word_ends(tokenizer, &text[from..to], from, word_ends);
        let (mut start, mut word) = (from, 0);
        while i < last {
            // Tokens and words from `start` to where an end of both meets.
            let (first_token, first_word) = (i, word);
            loop {
                let (token_end, word_end) = (token_ends[i], word_ends[word]);
                i += usize::from(token_end <= word_end);
                word += usize::from(word_end <= token_end);
                if token_end == word_end {
                    break;
                }
            }
            let begin = std::mem::replace(&mut start, token_ends[i - 1] as usize);
            if row.protected.is_some_and(|mask| mask[first_token..i].contains(&1)) {
                continue;
            }
            parts.made.clear();
            let (mut at, mut drawn) = (begin, false);
            let must = word - first_word > 1;
            for &end in &word_ends[first_word..word] {
                let written = parts.made.len();
                match segment(Word { bytes: &text[at..end as usize], at }, must, &mut parts) {
                    Outcome::Plain => {}
                    Outcome::Drawn => drawn = true,
                    Outcome::Stuck => {
                        drawn = false;
                        break;
                    }
                }
                parts.made[written..].iter_mut().for_each(|(_, end)| *end += at as u32);
                at = end as usize;
            }
            if drawn {
                plan.out.copy(row.tokens, copied, first_token);
                copied = i;
                place(row.tokens, token_ends, first_token, begin, parts.made, plan);
            }
        }
    }
    plan.out.copy(row.tokens, copied, n);
    Ok(())
}

/// Room that the models work in.
pub(super) struct Parts<'s> {
    pub(super) made: &'s mut Vec<(u32, u32)>,
    pub(super) merging: &'s mut crate::subword::Merging,
    pub(super) lattice: &'s mut crate::subword::Lattice,
    pub(super) memory: &'s mut crate::subword::Memory,
}

/// Writes down what the tokens of a row spell, and where each ends.
pub(super) fn spell(tokens: &[u32], subword: &Subword, text: &mut Vec<u8>, ends: &mut Vec<u32>) -> Result<()> {
    text.clear();
    ends.clear();
    for &token in tokens {
        text.extend_from_slice(subword.spelling(token));
        ends.push(text.len() as u32);
    }
    if text.len() > LONGEST {
        return Err(Error::invalid(format!(
            "a row must not spell more than {LONGEST} bytes (it spells {})",
            text.len()
        )));
    }
    Ok(())
}

/// The longest text of a row, so that three draws for each byte fit a lane.
const LONGEST: usize = (1 << 30) / 3;

/// Puts new tokens in the place of old ones from `first` on, which begin at `start`. A new token comes from the old one
/// that held its first byte, and counts as edited unless it is that one.
fn place(tokens: &[u32], ends: &[u32], first: usize, start: usize, made: &[(u32, u32)], plan: &mut Plan) {
    let (mut old, mut at) = (first, start as u32);
    for &(token, end) in made {
        while ends[old] <= at {
            old += 1;
        }
        let begin = if old == first { start as u32 } else { ends[old - 1] };
        let same = (tokens[old], begin, ends[old]) == (token, at, end);
        let out = &mut plan.out;
        out.tokens[out.len] = token;
        out.source[out.len] = old as i32;
        out.edited[out.len] = u8::from(!same);
        out.len += 1;
        plan.marked |= !same;
        at = end;
    }
}
