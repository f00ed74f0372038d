//! Letters that look like others.

use serde::Deserialize;

use super::draw::{Draw, below_at};
use super::tables::HOMOGLYPHS;
use super::text::{TextOp, TextPlan, TextRow};
use crate::error::Result;
use crate::rng::threshold;

/// Replaces each letter that has a double in another script by it, with probability `rate`.
#[derive(Debug)]
pub(crate) struct Homoglyph {
    rate: f64,
    /// Each letter and its doubles, by letter.
    doubles: Vec<(char, Vec<char>)>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    rate: f64,
}

impl Homoglyph {
    pub(crate) fn new(parameters: Parameters) -> Result<Self> {
        let rate = super::rate("Homoglyph", "rate", parameters.rate)?;
        let mut doubles: Vec<(char, Vec<char>)> = HOMOGLYPHS
            .iter()
            .flat_map(|set| set.chars().map(|c| (c, set.chars().filter(|&other| other != c).collect())))
            .filter(|(_, others): &(char, Vec<char>)| !others.is_empty())
            .collect();
        doubles.sort_unstable();
        Ok(Homoglyph { rate, doubles })
    }
}

impl TextOp for Homoglyph {
    fn plan(&self, row: TextRow<'_>, draw: &mut Draw, plan: &mut TextPlan) -> Result<()> {
        let (text, stream) = (row.text()?, draw.stream);
        let mut bytes = [0; 4];
        for &i in draw.hits(text.len(), row.protected, threshold(self.rate)) {
            let i = i as usize;
            let Some(letter) = row.letter(text, i).filter(|letter| letter.bare()) else { continue };
            let Ok(place) = self.doubles.binary_search_by_key(&letter.char, |&(c, _)| c) else { continue };
            let (_, others) = &self.doubles[place];
            let other = others[below_at(&stream, 1, i, others.len() as u32) as usize];
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
    fn no_letter_is_in_two_sets_and_the_case_is_one() {
        let Homoglyph { doubles, .. } = Homoglyph::new(Parameters { rate: 0.0 }).unwrap();
        assert!(doubles.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(doubles.iter().all(|(c, others)| others.iter().all(|other| other.is_uppercase() == c.is_uppercase())));
    }
}
