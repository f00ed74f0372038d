//! Where a text may be cut so that its parts can be encoded one by one.
//!
//! A cut lies before a single space between two signs that are no white space. It is taken only where every step of the
//! tokenizer is known to work on either side without a look at the other: normalizers that map characters or
//! clusters of them, a pre-tokenizer that ends a word there, and a model that sees words; or a BPE over unsplit text that
//! has no token across such a place. Any other tokenizer has no cuts, and texts are encoded as a whole.

use serde_json::Value;
use tokenizers::{AddedToken, NormalizedString, Normalizer};

use crate::tokenize::{Encoded, Spec, Tokenizer};
use crate::words::Words;

/// What the text before a part is when it is encoded alone: its own tokens are left out again.
const ANCHOR: &str = "a";

/// The cuts of a tokenizer.
#[derive(Debug)]
pub(crate) struct Cuts {
    /// Whether a cut may follow a byte: the last one of a sign, or the first of two.
    before: [bool; 256],
    /// Whether the first byte of a sign may stand after the space.
    after: [bool; 256],
    /// The tokens of the anchor.
    anchor: Vec<u32>,
    /// Added tokens after which text is read as if it began there, so that no part behind them stands alone.
    openers: Vec<bool>,
}

impl Cuts {
    /// The cuts of a tokenizer, if it is known to have some.
    pub(crate) fn of(tokenizer: &Tokenizer) -> Option<Cuts> {
        let spec = tokenizer.spec();
        let mut before = [false; 256];
        (0x21..0x7f).chain(0xC3..=0xC8).chain(0xD0..=0xD1).for_each(|byte| before[byte] = true);
        let after = before;
        let mark = normalized(spec, tokenizer, &before)?;
        match pre_tokenized(spec, mark)? {
            Split::Words => {}
            Split::Nothing(mark) => joined(spec, tokenizer, mark, &mut before)?,
        }
        let anchor = tokenizer.hf().encode_fast(ANCHOR, false).ok()?.get_ids().to_vec();
        let added = tokenizer.hf().get_added_tokens_decoder();
        let whole = |content: &str| !content.chars().skip(1).any(|sign| sign == ' ' || sign == '▁');
        let looks_past = |token: &AddedToken| {
            token.rstrip || !whole(&token.content) || (token.single_word && token.content.starts_with([' ', '▁']))
        };
        if added.values().any(looks_past) {
            return None;
        }
        let mut openers = vec![false; tokenizer.vocab_size()];
        if !alone(spec) {
            added.keys().for_each(|&id| openers[id as usize] = tokenizer.unknown() != Some(id));
        }
        Some(Cuts { before, after, anchor, openers })
    }

    /// Whether a cut lies before the byte `at`, which has neighbours on both sides.
    #[inline]
    pub(crate) fn at(&self, text: &[u8], at: usize) -> bool {
        text[at] == b' ' && self.after[usize::from(text[at + 1])] && self.follows(text, at)
    }

    #[inline]
    fn follows(&self, text: &[u8], at: usize) -> bool {
        let last = text[at - 1];
        if last < 0x80 {
            return self.before[usize::from(last)];
        }
        at > 1 && text[at - 2] > 0xC0 && self.before[usize::from(text[at - 2])]
    }

    /// The tokens of a part that a text begins with, or of one that follows a cut; with `located` also where each lies in
    /// the part. Nothing where the text has to be encoded as a whole.
    pub(crate) fn encode(&self, tokenizer: &Tokenizer, part: &str, first: bool, located: bool) -> Option<Part> {
        let (anchor, before) = if first { ("", 0) } else { (ANCHOR, self.anchor.len()) };
        let text = [anchor, part].concat();
        let mut encoded = Encoded::default();
        match located {
            true => tokenizer.encode_text(&text, &mut encoded).ok()?,
            false => {
                let ids = tokenizer.hf().encode_fast(text.as_str(), false).ok()?;
                encoded.tokens.values.extend_from_slice(ids.get_ids());
            }
        }
        let (found, tokens) = encoded.tokens.values.split_at_checked(before)?;
        if found != &self.anchor[..before] || tokens.iter().any(|&token| self.openers[token as usize]) {
            return None;
        }
        let place = |place: &i64| (place - anchor.len() as i64).max(0) as u32;
        let places = encoded.starts.iter().zip(&encoded.ends).skip(before);
        let places = places.map(|(start, end)| (place(start), place(end))).collect();
        let laid = if located && tokenizer.joins_bytes() { tokenizer.laid(part, tokens) } else { None };
        Some(Part { tokens: tokens.to_vec(), places, laid })
    }
}

/// The tokens of a part of a text, and where each lies in it.
#[derive(Debug, Default)]
pub(crate) struct Part {
    pub(crate) tokens: Vec<u32>,
    /// As the crate has it.
    pub(crate) places: Vec<(u32, u32)>,
    /// Where the bytes of the tokens lie, if they are the text.
    pub(crate) laid: Option<Vec<(u32, u32)>>,
}

/// How text reaches the model.
enum Split {
    /// As words that end at cuts.
    Words,
    /// In one piece, with a sign in place of each space.
    Nothing(char),
}

/// The steps of a normalizer or pre-tokenizer, those of sequences one after the other.
fn steps<'a>(step: &'a Value, parts: &str, out: &mut Vec<&'a Value>) {
    match step.get(parts) {
        Some(Value::Array(steps)) if step["type"] == "Sequence" => {
            steps.iter().for_each(|step| self::steps(step, parts, out))
        }
        _ if step.is_null() => {}
        _ => out.push(step),
    }
}

/// What stands for a space behind the normalizer, if that works on either side of a cut alone.
fn normalized(spec: &Spec, tokenizer: &Tokenizer, signs: &[bool; 256]) -> Option<char> {
    let mut all = Vec::new();
    steps(&spec.normalizer, "normalizers", &mut all);
    let mut mark = ' ';
    for step in &all {
        match step["type"].as_str()? {
            "NFC" | "NFD" | "NFKC" | "NFKD" | "Lowercase" | "StripAccents" | "Nmt" | "BertNormalizer" | "Strip"
            | "Precompiled" => {}
            "Prepend" if step["prepend"] == "▁" => {}
            "Replace" => {
                let (from, to) = (&step["pattern"], step["content"].as_str()?);
                let plain = |text: &str| !text.contains([' ', '▁']);
                match (from["String"].as_str(), from["Regex"].as_str()) {
                    (Some(" "), None) if to == "▁" => mark = '▁',
                    (Some(from), None) if plain(from) && plain(to) => {}
                    (None, Some(" {2,}")) if to == " " || to == "▁" => {}
                    (None, Some(r"\s+")) if to == " " => {}
                    _ => return None,
                }
            }
            _ => return None,
        }
    }
    let Some(normalizer) = tokenizer.hf().get_normalizer() else { return Some(mark) };
    let of = |text: String| {
        let mut text = NormalizedString::from(text);
        normalizer.normalize(&mut text).ok()?;
        Some(text.get().to_owned())
    };
    let anchor = of(ANCHOR.to_owned())?;
    let space = |sign: char| sign.is_whitespace() || sign == mark;
    for sign in (0u8..128).map(char::from).chain('\u{C0}'..'\u{480}') {
        let mut bytes = [0; 4];
        if !signs[usize::from(sign.encode_utf8(&mut bytes).as_bytes()[0])] {
            continue;
        }
        let (right, left) = (of(format!("{ANCHOR} {sign}"))?, of(format!("{sign} {ANCHOR}"))?);
        let right = right.strip_prefix(&anchor)?.strip_prefix(mark)?;
        let left = left.strip_suffix(ANCHOR)?.strip_suffix(mark)?;
        if right.is_empty() || right.starts_with(space) || left.is_empty() || left.ends_with(space) {
            return None;
        }
    }
    Some(mark)
}

/// How the pre-tokenizer leaves the text, if it works on either side of a cut alone.
fn pre_tokenized(spec: &Spec, mut mark: char) -> Option<Split> {
    let mut all = Vec::new();
    steps(&spec.pre_tokenizer, "pretokenizers", &mut all);
    let (mut split, mut untouched) = (false, true);
    for step in &all {
        let kind = step["type"].as_str()?;
        let spaces = mark == ' ';
        match kind {
            "BertPreTokenizer" | "Whitespace" | "WhitespaceSplit" if spaces => split = true,
            "CharDelimiterSplit" if spaces && step["delimiter"] == " " => split = true,
            "CharDelimiterSplit" | "Punctuation" | "Digits" => untouched = false,
            "Metaspace" => {
                let replacement = step["replacement"].as_str()?.chars().next()?;
                if !spaces && mark != replacement {
                    return None;
                }
                (mark, split) = (replacement, split || step["split"] != false);
            }
            "ByteLevel" if spaces || split => {
                (mark, untouched) = ('Ġ', false);
                split |= step["use_regex"] != false;
            }
            "Split" => {
                let (behavior, inverted) = (step["behavior"].as_str()?, step["invert"] == true);
                let known = step["pattern"]["Regex"].as_str().and_then(Words::of_pattern).is_some();
                match (step["pattern"]["String"].as_str(), behavior) {
                    (None, "Isolated") if known && spaces => split = true,
                    (None, "Removed") if known && spaces && inverted => split = true,
                    (Some(" "), "Isolated" | "Removed" | "MergedWithNext") if spaces && !inverted => split = true,
                    (Some(" "), _) if !spaces && !inverted => {}
                    _ if split => {}
                    _ => return None,
                }
            }
            _ if split => {}
            _ => return None,
        }
    }
    match split {
        true => Some(Split::Words),
        false if untouched && mark != ' ' => Some(Split::Nothing(mark)),
        false => None,
    }
}

/// Leaves out what some token holds before the sign of a space; nothing if the model is no BPE, or has no such sign.
fn joined(spec: &Spec, tokenizer: &Tokenizer, mark: char, before: &mut [bool; 256]) -> Option<()> {
    let affix = |affix: &Option<String>| affix.as_deref().is_some_and(|affix| !affix.is_empty());
    let model = &spec.model;
    if model.kind != "BPE" || affix(&model.continuing_subword_prefix) || affix(&model.end_of_word_suffix) {
        return None;
    }
    tokenizer.token_to_id(&mark.to_string())?;
    for token in tokenizer.hf().get_vocab(false).into_keys() {
        let next = token.chars().skip(1);
        for (sign, _) in token.chars().zip(next).filter(|&(sign, next)| next == mark && sign != mark) {
            let mut bytes = [0; 4];
            before[usize::from(sign.encode_utf8(&mut bytes).as_bytes()[0])] = false;
        }
    }
    Some(())
}

/// Whether text behind an added token is read as it is elsewhere, where it begins with a space.
fn alone(spec: &Spec) -> bool {
    let mut all = Vec::new();
    steps(&spec.normalizer, "normalizers", &mut all);
    !all.iter().any(|step| step["type"] == "Prepend" || step["type"] == "Strip")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(normalizer: &str, pre_tokenizer: &str, model: &str) -> Option<bool> {
        let vocabulary = r#"{"a": 0, "b": 1, "▁": 2, "▁a": 3, "c▁": 4, "c": 5, "[UNK]": 6}"#;
        let model = match model {
            "BPE" => format!(r#"{{"type": "BPE", "vocab": {vocabulary}, "merges": []}}"#),
            _ => format!(
                r###"{{"type": "WordPiece", "vocab": {vocabulary}, "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 99}}"###
            ),
        };
        let json = format!(
            r#"{{"version": "1.0", "added_tokens": [], "normalizer": {normalizer}, "pre_tokenizer": {pre_tokenizer},
            "post_processor": null, "decoder": null, "model": {model}}}"#
        );
        let tokenizer = Tokenizer::from_json(&json).unwrap();
        Cuts::of(&tokenizer).map(|cuts| cuts.before[usize::from(b'c')])
    }

    #[test]
    fn cuts_are_where_every_step_is_known() {
        let byte_level = r#"{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}"#;
        let metaspace = r#"{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true}"#;
        let unsplit = r#"{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": false}"#;
        let digits = r#"{"type": "Digits", "individual_digits": true}"#;
        let odd = r#"{"type": "Split", "pattern": {"Regex": "a b"}, "behavior": "Isolated", "invert": false}"#;
        let replace = r#"{"type": "Replace", "pattern": {"String": " "}, "content": "▁"}"#;
        let prepend =
            format!(r#"{{"type": "Sequence", "normalizers": [{{"type": "Prepend", "prepend": "▁"}}, {replace}]}}"#);
        let strange = r#"{"type": "Replace", "pattern": {"String": "b"}, "content": " "}"#;
        let sequence = |a: &str, b: &str| format!(r#"{{"type": "Sequence", "pretokenizers": [{a}, {b}]}}"#);
        for (normalizer, pre_tokenizer, model, expected) in [
            ("null", byte_level, "BPE", Some(true)),
            (r#"{"type": "NFKC"}"#, byte_level, "BPE", Some(true)),
            ("null", metaspace, "WordPiece", Some(true)),
            ("null", unsplit, "BPE", Some(false)),
            ("null", unsplit, "WordPiece", None),
            (&prepend, "null", "BPE", Some(false)),
            (replace, byte_level, "BPE", None),
            (strange, byte_level, "BPE", None),
            ("null", "null", "BPE", None),
            ("null", digits, "BPE", None),
            ("null", &sequence(digits, metaspace), "BPE", Some(true)),
            ("null", &sequence(odd, metaspace), "BPE", None),
            ("null", &sequence(metaspace, odd), "BPE", Some(true)),
            ("null", r#"{"type": "BertPreTokenizer"}"#, "WordPiece", Some(true)),
        ] {
            assert_eq!(of(normalizer, pre_tokenizer, model), expected, "{normalizer} {pre_tokenizer} {model}");
        }
    }
}
