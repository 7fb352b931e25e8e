//! JSON of built-in kinds with fields in the order of their declaration: what typed objects print as.

use machinery::{
    GroupVersion, GroupVersionKind,
    schema::{SchemaRef, Shape},
};
use serde_json::{Map, Value};

/// Indented by four, with a line break at the end.
pub fn indented(object: &Value) -> String {
    let mut out = String::new();
    write(object, schema(object), Some(0), &mut out);
    out.push('\n');
    super::json::escape(&out)
}

/// On one line.
pub fn compact(object: &Value) -> String {
    let mut out = String::new();
    write(object, schema(object), None, &mut out);
    super::json::escape(&out)
}

/// The facts of a built-in kind.
pub fn schema(object: &Value) -> Option<SchemaRef<'static>> {
    let version = GroupVersion::parse(object["apiVersion"].as_str()?)?;
    let kind = object["kind"].as_str()?;
    api::api().schema(&GroupVersionKind::new(version.group, version.version, kind))
}

pub(super) fn sorted<'a>(map: &'a Map<String, Value>, schema: Option<SchemaRef<'_>>) -> Vec<(&'a String, &'a Value)> {
    let mut entries: Vec<(&String, &Value)> = map.iter().collect();
    let known = schema.is_some_and(|s| matches!(s.shape(), Shape::Struct(_)));
    if known {
        let place = |key: &str| match key {
            "kind" if map.contains_key("apiVersion") => (0, 0),
            "apiVersion" if map.contains_key("kind") => (0, 1),
            // Declared elsewhere than their numbers say.
            "host" | "ingressClassName" => (1, 5),
            "pathType" => (1, 15),
            "imagePullPolicy" => (1, 205),
            key => (
                1,
                schema
                    .and_then(|s| s.field_fact(key))
                    .filter(|f| f.protobuf > 0)
                    .map_or(u32::MAX, |f| f.protobuf.saturating_mul(10)),
            ),
        };
        entries.sort_by_key(|(key, _)| place(key));
    }
    entries
}

fn write(value: &Value, schema: Option<SchemaRef<'_>>, depth: Option<usize>, out: &mut String) {
    let line = |out: &mut String, depth: Option<usize>| {
        if let Some(depth) = depth {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', depth * 4));
        }
    };
    let inner = depth.map(|d| d + 1);
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('{');
            for (at, (key, value)) in sorted(map, schema).into_iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                line(out, inner);
                out.push_str(&Value::String(key.clone()).to_string());
                out.push_str(if depth.is_some() { ": " } else { ":" });
                write(value, schema.and_then(|s| s.field(key)), inner, out);
            }
            line(out, depth);
            out.push('}');
        }
        Value::Array(list) if !list.is_empty() => {
            out.push('[');
            for (at, value) in list.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                line(out, inner);
                write(value, schema.and_then(SchemaRef::item), inner, out);
            }
            line(out, depth);
            out.push(']');
        }
        other => out.push_str(&other.to_string()),
    }
}
