//! Ops over ragged batches: noise, training objectives, typing errors, and how they compose.
//!
//! An op only *plans*: it draws, for one row, the output tokens and which source token each of them comes from. One
//! *apply* moves everything else by that plan: per-token columns, spans, the source map, the edit marks. So an op is one
//! small file, and it cannot forget a column.
//!
//! A [`Pipeline`] is compiled from a JSON spec (`{"TokenDropout": {"rate": 0.1}}`; compositions nest) and runs over a
//! batch in one call, a row at a time, rows in parallel. What a row becomes depends on the spec, the seed, the epoch,
//! the variant, the row and its id, and on nothing else.
//!
//! ```
//! use variegate_core::Ragged;
//! use variegate_core::ops::{Call, Pipeline, Tokens};
//! let pipeline = Pipeline::from_json(r#"{"TokenDropout": {"rate": 0.5}}"#)?;
//! let batch = Tokens::new(Ragged::new(&[5, 6, 7, 8], &[0, 3, 4])?, &[11, 12])?;
//! let out = pipeline.run_tokens(&batch, Call { seed: 7, ..Call::default() })?;
//! assert_eq!(out.offsets.unwrap().len(), 3);
//! # Ok::<(), variegate_core::Error>(())
//! ```

mod alphabet;
mod bpe_dropout;
mod case_noise;
mod char_delete;
mod char_insert;
mod char_substitute;
mod char_transpose;
mod compose;
mod contraction;
mod diacritics;
mod draw;
mod entity_swap;
mod fill_in_middle;
mod graphemes;
mod hide;
mod homoglyph;
mod keyboard_typo;
mod kneser_ney;
mod lexicon;
mod local_shuffle;
mod masked_lm;
mod misspelling;
mod ngram_mask;
mod ocr_noise;
mod on_tokens;
mod plan;
mod prefix_lm;
mod protect;
mod punctuation_insert;
mod resegment;
mod rewriter;
mod rules;
mod runs;
mod seams;
mod sentence_permute;
mod span_corruption;
mod synonym;
mod tables;
mod text;
mod text_infilling;
mod token_dropout;
mod token_insert;
mod token_mask;
mod token_replace;
mod token_swap;
mod tokens;
mod ul2;
mod unigram_sample;
mod vocabulary;
mod whitespace_noise;
mod whole_word_mask;
mod word_delete;
mod word_insert;
mod word_swap;
mod words;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

pub use compose::{Domain, Pipeline};
pub use kneser_ney::{MAX_VOCABULARY, Neighbours};
pub use plan::IGNORE_INDEX;
pub use protect::Spans;
pub use text::{EditRuns, Texts, TextsOut};
pub use tokens::{Column, LineageOut, SpansOut, TargetsOut, Tokens, TokensOut};

use crate::error::{Error, Result};

/// What a call adds to a spec: the same four numbers give the same draws.
#[derive(Debug, Clone, Copy, Default)]
pub struct Call {
    /// The job's seed.
    pub seed: u64,
    /// The pass over the data.
    pub epoch: u32,
    /// Which of several variants of the same rows.
    pub variant: u64,
    /// Whether to return where each output token comes from.
    pub return_source: bool,
}

/// What one op did in one call, summed over rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Rows that the op saw.
    pub rows: u64,
    /// Tokens (or bytes of text) that the op saw.
    pub seen: u64,
    /// Output tokens (or runs of text) that the op chose.
    pub edited: u64,
    /// Source tokens (or bytes) that no output token comes from.
    pub deleted: u64,
    /// Output tokens (or bytes) that come from no source token.
    pub inserted: u64,
    /// Spans that lost tokens and live on.
    pub spans_shrunk: u64,
    /// Spans that became more than one.
    pub spans_split: u64,
    /// Spans that are gone.
    pub spans_dropped: u64,
    /// Edits that were drawn and held back by a limit.
    pub held: u64,
}

impl Stats {
    /// The counters by name, in a fixed order.
    pub fn named(&self) -> [(&'static str, u64); 9] {
        [
            ("rows", self.rows),
            ("seen", self.seen),
            ("edited", self.edited),
            ("deleted", self.deleted),
            ("inserted", self.inserted),
            ("spans_shrunk", self.spans_shrunk),
            ("spans_split", self.spans_split),
            ("spans_dropped", self.spans_dropped),
            ("held", self.held),
        ]
    }

    fn add(&mut self, other: &Stats) {
        self.rows += other.rows;
        self.seen += other.seen;
        self.edited += other.edited;
        self.deleted += other.deleted;
        self.inserted += other.inserted;
        self.spans_shrunk += other.spans_shrunk;
        self.spans_split += other.spans_split;
        self.spans_dropped += other.spans_dropped;
        self.held += other.held;
    }
}

/// How many rules a text holds, in the format of their files.
///
/// # Errors
/// What is no rule, with line, column and a caret.
pub fn count_rules(text: &str) -> Result<usize> {
    Ok(rules::Rules::parse(text)?.len())
}

/// The op named `kind`, or nothing if there is none: the one list of ops in this crate.
fn leaf(kind: &str, parameters: Value) -> Result<Option<Leaf>> {
    Ok(Some(match kind {
        "BpeDropout" => Leaf::Token(Box::new(bpe_dropout::BpeDropout::new(parse(kind, parameters)?)?)),
        "CaseNoise" => Leaf::Text(Box::new(case_noise::CaseNoise::new(parse(kind, parameters)?)?)),
        "CharDelete" => Leaf::Text(Box::new(char_delete::CharDelete::new(parse(kind, parameters)?)?)),
        "CharInsert" => Leaf::Text(Box::new(char_insert::CharInsert::new(parse(kind, parameters)?)?)),
        "CharSubstitute" => Leaf::Text(Box::new(char_substitute::CharSubstitute::new(parse(kind, parameters)?)?)),
        "CharTranspose" => Leaf::Text(Box::new(char_transpose::CharTranspose::new(parse(kind, parameters)?)?)),
        "Contraction" => Leaf::Text(Box::new(contraction::Contraction::new(parse(kind, parameters)?)?)),
        "Diacritics" => Leaf::Text(Box::new(diacritics::Diacritics::new(parse(kind, parameters)?)?)),
        "EntitySwap" => Leaf::Text(Box::new(entity_swap::EntitySwap::new(parse(kind, parameters)?)?)),
        "FillInMiddle" => Leaf::Token(Box::new(fill_in_middle::FillInMiddle::new(parse(kind, parameters)?)?)),
        "Homoglyph" => Leaf::Text(Box::new(homoglyph::Homoglyph::new(parse(kind, parameters)?)?)),
        "KeyboardTypo" => Leaf::Text(Box::new(keyboard_typo::KeyboardTypo::new(parse(kind, parameters)?)?)),
        "LocalShuffle" => Leaf::Token(Box::new(local_shuffle::LocalShuffle::new(parse(kind, parameters)?)?)),
        "MaskedLM" => Leaf::Token(Box::new(masked_lm::MaskedLm::new(parse(kind, parameters)?)?)),
        "Misspelling" => Leaf::Text(Box::new(misspelling::Misspelling::new(parse(kind, parameters)?)?)),
        "NgramMask" => Leaf::Token(Box::new(ngram_mask::NgramMask::new(parse(kind, parameters)?)?)),
        "OcrNoise" => Leaf::Text(Box::new(ocr_noise::OcrNoise::new(parse(kind, parameters)?)?)),
        "PrefixLM" => Leaf::Token(Box::new(prefix_lm::PrefixLm::new(parse(kind, parameters)?)?)),
        "PunctuationInsert" => {
            Leaf::Text(Box::new(punctuation_insert::PunctuationInsert::new(parse(kind, parameters)?)?))
        }
        "Rewriter" => Leaf::Text(Box::new(rewriter::Rewriter::new(parse(kind, parameters)?)?)),
        "SentencePermute" => Leaf::Token(Box::new(sentence_permute::SentencePermute::new(parse(kind, parameters)?)?)),
        "SpanCorruption" => Leaf::Token(Box::new(span_corruption::SpanCorruption::new(parse(kind, parameters)?)?)),
        "Synonym" => Leaf::Text(Box::new(synonym::Synonym::new(parse(kind, parameters)?)?)),
        "TextInfilling" => Leaf::Token(Box::new(text_infilling::TextInfilling::new(parse(kind, parameters)?)?)),
        "TokenDropout" => Leaf::Token(Box::new(token_dropout::TokenDropout::new(parse(kind, parameters)?)?)),
        "TokenInsert" => Leaf::Token(Box::new(token_insert::TokenInsert::new(parse(kind, parameters)?)?)),
        "TokenMask" => Leaf::Token(Box::new(token_mask::TokenMask::new(parse(kind, parameters)?)?)),
        "TokenReplace" => Leaf::Token(Box::new(token_replace::TokenReplace::new(parse(kind, parameters)?)?)),
        "TokenSwap" => Leaf::Token(Box::new(token_swap::TokenSwap::new(parse(kind, parameters)?)?)),
        "UL2" => Leaf::Token(Box::new(ul2::Ul2::new(parse(kind, parameters)?)?)),
        "UnigramSample" => Leaf::Token(Box::new(unigram_sample::UnigramSample::new(parse(kind, parameters)?)?)),
        "WhitespaceNoise" => Leaf::Text(Box::new(whitespace_noise::WhitespaceNoise::new(parse(kind, parameters)?)?)),
        "WholeWordMask" => Leaf::Token(Box::new(whole_word_mask::WholeWordMask::new(parse(kind, parameters)?)?)),
        "WordDelete" => Leaf::Text(Box::new(word_delete::WordDelete::new(parse(kind, parameters)?)?)),
        "WordInsert" => Leaf::Text(Box::new(word_insert::WordInsert::new(parse(kind, parameters)?)?)),
        "WordSwap" => Leaf::Text(Box::new(word_swap::WordSwap::new(parse(kind, parameters)?)?)),
        _ => return Ok(None),
    }))
}

enum Leaf {
    Token(Box<dyn plan::TokenOp>),
    Text(Box<dyn text::TextOp>),
}

fn parse<T: DeserializeOwned>(kind: &str, parameters: Value) -> Result<T> {
    serde_json::from_value(parameters).map_err(|error| Error::invalid(format!("{kind}: {error}")))
}

/// Takes a parameter that every op has out of its object.
fn take<T: DeserializeOwned + Default>(kind: &str, parameters: &mut Map<String, Value>, name: &str) -> Result<T> {
    match parameters.remove(name) {
        None | Some(Value::Null) => Ok(T::default()),
        Some(value) => {
            serde_json::from_value(value).map_err(|error| Error::invalid(format!("{kind}: {name}: {error}")))
        }
    }
}

/// A probability.
fn rate(kind: &str, name: &str, value: f64) -> Result<f64> {
    if (0.0..=1.0).contains(&value) {
        return Ok(value);
    }
    Err(Error::invalid(format!("{kind}: {name} must lie in [0, 1] (it is {value})")))
}

/// A token id.
fn token_id(kind: &str, name: &str, value: i64) -> Result<u32> {
    u32::try_from(value)
        .map_err(|_| Error::invalid(format!("{kind}: {name} must lie in [0, {}] (it is {value})", u32::MAX)))
}

/// A count of at least one that fits 32 bits.
fn count(kind: &str, name: &str, value: i64) -> Result<u32> {
    u32::try_from(value)
        .ok()
        .filter(|&n| n > 0)
        .ok_or_else(|| Error::invalid(format!("{kind}: {name} must lie in [1, {}] (it is {value})", u32::MAX)))
}

#[cfg(test)]
mod tests;
