//! Pieces that cells are made of.

use machinery::{duration::human, meta, selector::LabelSelector, time::parse};
use serde_json::{Value, json};
use time::OffsetDateTime;

pub(super) const NONE: &str = "<none>";
pub(super) const UNSET: &str = "<unset>";
pub(super) const UNKNOWN: &str = "<unknown>";

/// The text at a JSON pointer, or `""`.
pub(super) fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    object.pointer(path).and_then(Value::as_str).unwrap_or("")
}

/// The text at a JSON pointer, or a placeholder if absent or empty.
pub(super) fn text_or<'a>(object: &'a Value, path: &str, placeholder: &'a str) -> &'a str {
    match text(object, path) {
        "" => placeholder,
        found => found,
    }
}

/// The integer at a JSON pointer, or 0.
pub(super) fn number(object: &Value, path: &str) -> i64 {
    object.pointer(path).and_then(Value::as_i64).unwrap_or(0)
}

/// The items of the list at a JSON pointer.
pub(super) fn list<'a>(object: &'a Value, path: &str) -> std::slice::Iter<'a, Value> {
    object.pointer(path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default().iter()
}

pub(super) fn name(object: &Value) -> Value {
    json!(meta::name(object))
}

/// Age since creation.
pub(super) fn age(object: &Value, now: OffsetDateTime) -> Value {
    json!(since(meta::text(object, "creationTimestamp"), now))
}

/// Time passed since a time stamp.
pub(super) fn since(stamp: &str, now: OffsetDateTime) -> String {
    match parse(stamp) {
        Ok(at) => human((now - at).whole_seconds()),
        Err(_) => UNKNOWN.into(),
    }
}

/// `k=v,k=v`, sorted, or `<none>`.
pub(super) fn label_map(map: Option<&Value>) -> String {
    let entries = map.and_then(Value::as_object).into_iter().flatten();
    let texts: Vec<String> = entries.map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or(""))).collect();
    if texts.is_empty() { NONE.into() } else { texts.join(",") }
}

/// A LabelSelector as text, or `<none>`.
pub(super) fn selector(selector: Option<&Value>) -> String {
    match selector.map(LabelSelector::from_object) {
        Some(Ok(selector)) if !selector.requirements().is_empty() => selector.to_string(),
        Some(Err(_)) => "<error>".into(),
        _ => NONE.into(),
    }
}

/// One field of each container, comma-joined.
pub(super) fn containers(pod_spec: Option<&Value>, field: &str) -> String {
    let list = pod_spec.and_then(|s| s.get("containers")).and_then(Value::as_array).into_iter().flatten();
    list.map(|c| c.get(field).and_then(Value::as_str).unwrap_or("")).collect::<Vec<_>>().join(",")
}

/// Short forms of access modes.
pub(super) fn access_modes(modes: Option<&Value>) -> String {
    const ORDER: [(&str, &str); 4] =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let has = |mode: &str| modes.and_then(Value::as_array).is_some_and(|l| l.iter().any(|m| m == mode));
    ORDER.iter().filter(|(mode, _)| has(mode)).map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

/// At most three of a list, then how many more there are.
pub(super) fn first_three(all: &[String], separator: &str) -> String {
    match all.len() {
        0..=3 => all.join(separator),
        n => format!("{} + {} more...", all[..3].join(separator), n - 3),
    }
}

/// The condition of a type.
pub(super) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    list(object, "/status/conditions").find(|c| c["type"] == kind)
}

/// Whether a condition is True.
pub(super) fn is_true(object: &Value, kind: &str) -> bool {
    condition(object, kind).is_some_and(|c| c["status"] == "True")
}
