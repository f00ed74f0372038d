//! Text to tokens and back: the Hugging Face tokenizers, over ragged batches.
//!
//! The `tokenizers` crate is the reference for what a `tokenizer.json` means. What is added here: batches in flat
//! buffers, offsets in bytes, the bytes behind every token, and errors where the crate would be silent or random.

mod pieces;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokenizers::decoders::DecoderWrapper;
use tokenizers::models::ModelWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Decoder, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, TokenizerImpl};

use crate::cuts::Cuts;
use crate::error::{Error, Result};
use crate::par;
use crate::ragged::{Ragged, RaggedBuf};
use crate::subword::{Bpe, Model, Subword};
use crate::word_map::{Apart, Splitting, WordMap};
use pieces::Pieces;

/// Bytes of text, or tokens, that one task of a thread takes.
const GRAIN: usize = 1 << 14;

/// How many tokenizers were read.
static SERIAL: AtomicU64 = AtomicU64::new(0);

/// A tokenizer, ready to encode and decode batches on all threads.
///
/// ```
/// use variegate_core::Ragged;
/// use variegate_core::tokenize::Tokenizer;
/// let text = b"low lower lowest";
/// let texts = Ragged::new(text, &[0, 3, 16])?;
/// let tokenizer = Tokenizer::train(texts, 260, &["<end>".to_owned()])?;
/// let tokens = tokenizer.encode(texts, false)?;
/// assert_eq!(tokenizer.decode(tokens.view(), false)?.values, text);
/// # Ok::<(), variegate_core::Error>(())
/// ```
pub struct Tokenizer {
    hf: tokenizers::Tokenizer,
    json: String,
    special: Vec<u32>,
    bytes: RaggedBuf<u8>,
    known: Vec<bool>,
    pieces: Pieces,
    /// Decoding is joining the bytes of the tokens, and nothing else.
    joins_bytes: bool,
    /// The post-processor takes white space off the offsets.
    trims_offsets: bool,
    spec: OnceLock<Spec>,
    apart: OnceLock<Vec<Apart>>,
    word_map: OnceLock<WordMap>,
    subword: OnceLock<std::result::Result<Subword, String>>,
    added: OnceLock<Added>,
    cuts: OnceLock<Option<Cuts>>,
    serial: u64,
}

/// The added tokens as they stand in a text.
struct Added {
    contents: Vec<Vec<u8>>,
    /// The bytes that one of them starts with.
    first: [bool; 256],
    /// None of them takes in what is beside it, or minds it.
    plain: bool,
}

/// What a `tokenizer.json` says about the way from a text to the words that the model sees.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Spec {
    pub(crate) pre_tokenizer: serde_json::Value,
    pub(crate) normalizer: serde_json::Value,
    pub(crate) model: ModelSpec,
}

/// What it says about the model, but for vocabulary and merges.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ModelSpec {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    unk_token: Option<String>,
    unk_id: Option<u32>,
    pub(crate) continuing_subword_prefix: Option<String>,
    pub(crate) end_of_word_suffix: Option<String>,
    pub(crate) byte_fallback: bool,
    pub(crate) ignore_merges: bool,
}

impl Spec {
    pub(crate) fn splitting(&self) -> Splitting {
        Splitting::of(&self.pre_tokenizer)
    }

    /// Whether text reaches the pre-tokenizer as it is.
    pub(crate) fn keeps_text(&self) -> bool {
        self.normalizer.is_null()
    }
}

/// Tokens, and where each lies in its text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encoded {
    /// The tokens of each row.
    pub tokens: RaggedBuf<u32>,
    /// First byte of each token, counted in its row.
    pub starts: Vec<i64>,
    /// One past the last byte of each token, counted in its row.
    pub ends: Vec<i64>,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("vocab_size", &self.vocab_size()).finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Reads the text of a `tokenizer.json`.
    ///
    /// Its truncation and padding are left out: a ragged batch has neither.
    ///
    /// # Errors
    /// If the text is no tokenizer, or one whose encoding is drawn at random (BPE dropout).
    pub fn from_json(json: &str) -> Result<Self> {
        let malformed = |error: &dyn std::fmt::Display| Error::invalid(format!("not a tokenizer.json: {error}"));
        // The crate panics on some texts that are not JSON, and on some models whose parts do not fit together.
        serde_json::from_str::<serde_json::Value>(json).map_err(|error| malformed(&error))?;
        let mut hf: tokenizers::Tokenizer = std::panic::catch_unwind(|| json.parse())
            .map_err(|_| malformed(&"its parts do not fit together"))?
            .map_err(|error| malformed(&error))?;
        if let ModelWrapper::BPE(BPE { dropout: Some(rate), .. }) = hf.get_model()
            && *rate > 0.0
        {
            return Err(Error::invalid(format!(
                "the tokenizer drops BPE merges at random, so no two encodings agree: \
                 set model.dropout to null (it is {rate})"
            )));
        }
        hf.with_padding(None);
        hf.with_truncation(None).map_err(|error| malformed(&error))?;

        let mut special: Vec<u32> =
            hf.get_added_tokens_decoder().into_iter().filter(|(_, token)| token.special).map(|(id, _)| id).collect();
        special.sort_unstable();
        let processor = serde_json::to_string(&hf.get_post_processor()).map_err(|error| malformed(&error))?;
        let mut tokenizer = Tokenizer {
            json: hf.to_string(false).map_err(|error| malformed(&error))?,
            joins_bytes: matches!(hf.get_decoder(), Some(DecoderWrapper::ByteLevel(_))),
            trims_offsets: processor.contains(r#""trim_offsets":true"#),
            hf,
            special,
            bytes: RaggedBuf::default(),
            known: Vec::new(),
            pieces: Pieces::default(),
            spec: OnceLock::new(),
            apart: OnceLock::new(),
            word_map: OnceLock::new(),
            subword: OnceLock::new(),
            added: OnceLock::new(),
            cuts: OnceLock::new(),
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
        };
        tokenizer.fill_token_bytes()?;
        Ok(tokenizer)
    }

    /// Trains a byte-level BPE (Sennrich et al. 2016; Radford et al. 2019) with the pre-tokenizer of GPT-2.
    ///
    /// Ids: the special tokens in the order given, then the 256 bytes, then the merges, most frequent first; fewer than
    /// `vocab_size` if the text runs out of pairs. The result depends on nothing but the arguments.
    ///
    /// # Errors
    /// If a text is not UTF-8, a special token is empty or given twice, or `vocab_size` has no room for the special
    /// tokens and the bytes.
    pub fn train(texts: Ragged<'_, u8>, vocab_size: usize, special_tokens: &[String]) -> Result<Self> {
        for (i, token) in special_tokens.iter().enumerate() {
            if token.is_empty() {
                return Err(Error::invalid(format!("special_tokens must not be empty (item {i} is)")));
            }
            if special_tokens[..i].contains(token) {
                return Err(Error::invalid(format!("special_tokens must differ ('{token}' is there twice)")));
            }
        }
        let least = special_tokens.len() + 256;
        if vocab_size < least {
            return Err(Error::invalid(format!(
                "vocab_size must be at least {least}, for 256 bytes and {} special tokens (it is {vocab_size})",
                special_tokens.len()
            )));
        }
        let rows = (0..texts.rows()).map(|r| text(texts, r)).collect::<Result<Vec<_>>>()?;

        type Bpe = TokenizerImpl<BPE, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;
        let byte_level = ByteLevel::new(false, false, true);
        let mut hf = Bpe::new(BPE::default());
        hf.with_pre_tokenizer(Some(byte_level)).with_decoder(Some(byte_level));
        let mut trainer = BpeTrainer::builder()
            .show_progress(false)
            .vocab_size(vocab_size)
            .special_tokens(special_tokens.iter().map(|token| AddedToken::from(token.as_str(), true)).collect())
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        tokenizers::parallelism::set_parallelism(par::threads() > 1);
        let json = par::install(|| hf.train(&mut trainer, rows.into_iter())?.to_string(false));
        Tokenizer::from_json(&json.map_err(|error| Error::invalid(format!("training failed: {error}")))?)
    }

    /// The `tokenizer.json`, without truncation and padding, on one line; equal tokenizers give equal text.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// SHA-256 of [`json`](Self::json).
    pub fn fingerprint(&self) -> [u8; 32] {
        Sha256::digest(self.json.as_bytes()).into()
    }

    /// One more than the largest token id: the length of an array indexed by token.
    pub fn vocab_size(&self) -> usize {
        self.known.len()
    }

    /// The id of a token, as the vocabulary spells it.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.hf.token_to_id(token)
    }

    /// The spelling of a token in the vocabulary, or nothing for an id that it skips.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        let added = self.hf.get_added_vocabulary().get_added_tokens_decoder().get(&id);
        added.map(|token| token.content.clone()).or_else(|| self.hf.id_to_token(id))
    }

    /// The ids of the special tokens, in order.
    pub fn special_ids(&self) -> &[u32] {
        &self.special
    }

    /// The bytes that each token adds to a text when it follows another; empty for an id that the vocabulary skips.
    pub fn token_bytes(&self) -> &RaggedBuf<u8> {
        &self.bytes
    }

    /// 1 for every token whose bytes are whole characters (valid UTF-8), 0 for a part of one and for skipped ids.
    pub fn whole_characters(&self) -> Vec<u8> {
        let whole = |(bytes, &known): (&[u8], &bool)| u8::from(known && std::str::from_utf8(bytes).is_ok());
        self.bytes.view().iter().zip(&self.known).map(whole).collect()
    }

    /// Encodes each row of UTF-8 text; with `special_tokens` the post-processor adds its own (BOS, EOS, ...).
    ///
    /// # Errors
    /// Names the first row that is not UTF-8 or that the model cannot encode (it lacks an unknown token).
    pub fn encode(&self, texts: Ragged<'_, u8>, special_tokens: bool) -> Result<RaggedBuf<u32>> {
        concat(par::map_rows(texts.offsets(), GRAIN, |range| {
            let mut out = RaggedBuf::default();
            for r in range {
                let encoding = self.hf.encode_fast(text(texts, r)?, special_tokens).map_err(|e| unencodable(r, &e))?;
                out.values.extend_from_slice(encoding.get_ids());
                out.end_row();
            }
            Ok(out)
        }))
    }

    /// Encodes as [`encode`](Self::encode) and says where each token lies in its row's text.
    ///
    /// Ranges are in bytes and hold whole characters: a token that is a part of a character has the range of that
    /// character. Tokens that come from no text have 0..0.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_with_offsets(&self, texts: Ragged<'_, u8>, special_tokens: bool) -> Result<Encoded> {
        concat_encoded(par::map_rows(texts.offsets(), GRAIN, |range| {
            let mut out = Encoded::default();
            for r in range {
                self.encode_row(texts, r, special_tokens, &mut out)?;
            }
            Ok(out)
        }))
    }

    /// Starts and ends, as of [`encode_with_offsets`](Self::encode_with_offsets), for `tokens` that are already the
    /// encoding of `texts` without added special tokens.
    ///
    /// Where the bytes of a row's tokens are its text, they are laid along it; any other row is encoded again. Without
    /// `trimmed`, white space that the post-processor takes off is left on where that is possible.
    ///
    /// # Errors
    /// If the numbers of rows differ, a row is not UTF-8, or the tokens of a row are not the encoding of its text.
    pub fn offsets(
        &self,
        texts: Ragged<'_, u8>,
        tokens: Ragged<'_, u32>,
        trimmed: bool,
    ) -> Result<(Vec<i64>, Vec<i64>)> {
        if texts.rows() != tokens.rows() {
            return Err(Error::invalid(format!(
                "texts and tokens must have the same number of rows ({} != {})",
                texts.rows(),
                tokens.rows()
            )));
        }
        let lays = self.joins_bytes && !(trimmed && self.trims_offsets);
        let encoded = concat_encoded(par::map_rows(texts.offsets(), GRAIN, |range| {
            let mut out = Encoded::default();
            for r in range {
                if lays && self.lay(text(texts, r)?, tokens.row(r), &mut out) {
                    continue;
                }
                out.tokens = RaggedBuf::default();
                self.encode_row(texts, r, false, &mut out)?;
                if out.tokens.values != tokens.row(r) {
                    return Err(Error::invalid(format!("row {r}: the tokens are not the encoding of its text")));
                }
            }
            Ok(out)
        }))?;
        Ok((encoded.starts, encoded.ends))
    }

    /// What the post-processor puts before and after every text, or nothing if it does anything else.
    ///
    /// # Errors
    /// If the model cannot encode the letter that is used to find out.
    pub fn affixes(&self) -> Result<Option<(Vec<u32>, Vec<u32>)>> {
        let ids = |text, special| self.hf.encode_fast(text, special).map(|encoding| encoding.get_ids().to_vec());
        let failed = |error| unencodable(0, &error);
        let (bare, full) = (ids("a", false).map_err(failed)?, ids("a", true).map_err(failed)?);
        let around_nothing = ids("", true).map_err(failed)?;
        if bare.is_empty() {
            return Ok(None);
        }
        Ok((0..=full.len().saturating_sub(bare.len())).find_map(|at| {
            let (prefix, rest) = full.split_at(at);
            let suffix = rest.strip_prefix(bare.as_slice())?;
            (around_nothing == [prefix, suffix].concat()).then(|| (prefix.to_vec(), suffix.to_vec()))
        }))
    }

    /// Decodes each row into UTF-8 text, leaving special tokens out if asked to.
    ///
    /// Bytes that make no character become U+FFFD.
    ///
    /// # Errors
    /// Names the first token that the vocabulary does not have.
    pub fn decode(&self, tokens: Ragged<'_, u32>, skip_special_tokens: bool) -> Result<RaggedBuf<u8>> {
        let skipped = if skip_special_tokens { self.special.as_slice() } else { &[] };
        concat(par::map_rows(tokens.offsets(), GRAIN, |range| {
            let mut out = RaggedBuf::default();
            for r in range {
                let row = tokens.row(r);
                if self.joins_bytes {
                    let start = out.values.len();
                    if self.pieces.join(row, self.bytes.view(), skipped, &mut out.values).is_err() {
                        self.check_row(tokens, r)?;
                    }
                    if std::str::from_utf8(&out.values[start..]).is_err() {
                        let mended = String::from_utf8_lossy(&out.values[start..]).into_owned();
                        out.values.truncate(start);
                        out.values.extend_from_slice(mended.as_bytes());
                    }
                } else {
                    self.check_row(tokens, r)?;
                    let decoded = self.hf.decode(row, skip_special_tokens);
                    let decoded = decoded.map_err(|e| Error::invalid(format!("row {r}: cannot decode: {e}")))?;
                    out.values.extend_from_slice(decoded.as_bytes());
                }
                out.end_row();
            }
            Ok(out)
        }))
    }

    /// Refuses a row with a token that the vocabulary does not have.
    pub(crate) fn check_row(&self, tokens: Ragged<'_, u32>, r: usize) -> Result<()> {
        self.check(tokens.row(r)).map_err(|error| Error::invalid(format!("row {r}: {}", error.message())))
    }

    /// Refuses tokens that the vocabulary does not have.
    pub(crate) fn check(&self, row: &[u32]) -> Result<()> {
        match row.iter().position(|&id| !self.known.get(id as usize).is_some_and(|&known| known)) {
            None => Ok(()),
            Some(i) => Err(Error::invalid(format!(
                "token {} at position {i} is not in the vocabulary (size {})",
                row[i],
                self.vocab_size()
            ))),
        }
    }

    /// Decodes a row by joining the bytes of its tokens, and says where each ends; false where that is not its text, or
    /// no UTF-8.
    pub(crate) fn spell(&self, row: &[u32], text: &mut Vec<u8>, ends: &mut Vec<u32>) -> Result<bool> {
        text.clear();
        ends.clear();
        if self.pieces.join(row, self.bytes.view(), &[], text).is_err() {
            return self.check(row).map(|()| false);
        }
        let mut end = 0;
        ends.extend(row.iter().map(|&id| {
            end += self.pieces.length(id);
            end
        }));
        Ok(self.joins_bytes && std::str::from_utf8(text).is_ok())
    }

    pub(crate) fn hf(&self) -> &tokenizers::Tokenizer {
        &self.hf
    }

    /// Whether decoding is joining the bytes of the tokens.
    pub(crate) fn joins_bytes(&self) -> bool {
        self.joins_bytes
    }

    /// Where a text may be cut to be encoded in parts, if anywhere.
    pub(crate) fn cuts(&self) -> Option<&Cuts> {
        self.cuts.get_or_init(|| Cuts::of(self)).as_ref()
    }

    /// Tells the tokenizers of this process apart.
    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    pub(crate) fn spec(&self) -> &Spec {
        self.spec.get_or_init(|| serde_json::from_str(&self.json).unwrap_or_default())
    }

    /// The token that stands for text that the model does not know.
    pub(crate) fn unknown(&self) -> Option<u32> {
        let model = &self.spec().model;
        model.unk_id.or_else(|| self.token_to_id(model.unk_token.as_deref()?))
    }

    /// For each token, whether it stands apart from the text.
    pub(crate) fn apart(&self) -> &[Apart] {
        self.apart.get_or_init(|| {
            let mut apart = vec![Apart::No; self.vocab_size()];
            for (id, token) in self.hf.get_added_tokens_decoder() {
                let unknown = self.unknown() == Some(id);
                if let Some(apart) = apart.get_mut(id as usize).filter(|_| !unknown) {
                    *apart = if token.special { Apart::Special } else { Apart::Added };
                }
            }
            apart
        })
    }

    pub(crate) fn word_map(&self) -> &WordMap {
        self.word_map.get_or_init(|| WordMap::of(self))
    }

    /// The bytes of a token that stands first in a text.
    pub(crate) fn alone(&self, token: u32) -> Vec<u8> {
        let bytes = self.bytes.view().row(token as usize);
        if self.joins_bytes || std::str::from_utf8(bytes).is_err() {
            return bytes.to_vec();
        }
        self.hf.decode(&[token], false).map_or_else(|_| bytes.to_vec(), String::into_bytes)
    }

    /// The model, if the encoding of a text without added tokens is that of its words one by one and this crate can
    /// do both: byte-level BPE without a normalizer.
    pub(crate) fn word_by_word(&self) -> Option<(&Subword, &Bpe)> {
        let plain = self.spec().keeps_text() && self.joins_bytes;
        let words = matches!(self.spec().splitting(), Splitting::ByteLevel { prefix: false, .. });
        match self.subword() {
            Ok(subword) if plain && words && self.added().plain => match &subword.model {
                Model::Bpe(bpe) => Some((subword, bpe)),
                Model::Unigram(_) => None,
            },
            _ => None,
        }
    }

    /// Whether the text holds the text of an added token.
    pub(crate) fn spells_added(&self, text: &[u8]) -> bool {
        let added = self.added();
        let may = |at: &usize| added.first[usize::from(text[*at])];
        let mut starts = (0..text.len()).filter(may);
        starts.any(|at| added.contents.iter().any(|content| text[at..].starts_with(content)))
    }

    /// Whether no added token goes over a space, so that a text may be read in parts.
    pub(crate) fn windows(&self) -> bool {
        !self.added().contents.iter().any(|content| content.contains(&b' '))
    }

    fn added(&self) -> &Added {
        self.added.get_or_init(|| {
            let tokens = self.hf.get_added_tokens_decoder();
            let plain = tokens.values().all(|token| !(token.lstrip || token.rstrip || token.single_word));
            let contents: Vec<Vec<u8>> = tokens.into_values().map(|token| token.content.into_bytes()).collect();
            let mut first = [false; 256];
            contents.iter().filter_map(|content| content.first()).for_each(|&byte| first[usize::from(byte)] = true);
            Added { contents, first, plain }
        })
    }

    /// The model as this crate runs it itself.
    ///
    /// # Errors
    /// What about the tokenizer is in the way.
    pub(crate) fn subword(&self) -> std::result::Result<&Subword, &str> {
        self.subword.get_or_init(|| Subword::new(self)).as_ref().map_err(String::as_str)
    }

    pub(crate) fn encode_row(
        &self,
        texts: Ragged<'_, u8>,
        r: usize,
        special_tokens: bool,
        out: &mut Encoded,
    ) -> Result<()> {
        self.encode_text_with(text(texts, r)?, special_tokens, out).map_err(|e| unencodable(r, &e))
    }

    /// Encodes a text, without added special tokens, as [`encode_row`](Self::encode_row) does a row.
    pub(crate) fn encode_text(&self, text: &str, out: &mut Encoded) -> tokenizers::Result<()> {
        self.encode_text_with(text, false, out)
    }

    fn encode_text_with(&self, text: &str, special_tokens: bool, out: &mut Encoded) -> tokenizers::Result<()> {
        // The crate trims its offsets by characters, which goes wrong in bytes: take characters and count them out.
        let encoding = self.hf.encode_char_offsets(text, special_tokens)?;
        out.tokens.values.extend_from_slice(encoding.get_ids());
        out.tokens.end_row();
        let at: Vec<usize> = match text.is_ascii() {
            true => Vec::new(),
            false => text.char_indices().map(|(byte, _)| byte).chain([text.len()]).collect(),
        };
        let byte = |character: usize| at.get(character).copied().unwrap_or(character.min(text.len())) as i64;
        out.starts.extend(encoding.get_offsets().iter().map(|range| byte(range.0)));
        out.ends.extend(encoding.get_offsets().iter().map(|range| byte(range.1)));
        Ok(())
    }

    /// Where tokens lie in a text that is their bytes, widened to whole characters; nothing if it is not.
    pub(crate) fn laid(&self, text: &str, tokens: &[u32]) -> Option<Vec<(u32, u32)>> {
        let mut out = Encoded::default();
        let places = |out: Encoded| out.starts.iter().zip(&out.ends).map(|(&a, &b)| (a as u32, b as u32)).collect();
        self.lay(text, tokens, &mut out).then(|| places(out))
    }

    /// Lays the bytes of the tokens along `text`, widened to whole characters; does nothing and says false if they are
    /// not the text.
    fn lay(&self, text: &str, tokens: &[u32], out: &mut Encoded) -> bool {
        let before = out.starts.len();
        let mut at = 0;
        for &id in tokens {
            let known = self.known.get(id as usize).is_some_and(|&known| known);
            let bytes = if known { self.bytes.view().row(id as usize) } else { &[] };
            if bytes.is_empty() || !text.as_bytes()[at..].starts_with(bytes) {
                break;
            }
            let (mut start, mut end) = (at, at + bytes.len());
            at = end;
            while !text.is_char_boundary(start) {
                start -= 1;
            }
            while !text.is_char_boundary(end) {
                end += 1;
            }
            out.starts.push(start as i64);
            out.ends.push(end as i64);
        }
        let laid = at == text.len() && out.starts.len() - before == tokens.len();
        if !laid {
            out.starts.truncate(before);
            out.ends.truncate(before);
        }
        laid
    }

    /// Fills the table of token bytes: from the byte alphabet, or by asking the decoder what a token adds to a letter.
    fn fill_token_bytes(&mut self) -> Result<()> {
        const LETTER: &str = "a";
        let failed = |error: tokenizers::Error| Error::invalid(format!("the decoder of the tokenizer fails: {error}"));
        let size = self.hf.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
        let decoder = self.hf.get_decoder();
        let falls_back = serde_json::to_string(&decoder).is_ok_and(|json| json.contains(r#""type":"ByteFallback""#));
        let alone = match decoder {
            Some(decoder) => decoder.decode(vec![LETTER.to_owned()]).map_err(failed)?,
            None => LETTER.to_owned(),
        };
        for id in 0..size as u32 {
            let token = self.hf.get_added_vocabulary().simple_id_to_token(id).or_else(|| self.hf.id_to_token(id));
            self.known.push(token.is_some());
            match (token, decoder) {
                (None, _) => {}
                (Some(token), None) => self.bytes.values.extend_from_slice(format!(" {token}").as_bytes()),
                (Some(token), Some(_)) if self.joins_bytes => {
                    match token.chars().map(byte_of).collect::<Option<Vec<u8>>>() {
                        Some(bytes) => self.bytes.values.extend(bytes),
                        None => self.bytes.values.extend_from_slice(token.as_bytes()),
                    }
                }
                (Some(token), Some(decoder)) => match fallback_byte(&token).filter(|_| falls_back) {
                    Some(byte) => self.bytes.values.push(byte),
                    None => {
                        let both = decoder.decode(vec![LETTER.to_owned(), token.clone()]).map_err(failed)?;
                        match both.strip_prefix(&alone) {
                            Some(added) => self.bytes.values.extend_from_slice(added.as_bytes()),
                            None => self.bytes.values.extend(decoder.decode(vec![token]).map_err(failed)?.into_bytes()),
                        }
                    }
                },
            }
            self.bytes.end_row();
        }
        self.pieces = Pieces::new(self.bytes.view(), &self.known);
        Ok(())
    }
}

/// Puts `prefix` before and `suffix` after every row.
pub fn surround(tokens: Ragged<'_, u32>, prefix: &[u32], suffix: &[u32]) -> RaggedBuf<u32> {
    let added = tokens.rows() * (prefix.len() + suffix.len());
    let mut out = RaggedBuf::with_capacity(tokens.rows(), tokens.values().len() + added);
    for row in tokens.iter() {
        for part in [prefix, row, suffix] {
            out.values.extend_from_slice(part);
        }
        out.end_row();
    }
    out
}

fn text<'a>(texts: Ragged<'a, u8>, row: usize) -> Result<&'a str> {
    std::str::from_utf8(texts.row(row))
        .map_err(|error| Error::invalid(format!("text must be UTF-8 (row {row}, byte {})", error.valid_up_to())))
}

fn unencodable(row: usize, error: &tokenizers::Error) -> Error {
    Error::invalid(format!("row {row}: cannot encode: {error}"))
}

fn concat<T>(parts: Vec<Result<RaggedBuf<T>>>) -> Result<RaggedBuf<T>> {
    let mut parts = parts.into_iter();
    let mut all = parts.next().transpose()?.unwrap_or_default();
    for part in parts {
        all.append(&mut part?);
    }
    Ok(all)
}

fn concat_encoded(parts: Vec<Result<Encoded>>) -> Result<Encoded> {
    let mut parts = parts.into_iter();
    let mut all = parts.next().transpose()?.unwrap_or_default();
    for part in parts {
        let mut part = part?;
        all.tokens.append(&mut part.tokens);
        all.starts.append(&mut part.starts);
        all.ends.append(&mut part.ends);
    }
    Ok(all)
}

/// The byte that a letter of GPT-2's alphabet stands for: printable Latin-1 for itself, U+0100.. for the others in turn.
pub(crate) fn byte_of(letter: char) -> Option<u8> {
    match letter as u32 {
        c @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => Some(c as u8),
        c @ 0x100..=0x120 => Some((c - 0x100) as u8),
        c @ 0x121..=0x142 => Some((c - 0x121 + 0x7f) as u8),
        0x143 => Some(0xad),
        _ => None,
    }
}

/// The byte that a byte-fallback token `<0x0A>` stands for.
pub(crate) fn fallback_byte(token: &str) -> Option<u8> {
    let hex = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (hex.len() == 2 && !hex.starts_with('+')).then(|| u8::from_str_radix(hex, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    const CORPUS: [&str; 4] =
        ["low lower lowest, the lowest of all", "new newer newest: naïve 😀 日本", "  def f(x):\n", ""];

    static BYTE_LEVEL: LazyLock<Tokenizer> =
        LazyLock::new(|| Tokenizer::train(rows(&CORPUS).view(), 300, &["<|end|>".to_owned()]).unwrap());

    fn rows<S: AsRef<str>>(texts: &[S]) -> RaggedBuf<u8> {
        let mut out = RaggedBuf::default();
        for text in texts {
            out.values.extend_from_slice(text.as_ref().as_bytes());
            out.end_row();
        }
        out
    }

    fn message<T>(result: Result<T>) -> String {
        result.err().unwrap().to_string()
    }

    #[test]
    fn the_byte_alphabet_is_the_crate_s() {
        let mut seen = [0; 256];
        for letter in ByteLevel::alphabet() {
            let byte = byte_of(letter).unwrap();
            seen[byte as usize] += 1;
            let decoded = ByteLevel::default().decode(vec![letter.to_string()]).unwrap();
            assert_eq!(decoded.as_bytes(), String::from_utf8_lossy(&[byte]).as_bytes());
        }
        assert_eq!(seen, [1; 256]);
        assert_eq!([' ', '\u{144}', '\u{7f}'].map(byte_of), [None; 3]);
    }

    #[test]
    fn fallback_tokens_are_two_hexadecimal_digits() {
        assert_eq!(
            ["<0x0A>", "<0xff>", "<0x+1>", "<0x1>", "0x0A", "<0xGG>"].map(fallback_byte),
            [Some(10), Some(255), None, None, None, None]
        );
    }

    #[test]
    fn training_repeats_and_orders_the_ids() {
        let again = Tokenizer::train(rows(&CORPUS).view(), 300, &["<|end|>".to_owned()]).unwrap();
        assert_eq!(again.json(), BYTE_LEVEL.json());
        assert_eq!(again.fingerprint(), BYTE_LEVEL.fingerprint());
        assert_eq!((again.token_to_id("<|end|>"), again.token_to_id("!")), (Some(0), Some(1)));
        assert_eq!((again.special_ids(), again.id_to_token(1).as_deref()), ([0].as_slice(), Some("!")));
        assert_eq!(Tokenizer::from_json(again.json()).unwrap().json(), again.json());
    }

    #[test]
    fn offsets_are_whole_characters() {
        let texts = rows(&["é<|end|>a"]);
        let encoded = BYTE_LEVEL.encode_with_offsets(texts.view(), false).unwrap();
        let ranges: Vec<_> = encoded.starts.iter().zip(&encoded.ends).map(|(&s, &e)| (s, e)).collect();
        assert_eq!(ranges, [(0, 2), (0, 2), (2, 9), (9, 10)]);
        assert_eq!(
            BYTE_LEVEL.offsets(texts.view(), encoded.tokens.view(), true).unwrap(),
            (encoded.starts, encoded.ends)
        );
    }

    #[test]
    fn parts_of_characters_are_told_from_whole_ones() {
        let whole = BYTE_LEVEL.whole_characters();
        assert_eq!(whole.len(), BYTE_LEVEL.vocab_size());
        let letter = |c: &str| whole[BYTE_LEVEL.token_to_id(c).unwrap() as usize];
        assert_eq!((letter("a"), letter("<|end|>"), letter("Ġ"), letter("Ã"), letter("©")), (1, 1, 1, 0, 0));
    }

    #[test]
    fn mistakes_are_named() {
        let bad = Ragged::new(b"ab\xff", &[0, 1, 3]).unwrap();
        assert_eq!(message(BYTE_LEVEL.encode(bad, false)), "text must be UTF-8 (row 1, byte 1)");
        assert_eq!(message(BYTE_LEVEL.encode_with_offsets(bad, false)), "text must be UTF-8 (row 1, byte 1)");
        assert_eq!(message(Tokenizer::train(bad, 300, &[])), "text must be UTF-8 (row 1, byte 1)");
        let unknown = Ragged::new(&[1u32, 2, 4000], &[0, 1, 3]).unwrap();
        let size = BYTE_LEVEL.vocab_size();
        assert_eq!(
            message(BYTE_LEVEL.decode(unknown, false)),
            format!("row 1: token 4000 at position 1 is not in the vocabulary (size {size})")
        );
        let ab = rows(&["ab"]);
        assert_eq!(
            message(BYTE_LEVEL.offsets(ab.view(), Ragged::new(&[1], &[0, 1]).unwrap(), true)),
            "row 0: the tokens are not the encoding of its text"
        );
        assert_eq!(
            message(BYTE_LEVEL.offsets(ab.view(), Ragged::new(&[], &[0]).unwrap(), true)),
            "texts and tokens must have the same number of rows (1 != 0)"
        );
        let train = |size, special: &[&str]| {
            message(Tokenizer::train(ab.view(), size, &special.iter().map(ToString::to_string).collect::<Vec<_>>()))
        };
        assert_eq!(
            train(256, &["<s>"]),
            "vocab_size must be at least 257, for 256 bytes and 1 special tokens (it is 256)"
        );
        assert_eq!(train(300, &["<s>", "<s>"]), "special_tokens must differ ('<s>' is there twice)");
        assert_eq!(train(300, &["<s>", ""]), "special_tokens must not be empty (item 1 is)");
        assert_eq!(
            message(Tokenizer::from_json(&BYTE_LEVEL.json().replace(r#""dropout":null"#, r#""dropout":0.5"#))),
            "the tokenizer drops BPE merges at random, so no two encodings agree: set model.dropout to null (it is 0.5)"
        );
        assert_eq!(
            message(Tokenizer::from_json("{")),
            "not a tokenizer.json: EOF while parsing an object at line 1 column 1"
        );
    }

    #[test]
    fn affixes_are_found_or_refused() {
        let with = |template: &str| {
            let specials = r#""special_tokens":{"<|end|>":{"id":"<|end|>","ids":[0],"tokens":["<|end|>"]}}"#;
            let processor = format!(r#"{{"type":"TemplateProcessing","single":[{template}],"pair":[],{specials}}}"#);
            let json =
                BYTE_LEVEL.json().replace(r#""post_processor":null"#, &format!(r#""post_processor":{processor}"#));
            Tokenizer::from_json(&json).unwrap().affixes().unwrap()
        };
        let (end, text) =
            (r#"{"SpecialToken":{"id":"<|end|>","type_id":0}}"#, r#"{"Sequence":{"id":"A","type_id":0}}"#);
        assert_eq!(BYTE_LEVEL.affixes().unwrap(), Some((vec![], vec![])));
        assert_eq!(with(&format!("{end},{text},{end},{end}")), Some((vec![0], vec![0, 0])));
        assert_eq!(with(end), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        #[test]
        fn byte_level_round_trips_and_its_offsets_are_the_reference_s(texts in prop::collection::vec("\\PC{0,40}|[ a-z\n]{0,30}", 0..5)) {
            let texts = rows(&texts);
            let encoded = BYTE_LEVEL.encode_with_offsets(texts.view(), false).unwrap();
            prop_assert_eq!(&BYTE_LEVEL.encode(texts.view(), false).unwrap(), &encoded.tokens);
            prop_assert_eq!(&BYTE_LEVEL.decode(encoded.tokens.view(), false).unwrap(), &texts);
            prop_assert_eq!(BYTE_LEVEL.offsets(texts.view(), encoded.tokens.view(), true).unwrap(), (encoded.starts, encoded.ends));
        }

        #[test]
        fn any_tokens_decode_as_the_crate_decodes_them(row in prop::collection::vec(0u32..300, 0..30), skip: bool) {
            let size = BYTE_LEVEL.vocab_size() as u32;
            let row: Vec<u32> = row.into_iter().map(|id| id % size).collect();
            let decoded = BYTE_LEVEL.decode(Ragged::new(&row, &[0, row.len() as i64]).unwrap(), skip).unwrap();
            prop_assert_eq!(String::from_utf8(decoded.values).unwrap(), BYTE_LEVEL.hf.decode(&row, skip).unwrap());
        }

        #[test]
        fn any_text_is_read_or_refused(cut in 0usize..4000, bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let json = BYTE_LEVEL.json();
            let cut = cut.min(json.len());
            let broken = [&json.as_bytes()[..cut], bytes.as_slice(), &json.as_bytes()[cut..]].concat();
            let _ = Tokenizer::from_json(&String::from_utf8_lossy(&broken));
            let _ = Tokenizer::from_json(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn any_value_is_read_or_refused(at in any::<prop::sample::Index>(), put in any::<prop::sample::Index>()) {
            const VALUES: [&str; 12] =
                ["null", "true", "0", "-1", "4294967296", "1e9", r#""""#, r#""\u0000(""#, "[]", "[[]]", "{}", r#"{"type":"Sequence"}"#];
            fn leaves(value: &serde_json::Value, path: String, all: &mut Vec<String>) {
                match value {
                    serde_json::Value::Object(map) => {
                        for (key, value) in map.iter().take(20) {
                            leaves(value, format!("{path}/{}", key.replace('~', "~0").replace('/', "~1")), all);
                        }
                    }
                    serde_json::Value::Array(items) => {
                        for (i, value) in items.iter().enumerate().take(3) {
                            leaves(value, format!("{path}/{i}"), all);
                        }
                    }
                    _ => {}
                }
                all.push(path);
            }
            let processor = r#""post_processor":{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true}"#;
            let json = BYTE_LEVEL.json().replace(r#""post_processor":null"#, processor).replace(r#""truncation":null"#,
                r#""truncation":{"direction":"Right","max_length":9,"strategy":"LongestFirst","stride":0}"#);
            let mut value: serde_json::Value = serde_json::from_str(&json).unwrap();
            let mut all = Vec::new();
            leaves(&value, String::new(), &mut all);
            *value.pointer_mut(at.get::<String>(&all)).unwrap() = serde_json::from_str(put.get::<&str>(&VALUES)).unwrap();
            if let Ok(tokenizer) = Tokenizer::from_json(&value.to_string()) {
                let texts = rows(&["a (\0 é<|end|>"]);
                if let Ok(encoded) = tokenizer.encode_with_offsets(texts.view(), true) {
                    let _ = tokenizer.decode(encoded.tokens.view(), true);
                    let _ = tokenizer.offsets(texts.view(), encoded.tokens.view(), true);
                }
                let _ = tokenizer.affixes();
            }
        }

        #[test]
        fn surrounding_keeps_the_rows(row in prop::collection::vec(any::<u32>(), 0..9), prefix in prop::collection::vec(any::<u32>(), 0..3)) {
            let offsets = [0, row.len() as i64, row.len() as i64];
            let out = surround(Ragged::new(&row, &offsets).unwrap(), &prefix, &[7]);
            prop_assert_eq!(out.view().row(0), [prefix.as_slice(), row.as_slice(), &[7]].concat());
            prop_assert_eq!(out.view().row(1), [prefix.as_slice(), &[7]].concat());
        }
    }
}
