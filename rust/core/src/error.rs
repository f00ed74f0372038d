//! The one error type of the core.

use std::fmt;

/// What every fallible function of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Something that the caller can mend: a bad argument, a bad file, a bad grammar.
///
/// The message names the argument, the row and the value, and says what to do next.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    InvalidInput,
    Syntax { line: usize, column: usize },
}

impl Error {
    /// An argument or a value in the data is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Error { kind: Kind::InvalidInput, message: message.into() }
    }

    /// A text in a language of ours (a grammar) does not parse; line and column count from 1, in characters.
    pub fn syntax(line: usize, column: usize, message: impl Into<String>) -> Self {
        Error { kind: Kind::Syntax { line, column }, message: message.into() }
    }

    /// Line and column of a syntax error, both from 1.
    pub fn position(&self) -> Option<(usize, usize)> {
        match self.kind {
            Kind::Syntax { line, column } => Some((line, column)),
            Kind::InvalidInput => None,
        }
    }

    /// The message without the position.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::InvalidInput => f.write_str(&self.message),
            Kind::Syntax { line, column } => write!(f, "line {line}, column {column}: {}", self.message),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syntax_error_shows_and_returns_its_position() {
        let error = Error::syntax(3, 14, "undefined rule 'pet'");
        assert_eq!(error.to_string(), "line 3, column 14: undefined rule 'pet'");
        assert_eq!(error.position(), Some((3, 14)));
        assert_eq!(Error::invalid("x").position(), None);
    }
}
