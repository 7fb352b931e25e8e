//! Decoding of request bodies: bounded, with duplicate keys found, then checked and pruned against a schema.

mod check;
mod json;
#[cfg(test)]
mod tests;
mod yaml;

use serde_json::Value;

pub use check::check_fields;

/// Nesting beyond which a document is refused.
const MAX_DEPTH: usize = 120;
/// Problems reported of one document.
const MAX_PROBLEMS: usize = 100;

/// A document that cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DecodeError(String);

/// Unknown, duplicate and mistyped fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldProblems {
    /// Duplicate keys of a YAML document: `line 9: key "foo" already set in map`.
    yaml: Vec<String>,
    texts: Vec<String>,
    type_error: Option<String>,
}

impl FieldProblems {
    fn add(&mut self, text: String) {
        if self.texts.len() < MAX_PROBLEMS && !self.texts.contains(&text) {
            self.texts.push(text);
        }
    }

    fn add_yaml(&mut self, text: String) {
        if self.yaml.len() < MAX_PROBLEMS {
            self.yaml.push(text);
        }
    }

    fn mistyped(&mut self, text: String) {
        self.type_error.get_or_insert(text);
    }

    /// Adds a field that the schema does not know.
    pub fn unknown_field(&mut self, path: &str) {
        self.add(format!("unknown field \"{path}\""));
    }

    /// The same problems of an object that stands at `path` of another.
    #[must_use]
    pub fn below(self, path: &str) -> Self {
        let moved = |text: &String| match text.split_once('"') {
            Some((what, rest)) => format!("{what}\"{path}.{rest}"),
            None => text.clone(),
        };
        Self { texts: self.texts.iter().map(moved).collect(), ..self }
    }

    /// Adds those of another decoding step.
    pub fn append(&mut self, other: Self) {
        other.yaml.into_iter().for_each(|t| self.add_yaml(t));
        other.texts.into_iter().for_each(|t| self.add(t));
        self.type_error = self.type_error.take().or(other.type_error);
    }

    /// Each problem as a warning: `unknown field "spec.foo"`, `duplicate field "spec.replicas"`,
    /// `line 9: key "foo" already set in map`.
    pub fn texts(&self) -> Vec<String> {
        self.yaml.iter().chain(&self.texts).cloned().collect()
    }

    /// All problems as one text, to follow `strict decoding error: `; `None` without any.
    pub fn strict_text(&self) -> Option<String> {
        let yaml = match self.yaml.as_slice() {
            [] => None,
            lines => Some(format!("yaml: unmarshal errors:\n  {}", lines.join("\n  "))),
        };
        let all: Vec<&str> = yaml.iter().chain(&self.texts).map(String::as_str).collect();
        (!all.is_empty()).then(|| all.join(", "))
    }

    /// The first value of a wrong type, as text.
    pub fn type_error(&self) -> Option<&str> {
        self.type_error.as_deref()
    }

    /// With a prefix on each text.
    pub fn labelled(&self, prefix: &str) -> Self {
        let label = |texts: &[String]| texts.iter().map(|t| format!("{prefix}{t}")).collect();
        Self { yaml: label(&self.yaml), texts: label(&self.texts), type_error: self.type_error.clone() }
    }

    /// The same problems in the order in which a JSON document names their fields.
    #[must_use]
    pub fn in_document_order(mut self, document: &[u8]) -> Self {
        if self.texts.len() > 1 {
            json::sort_by_position(&mut self.texts, document);
        }
        self
    }
}

/// Decodes JSON; the last of duplicate keys wins.
pub fn decode_json(bytes: &[u8]) -> Result<(Value, FieldProblems), DecodeError> {
    json::decode(bytes)
}

/// Decodes the first YAML document, by the rules of YAML 1.1 that Kubernetes keeps to (`yes` is true, `0644` octal).
/// JSON is YAML too, and is read as such.
pub fn decode_yaml(bytes: &[u8]) -> Result<(Value, FieldProblems), DecodeError> {
    if bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{')
        && let Ok(decoded) = json::decode(bytes)
    {
        return Ok(decoded);
    }
    yaml::decode(bytes)
}
