//! The query form of label selectors.

use super::{Operator, Requirement, SelectorError};
use crate::{field::go_quote, names};

const OPERATORS: &str = "in, notin, =, ==, !=, gt, lt";

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Equals,
    DoubleEquals,
    NotEquals,
    Greater,
    Less,
    Not,
    Open,
    Close,
    Comma,
    End,
}

const SYMBOLS: [(&str, Token<'static>); 9] = [
    ("==", Token::DoubleEquals),
    ("!=", Token::NotEquals),
    ("=", Token::Equals),
    ("!", Token::Not),
    ("<", Token::Less),
    (">", Token::Greater),
    ("(", Token::Open),
    (")", Token::Close),
    (",", Token::Comma),
];

impl Token<'_> {
    fn text(&self) -> &str {
        match self {
            Self::Word(word) => word,
            Self::End => "",
            symbol => SYMBOLS.iter().find(|(_, token)| token == symbol).map_or("", |(text, _)| text),
        }
    }
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// Parses all requirements, in their order.
pub(super) fn requirements(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    let mut parser = Parser { rest: text };
    let mut requirements = Vec::new();
    loop {
        match parser.peek() {
            Token::Word(_) | Token::Not => {}
            Token::End => return Ok(requirements),
            other => return Err(SelectorError::new(found(&other, "!, identifier, or 'end of string'"))),
        }
        requirements.push(parser.requirement().map_err(SelectorError::in_requirement)?);
        match parser.next() {
            Token::End => return Ok(requirements),
            Token::Comma => {
                let next = parser.peek();
                if !matches!(next, Token::Word(_) | Token::Not) {
                    return Err(SelectorError::new(found(&next, "identifier after ','")));
                }
            }
            other => return Err(SelectorError::new(found(&other, "',' or 'end of string'"))),
        }
    }
}

fn found(token: &Token<'_>, expected: &str) -> String {
    format!("found '{}', expected: {expected}", token.text())
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn scan(&self) -> (Token<'a>, &'a str) {
        let rest = self.rest.trim_start_matches(is_blank);
        if rest.is_empty() {
            return (Token::End, rest);
        }
        if let Some((text, token)) = SYMBOLS.iter().find(|(text, _)| rest.starts_with(text)) {
            return (token.clone(), &rest[text.len()..]);
        }
        let end = rest.find(|c| is_blank(c) || "=!<>(),".contains(c)).unwrap_or(rest.len());
        let (word, rest) = rest.split_at(end);
        (Token::Word(word), rest)
    }

    fn peek(&self) -> Token<'a> {
        self.scan().0
    }

    fn next(&mut self) -> Token<'a> {
        let (token, rest) = self.scan();
        self.rest = rest;
        token
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let is_negated = self.peek() == Token::Not;
        if is_negated {
            self.next();
        }
        let key = match self.next() {
            Token::Word(key) => key,
            other => return Err(found(&other, "identifier")),
        };
        check("key", key, names::qualified_name(key))?;
        let requirement = |operator| Ok(Requirement { key: key.to_owned(), operator });
        if is_negated {
            return requirement(Operator::DoesNotExist);
        }
        if matches!(self.peek(), Token::End | Token::Comma) {
            return requirement(Operator::Exists);
        }
        requirement(match self.next() {
            Token::Equals | Token::DoubleEquals => Operator::Equals(self.value(key)?),
            Token::NotEquals => Operator::NotEquals(self.value(key)?),
            Token::Greater => Operator::GreaterThan(self.number()?),
            Token::Less => Operator::LessThan(self.number()?),
            Token::Word("in") => Operator::In(self.values(key)?),
            Token::Word("notin") => Operator::NotIn(self.values(key)?),
            other => return Err(found(&other, OPERATORS)),
        })
    }

    /// One value, which may be empty.
    fn exact(&mut self) -> Result<&'a str, String> {
        if matches!(self.peek(), Token::End | Token::Comma) {
            return Ok("");
        }
        match self.next() {
            Token::Word(word) => Ok(word),
            other => Err(found(&other, "identifier")),
        }
    }

    fn value(&mut self, key: &str) -> Result<String, String> {
        let value = self.exact()?;
        check(&format!("values[0][{key}]"), value, names::label_value(value))?;
        Ok(value.to_owned())
    }

    fn number(&mut self) -> Result<i64, String> {
        let text = self.exact()?;
        text.parse().map_err(|_| {
            let quoted = go_quote(text);
            format!("values[0]: Invalid value: {quoted}: for 'Gt', 'Lt' operators, the value must be an integer")
        })
    }

    /// `(a,b)`: sorted, each once.
    fn values(&mut self, key: &str) -> Result<Vec<String>, String> {
        match self.next() {
            Token::Open => {}
            other => return Err(format!("found '{}' expected: '('", other.text())),
        }
        let mut values: Vec<&str> = match self.peek() {
            Token::Word(_) | Token::Comma => self.listed()?,
            Token::Close => vec![""],
            other => return Err(found(&other, "',', ')' or identifier")),
        };
        match self.next() {
            Token::Close => {}
            other => return Err(found(&other, "')'")),
        }
        values.sort_unstable();
        values.dedup();
        for (at, value) in values.iter().enumerate() {
            check(&format!("values[{at}][{key}]"), value, names::label_value(value))?;
        }
        Ok(values.into_iter().map(str::to_owned).collect())
    }

    /// The values up to the closing parenthesis; none between commas is an empty value.
    fn listed(&mut self) -> Result<Vec<&'a str>, String> {
        let mut values = Vec::new();
        loop {
            match self.next() {
                Token::Word(word) => {
                    values.push(word);
                    match self.peek() {
                        Token::Comma => {}
                        Token::Close => return Ok(values),
                        other => return Err(found(&other, "',' or ')'")),
                    }
                }
                Token::Comma => {
                    if values.is_empty() {
                        values.push("");
                    }
                    match self.peek() {
                        Token::Close => {
                            values.push("");
                            return Ok(values);
                        }
                        Token::Comma => {
                            self.next();
                            values.push("");
                        }
                        _ => {}
                    }
                }
                other => return Err(found(&other, "',', or identifier")),
            }
        }
    }
}

fn check(path: &str, value: &str, problems: Vec<String>) -> Result<(), String> {
    if problems.is_empty() {
        return Ok(());
    }
    Err(format!("{path}: Invalid value: {}: {}", go_quote(value), problems.join("; ")))
}
