//! Words that may stand for each other.

use std::collections::HashMap;

use super::tables::SYNONYMS;
use super::words::folded;
use crate::english::{self, Form, NOUNS, VERBS, inflect};
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
    pub(super) fn inflected(&self) -> String {
        let forms = |word: &str| inflect(word, self.part, self.form);
        let split = match self.part {
            "v" => self.word.split_once(' ').map(|(verb, rest)| (verb, rest, true)),
            _ => self.word.rsplit_once(' ').map(|(rest, noun)| (noun, rest, false)),
        };
        match split {
            None => forms(self.word),
            Some((verb, rest, true)) => forms(verb).map(|verb| format!("{verb} {rest}")),
            Some((noun, rest, false)) => forms(noun).map(|noun| format!("{rest} {noun}")),
        }
        .unwrap_or_default()
    }
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
    pub(super) fn choices(&self, word: &str, parts: &[String]) -> Vec<Choice<'_>> {
        let word = folded(word);
        let found = self.of(&word, Form::Base, parts);
        if !found.is_empty() {
            return found;
        }
        let mut found = Vec::new();
        for (stem, form) in stems(&word) {
            found = self.of(&stem, form, parts);
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

/// The entries that a word may be a form of, and the form.
fn stems(word: &str) -> Vec<(String, Form)> {
    let mut found = Vec::new();
    for (table, form) in [(&NOUNS[..], Form::S), (&VERBS[..], Form::Ed)] {
        found.extend(table.iter().filter(|(_, other)| *other == word).map(|(stem, _)| ((*stem).into(), form)));
    }
    for (end, form) in [("s", Form::S), ("ed", Form::Ed), ("ing", Form::Ing)] {
        let Some(stem) = word.strip_suffix(end).filter(|stem| stem.len() > 1) else { continue };
        found.push((stem.into(), form));
        let mut last = stem.chars().rev();
        if let (Some(a), Some(b)) = (last.next(), last.next()) {
            if form == Form::S && a == 'e' {
                found.push((stem[..stem.len() - 1].into(), form));
            }
            if form != Form::S {
                found.push((format!("{stem}e"), form));
            }
            if form != Form::S && a == b {
                found.push((stem[..stem.len() - a.len_utf8()].into(), form));
            }
        }
        if let Some(stem) = stem.strip_suffix(if form == Form::S { "ie" } else { "i" }) {
            found.push((format!("{stem}y"), form));
        }
        if let (Form::Ing, Some(stem)) = (form, stem.strip_suffix('y')) {
            found.push((format!("{stem}ie"), form));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(lexicon: &Lexicon, word: &str, parts: &[&str]) -> Vec<String> {
        let parts: Vec<String> = parts.iter().map(|&part| part.into()).collect();
        lexicon.choices(word, &parts).iter().map(Choice::inflected).collect()
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
        let rows = vec![vec!["examine".into(), "v".into(), "look at".into(), "Examine".into()]];
        let lexicon = Lexicon::new("", Some(rows)).unwrap();
        assert_eq!(words(&lexicon, "examining", &[]), ["looking at"]);
        assert_eq!(
            Lexicon::new("S", Some(vec![vec!["a".into()]])).unwrap_err().to_string(),
            "S: lexicon row 0 must hold a word, a part of speech and replacements (it is [\"a\"])"
        );
    }
}
