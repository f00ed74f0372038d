//! Where text falls into words before a tokenizer's model sees it.
//!
//! The patterns of GPT-2 (Radford et al. 2019) and Llama 3 are walked by hand, tens of times faster than by a regular
//! expression; which character is a letter, a number or a space is what the regular expressions of `tokenizers` say.
//! Bytes that are no UTF-8 count as signs, one each.

use std::sync::LazyLock;

use tokenizers::utils::SysRegex;

/// How a text is split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Words {
    /// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
    Gpt2,
    /// As Llama 3 does it, with at most so many digits in a word.
    Llama3 { digits: usize },
    /// ` ?\S+|\s+(?!\S)|\s+`
    Space,
}

/// The pattern of Llama 3, and of Qwen 2 with single digits, as a `tokenizer.json` spells it.
const LLAMA3: [&str; 2] = [
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
];
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

const SIGN: u8 = 0;
const LETTER: u8 = 1;
const NUMBER: u8 = 2;
const SPACE: u8 = 3;

/// The classes of the characters below U+40000; above there is no letter, number or space.
static CLASSES: LazyLock<Box<[u8]>> = LazyLock::new(|| {
    const END: u32 = 0x4_0000;
    let all: String = (0..END).filter_map(char::from_u32).collect();
    let mut classes = vec![SIGN; END as usize];
    for (pattern, class) in [(r"\p{L}+", LETTER), (r"\p{N}+", NUMBER), (r"\s+", SPACE)] {
        let Ok(regex) = SysRegex::new(pattern) else { continue };
        for (start, end) in regex.find_iter(&all) {
            all[start..end].chars().for_each(|c| classes[c as usize] = class);
        }
    }
    classes.into()
});

impl Words {
    /// The splitter of a pattern, if it is one of those that are known.
    pub(crate) fn of_pattern(pattern: &str) -> Option<Words> {
        if pattern == GPT2 {
            return Some(Words::Gpt2);
        }
        match pattern.strip_prefix(LLAMA3[0])?.strip_suffix(LLAMA3[1])? {
            "" => Some(Words::Llama3 { digits: 1 }),
            "{1,3}" => Some(Words::Llama3 { digits: 3 }),
            _ => None,
        }
    }

    /// Appends the end of each word of `text`, counted from `base`.
    pub(crate) fn ends(self, text: &[u8], base: usize, out: &mut Vec<u32>) {
        let text = Text { bytes: text, classes: &CLASSES };
        let mut at = 0;
        while at < text.bytes.len() {
            at = match self {
                Words::Gpt2 => text.gpt2(at),
                Words::Llama3 { digits } => text.llama3(at, digits),
                Words::Space => text.spaced(at),
            };
            out.push((base + at) as u32);
        }
    }
}

#[derive(Clone, Copy)]
struct Text<'a> {
    bytes: &'a [u8],
    classes: &'a [u8],
}

impl Text<'_> {
    /// Class and length of the character at `at`; a sign of length 0 at the end.
    #[inline(always)]
    fn class(self, at: usize) -> (u8, usize) {
        match self.bytes.get(at) {
            None => (SIGN, 0),
            Some(&byte) if byte < 128 => (self.classes[usize::from(byte)], 1),
            Some(_) => self.wide(at),
        }
    }

    #[cold]
    fn wide(self, at: usize) -> (u8, usize) {
        let rest = &self.bytes[at..];
        let length = match rest[0] {
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            _ => 1,
        };
        let character = rest.get(..length).and_then(|bytes| std::str::from_utf8(bytes).ok()?.chars().next());
        character.map_or((SIGN, 1), |c| (self.classes.get(c as usize).copied().unwrap_or(SIGN), length))
    }

    /// The end of the run of a class from `at`.
    #[inline(always)]
    fn run(self, class: u8, mut at: usize) -> usize {
        loop {
            match self.class(at) {
                (found, length) if found == class && length > 0 => at += length,
                _ => return at,
            }
        }
    }

    /// The end of white space from `at`: a space before something else is left to that, and stays where it is alone.
    fn blank(self, at: usize) -> usize {
        let (mut end, mut last) = (at, at);
        while let (SPACE, length) = self.class(end) {
            last = end;
            end += length;
        }
        if end == self.bytes.len() || last == at { end } else { last }
    }

    /// The end of a contraction at the apostrophe `at`, or nothing.
    fn contraction(self, at: usize, any_case: bool) -> Option<usize> {
        let low = |byte: &u8| if any_case { byte.to_ascii_lowercase() } else { *byte };
        let rest = &self.bytes[at + 1..];
        match (rest.first().map(low)?, rest.get(1).map(low)) {
            (b's' | b't' | b'm' | b'd', _) => Some(at + 2),
            (b'r' | b'v', Some(b'e')) | (b'l', Some(b'l')) => Some(at + 3),
            // The long s is an s in another case.
            (0xC5, Some(0xBF)) if any_case => Some(at + 3),
            _ => None,
        }
    }

    #[inline(always)]
    fn gpt2(self, at: usize) -> usize {
        let (class, length) = self.class(at);
        if self.bytes[at] == b'\''
            && let Some(end) = self.contraction(at, false)
        {
            return end;
        }
        if class != SPACE {
            return self.run(class, at + length);
        }
        if self.bytes[at] == b' '
            && let (class, length @ 1..) = self.class(at + 1)
            && class != SPACE
        {
            return self.run(class, at + 1 + length);
        }
        self.blank(at)
    }

    #[inline(always)]
    fn llama3(self, at: usize, digits: usize) -> usize {
        let (class, length) = self.class(at);
        let byte = self.bytes[at];
        if byte == b'\''
            && let Some(end) = self.contraction(at, true)
        {
            return end;
        }
        let newline = |byte: u8| byte == b'\n' || byte == b'\r';
        match class {
            LETTER => return self.run(LETTER, at + length),
            NUMBER => {
                let mut end = at + length;
                for _ in 1..digits {
                    match self.class(end) {
                        (NUMBER, length) => end += length,
                        _ => break,
                    }
                }
                return end;
            }
            _ => {}
        }
        let (next, width) = self.class(at + length);
        if next == LETTER && !newline(byte) {
            return self.run(LETTER, at + length + width);
        }
        let signs = match class {
            SIGN => Some(at),
            _ if byte == b' ' && next == SIGN && width > 0 => Some(at + 1),
            _ => None,
        };
        if let Some(from) = signs {
            let end = self.run(SIGN, from);
            return end + self.bytes[end..].iter().take_while(|&&byte| newline(byte)).count();
        }
        let end = self.run(SPACE, at);
        match self.bytes[at..end].iter().rposition(|&byte| newline(byte)) {
            Some(last) => at + last + 1,
            None => self.blank(at),
        }
    }

    fn spaced(self, at: usize) -> usize {
        let word = |mut at: usize| {
            while let (class, length @ 1..) = self.class(at)
                && class != SPACE
            {
                at += length;
            }
            at
        };
        let from = at + usize::from(self.bytes[at] == b' ');
        match word(from) {
            end if end > from => end,
            _ => self.blank(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SPACED: &str = r" ?\S+|\s+(?!\S)|\s+";

    fn patterns() -> [(Words, String); 4] {
        let llama3 = |digits: &str| format!("{}{digits}{}", LLAMA3[0], LLAMA3[1]);
        [
            (Words::Gpt2, GPT2.to_owned()),
            (Words::Llama3 { digits: 3 }, llama3("{1,3}")),
            (Words::Llama3 { digits: 1 }, llama3("")),
            (Words::Space, SPACED.to_owned()),
        ]
    }

    fn agree(text: &str) {
        for (words, pattern) in patterns() {
            let regex = SysRegex::new(&pattern).unwrap();
            let expected: Vec<u32> = regex.find_iter(text).map(|(_, end)| end as u32).collect();
            let mut found = Vec::new();
            words.ends(text.as_bytes(), 0, &mut found);
            assert_eq!(found, expected, "{pattern} {text:?}");
        }
    }

    #[test]
    fn known_patterns_are_found() {
        for (words, pattern) in &patterns()[..3] {
            assert_eq!(Words::of_pattern(pattern), Some(*words));
        }
        assert_eq!(Words::of_pattern(r"\w+"), None);
    }

    #[test]
    fn every_character_has_the_class_of_the_regular_expression() {
        let all: String = (0..=0x10_FFFF).filter_map(char::from_u32).collect();
        agree(&all);
    }

    #[test]
    fn bytes_that_are_no_utf8_are_signs() {
        let mut ends = Vec::new();
        Words::Gpt2.ends(b"a\xE9\x80 \xF0\x9F\x98\x80", 5, &mut ends);
        assert_eq!(ends, [6, 8, 13]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn words_are_those_of_the_regular_expression(
            parts in prop::collection::vec(prop_oneof![
                prop::sample::select(vec![
                    " ", "  ", "\n", "\r\n", "\t", "'", "'s", "'LL", "'ſ", "'re", "a", "Zé", "日本", "1", "234567", "½",
                    ".", "!?", "\u{a0}", "\u{3000}", "e\u{301}", "😀", "\u{85}",
                ]).prop_map(str::to_owned),
                any::<char>().prop_map(String::from),
            ], 0..12)
        ) {
            agree(&parts.concat());
        }
    }
}
