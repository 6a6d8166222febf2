//! Calico's selectors: which labelled things are meant, as in `zone == "a" && !has(gpu)`.
//!
//! The grammar is Calico's (`libcalico-go/lib/selector`), with its quirks: an empty selector is `all()`; quoted values
//! know no escapes; `!=` and `not in` hold for a label that is absent; `!` binds to the one test or parenthesis that
//! follows it. What is told apart here and not there is where an error lies.

mod parse;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A selector that has been understood. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Selector(Arc<Expression>);

/// Why a text is no selector, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no selector: {problem}, at character {position}")]
pub struct SelectorError {
    /// What was expected and what was found.
    pub problem: String,
    /// Where, counted in characters from 1.
    pub position: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Expression {
    All,
    Global,
    Label(String, Test),
    Not(Box<Expression>),
    And(Vec<Expression>),
    Or(Vec<Expression>),
}

/// What is asked of the value of one label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Test {
    Exists,
    Equals(String),
    Differs(String),
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Contains(String),
    StartsWith(String),
    EndsWith(String),
}

impl Selector {
    /// The longest selector that is read, in bytes.
    pub const MAX_LENGTH: usize = 16 * 1024;

    /// How deep parentheses may be nested.
    pub const MAX_DEPTH: usize = 32;

    /// `all()`: everything matches.
    pub fn all() -> Self {
        Self(Arc::new(Expression::All))
    }

    /// Whether it is `all()`, or empty, which means the same.
    pub fn is_all(&self) -> bool {
        *self.0 == Expression::All
    }

    /// Whether `global()` occurs in it, which has a meaning only in some of Calico's fields.
    pub fn uses_global(&self) -> bool {
        self.0.uses_global()
    }

    /// Whether something with these labels is meant.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.matches(labels)
    }
}

impl Default for Selector {
    fn default() -> Self {
        Self::all()
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        parse::selector(text).map(|expression| Self(Arc::new(expression)))
    }
}

impl TryFrom<String> for Selector {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map_err(|error| format!("{text:?} {error}"))
    }
}

impl From<Selector> for String {
    fn from(selector: Selector) -> Self {
        selector.to_string()
    }
}

impl Expression {
    /// Two negations are none, so that what is displayed reads back as the same.
    fn negated(self) -> Self {
        match self {
            Self::Not(inner) => *inner,
            other => Self::Not(Box::new(other)),
        }
    }

    fn uses_global(&self) -> bool {
        match self {
            Self::Global => true,
            Self::All | Self::Label(..) => false,
            Self::Not(inner) => inner.uses_global(),
            Self::And(parts) | Self::Or(parts) => parts.iter().any(Self::uses_global),
        }
    }

    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Self::All | Self::Global => true,
            Self::Label(key, test) => test.holds(labels.get(key).map(String::as_str)),
            Self::Not(inner) => !inner.matches(labels),
            Self::And(parts) => parts.iter().all(|part| part.matches(labels)),
            Self::Or(parts) => parts.iter().any(|part| part.matches(labels)),
        }
    }
}

impl Test {
    fn holds(&self, value: Option<&str>) -> bool {
        let has = |test: &dyn Fn(&str) -> bool| value.is_some_and(test);
        match self {
            Self::Exists => value.is_some(),
            Self::Equals(wanted) => value == Some(wanted),
            Self::Differs(unwanted) => value != Some(unwanted),
            Self::In(wanted) => has(&|value| wanted.contains(value)),
            Self::NotIn(unwanted) => !has(&|value| unwanted.contains(value)),
            Self::Contains(part) => has(&|value| value.contains(part.as_str())),
            Self::StartsWith(start) => has(&|value| value.starts_with(start.as_str())),
            Self::EndsWith(end) => has(&|value| value.ends_with(end.as_str())),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all()"),
            Self::Global => f.write_str("global()"),
            Self::Label(key, Test::Exists) => write!(f, "has({key})"),
            Self::Label(key, test) => write!(f, "{key} {test}"),
            Self::Not(inner) => {
                write!(f, "!{}", Enclosed(inner, matches!(**inner, Self::And(_) | Self::Or(_))))
            }
            // `&&` binds stronger than `||`: parentheses only where the text that was read must have had them.
            Self::And(parts) => joined(f, parts, " && ", |part| matches!(part, Self::And(_) | Self::Or(_))),
            Self::Or(parts) => joined(f, parts, " || ", |part| matches!(part, Self::Or(_))),
        }
    }
}

/// An expression, in parentheses or not.
struct Enclosed<'a>(&'a Expression, bool);

impl fmt::Display for Enclosed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self(expression, true) => write!(f, "({expression})"),
            Self(expression, false) => expression.fmt(f),
        }
    }
}

fn joined(
    f: &mut fmt::Formatter<'_>,
    parts: &[Expression],
    operator: &str,
    enclose: impl Fn(&Expression) -> bool,
) -> fmt::Result {
    for (index, part) in parts.iter().enumerate() {
        f.write_str(if index == 0 { "" } else { operator })?;
        write!(f, "{}", Enclosed(part, enclose(part)))?;
    }
    Ok(())
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists => f.write_str("exists"),
            Self::Equals(value) => write!(f, "== {}", Quoted(value)),
            Self::Differs(value) => write!(f, "!= {}", Quoted(value)),
            Self::In(values) => write!(f, "in {}", Set(values)),
            Self::NotIn(values) => write!(f, "not in {}", Set(values)),
            Self::Contains(part) => write!(f, "contains {}", Quoted(part)),
            Self::StartsWith(start) => write!(f, "starts with {}", Quoted(start)),
            Self::EndsWith(end) => write!(f, "ends with {}", Quoted(end)),
        }
    }
}

/// A value in the quotes that do not occur in it: there are no escapes, so one of the two kinds does not.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote = if self.0.contains('"') { '\'' } else { '"' };
        write!(f, "{quote}{}{quote}", self.0)
    }
}

struct Set<'a>(&'a BTreeSet<String>);

impl fmt::Display for Set<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values: Vec<String> = self.0.iter().map(|value| Quoted(value).to_string()).collect();
        write!(f, "{{{}}}", values.join(", "))
    }
}
