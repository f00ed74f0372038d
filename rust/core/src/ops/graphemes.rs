//! Grapheme clusters, looked for only where an edit needs them.

use unicode_segmentation::GraphemeCursor;

/// Bytes to the left that decide about a boundary. One that depends on more is taken for none, so that a long run of
/// flags or marks costs no more than a short one.
const REACH: usize = 64;

/// Whether a grapheme cluster starts or ends at byte `at` of the text.
pub(super) fn boundary(text: &str, at: usize) -> bool {
    text.is_char_boundary(at) && joint(&text.as_bytes()[..at], &text.as_bytes()[at..])
}

/// Whether two pieces of UTF-8 that stand next to each other meet at the boundary of two clusters.
pub(super) fn joint(before: &[u8], after: &[u8]) -> bool {
    let (Some(&left), Some(&right)) = (before.last(), after.first()) else { return true };
    if left.is_ascii() && right.is_ascii() {
        return !(left == b'\r' && right == b'\n');
    }
    let last = if left.is_ascii() { &before[before.len() - 1..] } else { &before[before.len() - 2..] };
    if plain(last) && plain(after) {
        return true;
    }
    let (left, right) = (tail(before), first(after));
    let (skipped, at) = (before.len() - left.len(), before.len());
    let window = [left, right].concat();
    GraphemeCursor::new(at, at + right.len(), true).is_boundary(&window, skipped) == Ok(true)
}

/// Where the cluster that starts at byte `start` ends.
pub(super) fn cluster_end(text: &str, start: usize) -> usize {
    let mut end = start;
    for c in text[start..].chars() {
        end += c.len_utf8();
        if boundary(text, end) {
            break;
        }
    }
    end
}

/// The character that starts at byte `at`, if one does.
#[inline]
pub(super) fn char_at(text: &str, at: usize) -> Option<char> {
    match text.as_bytes().get(at) {
        Some(&byte) if byte.is_ascii() => Some(char::from(byte)),
        _ => text.get(at..)?.chars().next(),
    }
}

/// The character that the cluster which ends at byte `at` starts with.
pub(super) fn before(text: &str, at: usize) -> Option<char> {
    let mut start = at;
    loop {
        let c = text.get(..start)?.chars().next_back()?;
        start -= c.len_utf8();
        if boundary(text, start) {
            return Some(c);
        }
    }
}

/// A space that ends no line.
pub(super) fn space(c: char) -> bool {
    c.is_whitespace() && !matches!(c, '\n' | '\u{b}' | '\u{c}' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// Whether the text begins with a character (ASCII, Latin, Greek, Cyrillic) that never joins another of its kind, but
/// for the two of a line end.
#[inline]
fn plain(text: &[u8]) -> bool {
    match *text {
        [0..0x80, ..] => true,
        [lead @ 0xC2..0xE0, next, ..] => {
            let c = u32::from(lead & 0x1F) << 6 | u32::from(next & 0x3F);
            matches!(c, 0x80..0x300 | 0x370..0x483 | 0x48a..0x530)
        }
        _ => false,
    }
}

/// The last characters, as far as they decide.
fn tail(text: &[u8]) -> &str {
    let mut start = text.len().saturating_sub(REACH);
    while start < text.len() && text[start] & 0xC0 == 0x80 {
        start += 1;
    }
    str::from_utf8(&text[start..]).unwrap_or_default()
}

/// The first character.
fn first(text: &[u8]) -> &str {
    let mut end = text.len().min(1);
    while end < text.len() && text[end] & 0xC0 == 0x80 {
        end += 1;
    }
    str::from_utf8(&text[..end]).unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use unicode_segmentation::UnicodeSegmentation;

    use super::*;

    /// Text rich in what joins: marks, joiners, flags, jamo, conjuncts, line ends.
    pub(in crate::ops) fn odd_text() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            "[a-zA-Z0-9 .,'-]{1,3}",
            "\\PC",
            any::<char>().prop_map(String::from),
            prop::sample::select(vec![
                "\r", "\n", "\u{301}", "\u{200d}", "\u{fe0f}", "🇩", "🇪", "👩", "👧", "ᄀ", "ᅡ", "ᆨ", "क", "्", "ष",
                "\u{600}", "שָׁ", "عَ", "é", "ж", "ё",
            ])
            .prop_map(String::from),
        ];
        prop::collection::vec(part, 0..16).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn boundaries_are_those_of_the_standard(text in odd_text()) {
            let mut ends: Vec<usize> = text.grapheme_indices(true).map(|(at, _)| at).collect();
            ends.push(text.len());
            let found: Vec<usize> = (0..=text.len()).filter(|&at| boundary(&text, at)).collect();
            ends.dedup();
            prop_assert_eq!(found, ends);
            for (at, cluster) in text.grapheme_indices(true) {
                prop_assert_eq!(cluster_end(&text, at), at + cluster.len());
            }
        }
    }

    #[test]
    fn what_lies_far_back_is_no_boundary() {
        let flags = "🇩🇪".repeat(100);
        assert!(boundary(&flags, 8) && !boundary(&flags, 4));
        assert!(!boundary(&flags, 400));
    }
}
