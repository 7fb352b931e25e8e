//! PATCH in its four types.

use axum::body::Body;
use http::{Response, StatusCode, header};
use machinery::{ApiError, ApiResult, Reason, StatusCause, StatusDetails, meta, patch};
use serde_json::{Value, json};

use super::{
    body,
    context::Moment,
    create,
    managed::{self, Origin},
    update::{Loop, require_create},
};
use crate::{
    endpoint::Call,
    negotiate::{Media, Target},
    options::{FieldValidation, WriteOptions},
    resource::Stored,
};

/// The patch types of the `Content-Type` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Json,
    Merge,
    Strategic,
    Apply,
}

const ACCEPTED: &str = "application/json-patch+json, application/merge-patch+json, \
                        application/strategic-merge-patch+json, application/apply-patch+yaml";
const ACCEPTED_OF_CUSTOM: &str =
    "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";

fn kind(call: &Call) -> ApiResult<Kind> {
    let content_type = call.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    match content_type.split(';').next().unwrap_or("").trim() {
        "application/json-patch+json" => Ok(Kind::Json),
        "application/merge-patch+json" => Ok(Kind::Merge),
        "application/strategic-merge-patch+json" if call.endpoint.custom().is_none() => Ok(Kind::Strategic),
        "application/apply-patch+yaml" => Ok(Kind::Apply),
        _ => Err(ApiError::unsupported_media_type(format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            if call.endpoint.custom().is_some() { ACCEPTED_OF_CUSTOM } else { ACCEPTED }
        ))),
    }
}

/// Serves PATCH.
pub async fn patch(call: &Call) -> ApiResult<Response<Body>> {
    let kind = kind(call)?;
    let options = WriteOptions::parse("PatchOptions", &call.query, &call.headers, kind == Kind::Apply)?;
    call.output(Target::Item)?;
    let (object, created) = match kind {
        Kind::Apply => apply(call, &options).await?,
        kind => (modify(call, kind, &options).await?, false),
    };
    let code = if created { StatusCode::CREATED } else { StatusCode::OK };
    call.writer(Target::Item)?.object(code, object)
}

async fn modify(call: &Call, kind: Kind, options: &WriteOptions) -> ApiResult<Value> {
    let resource = call.resource()?;
    let decoded = body::parse(Media::Json, &call.body).map_err(ApiError::bad_request)?;
    let label = if kind == Kind::Json { "json patch " } else { "" };
    body::report(&decoded.problems.labelled(label), options.field_validation, &call.warnings, |e| {
        unacceptable("", &e)
    })?;
    let patch = decoded.object;
    let starting = starting(call).await?;
    let cas = Loop { call, resource, options, starting, fresh: false, scale: None };
    let compute = |stored: &Stored| {
        let current = call.to_served(stored.object.clone());
        let patched = apply_patch(call, kind, &current, &patch)?;
        let patched = check(call, patched, options.field_validation)?;
        let mut patched = call.to_stored(patched);
        call.strategy(resource).defaults(&mut patched);
        Ok(patched)
    };
    cas.run(compute, Origin::Update).await.map(|(object, _)| object)
}

async fn starting(call: &Call) -> ApiResult<Stored> {
    let resource = call.resource()?;
    let found = resource.starting_point(&call.info.namespace, &call.info.name).await?;
    found.ok_or_else(|| ApiError::not_found(&call.group_resource(), &call.info.name))
}

fn apply_patch(call: &Call, kind: Kind, current: &Value, body: &Value) -> ApiResult<Value> {
    match kind {
        Kind::Json => patch::json::apply(current, body),
        Kind::Merge => patch::merge::apply(current, body),
        Kind::Strategic | Kind::Apply => patch::strategic::apply(current, body, call.endpoint.schema()),
    }
}

/// Checks and prunes the outcome of a patch as a decoded body is.
fn check(call: &Call, mut object: Value, validation: FieldValidation) -> ApiResult<Value> {
    if !object.is_object() {
        return Err(unacceptable(&object.to_string(), "json: cannot unmarshal into an object"));
    }
    let problems = body::check_fields(call, &mut object, &call.endpoint.gvk);
    if let Some(text) = problems.type_error() {
        return Err(unacceptable(&object.to_string(), text));
    }
    body::report(&problems, validation, &call.warnings, |e| unacceptable(&object.to_string(), &e))?;
    let gvk = &call.endpoint.gvk;
    object["apiVersion"] = json!(gvk.api_version());
    object["kind"] = json!(gvk.kind);
    body::check_identity(&mut object, call)?;
    Ok(object)
}

/// 422 without a kind: the outcome of the patch does not decode.
fn unacceptable(value: &str, why: &str) -> ApiError {
    let message = format!("Invalid value: {value:?}: {why}");
    let cause = StatusCause { reason: "FieldValueInvalid".into(), message: message.clone(), field: "patch".into() };
    ApiError::new(422, Reason::Invalid, format!(" \"\" is invalid: patch: {message}"))
        .with_details(StatusDetails { causes: vec![cause], ..StatusDetails::default() })
}

/// Server-side apply. Answers the object and whether it was created.
async fn apply(call: &Call, options: &WriteOptions) -> ApiResult<(Value, bool)> {
    let resource = call.resource()?;
    let decoded =
        body::parse(Media::Yaml, &call.body).map_err(|e| ApiError::bad_request(format!("error decoding YAML: {e}")))?;
    body::report(&decoded.problems, options.field_validation, &call.warnings, |e| {
        let e = e.strip_prefix("strict decoding error: ").unwrap_or(&e);
        ApiError::bad_request(format!("error strict decoding YAML: error converting YAML to JSON: {e}"))
    })?;
    let mut config = decoded.object;
    check_config(&mut config, call)?;
    body::check_identity_for_apply(&mut config, call)?;
    let starting = resource.starting_point(&call.info.namespace, &call.info.name).await?;
    let Some(starting) = starting else {
        return create_by_apply(call, config, options).await.map(|object| (object, true));
    };
    let cas = Loop { call, resource, options, starting, fresh: false, scale: None };
    let compute = |stored: &Stored| {
        let live = call.to_served(stored.object.clone());
        let wanted = meta::resource_version(&config);
        if !wanted.is_empty() && wanted != meta::resource_version(&live) {
            return Err(ApiError::stale(&call.group_resource(), &call.info.name));
        }
        let applied = managed::apply(call, Some(&live), &config, options, &Moment::now())?;
        let mut applied = call.to_stored(applied);
        call.strategy(resource).defaults(&mut applied);
        Ok(applied)
    };
    let (object, _) = cas.run(compute, Origin::Apply).await?;
    Ok((object, false))
}

fn check_config(config: &mut Value, call: &Call) -> ApiResult<()> {
    let gvk = &call.endpoint.gvk;
    let text = |field: &str| config.get(field).and_then(Value::as_str).unwrap_or("");
    if text("apiVersion") != gvk.api_version() || text("kind") != gvk.kind {
        let sent = format!("{}, Kind={}", text("apiVersion"), text("kind"));
        return Err(ApiError::bad_request(format!("invalid object type: {sent}")));
    }
    if config.pointer("/metadata/managedFields").is_some() {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    Ok(())
}

async fn create_by_apply(call: &Call, config: Value, options: &WriteOptions) -> ApiResult<Value> {
    if !call.info.subresource.is_empty() {
        return Err(ApiError::not_found(&call.group_resource(), &call.info.name));
    }
    let uid = meta::uid(&config);
    if !uid.is_empty() {
        let text = format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
        return Err(ApiError::conflict(&call.group_resource(), &call.info.name, &text));
    }
    require_create(call).await?;
    let mut object = managed::apply(call, None, &config, options, &Moment::now())?;
    body::place_new(&mut object, call)?;
    create::create_object(call, object, options, Origin::Apply).await
}
