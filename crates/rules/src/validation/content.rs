//! ConfigMap and Secret.

use base64::{Engine, engine::general_purpose::STANDARD};
use machinery::{
    field::{ErrorList, Path},
    names,
};
use serde_json::{Value, json};

use super::read::{is_true, pairs, present, same, text};

/// Largest total of the values, bytes.
const LIMIT: usize = 1024 * 1024;
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const FROZEN: &str = "field is immutable when `immutable` is set";

/// Checks a new or changed ConfigMap.
pub(super) fn config_map(object: &Value, errors: &mut ErrorList) {
    let mut total = 0;
    for (key, value) in pairs(object, "data") {
        let path = Path::new("data").key(key);
        errors.invalid_all(&path, &json!(key), names::config_key(key));
        if object.get("binaryData").and_then(|b| b.get(key)).is_some() {
            errors.invalid(&path, &json!(key), "duplicate of key present in binaryData");
        }
        total += value.as_str().map_or(0, str::len);
    }
    for (key, value) in pairs(object, "binaryData") {
        errors.invalid_all(&Path::new("binaryData").key(key), &json!(key), names::config_key(key));
        total += decoded(value);
    }
    if total > LIMIT {
        errors.too_long(&Path::new("[]"), LIMIT);
    }
}

/// Length of the bytes behind a base64 text.
fn decoded(value: &Value) -> usize {
    let text = value.as_str().unwrap_or("").trim_end_matches('=');
    text.len() * 3 / 4
}

/// Checks a new or changed Secret.
pub(super) fn secret(object: &Value, errors: &mut ErrorList) {
    let data = Path::new("data");
    let mut total = 0;
    for (key, value) in pairs(object, "data") {
        errors.invalid_all(&data.key(key), &json!(key), names::config_key(key));
        total += decoded(value);
    }
    if total > LIMIT {
        errors.too_long(&data, LIMIT);
    }
    let has = |key: &str| object.get("data").and_then(|d| d.get(key)).is_some();
    let mut require = |key: &str| {
        if !has(key) {
            errors.required(&data.key(key), "");
        }
    };
    match text(object, "type") {
        "kubernetes.io/dockercfg" => registry_access(object, ".dockercfg", errors),
        "kubernetes.io/dockerconfigjson" => registry_access(object, ".dockerconfigjson", errors),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            require("username");
            require("password");
        }
        "kubernetes.io/ssh-auth" => {
            let key = "ssh-privatekey";
            if object.get("data").map_or("", |data| text(data, key)).is_empty() {
                errors.required(&data.key(key), "");
            }
        }
        "kubernetes.io/tls" => {
            require("tls.crt");
            require("tls.key");
        }
        "kubernetes.io/service-account-token" => {
            let annotations = object.get("metadata").and_then(|m| m.get("annotations"));
            if annotations.map_or("", |a| text(a, ACCOUNT)).is_empty() {
                errors.required(&Path::new("metadata").child("annotations").key(ACCOUNT), "");
            }
        }
        _ => {}
    }
}

/// Checks a key that holds JSON about registries.
fn registry_access(object: &Value, key: &str, errors: &mut ErrorList) {
    let path = Path::new("data").key(key);
    let Some(encoded) = object.get("data").and_then(|data| present(data, key)).and_then(Value::as_str) else {
        errors.required(&path, "");
        return;
    };
    let bytes = STANDARD.decode(encoded).unwrap_or_default();
    if let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(&bytes) {
        errors.invalid(&path, &json!("<secret contents redacted>"), &error.to_string());
    }
}

/// Checks that an immutable object keeps its content.
pub(super) fn unchanged(new: &Value, old: &Value, errors: &mut ErrorList) {
    if !is_true(old, "immutable") {
        return;
    }
    if !is_true(new, "immutable") {
        errors.forbidden(&Path::new("immutable"), FROZEN);
    }
    for field in ["data", "binaryData"] {
        if !same_bytes(new, old, field) {
            errors.forbidden(&Path::new(field), FROZEN);
        }
    }
}

/// Content is compared key by key: an empty value is not an absent one.
fn same_bytes(new: &Value, old: &Value, field: &str) -> bool {
    pairs(new, field).eq(pairs(old, field))
}

/// Checks that a Secret keeps its type.
pub(super) fn same_type(new: &Value, old: &Value, errors: &mut ErrorList) {
    if !same("type", present(new, "type"), present(old, "type")) {
        errors.invalid(&Path::new("type"), &json!(text(new, "type")), "field is immutable");
    }
}
