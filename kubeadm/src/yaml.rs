//! YAML as Kubernetes' tools write it: keys sorted, no document markers.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::{Context, Result};

/// Writes a value with sorted keys.
pub fn to_yaml<T: Serialize>(value: &T) -> Result<String> {
    let tree = serde_json::to_value(value).context("cannot encode")?;
    let mut out = String::new();
    match &tree {
        Value::Object(fields) if !fields.is_empty() => mapping(&mut out, fields, 0),
        Value::Array(items) if !items.is_empty() => sequence(&mut out, items, 0),
        scalar => {
            out.push_str(&flat(scalar, 0));
            out.push('\n');
        }
    }
    Ok(out)
}

/// Lines of a mapping; the first one is where the cursor is.
fn mapping(out: &mut String, fields: &Map<String, Value>, indent: usize) {
    let mut pairs: Vec<_> = fields.iter().collect();
    pairs.sort_by(|a, b| a.0.cmp(b.0));
    for (index, (key, value)) in pairs.into_iter().enumerate() {
        if index > 0 {
            out.push_str(&" ".repeat(indent));
        }
        out.push_str(&text(key, indent));
        out.push(':');
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                out.push('\n');
                out.push_str(&" ".repeat(indent + 2));
                mapping(out, fields, indent + 2);
            }
            // Items stand below their key, not to the right of it.
            Value::Array(items) if !items.is_empty() => {
                out.push('\n');
                out.push_str(&" ".repeat(indent));
                sequence(out, items, indent);
            }
            scalar => {
                out.push(' ');
                out.push_str(&flat(scalar, indent + 2));
                out.push('\n');
            }
        }
    }
}

/// Lines of a sequence; the first one is where the cursor is.
fn sequence(out: &mut String, items: &[Value], indent: usize) {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push_str(&" ".repeat(indent));
        }
        out.push_str("- ");
        match item {
            Value::Object(fields) if !fields.is_empty() => mapping(out, fields, indent + 2),
            Value::Array(items) if !items.is_empty() => sequence(out, items, indent + 2),
            scalar => {
                out.push_str(&flat(scalar, indent + 2));
                out.push('\n');
            }
        }
    }
}

fn flat(value: &Value, indent: usize) -> String {
    match value {
        Value::String(string) => text(string, indent),
        Value::Object(_) => "{}".into(),
        Value::Array(_) => "[]".into(),
        other => other.to_string(),
    }
}

/// A string: plain where nothing else can be read from it, a block when it has lines, quoted otherwise.
fn text(string: &str, indent: usize) -> String {
    let printable = string.chars().all(|c| c == '\n' || c == '\t' || !c.is_control());
    if string.contains('\n') && printable && !string.starts_with([' ', '\n', '\t']) && !has_trailing_blank(string) {
        return block(string, indent);
    }
    if !printable || string.contains(['\n', '\t']) || reads_otherwise(string) {
        return Value::from(string).to_string();
    }
    if is_plain(string) { string.to_owned() } else { format!("'{}'", string.replace('\'', "''")) }
}

fn has_trailing_blank(string: &str) -> bool {
    string.lines().any(|line| line.ends_with([' ', '\t']))
}

/// A literal block. What follows the bar says how many line ends there are.
fn block(string: &str, indent: usize) -> String {
    let ends = string.len() - string.trim_end_matches('\n').len();
    let mut out = String::from(match ends {
        0 => "|-",
        1 => "|",
        _ => "|+",
    });
    let body = string.strip_suffix('\n').unwrap_or(string);
    for line in body.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            out.push_str(&" ".repeat(indent));
            out.push_str(line);
        }
    }
    out
}

/// Whether a plain scalar of this text would be no string.
fn reads_otherwise(string: &str) -> bool {
    const WORDS: [&str; 18] = [
        "", "~", "null", "true", "false", "yes", "no", "on", "off", "y", "n", ".nan", ".inf", "-.inf", "+.inf", "<<",
        "=", "-",
    ];
    if WORDS.contains(&string.to_lowercase().as_str()) {
        return true;
    }
    let number = string.trim_start_matches(['+', '-']).replace('_', "");
    let digits = |text: &str| text.strip_prefix("0x").or(text.strip_prefix("0o")).or(text.strip_prefix("0b")).is_some();
    let starts = number.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let is_date = string.len() >= 10
        && string.as_bytes()[4] == b'-'
        && string.bytes().take(4).all(|b| b.is_ascii_digit())
        && string.bytes().all(|b| b.is_ascii_digit() || b"-:TtZz. +".contains(&b));
    let sexagesimal =
        starts && number.contains(':') && number.bytes().all(|b| b.is_ascii_digit() || b == b':' || b == b'.');
    starts && (number.parse::<f64>().is_ok() || digits(&number) || is_date || sexagesimal)
}

/// Whether a text can stand without quotes.
fn is_plain(string: &str) -> bool {
    const STARTS: &str = "-?:,[]{}#&*!|>'\"%@`";
    let second = string.chars().nth(1);
    let starts_well = match string.chars().next() {
        Some('-' | '?' | ':') => second.is_some_and(|c| c != ' '),
        Some(first) => !STARTS.contains(first),
        None => false,
    };
    starts_well
        && !string.starts_with("---")
        && !string.starts_with("...")
        && !string.contains(": ")
        && !string.contains(" #")
        && !string.ends_with(':')
        && !string.starts_with(' ')
        && !string.ends_with(' ')
}

/// Writes an object of a kind: `apiVersion` and `kind` stand among the fields.
pub fn document<T: Serialize>(api_version: &str, kind: &str, value: &T) -> Result<String> {
    let mut tree = serde_json::to_value(value).context("cannot encode")?;
    if let Value::Object(fields) = &mut tree {
        fields.insert("apiVersion".into(), api_version.into());
        fields.insert("kind".into(), kind.into());
    }
    to_yaml(&tree)
}

/// Reads one document.
pub fn parse(text: &str) -> Result<Value> {
    let (value, problems) = machinery::decode::decode_yaml(text.as_bytes()).context("cannot decode")?;
    match problems.strict_text() {
        None => Ok(value),
        Some(text) => crate::error::fail!("{text}"),
    }
}

/// The documents of a file, without empty ones.
pub fn split(text: &str) -> Vec<&str> {
    let mut documents = Vec::new();
    let mut start = 0;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let marker = line.strip_prefix("---").is_some_and(|rest| rest.trim().is_empty() || rest.starts_with(' '));
        if marker {
            documents.push(&text[start..at]);
            start = at + line.len();
        }
        at += line.len();
    }
    documents.push(&text[start..]);
    let content = |d: &&str| d.lines().any(|l| !l.trim().is_empty() && !l.trim_start().starts_with('#'));
    documents.into_iter().filter(content).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn written_as_kubernetes_tools_do() {
        let value = json!({
            "name": "", "on": "yes", "number": "10", "time": "4m0s", "version": "1.36.0", "star": "*", "colon": "a: b",
            "list": [{"b": 1, "a": [true]}, "x", []], "none": null, "empty": {}, "flag": "--a=b",
            "text": "one\n  two\n", "date": "2026-11-21T10:00:00Z", "dash": "-1", "cidr": "10.0.0.0/8", "v6": "::1",
        });
        let expected = "cidr: 10.0.0.0/8\ncolon: 'a: b'\ndash: \"-1\"\ndate: \"2026-11-21T10:00:00Z\"\nempty: {}\nflag: --a=b\n\
                        list:\n- a:\n  - true\n  b: 1\n- x\n- []\nname: \"\"\nnone: null\nnumber: \"10\"\n\"on\": \"yes\"\n\
                        star: '*'\ntext: |\n  one\n    two\ntime: 4m0s\nv6: ::1\nversion: 1.36.0\n";
        let written = to_yaml(&value).unwrap();
        assert_eq!(written, expected);
        assert_eq!(parse(&written).unwrap(), value);
    }

    #[test]
    fn strings_come_back() {
        for string in [
            "a\n", "a\nb", "a\n\n", " a\nb", "a \nb", "\t", "'", "\"", "#", "a #b", "0x1f", "1e3", "12:30", "null",
            "é", "\u{1}",
        ] {
            let value = json!({"nested": {"field": string, "list": [string]}});
            assert_eq!(parse(&to_yaml(&value).unwrap()).unwrap(), value, "{string:?}");
        }
    }

    #[test]
    fn documents() {
        assert_eq!(split("---\na: 1\n---\n# nothing\n---\nb: 2\n"), ["a: 1\n", "b: 2\n"]);
        assert!(split("\n").is_empty());
    }
}
