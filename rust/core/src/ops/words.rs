//! Words of a row, which of them are edited, and the words that carry a negation.

use super::draw::Draw;
use super::graphemes::{boundary, char_at};
use super::tables;
use super::text::TextRow;
use crate::rng::threshold;

/// A word: letters, digits, marks and `_`, joined by a single apostrophe or hyphen, or between digits by a point or
/// comma. In a script that does not put spaces between words, a run of letters is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Word {
    pub(super) fn of(self, text: &str) -> &str {
        &text[self.start..self.end]
    }
}

/// The words of a text, left to right.
pub(super) fn words(text: &str) -> Vec<Word> {
    let bytes = text.as_bytes();
    let mut found = Vec::with_capacity(bytes.len() / 5);
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at].is_ascii() && !part(char::from(bytes[at])) {
            at += 1;
            continue;
        }
        let Some(c) = char_at(text, at) else { break };
        let start = at;
        at += c.len_utf8();
        if part(c) {
            at = end_of_word(text, at, c);
            found.push(Word { start, end: at });
        }
    }
    found
}

/// Where the word ends whose character `last` ends at `at`.
pub(super) fn end_of_word(text: &str, mut at: usize, mut last: char) -> usize {
    while let Some(c) = char_at(text, at) {
        let next = at + c.len_utf8();
        if part(c) || !c.is_ascii() && !boundary(text, at) {
            (at, last) = (next, c);
            continue;
        }
        let joined = match c {
            '\'' | '\u{2019}' | '-' => char_at(text, next).filter(|&after| part(after)),
            '.' | ',' if last.is_ascii_digit() => char_at(text, next).filter(char::is_ascii_digit),
            _ => None,
        };
        let Some(after) = joined else { break };
        (at, last) = (next + after.len_utf8(), after);
    }
    at
}

/// Whether a word goes on across a place of the text.
pub(super) fn inside_word(text: &str, at: usize) -> bool {
    if let Some(&[before, after]) = at.checked_sub(1).and_then(|left| text.as_bytes().get(left..at + 1))
        && before.is_ascii()
        && after.is_ascii()
    {
        match (part(char::from(before)), part(char::from(after))) {
            (true, true) => return true,
            (true, false) if !matches!(after, b'\'' | b'-' | b'.' | b',') => return false,
            (false, true) if !matches!(before, b'\'' | b'-' | b'.' | b',') => return false,
            (false, false) => return false,
            _ => {}
        }
    }
    // A mark belongs to the letter that carries it.
    let base = |mut at: usize| loop {
        let last = text.get(..at)?.chars().next_back()?;
        at -= last.len_utf8();
        if last.is_ascii() || part(last) || boundary(text, at) {
            return Some(last);
        }
    };
    let raw = |at: usize| text.get(..at)?.chars().next_back();
    let (Some(after), Some(before), Some(last)) = (char_at(text, at), base(at), raw(at)) else {
        return !text.is_char_boundary(at);
    };
    let next = || char_at(text, at + after.len_utf8());
    let joiner = |c: char| matches!(c, '\'' | '\u{2019}' | '-');
    let point = |c: char| matches!(c, '.' | ',');
    let digit = |c: char| c.is_ascii_digit();
    // What joins two parts of a word carries no mark, nor does a digit beside a point.
    match (part(before), part(after)) {
        (true, true) => true,
        (true, false) if joiner(after) => next().is_some_and(part),
        (true, false) if point(after) => digit(last) && next().is_some_and(digit),
        (false, true) if joiner(last) => base(at - last.len_utf8()).is_some_and(part),
        (false, true) if point(last) => digit(after) && raw(at - 1).is_some_and(digit),
        _ => !(after.is_ascii() || boundary(text, at)),
    }
}

/// Whether a character belongs to words.
pub(super) fn is_part(c: char) -> bool {
    part(c)
}

fn part(c: char) -> bool {
    match c.is_ascii() {
        true => c.is_ascii_alphanumeric() || c == '_',
        false => c.is_alphanumeric(),
    }
}

/// A set of words, whatever their case; an apostrophe may be curly. The entry `n't` stands for all words that end so.
#[derive(Debug)]
pub(super) struct WordSet {
    /// In lower case, sorted.
    words: Vec<String>,
    /// Whether some word begins with a byte, in either case.
    first: [bool; 256],
    suffix: bool,
}

impl WordSet {
    pub(super) fn new(words: &[String]) -> Self {
        let mut words: Vec<String> = words.iter().map(|word| folded(word)).collect();
        words.sort_unstable();
        words.dedup();
        let mut first = [false; 256];
        for byte in words.iter().filter_map(|word| word.bytes().next()) {
            first[usize::from(byte)] = true;
            first[usize::from(byte.to_ascii_uppercase())] = true;
        }
        // Beyond ASCII a capital and its small letter may begin with different bytes.
        let beyond = first[0x80..].contains(&true);
        first[0x80..].fill(beyond);
        WordSet { suffix: words.iter().any(|word| word == "n't"), words, first }
    }

    /// What a word op leaves alone: the words given, or the negations of English.
    pub(super) fn negations(words: Option<Vec<String>>) -> Self {
        WordSet::new(&words.unwrap_or_else(|| tables::NEGATIONS.iter().map(|&word| word.into()).collect()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    pub(super) fn contains(&self, word: &str) -> bool {
        let (Some(&first), Some(&last)) = (word.as_bytes().first(), word.as_bytes().last()) else { return false };
        let ends = self.suffix && matches!(last, b't' | b'T');
        if !self.first[usize::from(first)] && !ends {
            return false;
        }
        if word.is_ascii() {
            let small = || word.bytes().map(|byte| byte.to_ascii_lowercase());
            let found = self.words.binary_search_by(|entry| entry.bytes().cmp(small())).is_ok();
            return found || ends && word.len() > 2 && word[word.len() - 3..].eq_ignore_ascii_case("n't");
        }
        let word = folded(word);
        self.words.binary_search(&word).is_ok() || ends && word.ends_with("n't")
    }

    /// Writes 1 over each byte of the words of `text` that are in the set.
    pub(super) fn mark(&self, text: &str, mask: &mut [u8]) {
        for word in words(text).into_iter().filter(|word| self.contains(word.of(text))) {
            mask[word.start..word.end].fill(1);
        }
    }
}

/// A word in lower case, its apostrophes straight.
pub(super) fn folded(word: &str) -> String {
    if word.is_ascii() {
        return word.to_ascii_lowercase();
    }
    word.to_lowercase().replace('\u{2019}', "'")
}

/// A row cut into words, under the guards of a word op.
#[derive(Debug)]
pub(super) struct WordRow<'a> {
    pub(super) row: TextRow<'a>,
    pub(super) text: &'a str,
    pub(super) words: Vec<Word>,
    negations: &'a WordSet,
}

impl<'a> WordRow<'a> {
    pub(super) fn new(row: TextRow<'a>, negations: &'a WordSet) -> crate::error::Result<Self> {
        let text = row.text()?;
        Ok(WordRow { row, text, words: words(text), negations })
    }

    pub(super) fn word(&self, i: usize) -> &'a str {
        self.words[i].of(self.text)
    }

    /// Whether the word may be changed: nothing of it is protected, and it is no negation.
    pub(super) fn free(&self, i: usize) -> bool {
        self.row.free(self.words[i].start, self.words[i].end) && !self.negation(i)
    }

    /// Whether the word may leave its place: it is free, and next to no negation.
    pub(super) fn loose(&self, i: usize) -> bool {
        self.free(i) && !(i > 0 && self.negation(i - 1)) && !(i + 1 < self.words.len() && self.negation(i + 1))
    }

    /// Whether something may come before the word: neither it nor the word before it is a negation, and what is
    /// protected is not divided.
    pub(super) fn open(&self, i: usize) -> bool {
        self.row.open(self.words[i].start) && !self.negation(i) && !(i > 0 && self.negation(i - 1))
    }

    fn negation(&self, i: usize) -> bool {
        !self.negations.is_empty() && self.negations.contains(self.word(i))
    }

    /// The words that are edited: those that roll a hit and `fit`, but no more than the share `most` of all words;
    /// then those with the lowest rolls. Also how many were held back.
    pub(super) fn chosen(
        &self,
        draw: &mut Draw,
        rate: f64,
        most: f64,
        mut fit: impl FnMut(usize) -> bool,
    ) -> (Vec<usize>, u64) {
        let room = (most * self.words.len() as f64) as usize;
        chosen(draw.rolls(self.words.len(), None), threshold(rate), room, &mut fit)
    }
}

/// The positions that roll a hit and `fit`; of more than `room`, those with the lowest rolls. And how many were held
/// back.
pub(super) fn chosen(rolls: &[u32], limit: u32, room: usize, mut fit: impl FnMut(usize) -> bool) -> (Vec<usize>, u64) {
    let mut hits: Vec<usize> = (0..rolls.len()).filter(|&i| rolls[i] < limit && fit(i)).collect();
    let held = hits.len().saturating_sub(room);
    if held > 0 {
        hits.sort_by_key(|&i| (rolls[i], i));
        hits.truncate(room);
        hits.sort_unstable();
    }
    (hits, held as u64)
}

/// A word in the case of another: capitals throughout, or a capital first letter, or as it is.
pub(super) fn like(word: &str, model: &str) -> String {
    let mut letters = model.chars().filter(|c| c.is_alphabetic());
    if !letters.next().is_some_and(char::is_uppercase) {
        return word.into();
    }
    let rest: Vec<char> = letters.collect();
    if !rest.is_empty() && rest.iter().all(|c| c.is_uppercase()) {
        return word.to_uppercase();
    }
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::graphemes;
    use super::*;

    #[test]
    fn words_keep_what_belongs_to_them() {
        let text = "Don\u{2019}t stop -- it's 3.14, well-known cafe\u{301} x_1 192.168. 語る שָׁלוֹם e.g. 'so'!";
        let found: Vec<&str> = words(text).into_iter().map(|word| word.of(text)).collect();
        assert_eq!(
            found,
            [
                "Don\u{2019}t",
                "stop",
                "it's",
                "3.14",
                "well-known",
                "cafe\u{301}",
                "x_1",
                "192.168",
                "語る",
                "שָׁלוֹם",
                "e",
                "g",
                "so"
            ]
        );
    }

    #[test]
    fn negations_are_known_in_any_case() {
        let set = WordSet::negations(None);
        for word in ["not", "NO", "Never", "can't", "Don\u{2019}t", "cannot", "without", "n't"] {
            assert!(set.contains(word), "{word}");
        }
        for word in ["know", "note", "ant", "want"] {
            assert!(!set.contains(word), "{word}");
        }
        assert!(!WordSet::negations(Some(vec![])).contains("not"));
    }

    #[test]
    fn case_is_carried() {
        assert_eq!(like("car", "Bus"), "Car");
        assert_eq!(like("car", "BUS"), "CAR");
        assert_eq!(like("car", "bus"), "car");
        assert_eq!(like("Paris", "bus"), "Paris");
        assert_eq!(like("we", "I"), "We");
        assert_eq!(like("éclair", "Bus"), "Éclair");
        assert_eq!(like("", "Bus"), "");
    }

    proptest! {
        #[test]
        fn a_place_is_inside_a_word_where_it_cuts_one(text in graphemes::tests::odd_text(), more in "[a'.,1-]{0,4}") {
            let text = text + &more;
            let found = words(&text);
            for at in (0..=text.len()).filter(|&at| boundary(&text, at)) {
                prop_assert_eq!(inside_word(&text, at), found.iter().any(|word| word.start < at && at < word.end), "{}", at);
            }
        }

        #[test]
        fn words_are_apart_and_not_empty(text in "\\PC{0,30}") {
            let found = words(&text);
            prop_assert!(found.iter().all(|word| word.start < word.end && text.get(word.start..word.end).is_some()));
            prop_assert!(found.windows(2).all(|pair| pair[0].end <= pair[1].start));
        }
    }
}
