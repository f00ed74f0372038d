//! Words that may stand for each other, and the forms of English words.

use std::collections::HashMap;

use super::tables::{DOUBLED, ES, NOUNS, SYNONYMS, VERBS};
use super::words::folded;
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

/// How a word of a text differs from its entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Not at all.
    Base,
    /// The plural, or the third person.
    S,
    /// The past.
    Ed,
    /// The progressive.
    Ing,
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
    /// Whether the word, before or after inflection, begins with the sound of a vowel, going by its letters.
    pub(super) fn vowel(&self) -> bool {
        let word = self.word.to_lowercase();
        let silent = ["heir", "honest", "honor", "honour", "hour"].iter().any(|h| word.starts_with(h));
        let spoken = ["eu", "one", "once", "uni", "us", "ut"].iter().any(|u| word.starts_with(u));
        silent || word.starts_with(['a', 'e', 'i', 'o', 'u']) && !spoken
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

/// The form of an English word, or nothing if it has none, or one that the tables do not know.
fn inflect(word: &str, part: &str, form: Form) -> Option<String> {
    if form == Form::Base {
        return Some(word.into());
    }
    let (noun, verb) = (matches!(part, "n" | ""), matches!(part, "v" | ""));
    let last = *word.as_bytes().last()?;
    if !last.is_ascii_lowercase() || !(verb || noun && form == Form::S) {
        return None;
    }
    let known = |table: &[(&str, &'static str)]| table.iter().find(|(base, _)| *base == word).map(|(_, form)| *form);
    match form {
        Form::S if noun && known(&NOUNS).is_some() => return known(&NOUNS).map(Into::into),
        Form::S if verb && word == "be" => return None,
        Form::S if verb && word == "have" => return Some("has".into()),
        Form::Ed if known(&VERBS).is_some() => return known(&VERBS).filter(|past| !past.is_empty()).map(Into::into),
        _ => {}
    }
    let before = word.len().checked_sub(2).map(|i| word.as_bytes()[i]);
    let vowel = |b: u8| matches!(b, b'a' | b'e' | b'i' | b'o' | b'u');
    let after_consonant = before.is_some_and(|b| b.is_ascii_lowercase() && !vowel(b));
    let stem = &word[..word.len() - 1];
    let hissing = word.ends_with("ch") || word.ends_with("sh") || matches!(last, b's' | b'x' | b'z');
    Some(match (form, last) {
        (Form::S, b'y') if after_consonant => format!("{stem}ies"),
        (Form::S, b'o') if ES.contains(&word) => format!("{word}es"),
        (Form::S, _) if hissing => format!("{word}es"),
        (Form::S, _) => format!("{word}s"),
        (Form::Ed, b'e') => format!("{word}d"),
        (Form::Ed, b'y') if after_consonant => format!("{stem}ied"),
        (Form::Ing, b'e') if word.ends_with("ie") => format!("{}ying", &word[..word.len() - 2]),
        (Form::Ing, b'e') if word.len() > 2 && !before.is_some_and(|b| matches!(b, b'e' | b'o' | b'y')) => {
            format!("{stem}ing")
        }
        (_, b'c') => format!("{word}k{}", ending(form)),
        _ if doubles(word) => format!("{word}{}{}", char::from(last), ending(form)),
        _ => format!("{word}{}", ending(form)),
    })
}

fn ending(form: Form) -> &'static str {
    match form {
        Form::Base => "",
        Form::S => "s",
        Form::Ed => "ed",
        Form::Ing => "ing",
    }
}

/// Whether a verb doubles its last letter before -ed and -ing: one syllable that ends in consonant, vowel, consonant.
fn doubles(word: &str) -> bool {
    if DOUBLED.contains(&word) {
        return true;
    }
    let letters: Vec<char> = word.replace("qu", "q").chars().collect();
    let vowel = |c: char| "aeiouy".contains(c);
    let groups = letters.windows(2).filter(|pair| vowel(pair[0]) && !vowel(pair[1])).count();
    match letters[..] {
        [.., a, b, c] => !vowel(a) && vowel(b) && !vowel(c) && !"wx".contains(c) && groups == 1 && !vowel(letters[0]),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(lexicon: &Lexicon, word: &str, parts: &[&str]) -> Vec<String> {
        let parts: Vec<String> = parts.iter().map(|&part| part.into()).collect();
        lexicon.choices(word, &parts).iter().map(Choice::inflected).collect()
    }

    #[test]
    fn forms_follow_the_rules_of_english() {
        let form = |word, form| inflect(word, "", form).unwrap_or_default();
        for (word, s, ed, ing) in [
            ("walk", "walks", "walked", "walking"),
            ("hop", "hops", "hopped", "hopping"),
            ("try", "tries", "tried", "trying"),
            ("play", "plays", "played", "playing"),
            ("make", "makes", "made", "making"),
            ("agree", "agrees", "agreed", "agreeing"),
            ("tie", "ties", "tied", "tying"),
            ("watch", "watches", "watched", "watching"),
            ("open", "opens", "opened", "opening"),
            ("prefer", "prefers", "preferred", "preferring"),
            ("panic", "panics", "panicked", "panicking"),
            ("fix", "fixes", "fixed", "fixing"),
            ("go", "goes", "", "going"),
            ("quit", "quits", "quit", "quitting"),
            ("aid", "aids", "aided", "aiding"),
            ("keep", "keeps", "kept", "keeping"),
        ] {
            assert_eq!(
                (form(word, Form::S), form(word, Form::Ed), form(word, Form::Ing)),
                (s.into(), ed.into(), ing.into())
            );
        }
        assert_eq!(inflect("child", "n", Form::S).as_deref(), Some("children"));
        assert_eq!(inflect("child", "n", Form::Ed), None);
        assert_eq!(inflect("big", "a", Form::S), None);
        assert_eq!(inflect("語", "", Form::S), None);
        assert_eq!(inflect("", "", Form::S), None);
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
