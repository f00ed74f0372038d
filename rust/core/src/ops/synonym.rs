//! Words replaced by others of the same meaning.

use serde::Deserialize;

use super::draw::{Draw, below_at};
use super::lexicon::{Choice, Lexicon, Told};
use super::text::{TextOp, TextPlan, TextRow};
use super::words::{WordRow, WordSet, folded, like};
use crate::error::Result;

/// Replaces each word that the lexicon knows with probability `rate`; ending and case stay.
#[derive(Debug)]
pub(crate) struct Synonym {
    rate: f64,
    lexicon: Lexicon,
    parts: Vec<String>,
    negations: WordSet,
    most: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    rate: f64,
    lexicon: Option<Vec<Vec<String>>>,
    #[serde(default)]
    pos: Vec<String>,
    negations: Option<Vec<String>>,
    max_edits: f64,
}

const KIND: &str = "Synonym";

impl Synonym {
    pub(crate) fn new(parameters: Parameters) -> Result<Self> {
        Ok(Synonym {
            rate: super::rate(KIND, "rate", parameters.rate)?,
            lexicon: Lexicon::new(KIND, parameters.lexicon)?,
            parts: parameters.pos,
            negations: WordSet::negations(parameters.negations),
            most: super::rate(KIND, "max_edits", parameters.max_edits)?,
        })
    }

    /// What may stand in the place of word `i`; after "a" and "an", what they go with.
    fn choices(&self, row: &WordRow<'_>, i: usize) -> Vec<Choice<'_>> {
        let mut choices = self.lexicon.choices(row.word(i), &self.parts, || told(row, i));
        let article = i.checked_sub(1).map_or("", |before| row.word(before));
        for (word, vowel) in [("a", false), ("an", true)] {
            if article.eq_ignore_ascii_case(word) {
                choices.retain(|choice| choice.vowel() == vowel);
            }
        }
        choices
    }
}

/// What the words before word `i`, with nothing but space between, tell of its form, if it is a verb: the nearest of
/// them that is no adverb.
fn told(row: &WordRow<'_>, i: usize) -> Told {
    let before = |at: usize| {
        let at = at.checked_sub(1)?;
        let between = &row.text[row.words[at].end..row.words[at + 1].start];
        between.bytes().all(|byte| byte == b' ').then(|| (at, folded(row.word(at))))
    };
    let mut at = i;
    while let Some((place, word)) = before(at).filter(|&(place, _)| place + 4 > i) {
        at = place;
        let word = word.strip_suffix("n't").unwrap_or(&word);
        let short = word.split_once('\'').filter(|(who, _)| WHO.contains(who) || SHE.contains(who));
        match word {
            _ if AUXILIARIES.contains(&word) => return Told::Participle,
            _ if short.is_some_and(|(_, verb)| matches!(verb, "s" | "ve" | "re" | "m")) => return Told::Participle,
            // "Did she put" has no past.
            _ if SHE.contains(&word) => {
                let asked =
                    before(at).is_some_and(|(_, word)| MODALS.contains(&word.strip_suffix("n't").unwrap_or(&word)));
                return if asked { Told::Nothing } else { Told::PastOrS };
            }
            _ if WHO.contains(&word) => return Told::Past,
            _ if ADVERBS.contains(&word) || word.ends_with("ly") => {}
            _ => return Told::Nothing,
        }
    }
    Told::Nothing
}

/// What a participle follows.
const AUXILIARIES: [&str; 15] =
    ["am", "are", "be", "been", "being", "get", "gets", "getting", "had", "has", "have", "having", "is", "was", "were"];

/// What asks for a verb without an ending, "n't" taken off.
const MODALS: [&str; 12] =
    ["ca", "can", "could", "did", "do", "does", "may", "might", "must", "should", "will", "would"];

/// What stands for one who does, and never for one to whom it is done; its present has -s.
const SHE: [&str; 2] = ["he", "she"];

/// What else stands for one who does.
const WHO: [&str; 7] = ["i", "it", "that", "they", "we", "who", "you"];

/// What may stand between these words and a verb.
const ADVERBS: [&str; 11] =
    ["already", "also", "always", "ever", "just", "never", "not", "now", "often", "still", "then"];

impl TextOp for Synonym {
    fn plan(&self, row: TextRow<'_>, draw: &mut Draw, plan: &mut TextPlan) -> Result<()> {
        let row = WordRow::new(row, &self.negations)?;
        let stream = draw.stream;
        let mut found = Vec::new();
        let (chosen, held) = row.chosen(draw, self.rate, self.most, |i| {
            let choices = self.choices(&row, i);
            if choices.is_empty() || !row.free(i) {
                return false;
            }
            found.push((i, choices[below_at(&stream, 1, i, choices.len() as u32) as usize]));
            true
        });
        plan.held = held;
        for (i, choice) in found.into_iter().filter(|(i, _)| chosen.binary_search(i).is_ok()) {
            let word = row.words[i];
            plan.replace(row.text, word.start, word.end, &like(&choice.inflected(), word.of(row.text)));
        }
        plan.finish(row.text);
        Ok(())
    }
}
