//! Typing errors: a letter becomes its neighbour on the keyboard.

use serde::Deserialize;
use unicode_segmentation::GraphemeCursor;

use super::draw::{Draw, below_at};
use super::text::{Edit, TextOp, TextPlan, TextRow};
use crate::error::{Error, Result};
use crate::rng::threshold;

/// Hits each letter of the layout with probability `rate`; the neighbour is uniform over the letters whose keys touch
/// it, and the case stays. A letter that carries a combining mark is left alone, as is all that is no letter.
#[derive(Debug)]
pub(crate) struct KeyboardTypo {
    rate: f64,
    /// Per byte, the letters that may replace it.
    neighbours: Box<[Vec<u8>; 128]>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    rate: f64,
    layout: String,
}

/// Letters by row; each row lies half a key further right than the one above it. A space is a key without a letter.
const LAYOUTS: [(&str, [&str; 3]); 4] = [
    ("azerty", ["azertyuiop", "qsdfghjklm", "wxcvbn"]),
    ("dvorak", ["   pyfgcrl", "aoeuidhtns", " qjkxbmwvz"]),
    ("qwerty", ["qwertyuiop", "asdfghjkl", "zxcvbnm"]),
    ("qwertz", ["qwertzuiop", "asdfghjkl", "yxcvbnm"]),
];

const KIND: &str = "KeyboardTypo";

impl KeyboardTypo {
    pub(crate) fn new(parameters: Parameters) -> Result<Self> {
        let rate = super::rate(KIND, "rate", parameters.rate)?;
        let Some((_, rows)) = LAYOUTS.iter().find(|(name, _)| *name == parameters.layout) else {
            let names: Vec<_> = LAYOUTS.iter().map(|(name, _)| *name).collect();
            return Err(Error::invalid(format!(
                "{KIND}: layout must be one of {} (it is '{}')",
                names.join(", "),
                parameters.layout
            )));
        };
        Ok(KeyboardTypo { rate, neighbours: Box::new(neighbours(rows)) })
    }
}

/// The six keys that touch a key, left to right and top to bottom, as far as they bear letters.
fn neighbours(rows: &[&str; 3]) -> [Vec<u8>; 128] {
    let key = |row: usize, column: usize| rows.get(row).and_then(|keys| keys.as_bytes().get(column)).copied();
    let mut table = [const { Vec::new() }; 128];
    for (row, keys) in rows.iter().enumerate() {
        for (column, letter) in keys.bytes().enumerate().filter(|&(_, letter)| letter != b' ') {
            let (above, left) = (row.wrapping_sub(1), column.wrapping_sub(1));
            let around = [
                (above, column),
                (above, column + 1),
                (row, left),
                (row, column + 1),
                (row + 1, left),
                (row + 1, column),
            ];
            let letters = around.iter().filter_map(|&(row, column)| key(row, column)).filter(|&other| other != b' ');
            table[usize::from(letter)] = letters.collect();
            table[usize::from(letter.to_ascii_uppercase())] =
                table[usize::from(letter)].iter().map(u8::to_ascii_uppercase).collect();
        }
    }
    table
}

impl TextOp for KeyboardTypo {
    fn plan(&self, row: TextRow<'_>, draw: &mut Draw, plan: &mut TextPlan) -> Result<()> {
        let limit = threshold(self.rate);
        plan.text.extend_from_slice(row.text);
        let stream = draw.stream;
        let rolls = draw.rolls(row.text.len(), row.protected);
        for (i, (&roll, &letter)) in rolls.iter().zip(row.text).enumerate() {
            if roll >= limit {
                continue;
            }
            let Some(neighbours) = self.neighbours.get(usize::from(letter)).filter(|letters| !letters.is_empty())
            else {
                continue;
            };
            if stands_alone(row.text, i) {
                plan.text[i] = neighbours[below_at(&stream, 1, i, neighbours.len() as u32) as usize];
                plan.edits.push(Edit { start: i, end: i + 1, length: 1 });
            }
        }
        Ok(())
    }
}

/// Whether the letter at `i` is a grapheme cluster of its own. Between letters of ASCII it always is.
fn stands_alone(text: &[u8], i: usize) -> bool {
    let ascii = |i: usize| text.get(i).is_none_or(u8::is_ascii);
    if ascii(i + 1) && ascii(i.wrapping_sub(1)) {
        return true;
    }
    let Ok(text) = std::str::from_utf8(text) else { return false };
    let boundary = |at| GraphemeCursor::new(at, text.len(), true).is_boundary(text, 0) == Ok(true);
    boundary(i) && boundary(i + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_the_keys_that_touch() {
        let table = neighbours(&LAYOUTS[2].1);
        let of = |letter: char| table[letter as usize].iter().map(|&b| b as char).collect::<String>();
        assert_eq!(of('s'), "weadzx");
        assert_eq!(of('q'), "wa");
        assert_eq!(of('L'), "OPK");
        assert_eq!(of('m'), "jkn");
        assert_eq!(of(';'), "");
        for (_, rows) in &LAYOUTS {
            let table = neighbours(rows);
            for a in b'a'..=b'z' {
                assert!(!table[usize::from(a)].is_empty());
                // Touching goes both ways.
                assert!(table[usize::from(a)].iter().all(|&b| table[usize::from(b)].contains(&a)));
            }
        }
    }

    #[test]
    fn a_letter_with_a_mark_does_not_stand_alone() {
        let text = "e\u{301}a né n\u{200d}x \u{600}b".as_bytes();
        let alone: Vec<usize> =
            (0..text.len()).filter(|&i| text[i].is_ascii_alphabetic() && stands_alone(text, i)).collect();
        let at = |letter: u8, nth: usize| (0..text.len()).filter(|&i| text[i] == letter).nth(nth).unwrap();
        assert_eq!(alone, [at(b'a', 0), at(b'n', 0), at(b'x', 0)]);
    }
}
