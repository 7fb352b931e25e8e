//! Reading value trees and comparing them as API equality does.

use machinery::quantity::Quantity;
use serde_json::Value;

/// Non-pointer booleans and numbers: their zero value and their absence are the same.
const PLAIN: [&str; 9] =
    ["hostNetwork", "hostPID", "hostIPC", "stdin", "stdinOnce", "tty", "readOnly", "hostPort", "initialDelaySeconds"];
/// Maps and fields that hold quantities.
const QUANTITIES: [&str; 4] = ["limits", "requests", "sizeLimit", "divisor"];

/// A text field, empty when absent.
pub(crate) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or("")
}

/// A list field, empty when absent.
pub(crate) fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A number field.
pub(super) fn number(value: &Value, field: &str) -> Option<i64> {
    value.get(field).and_then(Value::as_i64)
}

/// Whether a boolean field is true.
pub(super) fn is_true(value: &Value, field: &str) -> bool {
    value.get(field).and_then(Value::as_bool) == Some(true)
}

/// A field that is there and not null.
pub(crate) fn present<'a>(value: &'a Value, field: &str) -> Option<&'a Value> {
    value.get(field).filter(|v| !v.is_null())
}

/// A map field as pairs, none when absent.
pub(super) fn pairs<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    value.get(field).and_then(Value::as_object).into_iter().flatten()
}

/// Whether two fields called `name` are equal: absent is the same as empty, quantities compare by value.
pub(super) fn same(name: &str, a: Option<&Value>, b: Option<&Value>) -> bool {
    let (a, b) = (a.filter(|v| !is_absent(name, v)), b.filter(|v| !is_absent(name, v)));
    match (a, b) {
        (None, None) => true,
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            let inside = |key: &str| if QUANTITIES.contains(&name) { name.to_owned() } else { key.to_owned() };
            let mut keys = a.keys().chain(b.keys());
            keys.all(|key| same(&inside(key), a.get(key), b.get(key)))
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same("", Some(a), Some(b)))
        }
        (Some(Value::String(a)), Some(Value::String(b))) if QUANTITIES.contains(&name) => {
            match (Quantity::parse(a), Quantity::parse(b)) {
                (Ok(a), Ok(b)) => a == b,
                _ => a == b,
            }
        }
        (a, b) => a == b,
    }
}

fn is_absent(name: &str, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.iter().all(|(key, value)| is_absent(key, value)),
        Value::Bool(false) => PLAIN.contains(&name),
        Value::Number(n) => n.as_i64() == Some(0) && PLAIN.contains(&name),
        Value::Bool(true) => false,
    }
}

/// The top fields in which two objects differ, one line removed and one added for each.
pub(super) fn difference(new: &Value, old: &Value) -> String {
    let mut keys: Vec<&String> = [old, new].iter().filter_map(|v| v.as_object()).flat_map(|m| m.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    let mut out = String::new();
    for key in keys.into_iter().filter(|key| !same(key, new.get(*key), old.get(*key))) {
        for (sign, side) in [('-', old), ('+', new)] {
            if let Some(value) = present(side, key) {
                out.push_str(&format!("{sign} {key}: {value}\n"));
            }
        }
    }
    out
}
