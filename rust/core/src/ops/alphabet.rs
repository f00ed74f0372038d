//! Which letters may stand beside or in place of a letter: those of its script, or those that were asked for.

use super::tables::ALPHABETS;
use crate::error::{Error, Result};

/// Alphabets in small letters.
#[derive(Debug)]
pub(super) struct Alphabet {
    sets: Vec<Vec<char>>,
    /// Whether the one set is for the letters of every script.
    one: bool,
}

impl Alphabet {
    pub(super) fn new(kind: &str, letters: Option<String>) -> Result<Self> {
        match letters {
            Some(letters) if letters.is_empty() => {
                Err(Error::invalid(format!("{kind}: alphabet must hold at least one letter (it is '')")))
            }
            Some(letters) => Ok(Alphabet { sets: vec![letters.chars().collect()], one: true }),
            None => Ok(Alphabet { sets: ALPHABETS.iter().map(|set| set.chars().collect()).collect(), one: false }),
        }
    }

    /// The alphabet of a letter, and the letter's place there if it has one.
    pub(super) fn of(&self, letter: char) -> Option<(&[char], Option<usize>)> {
        let small = single(letter.to_lowercase()).unwrap_or(letter);
        self.sets.iter().find_map(|set| {
            let place = set.iter().position(|&c| c == small);
            (self.one || place.is_some()).then_some((set.as_slice(), place))
        })
    }
}

/// A letter in the case of another, if it has one of a single character.
pub(super) fn cased(letter: char, model: char) -> char {
    if model.is_uppercase() { single(letter.to_uppercase()).unwrap_or(letter) } else { letter }
}

/// The one character of a case mapping, if it is one.
pub(super) fn single(mut mapping: impl Iterator<Item = char>) -> Option<char> {
    mapping.next().filter(|_| mapping.next().is_none())
}
