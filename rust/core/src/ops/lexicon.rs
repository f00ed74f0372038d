//! Words that may stand for each other.

use std::collections::HashMap;

use super::tables::SYNONYMS;
use super::words::folded;
use crate::english::{self, Form, inflect, irregular, stems};
use crate::error::{Error, Result};

/// Words and what may stand in their place, by part of speech.
#[derive(Debug)]
pub(super) struct Lexicon {
    entries: HashMap<String, Vec<Sense>>,
}

#[derive(Debug)]
struct Sense {
    part: String,
    words: Vec<String>,
}

/// A word that may stand in the place of another, before it is inflected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Choice<'a> {
    word: &'a str,
    part: &'a str,
    form: Form,
}

impl Choice<'_> {
    /// The word in the form of the one that it replaces.
    ///
    /// Of several words a verb is the first, and a noun the one before a preposition, or the last.
    pub(super) fn inflected(&self) -> String {
        let word = self.word;
        let (start, end) = match self.part {
            "v" => (0, word.find(' ').unwrap_or(word.len())),
            _ => {
                let end = PREPOSITIONS.iter().filter_map(|preposition| word.find(preposition)).min();
                let end = end.unwrap_or(word.len());
                (word[..end].rfind(' ').map_or(0, |space| space + 1), end)
            }
        };
        inflect(&word[start..end], self.part, self.form)
            .map(|form| format!("{}{form}{}", &word[..start], &word[end..]))
            .unwrap_or_default()
    }
}

/// What follows the noun that takes the plural, as in "point of view".
const PREPOSITIONS: [&str; 8] = [" at ", " by ", " for ", " in ", " of ", " on ", " to ", " with "];

/// What the words before a word tell of its form, if it is a verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// Nothing.
    Nothing,
    /// It is the past, if it can be ("they", "who").
    Past,
    /// It is the past, for the present has -s ("she").
    PastOrS,
    /// It is a participle, if it can be ("have", "be").
    Participle,
}

impl Lexicon {
    /// The lexicon of rows `[word, part of speech, replacement, ...]`, or the one that comes along.
    pub(super) fn new(kind: &str, rows: Option<Vec<Vec<String>>>) -> Result<Self> {
        let mut lexicon = Lexicon { entries: HashMap::new() };
        let Some(rows) = rows else {
            for (part, set) in SYNONYMS {
                for (i, word) in set.iter().enumerate() {
                    let others = set.iter().enumerate().filter(|&(j, _)| j != i).map(|(_, other)| (*other).into());
                    lexicon.add(word, part, others.collect());
                }
            }
            return Ok(lexicon);
        };
        for (i, row) in rows.into_iter().enumerate() {
            let [word, part, words @ ..] = row.as_slice() else {
                return Err(Error::invalid(format!(
                    "{kind}: lexicon row {i} must hold a word, a part of speech and replacements (it is {row:?})"
                )));
            };
            lexicon.add(word, part, words.to_vec());
        }
        Ok(lexicon)
    }

    fn add(&mut self, word: &str, part: &str, mut words: Vec<String>) {
        let word = folded(word);
        words.retain(|other| !other.is_empty() && folded(other) != word);
        if !words.is_empty() {
            self.entries.entry(word).or_default().push(Sense { part: part.into(), words });
        }
    }

    /// What may stand in the place of a word: of its own entry, or if it has none (of these parts of speech), of the
    /// entry that it is a form of. No word twice.
    ///
    /// Where the words before tell that it is a verb, the form of an irregular verb comes first: "she found" is no
    /// founding. Elsewhere a past that may be a participle stands only for such another.
    pub(super) fn choices(&self, word: &str, parts: &[String], told: impl FnOnce() -> Told) -> Vec<Choice<'_>> {
        let word = folded(word);
        let irregular = irregular(&word);
        let told = if irregular.is_empty() && !word.ends_with("ed") { Told::Nothing } else { told() };
        let form_told = match told {
            Told::Nothing => None,
            Told::Past | Told::PastOrS => Some(Form::Past),
            Told::Participle => Some(Form::Participle),
        };
        if let Some(told_form) = form_told {
            for &(stem, form) in irregular {
                let same = stem == word;
                if !(form == Form::Ed || form == told_form) || same && told == Told::Past {
                    continue;
                }
                let mut found = self.of(stem, told_form, parts);
                found.retain(|choice| choice.part == "v" || choice.part.is_empty() && !same);
                if !found.is_empty() {
                    return found;
                }
            }
        }
        let mut found = self.of(&word, Form::Base, parts);
        if !found.is_empty() {
            return found;
        }
        for (stem, form) in stems(&word) {
            let to = if form == Form::Ed { form_told.unwrap_or(form) } else { form };
            found = self.of(&stem, to, parts);
            found.retain(|choice| inflect(&stem, choice.part, form).as_deref() == Some(&word));
            if !found.is_empty() {
                break;
            }
        }
        found
    }

    fn of(&self, word: &str, form: Form, parts: &[String]) -> Vec<Choice<'_>> {
        let mut found: Vec<Choice<'_>> = Vec::new();
        for sense in self.entries.get(word).into_iter().flatten() {
            if !parts.is_empty() && !parts.contains(&sense.part) {
                continue;
            }
            for word in &sense.words {
                let choice = Choice { word, part: &sense.part, form };
                if !found.iter().any(|other| other.word == word) && (form == Form::Base || choice.inflected() != "") {
                    found.push(choice);
                }
            }
        }
        found
    }
}

impl Choice<'_> {
    /// Whether the word, before or after inflection, begins with the sound of a vowel, as the article before it tells.
    pub(super) fn vowel(&self) -> bool {
        english::takes_an(self.word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(lexicon: &Lexicon, word: &str, parts: &[&str]) -> Vec<String> {
        let parts: Vec<String> = parts.iter().map(|&part| part.into()).collect();
        lexicon.choices(word, &parts, || Told::Nothing).iter().map(Choice::inflected).collect()
    }

    #[test]
    fn a_word_is_found_by_its_forms() {
        let lexicon = Lexicon::new("", None).unwrap();
        assert_eq!(words(&lexicon, "Cars", &[]), ["automobiles"]);
        assert_eq!(words(&lexicon, "stopped", &[]), ["halted", "ceased"]);
        assert_eq!(words(&lexicon, "making", &[]), ["creating"]);
        assert_eq!(words(&lexicon, "children", &[]), ["kids"]);
        assert_eq!(words(&lexicon, "bought", &[]), ["purchased"]);
        assert_eq!(words(&lexicon, "tried", &["v"]), ["attempted"]);
        assert_eq!(words(&lexicon, "tried", &["n"]), Vec::<String>::new());
        // The past of "get" is not its participle, so it stands for no past.
        assert_eq!(words(&lexicon, "obtained", &[]), Vec::<String>::new());
        assert_eq!(words(&lexicon, "bus", &[]), Vec::<String>::new());
        let told =
            |word, told| -> Vec<String> { lexicon.choices(word, &[], || told).iter().map(Choice::inflected).collect() };
        assert_eq!(told("obtained", Told::Past), ["got"]);
        assert_eq!(told("obtained", Told::Participle), ["gotten"]);
        let rows = vec![
            vec!["find".into(), "v".into(), "see".into()],
            vec!["found".into(), "v".into(), "establish".into()],
            vec!["put".into(), "v".into(), "lay".into()],
            vec!["view".into(), "n".into(), "point of view".into()],
            vec!["go".into(), String::new(), "run".into()],
        ];
        let lexicon = Lexicon::new("", Some(rows)).unwrap();
        let told =
            |word, told| -> Vec<String> { lexicon.choices(word, &[], || told).iter().map(Choice::inflected).collect() };
        assert_eq!(told("found", Told::Nothing), ["establish"]);
        assert_eq!(told("found", Told::Past), ["saw"]);
        assert_eq!(told("found", Told::Participle), ["seen"]);
        assert_eq!(told("put", Told::Nothing), ["lay"]);
        assert_eq!(told("put", Told::Past), ["lay"]);
        assert_eq!(told("put", Told::PastOrS), ["laid"]);
        assert_eq!(told("put", Told::Participle), ["laid"]);
        assert_eq!(told("views", Told::Nothing), ["points of view"]);
        assert_eq!(told("went", Told::Nothing), ["ran"]);
        assert_eq!(told("gone", Told::Participle), ["run"]);
        let rows = vec![vec!["examine".into(), "v".into(), "look at".into(), "Examine".into()]];
        let lexicon = Lexicon::new("", Some(rows)).unwrap();
        assert_eq!(words(&lexicon, "examining", &[]), ["looking at"]);
        assert_eq!(
            Lexicon::new("S", Some(vec![vec!["a".into()]])).unwrap_err().to_string(),
            "S: lexicon row 0 must hold a word, a part of speech and replacements (it is [\"a\"])"
        );
    }
}
