//! What can be wrong with a rule file: each fault with its place and the requirement that it breaks.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

/// One fault of a rule file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleFault {
    /// The file as it was named: a path or `builtin:NAME`.
    pub file: Arc<str>,
    /// Counted from 1.
    pub line: Option<usize>,
    pub rule: Option<String>,
    pub problem: Problem,
}

impl fmt::Display for RuleFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(rule) = &self.rule {
            write!(f, ": rule `{rule}`")?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl std::error::Error for RuleFault {}

/// The requirement that is broken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Problem {
    #[error("cannot be read: {0}")]
    Unreadable(String),
    #[error("no such builtin file; there are {0}")]
    UnknownBuiltin(String),
    #[error("not valid TOML: {0}")]
    Syntax(String),
    #[error("unknown key `{key}`; known are {known}")]
    UnknownKey { key: String, known: String },
    #[error("`{key}` must be {expected}")]
    WrongType { key: String, expected: &'static str },
    #[error("`{0}` is missing")]
    Missing(&'static str),
    #[error("`{key}` is empty")]
    Empty { key: String },
    #[error("`{key}` is longer than {limit} bytes")]
    TooLong { key: String, limit: usize },
    #[error("`{key}` has more than {limit} entries")]
    TooMany { key: String, limit: usize },
    #[error("an id may hold letters, digits, `.`, `_` and `-` only")]
    BadId,
    #[error("a tag may hold no spaces and no control characters: `{0}`")]
    BadTag(String),
    #[error("the same id is used at {0}")]
    DuplicateId(String),
    #[error("literal `{0}` is shorter than {limit} bytes", limit = super::rule::MIN_LITERAL_BYTES)]
    LiteralTooShort(String),
    #[error("`{literal}` is listed twice in `{key}`")]
    Repeated { key: String, literal: String },
    #[error("regex is invalid: {0}")]
    InvalidRegex(String),
    #[error("regex is too big: it needs more than {0} bytes when compiled")]
    RegexTooBig(usize),
    #[error("regex matches the empty text, and so every record")]
    RegexMatchesAll,
    #[error("regex can never match")]
    RegexNeverMatches,
    #[error("it has no condition (source, any, all, none, regex), and so matches every record")]
    NoCondition,
    #[error("it can never match: `{needed}` must occur, but holds `{forbidden}`, which must not")]
    Contradiction { needed: String, forbidden: String },
    #[error("it has no outcome (queue, category, priority, tags, drop, escalate)")]
    NoOutcome,
    #[error("`{first}` and `{second}` exclude each other")]
    Conflict { first: &'static str, second: &'static str },
    #[error("there are more than {0} rules")]
    TooManyRules(usize),
    #[error("its `match` example does not match: {0}")]
    MatchExampleFails(String),
    #[error("its `no_match` example matches: {0}")]
    NoMatchExampleFires(String),
    #[error("none of its literals is long enough to look for, so it is tried on every record")]
    AlwaysTried,
    #[error("regex repeats something within a great bound, which is slow on long texts; `*` or `+` would be fast")]
    SlowRegex,
    #[error("it has no `match` example")]
    NoMatchExample,
    #[error("it has no `no_match` example")]
    NoNoMatchExample,
    #[error("its `match` example is decided by rule `{0}`, which stands before it")]
    Shadowed(String),
}
