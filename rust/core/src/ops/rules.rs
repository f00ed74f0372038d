//! Rules that say a phrase in another way: how they are written, and where they match.
//!
//! A rule is a line `pattern<TAB>alternative | alternative :: weight`. The text is folded (small letters, straight
//! apostrophes, one space for a run of them), the words that begin the patterns are found in it by one pass of an
//! automaton (Aho and Corasick, "Efficient string matching", CACM 1975), and what follows them is compared.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt::Display;

use aho_corasick::AhoCorasick;

use super::graphemes::{boundary, char_at};
use super::words::{end_of_word, inside_word, is_part};
use crate::error::{Error, Result};
use crate::template::{fault_in, suggestion};

/// The most words of a capture.
pub(super) const MAX_WORDS: usize = 12;
/// The most captures of a pattern.
pub(super) const MAX_CAPTURES: usize = 4;
/// The most alternatives of a rule.
const MAX_ALTERNATIVES: usize = 64;
/// The most digits of a weight before and after its point.
const MAX_WEIGHT_DIGITS: usize = 9;

/// Rules, ready to be looked for.
#[derive(Debug)]
pub(super) struct Rules {
    rules: Vec<Rule>,
    /// Finds the first words of patterns; the rules that begin so.
    finder: AhoCorasick,
    begun: Vec<Vec<u32>>,
}

#[derive(Debug)]
pub(super) struct Rule {
    parts: Vec<Part>,
    /// The part that is looked for: the first with a word in it. What comes before it is at most one capture.
    anchor: usize,
    /// The [`bucket`] of the literal behind a capture that follows the anchor.
    next: Option<u8>,
    pub(super) alternatives: Vec<Alternative>,
    /// Whether the first letter is written as a capital, which then says nothing about the place in the sentence.
    pub(super) named: bool,
}

#[derive(Debug)]
enum Part {
    Literal(Literal),
    Capture(Kind),
}

/// Folded text, and the letters that must be capitals: (where they stand in it, the letter).
#[derive(Debug, Default)]
struct Literal {
    text: String,
    capitals: Vec<(usize, char)>,
}

/// What a capture takes: 1 to [`MAX_WORDS`] words with spaces between them, one word, or the digits of one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Words,
    Word,
    Int,
}

const KINDS: [(&str, Kind); 3] = [("int", Kind::Int), ("word", Kind::Word), ("words", Kind::Words)];

/// What may stand in the place of a match.
#[derive(Debug)]
pub(super) struct Alternative {
    pub(super) pieces: Vec<Piece>,
    /// In billionths.
    pub(super) weight: u64,
    /// Whether it has the captures of the pattern in their order, with text in the same places around them: then only
    /// that text is edited.
    pub(super) in_order: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    Capture(usize),
}

/// A match, in places of the folded text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Match {
    pub(super) start: usize,
    pub(super) end: usize,
    rule: u32,
    captures: Captures,
}

type Captures = [(u32, u32); MAX_CAPTURES];

/// A text in small letters, its apostrophes straight, a run of spaces (which may hold one line end) one space; other
/// white space ends a clause, and is one line end.
#[derive(Debug, Default)]
pub(super) struct Folded {
    pub(super) text: String,
    /// Where each byte comes from, and at last the length of the text.
    at: Vec<u32>,
}

impl Folded {
    /// Folds a text of at most 2^30 bytes.
    pub(super) fn new(text: &str) -> Result<Self> {
        let bytes = text.as_bytes();
        let mut folded = Vec::with_capacity(bytes.len());
        let mut places = Vec::with_capacity(bytes.len() + 1);
        let mut at = 0;
        while at < bytes.len() {
            let byte = bytes[at];
            let from = at as u32;
            if byte.is_ascii_whitespace() {
                let end = at + bytes[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
                let run = &bytes[at..end];
                let plain = run.iter().all(|byte| matches!(byte, b' ' | b'\n' | b'\r'));
                let lines = run.iter().filter(|&&byte| byte == b'\n').count();
                folded.push(if plain && lines < 2 { b' ' } else { b'\n' });
                places.push(from);
                at = end;
            } else if byte.is_ascii() {
                folded.push(byte.to_ascii_lowercase());
                places.push(from);
                at += 1;
            } else {
                let Some(c) = char_at(text, at) else { break };
                let small = small(c);
                folded.extend_from_slice(small.encode_utf8(&mut [0; 4]).as_bytes());
                places.resize(folded.len(), from);
                at += c.len_utf8();
            }
        }
        places.push(bytes.len() as u32);
        let text = String::from_utf8(folded).map_err(|_| Error::invalid("a row is no UTF-8"))?;
        Ok(Folded { text, at: places })
    }

    /// Where a place of the folded text is in the text.
    pub(super) fn place(&self, at: usize) -> usize {
        self.at[at] as usize
    }
}

/// A character as patterns are compared: a small letter where there is a single one, a straight apostrophe.
fn small(c: char) -> char {
    if c == '\u{2019}' {
        return '\'';
    }
    let mut lower = c.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(small), None) => small,
        _ => c,
    }
}

impl Rules {
    /// The rules of a file. Empty lines and lines that begin with `#` are skipped.
    ///
    /// # Errors
    /// What is no rule, with line, column and a caret.
    pub(super) fn parse(source: &str) -> Result<Self> {
        let mut rules: Vec<Rule> = Vec::new();
        let mut known: HashMap<String, usize> = HashMap::new();
        let mut begun: Vec<Vec<u32>> = Vec::new();
        let mut anchors: HashMap<String, usize> = HashMap::new();
        let (mut at, mut texts) = (0, Vec::new());
        for (number, line) in source.split('\n').enumerate() {
            let (from, content) = (at, line.trim_end_matches('\r'));
            at += line.len() + 1;
            if content.trim().is_empty() || content.starts_with('#') {
                continue;
            }
            let (rule, key) = Parser { source, at: from, end: from + content.len() }.rule()?;
            if let Some(first) = known.insert(key, number + 1) {
                let message =
                    format!("line {first} has this pattern: put the alternatives there, with '|' between them");
                return Err(fault_in(source, from, message));
            }
            if let Part::Literal(anchor) = &rule.parts[rule.anchor] {
                let index = *anchors.entry(anchor.text.clone()).or_insert_with(|| {
                    texts.push(anchor.text.clone());
                    begun.push(Vec::new());
                    begun.len() - 1
                });
                begun[index].push(rules.len() as u32);
            }
            rules.push(rule);
        }
        let finder = AhoCorasick::new(&texts).map_err(|error| Error::invalid(format!("rules: too many ({error})")))?;
        Ok(Rules { rules, finder, begun })
    }

    pub(super) fn len(&self) -> usize {
        self.rules.len()
    }

    pub(super) fn rule(&self, found: &Match) -> &Rule {
        &self.rules[found.rule as usize]
    }

    /// The matches in a text, apart and ascending: of those that overlap the leftmost, then the longest, then that of
    /// the first rule. A rule matches once at a place, with each capture as short as it can be, from the left.
    pub(super) fn find(&self, text: &str, folded: &Folded) -> Vec<Match> {
        let view = View { text, folded, walk: RefCell::default(), ahead: RefCell::default() };
        let mut found = Vec::new();
        for hit in self.finder.find_overlapping_iter(&folded.text) {
            for &rule in &self.begun[hit.pattern().as_usize()] {
                found.extend(self.rules[rule as usize].verified(&view, hit.start(), rule));
            }
        }
        // A capture before the anchor lets several anchors match from one place.
        found.sort_unstable_by_key(|found| (found.start, found.rule, found.end));
        found.dedup_by_key(|found| (found.start, found.rule));
        found.sort_unstable_by_key(|found| (found.start, Reverse(found.end), found.rule));
        let mut done = 0;
        found.retain(|found| {
            let apart = found.start >= done;
            if apart {
                done = found.end;
            }
            apart
        });
        found
    }
}

impl Rule {
    /// The match whose anchor lies at `at`, where it does.
    fn verified(&self, view: &View<'_>, at: usize, rule: u32) -> Option<Match> {
        let mut captures = Captures::default();
        let mut start = at;
        if self.anchor == 1 {
            let Part::Capture(kind) = self.parts[0] else { return None };
            start = view.before(kind, at)?;
            captures[0] = (start as u32, at as u32);
        }
        if inside_word(&view.folded.text, start) {
            return None;
        }
        if let (Some(next), Part::Literal(anchor)) = (self.next, &self.parts[self.anchor])
            && !view.comes(at + anchor.text.len(), next)
        {
            return None;
        }
        let end = view.parts(&self.parts[self.anchor..], at, self.anchor, &mut captures)?;
        Some(Match { start, end, rule, captures })
    }

    /// The runs of a match that are no capture, one more than there are captures; the first and the last may be empty.
    pub(super) fn gaps(&self, found: &Match) -> impl Iterator<Item = (usize, usize)> {
        let captures = self.captures(found);
        let ends = std::iter::once(found.start).chain(captures.clone().map(|(_, end)| end));
        ends.zip(captures.map(|(start, _)| start).chain(std::iter::once(found.end)))
    }

    /// Where the captures of a match lie.
    pub(super) fn captures(&self, found: &Match) -> impl Iterator<Item = (usize, usize)> + Clone {
        let count = self.parts.iter().filter(|part| matches!(part, Part::Capture(_))).count();
        found.captures.into_iter().take(count).map(|(start, end)| (start as usize, end as usize))
    }

    pub(super) fn starts_with_capture(&self) -> bool {
        matches!(self.parts[0], Part::Capture(_))
    }

    /// Whether all letters that the rule lets be small or capital are capitals, and there are at least two.
    pub(super) fn shouted(&self, text: &str, folded: &Folded, found: &Match) -> bool {
        let literals = self.parts.iter().filter_map(|part| match part {
            Part::Literal(literal) => Some(literal),
            Part::Capture(_) => None,
        });
        let mut letters = 0;
        for (literal, (start, end)) in literals.zip(self.gaps(found).filter(|(start, end)| start < end)) {
            for (offset, c) in folded.text[start..end].char_indices().filter(|(_, c)| c.is_alphabetic()) {
                if literal.capitals.iter().any(|&(at, _)| at == offset) {
                    continue;
                }
                if char_at(text, folded.place(start + offset)).is_none_or(|written| written == c) {
                    return false;
                }
                letters += 1;
            }
        }
        letters > 1
    }
}

/// A text and its folded form, read by rules.
struct View<'a> {
    text: &'a str,
    folded: &'a Folded,
    walk: RefCell<Walk>,
    ahead: RefCell<Ahead>,
}

/// The ends of the words with single spaces between them from a place on, as far as they were asked for: rules that
/// begin alike ask for the same.
#[derive(Default)]
struct Walk {
    from: usize,
    ends: Vec<usize>,
    whole: bool,
}

/// Which literals may stand behind up to [`MAX_WORDS`] words from a place on, by their buckets.
#[derive(Default)]
struct Ahead {
    from: Option<usize>,
    buckets: [u64; 4],
}

/// A hash of the second and third byte of a text: the first is mostly a space.
fn bucket(text: &[u8]) -> Option<u8> {
    text.get(1..3).map(|two| two[0].wrapping_mul(31).wrapping_add(two[1].wrapping_mul(7)))
}

impl View<'_> {
    /// Where parts that begin at `at` end, and what they capture; `k` is the number of the next capture.
    fn parts(&self, parts: &[Part], at: usize, k: usize, captures: &mut Captures) -> Option<usize> {
        let folded = self.folded.text.as_str();
        match parts.split_first() {
            None => (!inside_word(folded, at)).then_some(at),
            Some((Part::Literal(literal), rest)) => {
                let (ahead, wanted) = (&folded.as_bytes()[at..], literal.text.as_bytes());
                // Most literals differ in their last byte, which is cheaper to see than the whole.
                let fits = ahead.get(wanted.len() - 1) == wanted.last()
                    && ahead.starts_with(wanted)
                    && literal
                        .capitals
                        .iter()
                        .all(|&(offset, capital)| char_at(self.text, self.folded.place(at + offset)) == Some(capital));
                if !fits {
                    return None;
                }
                self.parts(rest, at + literal.text.len(), k, captures)
            }
            Some((Part::Capture(kind), rest)) => {
                let to_the_end = *kind == Kind::Words && rest.is_empty();
                let most = if *kind == Kind::Words { MAX_WORDS } else { 1 };
                for words in 1..=most {
                    let end = self.words_end(at, words)?;
                    if *kind == Kind::Int && !folded.as_bytes()[at..end].iter().all(u8::is_ascii_digit) {
                        return None;
                    }
                    captures[k] = (at as u32, end as u32);
                    let last = match to_the_end {
                        true => self.words_end(at, words + 1).is_none().then_some(end),
                        false => self.parts(rest, end, k + 1, captures),
                    };
                    if last.is_some() {
                        captures[k] = (at as u32, end as u32);
                        return last;
                    }
                }
                None
            }
        }
    }

    /// Whether a literal of a bucket may stand behind a capture that begins at `at`: told once for all rules that ask.
    fn comes(&self, at: usize, next: u8) -> bool {
        let mut ahead = self.ahead.borrow_mut();
        if ahead.from != Some(at) {
            *ahead = Ahead { from: Some(at), buckets: [0; 4] };
            let ends = (1..=MAX_WORDS).map_while(|words| self.words_end(at, words));
            for found in ends.filter_map(|end| bucket(&self.folded.text.as_bytes()[end..])) {
                ahead.buckets[usize::from(found >> 6)] |= 1 << (found & 63);
            }
        }
        ahead.buckets[usize::from(next >> 6)] >> (next & 63) & 1 == 1
    }

    /// Where the given number of words ends that begin at `at`.
    fn words_end(&self, at: usize, words: usize) -> Option<usize> {
        let mut walk = self.walk.borrow_mut();
        if walk.from != at || walk.ends.is_empty() && !walk.whole {
            (walk.from, walk.whole) = (at, false);
            walk.ends.clear();
        }
        while walk.ends.len() < words && !walk.whole {
            let next = walk.ends.last().map_or(Some(at), |&end| self.space(end));
            match next.and_then(|next| self.word(next)) {
                Some(end) => walk.ends.push(end),
                None => walk.whole = true,
            }
        }
        walk.ends.get(words - 1).copied()
    }

    /// Where the capture begins that ends at `end`: of words, at the start of the clause.
    fn before(&self, kind: Kind, end: usize) -> Option<usize> {
        let folded = self.folded.text.as_str();
        let mut start = self.word_before(end)?;
        if kind != Kind::Words {
            let digits = folded.as_bytes()[start..end].iter().all(u8::is_ascii_digit);
            return (kind == Kind::Word || digits).then_some(start);
        }
        for _ in 1..MAX_WORDS {
            let space = start.checked_sub(1).filter(|&at| folded.as_bytes()[at] == b' ');
            match space.and_then(|space| self.word_before(space)) {
                Some(earlier) => start = earlier,
                None => return Some(start),
            }
        }
        let space = start.checked_sub(1).filter(|&at| folded.as_bytes()[at] == b' ');
        space.and_then(|space| self.word_before(space)).is_none().then_some(start)
    }

    fn space(&self, at: usize) -> Option<usize> {
        (self.folded.text.as_bytes().get(at) == Some(&b' ')).then_some(at + 1)
    }

    /// The end of the word that begins at `at`.
    fn word(&self, at: usize) -> Option<usize> {
        let folded = self.folded.text.as_str();
        let first = char_at(folded, at).filter(|&c| is_part(c))?;
        (!inside_word(folded, at)).then(|| end_of_word(folded, at + first.len_utf8(), first))
    }

    /// The start of the word that ends at `end`.
    fn word_before(&self, end: usize) -> Option<usize> {
        let folded = self.folded.text.as_str();
        if inside_word(folded, end) {
            return None;
        }
        let mut start = end;
        loop {
            start -= folded[..start].chars().next_back()?.len_utf8();
            if !inside_word(folded, start) {
                return self.word(start).filter(|&found| found == end).map(|_| start);
            }
        }
    }
}

/// One line.
struct Parser<'a> {
    source: &'a str,
    at: usize,
    end: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<char> {
        self.source[self.at..self.end].chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let sign = self.peek()?;
        self.at += sign.len_utf8();
        Some(sign)
    }

    fn rest(&self) -> &'a str {
        &self.source[self.at..self.end]
    }

    fn fail<T>(&self, at: usize, message: impl Display) -> Result<T> {
        Err(fault_in(self.source, at, message))
    }

    /// The rule, and what its pattern is known by.
    fn rule(&mut self) -> Result<(Rule, String)> {
        let start = self.at;
        let (parts, names) = self.pattern()?;
        if self.bump() != Some('\t') {
            let arrow = self.source[start..self.end].find("->");
            let at = arrow.map_or(self.end, |arrow| start + arrow);
            let hint = if arrow.is_some() { ", in place of '->'" } else { "" };
            return self.fail(at, format!("expected a tab{hint} and then what may stand in the place of the pattern"));
        }
        let anchor = parts.iter().position(|part| matches!(part, Part::Literal(l) if l.text.contains(is_part)));
        let Some(anchor) = anchor else {
            return self.fail(start, "a pattern needs a word outside of its captures");
        };
        if anchor > 1 {
            return self.fail(start, "before the first word of a pattern there may be one capture and nothing else");
        }
        let named = match &parts[0] {
            Part::Literal(literal) => literal
                .capitals
                .first()
                .is_some_and(|&(offset, _)| literal.text[..offset].chars().all(|c| !c.is_alphanumeric())),
            Part::Capture(_) => false,
        };
        let alternatives = self.alternatives(&parts, &names)?;
        let next = match &parts[anchor + 1..] {
            [Part::Capture(_), Part::Literal(literal), ..] => bucket(literal.text.as_bytes()),
            _ => None,
        };
        let key = key(&parts);
        Ok((Rule { parts, anchor, next, alternatives, named }, key))
    }

    /// The parts of a pattern up to the tab, and the names of its captures.
    fn pattern(&mut self) -> Result<(Vec<Part>, Vec<&'a str>)> {
        let (mut parts, mut names) = (Vec::new(), Vec::new());
        let mut literal = Literal::default();
        while self.rest().starts_with(' ') {
            self.at += 1;
        }
        while let Some(sign) = self.peek().filter(|&sign| sign != '\t') {
            let at = self.at;
            match sign {
                '{' => {
                    let (name, kind) = self.capture()?;
                    if names.contains(&name) {
                        return self.fail(at, format!("there are two captures '{name}': give one another name"));
                    }
                    if names.len() == MAX_CAPTURES {
                        return self.fail(at, format!("a pattern has at most {MAX_CAPTURES} captures"));
                    }
                    let joined = literal.text.chars().next_back().is_some_and(joins);
                    if joined || literal.text.is_empty() && !parts.is_empty() {
                        return self.fail(at, "a capture is whole words: put a space before it");
                    }
                    if !literal.text.is_empty() {
                        parts.push(Part::Literal(std::mem::take(&mut literal)));
                    }
                    names.push(name);
                    parts.push(Part::Capture(kind));
                    if self.peek().is_some_and(|next| joins(next) || next == '{') {
                        return self.fail(self.at, "a capture is whole words: put a space after it");
                    }
                }
                '}' => return self.fail(at, "'}' closes nothing: write \\} to have it as text"),
                _ => {
                    let sign = self.sign()?;
                    if sign.is_whitespace() {
                        if !literal.text.ends_with(' ') {
                            literal.text.push(' ');
                        }
                        continue;
                    }
                    let folded = small(sign);
                    if sign != folded && sign.is_uppercase() {
                        literal.capitals.push((literal.text.len(), sign));
                    }
                    literal.text.push(folded);
                }
            }
        }
        if literal.text.ends_with(' ') {
            literal.text.pop();
        }
        if !literal.text.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok((parts, names))
    }

    /// `{name}` or `{name:kind}`.
    fn capture(&mut self) -> Result<(&'a str, Kind)> {
        let at = self.at;
        self.bump();
        let Some(name) = self.ident() else {
            return self.fail(self.at, "expected the name of a capture; write \\{ to have a brace as text");
        };
        let mut kind = Kind::Words;
        if self.rest().starts_with(':') {
            self.at += 1;
            let place = self.at;
            let given = self.ident().unwrap_or("");
            match KINDS.iter().find(|(name, _)| *name == given) {
                Some(&(_, found)) => kind = found,
                None => {
                    let near = suggestion(given, KINDS.map(|(name, _)| name));
                    return self.fail(place, format!("there is no kind of capture '{given}'{near}: int, word, words"));
                }
            }
        }
        if self.bump() != Some('}') {
            return self.fail(at, "a capture is {name}, {name:word} or {name:int}");
        }
        Ok((name, kind))
    }

    fn ident(&mut self) -> Option<&'a str> {
        self.peek().filter(|sign| sign.is_alphabetic())?;
        let rest = self.rest();
        let length = rest.find(|sign: char| !(sign.is_alphanumeric() || sign == '_')).unwrap_or(rest.len());
        self.at += length;
        Some(&rest[..length])
    }

    /// A sign of text, perhaps after a backslash.
    fn sign(&mut self) -> Result<char> {
        let at = self.at;
        match self.bump() {
            Some('\\') => match self.bump() {
                Some('n') => Ok('\n'),
                Some('r') => Ok('\r'),
                Some('t') => Ok('\t'),
                Some(sign) if !sign.is_alphanumeric() => Ok(sign),
                Some(sign) => {
                    self.fail(at, format!("unknown escape '\\{sign}': there are \\n, \\r, \\t, and \\ before any sign"))
                }
                None => self.fail(at, "a backslash needs a sign after it: write \\\\ to have one as text"),
            },
            Some(sign) => Ok(sign),
            None => self.fail(at, "expected text"),
        }
    }

    fn alternatives(&mut self, parts: &[Part], names: &[&str]) -> Result<Vec<Alternative>> {
        let mut made = Vec::new();
        loop {
            let start = self.at;
            let pieces = self.pieces(names)?;
            if pieces.is_empty() {
                return self.fail(start, "empty alternative: write \\| to have a bar as text");
            }
            let mut weight = 10u64.pow(MAX_WEIGHT_DIGITS as u32);
            if self.rest().starts_with("::") {
                weight = self.weight()?;
            }
            if made.len() == MAX_ALTERNATIVES {
                return self.fail(start, format!("a rule has at most {MAX_ALTERNATIVES} alternatives"));
            }
            let in_order = in_order(parts, &pieces, names.len());
            made.push(Alternative { pieces, weight, in_order });
            match self.bump() {
                None => return Ok(made),
                Some('|') => {}
                Some('\t') => {
                    return self.fail(self.at - 1, "a rule has two columns: put '|' between alternatives");
                }
                Some(_) => {
                    return self
                        .fail(self.at - 1, "a weight ends its alternative: expected '|' or the end of the line");
                }
            }
        }
    }

    /// Text and captures up to `|`, `::`, a tab or the end, without the spaces around them.
    fn pieces(&mut self, names: &[&str]) -> Result<Vec<Piece>> {
        let (mut pieces, mut text) = (Vec::new(), String::new());
        // How much of the text stays though it ends in spaces: what was escaped.
        let mut solid = 0;
        let trimmed = self.rest().trim_start_matches(' ').len();
        self.at = self.end - trimmed;
        while let Some(sign) = self.peek() {
            let at = self.at;
            match sign {
                '|' | '\t' => break,
                ':' if self.rest().starts_with("::") => break,
                '{' => {
                    self.bump();
                    let name = self.ident();
                    let (Some(name), Some('}')) = (name, self.peek()) else {
                        return self.fail(
                            at,
                            "only {name}, a capture of the pattern, may stand here; write \\{ to have a brace as text",
                        );
                    };
                    self.bump();
                    let Some(index) = names.iter().position(|known| *known == name) else {
                        let near = suggestion(name, names.iter().copied());
                        return self.fail(at, format!("the pattern has no capture '{name}'{near}"));
                    };
                    if !text.is_empty() {
                        pieces.push(Piece::Text(std::mem::take(&mut text)));
                    }
                    solid = 0;
                    pieces.push(Piece::Capture(index));
                }
                '}' => return self.fail(at, "'}' closes nothing: write \\} to have it as text"),
                ')' if self.rest().starts_with(")?") => {
                    let message = "a rule has no optional parts: write both alternatives, or \\? to have it as text";
                    return self.fail(at, message);
                }
                _ => {
                    text.push(self.sign()?);
                    if sign == '\\' {
                        solid = text.len();
                    }
                }
            }
        }
        let kept = text.trim_end_matches(' ').len().max(solid);
        text.truncate(kept);
        if !text.is_empty() {
            pieces.push(Piece::Text(text));
        }
        Ok(pieces)
    }

    fn weight(&mut self) -> Result<u64> {
        let at = self.at;
        self.at += 2;
        let rest = self.rest();
        let length = rest.find(['|', '\t']).unwrap_or(rest.len());
        let given = rest[..length].trim_matches(' ');
        let (whole, part) = given.split_once('.').unwrap_or((given, "0"));
        let digits = |text: &str| {
            (1..=MAX_WEIGHT_DIGITS).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
        };
        let value = match digits(whole) && digits(part) {
            true => format!("{whole}{part:0<MAX_WEIGHT_DIGITS$}").parse().ok().filter(|&value: &u64| value > 0),
            false => None,
        };
        let Some(value) = value else {
            return self.fail(
                at,
                format!(
                    "expected a weight after '::': a number above 0 with at most {MAX_WEIGHT_DIGITS} digits on either \
                     side of its point; write \\:: to have the colons as text"
                ),
            );
        };
        self.at += length;
        Ok(value)
    }
}

/// Whether a sign next to a capture would belong to its last or first word.
fn joins(sign: char) -> bool {
    is_part(sign) || matches!(sign, '\'' | '\u{2019}' | '-')
}

/// Whether the captures are all there once and in order, with text before the first and after the last where the
/// pattern has some.
fn in_order(parts: &[Part], pieces: &[Piece], count: usize) -> bool {
    let captures = pieces.iter().filter_map(|piece| match piece {
        Piece::Capture(index) => Some(*index),
        Piece::Text(_) => None,
    });
    let capture = |part: Option<&Part>| matches!(part, Some(Part::Capture(_)));
    let placed = |piece: Option<&Piece>| matches!(piece, Some(Piece::Capture(_)));
    captures.eq(0..count)
        && capture(parts.first()) == placed(pieces.first())
        && capture(parts.last()) == placed(pieces.last())
}

/// What two rules may not have in common.
fn key(parts: &[Part]) -> String {
    let mut key = String::new();
    for part in parts {
        match part {
            Part::Capture(kind) => key.push_str(&format!("{{{kind:?}}}")),
            Part::Literal(literal) => {
                for (offset, c) in literal.text.char_indices() {
                    let capital = literal.capitals.iter().find(|&&(at, _)| at == offset);
                    if matches!(c, '{' | '}' | '\\') {
                        key.push('\\');
                    }
                    key.push(capital.map_or(c, |&(_, capital)| capital));
                }
            }
        }
    }
    key
}

/// Whether a run may be cut out of its text: it begins and ends between grapheme clusters.
pub(super) fn whole(text: &str, start: usize, end: usize) -> bool {
    boundary(text, start) && boundary(text, end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ops::graphemes;
    use crate::ops::tables::REWRITES;

    fn found(rules: &str, text: &str) -> Vec<String> {
        let rules = Rules::parse(rules).unwrap();
        let folded = Folded::new(text).unwrap();
        rules.find(text, &folded).iter().map(|m| text[folded.place(m.start)..folded.place(m.end)].into()).collect()
    }

    #[test]
    fn words_are_whole_and_their_case_and_spaces_are_free() {
        let rules = "in order to\tto\nUS\tthe States\nit's\tit is";
        let text = "In  Order\nto win, reorder to, in order tomorrow, in order\n\nto; the US told us: IT\u{2019}S";
        assert_eq!(found(rules, text), ["In  Order\nto", "US", "IT\u{2019}S"]);
        assert!(found("can\tmay", "can't can-opener Cans").is_empty());
    }

    #[test]
    fn the_leftmost_then_the_longest_then_the_first_rule_matches() {
        assert_eq!(found("b c d e\tx\na b\ty\na b c\tz", "a b c d e"), ["a b c"]);
        let rules = Rules::parse("a {x:word}\t1\na b\t2").unwrap();
        let folded = Folded::new("a b").unwrap();
        let matches = rules.find("a b", &folded);
        assert_eq!((matches.len(), matches[0].rule), (1, 0));
    }

    #[test]
    fn captures_are_short_inside_and_reach_the_end_of_the_clause_outside() {
        let text = "We know, the old dog slept because it was tired of it. Because of it, so.";
        assert_eq!(found("{x} because {y}\ty", text), ["the old dog slept because it was tired of it"]);
        assert_eq!(found("from {x} to\ty", "from here to there to me"), ["from here to"]);
        assert_eq!(found("{n:int} days {x:word}\ty", "in 12 days time, 1.5 days later, x2 days on"), ["12 days time"]);
        let long = "w ".repeat(MAX_WORDS) + "if ";
        assert_eq!(found("{x} if so\ty", &(long.clone() + "so")).len(), 1);
        assert!(found("{x} if so\ty", &("w ".to_owned() + &long + "so")).is_empty());
        assert_eq!(found("if {x}\ty", &("if ".to_owned() + &"w ".repeat(MAX_WORDS))).len(), 1);
        assert!(found("if {x}\ty", &("if ".to_owned() + &"w ".repeat(MAX_WORDS + 1))).is_empty());
    }

    #[test]
    fn what_is_no_rule_is_refused_with_its_place() {
        for (rules, line, column, message) in [
            ("a -> b", 1, 3, "expected a tab, in place of '->'"),
            ("# no\n\na b", 3, 4, "expected a tab and then"),
            ("a\tb\tc", 1, 4, "two columns"),
            ("a {x\tb", 1, 3, "a capture is {name}"),
            ("a {}\tb", 1, 4, "expected the name of a capture"),
            ("a {x:wrd}\tb", 1, 6, "no kind of capture 'wrd' (did you mean 'word'?)"),
            ("a {x} {x}\tb", 1, 7, "two captures 'x'"),
            ("{a} {b} c {d} {e} {f}\tb", 1, 19, "at most 4 captures"),
            ("{a} {b} c\tb", 1, 1, "one capture and nothing else"),
            ("{a}\tb", 1, 1, "a word outside of its captures"),
            ("a{x}\tb", 1, 2, "a space before it"),
            ("a {x}'s\tb", 1, 6, "a space after it"),
            ("a }\tb", 1, 3, "closes nothing"),
            ("a \\q\tb", 1, 3, "unknown escape"),
            ("a {name}\t{nme}", 1, 10, "no capture 'nme' (did you mean 'name'?)"),
            ("a\t{=1+1}", 1, 3, "only {name}"),
            ("a\tb | ", 1, 6, "empty alternative"),
            ("a\tb :: 0", 1, 5, "a number above 0"),
            ("a\tb :: 2 c", 1, 5, "a number above 0"),
            ("a\tb( c)?", 1, 7, "no optional parts"),
            ("a  b\tc\nA b\td\na b\te", 3, 1, "line 1 has this pattern"),
        ] {
            let error = Rules::parse(rules).expect_err(rules);
            assert_eq!(error.position(), Some((line, column)), "{rules}: {error}");
            assert!(error.message().contains(message), "{error}");
            assert!(error.message().ends_with('^'), "{error}");
        }
    }

    #[test]
    fn escapes_and_weights_are_read() {
        let rules = Rules::parse("a \\{ \\\\ {x} b\t \\|{x}\\{:: 2.5|c\\  ").unwrap();
        let texts = |i: usize| &rules.rules[0].alternatives[i];
        let text = |text: &str| Piece::Text(text.into());
        assert_eq!(texts(0).pieces, [text("|"), Piece::Capture(0), text("{")]);
        assert_eq!(texts(1).pieces, [text("c ")]);
        assert_eq!((texts(0).weight, texts(1).weight), (2_500_000_000, 1_000_000_000));
        assert_eq!(found("a \\{ {x} b\tc", "a { it b"), ["a { it b"]);
    }

    #[test]
    fn rules_that_come_along_are_rules() {
        let rules = Rules::parse(REWRITES).unwrap();
        assert!(rules.rules.len() > 500);
        assert!(Rules::parse("").unwrap().find("any", &Folded::new("any").unwrap()).is_empty());
    }

    /// The matches of rules by trying every place and every way to capture.
    fn oracle(rules: &Rules, text: &str, folded: &Folded) -> Vec<(usize, usize, u32)> {
        let mut all = Vec::new();
        for (number, rule) in (0..).zip(&rules.rules) {
            for start in (0..folded.text.len()).filter(|&at| folded.text.is_char_boundary(at)) {
                let lead = matches!(rule.parts[0], Part::Capture(Kind::Words));
                let clause = folded.text[..start]
                    .strip_suffix(' ')
                    .is_none_or(|left| crate::ops::words::words(left).last().is_none_or(|word| word.end != left.len()));
                if inside_word(&folded.text, start) || lead && !clause {
                    continue;
                }
                let view = View { text, folded, walk: RefCell::default(), ahead: RefCell::default() };
                let mut captures = Captures::default();
                if let Some(end) = view.parts(&rule.parts, start, 0, &mut captures) {
                    all.push((start, end, number));
                }
            }
        }
        let mut kept: Vec<(usize, usize, u32)> = Vec::new();
        let mut at = 0;
        while let Some(&best) =
            all.iter().filter(|m| m.0 >= at).min_by_key(|&&(start, end, rule)| (start, Reverse(end), rule))
        {
            kept.push(best);
            at = best.1;
        }
        kept
    }

    proptest! {
        #[test]
        fn one_pass_finds_what_every_place_tried_would(
            rules in prop::collection::vec(prop::collection::vec(
                prop::sample::select(vec!["a", "b", "c", "A", "a b", "{x:word}", "{y}", "{n:int}", ",", "(", "a'b", "é"]), 1..5,
            ), 1..6),
            text in prop::collection::vec(prop::sample::select(vec![
                "a", "b", "c", "A", "B", "7", "1.5", " ", " ", " ", " ", "  ", "\n", "\n\n", ",", ".", "(", "-", "'", "É", "e\u{301}",
            ]), 0..24),
        ) {
            let mut lines: Vec<String> = rules.into_iter().map(|parts| parts.join(" ") + "\tz").collect();
            lines.retain(|line| Rules::parse(line).is_ok());
            lines.sort();
            lines.dedup();
            let rules = match Rules::parse(&lines.join("\n")) { Ok(rules) => rules, Err(_) => return Ok(()) };
            let text = text.concat();
            let folded = Folded::new(&text).unwrap();
            let found: Vec<_> = rules.find(&text, &folded).iter().map(|m| (m.start, m.end, m.rule)).collect();
            prop_assert_eq!(found, oracle(&rules, &text, &folded));
        }

        #[test]
        fn anything_is_rules_or_refused(rules in "[ab{}|:\\\\ \t\n#)?xint0.\\PC]{0,40}", text in graphemes::tests::odd_text()) {
            if let Ok(rules) = Rules::parse(&rules) {
                let folded = Folded::new(&text).unwrap();
                for found in rules.find(&text, &folded) {
                    prop_assert!(found.start < found.end && text.get(folded.place(found.start)..folded.place(found.end)).is_some());
                }
            }
        }
    }
}
