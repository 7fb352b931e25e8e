//! KYAML: YAML in braces and brackets, with all texts quoted.

use machinery::schema::SchemaRef;
use serde_json::{Map, Value};

/// A value as a document that ends with a line break; the line before it is the caller's.
pub fn encode(value: &Value) -> String {
    encode_ordered(value, &[])
}

/// The same with keys in a given order; others follow in the order of their names.
pub fn encode_ordered(value: &Value, order: &[&str]) -> String {
    document(value, Order::Given(order))
}

/// The same with the fields of a built-in kind in the order of their declaration.
pub fn encode_declared(value: &Value) -> String {
    document(value, Order::Declared(super::declared::schema(value)))
}

fn document(value: &Value, order: Order<'_>) -> String {
    let mut out = String::new();
    write(value, order, 0, &mut out);
    out.push('\n');
    out
}

/// The order of the fields of an object.
#[derive(Clone, Copy)]
enum Order<'a> {
    /// At all depths the same; others follow in the order of their names.
    Given(&'a [&'a str]),
    /// That of a type.
    Declared(Option<SchemaRef<'static>>),
}

impl Order<'_> {
    fn entries(self, map: &Map<String, Value>) -> Vec<(&String, &Value)> {
        match self {
            Self::Given(order) => super::json::in_order(map, order),
            Self::Declared(schema) => super::declared::sorted(map, schema),
        }
    }

    fn field(self, key: &str) -> Self {
        match self {
            Self::Declared(schema) => Self::Declared(schema.and_then(|s| s.field(key))),
            given => given,
        }
    }

    fn item(self) -> Self {
        match self {
            Self::Declared(schema) => Self::Declared(schema.and_then(SchemaRef::item)),
            given => given,
        }
    }
}

fn line(depth: usize, out: &mut String) {
    out.push('\n');
    out.extend(std::iter::repeat_n(' ', depth * 2));
}

fn write(value: &Value, order: Order<'_>, depth: usize, out: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('{');
            for (key, value) in order.entries(map) {
                line(depth + 1, out);
                out.push_str(&self::key(key));
                out.push_str(": ");
                write(value, order.field(key), depth + 1, out);
                out.push(',');
            }
            line(depth, out);
            out.push('}');
        }
        Value::Array(list) if !list.is_empty() => {
            out.push('[');
            // Collections open on the line of the bracket.
            let compact = list.iter().all(|v| v.is_object() || v.is_array());
            for (at, value) in list.iter().enumerate() {
                match (compact, at) {
                    (true, 0) => {}
                    (true, _) => out.push(' '),
                    (false, _) => line(depth + 1, out),
                }
                write(value, order.item(), if compact { depth } else { depth + 1 }, out);
                if !compact || at + 1 < list.len() {
                    out.push(',');
                }
            }
            if !compact {
                line(depth, out);
            }
            out.push(']');
        }
        Value::String(text) => string(text, depth, out),
        Value::Array(_) => out.push_str("[]"),
        Value::Object(_) => out.push_str("{}"),
        other => out.push_str(super::yaml::encode(other).trim_end()),
    }
}

/// A key, quoted if it could be read as something else.
fn key(text: &str) -> String {
    let plain = super::yaml::encode(&Value::String(text.to_owned()));
    let simple = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/'))
        && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    if simple && plain.trim_end() == text { text.to_owned() } else { quoted(text) }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    text.chars().for_each(|c| escape(c, &mut out));
    out.push('"');
    out
}

fn escape(c: char, out: &mut String) {
    match c {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push(c),
        c if c.is_control() => out.push_str(&format!("\\x{:02X}", u32::from(c))),
        other => out.push(other),
    }
}

/// A text; one with several lines is written in several.
fn string(text: &str, depth: usize, out: &mut String) {
    let inner = text.strip_suffix('\n').unwrap_or(text);
    if !inner.contains('\n') {
        out.push_str(&quoted(text));
        return;
    }
    out.push_str("\"\\");
    for one in text.split_inclusive('\n') {
        line(depth + 1, out);
        // Blanks at the beginning of a line would be dropped.
        out.push_str(if one.starts_with([' ', '\t']) { "\\" } else { " " });
        one.chars().for_each(|c| escape(c, out));
        out.push('\\');
    }
    line(depth + 1, out);
    out.push('"');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_are_in_braces() {
        let value = json!({"a": [{"b": 1}, {"c": "x"}], "d": ["e"], "y": {}, "m": "one\n  two\n"});
        let want = "{\n  a: [{\n    b: 1,\n  }, {\n    c: \"x\",\n  }],\n  d: [\n    \"e\",\n  ],\n  m: \"\\\n     one\\n\\\n    \\  two\\n\\\n    \",\n  \"y\": {},\n}\n";
        assert_eq!(encode(&value), want);
    }
}
