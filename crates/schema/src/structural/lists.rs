//! Lists that hold each item once.

use std::collections::HashSet;

use machinery::field::{ErrorList, Path};
use serde_json::{Map, Value};

use super::{ListType, Schema};

/// What identifies an item of a list: the item of a set, the key fields of a map.
pub(super) fn identity(item: &Value, list: &ListType, items: Option<&Schema>) -> Option<Value> {
    match list {
        ListType::Atomic => None,
        ListType::Set => Some(item.clone()),
        ListType::Map(keys) => {
            let mut found = Map::new();
            for key in keys {
                let default = || items.and_then(|s| s.property(key)).and_then(|p| p.default.as_deref()).cloned();
                if let Some(value) = item.get(&**key).cloned().or_else(default) {
                    found.insert(key.to_string(), value);
                }
            }
            Some(Value::Object(found))
        }
    }
}

/// Reports items that stand twice in sets and maps.
pub(super) fn duplicates(list: &[Value], schema: &Schema, path: &Path, errors: &mut ErrorList) {
    if schema.list == ListType::Atomic {
        return;
    }
    let mut seen = HashSet::new();
    let mut told = HashSet::new();
    for (at, item) in list.iter().enumerate() {
        let Some(identity) = identity(item, &schema.list, schema.items.as_deref()) else { continue };
        let text = identity.to_string();
        if !seen.insert(text.clone()) && told.insert(text) {
            errors.duplicate(&path.index(at), &identity);
        }
    }
}
