//! The functions of expressions, which are the filters of slots too.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use super::expr::{Clash, Code, Env, Expr, Fault, MAX_PLACES, MAX_STRING, Type, alike, rescaled, show};
use super::parse::suggestion;
use crate::english;

/// The days of the years 1 to 9999, from 1970-01-01.
pub(super) const DAYS: RangeInclusive<i64> = -719_162..=2_932_896;

const WEEKDAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Abs,
    Article,
    At,
    Cap,
    Commas,
    Contains,
    Count,
    Date,
    Day,
    Ends,
    Find,
    Gcd,
    Int,
    Iso,
    Isqrt,
    Lcm,
    Leap,
    Len,
    Long,
    Lower,
    Max,
    Min,
    Month,
    MonthName,
    Ordinal,
    Plural,
    Pow,
    Repeat,
    Replace,
    Reverse,
    Round,
    Short,
    Slice,
    Starts,
    Str,
    Title,
    Upper,
    Weekday,
    Words,
    Year,
}

/// What a parameter takes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Takes {
    Int,
    Number,
    Text,
    /// Any value, as it shows.
    Shown,
    Date,
    Any,
    /// Integers in all places from here on are optional.
    MaybeInt,
}

use Takes as T;

/// Names, parameters and results. The result of `abs`, `max`, `min` and `round` depends on the arguments.
const TABLE: [(&str, Function, &[Takes], Type); 41] = [
    ("a", Function::Article, &[T::Shown], Type::Text),
    ("abs", Function::Abs, &[T::Number], Type::Int),
    ("an", Function::Article, &[T::Shown], Type::Text),
    ("at", Function::At, &[T::Text, T::Int], Type::Text),
    ("cap", Function::Cap, &[T::Shown], Type::Text),
    ("commas", Function::Commas, &[T::Number], Type::Text),
    ("contains", Function::Contains, &[T::Text, T::Text], Type::Truth),
    ("count", Function::Count, &[T::Text, T::Text], Type::Int),
    ("date", Function::Date, &[T::Int, T::Int, T::Int], Type::Date),
    ("day", Function::Day, &[T::Date], Type::Int),
    ("ends", Function::Ends, &[T::Text, T::Text], Type::Truth),
    ("find", Function::Find, &[T::Text, T::Text], Type::Int),
    ("gcd", Function::Gcd, &[T::Int, T::Int], Type::Int),
    ("int", Function::Int, &[T::Any], Type::Int),
    ("iso", Function::Iso, &[T::Date], Type::Text),
    ("isqrt", Function::Isqrt, &[T::Int], Type::Int),
    ("lcm", Function::Lcm, &[T::Int, T::Int], Type::Int),
    ("leap", Function::Leap, &[T::Int], Type::Truth),
    ("len", Function::Len, &[T::Text], Type::Int),
    ("long", Function::Long, &[T::Date], Type::Text),
    ("lower", Function::Lower, &[T::Shown], Type::Text),
    ("max", Function::Max, &[], Type::Int),
    ("min", Function::Min, &[], Type::Int),
    ("month", Function::Month, &[T::Date], Type::Int),
    ("month_name", Function::MonthName, &[T::Date], Type::Text),
    ("ordinal", Function::Ordinal, &[T::Int], Type::Text),
    ("plural", Function::Plural, &[T::Text, T::MaybeInt], Type::Text),
    ("pow", Function::Pow, &[T::Int, T::Int], Type::Int),
    ("repeat", Function::Repeat, &[T::Text, T::Int], Type::Text),
    ("replace", Function::Replace, &[T::Text, T::Text, T::Text], Type::Text),
    ("reverse", Function::Reverse, &[T::Text], Type::Text),
    ("round", Function::Round, &[T::Number, T::MaybeInt], Type::Int),
    ("short", Function::Short, &[T::Number], Type::Text),
    ("slice", Function::Slice, &[T::Text, T::Int, T::MaybeInt], Type::Text),
    ("starts", Function::Starts, &[T::Text, T::Text], Type::Truth),
    ("str", Function::Str, &[T::Any], Type::Text),
    ("title", Function::Title, &[T::Shown], Type::Text),
    ("upper", Function::Upper, &[T::Shown], Type::Text),
    ("weekday", Function::Weekday, &[T::Date], Type::Text),
    ("words", Function::Words, &[T::Int], Type::Text),
    ("year", Function::Year, &[T::Date], Type::Int),
];

fn clash<T>(at: usize, message: impl Into<String>) -> Result<T, Clash> {
    Err(Clash { at, message: message.into() })
}

/// Resolves a call and checks its arguments.
pub(super) fn check(
    name: &str,
    args: &[Expr],
    at: usize,
    slot: &impl Fn(&str, usize) -> Result<(u32, Type), Clash>,
) -> Result<Code, Clash> {
    let Some((_, function, takes, of)) = TABLE.iter().find(|(known, ..)| *known == name) else {
        let near = suggestion(name, TABLE.iter().map(|(known, ..)| *known));
        return clash(at, format!("unknown function '{name}'{near}"));
    };
    if *function == Function::Round {
        return round(args, at, slot);
    }
    let mut codes = args.iter().map(|arg| arg.check(slot)).collect::<Result<Vec<Code>, Clash>>()?;
    let mut of = *of;
    if matches!(function, Function::Max | Function::Min) {
        if codes.len() < 2 {
            return clash(at, format!("{name}() takes two values or more, not {}", codes.len()));
        }
        let mut widest = codes[0].clone();
        for code in &codes[1..] {
            let (left, right) = (widest.of(), code.of());
            match alike(widest, code.clone(), at) {
                Some((found, _)) if found.of() != Type::Truth => widest = found,
                _ => return clash(at, format!("type clash: {name}() cannot compare {left} and {right}")),
            }
        }
        of = widest.of();
        let places = of.places().unwrap_or(0);
        let args = codes.into_iter().map(|code| rescaled(code, places, at)).collect();
        return Ok(Code::Call { function: *function, args, of, at });
    }
    let least = takes.iter().filter(|takes| **takes != T::MaybeInt).count();
    if !(least..=takes.len()).contains(&codes.len()) {
        let wanted = if least == takes.len() { least.to_string() } else { format!("{least} or {}", takes.len()) };
        let values = if takes.len() == 1 { "value" } else { "values" };
        return clash(at, format!("{name}() takes {wanted} {values}, not {}", codes.len()));
    }
    for (code, takes) in codes.iter().zip(*takes) {
        let has = code.of();
        let (fits, wanted) = match takes {
            T::Int | T::MaybeInt => (has == Type::Int, "an integer"),
            T::Number => (has.places().is_some(), "a number"),
            T::Text => (has == Type::Text, "a string"),
            T::Date => (has == Type::Date, "a date"),
            T::Shown => (true, ""),
            T::Any => (*function != Function::Int || has != Type::Date, "a number, a string or a truth value"),
        };
        if !fits {
            return clash(at, format!("type clash: {name}() needs {wanted}, not {has}"));
        }
    }
    for (code, takes) in codes.iter_mut().zip(*takes) {
        if *takes == T::Shown && code.of() != Type::Text {
            *code = Code::Call { function: Function::Str, args: vec![code.clone()], of: Type::Text, at };
        }
    }
    if *function == Function::Abs {
        of = codes[0].of();
    }
    if *function == Function::Str && codes[0].of() == Type::Text {
        return Ok(codes.remove(0));
    }
    Ok(Code::Call { function: *function, args: codes, of, at })
}

/// `round(x)`, `round(x, places)`: of a quotient the exact one.
fn round(args: &[Expr], at: usize, slot: &impl Fn(&str, usize) -> Result<(u32, Type), Clash>) -> Result<Code, Clash> {
    let (value, places) = match args {
        [value] => (value, 0),
        [value, Expr::Int(places @ 0..=18)] => (value, *places as u8),
        [_, _] => {
            return clash(at, format!("round(x, places) takes a plain number from 0 to {MAX_PLACES} for its places"));
        }
        _ => return clash(at, format!("round() takes 1 or 2 values, not {}", args.len())),
    };
    let (left, right) = match value.check(slot)? {
        Code::Quotient { left, right, exact: true, .. } => (left, right),
        code => match code.of().places() {
            Some(has) if has > places => {
                let unit = Code::Const(10i64.pow(u32::from(has)), Type::Int);
                (Box::new(code), Box::new(unit))
            }
            Some(_) => return Ok(rescaled(code, places, at)),
            None => return clash(at, format!("type clash: round() needs a number, not {}", code.of())),
        },
    };
    Ok(Code::Quotient { left, right, places, exact: false, at })
}

/// How a filter moves the tags within the text that it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moves {
    /// What stands before a place depends on nothing behind it.
    Prefix,
    /// Only the beginning of the text changes.
    Start,
}

impl Function {
    /// How tags within its first argument move; nothing if they would be lost.
    pub fn moves(self) -> Option<Moves> {
        match self {
            Function::Cap | Function::Lower | Function::Title | Function::Upper => Some(Moves::Prefix),
            Function::Article => Some(Moves::Start),
            _ => None,
        }
    }

    /// The most bytes of a string result, where the arguments take at most `sizes`.
    pub fn longest(self, args: &[Code], sizes: &[u64]) -> u64 {
        let size = sizes.first().copied().unwrap_or(0);
        let literal = |i: usize| match args.get(i) {
            Some(Code::Const(value, Type::Int)) => u64::try_from(*value).ok(),
            _ => None,
        };
        let most = match self {
            Function::Cap | Function::Lower | Function::Title | Function::Upper | Function::Plural => {
                size.saturating_mul(3).saturating_add(8)
            }
            Function::Article => size.saturating_add(3),
            Function::Max | Function::Min => sizes.iter().copied().max().unwrap_or(0),
            Function::Replace => match args.get(1) {
                Some(Code::Text(from)) if !from.is_empty() => {
                    size.saturating_add((size / from.len() as u64).saturating_mul(sizes[2]))
                }
                _ => MAX_STRING,
            },
            Function::Repeat => literal(1).map_or(MAX_STRING, |n| size.saturating_mul(n)),
            Function::At => 4,
            Function::Slice | Function::Reverse => size,
            Function::Words => 200,
            _ => 40,
        };
        most.min(MAX_STRING)
    }

    /// The value of a call that is no string. Not inlined: its frame would be on the stack once for each nested expression.
    #[inline(never)]
    pub fn number(self, args: &[Code], env: Env<'_>, at: usize) -> Result<i64, Fault> {
        let number = |i: usize| args[i].number(env);
        let text = |i: usize| args[i].text(env);
        let overflow = || Fault { at, what: "the result leaves the 64-bit integers".into() };
        match self {
            Function::Abs => number(0)?.checked_abs().ok_or_else(overflow),
            Function::Max | Function::Min => {
                let mut best = number(0)?;
                for i in 1..args.len() {
                    let other = number(i)?;
                    best = if self == Function::Max { best.max(other) } else { best.min(other) };
                }
                Ok(best)
            }
            Function::Gcd => {
                let common = gcd(number(0)?.unsigned_abs(), number(1)?.unsigned_abs());
                i64::try_from(common).map_err(|_| overflow())
            }
            Function::Lcm => {
                let (a, b) = (number(0)?.unsigned_abs(), number(1)?.unsigned_abs());
                let least = if a == 0 { Some(0) } else { (a / gcd(a, b)).checked_mul(b) };
                least.and_then(|least| i64::try_from(least).ok()).ok_or_else(overflow)
            }
            Function::Pow => {
                let (base, power) = (number(0)?, number(1)?);
                if power < 0 {
                    return Err(Fault { at, what: "pow() with a power below zero".into() });
                }
                match base {
                    0 | 1 => Ok(if power == 0 { 1 } else { base }),
                    -1 => Ok(if power % 2 == 0 { 1 } else { -1 }),
                    _ => u32::try_from(power).ok().and_then(|power| base.checked_pow(power)).ok_or_else(overflow),
                }
            }
            Function::Isqrt => {
                let value = number(0)?;
                if value < 0 {
                    return Err(Fault { at, what: "isqrt() of a number below zero".into() });
                }
                Ok(value.isqrt())
            }
            Function::Len => Ok(text(0)?.chars().count() as i64),
            Function::Count => {
                let (text, part) = (text(0)?, text(1)?);
                Ok(if part.is_empty() { text.chars().count() + 1 } else { text.matches(&*part).count() } as i64)
            }
            Function::Find => {
                let (text, part) = (text(0)?, text(1)?);
                Ok(text.find(&*part).map_or(-1, |byte| text[..byte].chars().count() as i64))
            }
            Function::Contains => Ok(i64::from(text(0)?.contains(&*text(1)?))),
            Function::Starts => Ok(i64::from(text(0)?.starts_with(&*text(1)?))),
            Function::Ends => Ok(i64::from(text(0)?.ends_with(&*text(1)?))),
            Function::Int => match args[0].of() {
                Type::Text => {
                    let text = text(0)?;
                    let value = text.trim().parse();
                    value.map_err(|_| Fault { at, what: format!("'{text}' is no integer").into() })
                }
                Type::Decimal(places) => Ok(number(0)? / 10i64.pow(u32::from(places))),
                _ => number(0),
            },
            Function::Year => Ok(civil(number(0)?).0),
            Function::Month => Ok(civil(number(0)?).1),
            Function::Day => Ok(civil(number(0)?).2),
            Function::Date => {
                let (year, month, day) = (number(0)?, number(1)?, number(2)?);
                days(year, month, day).ok_or_else(|| Fault {
                    at,
                    what: format!("there is no date of year {year}, month {month}, day {day}").into(),
                })
            }
            Function::Leap => Ok(i64::from(leap(number(0)?))),
            _ => unreachable!("checked: not a number"),
        }
    }

    /// The value of a call that is a string.
    #[inline(never)]
    pub fn text<'a>(self, args: &'a [Code], env: Env<'a>, at: usize) -> Result<Cow<'a, str>, Fault> {
        let number = |i: usize| args[i].number(env);
        let text = |i: usize| args[i].text(env);
        let made: String = match self {
            Function::Article => {
                let text = text(0)?;
                let article = if english::takes_an(&text) { "an " } else { "a " };
                let mut out = String::with_capacity(article.len() + text.len());
                out.push_str(article);
                out.push_str(&text);
                out
            }
            Function::Upper => text(0)?.chars().flat_map(char::to_uppercase).collect(),
            Function::Lower => text(0)?.chars().flat_map(char::to_lowercase).collect(),
            Function::Cap => cap(&text(0)?),
            Function::Title => text(0)?.split_inclusive(char::is_whitespace).map(cap).collect(),
            Function::Reverse => text(0)?.chars().rev().collect(),
            Function::Max | Function::Min => {
                let mut best = text(0)?;
                for i in 1..args.len() {
                    let other = text(i)?;
                    if (other > best) == (self == Function::Max) && other != best {
                        best = other;
                    }
                }
                return Ok(best);
            }
            Function::Plural => {
                if args.len() == 2 && number(1)? == 1 {
                    return text(0);
                }
                english::plural(&text(0)?)
            }
            Function::Replace => {
                let (text, from, to) = (text(0)?, text(1)?, text(2)?);
                if from.is_empty() {
                    return Err(Fault { at, what: "replace() of nothing".into() });
                }
                let extra = text.matches(&*from).count().saturating_mul(to.len());
                bounded(text.len().saturating_add(extra), at)?;
                text.replace(&*from, &to)
            }
            Function::Repeat => {
                let (text, times) = (text(0)?, number(1)?);
                let Ok(times) = usize::try_from(times) else {
                    return Err(Fault { at, what: "repeat() with a number below zero".into() });
                };
                bounded(text.len().saturating_mul(times), at)?;
                if text.is_empty() { String::new() } else { text.repeat(times) }
            }
            Function::At => {
                let (text, index) = (text(0)?, number(1)?);
                let found = if index < 0 {
                    index.checked_neg().and_then(|back| text.chars().rev().nth(back as usize - 1))
                } else {
                    text.chars().nth(index as usize)
                };
                match found {
                    Some(sign) => sign.to_string(),
                    None => return Err(Fault { at, what: format!("'{text}' has no character {index}").into() }),
                }
            }
            Function::Slice => {
                let text = text(0)?;
                let length = text.chars().count() as i64;
                let place = |index: i64| if index < 0 { index.saturating_add(length).max(0) } else { index };
                let start = place(number(1)?);
                let end = if args.len() == 3 { place(number(2)?) } else { length };
                text.chars().skip(start as usize).take(end.saturating_sub(start).max(0) as usize).collect()
            }
            Function::Ordinal => english::ordinal(number(0)?),
            Function::Words => english::words(number(0)?),
            Function::Commas => english::commas(&shown(number(0)?, args[0].of())),
            Function::Short => {
                let text = shown(number(0)?, args[0].of());
                if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
            }
            Function::Str => shown(number(0)?, args[0].of()),
            Function::Weekday => WEEKDAYS[number(0)?.rem_euclid(7) as usize].into(),
            Function::MonthName => MONTHS[civil(number(0)?).1 as usize - 1].into(),
            Function::Iso => shown(number(0)?, Type::Date),
            Function::Long => {
                let (year, month, day) = civil(number(0)?);
                format!("{day} {} {year}", MONTHS[month as usize - 1])
            }
            _ => unreachable!("checked: not a string"),
        };
        Ok(Cow::Owned(made))
    }
}

fn bounded(size: usize, at: usize) -> Result<(), Fault> {
    if size as u64 <= MAX_STRING {
        return Ok(());
    }
    Err(Fault { at, what: format!("the string has more than {MAX_STRING} bytes").into() })
}

/// `text` with its first letter as a capital, if no digit stands before it.
fn cap(text: &str) -> String {
    match text.char_indices().find(|(_, sign)| sign.is_alphanumeric()) {
        Some((at, sign)) if sign.is_ascii_lowercase() => {
            let mut out = text.to_owned();
            out.replace_range(at..=at, sign.to_ascii_uppercase().encode_utf8(&mut [0; 4]));
            out
        }
        Some((at, sign)) if sign.is_lowercase() => {
            let rest = &text[at + sign.len_utf8()..];
            text[..at].chars().chain(sign.to_uppercase()).chain(rest.chars()).collect()
        }
        _ => text.to_owned(),
    }
}

fn shown(value: i64, of: Type) -> String {
    let mut out = Vec::new();
    show(value, of, &mut out);
    String::from_utf8(out).expect("values show as ASCII")
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// The days from 1970-01-01 to a date of the years 1 to 9999; nothing if there is no such date.
///
/// Years begin in March here, so that the leap day is the last (Hinnant, "chrono-Compatible Low-Level Date Algorithms").
pub(super) fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let length = match month {
        2 => 28 + i64::from(leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if !(1..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=length).contains(&day) {
        return None;
    }
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    Some(365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468)
}

/// Year, month and day of a number of days from 1970-01-01.
pub(super) fn civil(day: i64) -> (i64, i64, i64) {
    let day = day + 719_468;
    let (era, day) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let rest = day - (365 * year + year / 4 - year / 100);
    let month = (5 * rest + 2) / 153;
    let day = rest - (153 * month + 2) / 5 + 1;
    let year = 400 * era + year + i64::from(month > 9);
    (year, if month < 10 { month + 3 } else { month - 9 }, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_days() {
        assert_eq!(days(1970, 1, 1), Some(0));
        assert_eq!(days(2000, 3, 1), Some(11_017));
        assert_eq!((days(1, 1, 1), days(9999, 12, 31)), (Some(*DAYS.start()), Some(*DAYS.end())));
        assert_eq!([days(2023, 2, 29), days(2024, 4, 31), days(2024, 13, 1), days(0, 1, 1)], [None; 4]);
        let mut expected = *DAYS.start();
        for year in 1..=9999 {
            for month in 1..=12 {
                for day in 1..=31 {
                    if let Some(found) = days(year, month, day) {
                        assert_eq!(found, expected);
                        assert_eq!(civil(found), (year, month, day));
                        expected += 1;
                    }
                }
            }
        }
        assert_eq!(expected, DAYS.end() + 1);
    }

    #[test]
    fn the_table_is_sorted() {
        assert!(TABLE.is_sorted_by_key(|(name, ..)| *name));
    }
}
