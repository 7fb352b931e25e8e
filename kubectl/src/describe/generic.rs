//! Kinds without a layout of their own: all fields by their names.

use serde_json::Value;

use super::{
    Facts, events,
    page::{Page, put},
    read::{sorted, text},
};

/// Fields that are shown otherwise or not at all.
const SKIPPED: [&str; 5] =
    ["metadata.managedFields", "metadata.name", "metadata.namespace", "metadata.labels", "metadata.annotations"];
/// Words that stay in capitals.
const ACRONYMS: [&str; 5] = ["API", "URL", "UID", "OSB", "GUID"];

/// Any object.
pub(crate) fn generic(page: &mut Page, object: &Value, facts: &Facts) {
    put!(page, 0, "Name:\t{}", text(&object["metadata"]["name"]));
    put!(page, 0, "Namespace:\t{}", text(&object["metadata"]["namespace"]));
    events::metadata(page, object);
    fields(page, 0, object, "");
    events::events(page, facts.events());
}

fn fields(page: &mut Page, level: usize, object: &Value, path: &str) {
    for (key, value) in sorted(object) {
        let path = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        if SKIPPED.contains(&path.as_str()) {
            continue;
        }
        match value {
            Value::Object(_) => {
                put!(page, level, "{}:", title(key));
                fields(page, level + 1, value, &path);
            }
            Value::Array(items) => {
                put!(page, level, "{}:", title(key));
                for item in items {
                    match item {
                        Value::Object(_) => fields(page, level + 1, item, &path),
                        other => put!(page, level + 1, "{}", go_value(other, "<nil>")),
                    }
                }
            }
            other => put!(page, level, "{}:\t{}", title(key), go_value(other, "<nil>")),
        }
    }
}

/// A value as Go prints it, `absent` for null.
pub(crate) fn go_value(value: &Value, absent: &str) -> String {
    match value {
        Value::Null => absent.to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| go_value(item, "<nil>")).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(_) => {
            let pairs: Vec<String> =
                sorted(value).iter().map(|(k, v)| format!("{k}:{}", go_value(v, "<nil>"))).collect();
            format!("map[{}]", pairs.join(" "))
        }
        other => other.to_string(),
    }
}

/// `creationTimestamp` as `Creation Timestamp`.
fn title(field: &str) -> String {
    if field.chars().any(|c| !c.is_alphabetic() && c != '-') {
        return field.to_owned();
    }
    let words: Vec<String> = words(field)
        .into_iter()
        .map(|word| {
            let upper = word.to_uppercase();
            if ACRONYMS.contains(&upper.as_str()) {
                return upper;
            }
            let mut letters = word.chars();
            letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
        })
        .collect();
    words.join(" ")
}

/// Splits between a small letter and a capital, before the last capital of several, and around dashes.
fn words(field: &str) -> Vec<String> {
    let class = |c: char| {
        if c.is_lowercase() {
            1
        } else if c.is_uppercase() {
            2
        } else {
            3
        }
    };
    let mut words: Vec<String> = Vec::new();
    let mut last = 0;
    for c in field.chars() {
        match words.last_mut() {
            Some(word) if class(c) == last => word.push(c),
            _ => words.push(c.to_string()),
        }
        last = class(c);
    }
    for at in 1..words.len() {
        let (before, after) = words.split_at_mut(at);
        let Some(capitals) = before.last_mut() else { continue };
        let small = after[0].chars().next().is_some_and(char::is_lowercase);
        let is_capital = capitals.chars().next().is_some_and(char::is_uppercase);
        if let Some(last) = (small && is_capital).then(|| capitals.pop()).flatten() {
            after[0].insert(0, last);
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_become_titles() {
        for (field, expected) in [
            ("apiVersion", "API Version"),
            ("creationTimestamp", "Creation Timestamp"),
            ("uid", "UID"),
            ("openAPIV3Schema", "openAPIV3Schema"),
            ("x-kubernetes-list-type", "X - Kubernetes - List - Type"),
            ("seLinuxMount", "Se Linux Mount"),
            ("PDFLoader", "PDF Loader"),
            ("a.b/c", "a.b/c"),
        ] {
            assert_eq!(title(field), expected);
        }
    }

    #[test]
    fn values_are_printed_as_go_does() {
        assert_eq!(go_value(&json!([1, {"b": null, "a": [true]}]), ""), "[1 map[a:[true] b:<nil>]]");
    }
}
