//! English contractions, made and undone.

use std::collections::HashMap;

use serde::Deserialize;

use super::draw::Draw;
use super::tables::{CONTRACTIONS, PARTICIPLES, SUBJECTS};
use super::text::{TextOp, TextPlan, TextRow};
use super::words::{Word, folded, like, words};
use crate::error::Result;
use crate::rng::threshold;

/// Contracts "do not" to "don't" and expands "don't" to "do not", each with probability `rate`, where the sense allows
/// it.
#[derive(Debug)]
pub(crate) struct Contraction {
    rate: f64,
    mode: Mode,
    /// The words of a contraction, and the contraction of two words; keys in lower case.
    full: HashMap<String, &'static str>,
    short: HashMap<&'static str, &'static str>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    rate: f64,
    mode: Mode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Both,
    Contract,
    Expand,
}

impl Contraction {
    pub(crate) fn new(parameters: Parameters) -> Result<Self> {
        let rate = super::rate("Contraction", "rate", parameters.rate)?;
        let mut full = HashMap::new();
        // A contraction in 's or 'd is one of two verbs, but for "let's".
        let clear = |short: &str| short == "let's" || !short.ends_with("'s") && !short.ends_with("'d");
        for (words, short) in CONTRACTIONS.into_iter().filter(|(_, short)| clear(short)) {
            full.entry(short.to_lowercase()).or_insert(words);
        }
        // "Let us" may ask for leave.
        let short = CONTRACTIONS.into_iter().rev().filter(|(words, _)| *words != "let us").collect();
        Ok(Contraction { rate, mode: parameters.mode, full, short })
    }

    /// The words that `list[i]` stands for, unless it opens a question ("Don't you").
    fn expanded(&self, text: &str, list: &[Word], i: usize) -> Option<&'static str> {
        let word = folded(list[i].of(text));
        let full = self.full.get(&word)?;
        let subject = next(text, list, i).is_some_and(|next| SUBJECTS.contains(&next.as_str()));
        (!(subject && word.ends_with("n't"))).then_some(*full)
    }

    /// The contraction of the words from `list[i]` on, and the last of them. Other than "not", the second word is
    /// contracted only before another word, and "have" only where it is an auxiliary.
    fn contracted(&self, text: &str, list: &[Word], i: usize) -> Option<(&'static str, usize)> {
        let word = folded(list[i].of(text));
        if let Some(short) = self.short.get(word.as_str()) {
            return Some((short, i));
        }
        let second = next(text, list, i)?;
        let short = self.short.get(format!("{word} {second}").as_str())?;
        if second == "not" {
            return Some((short, i + 1));
        }
        let third = next(text, list, i + 1)?;
        let participle = third.len() > 4 && third.ends_with("ed") && !third.ends_with("eed");
        let auxiliary = participle || PARTICIPLES.contains(&third.as_str());
        (auxiliary || !matches!(second.as_str(), "have" | "has" | "had")).then_some((short, i + 1))
    }
}

/// The word after `list[i]`, in lower case, where one space lies between.
fn next(text: &str, list: &[Word], i: usize) -> Option<String> {
    let after = list.get(i + 1)?;
    (&text[list[i].end..after.start] == " ").then(|| folded(after.of(text)))
}

impl TextOp for Contraction {
    fn plan(&self, row: TextRow<'_>, draw: &mut Draw, plan: &mut TextPlan) -> Result<()> {
        let text = row.text()?;
        let list = words(text);
        for &i in draw.hits(list.len(), None, threshold(self.rate)) {
            let i = i as usize;
            let start = list[i].start;
            let expanded =
                if self.mode == Mode::Contract { None } else { self.expanded(text, &list, i).map(|to| (to, i)) };
            let contracted = || if self.mode == Mode::Expand { None } else { self.contracted(text, &list, i) };
            let Some((to, last)) = expanded.or_else(contracted) else { continue };
            let end = list[last].end;
            if start >= plan.done() && row.free(start, end) {
                plan.replace(text, start, end, &like(to, &text[start..end]));
            }
        }
        plan.finish(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(mode: &str, text: &str) -> String {
        let op =
            Contraction::new(serde_json::from_str(&format!(r#"{{"rate": 1, "mode": "{mode}"}}"#)).unwrap()).unwrap();
        let mut plan = TextPlan::default();
        let row = TextRow { text: text.as_bytes(), protected: None, spans: &[] };
        op.plan(row, &mut Draw::new(crate::simd::level()), &mut plan).unwrap();
        String::from_utf8(plan.text).unwrap()
    }

    #[test]
    fn the_sense_stays() {
        for (full, short) in [
            ("I do not know.", "I don't know."),
            ("DO NOT! Cannot.", "DON'T! Can't."),
            ("I am here, we will see", "I'm here, we'll see"),
            ("They have been there", "They've been there"),
        ] {
            assert_eq!(run("contract", full), short);
            assert_eq!(run("expand", short), full);
        }
        for text in ["He has a car and I had two", "Yes, it is.", "Let us go", "do  not", "I have red shoes and speed"]
        {
            assert_eq!(run("contract", text), text);
        }
        for text in ["Don't you see?", "it's John's", "He'd go", "isn\u{2019}t it"] {
            assert_eq!(run("expand", text), text);
        }
        assert_eq!(run("expand", "Let's go, it isn\u{2019}t far"), "Let us go, it is not far");
        assert_eq!(run("contract", "he has seen that it is good"), "he's seen that it's good");
        assert_eq!(run("both", "I don't and I do not"), "I do not and I don't");
    }
}
