//! Field paths and validation errors, with the bodies of API machinery.

use std::fmt;

use serde_json::Value;

use crate::status::StatusCause;

/// Path of a field, such as `spec.containers[0].ports[1].hostPort` or `metadata.annotations[key]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(String);

impl Path {
    /// A path of one element.
    pub fn new(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The field `name` of this one.
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Self::new(name) } else { Self(format!("{}.{name}", self.0)) }
    }

    /// The list item at `index`.
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// The map value at `key`.
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Validation errors in the order they were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorList(Vec<StatusCause>);

impl ErrorList {
    fn add(&mut self, path: &Path, reason: &str, message: String) {
        self.0.push(StatusCause { reason: reason.into(), message, field: path.0.clone() });
    }

    /// `Required value[: detail]`.
    pub fn required(&mut self, path: &Path, detail: &str) {
        self.add(path, "FieldValueRequired", with_detail("Required value".into(), detail));
    }

    /// `Invalid value: <v>[: detail]`.
    pub fn invalid(&mut self, path: &Path, value: &Value, detail: &str) {
        self.add(path, "FieldValueInvalid", with_detail(format!("Invalid value: {}", show(value)), detail));
    }

    /// `Invalid value: detail`, the value left out.
    pub fn invalid_unshown(&mut self, path: &Path, detail: &str) {
        self.add(path, "FieldValueInvalid", with_detail("Invalid value".into(), detail));
    }

    /// `Invalid value: <v>[: detail]` for a value of the wrong type.
    pub fn type_invalid(&mut self, path: &Path, value: &Value, detail: &str) {
        self.add(path, "FieldValueTypeInvalid", with_detail(format!("Invalid value: {}", show(value)), detail));
    }

    /// `Forbidden[: detail]`.
    pub fn forbidden(&mut self, path: &Path, detail: &str) {
        self.add(path, "FieldValueForbidden", with_detail("Forbidden".into(), detail));
    }

    /// `Duplicate value: <v>`.
    pub fn duplicate(&mut self, path: &Path, value: &Value) {
        self.add(path, "FieldValueDuplicate", format!("Duplicate value: {}", show(value)));
    }

    /// `Not found: <v>`.
    pub fn not_found(&mut self, path: &Path, value: &Value) {
        self.add(path, "FieldValueNotFound", format!("Not found: {}", show(value)));
    }

    /// `Not found: <v>: detail`.
    pub fn not_found_in(&mut self, path: &Path, value: &Value, detail: &str) {
        self.add(path, "FieldValueNotFound", with_detail(format!("Not found: {}", show(value)), detail));
    }

    /// `Duplicate value: <v>: detail`.
    pub fn duplicate_in(&mut self, path: &Path, value: &Value, detail: &str) {
        self.add(path, "FieldValueDuplicate", with_detail(format!("Duplicate value: {}", show(value)), detail));
    }

    /// Adds an error as it is.
    pub fn push(&mut self, error: StatusCause) {
        self.0.push(error);
    }

    /// Keeps the errors that `keep` wants.
    pub fn retain(&mut self, keep: impl FnMut(&StatusCause) -> bool) {
        self.0.retain(keep);
    }

    /// `Unsupported value: <v>: supported values: "a", "b"`.
    pub fn not_supported(&mut self, path: &Path, value: &Value, supported: &[&str]) {
        let list: Vec<String> = supported.iter().map(|s| go_quote(s)).collect();
        let mut message = format!("Unsupported value: {}", show(value));
        if !list.is_empty() {
            message.push_str(": supported values: ");
            message.push_str(&list.join(", "));
        }
        self.add(path, "FieldValueNotSupported", message);
    }

    /// `Too long: may not be more than <limit> bytes`.
    pub fn too_long(&mut self, path: &Path, limit: usize) {
        let unit = if limit == 1 { "byte" } else { "bytes" };
        self.add(path, "FieldValueTooLong", format!("Too long: may not be more than {limit} {unit}"));
    }

    /// `Too many: <n>: must have at most <limit> items`.
    pub fn too_many(&mut self, path: &Path, count: usize, limit: usize) {
        let unit = if limit == 1 { "item" } else { "items" };
        self.add(path, "FieldValueTooMany", format!("Too many: {count}: must have at most {limit} {unit}"));
    }

    /// `Internal error: <e>`.
    pub fn internal(&mut self, path: &Path, error: &str) {
        self.add(path, "InternalError", format!("Internal error: {error}"));
    }

    /// One `Invalid` per text.
    pub fn invalid_all(&mut self, path: &Path, value: &Value, details: Vec<String>) {
        for detail in details {
            self.invalid(path, value, &detail);
        }
    }

    /// Adds the errors of another list.
    pub fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of errors.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The errors.
    pub fn iter(&self) -> impl Iterator<Item = &StatusCause> {
        self.0.iter()
    }

    /// The errors as causes of a `Status`.
    pub fn into_causes(self) -> Vec<StatusCause> {
        self.0
    }
}

fn with_detail(mut text: String, detail: &str) -> String {
    if !detail.is_empty() {
        text.push_str(": ");
        text.push_str(detail);
    }
    text
}

/// A value as errors show it: strings Go-quoted, others as compact JSON.
fn show(value: &Value) -> String {
    match value {
        Value::String(text) => go_quote(text),
        other => other.to_string(),
    }
}

/// A value as Go's `%v` prints it: `map[a:1 b:[x y]]`.
pub(crate) fn go_value(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(go_value).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let fields: Vec<String> = map.iter().map(|(k, v)| format!("{k}:{}", go_value(v))).collect();
            format!("map[{}]", fields.join(" "))
        }
        other => other.to_string(),
    }
}

/// Quotes a text as Go's `%q` does.
pub fn go_quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() && u32::from(c) < 0x80 => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bodies() {
        let mut errors = ErrorList::default();
        let path = Path::new("spec").child("containers").index(0).child("name");
        errors.required(&path, "");
        errors.invalid(&path, &json!("a\"b"), "bad");
        errors.not_supported(&path, &json!(3), &["x", "y"]);
        let causes = errors.into_causes();
        assert_eq!(causes[0].field, "spec.containers[0].name");
        assert_eq!(causes[0].message, "Required value");
        assert_eq!(causes[1].message, "Invalid value: \"a\\\"b\": bad");
        assert_eq!(causes[2].message, "Unsupported value: 3: supported values: \"x\", \"y\"");
    }
}
