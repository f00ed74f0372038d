//! Diacritics that are missing, or where none belongs.

use std::collections::HashMap;

use serde::Deserialize;

use super::draw::{Draw, below_at};
use super::tables::{DIACRITICS, STACKED};
use super::text::{Letter, TextOp, TextPlan, TextRow};
use crate::error::Result;
use crate::rng::threshold;

/// Drops the diacritics of each letter that has some, or adds one to each letter that has none and could, with
/// probability `rate`.
#[derive(Debug)]
pub(crate) struct Diacritics {
    rate: f64,
    mode: Mode,
    /// The letter under a letter with diacritics.
    bases: HashMap<char, char>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    rate: f64,
    mode: Mode,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Drop,
    Add,
}

impl Diacritics {
    pub(crate) fn new(parameters: Parameters) -> Result<Self> {
        let rate = super::rate("Diacritics", "rate", parameters.rate)?;
        let all = DIACRITICS.iter().chain(&STACKED);
        let bases = all.flat_map(|&(base, accented)| accented.chars().map(move |c| (c, base))).collect();
        Ok(Diacritics { rate, mode: parameters.mode, bases })
    }

    /// The letter without its diacritics.
    fn bare(&self, text: &str, letter: Letter, out: &mut String) {
        let marks = &text[letter.start + letter.char.len_utf8()..letter.end];
        out.clear();
        out.push(self.bases.get(&letter.char).copied().unwrap_or(letter.char));
        out.extend(marks.chars().filter(|&c| !diacritic(c)));
    }
}

impl TextOp for Diacritics {
    fn plan(&self, row: TextRow<'_>, draw: &mut Draw, plan: &mut TextPlan) -> Result<()> {
        let (text, stream) = (row.text()?, draw.stream);
        let mut other = String::new();
        for &i in draw.hits(text.len(), row.protected, threshold(self.rate)) {
            let i = i as usize;
            let Some(letter) = row.letter(text, i) else { continue };
            match self.mode {
                Mode::Drop => self.bare(text, letter, &mut other),
                Mode::Add => {
                    let base = DIACRITICS.binary_search_by_key(&letter.char, |&(c, _)| c);
                    let Some(place) = base.ok().filter(|_| letter.bare()) else { continue };
                    let accented = DIACRITICS[place].1;
                    let drawn = below_at(&stream, 1, i, accented.chars().count() as u32) as usize;
                    other.clear();
                    other.extend(accented.chars().nth(drawn));
                }
            }
            if other != text[letter.start..letter.end] {
                plan.replace(text, letter.start, letter.end, &other);
            }
        }
        plan.finish(text);
        Ok(())
    }
}

/// A mark above, below or through a letter: Latin, Greek and Cyrillic, the points of Hebrew, the vowels of Arabic.
fn diacritic(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}' | '\u{591}'..='\u{5c7}' | '\u{64b}'..='\u{652}' | '\u{670}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_names_each_letter_once() {
        assert!(DIACRITICS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        let op = Diacritics::new(Parameters { rate: 0.0, mode: Mode::Drop }).unwrap();
        let all: usize = DIACRITICS.iter().chain(&STACKED).map(|(_, accented)| accented.chars().count()).sum();
        assert_eq!(op.bases.len(), all);
        assert_eq!(op.bases[&'ế'], 'e');
        assert_eq!(op.bases[&'ё'], 'е');
        assert_eq!(op.bases[&'ᾧ'], 'ω');
        assert_eq!(op.bases[&'ț'], 't');
        assert!(!op.bases.contains_key(&'й'));
    }
}
