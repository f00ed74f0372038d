//! Which word each token of a batch belongs to.

use serde_json::Value;
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

use crate::error::Result;
use crate::par;
use crate::ragged::Ragged;
use crate::tokenize::Tokenizer;
use crate::words::Words;

/// Tokens that one task of a thread takes.
const GRAIN: usize = 1 << 15;

/// What a pre-tokenizer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Splitting {
    /// Splits text into words of a known pattern and spells their bytes; `prefix` puts a space before a text.
    ByteLevel { words: Words, prefix: bool },
    /// Splits before each space, which becomes ▁.
    Metaspace,
    /// There is none.
    Nothing,
    /// Something else.
    Other,
}

impl Splitting {
    /// Reads the `pre_tokenizer` of a `tokenizer.json`.
    pub(crate) fn of(pre_tokenizer: &Value) -> Splitting {
        let steps = match pre_tokenizer {
            Value::Null => return Splitting::Nothing,
            Value::Object(step) => match step.get("pretokenizers") {
                Some(Value::Array(steps)) => steps.as_slice(),
                _ => std::slice::from_ref(pre_tokenizer),
            },
            _ => return Splitting::Other,
        };
        let is = |step: &Value, kind: &str| step["type"] == kind;
        let prefix = |step: &Value| step["add_prefix_space"] == true;
        match steps {
            [one] if is(one, "ByteLevel") && one["use_regex"] != false => {
                Splitting::ByteLevel { words: Words::Gpt2, prefix: prefix(one) }
            }
            [split, bytes] if is(split, "Split") && is(bytes, "ByteLevel") && bytes["use_regex"] == false => {
                let plain = split["behavior"] == "Isolated" && split["invert"] != true && !prefix(bytes);
                let words = split["pattern"]["Regex"].as_str().and_then(Words::of_pattern);
                match words.filter(|_| plain) {
                    Some(words) => Splitting::ByteLevel { words, prefix: false },
                    None => Splitting::Other,
                }
            }
            [one] if is(one, "Metaspace") => match one["split"] == false {
                true => Splitting::Nothing,
                false => Splitting::Metaspace,
            },
            [first, second] if is(first, "WhitespaceSplit") && is(second, "Metaspace") && second["split"] != false => {
                Splitting::Metaspace
            }
            _ => Splitting::Other,
        }
    }
}

/// How the words of a row are told.
#[derive(Debug)]
pub(crate) enum WordMap {
    /// By the tokens that begin one.
    Heads(Vec<bool>),
    /// By walking over the text.
    Text(Words),
    /// By the pre-tokenizer of the crate.
    Crate,
}

impl WordMap {
    pub(crate) fn of(tokenizer: &Tokenizer) -> WordMap {
        let spec = tokenizer.spec();
        let heads = |begins: &dyn Fn(&str) -> bool| {
            let begins = |id| tokenizer.id_to_token(id).is_some_and(|token| begins(&token));
            WordMap::Heads((0..tokenizer.vocab_size() as u32).map(begins).collect())
        };
        match (spec.model.kind.as_str(), spec.splitting()) {
            ("WordLevel", _) => heads(&|_| true),
            ("WordPiece", _) => {
                let prefix = spec.model.continuing_subword_prefix.as_deref().unwrap_or("##");
                heads(&|token| !token.starts_with(prefix))
            }
            (_, Splitting::Metaspace) => heads(&|token| token.starts_with('▁')),
            (_, Splitting::ByteLevel { words, .. }) => WordMap::Text(words),
            (_, Splitting::Nothing) => WordMap::Text(Words::Space),
            (_, Splitting::Other) => WordMap::Crate,
        }
    }
}

impl Tokenizer {
    /// The word of each token, counted from 0 in its row; -1 for special tokens, which no word goes over.
    ///
    /// Words are what the pre-tokenizer makes of the text between special tokens. Where there is none they are runs
    /// without white space, each with the space before it. A token that lies in several words belongs to the first;
    /// the unknown token is text, not special.
    ///
    /// # Errors
    /// Names the first token that the vocabulary does not have.
    pub fn word_ids(&self, tokens: Ragged<'_, u32>) -> Result<Vec<i32>> {
        let parts = par::map_rows(tokens.offsets(), GRAIN, |range| {
            let offsets = tokens.offsets();
            let mut out = Vec::with_capacity((offsets[range.end] - offsets[range.start]) as usize);
            let mut scratch = Scratch::default();
            for r in range {
                self.check_row(tokens, r)?;
                self.row_words(tokens.row(r), &mut scratch, &mut out);
            }
            Ok(out)
        });
        let mut parts = parts.into_iter();
        let mut all = parts.next().transpose()?.unwrap_or_default();
        for part in parts {
            all.append(&mut part?);
        }
        Ok(all)
    }

    fn row_words(&self, row: &[u32], scratch: &mut Scratch, out: &mut Vec<i32>) {
        let apart = self.apart();
        let mut next = 0;
        let mut at = 0;
        while at < row.len() {
            match apart[row[at] as usize] {
                Apart::No => {
                    let end = row[at..].iter().position(|&id| apart[id as usize] != Apart::No);
                    let end = end.map_or(row.len(), |length| at + length);
                    self.text_words(&row[at..end], &mut next, scratch, out);
                    at = end;
                }
                Apart::Special => {
                    out.push(-1);
                    at += 1;
                }
                Apart::Added => {
                    out.push(next);
                    next += 1;
                    at += 1;
                }
            }
        }
    }

    /// The words of a run of tokens that are text.
    fn text_words(&self, run: &[u32], next: &mut i32, scratch: &mut Scratch, out: &mut Vec<i32>) {
        let words = match self.word_map() {
            WordMap::Heads(heads) => {
                let mut word = *next - 1;
                out.extend(run.iter().enumerate().map(|(i, &id)| {
                    word += i32::from(i == 0 || heads[id as usize]);
                    word
                }));
                *next = word + 1;
                return;
            }
            WordMap::Text(words) => Some(*words),
            WordMap::Crate => None,
        };
        let Scratch { text, starts, ends } = scratch;
        text.clear();
        starts.clear();
        ends.clear();
        let table = self.token_bytes().view();
        for &id in run {
            starts.push(text.len() as u32);
            text.extend_from_slice(table.row(id as usize));
        }
        match words {
            Some(words) => words.ends(text, 0, ends),
            None => self.crate_ends(text, ends),
        }
        let (mut word, mut last, mut k) = (*next - 1, usize::MAX, 0);
        for &start in starts.iter() {
            while k + 1 < ends.len() && ends[k] <= start {
                k += 1;
            }
            word += i32::from(k != last);
            last = k;
            out.push(word);
        }
        *next = word + 1;
    }

    /// The end of each word as the crate's pre-tokenizer has them; text that is no UTF-8 falls apart at spaces.
    pub(crate) fn crate_ends(&self, text: &[u8], ends: &mut Vec<u32>) {
        let split = || {
            let mut words = PreTokenizedString::from(std::str::from_utf8(text).ok()?);
            self.hf().get_pre_tokenizer()?.pre_tokenize(&mut words).ok()?;
            let splits = words.get_splits(OffsetReferential::Original, OffsetType::Byte);
            Some(splits.into_iter().map(|(_, range, _)| range.1 as u32).collect::<Vec<_>>())
        };
        match split() {
            Some(found) => {
                // What the pre-tokenizer left out at the end belongs to the last word.
                ends.extend(found);
                ends.dedup();
                match ends.last_mut() {
                    Some(last) => *last = text.len() as u32,
                    None => ends.push(text.len() as u32),
                }
            }
            None => Words::Space.ends(text, 0, ends),
        }
    }
}

/// Room for the text of a row.
#[derive(Debug, Default)]
struct Scratch {
    text: Vec<u8>,
    starts: Vec<u32>,
    ends: Vec<u32>,
}

/// Whether a token is no part of the text that the model sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Apart {
    /// It is part of the text.
    No,
    /// An added token that is not special: a word of its own.
    Added,
    /// A special token.
    Special,
}
