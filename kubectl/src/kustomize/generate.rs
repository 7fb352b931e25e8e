//! ConfigMaps and Secrets from files, literals and environment files, and the hash in their names.

use base64::{Engine, engine::general_purpose::STANDARD};
use machinery::meta;
use serde_json::{Map, Value, json};

use super::{
    KustomizeError,
    file::{Generator, GeneratorOptions, Kustomization},
    item::Item,
    load,
    load::Root,
};
use crate::content_hash;

/// Base64 of Secrets is cut into lines of this length.
const LINE: usize = 70;

/// Runs the generators of a layer.
pub(super) fn run(file: &Kustomization, root: &Root, items: &mut Vec<Item>) -> Result<(), KustomizeError> {
    for (generators, kind) in [(&file.config_map_generator, "ConfigMap"), (&file.secret_generator, "Secret")] {
        for generator in generators {
            let item = generated(generator, kind, &file.generator_options, root)?;
            absorb(items, item, &generator.behavior)?;
        }
    }
    Ok(())
}

/// Adds a generated object, or merges it with one of its name.
fn absorb(items: &mut Vec<Item>, item: Item, behavior: &str) -> Result<(), KustomizeError> {
    let at = items.iter().position(|other| other.was(&item));
    let Some(there) = at.and_then(|at| items.get_mut(at)) else {
        if matches!(behavior, "merge" | "replace") {
            return Err(KustomizeError::plain(format!(
                "merging from generator: id {} does not exist; cannot merge or replace",
                item.id()
            )));
        }
        items.push(item);
        return Ok(());
    };
    match behavior {
        "merge" | "replace" => {
            let mut object = item.object;
            let metadata = |object: &Value, field: &str| {
                object.pointer(&format!("/metadata/{field}")).and_then(Value::as_object).cloned().unwrap_or_default()
            };
            for field in ["labels", "annotations"] {
                let mut all = metadata(&there.object, field);
                all.extend(metadata(&object, field));
                if !all.is_empty() {
                    meta::metadata_mut(&mut object).insert(field.to_owned(), Value::Object(all));
                }
            }
            for field in ["name", "namespace"] {
                if let Some(value) = there.object.pointer(&format!("/metadata/{field}")) {
                    meta::metadata_mut(&mut object).insert(field.to_owned(), value.clone());
                }
            }
            for field in ["data", "binaryData"].into_iter().filter(|_| behavior == "merge") {
                let mut all = there.object.get(field).and_then(Value::as_object).cloned().unwrap_or_default();
                all.extend(object.get(field).and_then(Value::as_object).cloned().unwrap_or_default());
                set(&mut object, field, all);
            }
            there.object = object;
            Ok(())
        }
        _ => Err(KustomizeError::plain(format!(
            "merging from generator: id {} exists; behavior must be merge or replace",
            item.id()
        ))),
    }
}

fn set(object: &mut Value, field: &str, map: Map<String, Value>) {
    if let Value::Object(fields) = object {
        match map.is_empty() {
            true => fields.remove(field),
            false => fields.insert(field.to_owned(), Value::Object(map)),
        };
    }
}

fn generated(
    generator: &Generator,
    kind: &str,
    shared: &GeneratorOptions,
    root: &Root,
) -> Result<Item, KustomizeError> {
    if generator.name.is_empty() {
        return Err(KustomizeError::plain(format!("a {} must have a name", kind.to_lowercase())));
    }
    let pairs = pairs(generator, root).map_err(|e| KustomizeError::plain(format!("loading KV pairs: {e}")))?;
    let own = generator.options.clone().unwrap_or_default();
    let mut object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": generator.name}});
    if !generator.namespace.is_empty() {
        object["metadata"]["namespace"] = generator.namespace.as_str().into();
    }
    for (field, common, special) in
        [("labels", &shared.labels, &own.labels), ("annotations", &shared.annotations, &own.annotations)]
    {
        let all: Map<String, Value> =
            common.iter().chain(special).map(|(k, v)| (k.clone(), v.as_str().into())).collect();
        if !all.is_empty() {
            object["metadata"][field] = Value::Object(all);
        }
    }
    let (mut data, mut binary) = (Map::new(), Map::new());
    for (key, value) in pairs {
        if data.contains_key(&key) || binary.contains_key(&key) {
            return Err(KustomizeError::plain(format!(
                "configmap {} illegally repeats the key `{key}`",
                generator.name
            )));
        }
        match String::from_utf8(value) {
            Ok(text) if kind == "ConfigMap" => data.insert(key, text.into()),
            Err(bytes) if kind == "ConfigMap" => binary.insert(key, in_lines(bytes.as_bytes()).into()),
            Ok(text) => data.insert(key, in_lines(text.as_bytes()).into()),
            Err(bytes) => data.insert(key, in_lines(bytes.as_bytes()).into()),
        };
    }
    set(&mut object, "data", data);
    set(&mut object, "binaryData", binary);
    if kind == "Secret" {
        object["type"] = if generator.secret_type.is_empty() { "Opaque" } else { &generator.secret_type }.into();
    }
    if shared.immutable || own.immutable {
        object["immutable"] = true.into();
    }
    let mut item = Item::new(object);
    item.hashed = !(shared.disable_name_suffix_hash || own.disable_name_suffix_hash);
    Ok(item)
}

/// Base64; what is longer than a line is cut.
fn in_lines(bytes: &[u8]) -> String {
    let text = STANDARD.encode(bytes);
    if text.len() <= LINE {
        return text;
    }
    let lines: Vec<&str> = (0..text.len()).step_by(LINE).map(|at| &text[at..(at + LINE).min(text.len())]).collect();
    format!("{}\n", lines.join("\n"))
}

/// Keys and values of a generator: environment files, then literals, then files.
fn pairs(generator: &Generator, root: &Root) -> Result<Vec<(String, Vec<u8>)>, String> {
    let mut found = Vec::new();
    let env = Some(&generator.env).filter(|env| !env.is_empty());
    for source in generator.envs.iter().chain(env) {
        let text = load::inside(root, source).map_err(|e| format!("env source files: [{source}]: {e}"))?;
        let text = String::from_utf8(text).map_err(|_| format!("env source {source} is not UTF-8"))?;
        for line in text.trim_start_matches('\u{feff}').lines() {
            let line = line.trim_start();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            found.push((key.to_owned(), value.as_bytes().to_vec()));
        }
    }
    for literal in &generator.literals {
        let pair = literal.split_once('=').filter(|(key, _)| !key.is_empty());
        let Some((key, value)) = pair else {
            return Err(format!("literal sources [{literal}]: invalid literal source {literal}, expected key=value"));
        };
        found.push((key.to_owned(), unquoted(value).as_bytes().to_vec()));
    }
    for source in &generator.files {
        let (key, path) = match source.split_once('=') {
            Some((key, path)) => (key, path),
            None => (source.rsplit('/').next().unwrap_or(source), source.as_str()),
        };
        let bytes = load::inside(root, path).map_err(|e| format!("file sources: [{source}]: {e}"))?;
        found.push((key.to_owned(), bytes));
    }
    Ok(found)
}

/// Without one pair of quotes around it.
fn unquoted(text: &str) -> &str {
    let inner = |quote: char| text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    inner('"').or_else(|| inner('\'')).unwrap_or(text)
}

/// Puts the hash of the content behind the names of generated objects.
pub(super) fn add_hashes(items: &mut [Item]) {
    for item in items.iter_mut().filter(|item| item.hashed) {
        let name = format!("{}-{}", item.name(), hash(&item.object));
        item.rename(name);
    }
}

/// The hash of a ConfigMap or Secret. Its name does not count.
fn hash(object: &Value) -> String {
    let field = |name: &str| object.get(name).cloned();
    let kind = field("kind").unwrap_or_default();
    let mut encoded = json!({"kind": kind, "name": "", "data": field("data").unwrap_or_else(|| "".into())});
    if kind == "Secret" {
        encoded["type"] = field("type").unwrap_or_default();
        encoded["stringData"] = field("stringData").unwrap_or(Value::Null);
        if encoded["stringData"].is_null()
            && let Value::Object(fields) = &mut encoded
        {
            fields.remove("stringData");
        }
    } else if let Some(binary) = field("binaryData") {
        encoded["binaryData"] = binary;
    }
    content_hash::of(&encoded)
}
