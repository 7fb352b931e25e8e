//! Reading fields of objects that may lack them, and the small texts made of them.

use std::collections::BTreeMap;

use machinery::{quantity::Quantity, selector::LabelSelector};
use serde_json::Value;

/// A string field; empty when absent.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

/// A whole number; zero when absent.
pub(crate) fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

/// A flag; false when absent.
pub(crate) fn flag(value: &Value) -> bool {
    value.as_bool().unwrap_or(false)
}

/// The items of a list; none when absent.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The strings of a list.
pub(crate) fn texts(value: &Value) -> Vec<&str> {
    list(value).iter().map(text).collect()
}

/// A map in the order of its keys.
pub(crate) fn sorted(value: &Value) -> BTreeMap<&str, &Value> {
    value.as_object().into_iter().flatten().map(|(k, v)| (k.as_str(), v)).collect()
}

/// Number or string, as it is shown.
pub(crate) fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// A quantity in canonical form.
pub(crate) fn quantity(value: &Value) -> String {
    let text = scalar(value);
    if text.is_empty() {
        return "0".into();
    }
    Quantity::parse(&text).map_or(text, |q| q.to_string())
}

/// `True` or `False`.
pub(crate) fn title_bool(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}

/// A value, or another when it is empty.
pub(crate) fn or<'a>(text: &'a str, other: &'a str) -> &'a str {
    if text.is_empty() { other } else { text }
}

/// Label selector of an object, `<none>` for none and for one that selects everything.
pub(crate) fn selector(value: &Value) -> String {
    if value.is_null() {
        return "<none>".into();
    }
    match LabelSelector::from_object(value) {
        Ok(selector) => or(&selector.to_string(), "<none>").to_owned(),
        Err(_) => "<error>".into(),
    }
}

/// `k=v,k=v` in the order of keys, `<none>` when there are none.
pub(crate) fn label_text(value: &Value) -> String {
    let pairs: Vec<String> = sorted(value).iter().map(|(k, v)| format!("{k}={}", scalar(v))).collect();
    or(&pairs.join(","), "<none>").to_owned()
}

/// Short names of access modes in their fixed order.
pub(crate) fn access_modes(value: &Value) -> String {
    let modes = texts(value);
    let known =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    known.iter().filter(|(mode, _)| modes.contains(mode)).map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

/// `Kind/name` of the controlling owner.
pub(crate) fn controller(object: &Value) -> Option<String> {
    let owners = list(&object["metadata"]["ownerReferences"]);
    let owner = owners.iter().find(|owner| flag(&owner["controller"]))?;
    Some(format!("{}/{}", text(&owner["kind"]), text(&owner["name"])))
}
