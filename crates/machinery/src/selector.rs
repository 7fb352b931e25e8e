//! Label and field selectors.

mod parse;
#[cfg(test)]
mod tests;

use std::fmt;

use serde_json::Value;

/// A selector that does not parse or is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct SelectorError {
    text: String,
    in_requirement: bool,
}

impl SelectorError {
    fn new(text: String) -> Self {
        Self { text, in_requirement: false }
    }

    fn in_requirement(text: String) -> Self {
        Self { text, in_requirement: true }
    }

    /// The whole text for the client: errors within one requirement say so first.
    pub fn full_text(&self) -> String {
        let prefix = if self.in_requirement { "unable to parse requirement: " } else { "" };
        format!("{prefix}{}", self.text)
    }
}

/// One term of a label selector.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    /// Label key.
    pub key: String,
    /// Comparison.
    pub operator: Operator,
}

/// Comparison of one term, with its values (sorted).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
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

    /// All of the given terms.
    pub fn from_requirements(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self { requirements, nothing: false }
    }

    /// Parses the query form: `a=b,c!=d,e in (f,g),!h,i>1`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = parse::requirements(text)?;
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
                    let quoted = crate::field::go_quote(other);
                    return Err(SelectorError::new(format!("{quoted} is not a valid label selector operator")));
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
            let invalid = || SelectorError::new(format!("invalid selector: '{text}'; can't understand '{term}'"));
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
