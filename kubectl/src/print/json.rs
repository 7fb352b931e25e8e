//! JSON with four blanks of indentation.

use serde::Serialize;
use serde_json::{Map, Value};

/// A value with a line break at its end; `<`, `>` and `&` are escaped.
pub fn indented(value: &Value) -> String {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    // A tree in memory always serialises.
    let _failed = value.serialize(&mut serializer).is_err();
    out.push(b'\n');
    escape(&String::from_utf8_lossy(&out))
}

/// Escapes what HTML gives a meaning.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            other => out.push(other),
        }
    }
    out
}

/// Compact JSON, escaped the same way.
pub fn compact(value: &Value) -> String {
    escape(&value.to_string())
}

/// A value with two blanks of indentation and no line break at its end.
pub fn pretty(value: &Value) -> String {
    escape(&format!("{value:#}"))
}

/// Like [`indented`], with keys in a given order; others follow in the order of their names.
pub fn ordered(value: &Value, order: &[&str]) -> String {
    let mut out = String::new();
    write_ordered(value, order, 0, &mut out);
    out.push('\n');
    escape(&out)
}

/// The entries of a map, those of the order first.
pub(super) fn in_order<'a>(map: &'a Map<String, Value>, order: &[&str]) -> Vec<(&'a String, &'a Value)> {
    let mut entries: Vec<(&String, &Value)> = map.iter().collect();
    entries.sort_by_key(|(key, _)| order.iter().position(|o| o == key).unwrap_or(order.len()));
    entries
}

fn write_ordered(value: &Value, order: &[&str], depth: usize, out: &mut String) {
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', depth * 4));
    };
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('{');
            for (at, (key, value)) in in_order(map, order).into_iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                line(out, depth + 1);
                out.push_str(&format!("{}: ", Value::String(key.clone())));
                write_ordered(value, order, depth + 1, out);
            }
            line(out, depth);
            out.push('}');
        }
        Value::Array(list) if !list.is_empty() => {
            out.push('[');
            for (at, value) in list.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                line(out, depth + 1);
                write_ordered(value, order, depth + 1, out);
            }
            line(out, depth);
            out.push(']');
        }
        other => out.push_str(&other.to_string()),
    }
}
