//! Fields by paths such as `spec/template/metadata/labels`; `[]` after a name means each element of a list.

use serde_json::{Map, Value};

/// Calls `change` with the field at the end of a path, in the map that holds it. Maps that are missing are made if `create`.
pub(super) fn visit(
    value: &mut Value,
    path: &[&str],
    create: bool,
    change: &mut impl FnMut(&mut Map<String, Value>, &str),
) {
    let Value::Object(map) = value else { return };
    match path {
        [] => {}
        [last] => change(map, last),
        [first, rest @ ..] => {
            let (name, is_list) = first.strip_suffix("[]").map_or((*first, false), |name| (name, true));
            if map.get(name).is_none_or(Value::is_null) {
                if !create || is_list {
                    return;
                }
                map.insert(name.to_owned(), Value::Object(Map::new()));
            }
            match map.get_mut(name) {
                Some(Value::Array(items)) => items.iter_mut().for_each(|item| visit(item, rest, create, change)),
                Some(inner) => visit(inner, rest, create, change),
                None => {}
            }
        }
    }
}

/// Adds entries to the map at a path.
pub(super) fn add_entries<'a>(
    object: &mut Value,
    path: &str,
    create: bool,
    entries: impl IntoIterator<Item = (&'a String, &'a String)> + Clone,
) {
    let parts: Vec<&str> = path.split('/').collect();
    visit(object, &parts, create, &mut |map, last| {
        if !create && !map.contains_key(last) {
            return;
        }
        let target = map.entry(last.to_owned()).or_insert_with(|| Value::Object(Map::new()));
        if target.is_null() {
            *target = Value::Object(Map::new());
        }
        if let Value::Object(target) = target {
            target.extend(entries.clone().into_iter().map(|(key, value)| (key.clone(), value.as_str().into())));
        }
    });
}
