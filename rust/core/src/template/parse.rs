//! Text -> syntax tree, and the one canonical way back.
//!
//! The parser reads characters, not lexemes: what a sign means depends on whether it stands in text, in a slot or in
//! an expression. Every node keeps the byte offset it came from, and [`fault`] turns an offset into line, column and
//! a caret under the source.

use std::fmt::{self, Display, Write};

use super::expr::{Expr, Op};
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

/// One alternative.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Arm {
    pub items: Vec<Item>,
    pub weight: Option<Weight>,
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
    /// A rule or a binding: which of them, the whole grammar decides.
    Name {
        name: String,
        at: usize,
    },
    /// A hidden draw binds a value and shows nothing.
    Draw {
        name: String,
        sampler: Sampler,
        hidden: bool,
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
    Int { low: i64, high: i64, step: u64 },
    Choice(Vec<String>),
}

/// The names of the samplers, for suggestions.
const SAMPLERS: [&str; 2] = ["choice", "int"];

/// An error at byte `at` of `source`: line, column, the line itself and a caret.
pub(super) fn fault(source: &str, at: usize, message: impl Display) -> Error {
    const BEFORE: usize = 60;
    const AFTER: usize = 40;
    let start = source[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let line = source[..start].matches('\n').count() + 1;
    let column = source[start..at].chars().count() + 1;
    let skipped = column.saturating_sub(BEFORE + 1);
    let shown: String =
        source[start..].lines().next().unwrap_or("").chars().skip(skipped).take(BEFORE + AFTER).collect();
    let shown = shown.replace('\t', " ");
    Error::syntax(line, column, format!("{message}\n  {}\n  {:>2$}", shown.trim_end(), '^', column - skipped))
}

/// ` (did you mean 'x'?)` for the nearest of `names`, or nothing where none is near.
pub(super) fn suggestion<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    const LONGEST: usize = 64;
    let limit = (name.chars().count() / 3).clamp(1, 3);
    let names = names.into_iter().filter(|other| name.len().max(other.len()) <= LONGEST);
    let best = names.map(|other| (distance(name, other), other)).filter(|&(d, _)| d <= limit).min();
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

/// All rules of `source`, in order.
pub(super) fn parse(source: &str) -> Result<Vec<Rule>> {
    let mut parser = Parser { source, at: 0, nesting: 0 };
    let mut rules: Vec<Rule> = Vec::new();
    loop {
        parser.skip_empty_lines();
        if parser.peek().is_none() {
            return Ok(rules);
        }
        rules.push(parser.rule()?);
    }
}

/// Where a sequence of items stands, which decides what ends it.
#[derive(Clone, Copy)]
struct Inside {
    group: bool,
    tag: bool,
}

struct Parser<'a> {
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
        Err(fault(self.source, at, message))
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
            let weight = if self.eat("::") { Some(self.weight(inside)?) } else { None };
            if items.is_empty() {
                let only = arms.is_empty() && weight.is_none() && self.peek() != Some('|');
                return if only {
                    self.fail(at, format!("empty {what}: it needs text or a slot"))
                } else {
                    self.fail(
                        start,
                        "empty alternative: put optional text in ( ... )?, or write \\| to have a bar as text",
                    )
                };
            }
            arms.push(Arm { items, weight, at: start });
            let more = self.eat("|") || (!inside.group && self.skip_line_end(|parser| parser.eat("|")));
            if !more {
                if !inside.group && self.at_comment() {
                    self.skip_while(|sign| sign != '\n');
                }
                return Ok(arms);
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
            let expr = self.expr(0, &mut left)?;
            let source = self.source[start..self.at].trim().to_owned();
            self.close_slot(open, "an operator or '}'")?;
            return Ok(Item::Compute { expr, source });
        }
        let hidden = self.eat("!");
        self.skip_blanks();
        let at = self.at;
        let Some(name) = self.ident() else {
            if self.peek().is_none() || self.at_newline() {
                return self.unclosed(open);
            }
            return self.fail(at, "expected {name}, {name=sampler ...} or {=expression}; write \\{ to have it as text");
        };
        self.skip_blanks();
        if !self.eat("=") {
            if hidden && self.peek() == Some('}') {
                return self.fail(open, "'!' hides a draw, as in {!name=int 1..9}: this draws nothing");
            }
            self.close_slot(open, "'}' or '='")?;
            return Ok(Item::Name { name: name.to_owned(), at });
        }
        self.skip_blanks();
        let sampler_at = self.at;
        let sampler = match self.ident() {
            Some("int") => self.int(sampler_at)?,
            Some("choice") => self.choice(open)?,
            Some(other) => {
                let near = suggestion(other, SAMPLERS);
                return self.fail(sampler_at, format!("unknown sampler '{other}'{near}: there are int and choice"));
            }
            None => return self.fail(sampler_at, "expected a sampler: {name=int 1..9} or {name=choice x, y}"),
        };
        self.close_slot(open, "'}'")?;
        Ok(Item::Draw { name: name.to_owned(), sampler, hidden, at })
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
        self.skip_blanks();
        if !self.eat("..") {
            return self
                .fail(self.at, "expected '..': an int is drawn from {name=int 1..9} or {name=int 0..100 step 5}");
        }
        self.skip_blanks();
        let high = self.integer()?;
        self.skip_blanks();
        let mut step = 1;
        if self.rest().starts_with("step") {
            self.at += "step".len();
            self.skip_blanks();
            let step_at = self.at;
            step = match u64::try_from(self.integer()?) {
                Ok(step) if step > 0 => step,
                _ => return self.fail(step_at, "the step must be above 0"),
            };
        }
        if high < low {
            return self.fail(at, format!("{low}..{high} holds no integer: the lower bound comes first"));
        }
        if high.abs_diff(low) / step == u64::MAX {
            return self.fail(at, format!("{low}..{high} holds too many integers: at most 2^64 - 1"));
        }
        Ok(Sampler::Int { low, high, step })
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
                    Some(',' | '}') => break,
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

    /// An expression whose operators all bind tighter than `floor`.
    fn expr(&mut self, floor: u8, left_over: &mut usize) -> Result<Expr> {
        let mut left = self.operand(left_over)?;
        let mut compared = false;
        loop {
            self.skip_blanks();
            let at = self.at;
            let Some(op) = Op::ALL.into_iter().find(|op| self.rest().starts_with(op.sign())) else {
                if self.rest().starts_with('/') {
                    return self.fail(at, "integers divide with '//', which rounds down");
                }
                return Ok(left);
            };
            if op.strength() <= floor {
                return Ok(left);
            }
            if compared && op.strength() == Op::Eq.strength() {
                return self.fail(at, "comparisons do not chain: put one of them in parentheses");
            }
            compared = op.strength() == Op::Eq.strength();
            self.at += op.sign().len();
            let right = self.expr(op.strength(), left_over)?;
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
            Some('0'..='9') => self.integer().map(Expr::Int),
            Some('-') if self.rest()[1..].starts_with(|sign: char| sign.is_ascii_digit()) => {
                self.integer().map(Expr::Int)
            }
            Some('-') => {
                self.bump();
                match self.nest(at, |parser| parser.operand(left))? {
                    Expr::Int(value) if value > i64::MIN => Ok(Expr::Int(-value)),
                    inner => Ok(Expr::Negate { inner: Box::new(inner), at }),
                }
            }
            Some('(') => {
                self.bump();
                let inner = self.nest(at, |parser| parser.expr(0, left))?;
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
            _ => match self.ident() {
                Some(name) => Ok(Expr::Name { name: name.to_owned(), at }),
                None => self.fail(at, "expected a number, a binding, a string or '('"),
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
            Item::Name { name, .. } => write!(out, "{{{name}}}").expect("a string takes all"),
            Item::Draw { name, sampler, hidden, .. } => {
                write!(out, "{{{}{name}=", if *hidden { "!" } else { "" }).expect("a string takes all");
                match sampler {
                    Sampler::Int { low, high, step } => write!(out, "int {low}..{high} step {step}").expect("as above"),
                    Sampler::Choice(options) => {
                        out.push_str("choice ");
                        for (i, option) in options.iter().enumerate() {
                            out.push_str(if i > 0 { "," } else { "" });
                            print_text(out, option, ",");
                        }
                    }
                }
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

/// `text` with every sign escaped that could mean something, and blanks too, so that none is trimmed.
fn print_text(out: &mut String, text: &str, also: &str) {
    for sign in text.chars() {
        match sign {
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            ' ' | '\\' | '{' | '}' | '(' | ')' | '|' | '<' | ':' | '#' => out.extend(['\\', sign]),
            sign if also.contains(sign) => out.extend(['\\', sign]),
            sign => out.push(sign),
        }
    }
}

impl Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expr::Int(value) => write!(f, "{value}"),
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
                inner.print(f, 4)
            }
            Expr::Binary { op, left, right, .. } => {
                left.print(f, if op.strength() == Op::Eq.strength() { 2 } else { op.strength() })?;
                f.write_str(op.sign())?;
                right.print(f, op.strength() + 1)
            }
        }
    }
}

impl Expr {
    /// Prints with parentheses where its own operator binds less than `floor`.
    fn print(&self, f: &mut fmt::Formatter<'_>, floor: u8) -> fmt::Result {
        match self {
            Expr::Binary { op, .. } if op.strength() < floor => write!(f, "({self})"),
            _ => write!(f, "{self}"),
        }
    }
}
