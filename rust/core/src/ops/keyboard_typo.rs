//! Typing errors: a letter becomes its neighbour on the keyboard.

use serde::Deserialize;

use super::draw::{Draw, below_at};
use super::text::{TextOp, TextPlan, TextRow};
use crate::error::{Error, Result};
use crate::rng::threshold;

/// Hits each letter of the layout with probability `rate`; the neighbour is uniform over the letters whose keys touch
/// it, and the case stays. A letter that carries a combining mark is left alone, as is all that is no letter.
#[derive(Debug)]
pub(crate) struct KeyboardTypo {
    rate: f64,
    /// Per code point, the letters that may replace it.
    neighbours: Vec<Vec<char>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    rate: f64,
    layout: String,
}

/// Letters by row; each row lies half a key further right than the one above it. A space is a key without a letter.
const LAYOUTS: [(&str, [&str; 3]); 5] = [
    ("azerty", ["azertyuiop", "qsdfghjklm", "wxcvbn"]),
    ("dvorak", ["   pyfgcrl", "aoeuidhtns", " qjkxbmwvz"]),
    ("jcuken", ["йцукенгшщзхъ", "фывапролджэ", "ячсмитьбю"]),
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
        Ok(KeyboardTypo { rate, neighbours: neighbours(rows) })
    }
}

/// The six keys that touch a key, left to right and top to bottom, as far as they bear letters.
fn neighbours(rows: &[&str; 3]) -> Vec<Vec<char>> {
    let rows: Vec<Vec<char>> = rows.iter().map(|row| row.chars().collect()).collect();
    let key = |row: usize, column: usize| rows.get(row).and_then(|keys| keys.get(column)).copied();
    let mut table = Vec::new();
    for (row, keys) in rows.iter().enumerate() {
        for (column, &letter) in keys.iter().enumerate().filter(|&(_, &letter)| letter != ' ') {
            let (above, left) = (row.wrapping_sub(1), column.wrapping_sub(1));
            let around = [
                (above, column),
                (above, column + 1),
                (row, left),
                (row, column + 1),
                (row + 1, left),
                (row + 1, column),
            ];
            let letters: Vec<char> =
                around.iter().filter_map(|&(row, column)| key(row, column)).filter(|&other| other != ' ').collect();
            for upper in [false, true] {
                let cased = |c: char| if upper { c.to_uppercase().next().unwrap_or(c) } else { c };
                let at = cased(letter) as usize;
                table.resize(table.len().max(at + 1), Vec::new());
                table[at] = letters.iter().copied().map(cased).collect();
            }
        }
    }
    table
}

impl TextOp for KeyboardTypo {
    fn plan(&self, row: TextRow<'_>, draw: &mut Draw, plan: &mut TextPlan) -> Result<()> {
        let (text, stream) = (row.text()?, draw.stream);
        let mut bytes = [0; 4];
        for &i in draw.hits(text.len(), row.protected, threshold(self.rate)) {
            let i = i as usize;
            let Some(letter) = row.letter(text, i).filter(|letter| letter.bare()) else { continue };
            let Some(near) = self.neighbours.get(letter.char as usize).filter(|near| !near.is_empty()) else {
                continue;
            };
            let other = near[below_at(&stream, 1, i, near.len() as u32) as usize];
            plan.replace(text, letter.start, letter.end, other.encode_utf8(&mut bytes));
        }
        plan.finish(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_the_keys_that_touch() {
        let of = |layout: &str, letter: char| {
            let (_, rows) = LAYOUTS.iter().find(|(name, _)| *name == layout).unwrap();
            neighbours(rows).get(letter as usize).cloned().unwrap_or_default().into_iter().collect::<String>()
        };
        assert_eq!(of("qwerty", 's'), "weadzx");
        assert_eq!(of("qwerty", 'q'), "wa");
        assert_eq!(of("qwerty", 'L'), "OPK");
        assert_eq!(of("qwerty", 'm'), "jkn");
        assert_eq!(of("qwerty", ';'), "");
        assert_eq!(of("jcuken", 'а'), "кевпсм");
        assert_eq!(of("jcuken", 'Э'), "ХЪЖ");
        assert_eq!(of("jcuken", 'a'), "");
        for (name, rows) in &LAYOUTS {
            let table = neighbours(rows);
            for a in rows.concat().chars().filter(|&c| c != ' ') {
                assert!(!table[a as usize].is_empty(), "{name} {a}");
                // Touching goes both ways.
                assert!(table[a as usize].iter().all(|&b| table[b as usize].contains(&a)));
            }
        }
    }
}
