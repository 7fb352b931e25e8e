//! Pod templates: when two are the same, and the hash that stands for one.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use machinery::quantity::Quantity;
use serde::Serialize;
use serde_json::Value;

/// Maps of which an empty one means the same as none. Empty structures do mean something (`emptyDir: {}`).
const MAPS: &[&str] = &["labels", "annotations", "nodeSelector", "limits", "requests", "overhead", "matchLabels"];
/// Maps of quantities.
const QUANTITIES: &[&str] = &["limits", "requests", "overhead"];
/// Booleans whose absence means `false`.
const SWITCHES: &[&str] = &["hostNetwork", "hostPID", "hostIPC", "stdin", "stdinOnce", "tty", "readOnly"];

/// Whether templates mean the same, but for a label.
pub(crate) fn same_but_for(label: &str, a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    let (a, b) = (without(label, a), without(label, b));
    a == b || normalized(&a) == normalized(&b)
}

fn without(label: &str, template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    if let Some(labels) = template.metadata.as_mut().and_then(|m| m.labels.as_mut()) {
        labels.remove(label);
    }
    template
}

/// The hash of a template for labels and names. `collisions` makes another one when the name is taken.
pub(crate) fn hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let mut text = normalized(template).to_string();
    if let Some(collisions) = collisions {
        text.push_str(&collisions.to_string());
    }
    util::safe_encode(&util::fnv32a(text.as_bytes()).to_string())
}

/// A form in which what means the same is the same.
pub(crate) fn normalized(value: &impl Serialize) -> Value {
    let mut value = serde_json::to_value(value).unwrap_or_default();
    normalize(&mut value);
    value
}

fn normalize(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                normalize(field);
                if QUANTITIES.contains(&name.as_str()) {
                    canonical(field);
                }
            }
            fields.retain(|name, field| match field {
                Value::Null => false,
                Value::Array(items) => !items.is_empty(),
                Value::String(text) => !text.is_empty(),
                Value::Object(map) => !map.is_empty() || !MAPS.contains(&name.as_str()),
                Value::Bool(on) => *on || !SWITCHES.contains(&name.as_str()),
                Value::Number(_) => true,
            });
        }
        Value::Array(items) => items.iter_mut().for_each(normalize),
        _ => {}
    }
}

fn canonical(quantities: &mut Value) {
    for quantity in quantities.as_object_mut().into_iter().flat_map(|m| m.values_mut()) {
        let parsed = quantity.as_str().and_then(|text| Quantity::parse(text).ok());
        if let Some(parsed) = parsed {
            *quantity = Value::String(parsed.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn template(value: Value) -> PodTemplateSpec {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn meaning_decides() {
        let one = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c",
            "resources": {"requests": {"cpu": "1000m"}}}], "volumes": []}});
        let same = json!({"metadata": {"labels": {"a": "b", "hash": "x"}, "annotations": {}}, "spec": {
            "hostNetwork": false, "containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}});
        let other = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "d"}]}});
        assert!(same_but_for("hash", &template(one.clone()), &template(same)));
        assert!(!same_but_for("hash", &template(one), &template(other)));
        let volume = |v: Value| template(json!({"spec": {"containers": [], "volumes": [v]}}));
        let (with, bare) = (volume(json!({"name": "v", "emptyDir": {}})), volume(json!({"name": "v"})));
        assert!(!same_but_for("hash", &with, &bare));
    }

    #[test]
    fn hashes_differ_by_template_and_collisions() {
        let one = template(json!({"spec": {"containers": [{"name": "c"}]}}));
        let two = template(json!({"spec": {"containers": [{"name": "d"}]}}));
        let hashes = [hash(&one, None), hash(&one, Some(0)), hash(&one, Some(1)), hash(&two, None)];
        for (at, h) in hashes.iter().enumerate() {
            assert!(h.len() <= 10 && h.bytes().all(|b| b"bcdfghjklmnpqrstvwxz2456789".contains(&b)), "{h}");
            assert!(!hashes[..at].contains(h));
        }
    }
}
