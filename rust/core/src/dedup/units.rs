//! What the shingles of a text are made of: words or characters, after normalisation.
//!
//! Words are the runs of characters that are not `White_Space` in Unicode, and each is normalised by itself; one of
//! which nothing is left is no word.

use std::ops::Range;
use std::sync::LazyLock;

use tokenizers::utils::SysRegex;
use unicode_normalization::UnicodeNormalization;

use super::exact::Hashed;
use crate::error::{Error, Result};
use crate::par::map_rows;
use crate::simd::{self, Level};
use crate::{Ragged, RaggedBuf};

const GRAIN: usize = 1 << 18;

/// A normalisation form of Unicode (UAX 15).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Canonical composition.
    Nfc,
    /// Canonical decomposition.
    Nfd,
    /// Compatibility composition.
    Nfkc,
    /// Compatibility decomposition.
    Nfkd,
}

/// Which differences between texts do not count. Done in the order of the fields; white space is split at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)]
pub struct Normalize {
    /// The form that texts are brought to.
    pub unicode: Option<Form>,
    /// Accents: the text is decomposed (NFD) and loses its nonspacing marks (`Mn`).
    pub accents: bool,
    /// Case: the text is put in lower case.
    pub case: bool,
    /// Punctuation: `P` in Unicode, and the symbols of ASCII, are taken out.
    pub punctuation: bool,
    /// Digits: every run of decimal digits (`Nd`) becomes a 0.
    pub digits: bool,
    /// White space: each run becomes one space, and none is left at the ends. Words are always split at white space.
    pub whitespace: bool,
}

impl Default for Normalize {
    /// Case and white space do not count.
    fn default() -> Self {
        Normalize { unicode: None, accents: false, case: true, punctuation: false, digits: false, whitespace: true }
    }
}

impl Normalize {
    /// The texts as they are compared.
    ///
    /// ```
    /// use variegate_core::Ragged;
    /// use variegate_core::dedup::Normalize;
    /// let normalize = Normalize { punctuation: true, digits: true, ..Normalize::default() };
    /// let texts = normalize.texts(Ragged::new(b"In  1984, he said.", &[0, 18])?)?;
    /// assert_eq!(texts.values, b"in 0 he said");
    /// # Ok::<(), variegate_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// Names the first row that is not UTF-8.
    pub fn texts(&self, texts: Ragged<'_, u8>) -> Result<RaggedBuf<u8>> {
        each_row(texts, |text, out| self.pieces(text, |piece| out.extend_from_slice(piece.as_bytes())))
    }

    /// Calls `visit` with the pieces of the normalised text.
    fn pieces(&self, text: &str, mut visit: impl FnMut(&str)) {
        let mut normal = String::new();
        if !self.whitespace {
            self.normalise(text, &mut normal);
            return visit(&normal);
        }
        let mut first = true;
        for word in text.split_whitespace() {
            self.normalise(word, &mut normal);
            if !normal.is_empty() {
                if !first {
                    visit(" ");
                }
                first = false;
                visit(&normal);
            }
        }
    }

    fn normalise(&self, piece: &str, out: &mut String) {
        out.clear();
        if piece.is_ascii() {
            out.push_str(piece);
            if self.case {
                out.make_ascii_lowercase();
            }
        } else {
            match self.unicode {
                None => out.push_str(piece),
                Some(Form::Nfc) => out.extend(piece.nfc()),
                Some(Form::Nfd) => out.extend(piece.nfd()),
                Some(Form::Nfkc) => out.extend(piece.nfkc()),
                Some(Form::Nfkd) => out.extend(piece.nfkd()),
            }
            if self.accents {
                *out = out.nfd().filter(|&c| class(c) != MARK).collect();
            }
            if self.case {
                *out = out.to_lowercase();
            }
        }
        if self.punctuation {
            out.retain(|c| class(c) != PUNCTUATION);
        }
        if self.digits {
            let mut within = false;
            let mut kept = String::with_capacity(out.len());
            for c in out.chars() {
                let digit = class(c) == DIGIT;
                if !(digit && within) {
                    kept.push(if digit { '0' } else { c });
                }
                within = digit;
            }
            *out = kept;
        }
    }
}

const PUNCTUATION: u8 = 1;
const DIGIT: u8 = 2;
const MARK: u8 = 3;

/// The classes of the characters below U+40000; above there are only the marks that select a variation.
static CLASSES: LazyLock<Box<[u8]>> = LazyLock::new(|| {
    const END: u32 = 0x4_0000;
    let all: String = (0..END).filter_map(char::from_u32).collect();
    let mut classes = vec![0; END as usize];
    for (pattern, class) in [(r"[\p{P}$+<=>^`|~]+", PUNCTUATION), (r"\p{Nd}+", DIGIT), (r"\p{Mn}+", MARK)] {
        let Ok(regex) = SysRegex::new(pattern) else { continue };
        for (start, end) in regex.find_iter(&all) {
            all[start..end].chars().for_each(|c| classes[c as usize] = class);
        }
    }
    classes.into()
});

fn class(c: char) -> u8 {
    match c {
        '\u{E0100}'..='\u{E01EF}' => MARK,
        _ => CLASSES.get(c as usize).copied().unwrap_or(0),
    }
}

/// The normalised words of every text, as 64-bit hashes.
///
/// # Errors
/// Names the first row that is not UTF-8.
pub fn words(texts: Ragged<'_, u8>, normalize: &Normalize, level: Level) -> Result<RaggedBuf<u64>> {
    each_row(texts, |text, out| each_word(text, normalize, level, |hash, _| out.push(hash)))
}

/// The words of every text as [`near`](super::Deduper) compares them: a 64-bit hash of each, and where it lies in its
/// row, in bytes of the text as given.
///
/// ```
/// use variegate_core::Ragged;
/// use variegate_core::dedup::{Normalize, word_spans};
/// let (words, spans) = word_spans(Ragged::new("Né ! né".as_bytes(), &[0, 9])?, &Normalize::default())?;
/// assert_eq!(spans, [0..3, 4..5, 6..9]);
/// assert_eq!(words.values[0], words.values[2]);
/// # Ok::<(), variegate_core::Error>(())
/// ```
///
/// # Errors
/// Names the first row that is not UTF-8, or is too long.
pub fn word_spans(texts: Ragged<'_, u8>, normalize: &Normalize) -> Result<(RaggedBuf<u64>, Vec<Range<u32>>)> {
    super::check_rows(texts)?;
    let level = simd::level();
    let RaggedBuf { values, offsets } = each_row(texts, |text, out| {
        each_word(text, normalize, level, |hash, word| out.push((hash, word.start as u32..word.end as u32)));
    })?;
    let (values, spans) = values.into_iter().unzip();
    Ok((RaggedBuf { values, offsets }, spans))
}

fn each_word(text: &str, normalize: &Normalize, level: Level, mut visit: impl FnMut(u64, Range<usize>)) {
    let mut normal = String::new();
    for word in text.split_whitespace() {
        normalize.normalise(word, &mut normal);
        if !normal.is_empty() {
            let start = word.as_ptr().addr() - text.as_ptr().addr();
            visit(u8::hash(level, normal.as_bytes()), start..start + word.len());
        }
    }
}

/// The code points of every normalised text.
///
/// # Errors
/// Names the first row that is not UTF-8.
pub fn chars(texts: Ragged<'_, u8>, normalize: &Normalize) -> Result<RaggedBuf<u32>> {
    each_row(texts, |text, out| normalize.pieces(text, |piece| out.extend(piece.chars().map(u32::from))))
}

/// The rows without the tokens in `skip`, each other token put through `fold` (its entry there; empty for none).
///
/// # Errors
/// Names the first token that `fold` has no entry for.
pub fn select_tokens(rows: Ragged<'_, u32>, skip: &[u32], fold: &[u32]) -> Result<RaggedBuf<u32>> {
    let mut skip = skip.to_vec();
    skip.sort_unstable();
    let parts = map_rows(rows.offsets(), GRAIN, |range| {
        let mut out = RaggedBuf::default();
        for r in range {
            for &token in rows.row(r) {
                if skip.binary_search(&token).is_ok() {
                    continue;
                }
                out.values.push(match fold.get(token as usize) {
                    Some(&folded) => folded,
                    None if fold.is_empty() => token,
                    None => {
                        return Err(Error::invalid(format!(
                            "fold must hold a number for every token (row {r}: token {token}, {} numbers)",
                            fold.len()
                        )));
                    }
                });
            }
            out.end_row();
        }
        Ok(out)
    });
    joined(parts)
}

fn each_row<T: Send>(texts: Ragged<'_, u8>, split: impl Fn(&str, &mut Vec<T>) + Sync) -> Result<RaggedBuf<T>> {
    joined(map_rows(texts.offsets(), GRAIN, |range| {
        let mut out = RaggedBuf::default();
        for r in range {
            let text = std::str::from_utf8(texts.row(r)).map_err(|error| {
                Error::invalid(format!("text must be UTF-8 (row {r}: invalid at byte {})", error.valid_up_to()))
            })?;
            split(text, &mut out.values);
            out.end_row();
        }
        Ok(out)
    }))
}

fn joined<T>(parts: Vec<Result<RaggedBuf<T>>>) -> Result<RaggedBuf<T>> {
    let mut parts = parts.into_iter();
    let mut all = parts.next().unwrap_or_else(|| Ok(RaggedBuf::default()))?;
    for part in parts {
        all.append(&mut part?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pack(texts: &[impl AsRef<[u8]>]) -> RaggedBuf<u8> {
        let mut buf = RaggedBuf::default();
        for text in texts {
            buf.values.extend_from_slice(text.as_ref());
            buf.end_row();
        }
        buf
    }

    #[test]
    fn case_and_spacing_do_not_matter_and_punctuation_does() {
        let level = crate::simd::level();
        let texts = pack(&["Der  Straßen\tBAU\n", "der straßen bau", "der straßen bau.", "", " \u{a0}\u{3000}"]);
        let words = words(texts.view(), &Normalize::default(), level).unwrap();
        let words: Vec<&[u64]> = words.view().iter().collect();
        assert_eq!(words[0], words[1]);
        assert_eq!(words[0][..2], words[2][..2]);
        assert_ne!(words[0][2], words[2][2]);
        assert!(words[3].is_empty() && words[4].is_empty());
        let chars = chars(texts.view(), &Normalize::default()).unwrap();
        let expected: Vec<u32> = "der straßen bau".chars().map(u32::from).collect();
        assert_eq!(chars.view().row(0), expected);
        assert_eq!(chars.view().row(1), expected);
        assert!(chars.view().row(4).is_empty());
    }

    #[test]
    fn bytes_that_are_not_utf8_are_named() {
        let texts = pack(&[b"good".as_slice(), b"ba\xffd"]);
        let message = "text must be UTF-8 (row 1: invalid at byte 2)";
        assert_eq!(words(texts.view(), &Normalize::default(), crate::simd::level()).unwrap_err().to_string(), message);
        assert_eq!(chars(texts.view(), &Normalize::default()).unwrap_err().to_string(), message);
    }

    #[test]
    fn every_difference_can_be_passed_over() {
        let apply = |normalize: Normalize, text: &str| {
            String::from_utf8(normalize.texts(pack(&[text]).view()).unwrap().values).unwrap()
        };
        let none = Normalize { case: false, whitespace: false, ..Normalize::default() };
        assert_eq!(apply(none, " A\t b "), " A\t b ");
        assert_eq!(apply(Normalize { case: true, ..none }, " A\t b "), " a\t b ");
        assert_eq!(apply(Normalize { whitespace: true, ..none }, " A\t b "), "A b");
        assert_eq!(apply(Normalize { punctuation: true, ..none }, "a-b, ‚c‘ $5~_ ©"), "ab c 5 ©");
        assert_eq!(apply(Normalize { punctuation: true, ..Normalize::default() }, "a -- b !"), "a b");
        assert_eq!(apply(Normalize { digits: true, ..none }, "v12 3.14 ٣٤ ½"), "v0 0.0 0 ½");
        assert_eq!(apply(Normalize { accents: true, ..none }, "Ünïcödé İ ø x\u{E0100}"), "Unicode I ø x");
        assert_eq!(apply(Normalize { unicode: Some(Form::Nfc), ..none }, "e\u{301}"), "é");
        assert_eq!(apply(Normalize { unicode: Some(Form::Nfd), ..none }, "é"), "e\u{301}");
        assert_eq!(apply(Normalize { unicode: Some(Form::Nfkc), ..none }, "ﬁe\u{301} ℌ"), "fié H");
        assert_eq!(apply(Normalize { unicode: Some(Form::Nfkd), case: true, ..none }, "ﬁé ℌ"), "fie\u{301} h");
    }

    #[test]
    fn tokens_are_left_out_and_folded() {
        let rows = RaggedBuf { values: vec![0u32, 3, 1, 2, 0], offsets: vec![0, 2, 2, 5] };
        let selected = select_tokens(rows.view(), &[3, 0], &[]).unwrap();
        assert_eq!((selected.values, selected.offsets), (vec![1, 2], vec![0, 0, 0, 2]));
        let selected = select_tokens(rows.view(), &[], &[7, 7, 8, 9]).unwrap();
        assert_eq!(selected.values, [7, 9, 7, 8, 7]);
        let message = select_tokens(rows.view(), &[0], &[7, 7]).unwrap_err().to_string();
        assert_eq!(message, "fold must hold a number for every token (row 0: token 3, 2 numbers)");
    }

    proptest! {
        #[test]
        fn spans_are_those_of_the_words(texts in prop::collection::vec("[ \\t\u{2003}A-Ca-cßé.!]{0,20}", 0..5), punctuation: bool) {
            let normalize = Normalize { punctuation, ..Normalize::default() };
            let packed = pack(&texts);
            let (hashes, spans) = word_spans(packed.view(), &normalize).unwrap();
            prop_assert_eq!(&hashes, &words(packed.view(), &normalize, crate::simd::level()).unwrap());
            let mut spans = spans.into_iter();
            for (r, text) in texts.iter().enumerate() {
                for &hash in hashes.view().row(r) {
                    let span = spans.next().unwrap();
                    let word = &text[span.start as usize..span.end as usize];
                    prop_assert!(!word.contains(char::is_whitespace));
                    let alone = words(pack(&[word]).view(), &normalize, crate::simd::level()).unwrap();
                    prop_assert_eq!(alone.values, [hash]);
                }
            }
            prop_assert!(spans.next().is_none());
        }

        #[test]
        fn words_are_those_of_the_normalised_text(text in "[ \\t\\u{2003}A-Ca-cßΣÉé.]{0,40}") {
            let level = crate::simd::level();
            let normal = text.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>().join(" ");
            let texts = pack(&[text.as_str(), normal.as_str()]);
            let words = words(texts.view(), &Normalize::default(), level).unwrap();
            prop_assert_eq!(words.view().row(0), words.view().row(1));
            let chars = chars(texts.view(), &Normalize::default()).unwrap();
            let expected: Vec<u32> = normal.chars().map(u32::from).collect();
            prop_assert_eq!(chars.view().row(0), expected);
        }

        #[test]
        fn any_bytes_are_split_or_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let texts = pack(&[&bytes]);
            prop_assert_eq!(words(texts.view(), &Normalize::default(), crate::simd::level()).is_ok(), std::str::from_utf8(&bytes).is_ok());
            prop_assert_eq!(chars(texts.view(), &Normalize::default()).is_ok(), std::str::from_utf8(&bytes).is_ok());
        }
    }
}
