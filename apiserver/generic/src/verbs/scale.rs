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
    endpoint::{Call, ScalePaths, ScaleSelector},
    negotiate::{Media, Target},
    options::WriteOptions,
    resource::{Stored, decode_cached},
};

/// Kind of what `scale` shows.
pub(super) fn scale_kind() -> GroupVersionKind {
    GroupVersionKind::new("autoscaling", "v1", "Scale")
}

/// Serves get, update and patch on `scale`.
pub async fn scale(call: &Call, paths: &ScalePaths) -> ApiResult<Response<Body>> {
    let resource = call.resource()?;
    let writer = call.writer(Target::Plain)?;
    let parent = match call.method {
        Method::GET => {
            let found = resource.get(&call.info.namespace, &call.info.name, get::freshness(call)?).await?;
            call.working(decode_cached(&found)?.object).await?
        }
        _ => write(call, paths).await?,
    };
    writer.object(StatusCode::OK, of_parent(&parent, paths)?)
}

async fn write(call: &Call, paths: &ScalePaths) -> ApiResult<Value> {
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
    let cas = Loop { call, resource, options: &options, starting, fresh: false, scale: Some(paths) };
    let compute = |stored: &Stored| {
        let current = of_parent(&stored.object, paths)?;
        let wanted = match &sent {
            Some(sent) => sent.clone(),
            None => patched(call, &current)?,
        };
        onto_parent(call, &stored.object, &wanted, paths)
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
pub(super) fn onto_parent(call: &Call, parent: &Value, scale: &Value, paths: &ScalePaths) -> ApiResult<Value> {
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
    let mut at = &mut new;
    for step in paths.spec_replicas.split('/').skip(1) {
        at = meta::object_mut(at).entry(step).or_insert(Value::Null);
    }
    *at = json!(replicas);
    Ok(new)
}

/// The Scale of an object.
pub(super) fn of_parent(parent: &Value, paths: &ScalePaths) -> ApiResult<Value> {
    let mut metadata = Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = parent.pointer(&format!("/metadata/{field}")) {
            metadata.insert(field.into(), value.clone());
        }
    }
    let number = |path: &str| parent.pointer(path).and_then(Value::as_i64).unwrap_or(0);
    let mut spec = Map::new();
    if paths.must_have_replicas && parent.pointer(&paths.spec_replicas).is_none_or(Value::is_null) {
        let path = paths.spec_replicas.replace('/', ".");
        return Err(ApiError::internal(format!("the spec replicas field {path:?} does not exist")));
    }
    if number(&paths.spec_replicas) != 0 {
        spec.insert("replicas".into(), json!(number(&paths.spec_replicas)));
    }
    let mut status = Map::new();
    status.insert("replicas".into(), json!(number(&paths.status_replicas)));
    let selector = selector_text(parent, paths);
    if !selector.is_empty() {
        status.insert("selector".into(), json!(selector));
    }
    let kind = scale_kind();
    Ok(json!({
        "kind": kind.kind, "apiVersion": kind.api_version(), "metadata": metadata, "spec": spec, "status": status
    }))
}

fn selector_text(parent: &Value, paths: &ScalePaths) -> String {
    let Some((path, form)) = &paths.selector else { return String::new() };
    let Some(selector) = parent.pointer(path) else { return String::new() };
    match form {
        ScaleSelector::Plain => {
            let labels = selector.as_object().into_iter().flatten();
            let terms: Vec<String> = labels.map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or(""))).collect();
            terms.join(",")
        }
        ScaleSelector::Structured => LabelSelector::from_object(selector).map(|s| s.to_string()).unwrap_or_default(),
        ScaleSelector::Text => selector.as_str().unwrap_or("").to_owned(),
    }
}
