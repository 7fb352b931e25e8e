//! Label and field selectors.

use std::fmt;

use serde_json::Value;

/// A selector that does not parse or is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(String);

/// One term of a label selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// Label key.
    pub key: String,
    /// Comparison.
    pub operator: Operator,
}

/// Comparison of one term, with its values (sorted).
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Operator {
    Equals(String),
    NotEquals(String),
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
    GreaterThan(i64),
    LessThan(i64),
}

impl Requirement {
    fn matches(&self, value: Option<&str>) -> bool {
        match (&self.operator, value) {
            (Operator::Equals(want), Some(have)) => want == have,
            (Operator::NotEquals(want), have) => have != Some(want.as_str()),
            (Operator::In(list), Some(have)) => list.iter().any(|v| v == have),
            (Operator::NotIn(list), Some(have)) => !list.iter().any(|v| v == have),
            (Operator::NotIn(_) | Operator::DoesNotExist, None) => true,
            (Operator::Exists, have) => have.is_some(),
            (Operator::DoesNotExist, Some(_)) => false,
            (Operator::GreaterThan(than), Some(have)) => have.parse::<i64>().is_ok_and(|n| n > *than),
            (Operator::LessThan(than), Some(have)) => have.parse::<i64>().is_ok_and(|n| n < *than),
            (Operator::Equals(_) | Operator::In(_) | Operator::GreaterThan(_) | Operator::LessThan(_), None) => false,
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match &self.operator {
            Operator::Equals(value) => write!(f, "{key}={value}"),
            Operator::NotEquals(value) => write!(f, "{key}!={value}"),
            Operator::In(values) => write!(f, "{key} in ({})", values.join(",")),
            Operator::NotIn(values) => write!(f, "{key} notin ({})", values.join(",")),
            Operator::Exists => write!(f, "{key}"),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan(n) => write!(f, "{key}>{n}"),
            Operator::LessThan(n) => write!(f, "{key}<{n}"),
        }
    }
}

/// A conjunction of label requirements, or one that matches nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl LabelSelector {
    /// Matches nothing.
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// Exactly these labels.
    pub fn from_map<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let requirements = labels
            .into_iter()
            .map(|(key, value)| Requirement { key: key.to_owned(), operator: Operator::Equals(value.to_owned()) })
            .collect();
        Self { requirements, nothing: false }
    }

    /// Parses the query form: `a=b,c!=d,e in (f,g),!h,i>1`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut parser = Parser { tokens: lex(text), at: 0 };
        let mut requirements = Vec::new();
        if parser.peek() == &Token::End {
            return Ok(Self::default());
        }
        loop {
            requirements.push(parser.requirement()?);
            match parser.next() {
                Token::End => break,
                Token::Comma => {
                    if !matches!(parser.peek(), Token::Word(_) | Token::Not) {
                        return Err(found(parser.peek(), "identifier after ','"));
                    }
                }
                other => return Err(found(&other, "',' or 'end of string'")),
            }
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements, nothing: false })
    }

    /// From a `LabelSelector` object; null or absent matches nothing, `{}` everything.
    pub fn from_object(object: &Value) -> Result<Self, SelectorError> {
        let Some(map) = object.as_object() else { return Ok(Self::nothing()) };
        let labels = map.get("matchLabels").and_then(Value::as_object).into_iter().flatten();
        let mut selector = Self::from_map(labels.filter_map(|(k, v)| v.as_str().map(|v| (k.as_str(), v))));
        let expressions = map.get("matchExpressions").and_then(Value::as_array).into_iter().flatten();
        for expression in expressions {
            let text = |key: &str| expression.get(key).and_then(Value::as_str).unwrap_or("");
            let mut values: Vec<String> = expression
                .get("values")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(|v| v.as_str().map(str::to_owned))
                .collect();
            values.sort_unstable();
            let operator = match text("operator") {
                "In" => Operator::In(values),
                "NotIn" => Operator::NotIn(values),
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(SelectorError(format!("{other:?} is not a valid label selector operator")));
                }
            };
            selector.requirements.push(Requirement { key: text("key").to_owned(), operator });
        }
        selector.requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(selector)
    }

    /// Whether labels match, given how to look one up.
    pub fn matches<'a>(&self, lookup: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(lookup(&r.key)))
    }

    /// Whether everything matches.
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// The terms, sorted by key.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, requirement) in self.requirements.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            write!(f, "{requirement}")?;
        }
        Ok(())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Equals,
    NotEquals,
    Greater,
    Less,
    Not,
    Open,
    Close,
    Comma,
    End,
}

fn lex(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(&c) = chars.peek() {
        if c.is_whitespace() {
            chars.next();
            continue;
        }
        if !"=!<>(),".contains(c) {
            let mut word = String::new();
            while let Some(&c) = chars.peek().filter(|c| !c.is_whitespace() && !"=!<>(),".contains(**c)) {
                word.push(c);
                chars.next();
            }
            tokens.push(Token::Word(word));
            continue;
        }
        chars.next();
        let equals_next = chars.peek() == Some(&'=');
        tokens.push(match c {
            '=' => {
                if equals_next {
                    chars.next();
                }
                Token::Equals
            }
            '!' if equals_next => {
                chars.next();
                Token::NotEquals
            }
            '!' => Token::Not,
            '<' => Token::Less,
            '>' => Token::Greater,
            '(' => Token::Open,
            ')' => Token::Close,
            _ => Token::Comma,
        });
    }
    tokens.push(Token::End);
    tokens
}

fn shown(token: &Token) -> &str {
    match token {
        Token::Word(word) => word,
        Token::Equals => "=",
        Token::NotEquals => "!=",
        Token::Greater => ">",
        Token::Less => "<",
        Token::Not => "!",
        Token::Open => "(",
        Token::Close => ")",
        Token::Comma => ",",
        Token::End => "",
    }
}

fn found(token: &Token, expected: &str) -> SelectorError {
    SelectorError(format!("found '{}', expected: {expected}", shown(token)))
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.at).unwrap_or(&Token::End)
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let negated = *self.peek() == Token::Not;
        if negated {
            self.at += 1;
        }
        let key = match self.next() {
            Token::Word(key) => key,
            other => return Err(found(&other, "identifier")),
        };
        check_key(&key)?;
        if negated {
            return Ok(Requirement { key, operator: Operator::DoesNotExist });
        }
        let operator = match self.peek().clone() {
            Token::End | Token::Comma => Operator::Exists,
            Token::Equals => self.single().and_then(|v| checked(v).map(Operator::Equals))?,
            Token::NotEquals => self.single().and_then(|v| checked(v).map(Operator::NotEquals))?,
            Token::Greater => Operator::GreaterThan(self.number()?),
            Token::Less => Operator::LessThan(self.number()?),
            Token::Word(word) if word == "in" => Operator::In(self.values()?),
            Token::Word(word) if word == "notin" => Operator::NotIn(self.values()?),
            other => return Err(found(&other, "in, notin, =, ==, !=, gt, lt")),
        };
        Ok(Requirement { key, operator })
    }

    fn single(&mut self) -> Result<String, SelectorError> {
        self.at += 1;
        match self.peek().clone() {
            Token::Word(word) => {
                self.at += 1;
                Ok(word)
            }
            Token::Comma | Token::End => Ok(String::new()),
            other => Err(found(&other, "identifier")),
        }
    }

    fn number(&mut self) -> Result<i64, SelectorError> {
        let text = self.single()?;
        text.parse().map_err(|_| {
            SelectorError(format!(
                "values[0][key]: Invalid value: {text:?}: for 'Gt', 'Lt' operators, the value must be an integer"
            ))
        })
    }

    fn values(&mut self) -> Result<Vec<String>, SelectorError> {
        self.at += 1;
        match self.next() {
            Token::Open => {}
            other => return Err(found(&other, "'('")),
        }
        let mut values = Vec::new();
        loop {
            match self.next() {
                Token::Word(word) => {
                    values.push(checked(word)?);
                    match self.next() {
                        Token::Comma => {
                            if *self.peek() == Token::Close {
                                values.push(String::new());
                            }
                        }
                        Token::Close => break,
                        other => return Err(found(&other, "',' or ')'")),
                    }
                }
                Token::Comma => values.push(String::new()),
                Token::Close => {
                    if values.is_empty() {
                        values.push(String::new());
                    }
                    break;
                }
                other => return Err(found(&other, "',', ')' or identifier")),
            }
        }
        values.sort_unstable();
        values.dedup();
        Ok(values)
    }
}

fn check_key(key: &str) -> Result<(), SelectorError> {
    match crate::names::qualified_name(key).first() {
        None => Ok(()),
        Some(problem) => Err(SelectorError(format!("key: Invalid value: {key:?}: {problem}"))),
    }
}

fn checked(value: String) -> Result<String, SelectorError> {
    match crate::names::label_value(&value).first() {
        None => Ok(value),
        Some(problem) => Err(SelectorError(format!("values[0]: Invalid value: {value:?}: {problem}"))),
    }
}

/// One term of a field selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRequirement {
    /// Field label.
    pub field: String,
    /// Value compared with.
    pub value: String,
    /// Whether the field must equal the value (or differ).
    pub equal: bool,
}

/// A conjunction of field requirements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector(Vec<FieldRequirement>);

impl FieldSelector {
    /// Parses `a=b,c!=d`; `\\`, `\,` and `\=` are escapes in values.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut terms = Vec::new();
        for term in split_terms(text).iter().filter(|t| !t.is_empty()) {
            let invalid = || SelectorError(format!("invalid selector: '{text}'; can't understand '{term}'"));
            let (field, equal, value) = split_term(term).ok_or_else(invalid)?;
            let value = unescape(value).ok_or_else(invalid)?;
            terms.push(FieldRequirement { field: field.to_owned(), value, equal });
        }
        Ok(Self(terms))
    }

    /// The terms.
    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.0
    }

    /// Whether fields match, given how to look one up.
    pub fn matches<'a>(&self, lookup: impl Fn(&str) -> &'a str) -> bool {
        self.0.iter().all(|r| (lookup(&r.field) == r.value) == r.equal)
    }

    /// The value that the selector demands of a field.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.0.iter().find(|r| r.equal && r.field == field).map(|r| r.value.as_str())
    }
}

fn split_terms(text: &str) -> Vec<String> {
    let mut terms = vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        match c {
            ',' if !escaped => terms.push(String::new()),
            c => {
                if let Some(term) = terms.last_mut() {
                    term.push(c);
                }
            }
        }
        escaped = c == '\\' && !escaped;
    }
    terms
}

fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    let at = term.find(['=', '!'])?;
    let (field, rest) = term.split_at(at);
    [("!=", false), ("==", true), ("=", true)]
        .into_iter()
        .find_map(|(operator, equal)| rest.strip_prefix(operator).map(|value| (field, equal, value)))
}

fn unescape(value: &str) -> Option<String> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next()? {
                c @ ('\\' | ',' | '=') => out.push(c),
                _ => return None,
            },
            ',' | '=' => return None,
            c => out.push(c),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn matches(selector: &str, labels: &[(&str, &'static str)]) -> bool {
        let selector = LabelSelector::parse(selector).expect("selector");
        selector.matches(|key| labels.iter().find(|(k, _)| *k == key).map(|(_, v)| *v))
    }

    #[test]
    fn label_selectors() {
        let labels = [("app", "web"), ("tier", "1")];
        for yes in [
            "",
            "app=web",
            "app==web",
            "app!=db",
            "app in (db, web)",
            "app notin (db)",
            "app",
            "!x",
            "tier>0",
            "x notin (a)",
        ] {
            assert!(matches(yes, &labels), "{yes}");
        }
        for no in ["app=db", "!app", "x", "x in (a)", "tier<1", "app=web,tier=2"] {
            assert!(!matches(no, &labels), "{no}");
        }
        for bad in ["app in web", "=x", "a,,b", "a b", "app in (a"] {
            assert!(LabelSelector::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn objects_select() {
        let selector = json!({"matchLabels": {"b": "1"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["y", "x"]}]});
        let selector = LabelSelector::from_object(&selector).expect("selector");
        assert_eq!(selector.to_string(), "a in (x,y),b=1");
        assert!(!LabelSelector::from_object(&Value::Null).expect("selector").matches(|_| None));
        assert!(LabelSelector::from_object(&json!({})).expect("selector").matches(|_| None));
    }

    #[test]
    fn field_selectors() {
        let selector = FieldSelector::parse("metadata.name=a,status.phase!=Failed").expect("selector");
        assert_eq!(selector.exact("metadata.name"), Some("a"));
        assert!(selector.matches(|f| if f == "metadata.name" { "a" } else { "Running" }));
        assert!(!selector.matches(|_| "a,b") || selector.exact("x").is_some());
        assert_eq!(FieldSelector::parse("a=b\\,c").expect("selector").exact("a"), Some("b,c"));
        assert!(FieldSelector::parse("nonsense").is_err());
    }
}
