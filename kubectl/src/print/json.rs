//! JSON with four blanks of indentation.

use serde::Serialize;
use serde_json::Value;

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
