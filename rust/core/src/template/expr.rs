//! The expressions of computed slots and filters: parsed syntax, static types, exact evaluation.
//!
//! Every number is a 64-bit integer whose type says what it counts: ones, a fixed number of decimal places, days. So
//! arithmetic is exact and checked, and what an expression shows depends on no floating point. What can fail at run
//! time carries the position of its operator.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use super::functions::{self, Function, Moves};
use super::walk::push_int;

/// The most decimal places of a number.
pub(super) const MAX_PLACES: u8 = 18;
/// The longest string that an expression may make, in bytes.
pub(super) const MAX_STRING: u64 = 1 << 12;

/// An expression as written; `at` is a byte offset in the grammar's source.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expr {
    Int(i64),
    /// `mantissa / 10^places`.
    Decimal(i64, u8),
    Truth(bool),
    Text(String),
    Name {
        name: String,
        at: usize,
    },
    /// The text of the rule that a filter follows.
    Held,
    Negate {
        inner: Box<Expr>,
        at: usize,
    },
    Not {
        inner: Box<Expr>,
        at: usize,
    },
    Binary {
        op: Op,
        left: Box<Expr>,
        right: Box<Expr>,
        at: usize,
    },
    If {
        then: Box<Expr>,
        condition: Box<Expr>,
        other: Box<Expr>,
        at: usize,
    },
    Call {
        name: String,
        args: Vec<Expr>,
        at: usize,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Or,
    And,
    Add,
    Sub,
    Mul,
    Over,
    Div,
    Rem,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

impl Op {
    /// Longest first, so that a prefix never hides an operator.
    pub const ALL: [Op; 14] = [
        Op::And,
        Op::Or,
        Op::Div,
        Op::Eq,
        Op::Ne,
        Op::Le,
        Op::Ge,
        Op::Add,
        Op::Sub,
        Op::Mul,
        Op::Over,
        Op::Rem,
        Op::Lt,
        Op::Gt,
    ];

    /// How tight `a if c else b` and `not a` bind.
    pub const IF: u8 = 1;
    pub const NOT: u8 = 4;
    /// Tighter than every operator.
    pub const TIGHTEST: u8 = 8;

    pub fn sign(self) -> &'static str {
        match self {
            Op::Or => "or",
            Op::And => "and",
            Op::Add => "+",
            Op::Sub => "-",
            Op::Mul => "*",
            Op::Over => "/",
            Op::Div => "//",
            Op::Rem => "%",
            Op::Eq => "==",
            Op::Ne => "!=",
            Op::Lt => "<",
            Op::Le => "<=",
            Op::Gt => ">",
            Op::Ge => ">=",
        }
    }

    /// Comparisons do not chain; products bind tightest.
    pub fn strength(self) -> u8 {
        match self {
            Op::Or => 2,
            Op::And => 3,
            Op::Eq | Op::Ne | Op::Lt | Op::Le | Op::Gt | Op::Ge => 5,
            Op::Add | Op::Sub => 6,
            Op::Mul | Op::Over | Op::Div | Op::Rem => 7,
        }
    }

    fn holds(self, order: Ordering) -> bool {
        match self {
            Op::Eq => order.is_eq(),
            Op::Ne => order.is_ne(),
            Op::Lt => order.is_lt(),
            Op::Le => order.is_le(),
            Op::Gt => order.is_gt(),
            _ => order.is_ge(),
        }
    }
}

/// The type of a binding or an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Type {
    /// A 64-bit integer.
    Int,
    /// A number with so many decimal places, 1 to 18, held as the 64-bit integer of its units in the last place.
    Decimal(u8),
    /// A string.
    Text,
    /// True or false, held as 1 or 0; shows as `true` or `false`.
    Truth,
    /// A day of the years 1 to 9999, held as days since 1970-01-01; shows as `2024-03-07`.
    Date,
}

impl Type {
    /// A number with so many places.
    pub(super) fn number(places: u8) -> Type {
        if places == 0 { Type::Int } else { Type::Decimal(places) }
    }

    /// How many decimal places a number has.
    pub(super) fn places(self) -> Option<u8> {
        match self {
            Type::Int => Some(0),
            Type::Decimal(places) => Some(places),
            _ => None,
        }
    }

    /// The most bytes that a value shows as; strings are bounded by what they hold.
    pub(super) fn longest(self) -> u64 {
        match self {
            Type::Truth => 5,
            Type::Date => 10,
            _ => 22,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Type::Int => "an integer",
            Type::Decimal(_) => "a decimal",
            Type::Text => "a string",
            Type::Truth => "a truth value",
            Type::Date => "a date",
        })
    }
}

/// A checked expression: names are slots, every operator knows the type of its operands.
#[derive(Debug, Clone)]
pub(super) enum Code {
    Const(i64, Type),
    Text(String),
    Slot(u32, Type),
    Held,
    /// Both sides have as many places, save those of a product.
    Arithmetic {
        op: Op,
        left: Box<Code>,
        right: Box<Code>,
        of: Type,
        at: usize,
    },
    /// `left / right`, of as many places each, to `places`: exact, or rounded half away from zero.
    Quotient {
        left: Box<Code>,
        right: Box<Code>,
        places: u8,
        exact: bool,
        at: usize,
    },
    /// A number with `by` more places.
    Rescale {
        inner: Box<Code>,
        by: u8,
        to: Type,
        at: usize,
    },
    Concat(Box<Code>, Box<Code>),
    Compare {
        op: Op,
        of: Type,
        left: Box<Code>,
        right: Box<Code>,
    },
    Logic {
        op: Op,
        left: Box<Code>,
        right: Box<Code>,
    },
    Not(Box<Code>),
    If {
        then: Box<Code>,
        condition: Box<Code>,
        other: Box<Code>,
    },
    Call {
        function: Function,
        args: Vec<Code>,
        of: Type,
        at: usize,
    },
}

/// What an expression may not do: where, and why.
pub(super) struct Clash {
    pub at: usize,
    pub message: String,
}

/// An operation without a result: where, and why.
#[derive(Debug, PartialEq)]
pub(super) struct Fault {
    pub at: usize,
    pub what: Cow<'static, str>,
}

/// What an expression may read.
#[derive(Clone, Copy)]
pub(super) struct Env<'a> {
    /// Numbers, and indices of strings.
    pub slots: &'a [i64],
    /// The strings of the grammar, and those that this row made, which are numbered after them.
    pub strings: &'a [String],
    pub made: &'a [String],
    pub held: &'a str,
}

impl<'a> Env<'a> {
    pub fn string(&self, index: i64) -> &'a str {
        let index = index as usize;
        self.strings.get(index).unwrap_or_else(|| &self.made[index - self.strings.len()])
    }
}

fn clash<T>(at: usize, message: impl Into<String>) -> Result<T, Clash> {
    Err(Clash { at, message: message.into() })
}

impl Expr {
    /// Resolves names by `slot` and checks types.
    pub fn check(&self, slot: &impl Fn(&str, usize) -> Result<(u32, Type), Clash>) -> Result<Code, Clash> {
        Ok(match self {
            Expr::Int(value) => Code::Const(*value, Type::Int),
            Expr::Decimal(value, places) => Code::Const(*value, Type::number(*places)),
            Expr::Truth(value) => Code::Const(i64::from(*value), Type::Truth),
            Expr::Text(text) => Code::Text(text.clone()),
            Expr::Held => Code::Held,
            Expr::Name { name, at } => {
                let (slot, of) = slot(name, *at)?;
                Code::Slot(slot, of)
            }
            Expr::Negate { inner, at } => {
                let inner = inner.check(slot)?;
                let of = inner.of();
                if of.places().is_none() {
                    return clash(*at, format!("type clash: '-' needs a number, not {of}"));
                }
                let zero = Box::new(Code::Const(0, of));
                Code::Arithmetic { op: Op::Sub, left: zero, right: Box::new(inner), of, at: *at }
            }
            Expr::Not { inner, at } => {
                let inner = inner.check(slot)?;
                if inner.of() != Type::Truth {
                    return clash(*at, format!("type clash: 'not' needs a truth value, not {}", inner.of()));
                }
                Code::Not(Box::new(inner))
            }
            Expr::If { then, condition, other, at } => {
                let (then, condition, other) = (then.check(slot)?, condition.check(slot)?, other.check(slot)?);
                if condition.of() != Type::Truth {
                    return clash(*at, format!("type clash: 'if' needs a truth value, not {}", condition.of()));
                }
                let (left, right) = (then.of(), other.of());
                let Some((then, other)) = alike(then, other, *at) else {
                    let message = format!("type clash: the two sides of 'if' are {left} and {right}");
                    return clash(*at, message);
                };
                Code::If { then: Box::new(then), condition: Box::new(condition), other: Box::new(other) }
            }
            Expr::Binary { op, left, right, at } => binary(*op, left.check(slot)?, right.check(slot)?, *at)?,
            Expr::Call { name, args, at } => functions::check(name, args, *at, slot)?,
        })
    }

    /// A filter whose text is `value`.
    pub fn with_held(&self, value: &Expr) -> Expr {
        match self {
            Expr::Call { name, args, at } => {
                let mut args = args.clone();
                args[0] = args[0].with_held(value);
                Expr::Call { name: name.clone(), args, at: *at }
            }
            _ => value.clone(),
        }
    }

    /// Calls `found` on every name.
    pub fn names<'a>(&'a self, found: &mut impl FnMut(&'a str, usize)) {
        match self {
            Expr::Int(_) | Expr::Decimal(..) | Expr::Truth(_) | Expr::Text(_) | Expr::Held => {}
            Expr::Name { name, at } => found(name, *at),
            Expr::Negate { inner, .. } | Expr::Not { inner, .. } => inner.names(found),
            Expr::Binary { left, right, .. } => {
                left.names(found);
                right.names(found);
            }
            Expr::If { then, condition, other, .. } => {
                then.names(found);
                condition.names(found);
                other.names(found);
            }
            Expr::Call { args, .. } => {
                for arg in args {
                    arg.names(found);
                }
            }
        }
    }
}

fn binary(op: Op, left: Code, right: Code, at: usize) -> Result<Code, Clash> {
    let (of, other) = (left.of(), right.of());
    let two = |left, right| (Box::new(left), Box::new(right));
    let joined = || format!("type clash: '{}' cannot join {of} and {other}", op.sign());
    Ok(match (op, of, other) {
        (Op::And | Op::Or, Type::Truth, Type::Truth) => {
            let (left, right) = two(left, right);
            Code::Logic { op, left, right }
        }
        (Op::Add, Type::Text, Type::Text) => {
            let (left, right) = two(left, right);
            Code::Concat(left, right)
        }
        (Op::Eq | Op::Ne | Op::Lt | Op::Le | Op::Gt | Op::Ge, ..) => {
            if of == Type::Truth && !matches!(op, Op::Eq | Op::Ne) {
                return clash(at, joined());
            }
            let Some((left, right)) = alike(left, right, at) else { return clash(at, joined()) };
            let of = left.of();
            let (left, right) = two(left, right);
            Code::Compare { op, of, left, right }
        }
        (Op::Add, Type::Date, Type::Int) | (Op::Add, Type::Int, Type::Date) | (Op::Sub, Type::Date, Type::Int) => {
            let (left, right) = two(left, right);
            Code::Arithmetic { op, left, right, of: Type::Date, at }
        }
        (Op::Sub, Type::Date, Type::Date) => {
            let (left, right) = two(left, right);
            Code::Arithmetic { op, left, right, of: Type::Int, at }
        }
        _ => {
            let (Some(a), Some(b)) = (of.places(), other.places()) else { return clash(at, joined()) };
            if op == Op::Mul {
                if a + b > MAX_PLACES {
                    let message = format!("the product has more than {MAX_PLACES} decimal places: round a factor");
                    return clash(at, message);
                }
                let (left, right) = two(left, right);
                return Ok(Code::Arithmetic { op, left, right, of: Type::number(a + b), at });
            }
            let places = a.max(b);
            let (left, right) = two(rescaled(left, places, at), rescaled(right, places, at));
            match op {
                Op::Over => Code::Quotient { left, right, places, exact: true, at },
                Op::Div => Code::Arithmetic { op, left, right, of: Type::Int, at },
                Op::Add | Op::Sub | Op::Rem => Code::Arithmetic { op, left, right, of: Type::number(places), at },
                _ => return clash(at, joined()),
            }
        }
    })
}

/// Two values as one type, if they can be: numbers take the more places of the two.
pub(super) fn alike(left: Code, right: Code, at: usize) -> Option<(Code, Code)> {
    if left.of() == right.of() {
        return Some((left, right));
    }
    let places = left.of().places()?.max(right.of().places()?);
    Some((rescaled(left, places, at), rescaled(right, places, at)))
}

/// A number with `places`, which are no fewer than it has.
pub(super) fn rescaled(code: Code, places: u8, at: usize) -> Code {
    match code.of().places() {
        Some(has) if has < places => {
            Code::Rescale { inner: Box::new(code), by: places - has, to: Type::number(places), at }
        }
        _ => code,
    }
}

impl Code {
    pub fn of(&self) -> Type {
        match self {
            Code::Const(_, of) | Code::Slot(_, of) | Code::Rescale { to: of, .. } => *of,
            Code::Arithmetic { of, .. } | Code::Call { of, .. } => *of,
            Code::Quotient { places, .. } => Type::number(*places),
            Code::Text(_) | Code::Concat(..) | Code::Held => Type::Text,
            Code::Compare { .. } | Code::Logic { .. } | Code::Not(_) => Type::Truth,
            Code::If { then, .. } => then.of(),
        }
    }

    /// Calls `found` on every slot, in the order of the text.
    pub fn slots(&self, found: &mut impl FnMut(usize)) {
        match self {
            Code::Const(..) | Code::Text(_) | Code::Held => {}
            Code::Slot(slot, _) => found(*slot as usize),
            Code::Rescale { inner, .. } | Code::Not(inner) => inner.slots(found),
            Code::Arithmetic { left, right, .. }
            | Code::Quotient { left, right, .. }
            | Code::Concat(left, right)
            | Code::Compare { left, right, .. }
            | Code::Logic { left, right, .. } => {
                left.slots(found);
                right.slots(found);
            }
            Code::If { then, condition, other } => {
                then.slots(found);
                condition.slots(found);
                other.slots(found);
            }
            Code::Call { args, .. } => args.iter().for_each(|arg| arg.slots(found)),
        }
    }

    /// The most bytes that the value can show as, where a string slot takes at most `longest(slot)`, and the text that
    /// a filter follows `held`.
    pub fn longest(&self, longest: &impl Fn(u32) -> u64, held: u64) -> u64 {
        match self {
            Code::Text(text) => text.len() as u64,
            Code::Held => held,
            Code::Slot(slot, Type::Text) => longest(*slot),
            Code::Concat(left, right) => left.longest(longest, held).saturating_add(right.longest(longest, held)),
            Code::If { then, other, .. } => then.longest(longest, held).max(other.longest(longest, held)),
            Code::Call { function, args, of: Type::Text, .. } => {
                let sizes: Vec<u64> = args.iter().map(|arg| arg.longest(longest, held)).collect();
                function.longest(args, &sizes)
            }
            _ => self.of().longest(),
        }
    }

    /// The value of an expression that is not a string.
    pub fn number(&self, env: Env<'_>) -> Result<i64, Fault> {
        match self {
            Code::Const(value, _) => Ok(*value),
            Code::Slot(slot, _) => Ok(env.slots[*slot as usize]),
            Code::Arithmetic { op, left, right, of, at } => {
                arithmetic(*op, left.number(env)?, right.number(env)?, *of, *at)
            }
            Code::Quotient { left, right, places, exact, at } => {
                quotient(left.number(env)?, right.number(env)?, *places, *exact, *at)
            }
            Code::Rescale { inner, by, at, .. } => {
                let value = inner.number(env)?.checked_mul(10i64.pow(u32::from(*by)));
                value.ok_or_else(|| overflow(*at))
            }
            Code::Compare { op, of, left, right } => {
                let order = match of {
                    Type::Text => left.text(env)?.cmp(&right.text(env)?),
                    _ => left.number(env)?.cmp(&right.number(env)?),
                };
                Ok(i64::from(op.holds(order)))
            }
            Code::Logic { op, left, right } => {
                let left = left.number(env)?;
                if (left == 1) == (*op == Op::Or) { Ok(left) } else { right.number(env) }
            }
            Code::Not(inner) => Ok(1 - inner.number(env)?),
            Code::If { then, condition, other } => {
                if condition.number(env)? == 1 {
                    then.number(env)
                } else {
                    other.number(env)
                }
            }
            Code::Call { function, args, at, .. } => function.number(args, env, *at),
            Code::Text(_) | Code::Concat(..) | Code::Held => unreachable!("checked: not a number"),
        }
    }

    /// The value of a string expression.
    pub fn text<'a>(&'a self, env: Env<'a>) -> Result<Cow<'a, str>, Fault> {
        match self {
            Code::Text(text) => Ok(Cow::Borrowed(text)),
            Code::Held => Ok(Cow::Borrowed(env.held)),
            Code::Slot(slot, _) => Ok(Cow::Borrowed(env.string(env.slots[*slot as usize]))),
            Code::Concat(left, right) => Ok(left.text(env)? + right.text(env)?),
            Code::If { then, condition, other } => {
                if condition.number(env)? == 1 {
                    then.text(env)
                } else {
                    other.text(env)
                }
            }
            Code::Call { function, args, at, .. } => function.text(args, env, *at),
            _ => unreachable!("checked: not a string"),
        }
    }

    /// Whether tags within the text that a filter changes keep their places.
    pub fn moves_tags(&self) -> bool {
        match self {
            Code::Call { function, args, .. } => function.moves().is_some() && args[0].moves_tags(),
            Code::Held => true,
            _ => false,
        }
    }

    /// Where byte `at` of the text held stands in the result.
    pub fn moved(&self, env: Env<'_>, at: usize) -> Result<usize, Fault> {
        let Code::Call { function, args, of, at: place } = self else { return Ok(at) };
        let (inner, at) = (args[0].text(env)?, args[0].moved(env, at)?);
        let mut call = args.clone();
        call[0] = Code::Held;
        let call = Code::Call { function: *function, args: call, of: *of, at: *place };
        let length = |held: &str| call.text(Env { held, ..env }).map(|text| text.len());
        match function.moves() {
            Some(Moves::Start) => Ok(at + length(&inner)? - inner.len()),
            _ => length(&inner[..at]),
        }
    }

    /// Appends the value as it shows.
    pub fn show(&self, env: Env<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
        match self.of() {
            Type::Text => out.extend_from_slice(self.text(env)?.as_bytes()),
            of => show(self.number(env)?, of, out),
        }
        Ok(())
    }
}

fn overflow(at: usize) -> Fault {
    Fault { at, what: "the result leaves the 64-bit integers".into() }
}

fn arithmetic(op: Op, left: i64, right: i64, of: Type, at: usize) -> Result<i64, Fault> {
    if right == 0 && matches!(op, Op::Div | Op::Rem) {
        return Err(Fault { at, what: "division by zero".into() });
    }
    let value = match op {
        Op::Add => left.checked_add(right),
        Op::Sub => left.checked_sub(right),
        Op::Mul => left.checked_mul(right),
        Op::Div => left.checked_div(right).map(|q| q - i64::from(left % right != 0 && (left < 0) != (right < 0))),
        _ => {
            let rest = left.wrapping_rem(right);
            Some(if rest != 0 && (rest < 0) != (right < 0) { rest + right } else { rest })
        }
    };
    let value = value.ok_or_else(|| overflow(at))?;
    if of == Type::Date && !functions::DAYS.contains(&value) {
        return Err(Fault { at, what: "the date leaves the years 1 to 9999".into() });
    }
    Ok(value)
}

fn quotient(left: i64, right: i64, places: u8, exact: bool, at: usize) -> Result<i64, Fault> {
    if right == 0 {
        return Err(Fault { at, what: "division by zero".into() });
    }
    let (left, right) = (i128::from(left) * 10i128.pow(u32::from(places)), i128::from(right));
    let (mut value, rest) = (left / right, left % right);
    if exact && rest != 0 {
        let what = match places {
            0 => "the quotient is no integer".to_owned(),
            1 => "the quotient needs more than 1 decimal place".to_owned(),
            _ => format!("the quotient needs more than {places} decimal places"),
        };
        let what = format!("{what}: round it as in round(x / y, 2), or divide with //,");
        return Err(Fault { at, what: what.into() });
    }
    if rest.abs() * 2 >= right.abs() {
        value += if (left < 0) == (right < 0) { 1 } else { -1 };
    }
    i64::try_from(value).map_err(|_| overflow(at))
}

/// Appends a value that is no string, as it shows.
pub(super) fn show(value: i64, of: Type, out: &mut Vec<u8>) {
    match of {
        Type::Truth => out.extend_from_slice(if value == 1 { b"true" } else { b"false" }),
        Type::Date => {
            let (year, month, day) = functions::civil(value);
            push_padded(out, year as u64, 4);
            out.push(b'-');
            push_padded(out, month as u64, 2);
            out.push(b'-');
            push_padded(out, day as u64, 2);
        }
        Type::Decimal(places) => {
            let unit = 10u64.pow(u32::from(places));
            let size = value.unsigned_abs();
            if value < 0 {
                out.push(b'-');
            }
            push_padded(out, size / unit, 1);
            out.push(b'.');
            push_padded(out, size % unit, usize::from(places));
        }
        Type::Int | Type::Text => push_int(out, value),
    }
}

/// `value` in decimal, with zeros before it up to `width` digits.
fn push_padded(out: &mut Vec<u8>, value: u64, width: usize) {
    let mut digits = [b'0'; 20];
    let (mut at, mut rest) = (digits.len(), value);
    while rest > 0 {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(&digits[at.min(digits.len() - width)..]);
}
