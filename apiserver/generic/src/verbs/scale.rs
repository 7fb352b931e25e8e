//! The `scale` subresource: `autoscaling/v1` Scale over the parent's replicas.

use axum::body::Body;
use http::{Method, Response, StatusCode, header};
use machinery::{
    ApiError, ApiResult, GroupVersionKind,
    field::{ErrorList, Path},
    meta, patch,
    selector::LabelSelector,
};
use serde_json::{Map, Value, json};

use super::{body, get, managed::Origin, update::Loop, validate};
use crate::{
    endpoint::{Call, ScalePaths},
    negotiate::{Media, Target},
    options::WriteOptions,
    resource::{Stored, decode_cached},
};

fn scale_kind() -> GroupVersionKind {
    GroupVersionKind::new("autoscaling", "v1", "Scale")
}

/// Serves get, update and patch on `scale`.
pub async fn scale(call: &Call, paths: ScalePaths) -> ApiResult<Response<Body>> {
    let resource = call.resource()?;
    let writer = call.writer(Target::Plain)?;
    let parent = match call.method {
        Method::GET => {
            let found = resource.get(&call.info.namespace, &call.info.name, get::freshness(call)?).await?;
            decode_cached(&found)?.object
        }
        _ => write(call, paths).await?,
    };
    writer.object(StatusCode::OK, of_parent(&parent, paths))
}

async fn write(call: &Call, paths: ScalePaths) -> ApiResult<Value> {
    let kind = if call.method == Method::PUT { "UpdateOptions" } else { "PatchOptions" };
    let options = WriteOptions::parse(kind, &call.query, &call.headers, false)?;
    let resource = call.resource()?;
    let found = resource.starting_point(&call.info.namespace, &call.info.name).await?;
    let starting = found.ok_or_else(|| ApiError::not_found(&call.group_resource(), &call.info.name))?;
    let sent = match call.method {
        Method::PUT => {
            let mut sent = body::decode_object(call, &scale_kind(), options.field_validation)?;
            body::check_identity(&mut sent, call)?;
            Some(sent)
        }
        _ => None,
    };
    let cas = Loop { call, resource, options: &options, starting, fresh: false };
    let compute = |stored: &Stored| {
        let current = of_parent(&stored.object, paths);
        let wanted = match &sent {
            Some(sent) => sent.clone(),
            None => patched(call, &current)?,
        };
        onto_parent(call, &stored.object, &wanted)
    };
    cas.run(compute, Origin::Update).await.map(|(object, _)| object)
}

fn patched(call: &Call, current: &Value) -> ApiResult<Value> {
    let content_type = call.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    let media = if content_type.starts_with("application/apply-patch") { Media::Yaml } else { Media::Json };
    let body = body::parse(media, &call.body).map_err(ApiError::bad_request)?.object;
    match content_type.split(';').next().unwrap_or("").trim() {
        "application/json-patch+json" => patch::json::apply(current, &body),
        // A Scale holds no lists, so strategic merge, apply and merge patch are one.
        _ => patch::merge::apply(current, &body),
    }
}

/// The parent with the Scale's replicas.
fn onto_parent(call: &Call, parent: &Value, scale: &Value) -> ApiResult<Value> {
    let replicas = scale.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
    if replicas < 0 {
        let mut errors = ErrorList::default();
        let text = "must be greater than or equal to 0";
        errors.invalid(&Path::new("spec").child("replicas"), &json!(replicas), text);
        validate::fail(&scale_kind(), &call.info.name, errors)?;
    }
    let version = meta::resource_version(scale);
    if !version.is_empty() && version != meta::resource_version(parent) {
        return Err(ApiError::stale(&call.group_resource(), &call.info.name));
    }
    let mut new = parent.clone();
    let spec = meta::object_mut(meta::object_mut(&mut new).entry("spec").or_insert_with(|| json!({})));
    spec.insert("replicas".into(), json!(replicas));
    Ok(new)
}

fn of_parent(parent: &Value, paths: ScalePaths) -> Value {
    let mut metadata = Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = parent.pointer(&format!("/metadata/{field}")) {
            metadata.insert(field.into(), value.clone());
        }
    }
    let number = |path: &str| parent.pointer(path).and_then(Value::as_i64).unwrap_or(0);
    let mut spec = Map::new();
    if number("/spec/replicas") != 0 {
        spec.insert("replicas".into(), json!(number("/spec/replicas")));
    }
    let mut status = Map::new();
    status.insert("replicas".into(), json!(number("/status/replicas")));
    let selector = selector_text(parent, paths);
    if !selector.is_empty() {
        status.insert("selector".into(), json!(selector));
    }
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status})
}

fn selector_text(parent: &Value, paths: ScalePaths) -> String {
    let Some(selector) = parent.pointer("/spec/selector") else { return String::new() };
    if paths.plain_selector {
        let labels = selector.as_object().into_iter().flatten();
        let terms: Vec<String> = labels.map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or(""))).collect();
        return terms.join(",");
    }
    LabelSelector::from_object(selector).map(|s| s.to_string()).unwrap_or_default()
}
