//! Patches: strategic merge with new elements in front, and JSON patches (RFC 6902).

use machinery::schema::SchemaRef;
use serde_json::{Map, Value};

use super::{
    KustomizeError,
    file::{Kustomization, Patch},
    item::{Choice, Item},
    load,
    load::Root,
};

const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";

/// Patches of the old and the new fields but `patchesJson6902`, which comes later.
pub(super) fn run(file: &Kustomization, root: &Root, items: &mut Vec<Item>) -> Result<(), KustomizeError> {
    for entry in &file.patches_strategic_merge {
        // A path, or the patch itself.
        let text = match load::inside(root, entry) {
            Ok(text) => text,
            Err(_) if entry.contains('\n') || entry.contains(':') => entry.clone().into_bytes(),
            Err(error) => return Err(error),
        };
        for patch in documents(&text)? {
            by_its_name(items, &patch)?;
        }
    }
    file.patches.iter().try_for_each(|patch| one(patch, root, items))
}

/// One entry of `patches` or `patchesJson6902`.
pub(super) fn one(patch: &Patch, root: &Root, items: &mut Vec<Item>) -> Result<(), KustomizeError> {
    let config = || match patch.path.as_str() {
        "" => format!("\npatch: {}\n", crate::print::yaml::encode(&Value::from(patch.patch.as_str())).trim_end()),
        path => format!("\npath: {path}\n"),
    };
    let failed = |text: String| {
        KustomizeError::plain(format!(
            "trouble configuring builtin PatchTransformer with config: `{}`: {text}",
            config()
        ))
    };
    let text = match (patch.path.as_str(), patch.patch.as_str()) {
        ("", "") => return Err(failed("must specify one of patch and path in\n".to_owned() + &config())),
        ("", text) => text.as_bytes().to_vec(),
        (path, "") => load::inside(root, path)
            .map_err(|e| failed(format!("failed to get the patch file from path({path}): {e}")))?,
        _ => return Err(failed("patch and path can't be set at the same time\n".to_owned() + &config())),
    };
    let shown = || String::from_utf8_lossy(&text).trim().to_owned();
    let unreadable = || failed(format!("unable to parse SM or JSON patch from [{}]", shown()));
    let found = documents(&text).map_err(|_| unreadable())?;
    let is_json = found.len() == 1 && found[0].is_array();
    match &patch.target {
        Some(target) => {
            let choice = Choice::new(target)?;
            for document in &found {
                to_chosen(items, &choice, document, patch)?;
            }
            Ok(())
        }
        None if is_json => Err(KustomizeError::plain(format!("must specify a target for JSON patch {}", shown()))),
        None => found.iter().try_for_each(|document| by_its_name(items, document)),
    }
}

fn to_chosen(items: &mut Vec<Item>, choice: &Choice, patch: &Value, entry: &Patch) -> Result<(), KustomizeError> {
    let allows = |option: &str| entry.options.get(option).copied().unwrap_or(false);
    let mut kept = Vec::with_capacity(items.len());
    for mut item in items.drain(..) {
        if !choice.fits(&item)? {
            kept.push(item);
            continue;
        }
        if patch.is_array() {
            item.object = machinery::patch::json::apply(&item.object, patch)
                .map_err(|e| KustomizeError::plain(e.status().message.clone()))?;
        } else {
            let (name, kind) = (item.name().to_owned(), item.kind().to_owned());
            let Some(mut object) = strategic(&item.object, patch) else { continue };
            if !allows("allowNameChange") {
                machinery::meta::metadata_mut(&mut object).insert("name".into(), name.into());
            }
            if !allows("allowKindChange") {
                object["kind"] = kind.into();
            }
            item.remember();
            item.object = object;
        }
        kept.push(item);
    }
    *items = kept;
    Ok(())
}

/// A patch that names what it is for.
fn by_its_name(items: &mut Vec<Item>, patch: &Value) -> Result<(), KustomizeError> {
    let wanted = Item::new(patch.clone());
    let Some(at) = items.iter().position(|item| item.was(&wanted)) else {
        return Err(KustomizeError::plain(format!(
            "no resource matches strategic merge patch {:?}: no matches for Id {}; failed to find unique target for patch {}",
            wanted.id(),
            wanted.id(),
            wanted.id()
        )));
    };
    let (name, namespace) = (items[at].name().to_owned(), items[at].namespace().to_owned());
    match strategic(&items[at].object, patch) {
        None => {
            items.remove(at);
        }
        Some(mut object) => {
            let metadata = machinery::meta::metadata_mut(&mut object);
            metadata.insert("name".into(), name.into());
            if !namespace.is_empty() {
                metadata.insert("namespace".into(), namespace.into());
            }
            items[at].object = object;
        }
    }
    Ok(())
}

fn documents(text: &[u8]) -> Result<Vec<Value>, KustomizeError> {
    crate::resolve::files::documents(text, "patch").map_err(|e| KustomizeError::plain(e.to_string()))
}

/// The patched object; `None` when the patch deletes it.
pub(super) fn strategic(current: &Value, patch: &Value) -> Option<Value> {
    let schema = crate::print::declared::schema(current);
    let (Value::Object(current), Value::Object(patch)) = (current, patch) else { return Some(patch.clone()) };
    merged(Some(current), patch, schema).map(Value::Object)
}

/// Maps: `null` removes, `$patch` deletes or replaces.
fn merged(
    current: Option<&Map<String, Value>>,
    patch: &Map<String, Value>,
    schema: Option<SchemaRef<'_>>,
) -> Option<Map<String, Value>> {
    let mut result = match patch.get(DIRECTIVE).and_then(Value::as_str) {
        Some("delete") => return None,
        Some("replace") => Map::new(),
        _ => current.cloned().unwrap_or_default(),
    };
    if let Some(kept) = patch.get(RETAIN).and_then(Value::as_array) {
        result.retain(|key, _| kept.iter().any(|k| k.as_str() == Some(key)));
    }
    for (key, value) in patch.iter().filter(|(key, _)| !key.starts_with('$')) {
        let inner = schema.and_then(|schema| schema.field(key));
        match value {
            Value::Null => {
                result.remove(key);
            }
            Value::Object(patch) => match merged(result.get(key).and_then(Value::as_object), patch, inner) {
                Some(map) => {
                    result.insert(key.clone(), Value::Object(map));
                }
                None => {
                    result.remove(key);
                }
            },
            Value::Array(items) => {
                let fact = schema.and_then(|schema| schema.field_fact(key)).filter(|fact| fact.patch_merge);
                let old = result.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
                let list = match fact {
                    Some(fact) => list(old, items, fact.merge_key.as_deref(), inner.and_then(SchemaRef::item)),
                    None => items.clone(),
                };
                result.insert(key.clone(), Value::Array(list));
            }
            scalar => {
                result.insert(key.clone(), scalar.clone());
            }
        }
    }
    Some(result)
}

/// Lists that are merged: elements of the patch in its order, then those that it does not name.
fn list(mut old: Vec<Value>, patch: &[Value], key: Option<&str>, schema: Option<SchemaRef<'_>>) -> Vec<Value> {
    let is_replaced = |item: &Value| {
        item.get(DIRECTIVE).and_then(Value::as_str) == Some("replace")
            && item.as_object().is_some_and(|map| map.len() == 1)
    };
    if patch.iter().any(is_replaced) {
        return patch.iter().filter(|item| !is_replaced(item)).cloned().collect();
    }
    let Some(key) = key else {
        let mut all = patch.to_vec();
        all.extend(old.into_iter().filter(|item| !patch.contains(item)));
        return all;
    };
    let mut all = Vec::new();
    for item in patch {
        let same = |other: &Value| other.get(key).is_some() && other.get(key) == item.get(key);
        let there = old.iter().position(same).map(|at| old.remove(at));
        let Value::Object(map) = item else { continue };
        all.extend(merged(there.as_ref().and_then(Value::as_object), map, schema).map(Value::Object));
    }
    all.extend(old);
    all
}
