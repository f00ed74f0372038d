//! The quick way through a line: finds the wanted fields of plain objects without building anything.
//!
//! It takes only what the parser of serde_json takes too, with the same values, and gives up on everything else: keys
//! with escapes, deep nesting, lone surrogates, wrong types, and whatever is wrong. The caller then goes the long way.

use super::{Column, Want};
use crate::ragged::RaggedBuf;

/// Nesting that is followed; one bit each.
const MAX_DEPTH: u32 = 60;

/// Where the wanted values of a line are; kept between lines for its memory.
#[derive(Default)]
pub struct Finder {
    found: Vec<Option<(usize, usize)>>,
    lengths: Vec<usize>,
}

impl Finder {
    /// Appends the fields of a line, which must be UTF-8, to `fields`; `None` if the line must go the long way, and
    /// `fields` is as it was.
    pub fn take(
        &mut self,
        line: &[u8],
        columns: &[Column<'_>],
        fields: &mut [RaggedBuf<u8>],
        present: &mut [Vec<u8>],
    ) -> Option<()> {
        self.find(line, columns)?;
        self.lengths.clear();
        self.lengths.extend(fields.iter().map(|field| field.values.len()));
        for ((column, found), field) in columns.iter().zip(&self.found).zip(fields.iter_mut()) {
            if copy(line, column, *found, &mut field.values).is_none() {
                for (field, &length) in fields.iter_mut().zip(&self.lengths) {
                    field.values.truncate(length);
                }
                return None;
            }
        }
        for (((column, found), field), present) in columns.iter().zip(&self.found).zip(fields).zip(present) {
            let null = column.want == Want::Any && found.is_none_or(|(start, end)| &line[start..end] == b"null");
            field.end_row();
            present.push(u8::from(!null));
        }
        Some(())
    }

    /// Checks the whole line and notes where the values of the columns are.
    fn find(&mut self, line: &[u8], columns: &[Column<'_>]) -> Option<()> {
        self.found.clear();
        self.found.resize(columns.len(), None);
        let mut at = blank(line, 0);
        if *line.get(at)? != b'{' {
            return None;
        }
        at = blank(line, at + 1);
        if *line.get(at)? == b'}' {
            at += 1;
        } else {
            loop {
                let (name, start) = key(line, at)?;
                let end = value(line, start)?;
                for (column, found) in columns.iter().zip(&mut self.found) {
                    if column.name.as_bytes() == name {
                        *found = Some((start, end));
                    } else if column.head().is_some_and(|head| head.as_bytes() == name) {
                        return None;
                    }
                }
                at = blank(line, end);
                match *line.get(at)? {
                    b',' => at = blank(line, at + 1),
                    b'}' => break at += 1,
                    _ => return None,
                }
            }
        }
        (blank(line, at) == line.len()).then_some(())
    }
}

/// Appends a value as the column wants it.
fn copy(line: &[u8], column: &Column<'_>, found: Option<(usize, usize)>, out: &mut Vec<u8>) -> Option<()> {
    let Some((start, end)) = found else {
        return (column.want == Want::Any).then_some(());
    };
    let raw = &line[start..end];
    match (raw[0], column.want) {
        (b'"', _) => unescape(&raw[1..raw.len() - 1], out),
        (b'n', Want::Any) => Some(()),
        (b'-' | b'0'..=b'9', Want::Key) if raw.iter().skip(1).all(u8::is_ascii_digit) => {
            out.extend_from_slice(raw);
            Some(())
        }
        (_, Want::Any) => {
            out.extend_from_slice(raw);
            Some(())
        }
        _ => None,
    }
}

/// Appends the inside of a string whose escapes have been checked.
fn unescape(mut inner: &[u8], out: &mut Vec<u8>) -> Option<()> {
    while let Some(at) = memchr::memchr(b'\\', inner) {
        out.extend_from_slice(&inner[..at]);
        let mut used = at + 2;
        out.push(match inner[at + 1] {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'b' => 8,
            b'f' => 12,
            b'u' => {
                let mut code = unit(&inner[at + 2..])?;
                used += 4;
                if (0xD800..0xE000).contains(&code) {
                    let low = inner[used..].strip_prefix(b"\\u").and_then(unit)?;
                    if code >= 0xDC00 || !(0xDC00..0xE000).contains(&low) {
                        return None;
                    }
                    code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
                    used += 6;
                }
                out.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut [0; 4]).as_bytes());
                inner = &inner[used..];
                continue;
            }
            plain => plain,
        });
        inner = &inner[used..];
    }
    out.extend_from_slice(inner);
    Some(())
}

/// The number that four hexadecimal digits are.
fn unit(digits: &[u8]) -> Option<u32> {
    digits.get(..4)?.iter().try_fold(0, |code, &digit| Some(code << 4 | char::from(digit).to_digit(16)?))
}

/// The place after white space.
#[inline]
fn blank(line: &[u8], mut at: usize) -> usize {
    while at < line.len() && matches!(line[at], b' ' | b'\t' | b'\r' | b'\n') {
        at += 1;
    }
    at
}

/// A key without escapes, and where its value starts.
fn key(line: &[u8], at: usize) -> Option<(&[u8], usize)> {
    if *line.get(at)? != b'"' {
        return None;
    }
    let end = at + 1 + plain(&line[at + 1..]);
    if *line.get(end)? != b'"' {
        return None;
    }
    let colon = blank(line, end + 1);
    (*line.get(colon)? == b':').then(|| (&line[at + 1..end], blank(line, colon + 1)))
}

/// The place after a value of any kind.
fn value(line: &[u8], mut at: usize) -> Option<usize> {
    let (mut depth, mut objects) = (0, 0u64);
    loop {
        at = match *line.get(at)? {
            b'"' => string(line, at + 1)?,
            b't' => line[at..].starts_with(b"true").then_some(at + 4)?,
            b'f' => line[at..].starts_with(b"false").then_some(at + 5)?,
            b'n' => line[at..].starts_with(b"null").then_some(at + 4)?,
            b'-' | b'0'..=b'9' => number(line, at)?,
            open @ (b'{' | b'[') => {
                let inside = blank(line, at + 1);
                if *line.get(inside)? == open + 2 {
                    inside + 1
                } else if depth == MAX_DEPTH {
                    return None;
                } else {
                    depth += 1;
                    objects = objects << 1 | u64::from(open == b'{');
                    at = if open == b'{' { key(line, inside)?.1 } else { inside };
                    continue;
                }
            }
            _ => return None,
        };
        loop {
            if depth == 0 {
                return Some(at);
            }
            at = blank(line, at);
            match (*line.get(at)?, objects & 1) {
                (b',', object) => {
                    at = blank(line, at + 1);
                    if object == 1 {
                        at = key(line, at)?.1;
                    }
                    break;
                }
                (b'}', 1) | (b']', 0) => {
                    depth -= 1;
                    objects >>= 1;
                    at += 1;
                }
                _ => return None,
            }
        }
    }
}

/// The place after the closing quote of a string that starts at `at`.
#[inline]
fn string(line: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += plain(&line[at..]);
        match *line.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => match *line.get(at + 1)? {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => at += 2,
                b'u' => {
                    unit(&line[at + 2..])?;
                    at += 6;
                }
                _ => return None,
            },
            _ => return None,
        }
    }
}

/// How many bytes there are before a quote, a backslash or a control character.
#[inline]
fn plain(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const TOPS: u64 = ONES << 7;
    const QUOTES: u64 = ONES * b'"' as u64;
    const BACKSLASHES: u64 = ONES * b'\\' as u64;
    let zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let (words, rest) = bytes.as_chunks::<8>();
    for (i, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        // Exact up to and including the lowest byte that is found: a borrow goes upwards only.
        let found = (zero(word ^ QUOTES) | zero(word ^ BACKSLASHES) | control) & TOPS;
        if found != 0 {
            return i * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let at = rest.iter().position(|&b| b == b'"' || b == b'\\' || b < 0x20).unwrap_or(rest.len());
    words.len() * 8 + at
}

/// The place after a number.
fn number(line: &[u8], mut at: usize) -> Option<usize> {
    let digits = |mut at: usize| {
        let start = at;
        while line.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        (at > start).then_some(at)
    };
    if line[at] == b'-' {
        at += 1;
    }
    at = if *line.get(at)? == b'0' { at + 1 } else { digits(at)? };
    if line.get(at) == Some(&b'.') {
        at = digits(at + 1)?;
    }
    if matches!(line.get(at), Some(b'e' | b'E')) {
        at += 1;
        if matches!(line.get(at), Some(b'+' | b'-')) {
            at += 1;
        }
        at = digits(at)?;
    }
    Some(at)
}
