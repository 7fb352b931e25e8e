//! Changes to containers, and the patches that make them.

use serde_json::{Map, Value, json};

use super::{Change, fits, nested, pod_spec, with_pod_spec};
use crate::{error::CommandError, resolve::Info};

/// Lists of containers in the order in which they are changed.
pub(super) const LISTS: [&str; 2] = ["containers", "initContainers"];

/// Changes the containers whose names fit; `edit` tells by its answer that it was about the container.
pub(super) fn change(
    info: &Info,
    pattern: &str,
    mut edit: impl FnMut(&mut Value) -> Result<(), CommandError>,
) -> Result<(Change, usize), CommandError> {
    let (path, before) = pod_spec(info)?;
    let mut after = before.clone();
    let mut matched = 0;
    let mut patch = Map::new();
    for list in LISTS {
        let Some(containers) = after.get_mut(list).and_then(Value::as_array_mut) else { continue };
        let mut patches = Vec::new();
        for container in containers {
            if !fits(pattern, container["name"].as_str().unwrap_or("")) {
                continue;
            }
            matched += 1;
            let old = container.clone();
            edit(container)?;
            if *container != old {
                patches.push(container_patch(&old, container));
            }
        }
        if !patches.is_empty() {
            patch.insert(list.to_owned(), Value::Array(patches));
        }
    }
    if patch.is_empty() {
        return Ok((Change::None, matched));
    }
    let object = with_pod_spec(&info.object, path, after);
    Ok((Change::To { object, patch: nested(path, Value::Object(patch)) }, matched))
}

/// The strategic merge patch of one container.
fn container_patch(old: &Value, new: &Value) -> Value {
    let mut patch = Map::new();
    patch.insert("name".into(), new["name"].clone());
    if old["image"] != new["image"] {
        patch.insert("image".into(), new["image"].clone());
    }
    if old["resources"] != new["resources"] {
        patch.insert("resources".into(), new["resources"].clone());
    }
    if old["env"] != new["env"] {
        let (items, order) = env_patch(&old["env"], &new["env"]);
        patch.insert("$setElementOrder/env".into(), order);
        patch.insert("env".into(), items);
    }
    Value::Object(patch)
}

/// Changed, new and removed variables, and the order of all.
fn env_patch(old: &Value, new: &Value) -> (Value, Value) {
    let items = |list: &Value| list.as_array().cloned().unwrap_or_default();
    let (old, new) = (items(old), items(new));
    let find = |list: &[Value], name: &Value| list.iter().find(|item| item["name"] == *name).cloned();
    let mut patch: Vec<Value> = Vec::new();
    for item in &new {
        match find(&old, &item["name"]) {
            Some(before) if before == *item => {}
            Some(before) => {
                let mut item = item.clone();
                for field in ["value", "valueFrom"] {
                    if item.get(field).is_none() && before.get(field).is_some() {
                        item[field] = Value::Null;
                    }
                }
                patch.push(item);
            }
            None => patch.push(item.clone()),
        }
    }
    let removed = old.iter().filter(|item| find(&new, &item["name"]).is_none());
    patch.extend(removed.map(|item| json!({"$patch": "delete", "name": item["name"]})));
    let order = new.iter().map(|item| json!({"name": item["name"]})).collect();
    (Value::Array(patch), Value::Array(order))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_patched_by_name() {
        let old = json!([{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {}}, {"name": "C"}]);
        let new = json!([{"name": "A", "value": "1"}, {"name": "B", "value": "2"}, {"name": "D", "value": "3"}]);
        let (patch, order) = env_patch(&old, &new);
        let expected = json!([
            {"name": "B", "value": "2", "valueFrom": null},
            {"name": "D", "value": "3"},
            {"$patch": "delete", "name": "C"},
        ]);
        assert_eq!(patch, expected);
        assert_eq!(order, json!([{"name": "A"}, {"name": "B"}, {"name": "D"}]));
    }
}
