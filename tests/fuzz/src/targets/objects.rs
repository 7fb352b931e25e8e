//! Objects: decoded, checked, changed.

use std::sync::LazyLock;

use machinery::{
    GroupVersion, GroupVersionKind,
    decode::{check_fields, decode_json, decode_yaml},
    managed::{self, Writer},
    patch,
    schema::SchemaRef,
};
use rules::strategy::{Context, for_kind};
use schema::structural::{RuleBudget, Schema, apply_defaults, check::check, check_rules, prune, validate};
use serde_json::Value;

use crate::seeds;

static OBJECTS: LazyLock<Vec<Value>> = LazyLock::new(seeds::objects);
const NOW: &str = "2026-01-01T00:00:00Z";

fn kind_of(object: &Value) -> Option<GroupVersionKind> {
    let version = GroupVersion::parse(object.get("apiVersion")?.as_str()?)?;
    Some(GroupVersionKind::new(version.group, version.version, object.get("kind")?.as_str()?))
}

/// What is decoded is the same again when it is written and decoded.
fn is_stable(value: &Value) {
    let text = value.to_string();
    match decode_json(text.as_bytes()) {
        Ok((again, _)) => assert_eq!(&again, value),
        Err(error) => panic!("{text}: {error}"),
    }
}

pub(super) fn json(bytes: &[u8]) {
    if let Ok((value, _)) = decode_json(bytes) {
        is_stable(&value);
    }
}

pub(super) fn yaml(bytes: &[u8]) {
    if let Ok((value, _)) = decode_yaml(bytes) {
        is_stable(&value);
    }
}

pub(super) fn protobuf(bytes: &[u8]) {
    let Ok((gvk, object)) = api::decode::decode(bytes) else { return };
    let Ok(again) = api::encode::encode(&object) else { return };
    match api::decode::decode(&again) {
        Ok(same) => assert_eq!(same, (gvk, object)),
        Err(error) => panic!("{object}: {error}"),
    }
}

/// An object as it is after decoding, if a server would go on with it.
fn decoded(bytes: &[u8]) -> Option<(Value, GroupVersionKind)> {
    let (mut object, _) = decode_json(bytes).ok()?;
    let gvk = kind_of(&object)?;
    let schema = api::api().schema(&gvk)?;
    let problems = check_fields(&mut object, schema);
    (problems.type_error().is_none() && object.get("metadata").is_none_or(Value::is_object)).then_some((object, gvk))
}

/// Creates and updates of built-in kinds.
pub(super) fn rules(bytes: &[u8]) {
    let Some((mut object, gvk)) = decoded(bytes) else { return };
    let Some(strategy) = for_kind(&gvk) else { return };
    let context = Context { now: NOW, user: "u", user_uid: "", groups: &[], extra: None };
    if object.get("metadata").is_none() {
        object["metadata"] = Value::Object(serde_json::Map::new());
    }
    strategy.defaults(&mut object);
    let defaulted = object.clone();
    strategy.defaults(&mut object);
    assert_eq!(defaulted, object, "defaults are filled once");
    let mut created = object.clone();
    strategy.prepare_create(&mut created, &context);
    strategy.validate_create(&created);
    strategy.warnings(&created, None);
    let same_kind =
        |old: &&Value| old.get("kind") == object.get("kind") && old.get("apiVersion") == object.get("apiVersion");
    let Some(mut old) = OBJECTS.iter().find(same_kind).cloned() else { return };
    strategy.defaults(&mut old);
    for subresource in ["", "status"] {
        let mut new = object.clone();
        strategy.prepare_update(&mut new, &old, subresource, &context);
        strategy.validate_update(&new, &old, subresource);
        strategy.warnings(&new, Some(&old));
    }
}

/// The object that the first byte chooses, its schema, and the patch after it.
fn patched(bytes: &[u8]) -> Option<(&'static Value, SchemaRef<'static>, Value)> {
    let (first, patch) = bytes.split_first()?;
    let object = OBJECTS.get(usize::from(*first) % OBJECTS.len())?;
    let schema = api::api().schema(&kind_of(object)?)?;
    Some((object, schema, decode_json(patch).ok()?.0))
}

pub(super) fn json_patch(bytes: &[u8]) {
    if let Some((object, _, patch)) = patched(bytes)
        && let Ok(new) = patch::json::apply(object, &patch)
    {
        assert!(new.to_string().len() < 64 << 20, "patches do not grow without bound");
    }
}

pub(super) fn merge_patch(bytes: &[u8]) {
    if let Some((object, _, patch)) = patched(bytes)
        && let Ok(new) = patch::merge::apply(object, &patch)
    {
        assert_eq!(patch::merge::apply(&new, &patch).ok(), Some(new), "the same patch again changes nothing");
    }
}

pub(super) fn strategic_patch(bytes: &[u8]) {
    if let Some((object, schema, patch)) = patched(bytes)
        && let Ok(new) = patch::strategic::apply(object, &patch, schema)
    {
        assert!(new.to_string().len() < 64 << 20, "patches do not grow without bound");
    }
}

pub(super) fn apply(bytes: &[u8]) {
    let Some((object, schema, config)) = patched(bytes) else { return };
    if !config.is_object() {
        return;
    }
    let api_version = object["apiVersion"].as_str().unwrap_or_default();
    let writer = |manager| Writer { manager, api_version, subresource: "", now: NOW };
    let mut live = object.clone();
    if managed::update(None, &mut live, &writer("creator"), schema).is_err() {
        return;
    }
    let Ok(applied) = managed::apply(Some(&live), &config, &writer("applier"), true, schema) else { return };
    match managed::apply(Some(&applied), &config, &writer("applier"), false, schema) {
        Ok(again) => assert_eq!(again, applied, "the same configuration again changes nothing"),
        Err(error) => panic!("the same configuration again is refused: {error}"),
    }
    let mut updated = applied.clone();
    let tracked = managed::update(Some(&live), &mut updated, &writer("updater"), schema);
    assert!(tracked.is_ok(), "{tracked:?}");
}

/// A schema of custom resources in the first line, an object in the second.
pub(super) fn schema(bytes: &[u8]) {
    let mut lines = bytes.splitn(2, |byte| *byte == b'\n');
    let mut value = || decode_json(lines.next()?).ok().map(|(value, _)| value);
    let (Some(described), Some(mut object)) = (value(), value()) else { return };
    let errors = check(&described, &machinery::field::Path::new("openAPIV3Schema"));
    // What a definition may not have is never compiled.
    if !errors.is_empty() {
        return;
    }
    let schema = Schema::compile(&described);
    prune(&mut object, &schema);
    apply_defaults(&mut object, &schema);
    let pruned = object.clone();
    prune(&mut object, &schema);
    assert_eq!(pruned, object, "what was pruned stays as it is");
    if validate(&object, None, &schema).is_empty() {
        check_rules(&object, Some(&object), &schema, &mut RuleBudget::default());
    }
}
