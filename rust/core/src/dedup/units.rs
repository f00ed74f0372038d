//! What the shingles of a text are made of: words or characters, after normalisation.
//!
//! A normalised text is its words in lower case with one space between: words are the runs of characters that are
//! not `White_Space` in Unicode. Punctuation belongs to its word.

use super::exact::Hashed;
use crate::error::{Error, Result};
use crate::par::map_rows;
use crate::simd::Level;
use crate::{Ragged, RaggedBuf};

const GRAIN: usize = 1 << 18;

/// The lower-case words of every text, as 64-bit hashes.
///
/// # Errors
/// Names the first row that is not UTF-8.
pub fn words(texts: Ragged<'_, u8>, level: Level) -> Result<RaggedBuf<u64>> {
    each_row(texts, |text, out| {
        let mut lower = String::new();
        for word in text.split_whitespace() {
            lower_into(word, &mut lower);
            out.push(u8::hash(level, lower.as_bytes()));
        }
    })
}

/// The code points of every normalised text.
///
/// # Errors
/// Names the first row that is not UTF-8.
pub fn chars(texts: Ragged<'_, u8>) -> Result<RaggedBuf<u32>> {
    each_row(texts, |text, out| {
        let mut lower = String::new();
        for (i, word) in text.split_whitespace().enumerate() {
            lower_into(word, &mut lower);
            out.extend((i > 0).then_some(u32::from(' ')));
            out.extend(lower.chars().map(u32::from));
        }
    })
}

fn lower_into(word: &str, out: &mut String) {
    out.clear();
    if word.is_ascii() {
        out.push_str(word);
        out.make_ascii_lowercase();
    } else {
        out.push_str(&word.to_lowercase());
    }
}

fn each_row<T: Send>(texts: Ragged<'_, u8>, split: impl Fn(&str, &mut Vec<T>) + Sync) -> Result<RaggedBuf<T>> {
    let parts = map_rows(texts.offsets(), GRAIN, |range| {
        let mut out = RaggedBuf::default();
        for r in range {
            let text = std::str::from_utf8(texts.row(r)).map_err(|error| {
                Error::invalid(format!("text must be UTF-8 (row {r}: invalid at byte {})", error.valid_up_to()))
            })?;
            split(text, &mut out.values);
            out.end_row();
        }
        Ok(out)
    });
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
        let words = words(texts.view(), level).unwrap();
        let words: Vec<&[u64]> = words.view().iter().collect();
        assert_eq!(words[0], words[1]);
        assert_eq!(words[0][..2], words[2][..2]);
        assert_ne!(words[0][2], words[2][2]);
        assert!(words[3].is_empty() && words[4].is_empty());
        let chars = chars(texts.view()).unwrap();
        let expected: Vec<u32> = "der straßen bau".chars().map(u32::from).collect();
        assert_eq!(chars.view().row(0), expected);
        assert_eq!(chars.view().row(1), expected);
        assert!(chars.view().row(4).is_empty());
    }

    #[test]
    fn bytes_that_are_not_utf8_are_named() {
        let texts = pack(&[b"good".as_slice(), b"ba\xffd"]);
        let message = "text must be UTF-8 (row 1: invalid at byte 2)";
        assert_eq!(words(texts.view(), crate::simd::level()).unwrap_err().to_string(), message);
        assert_eq!(chars(texts.view()).unwrap_err().to_string(), message);
    }

    proptest! {
        #[test]
        fn words_are_those_of_the_normalised_text(text in "[ \\t\\u{2003}A-Ca-cßΣÉé.]{0,40}") {
            let level = crate::simd::level();
            let normal = text.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>().join(" ");
            let texts = pack(&[text.as_str(), normal.as_str()]);
            let words = words(texts.view(), level).unwrap();
            prop_assert_eq!(words.view().row(0), words.view().row(1));
            let chars = chars(texts.view()).unwrap();
            let expected: Vec<u32> = normal.chars().map(u32::from).collect();
            prop_assert_eq!(chars.view().row(0), expected);
        }

        #[test]
        fn any_bytes_are_split_or_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let texts = pack(&[&bytes]);
            prop_assert_eq!(words(texts.view(), crate::simd::level()).is_ok(), std::str::from_utf8(&bytes).is_ok());
            prop_assert_eq!(chars(texts.view()).is_ok(), std::str::from_utf8(&bytes).is_ok());
        }
    }
}
