//! Text -> syntax tree, and the one canonical way back.
//!
//! The parser reads characters, not lexemes: what a sign means depends on whether it stands in text, in a slot or in
//! an expression. Every node keeps the byte offset it came from, and [`fault`] turns an offset into line, column and
//! a caret under the source.

use std::fmt::{self, Display, Write};

use super::expr::{Expr, MAX_PLACES, Op, Type, show};
use super::functions;
use crate::error::{Error, Result};

/// How deep groups, tags and parentheses may nest: deeper is a mistake, and would cost stack.
const MAX_NESTING: usize = 100;
/// The most operators and operands of one expression, for the same reason.
const MAX_EXPRESSION: usize = 1000;
/// The most digits of a weight before and after its point.
const MAX_WEIGHT_DIGITS: usize = 9;
/// The greatest depth of a recursive rule.
const MAX_DEPTH: u32 = 1000;

/// `name[depth=3] = arm | arm`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rule {
    pub name: String,
    pub depth: Option<u32>,
    pub arms: Vec<Arm>,
    pub at: usize,
}

/// One alternative; `notes` are its features and forms, as in `mouse[pl=mice]`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Arm {
    pub items: Vec<Item>,
    pub notes: Vec<Note>,
    pub weight: Option<Weight>,
    pub at: usize,
}

/// `gender=f` of an alternative.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Note {
    pub key: String,
    pub value: String,
    pub at: usize,
}

/// `gender=f` of a call, or `gender` alone: what the caller was asked for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ask {
    pub key: String,
    pub value: Option<String>,
    pub at: usize,
}

/// A weight in billionths, exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Weight(pub u64);

impl Weight {
    pub const ONE: Weight = Weight(10u64.pow(MAX_WEIGHT_DIGITS as u32));
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Item {
    Text(String),
    /// A rule or a binding: which of them, the whole grammar decides. A filter is calls around [`Expr::Held`].
    Name {
        name: String,
        asks: Vec<Ask>,
        filter: Option<Expr>,
        at: usize,
    },
    /// A hidden draw binds a value and shows nothing.
    Draw {
        name: String,
        sampler: Sampler,
        hidden: bool,
        filter: Option<Expr>,
        at: usize,
    },
    Compute {
        expr: Expr,
        source: String,
    },
    /// `without` is the weight of leaving it out, where that is not half of the cases.
    Optional {
        arms: Vec<Arm>,
        without: Option<Weight>,
        at: usize,
    },
    Tag {
        name: String,
        items: Vec<Item>,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Sampler {
    /// Integers, or what other types hold as integers.
    Range {
        of: Type,
        low: i64,
        high: i64,
        step: u64,
    },
    Choice(Vec<String>),
    /// One of a lexicon.
    Lexicon {
        name: String,
        at: usize,
    },
    /// A column of the source row.
    Column {
        name: String,
        at: usize,
    },
    /// The text of a rule.
    Rule {
        name: String,
        asks: Vec<Ask>,
        at: usize,
    },
    /// A computed value.
    Value {
        expr: Expr,
        source: String,
        at: usize,
    },
}

/// The names of the samplers, for suggestions.
const SAMPLERS: [&str; 6] = ["choice", "col", "date", "float", "int", "lex"];
/// What a binding may not be called, since expressions mean something by it.
const KEYWORDS: [&str; 7] = ["and", "else", "false", "if", "not", "or", "true"];

/// The text of a grammar and of the files that it includes, one after another.
#[derive(Debug, Default)]
pub(super) struct Source {
    pub text: String,
    /// Where each file begins, and its name if it is an included one.
    pub files: Vec<(usize, Option<String>)>,
}

impl Source {
    /// Appends a file, and returns where it begins.
    pub fn push(&mut self, name: Option<String>, text: &str) -> usize {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        let start = self.text.len();
        self.text.push_str(text);
        self.files.push((start, name));
        start
    }

    /// Name and text of each included file.
    pub fn included(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().enumerate().filter_map(|(i, (start, name))| {
            let end = self.files.get(i + 1).map_or(self.text.len(), |(next, _)| next - 1);
            Some((name.as_deref()?, &self.text[*start..end]))
        })
    }

    fn file(&self, at: usize) -> (usize, Option<&str>) {
        let found = self.files.iter().rev().find(|(start, _)| *start <= at);
        found.map_or((0, None), |(start, name)| (*start, name.as_deref()))
    }

    /// `line 3`, and of which file.
    pub fn place(&self, at: usize) -> String {
        let (start, name) = self.file(at);
        let line = self.text[start..at].matches('\n').count() + 1;
        name.map_or_else(|| format!("line {line}"), |name| format!("line {line} of '{name}'"))
    }
}

/// An error at byte `at` of `source`: line, column, the file if it is an included one, the line itself and a caret.
pub(super) fn fault(source: &Source, at: usize, message: impl Display) -> Error {
    const BEFORE: usize = 60;
    const AFTER: usize = 40;
    let (first, file) = source.file(at);
    let file = file.map_or_else(String::new, |name| format!("in '{name}': "));
    let source = source.text.as_str();
    let start = source[first..at].rfind('\n').map_or(first, |newline| first + newline + 1);
    let line = source[first..start].matches('\n').count() + 1;
    let column = source[start..at].chars().count() + 1;
    let skipped = column.saturating_sub(BEFORE + 1);
    let shown: String =
        source[start..].lines().next().unwrap_or("").chars().skip(skipped).take(BEFORE + AFTER).collect();
    let shown = shown.replace('\t', " ");
    Error::syntax(line, column, format!("{file}{message}\n  {}\n  {:>2$}", shown.trim_end(), '^', column - skipped))
}

/// [`fault`] in a text of another language.
pub(crate) fn fault_in(source: &str, at: usize, message: impl Display) -> Error {
    let mut all = Source::default();
    all.push(None, source);
    fault(&all, at, message)
}

/// ` (did you mean 'x'?)` for the nearest of `names`, or nothing where none is near.
pub(crate) fn suggestion<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    const LONGEST: usize = 64;
    let length = name.chars().count();
    let limit = (length / 3).clamp(1, 3);
    let names = names.into_iter().filter(|other| name.len().max(other.len()) <= LONGEST);
    let best = names.map(|other| (distance(name, other), other)).filter(|&(d, _)| d <= limit && d < length).min();
    best.map_or_else(String::new, |(_, other)| format!(" (did you mean '{other}'?)"))
}

/// Edits (insert, delete, replace, swap of neighbours) from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = [vec![0; b.len() + 1], (0..=b.len()).collect(), vec![0; b.len() + 1]];
    for i in 1..=a.len() {
        rows[2][0] = i;
        for j in 1..=b.len() {
            let mut best =
                (rows[1][j - 1] + usize::from(a[i - 1] != b[j - 1])).min(rows[1][j] + 1).min(rows[2][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[0][j - 2] + 1);
            }
            rows[2][j] = best;
        }
        rows.rotate_left(1);
    }
    rows[1][b.len()]
}

/// `include "path"`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Include {
    pub path: String,
    pub at: usize,
}

/// All rules and includes of the last file of `source`, which begins at `start`, in order.
pub(super) fn parse(source: &Source, start: usize) -> Result<(Vec<Rule>, Vec<Include>)> {
    let mut parser = Parser { whole: source, source: &source.text, at: start, nesting: 0 };
    let (mut rules, mut includes) = (Vec::new(), Vec::new());
    loop {
        parser.skip_empty_lines();
        if parser.peek().is_none() {
            return Ok((rules, includes));
        }
        match parser.include()? {
            Some(include) => includes.push(include),
            None => rules.push(parser.rule()?),
        }
    }
}

/// Where a sequence of items stands, which decides what ends it.
#[derive(Clone, Copy)]
struct Inside {
    group: bool,
    tag: bool,
}

impl Inside {
    /// In the alternative of a rule itself.
    fn plain(self) -> bool {
        !self.group && !self.tag
    }
}

struct Parser<'a> {
    whole: &'a Source,
    source: &'a str,
    at: usize,
    nesting: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let sign = self.peek()?;
        self.at += sign.len_utf8();
        Some(sign)
    }

    fn eat(&mut self, text: &str) -> bool {
        let found = self.rest().starts_with(text);
        if found {
            self.at += text.len();
        }
        found
    }

    fn skip_while(&mut self, keep: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|sign| !keep(sign)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn skip_blanks(&mut self) {
        self.skip_while(is_blank);
    }

    fn skip_empty_lines(&mut self) {
        loop {
            self.skip_while(|sign| is_blank(sign) || sign == '\n' || sign == '\r');
            if self.peek() != Some('#') {
                return;
            }
            self.skip_while(|sign| sign != '\n');
        }
    }

    fn at_newline(&self) -> bool {
        self.rest().starts_with('\n') || self.rest().starts_with("\r\n")
    }

    /// A `#` between blanks begins a comment, so that `#1` and `C#` are text.
    fn at_comment(&self) -> bool {
        let after = |sign: Option<char>| sign.is_none_or(|sign| is_blank(sign) || sign == '\n' || sign == '\r');
        let mut rest = self.rest().chars();
        rest.next() == Some('#') && after(self.source[..self.at].chars().next_back()) && after(rest.next())
    }

    fn fail<T>(&self, at: usize, message: impl Display) -> Result<T> {
        Err(fault(self.whole, at, message))
    }

    fn nest<T>(&mut self, at: usize, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.nesting == MAX_NESTING {
            return self.fail(at, format!("nested more than {MAX_NESTING} deep: name the inner part as a rule"));
        }
        self.nesting += 1;
        let parsed = parse(self);
        self.nesting -= 1;
        parsed
    }

    fn ident(&mut self) -> Option<&'a str> {
        self.peek().filter(|sign| sign.is_alphabetic())?;
        Some(self.skip_while(|sign| sign.is_alphanumeric() || sign == '_'))
    }

    /// Goes behind `word` if it stands here as a whole word.
    fn eat_word(&mut self, word: &str) -> bool {
        let rest = self.rest().strip_prefix(word);
        let found = rest.is_some_and(|rest| !rest.starts_with(|sign: char| sign.is_alphanumeric() || sign == '_'));
        if found {
            self.at += word.len();
        }
        found
    }

    fn include(&mut self) -> Result<Option<Include>> {
        let start = self.at;
        let found = self.eat_word("include");
        self.skip_blanks();
        let at = self.at;
        if !found || !self.eat("\"") {
            self.at = start;
            return Ok(None);
        }
        let path = self.skip_while(|sign| sign != '"' && sign != '\n').to_owned();
        let closed = self.eat("\"");
        self.skip_blanks();
        if path.is_empty() || !closed || !(self.peek().is_none() || self.at_newline() || self.at_comment()) {
            return self.fail(at, "expected include \"path\", and nothing after it");
        }
        self.skip_while(|sign| sign != '\n');
        Ok(Some(Include { path, at }))
    }

    /// The name of a rule or a binding; that of a local binding begins with an underscore.
    fn name(&mut self) -> Option<&'a str> {
        let start = self.at;
        self.eat("_");
        if self.ident().is_none() {
            self.at = start;
            return None;
        }
        Some(&self.source[start..self.at])
    }

    fn rule(&mut self) -> Result<Rule> {
        let at = self.at;
        let expected = "expected a rule: name = text | text";
        let Some(name) = self.ident() else { return self.fail(at, expected) };
        self.skip_blanks();
        let mut depth = None;
        if self.eat("[") {
            depth = Some(self.depth()?);
            self.skip_blanks();
        }
        if !self.eat("=") {
            return self.fail(self.at, expected);
        }
        self.skip_blanks();
        self.skip_line_end(|parser| parser.eat("|"));
        let arms = self.arms(Inside { group: false, tag: false }, at, &format!("rule '{name}'"))?;
        Ok(Rule { name: name.to_owned(), depth, arms, at })
    }

    fn depth(&mut self) -> Result<u32> {
        let at = self.at;
        self.skip_blanks();
        let known = self.eat("depth");
        self.skip_blanks();
        let known = known && self.eat("=");
        self.skip_blanks();
        let digits = self.skip_while(|sign| sign.is_ascii_digit());
        self.skip_blanks();
        match digits.parse::<u32>() {
            Ok(depth @ 1..=MAX_DEPTH) if known && self.eat("]") => Ok(depth),
            _ => self.fail(at, format!("expected [depth=N] with N from 1 to {MAX_DEPTH}")),
        }
    }

    /// If nothing but empty lines and comments lies before something that `wanted` takes, goes behind it.
    fn skip_line_end(&mut self, wanted: impl Fn(&mut Self) -> bool) -> bool {
        let start = self.at;
        self.skip_empty_lines();
        let found = wanted(self);
        if !found {
            self.at = start;
        }
        found
    }

    /// Alternatives up to what ends them: the end of the rule, or the `)` of a group.
    fn arms(&mut self, inside: Inside, at: usize, what: &str) -> Result<Vec<Arm>> {
        let mut arms = Vec::new();
        loop {
            if !inside.group || !arms.is_empty() {
                self.skip_blanks();
            }
            let start = self.at;
            let items = self.items(inside)?;
            let notes = if inside.plain() { self.notes().unwrap_or_default() } else { Vec::new() };
            let weight = if self.eat("::") { Some(self.weight(inside)?) } else { None };
            if items.is_empty() {
                let only = arms.is_empty() && notes.is_empty() && weight.is_none() && self.peek() != Some('|');
                return if only {
                    self.fail(at, format!("empty {what}: it needs text or a slot"))
                } else {
                    self.fail(
                        start,
                        "empty alternative: put optional text in ( ... )?, or write \\| to have a bar as text",
                    )
                };
            }
            arms.push(Arm { items, notes, weight, at: start });
            let more = self.eat("|") || (!inside.group && self.skip_line_end(|parser| parser.eat("|")));
            if !more {
                if !inside.group && self.at_comment() {
                    self.skip_while(|sign| sign != '\n');
                }
                return Ok(arms);
            }
        }
    }

    /// `[key=value, key=value]` at the end of an alternative, if that is what stands here: all other brackets are text.
    fn notes(&mut self) -> Option<Vec<Note>> {
        let start = self.at;
        let notes = self.notes_inner();
        if notes.is_none() {
            self.at = start;
        }
        notes
    }

    fn notes_inner(&mut self) -> Option<Vec<Note>> {
        let mut notes = Vec::new();
        self.eat("[").then_some(())?;
        loop {
            self.skip_blanks();
            let at = self.at;
            let key = self.ident()?.to_owned();
            self.skip_blanks();
            self.eat("=").then_some(())?;
            self.skip_blanks();
            let mut value = Items::default();
            loop {
                match self.peek()? {
                    ',' | ']' => break,
                    '{' | '}' | '|' | '[' | '(' | ')' => return None,
                    _ if self.at_newline() => return None,
                    '\\' => {
                        if let Some(sign) = self.escape().ok()? {
                            value.solid(sign);
                        }
                    }
                    sign => {
                        self.bump();
                        value.text.push(sign);
                    }
                }
            }
            match value.finish(true).pop()? {
                Item::Text(value) => notes.push(Note { key, value, at }),
                _ => return None,
            }
            if self.eat("]") {
                break;
            }
            self.bump();
        }
        self.skip_blanks();
        let ends = self.peek().is_none_or(|sign| sign == '|') || self.rest().starts_with("::");
        (ends || self.at_newline() || self.at_comment()).then_some(notes)
    }

    /// `[key=value, key]` of a call, behind its bracket.
    fn asks(&mut self, open: usize) -> Result<Vec<Ask>> {
        let mut asks: Vec<Ask> = Vec::new();
        loop {
            self.skip_blanks();
            let at = self.at;
            let expected = "expected a feature: {thing[num=pl]}, or {thing[num]} for the one that the caller asks for";
            let Some(key) = self.ident() else { return self.fail(at, expected) };
            if asks.iter().any(|ask| ask.key == key) {
                return self.fail(at, format!("feature '{key}' stands twice"));
            }
            self.skip_blanks();
            let mut value = None;
            if self.eat("=") {
                self.skip_blanks();
                let text =
                    self.skip_while(|sign| sign.is_alphanumeric() || "_-. ".contains(sign)).trim_end_matches(is_blank);
                if text.is_empty() {
                    return self.fail(self.at, expected);
                }
                value = Some(text.to_owned());
            }
            asks.push(Ask { key: key.to_owned(), value, at });
            self.skip_blanks();
            if self.eat("]") {
                return Ok(asks);
            }
            if !self.eat(",") {
                if self.peek().is_none() || self.at_newline() {
                    return self.unclosed(open);
                }
                return self.fail(self.at, "expected ',' or ']'");
            }
        }
    }

    fn weight(&mut self, inside: Inside) -> Result<Weight> {
        let at = self.at - 2;
        self.skip_blanks();
        let whole = self.skip_while(|sign| sign.is_ascii_digit());
        let part = if self.eat(".") { self.skip_while(|sign| sign.is_ascii_digit()) } else { "0" };
        let value = if whole.len() <= MAX_WEIGHT_DIGITS && part.len() <= MAX_WEIGHT_DIGITS && !part.is_empty() {
            format!("{whole}{part:0<MAX_WEIGHT_DIGITS$}").parse().ok().filter(|&value| value > 0 && !whole.is_empty())
        } else {
            None
        };
        let Some(value) = value else {
            return self.fail(
                at,
                format!(
                    "expected a weight after '::': a number above 0 with at most {MAX_WEIGHT_DIGITS} digits on either \
                     side of its point; write \\:: to have the colons as text"
                ),
            );
        };
        self.skip_blanks();
        let ends = self.peek().is_none_or(|sign| sign == '|' || (sign == ')' && inside.group));
        let ends = ends || self.at_newline() || self.at_comment();
        if !ends {
            return self.fail(self.at, "a weight ends its alternative: expected '|' or the end of the line");
        }
        Ok(Weight(value))
    }

    /// Items up to a sign that only the caller can judge.
    fn items(&mut self, inside: Inside) -> Result<Vec<Item>> {
        let mut out = Items::default();
        while let Some(sign) = self.peek() {
            let at = self.at;
            match sign {
                '\n' | '|' => break,
                '\r' if self.at_newline() => break,
                '#' if self.at_comment() => break,
                ':' if self.rest().starts_with("::") => break,
                '[' if inside.plain() => {
                    let noted = self.notes().is_some();
                    self.at = at;
                    if noted {
                        break;
                    }
                    self.bump();
                    out.text.push('[');
                }
                ')' if inside.group => break,
                ')' => return self.fail(at, "')' closes nothing: write \\) to have it as text"),
                '}' => return self.fail(at, "'}' closes nothing: write \\} to have it as text"),
                '\\' => {
                    if let Some(sign) = self.escape()? {
                        out.solid(sign);
                    }
                }
                '{' => out.push(self.nest(at, Self::slot)?),
                '(' => {
                    let parsed = self.nest(at, Self::group)?;
                    match parsed {
                        Group::Optional(arms, without) => out.push(Item::Optional { arms, without, at }),
                        Group::Literal(items) => out.parentheses(items),
                    }
                }
                '<' => match self.tag_name() {
                    Some((true, name)) if inside.tag => {
                        let _ = name;
                        self.at = at;
                        break;
                    }
                    Some((true, name)) => {
                        let message = format!("</{name}> closes nothing: write \\< to have it as text");
                        return self.fail(at, message);
                    }
                    Some((false, name)) => {
                        let items = self.nest(at, |parser| parser.tagged(name, at, inside))?;
                        out.push(Item::Tag { name: name.to_owned(), items });
                    }
                    None => {
                        self.bump();
                        out.text.push('<');
                    }
                },
                sign => {
                    self.bump();
                    out.text.push(sign);
                }
            }
        }
        let trim = !inside.tag && (!inside.group || self.rest().starts_with("::") || self.peek() == Some('|'));
        Ok(out.finish(trim))
    }

    /// What a backslash makes of the next sign; nothing where it joins two lines.
    fn escape(&mut self) -> Result<Option<char>> {
        let at = self.at;
        self.bump();
        if self.eat("\n") || self.eat("\r\n") {
            self.skip_blanks();
            return Ok(None);
        }
        match self.bump() {
            Some('n') => Ok(Some('\n')),
            Some('r') => Ok(Some('\r')),
            Some('t') => Ok(Some('\t')),
            Some(sign) if !sign.is_alphanumeric() => Ok(Some(sign)),
            Some(sign) => {
                self.fail(at, format!("unknown escape '\\{sign}': there are \\n, \\r, \\t, and \\ before any sign"))
            }
            None => self.fail(at, "a backslash needs a sign after it: write \\\\ to have one as text"),
        }
    }

    /// `<name>` or `</name>` (true), if that is what stands here.
    fn tag_name(&mut self) -> Option<(bool, &'a str)> {
        let start = self.at;
        self.bump();
        let close = self.eat("/");
        let name = self.ident();
        if name.is_some() && self.eat(">") {
            return name.map(|name| (close, name));
        }
        self.at = start;
        None
    }

    fn tagged(&mut self, name: &str, at: usize, inside: Inside) -> Result<Vec<Item>> {
        let items = self.items(Inside { tag: true, ..inside })?;
        let end = self.at;
        match self.peek().filter(|&sign| sign == '<').and_then(|_| self.tag_name()) {
            Some((true, close)) if close == name => Ok(items),
            Some((true, close)) => self.fail(end, format!("expected </{name}>, found </{close}>")),
            _ => self.fail(at, format!("unclosed tag <{name}>: it must close in the alternative that opens it")),
        }
    }

    fn group(&mut self) -> Result<Group> {
        let at = self.at;
        self.bump();
        if self.rest().starts_with(')') && !self.rest().starts_with(")?") {
            self.bump();
            return Ok(Group::Literal(Vec::new()));
        }
        let inside = Inside { group: true, tag: false };
        let without = self.without(inside)?;
        let mut arms = self.arms(inside, at, "group")?;
        if !self.eat(")") {
            return self.fail(at, "unclosed group: expected ')' in the same alternative; write \\( to have it as text");
        }
        if self.eat("?") {
            return Ok(Group::Optional(arms, without));
        }
        if arms.len() > 1 || arms[0].weight.is_some() || without.is_some() {
            let message = "alternatives in parentheses make an optional group '( ... )?': add the '?', make them a rule, or \
                           write \\| and \\:: to have the signs as text";
            return self.fail(at, message);
        }
        Ok(Group::Literal(arms.remove(0).items))
    }

    /// The `:: 3 |` at the start of a group: the weight of leaving it out.
    fn without(&mut self, inside: Inside) -> Result<Option<Weight>> {
        let start = self.at;
        self.skip_blanks();
        if !self.eat("::") {
            self.at = start;
            return Ok(None);
        }
        let weight = self.weight(inside)?;
        if !self.eat("|") {
            return self
                .fail(start, "the weight of leaving a group out stands before its alternatives: (:: 3 | text)?");
        }
        self.skip_blanks();
        Ok(Some(weight))
    }

    fn slot(&mut self) -> Result<Item> {
        let open = self.at;
        self.bump();
        self.skip_blanks();
        if self.eat("=") {
            let start = self.at;
            let mut left = MAX_EXPRESSION;
            let expr = self.expr(&mut left)?;
            let expr = self.filters(expr, &mut left)?;
            let source = self.source[start..self.at].trim().to_owned();
            self.close_slot(open, "an operator, '|' or '}'")?;
            return Ok(Item::Compute { expr, source });
        }
        let hidden = self.eat("!");
        self.skip_blanks();
        let at = self.at;
        let Some(name) = self.name().map(str::to_owned) else {
            if self.peek().is_none() || self.at_newline() {
                return self.unclosed(open);
            }
            return self.fail(at, "expected {name}, {name=sampler ...} or {=expression}; write \\{ to have it as text");
        };
        self.skip_blanks();
        let asks_at = self.at;
        let asks = if self.eat("[") { self.asks(open)? } else { Vec::new() };
        self.skip_blanks();
        if !self.eat("=") {
            if hidden && self.peek() == Some('}') {
                return self.fail(open, "'!' hides a draw, as in {!name=int 1..9}: this draws nothing");
            }
            let filter = self.filter()?;
            self.close_slot(open, "'}', '|' or '='")?;
            return Ok(Item::Name { name, asks, filter, at });
        }
        if !asks.is_empty() {
            return self.fail(asks_at, "features belong to a rule: {who=name[gender=f]}");
        }
        if KEYWORDS.contains(&name.as_str()) {
            return self.fail(at, format!("'{name}' means something in expressions: give the binding another name"));
        }
        self.skip_blanks();
        let sampler = self.sampler(open)?;
        let filter = self.filter()?;
        if hidden && filter.is_some() {
            return self.fail(
                open,
                "a hidden draw shows nothing that a filter could change: bind {!x=int 1..9}, show {x|words}",
            );
        }
        self.close_slot(open, "'|' or '}'")?;
        Ok(Item::Draw { name, sampler, hidden, filter, at })
    }

    fn sampler(&mut self, open: usize) -> Result<Sampler> {
        let at = self.at;
        if self.peek() == Some('(') {
            let expr = self.expr(&mut { MAX_EXPRESSION })?;
            let source = self.source[at..self.at].trim().to_owned();
            return Ok(Sampler::Value { expr, source, at });
        }
        match self.ident() {
            Some("int") => self.int(at),
            Some("float") => self.float(at),
            Some("date") => self.dates(at),
            Some("choice") => self.choice(open),
            Some(kind @ ("lex" | "col")) if self.eat(":") => {
                let name = self.skip_while(|sign| sign.is_alphanumeric() || "_-.".contains(sign)).to_owned();
                if name.is_empty() {
                    return self.fail(self.at, format!("expected a name: {{x={kind}:name}}"));
                }
                Ok(if kind == "lex" { Sampler::Lexicon { name, at } } else { Sampler::Column { name, at } })
            }
            Some(name) => {
                self.skip_blanks();
                if !matches!(self.peek(), Some('[' | '|' | '}')) {
                    let near = suggestion(name, SAMPLERS);
                    let message = "there are int, float, date, choice, lex:name and col:name";
                    return self.fail(at, format!("unknown sampler '{name}'{near}: {message}"));
                }
                let name = name.to_owned();
                let asks = if self.eat("[") { self.asks(open)? } else { Vec::new() };
                Ok(Sampler::Rule { name, asks, at })
            }
            None => self.fail(at, "expected a sampler: {name=int 1..9} or {name=choice x, y}"),
        }
    }

    /// The filters of a slot, as calls around what it shows.
    fn filter(&mut self) -> Result<Option<Expr>> {
        match self.filters(Expr::Held, &mut { MAX_EXPRESSION })? {
            Expr::Held => Ok(None),
            filter => Ok(Some(filter)),
        }
    }

    fn filters(&mut self, mut inner: Expr, left: &mut usize) -> Result<Expr> {
        for filters in 0.. {
            self.skip_blanks();
            if !self.eat("|") {
                break;
            }
            if filters == MAX_NESTING {
                return self.fail(self.at, format!("a slot can have {MAX_NESTING} filters"));
            }
            self.skip_blanks();
            let at = self.at;
            let Some(name) = self.ident().map(str::to_owned) else {
                return self.fail(at, "expected a filter, as in {name|cap}; write \\| to have it as text");
            };
            if *left == 0 {
                return self.fail(at, format!("the expression has more than {MAX_EXPRESSION} parts"));
            }
            *left -= 1;
            let mut args = vec![inner];
            if self.eat("(") {
                self.nest(at, |parser| parser.args(at, &mut args, left))?;
            }
            inner = Expr::Call { name, args, at };
        }
        Ok(inner)
    }

    /// Appends the arguments of a call, behind its parenthesis.
    fn args(&mut self, at: usize, args: &mut Vec<Expr>, left: &mut usize) -> Result<()> {
        self.skip_blanks();
        if self.eat(")") {
            return Ok(());
        }
        loop {
            args.push(self.expr(left)?);
            self.skip_blanks();
            if self.eat(")") {
                return Ok(());
            }
            if !self.eat(",") {
                return self.fail(at, "unclosed call: expected ',' or ')'");
            }
        }
    }

    fn close_slot(&mut self, open: usize, expected: &str) -> Result<()> {
        self.skip_blanks();
        if self.eat("}") {
            return Ok(());
        }
        if self.peek().is_none() || self.at_newline() {
            return self.unclosed(open);
        }
        self.fail(self.at, format!("expected {expected}"))
    }

    fn unclosed<T>(&self, open: usize) -> Result<T> {
        self.fail(open, "unclosed slot: expected '}' on the same line; write \\{ to have it as text")
    }

    fn int(&mut self, at: usize) -> Result<Sampler> {
        self.skip_blanks();
        let low = self.integer()?;
        self.until("an int is drawn from {name=int 1..9} or {name=int 0..100 step 5}")?;
        let high = self.integer()?;
        let step = match self.step() {
            Some(at) => (self.integer()?, at),
            None => (1, at),
        };
        self.range(at, Type::Int, low, high, step)
    }

    fn float(&mut self, at: usize) -> Result<Sampler> {
        let example = "a float is drawn from {name=float 0..9.5 step 0.25}";
        self.skip_blanks();
        let low = self.decimal()?;
        self.until(example)?;
        let high_at = self.at;
        let high = self.decimal()?;
        let Some(step_at) = self.step() else {
            return self.fail(self.at, format!("a float needs a step, whose digits it shows: {example}"));
        };
        let step = self.decimal()?;
        let places = low.1.max(step.1).max(1);
        let units = |(value, has): (i64, u8), at| match value
            .checked_mul(10i64.pow(u32::from(places.saturating_sub(has))))
        {
            Some(value) => Ok(value.div_euclid(10i64.pow(u32::from(has.saturating_sub(places))))),
            None => self.fail(at, format!("the number leaves the 64-bit integers when it has {places} decimal places")),
        };
        let (low, high, step) = (units(low, at)?, units(high, high_at)?, units(step, step_at)?);
        self.range(at, Type::Decimal(places), low, high, (step, step_at))
    }

    fn dates(&mut self, at: usize) -> Result<Sampler> {
        self.skip_blanks();
        let low = self.date()?;
        self.until("a date is drawn from {name=date 2020-01-01..2024-12-31} or with step 7")?;
        let high = self.date()?;
        let step = match self.step() {
            Some(at) => (self.integer()?, at),
            None => (1, at),
        };
        self.range(at, Type::Date, low, high, step)
    }

    fn date(&mut self) -> Result<i64> {
        let at = self.at;
        let text = self.skip_while(|sign| sign.is_ascii_digit() || sign == '-');
        let mut parts = text.split('-').map(|part| (part.len(), part.parse::<i64>()));
        let found = match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some((4, Ok(year))), Some((2, Ok(month))), Some((2, Ok(day))), None) => functions::days(year, month, day),
            _ => None,
        };
        match found {
            Some(day) => Ok(day),
            None if text.is_empty() => self.fail(at, "expected a date, as in 2024-03-07"),
            None => self.fail(at, format!("{text} is no date of the years 1 to 9999: write it as in 2024-03-07")),
        }
    }

    fn number(&mut self) -> Result<Expr> {
        Ok(match self.decimal()? {
            (value, 0) => Expr::Int(value),
            (value, places) => Expr::Decimal(value, places),
        })
    }

    fn until(&mut self, example: &str) -> Result<()> {
        self.skip_blanks();
        if !self.eat("..") {
            return self.fail(self.at, format!("expected '..': {example}"));
        }
        self.skip_blanks();
        Ok(())
    }

    /// Where the number after `step` stands, if there is one.
    fn step(&mut self) -> Option<usize> {
        self.skip_blanks();
        let found = self.rest().starts_with("step");
        if found {
            self.at += "step".len();
            self.skip_blanks();
        }
        found.then_some(self.at)
    }

    fn range(&self, at: usize, of: Type, low: i64, high: i64, (step, step_at): (i64, usize)) -> Result<Sampler> {
        let step = match u64::try_from(step) {
            Ok(step) if step > 0 => step,
            _ => return self.fail(step_at, "the step must be above 0"),
        };
        let shown = || format!("{}..{}", shown(low, of), shown(high, of));
        if high < low {
            let what = of.to_string();
            let what = what.trim_start_matches("a ").trim_start_matches("an ");
            return self.fail(at, format!("{} holds no {what}: the lower bound comes first", shown()));
        }
        if high.abs_diff(low) / step == u64::MAX {
            return self.fail(at, format!("{} holds too many integers: at most 2^64 - 1", shown()));
        }
        Ok(Sampler::Range { of, low, high, step })
    }

    /// A number, and how many decimal places it is written with.
    fn decimal(&mut self) -> Result<(i64, u8)> {
        let at = self.at;
        let whole = self.integer()?;
        let mut point = self.rest().chars();
        if point.next() != Some('.') || !point.next().is_some_and(|sign| sign.is_ascii_digit()) {
            return Ok((whole, 0));
        }
        self.bump();
        let part = self.skip_while(|sign| sign.is_ascii_digit());
        let text = self.source[at..self.at].replace('.', "");
        match text.parse() {
            Ok(value) if part.len() <= usize::from(MAX_PLACES) => Ok((value, part.len() as u8)),
            _ => self.fail(at, format!("a number has at most {MAX_PLACES} digits")),
        }
    }

    fn integer(&mut self) -> Result<i64> {
        let at = self.at;
        self.eat("-");
        self.skip_while(|sign| sign.is_ascii_digit());
        let text = &self.source[at..self.at];
        match text.parse() {
            Ok(value) => Ok(value),
            Err(_) if text.len() > 1 => self.fail(at, format!("{text} leaves the 64-bit integers")),
            Err(_) => self.fail(at, "expected an integer"),
        }
    }

    fn choice(&mut self, open: usize) -> Result<Sampler> {
        let mut options = Vec::new();
        loop {
            self.skip_blanks();
            let start = self.at;
            let mut option = Items::default();
            loop {
                match self.peek() {
                    Some(',' | '}' | '|') => break,
                    Some('\\') => {
                        if let Some(sign) = self.escape()? {
                            option.solid(sign);
                        }
                    }
                    None => return self.unclosed(open),
                    _ if self.at_newline() => return self.unclosed(open),
                    Some('{') => return self.fail(self.at, "an option is plain text: write \\{ to have a brace in it"),
                    Some(sign) => {
                        self.bump();
                        option.text.push(sign);
                    }
                }
            }
            match option.finish(true).pop() {
                Some(Item::Text(option)) => options.push(option),
                _ => return self.fail(start, "empty option: {name=choice x, y} takes texts with commas between them"),
            }
            if !self.eat(",") {
                return Ok(Sampler::Choice(options));
            }
        }
    }

    /// An expression: operators, or `x if y else z`.
    fn expr(&mut self, left_over: &mut usize) -> Result<Expr> {
        let then = self.binary(0, left_over)?;
        self.skip_blanks();
        let at = self.at;
        if !self.eat_word("if") {
            return Ok(then);
        }
        let condition = self.binary(0, left_over)?;
        self.skip_blanks();
        if !self.eat_word("else") {
            return self.fail(self.at, "expected 'else': x if y else z");
        }
        let other = self.nest(at, |parser| parser.expr(left_over))?;
        Ok(Expr::If { then: Box::new(then), condition: Box::new(condition), other: Box::new(other), at })
    }

    /// An expression whose operators all bind tighter than `floor`.
    fn binary(&mut self, floor: u8, left_over: &mut usize) -> Result<Expr> {
        let mut left = self.operand(left_over)?;
        let mut compared = false;
        loop {
            self.skip_blanks();
            let at = self.at;
            let found = Op::ALL.into_iter().find(|op| match op {
                Op::And | Op::Or => self.eat_word(op.sign()),
                _ => self.eat(op.sign()),
            });
            let Some(op) = found.filter(|op| op.strength() > floor) else {
                self.at = at;
                return Ok(left);
            };
            if compared && op.strength() == Op::Eq.strength() {
                return self.fail(at, "comparisons do not chain: join two by 'and', or put one in parentheses");
            }
            compared = op.strength() == Op::Eq.strength();
            let right = self.binary(op.strength(), left_over)?;
            left = Expr::Binary { op, left: Box::new(left), right: Box::new(right), at };
        }
    }

    fn operand(&mut self, left: &mut usize) -> Result<Expr> {
        self.skip_blanks();
        let at = self.at;
        if *left == 0 {
            return self.fail(at, format!("the expression has more than {MAX_EXPRESSION} parts"));
        }
        *left -= 1;
        match self.peek() {
            Some('0'..='9') => self.number(),
            Some('-') if self.rest()[1..].starts_with(|sign: char| sign.is_ascii_digit()) => self.number(),
            Some('-') => {
                self.bump();
                match self.nest(at, |parser| parser.operand(left))? {
                    Expr::Int(value) if value > i64::MIN => Ok(Expr::Int(-value)),
                    Expr::Decimal(value, places) if value > i64::MIN => Ok(Expr::Decimal(-value, places)),
                    inner => Ok(Expr::Negate { inner: Box::new(inner), at }),
                }
            }
            Some('n') if self.eat_word("not") => {
                let inner = self.nest(at, |parser| parser.binary(Op::NOT, left))?;
                Ok(Expr::Not { inner: Box::new(inner), at })
            }
            Some('(') => {
                self.bump();
                let inner = self.nest(at, |parser| parser.expr(left))?;
                self.skip_blanks();
                if !self.eat(")") {
                    return self.fail(at, "unclosed parenthesis");
                }
                Ok(inner)
            }
            Some(quote @ ('"' | '\'')) => {
                self.bump();
                let mut text = String::new();
                loop {
                    match self.peek() {
                        Some('\\') => text.extend(self.escape()?),
                        Some(sign) if sign == quote => {
                            self.bump();
                            return Ok(Expr::Text(text));
                        }
                        Some(sign) if !self.at_newline() => {
                            self.bump();
                            text.push(sign);
                        }
                        _ => return self.fail(at, "unclosed string"),
                    }
                }
            }
            _ => match self.name() {
                Some("true") => Ok(Expr::Truth(true)),
                Some("false") => Ok(Expr::Truth(false)),
                Some(name) if !KEYWORDS.contains(&name) => {
                    let name = name.to_owned();
                    self.skip_blanks();
                    if !self.eat("(") {
                        return Ok(Expr::Name { name, at });
                    }
                    let mut args = Vec::new();
                    self.nest(at, |parser| parser.args(at, &mut args, left))?;
                    Ok(Expr::Call { name, args, at })
                }
                _ => self.fail(at, "expected a number, a binding, a function, a string or '('"),
            },
        }
    }
}

enum Group {
    Optional(Vec<Arm>, Option<Weight>),
    /// Parentheses without `?` are text.
    Literal(Vec<Item>),
}

/// Items in the making: text is gathered until something else comes.
#[derive(Default)]
struct Items {
    done: Vec<Item>,
    text: String,
    /// How much of `text` is kept even where it is blank, because it was escaped.
    kept: usize,
}

impl Items {
    fn solid(&mut self, sign: char) {
        self.text.push(sign);
        self.kept = self.text.len();
    }

    fn push(&mut self, item: Item) {
        if !self.text.is_empty() {
            self.done.push(Item::Text(std::mem::take(&mut self.text)));
        }
        self.kept = 0;
        self.done.push(item);
    }

    fn parentheses(&mut self, items: Vec<Item>) {
        self.text.push('(');
        for item in items {
            match item {
                Item::Text(text) => self.text.push_str(&text),
                item => self.push(item),
            }
        }
        self.solid(')');
    }

    fn finish(mut self, trim: bool) -> Vec<Item> {
        if trim {
            let end = self.text[self.kept..].trim_end_matches(is_blank).len();
            self.text.truncate(self.kept + end);
        }
        if !self.text.is_empty() {
            self.done.push(Item::Text(self.text));
        }
        self.done
    }
}

fn is_blank(sign: char) -> bool {
    sign == ' ' || sign == '\t'
}

/// The canonical source of `rules`: no comments, one line a rule, one way to write each thing. Parsing it gives the
/// same rules again.
pub(super) fn canonical(rules: &[Rule]) -> String {
    let mut out = String::new();
    for rule in rules {
        out.push_str(&rule.name);
        if let Some(depth) = rule.depth {
            write!(out, "[depth={depth}]").expect("a string takes all");
        }
        out.push_str(" = ");
        print_arms(&mut out, &rule.arms);
        out.push('\n');
    }
    out
}

fn print_arms(out: &mut String, arms: &[Arm]) {
    for (i, arm) in arms.iter().enumerate() {
        if i > 0 {
            out.push('|');
        }
        print_items(out, &arm.items);
        for (i, Note { key, value, .. }) in arm.notes.iter().enumerate() {
            write!(out, "{}{key}=", if i == 0 { "[" } else { "," }).expect("a string takes all");
            print_text(out, value, ",]");
        }
        if !arm.notes.is_empty() {
            out.push(']');
        }
        if let Some(weight) = arm.weight {
            print_weight(out, weight);
        }
    }
}

fn print_weight(out: &mut String, Weight(value): Weight) {
    let (whole, part) = (value / Weight::ONE.0, value % Weight::ONE.0);
    write!(out, "::{whole}.{part:0MAX_WEIGHT_DIGITS$}").expect("a string takes all");
}

fn print_items(out: &mut String, items: &[Item]) {
    for item in items {
        match item {
            Item::Text(text) => print_text(out, text, ""),
            Item::Name { name, asks, filter, .. } => {
                write!(out, "{{{name}").expect("a string takes all");
                print_asks(out, asks);
                print_filter(out, filter.as_ref());
                out.push('}');
            }
            Item::Draw { name, sampler, hidden, filter, .. } => {
                write!(out, "{{{}{name}=", if *hidden { "!" } else { "" }).expect("a string takes all");
                print_sampler(out, sampler);
                print_filter(out, filter.as_ref());
                out.push('}');
            }
            Item::Compute { expr, .. } => write!(out, "{{={expr}}}").expect("a string takes all"),
            Item::Optional { arms, without, .. } => {
                out.push('(');
                if let Some(weight) = without {
                    print_weight(out, *weight);
                    out.push('|');
                }
                print_arms(out, arms);
                out.push_str(")?");
            }
            Item::Tag { name, items } => {
                write!(out, "<{name}>").expect("a string takes all");
                print_items(out, items);
                write!(out, "</{name}>").expect("a string takes all");
            }
        }
    }
}

fn print_asks(out: &mut String, asks: &[Ask]) {
    for (i, Ask { key, value, .. }) in asks.iter().enumerate() {
        write!(out, "{}{key}", if i == 0 { "[" } else { "," }).expect("a string takes all");
        if let Some(value) = value {
            write!(out, "={value}").expect("a string takes all");
        }
    }
    if !asks.is_empty() {
        out.push(']');
    }
}

fn print_filter(out: &mut String, filter: Option<&Expr>) {
    let Some(Expr::Call { name, args, .. }) = filter else { return };
    print_filter(out, args.first());
    write!(out, "|{name}").expect("a string takes all");
    for (i, arg) in args[1..].iter().enumerate() {
        write!(out, "{}{arg}", if i == 0 { "(" } else { "," }).expect("a string takes all");
    }
    if args.len() > 1 {
        out.push(')');
    }
}

fn print_sampler(out: &mut String, sampler: &Sampler) {
    let printed = match sampler {
        Sampler::Range { of, low, high, step } => {
            let kind = match of {
                Type::Date => "date",
                Type::Decimal(_) => "float",
                _ => "int",
            };
            let of_step = if *of == Type::Date { Type::Int } else { *of };
            let step = i64::try_from(*step).expect("the step was read as a number of 64 bits");
            write!(out, "{kind} {}..{} step {}", shown(*low, *of), shown(*high, *of), shown(step, of_step))
        }
        Sampler::Choice(options) => {
            out.push_str("choice ");
            for (i, option) in options.iter().enumerate() {
                out.push_str(if i > 0 { "," } else { "" });
                print_text(out, option, ",");
            }
            Ok(())
        }
        Sampler::Lexicon { name, .. } => write!(out, "lex:{name}"),
        Sampler::Column { name, .. } => write!(out, "col:{name}"),
        Sampler::Rule { name, asks, .. } => {
            out.push_str(name);
            print_asks(out, asks);
            Ok(())
        }
        Sampler::Value { expr, .. } => write!(out, "({expr})"),
    };
    printed.expect("a string takes all");
}

fn shown(value: i64, of: Type) -> String {
    let mut out = Vec::new();
    show(value, of, &mut out);
    String::from_utf8(out).expect("values show as ASCII")
}

/// `text` with every sign escaped that could mean something, and blanks too, so that none is trimmed.
fn print_text(out: &mut String, text: &str, also: &str) {
    for sign in text.chars() {
        match sign {
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            ' ' | '\\' | '{' | '}' | '(' | ')' | '|' | '<' | ':' | '#' | '[' => out.extend(['\\', sign]),
            sign if also.contains(sign) => out.extend(['\\', sign]),
            sign => out.push(sign),
        }
    }
}

impl Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expr::Int(value) => write!(f, "{value}"),
            Expr::Decimal(value, places) => f.write_str(&shown(*value, Type::number(*places))),
            Expr::Truth(value) => write!(f, "{value}"),
            Expr::Held => Ok(()),
            Expr::Text(text) => {
                f.write_char('"')?;
                for sign in text.chars() {
                    match sign {
                        '\n' => f.write_str("\\n")?,
                        '\r' => f.write_str("\\r")?,
                        '"' | '\\' => write!(f, "\\{sign}")?,
                        sign => f.write_char(sign)?,
                    }
                }
                f.write_char('"')
            }
            Expr::Name { name, .. } => f.write_str(name),
            Expr::Negate { inner, .. } => {
                f.write_char('-')?;
                inner.print(f, Op::TIGHTEST)
            }
            Expr::Not { inner, .. } => {
                f.write_str("not ")?;
                inner.print(f, Op::NOT)
            }
            Expr::Binary { op, left, right, .. } => {
                let compares = op.strength() == Op::Eq.strength();
                left.print(f, op.strength() + u8::from(compares))?;
                match op {
                    Op::And | Op::Or => write!(f, " {} ", op.sign())?,
                    _ => f.write_str(op.sign())?,
                }
                right.print(f, op.strength() + 1)
            }
            Expr::If { then, condition, other, .. } => {
                then.print(f, Op::IF + 1)?;
                f.write_str(" if ")?;
                condition.print(f, Op::IF + 1)?;
                f.write_str(" else ")?;
                other.print(f, Op::IF)
            }
            Expr::Call { name, args, .. } => {
                write!(f, "{name}(")?;
                for (i, arg) in args.iter().enumerate() {
                    write!(f, "{}{arg}", if i > 0 { "," } else { "" })?;
                }
                f.write_char(')')
            }
        }
    }
}

impl Expr {
    /// A filter as it is written: `|cap`.
    pub(super) fn as_filter(&self) -> String {
        let mut out = String::new();
        print_filter(&mut out, Some(self));
        out
    }

    /// Prints with parentheses where its own operator binds less than `floor`.
    fn print(&self, f: &mut fmt::Formatter<'_>, floor: u8) -> fmt::Result {
        let strength = match self {
            Expr::Binary { op, .. } => op.strength(),
            Expr::Not { .. } => Op::NOT,
            Expr::If { .. } => Op::IF,
            _ => Op::TIGHTEST,
        };
        if strength < floor { write!(f, "({self})") } else { write!(f, "{self}") }
    }
}
