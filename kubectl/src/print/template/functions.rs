//! Functions of templates.

use std::cmp::Ordering;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::print::{debug, yaml};

const KNOWN: [&str; 22] = [
    "and",
    "or",
    "not",
    "len",
    "index",
    "slice",
    "print",
    "printf",
    "println",
    "html",
    "js",
    "urlquery",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "call",
    "exists",
    "base64decode",
    "nil",
];

pub(super) fn is_known(name: &str) -> bool {
    KNOWN.contains(&name)
}

/// What `if` takes for true.
pub(super) fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// A value as it is printed.
pub(super) fn text(value: &Value) -> String {
    debug::go_text(value)
}

/// Calls a function.
pub(super) fn call(name: &str, arguments: &[Value]) -> Result<Value, String> {
    let wrong = |wanted: &str| Err(format!("wrong number of args for {name}: want {wanted} got {}", arguments.len()));
    match (name, arguments) {
        ("and" | "or" | "eq" | "index", []) => wrong("at least 1"),
        ("and", all) => Ok(all.iter().find(|v| !truth(v)).or(all.last()).cloned().unwrap_or_default()),
        ("or", all) => Ok(all.iter().find(|v| truth(v)).or(all.last()).cloned().unwrap_or_default()),
        ("not", [value]) => Ok(json!(!truth(value))),
        ("len", [value]) => length(value),
        ("index", [first, keys @ ..]) => keys.iter().try_fold(first.clone(), |value, key| index(&value, key)),
        ("slice", [first, bounds @ ..]) => slice(first, bounds),
        ("print", all) => Ok(json!(print(all))),
        ("println", all) => Ok(json!(all.iter().map(text).collect::<Vec<_>>().join(" ") + "\n")),
        ("printf", [format, rest @ ..]) => Ok(json!(printf(format.as_str().unwrap_or_default(), rest))),
        ("html", all) => Ok(json!(html(&print(all)))),
        ("js", all) => Ok(json!(js(&print(all)))),
        ("urlquery", all) => Ok(json!(util::percent_encode(&print(all)).replace("%20", "+"))),
        ("eq", [first, rest @ ..]) if !rest.is_empty() => {
            let mut same = false;
            for other in rest {
                same |= compare(first, other)? == Ordering::Equal;
            }
            Ok(json!(same))
        }
        ("eq", _) => Err("missing argument for comparison".to_owned()),
        ("ne", [a, b]) => Ok(json!(compare(a, b)? != Ordering::Equal)),
        ("lt", [a, b]) => Ok(json!(compare(a, b)? == Ordering::Less)),
        ("le", [a, b]) => Ok(json!(compare(a, b)? != Ordering::Greater)),
        ("gt", [a, b]) => Ok(json!(compare(a, b)? == Ordering::Greater)),
        ("ge", [a, b]) => Ok(json!(compare(a, b)? != Ordering::Less)),
        ("exists", [object, keys @ ..]) => Ok(json!(exists(object, keys))),
        ("base64decode", [value]) => {
            let bytes = STANDARD.decode(value.as_str().unwrap_or_default()).map_err(|e| e.to_string())?;
            Ok(json!(String::from_utf8_lossy(&bytes)))
        }
        ("not" | "len" | "base64decode", _) => wrong("1"),
        ("ne" | "lt" | "le" | "gt" | "ge", _) => wrong("2"),
        (other, _) => Err(format!("{other:?} cannot be called")),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

fn length(value: &Value) -> Result<Value, String> {
    match value {
        Value::String(text) => Ok(json!(text.len())),
        Value::Array(list) => Ok(json!(list.len())),
        Value::Object(map) => Ok(json!(map.len())),
        Value::Null => Err("error calling len: len of nil pointer".to_owned()),
        other => Err(format!("error calling len: len of type {}", kind(other))),
    }
}

fn position(key: &Value) -> Option<usize> {
    key.as_f64().filter(|n| n.fract() == 0.0 && *n >= 0.0).map(|n| n as usize)
}

fn index(value: &Value, key: &Value) -> Result<Value, String> {
    let outside = || format!("error calling index: index out of range: {}", text(key));
    match value {
        Value::Object(map) => match key.as_str() {
            Some(key) => Ok(map.get(key).cloned().unwrap_or_default()),
            None => Err(format!("error calling index: value has type {}; should be string", kind(key))),
        },
        Value::Array(list) => {
            if !key.is_number() {
                return Err(format!("error calling index: cannot index slice/array with type {}", kind(key)));
            }
            position(key).and_then(|at| list.get(at)).cloned().ok_or_else(outside)
        }
        Value::String(text) => {
            position(key).and_then(|at| text.as_bytes().get(at)).map(|b| json!(b)).ok_or_else(outside)
        }
        Value::Null => Err("error calling index: index of untyped nil".to_owned()),
        other => Err(format!("error calling index: can't index item of type {}", kind(other))),
    }
}

fn slice(value: &Value, bounds: &[Value]) -> Result<Value, String> {
    let bound = |at: usize, default: usize| match bounds.get(at) {
        None => Ok(default),
        Some(key) => position(key).ok_or_else(|| format!("error calling slice: index out of range: {}", text(key))),
    };
    let outside = |end: usize| format!("error calling slice: index out of range: {end}");
    match value {
        Value::String(text) => {
            let (from, to) = (bound(0, 0)?, bound(1, text.len())?);
            text.get(from..to).map(|t| json!(t)).ok_or_else(|| outside(to))
        }
        Value::Array(list) => {
            let (from, to) = (bound(0, 0)?, bound(1, list.len())?);
            list.get(from..to).map(|l| json!(l)).ok_or_else(|| outside(to))
        }
        other => Err(format!("error calling slice: can't slice item of type {}", kind(other))),
    }
}

fn exists(object: &Value, keys: &[Value]) -> bool {
    let mut current = object;
    for key in keys {
        let next = match (current, key) {
            (Value::Object(map), Value::String(key)) => map.get(key),
            (Value::Array(list), key) => position(key).and_then(|at| list.get(at)),
            _ => None,
        };
        match next.filter(|v| !v.is_null()) {
            Some(value) => current = value,
            None => return false,
        }
    }
    true
}

fn compare(a: &Value, b: &Value) -> Result<Ordering, String> {
    let incompatible = || "error calling eq: incompatible types for comparison".to_owned();
    match (a, b) {
        (Value::String(a), Value::String(b)) => Ok(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Ok(a.cmp(b)),
        (Value::Number(x), Value::Number(y)) if x.is_f64() == y.is_f64() => {
            Ok(a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal))
        }
        (Value::Null, Value::Null) => Ok(Ordering::Equal),
        (Value::Null, _) | (_, Value::Null) => Ok(Ordering::Less),
        (Value::Array(_) | Value::Object(_), _) | (_, Value::Array(_) | Value::Object(_)) => {
            Err("error calling eq: non-comparable type".to_owned())
        }
        _ => Err(incompatible()),
    }
}

/// A blank stands between two values if neither is text.
fn print(values: &[Value]) -> String {
    let mut out = String::new();
    for (at, value) in values.iter().enumerate() {
        if at > 0 && !value.is_string() && !values[at - 1].is_string() {
            out.push(' ');
        }
        out.push_str(&text(value));
    }
    out
}

fn printf(format: &str, values: &[Value]) -> String {
    let mut out = String::new();
    let mut chars = format.chars().peekable();
    let mut next = values.iter();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut options = String::new();
        while let Some(option) = chars.next_if(|c| c.is_ascii_digit() || matches!(c, '-' | '+' | ' ' | '#' | '.')) {
            options.push(option);
        }
        match chars.next() {
            None => out.push_str("%!(NOVERB)"),
            Some('%') => out.push('%'),
            Some(verb) => match next.next() {
                Some(value) => out.push_str(&formatted(verb, &options, value)),
                None => out.push_str(&format!("%!{verb}(MISSING)")),
            },
        }
    }
    let extra: Vec<String> = next.map(|v| format!("{}={}", kind(v), text(v))).collect();
    if !extra.is_empty() {
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    out
}

fn formatted(verb: char, options: &str, value: &Value) -> String {
    let (width, precision) = options.split_once('.').map_or((options, None), |(w, p)| (w, Some(p)));
    let precision: Option<usize> = precision.map(|p| p.parse().unwrap_or(0));
    let body = match (verb, value) {
        ('s', Value::String(text)) => match precision {
            Some(most) => text.chars().take(most).collect(),
            None => text.clone(),
        },
        ('v', value) => text(value),
        ('q', Value::String(text)) => machinery::field::go_quote(text),
        ('d', Value::Number(number)) if !number.is_f64() => number.to_string(),
        ('x', Value::Number(number)) if number.as_i64().is_some() => format!("{:x}", number.as_i64().unwrap_or(0)),
        ('f', Value::Number(number)) if number.is_f64() => {
            format!("{:.*}", precision.unwrap_or(6), number.as_f64().unwrap_or(0.0))
        }
        ('g', Value::Number(number)) if number.is_f64() => yaml::go_float(number.as_f64().unwrap_or(0.0)),
        ('t', Value::Bool(flag)) => flag.to_string(),
        ('T', value) => kind(value).to_owned(),
        (verb, value) => return format!("%!{verb}({}={})", kind(value), text(value)),
    };
    let (left, zero) = (width.contains('-'), width.starts_with('0'));
    let wanted: usize = width.trim_start_matches(['-', '+', ' ', '#', '0']).parse().unwrap_or(0);
    match (left, zero) {
        (true, _) => format!("{body:<wanted$}"),
        (false, true) if !value.is_string() => format!("{body:0>wanted$}"),
        _ => format!("{body:>wanted$}"),
    }
}

fn html(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

fn js(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\'' => out.push_str("\\'"),
            '"' => out.push_str("\\\""),
            '<' | '>' | '&' | '=' => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            other => out.push(other),
        }
    }
    out
}
