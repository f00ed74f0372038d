//! The expressions of computed slots: parsed syntax, static types, evaluation over checked 64-bit integers.
//!
//! No value is ever coerced, so an expression means one thing; what can fail at run time (overflow, division by
//! zero) carries the position of its operator.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

/// An expression as written; `at` is a byte offset in the grammar's source.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expr {
    Int(i64),
    Text(String),
    Name { name: String, at: usize },
    Negate { inner: Box<Expr>, at: usize },
    Binary { op: Op, left: Box<Expr>, right: Box<Expr>, at: usize },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Add,
    Sub,
    Mul,
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
    pub const ALL: [Op; 11] =
        [Op::Div, Op::Eq, Op::Ne, Op::Le, Op::Ge, Op::Add, Op::Sub, Op::Mul, Op::Rem, Op::Lt, Op::Gt];

    pub fn sign(self) -> &'static str {
        match self {
            Op::Add => "+",
            Op::Sub => "-",
            Op::Mul => "*",
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

    /// Comparisons bind loosest and do not chain; products bind tightest.
    pub fn strength(self) -> u8 {
        match self {
            Op::Eq | Op::Ne | Op::Lt | Op::Le | Op::Gt | Op::Ge => 1,
            Op::Add | Op::Sub => 2,
            Op::Mul | Op::Div | Op::Rem => 3,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// A 64-bit integer.
    Int,
    /// A string.
    Text,
    /// The outcome of a comparison; prints as `true` or `false`.
    Truth,
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Type::Int => "an integer",
            Type::Text => "a string",
            Type::Truth => "a truth value",
        })
    }
}

/// A checked expression: names are slots, every operator knows the type of its operands.
#[derive(Debug, Clone)]
pub(super) enum Code {
    Int(i64),
    Text(String),
    Slot(u32, Type),
    Arithmetic { op: Op, left: Box<Code>, right: Box<Code>, at: usize },
    Concat(Box<Code>, Box<Code>),
    Compare { op: Op, of: Type, left: Box<Code>, right: Box<Code> },
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
    pub what: &'static str,
}

impl Expr {
    /// Resolves names by `slot` and checks types.
    pub fn check(&self, slot: &impl Fn(&str, usize) -> Result<(u32, Type), Clash>) -> Result<Code, Clash> {
        Ok(match self {
            Expr::Int(value) => Code::Int(*value),
            Expr::Text(text) => Code::Text(text.clone()),
            Expr::Name { name, at } => {
                let (slot, of) = slot(name, *at)?;
                Code::Slot(slot, of)
            }
            Expr::Negate { inner, at } => {
                let inner = inner.check(slot)?;
                if inner.of() != Type::Int {
                    return Err(Clash {
                        at: *at,
                        message: format!("type clash: '-' needs an integer, not {}", inner.of()),
                    });
                }
                Code::Arithmetic { op: Op::Sub, left: Box::new(Code::Int(0)), right: Box::new(inner), at: *at }
            }
            Expr::Binary { op, left, right, at } => {
                let (left, right) = (Box::new(left.check(slot)?), Box::new(right.check(slot)?));
                match (op, left.of(), right.of()) {
                    (Op::Add, Type::Text, Type::Text) => Code::Concat(left, right),
                    (Op::Eq | Op::Ne, of, other) if of == other => Code::Compare { op: *op, of, left, right },
                    (Op::Lt | Op::Le | Op::Gt | Op::Ge, of, other) if of == other && of != Type::Truth => {
                        Code::Compare { op: *op, of, left, right }
                    }
                    (Op::Add | Op::Sub | Op::Mul | Op::Div | Op::Rem, Type::Int, Type::Int) => {
                        Code::Arithmetic { op: *op, left, right, at: *at }
                    }
                    (_, of, other) => {
                        let message = format!("type clash: '{}' cannot join {of} and {other}", op.sign());
                        return Err(Clash { at: *at, message });
                    }
                }
            }
        })
    }

    /// Calls `found` on every name.
    pub fn names<'a>(&'a self, found: &mut impl FnMut(&'a str, usize)) {
        match self {
            Expr::Int(_) | Expr::Text(_) => {}
            Expr::Name { name, at } => found(name, *at),
            Expr::Negate { inner, .. } => inner.names(found),
            Expr::Binary { left, right, .. } => {
                left.names(found);
                right.names(found);
            }
        }
    }
}

impl Code {
    pub fn of(&self) -> Type {
        match self {
            Code::Int(_) | Code::Arithmetic { .. } => Type::Int,
            Code::Text(_) | Code::Concat(..) => Type::Text,
            Code::Slot(_, of) => *of,
            Code::Compare { .. } => Type::Truth,
        }
    }

    /// Calls `found` on every slot, in the order of the text.
    pub fn slots(&self, found: &mut impl FnMut(usize)) {
        match self {
            Code::Int(_) | Code::Text(_) => {}
            Code::Slot(slot, _) => found(*slot as usize),
            Code::Arithmetic { left, right, .. } | Code::Concat(left, right) | Code::Compare { left, right, .. } => {
                left.slots(found);
                right.slots(found);
            }
        }
    }

    /// The most bytes that the value can take, where a string slot takes at most `longest(slot)`.
    pub fn longest(&self, longest: &impl Fn(u32) -> u64) -> u64 {
        match self {
            Code::Int(_) | Code::Arithmetic { .. } | Code::Slot(_, Type::Int) => 20,
            Code::Compare { .. } => 5,
            Code::Text(text) => text.len() as u64,
            Code::Slot(slot, _) => longest(*slot),
            Code::Concat(left, right) => left.longest(longest).saturating_add(right.longest(longest)),
        }
    }

    /// The number of an integer expression. `slots` holds integers, and indices into `strings`.
    pub fn int(&self, slots: &[i64], strings: &[String]) -> Result<i64, Fault> {
        match self {
            Code::Int(value) => Ok(*value),
            Code::Slot(slot, _) => Ok(slots[*slot as usize]),
            Code::Arithmetic { op, left, right, at } => {
                let (left, right) = (left.int(slots, strings)?, right.int(slots, strings)?);
                if right == 0 && matches!(op, Op::Div | Op::Rem) {
                    return Err(Fault { at: *at, what: "division by zero" });
                }
                let value = match op {
                    Op::Add => left.checked_add(right),
                    Op::Sub => left.checked_sub(right),
                    Op::Mul => left.checked_mul(right),
                    Op::Div => {
                        left.checked_div(right).map(|q| q - i64::from(left % right != 0 && (left < 0) != (right < 0)))
                    }
                    _ => {
                        let rest = left.wrapping_rem(right);
                        Some(if rest != 0 && (rest < 0) != (right < 0) { rest + right } else { rest })
                    }
                };
                value.ok_or(Fault { at: *at, what: "the result leaves the 64-bit integers" })
            }
            Code::Compare { .. } => self.truth(slots, strings).map(i64::from),
            Code::Text(_) | Code::Concat(..) => unreachable!("checked: not an integer"),
        }
    }

    /// The outcome of a comparison.
    pub fn truth(&self, slots: &[i64], strings: &[String]) -> Result<bool, Fault> {
        let Code::Compare { op, of, left, right } = self else { unreachable!("checked: not a comparison") };
        let order = match of {
            Type::Int | Type::Truth => left.int(slots, strings)?.cmp(&right.int(slots, strings)?),
            Type::Text => left.text(slots, strings)?.cmp(&right.text(slots, strings)?),
        };
        Ok(op.holds(order))
    }

    /// The value of a string expression.
    pub fn text<'a>(&'a self, slots: &[i64], strings: &'a [String]) -> Result<Cow<'a, str>, Fault> {
        match self {
            Code::Text(text) => Ok(Cow::Borrowed(text)),
            Code::Slot(slot, _) => Ok(Cow::Borrowed(&strings[slots[*slot as usize] as usize])),
            Code::Concat(left, right) => Ok(left.text(slots, strings)? + right.text(slots, strings)?),
            _ => unreachable!("checked: not a string"),
        }
    }
}
