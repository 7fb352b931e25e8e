//! YAML as Kubernetes' tools write it: keys sorted, no document markers.

use serde::Serialize;
use serde_json::Value;

use crate::error::{Context, Result};

/// Writes a value with sorted keys.
pub fn to_yaml<T: Serialize>(value: &T) -> Result<String> {
    let tree = serde_json::to_value(value).context("cannot encode")?;
    serde_yaml::to_string(&sorted(tree)).context("cannot encode")
}

/// Writes an object of a kind: `apiVersion` and `kind` stand among the fields.
pub fn document<T: Serialize>(api_version: &str, kind: &str, value: &T) -> Result<String> {
    let mut tree = serde_json::to_value(value).context("cannot encode")?;
    if let Value::Object(fields) = &mut tree {
        fields.insert("apiVersion".into(), api_version.into());
        fields.insert("kind".into(), kind.into());
    }
    to_yaml(&tree)
}

/// Reads one document.
pub fn parse(text: &str) -> Result<Value> {
    let (value, problems) = machinery::decode::decode_yaml(text.as_bytes()).context("cannot decode")?;
    match problems.strict_text() {
        None => Ok(value),
        Some(text) => crate::error::fail!("{text}"),
    }
}

/// The documents of a file, without empty ones.
pub fn split(text: &str) -> Vec<&str> {
    let mut documents = Vec::new();
    let mut start = 0;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let marker = line.strip_prefix("---").is_some_and(|rest| rest.trim().is_empty() || rest.starts_with(' '));
        if marker {
            documents.push(&text[start..at]);
            start = at + line.len();
        }
        at += line.len();
    }
    documents.push(&text[start..]);
    let content = |d: &&str| d.lines().any(|l| !l.trim().is_empty() && !l.trim_start().starts_with('#'));
    documents.into_iter().filter(content).collect()
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut pairs: Vec<_> = fields.into_iter().map(|(k, v)| (k, sorted(v))).collect();
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(pairs.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}
