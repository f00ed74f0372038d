//! Phrases said in another way, by rules.

use serde::Deserialize;

use super::draw::Draw;
use super::rules::{Alternative, Folded, Match, Piece, Rule, Rules, whole};
use super::tables::{REWRITES, STARTERS};
use super::text::{TextOp, TextPlan, TextRow};
use super::words::{WordSet, words};
use crate::english::takes_an;
use crate::error::Result;
use crate::rng::threshold;

/// Rewrites each match of a rule with probability `rate`, by one of its alternatives, drawn by weight.
#[derive(Debug)]
pub(crate) struct Rewriter {
    rate: f64,
    rules: Rules,
    negations: WordSet,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    rate: f64,
    /// The text of a file of rules.
    rules: Option<String>,
    negations: Option<Vec<String>>,
}

impl Rewriter {
    pub(crate) fn new(parameters: Parameters) -> Result<Self> {
        Ok(Rewriter {
            rate: super::rate("Rewriter", "rate", parameters.rate)?,
            rules: Rules::parse(parameters.rules.as_deref().unwrap_or(REWRITES))?,
            negations: WordSet::negations(parameters.negations),
        })
    }
}

impl TextOp for Rewriter {
    fn plan(&self, row: TextRow<'_>, draw: &mut Draw, plan: &mut TextPlan) -> Result<()> {
        let text = row.text()?;
        let folded = Folded::new(text)?;
        let found = self.rules.find(text, &folded);
        let (stream, limit) = (draw.stream, threshold(self.rate));
        for (i, &roll) in draw.rolls(found.len(), None).iter().enumerate() {
            if roll >= limit {
                continue;
            }
            let site = Site { row, text, folded: &folded, rule: self.rules.rule(&found[i]), found: &found[i] };
            if !site.guarded(&self.negations)
                && let Some(alternative) = site.drawn(stream.word(1, i))
            {
                site.write(alternative, plan);
            }
        }
        plan.finish(text);
        Ok(())
    }
}

/// A match in its row.
struct Site<'a> {
    row: TextRow<'a>,
    text: &'a str,
    folded: &'a Folded,
    rule: &'a Rule,
    found: &'a Match,
}

impl<'a> Site<'a> {
    fn start(&self) -> usize {
        self.folded.place(self.found.start)
    }

    fn end(&self) -> usize {
        self.folded.place(self.found.end)
    }

    fn captures(&self) -> impl Iterator<Item = (usize, usize)> {
        self.rule.captures(self.found).map(|(start, end)| (self.folded.place(start), self.folded.place(end)))
    }

    /// What a capture holds.
    fn captured(&self, index: usize) -> &'a str {
        self.captures().nth(index).map_or("", |(start, end)| &self.text[start..end])
    }

    /// Whether a capture holds a negation, or one stands before or behind the match.
    fn guarded(&self, negations: &WordSet) -> bool {
        if negations.is_empty() {
            return false;
        }
        let holds = |text: &str| words(text).iter().any(|word| negations.contains(word.of(text)));
        let after = self.folded.text[self.found.end..].strip_prefix(' ').unwrap_or("");
        let next = &after[..after.find([' ', '\n']).unwrap_or(after.len())];
        holds(self.word_before()) || holds(next) || self.captures().any(|(start, end)| holds(&self.text[start..end]))
    }

    /// What stands before the match, where a space lies between.
    fn word_before(&self) -> &'a str {
        let left = self.folded.text[..self.found.start].strip_suffix(' ').unwrap_or("");
        &left[left.rfind([' ', '\n']).map_or(0, |space| space + 1)..]
    }

    /// One of the alternatives, by weight; after "a" and "an", of those that go with them.
    fn drawn(&self, word: u32) -> Option<&'a Alternative> {
        let article = match self.word_before().trim_start_matches(|c: char| !c.is_alphanumeric()) {
            "a" => Some(false),
            "an" => Some(true),
            _ => None,
        };
        let fits = |alternative: &&Alternative| article.is_none_or(|with| self.takes_an(alternative) == with);
        let total: u64 = self.rule.alternatives.iter().filter(fits).map(|one| one.weight).sum();
        let mut drawn = ((u128::from(word) * u128::from(total)) >> 32) as u64;
        self.rule.alternatives.iter().filter(fits).find(|one| {
            let here = drawn < one.weight;
            drawn = drawn.wrapping_sub(one.weight);
            here
        })
    }

    fn takes_an(&self, alternative: &Alternative) -> bool {
        takes_an(match &alternative.pieces[0] {
            Piece::Text(text) => text,
            Piece::Capture(index) => self.captured(*index),
        })
    }

    /// Puts an alternative in the place of the match, where nothing protected and no grapheme cluster is cut.
    fn write(&self, alternative: &Alternative, plan: &mut TextPlan) {
        let shouted = self.rule.shouted(self.text, self.folded, self.found);
        let capital = !shouted && self.capital();
        if !alternative.in_order {
            let mut said = String::new();
            for piece in &alternative.pieces {
                match piece {
                    Piece::Text(text) => said.push_str(&cased(text, shouted, capital && said.is_empty())),
                    Piece::Capture(index) => {
                        let moved = capital && self.rule.starts_with_capture() && *index == 0 && !said.is_empty();
                        let captured = self.captured(*index);
                        match moved && starter(captured) {
                            true => said.push_str(&lowered(captured)),
                            false => said.push_str(&cased(captured, false, capital && said.is_empty())),
                        }
                    }
                }
            }
            self.put(&[(self.start(), self.end(), said)], plan);
            return;
        }
        let mut edits = Vec::new();
        let mut pieces = alternative.pieces.iter().peekable();
        for (k, (start, end)) in self.rule.gaps(self.found).enumerate() {
            let text = match pieces.peek() {
                Some(Piece::Text(text)) => {
                    pieces.next();
                    cased(text, shouted, capital && k == 0)
                }
                _ => String::new(),
            };
            pieces.next();
            let (start, end) = (self.folded.place(start), self.folded.place(end));
            if self.text[start..end] != text {
                edits.push((start, end, text));
            }
        }
        self.put(&edits, plan);
    }

    /// Whether the match begins with a capital that is not its own: at the start of a sentence or a title.
    fn capital(&self) -> bool {
        let upper = self.text[self.start()..].chars().next().is_some_and(char::is_uppercase);
        let opens = || {
            let left = self.text[..self.start()].trim_end_matches([' ', '"', '\'', '(', '\u{201c}', '\u{2018}']);
            left.chars().next_back().is_none_or(|c| matches!(c, '.' | '!' | '?' | ':' | '\n'))
        };
        upper && !self.rule.named && (!self.rule.starts_with_capture() || opens())
    }

    /// Makes all of the edits or none.
    fn put(&self, edits: &[(usize, usize, String)], plan: &mut TextPlan) {
        if !edits.iter().all(|&(start, end, _)| self.row.free(start, end) && whole(self.text, start, end)) {
            return;
        }
        let before = (plan.text.len(), plan.edits.len(), plan.edits.last().copied());
        for (start, end, with) in edits {
            if !plan.replace(self.text, *start, *end, with) {
                plan.text.truncate(before.0);
                plan.edits.truncate(before.1);
                if let (Some(last), Some(edit)) = (plan.edits.last_mut(), before.2) {
                    *last = edit;
                }
                return;
            }
        }
    }
}

/// A text in capitals, or with a capital first letter, or as it is.
fn cased(text: &str, shouted: bool, capital: bool) -> String {
    if shouted {
        return text.to_uppercase();
    }
    let mut chars = text.chars();
    match chars.next().filter(|_| capital) {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => text.into(),
    }
}

/// Whether a text begins with a word that is a capital only at the start of a sentence.
fn starter(text: &str) -> bool {
    let word = text.split(' ').next().unwrap_or(text);
    let small = lowered(word);
    STARTERS.contains(&small.as_str()) && small != word
}

fn lowered(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::text::Edit;

    fn plan(rules: &str, text: &str) -> TextPlan {
        let parameters = serde_json::json!({"rate": 1, "rules": rules});
        let op = Rewriter::new(serde_json::from_value(parameters).unwrap()).unwrap();
        let mut plan = TextPlan::default();
        let row = TextRow { text: text.as_bytes(), protected: None, spans: &[] };
        op.plan(row, &mut Draw::new(crate::simd::level()), &mut plan).unwrap();
        plan
    }

    fn run(rules: &str, text: &str) -> String {
        String::from_utf8(plan(rules, text).text).unwrap()
    }

    #[test]
    fn the_case_of_the_place_is_kept() {
        let rules = "in order to\tto\nI suppose\tpresumably\nUS\tUnited States\nit is said that {x:word}\t{x}";
        for (text, to) in [
            ("In order to win", "To win"),
            ("IN ORDER TO WIN", "TO WIN"),
            ("and I suppose so", "and presumably so"),
            ("the US and us", "the United States and us"),
            ("It is said that he won", "He won"),
        ] {
            assert_eq!(run(rules, text), to);
        }
        let because = "{x} because {y}\tbecause {y}, {x}";
        assert_eq!(run(because, "The dog ate because Ann did."), "Because Ann did, the dog ate.");
        assert_eq!(run(because, "Rex ate because he could."), "Because he could, Rex ate.");
        assert_eq!(run(because, "\u{c9}a ate because A did"), "Because A did, \u{c9}a ate");
        assert_eq!(
            run("{x:word} is bigger than {y:word}\t{y} is smaller than {x}", "So Ann is bigger than bob"),
            "So bob is smaller than Ann"
        );
    }

    #[test]
    fn meaning_is_guarded() {
        for text in ["you must not go", "never must he", "it was not a must"] {
            assert_eq!(run("must\thas to\na must\ta duty", text), text);
        }
        let rules = "from {x} to\tto {x}";
        assert_eq!(run(rules, "from no one to him"), "from no one to him");
        assert_eq!(
            run("big idea\timportant idea | great idea", "an big idea, a big idea"),
            "an important idea, a great idea"
        );
    }

    #[test]
    fn only_what_changes_is_edited() {
        let made = plan("make use of {x} by\tuse {x} through", "They make use of  it all by hand.");
        assert_eq!(String::from_utf8(made.text).unwrap(), "They use it all through hand.");
        assert_eq!(made.edits, [Edit { start: 5, end: 18, length: 4 }, Edit { start: 24, end: 27, length: 8 }]);
        assert!(plan("quite a few\tquite a few\na few\tsome", "quite a few").edits.is_empty());
    }
}
