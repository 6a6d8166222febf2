//! From text to [`Expression`], by recursive descent:
//!
//! ```text
//! or    = and ("||" and)*            and = not ("&&" not)*            not = "!"* primary
//! primary = "(" or ")" | "all()" | "global()" | "has(" key ")" | key test
//! test  = ("==" | "!=" | "contains" | "starts with" | "ends with") quoted | ("in" | "not in") "{" quoted,* "}"
//! ```

use std::collections::BTreeSet;

use super::{Expression, Selector, SelectorError, Test};

pub(super) fn selector(text: &str) -> Result<Expression, SelectorError> {
    let mut cursor = Cursor { text, at: 0 };
    if text.len() > Selector::MAX_LENGTH {
        let problem = format!("it is {} bytes long, more than {}", text.len(), Selector::MAX_LENGTH);
        return Err(SelectorError { problem, position: 1 });
    }
    cursor.skip_space();
    if cursor.rest().is_empty() {
        return Ok(Expression::All);
    }
    let expression = cursor.or(0)?;
    match cursor.rest() {
        "" => Ok(expression),
        _ => Err(cursor.expected("'&&', '||' or the end")),
    }
}

/// A place in the text; it never rests on white space.
struct Cursor<'a> {
    text: &'a str,
    /// In bytes.
    at: usize,
}

impl Cursor<'_> {
    fn or(&mut self, depth: usize) -> Result<Expression, SelectorError> {
        let mut parts = vec![self.and(depth)?];
        while self.eat("||") {
            parts.push(self.and(depth)?);
        }
        Ok(one_or(parts, Expression::Or))
    }

    fn and(&mut self, depth: usize) -> Result<Expression, SelectorError> {
        let mut parts = vec![self.not(depth)?];
        while self.eat("&&") {
            parts.push(self.not(depth)?);
        }
        Ok(one_or(parts, Expression::And))
    }

    fn not(&mut self, depth: usize) -> Result<Expression, SelectorError> {
        let mut negated = false;
        while self.eat("!") {
            negated = !negated;
        }
        let expression = self.primary(depth)?;
        Ok(if negated { expression.negated() } else { expression })
    }

    fn primary(&mut self, depth: usize) -> Result<Expression, SelectorError> {
        if depth == Selector::MAX_DEPTH && self.rest().starts_with('(') {
            return Err(self.problem(format!("parentheses are nested deeper than {}", Selector::MAX_DEPTH)));
        }
        if self.eat("(") {
            let inner = self.or(depth + 1)?;
            return self.expect(")", "'&&', '||' or ')'").map(|()| inner);
        }
        let key = self.key("a label, 'has(', 'all()', 'global()', '!' or '('")?;
        match key.as_str() {
            "has" if self.eat("(") => {
                let key = self.key("a label")?;
                self.expect(")", "')'").map(|()| Expression::Label(key, Test::Exists))
            }
            "all" if self.eat("(") => self.expect(")", "')'").map(|()| Expression::All),
            "global" if self.eat("(") => self.expect(")", "')'").map(|()| Expression::Global),
            _ => Ok(Expression::Label(key, self.test()?)),
        }
    }

    fn test(&mut self) -> Result<Test, SelectorError> {
        if self.eat("==") {
            self.quoted().map(Test::Equals)
        } else if self.eat("!=") {
            self.quoted().map(Test::Differs)
        } else if self.eat("in") {
            self.set().map(Test::In)
        } else if self.eat_both("not", "in") {
            self.set().map(Test::NotIn)
        } else if self.eat("contains") {
            self.quoted().map(Test::Contains)
        } else if self.eat_both("starts", "with") {
            self.quoted().map(Test::StartsWith)
        } else if self.eat_both("ends", "with") {
            self.quoted().map(Test::EndsWith)
        } else {
            Err(self.expected("'==', '!=', 'in', 'not in', 'contains', 'starts with' or 'ends with'"))
        }
    }

    /// Calico allows the empty set, and a comma after the last value.
    fn set(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        self.expect("{", "'{'")?;
        let mut values = BTreeSet::new();
        while !self.eat("}") {
            values.insert(self.quoted()?);
            if !self.eat(",") {
                return self.expect("}", "',' or '}'").map(|()| values);
            }
        }
        Ok(values)
    }

    fn key(&mut self, expected: &str) -> Result<String, SelectorError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-');
        let length = self.rest().find(|c| !allowed(c)).unwrap_or(self.rest().len());
        if length == 0 {
            return Err(self.expected(expected));
        }
        Ok(self.take(length))
    }

    fn quoted(&mut self) -> Result<String, SelectorError> {
        let Some(quote) = self.rest().chars().next().filter(|c| matches!(c, '"' | '\'')) else {
            return Err(self.expected("a value in quotes"));
        };
        let Some(length) = self.rest()[1..].find(quote) else {
            return Err(self.problem(format!("the value has no closing {quote}")));
        };
        self.at += 1;
        let value = self.rest()[..length].to_owned();
        self.take(length + 1);
        Ok(value)
    }

    fn expect(&mut self, token: &str, expected: &str) -> Result<(), SelectorError> {
        match self.eat(token) {
            true => Ok(()),
            false => Err(self.expected(expected)),
        }
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.take(token.len());
        }
        found
    }

    /// Two words, with or without space between them.
    fn eat_both(&mut self, first: &str, second: &str) -> bool {
        let before = self.at;
        let found = self.eat(first) && self.eat(second);
        if !found {
            self.at = before;
        }
        found
    }

    fn take(&mut self, length: usize) -> String {
        let taken = self.rest()[..length].to_owned();
        self.at += length;
        self.skip_space();
        taken
    }

    fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn expected(&self, what: &str) -> SelectorError {
        let found = match self.rest() {
            "" => "the end".to_owned(),
            rest => format!("{:?}", rest.chars().take(12).collect::<String>()),
        };
        self.problem(format!("expected {what}, found {found}"))
    }

    fn problem(&self, problem: String) -> SelectorError {
        SelectorError { problem, position: self.text[..self.at].chars().count() + 1 }
    }
}

fn one_or(mut parts: Vec<Expression>, several: fn(Vec<Expression>) -> Expression) -> Expression {
    match parts.len() {
        1 => parts.remove(0),
        _ => several(parts),
    }
}
