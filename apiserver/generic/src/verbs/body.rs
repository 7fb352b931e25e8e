//! Request bodies: decoding with field validation, and the checks every written object passes.

use machinery::{
    ApiError, ApiResult, GroupVersionKind,
    decode::{self, FieldProblems},
    meta,
};
use serde_json::{Value, json};

use crate::{
    endpoint::{Call, Warnings},
    negotiate::{self, Media},
    options::FieldValidation,
};

/// Largest body of a write, bytes.
pub const BODY_LIMIT: usize = 3 * 1024 * 1024;

/// A body as a value tree with the problems that decoding found.
pub struct Decoded {
    /// The object.
    pub object: Value,
    /// Duplicate keys, in document order.
    pub problems: FieldProblems,
}

/// Parses bytes of the given media type.
pub fn parse(media: Media, bytes: &[u8]) -> Result<Decoded, String> {
    let (object, problems) = match media {
        Media::Json => decode::decode_json(bytes).map_err(|e| e.to_string())?,
        Media::Yaml => decode::decode_yaml(bytes).map_err(|e| e.to_string())?,
        Media::Protobuf => {
            let (_, object) = api::decode::decode(bytes).map_err(|e| e.to_string())?;
            (object, FieldProblems::default())
        }
    };
    Ok(Decoded { object, problems })
}

/// Decodes the call's body as an object of `gvk`, prunes what the schema does not know, and reports problems as
/// `validation` asks. Used by create and update.
pub fn decode_object(call: &Call, gvk: &GroupVersionKind, validation: FieldValidation) -> ApiResult<Value> {
    let media = negotiate::input(&call.headers)?;
    if media == Media::Protobuf && call.endpoint.custom().is_some() && *gvk == call.endpoint.gvk {
        return Err(ApiError::unsupported_media_type(
            "the body of the request was in an unknown format - accepted media types include: application/json, \
             application/yaml",
        ));
    }
    let unrecognised = |e: String| {
        let head: String = String::from_utf8_lossy(&call.body).chars().take(30).collect();
        let text = format!("the object provided is unrecognized (must be of type {}): {e} ({head})", gvk.kind);
        ApiError::bad_request(text)
    };
    let mut decoded = parse(media, &call.body).map_err(unrecognised)?;
    if !decoded.object.is_object() {
        return Err(unrecognised("json: cannot unmarshal into an object".into()));
    }
    check_gvk(&mut decoded.object, gvk)?;
    let cannot = |e: &str| {
        let version = gvk.group_version();
        ApiError::bad_request(format!(
            "{} in version {:?} cannot be handled as a {}: {e}",
            gvk.kind, version.version, gvk.kind
        ))
    };
    let mut problems = decoded.problems;
    problems.append(check_fields(call, &mut decoded.object, gvk));
    if let Some(text) = problems.type_error() {
        return Err(cannot(text));
    }
    let problems = problems.in_document_order(&call.body);
    report(&problems, validation, &call.warnings, |e| cannot(&e))?;
    Ok(decoded.object)
}

/// Finds and removes what the schema of a kind does not know.
pub fn check_fields(call: &Call, object: &mut Value, gvk: &GroupVersionKind) -> FieldProblems {
    match call.endpoint.custom().filter(|_| *gvk == call.endpoint.gvk) {
        Some(custom) => custom.check(object),
        None => decode::check_fields(object, call.schema_of(gvk)),
    }
}

/// Turns decoding problems into an error (`Strict`), warnings (`Warn`) or nothing.
pub fn report(
    problems: &FieldProblems,
    validation: FieldValidation,
    warnings: &Warnings,
    strict: impl FnOnce(String) -> ApiError,
) -> ApiResult<()> {
    match (validation, problems.strict_text()) {
        (_, None) | (FieldValidation::Ignore, _) => {}
        (FieldValidation::Warn, Some(_)) => warnings.extend(problems.texts()),
        (FieldValidation::Strict, Some(text)) => return Err(strict(format!("strict decoding error: {text}"))),
    }
    Ok(())
}

/// Fills absent `apiVersion`/`kind` and refuses others than the endpoint's.
fn check_gvk(object: &mut Value, gvk: &GroupVersionKind) -> ApiResult<()> {
    let expected = gvk.api_version();
    let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or("").to_owned();
    let (version, kind) = (text("apiVersion"), text("kind"));
    if !kind.is_empty() && kind != gvk.kind {
        return Err(ApiError::bad_request(format!(
            "{kind} in version {:?} cannot be handled as a {}: converting ({version}.{kind}) to ({}): unknown conversion",
            version.rsplit('/').next().unwrap_or(""),
            gvk.kind,
            gvk.kind
        )));
    }
    if !version.is_empty() && version != expected {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({expected})"
        )));
    }
    object["apiVersion"] = json!(expected);
    object["kind"] = json!(gvk.kind);
    Ok(())
}

/// Places a new object: namespace from the URL, fields that only the server sets removed.
pub fn place_new(object: &mut Value, call: &Call) -> ApiResult<()> {
    let metadata = meta::metadata_mut(object);
    for field in ["creationTimestamp", "uid", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
        metadata.remove(field);
    }
    check_namespace(object, call)
}

/// Makes `metadata.namespace` that of the URL.
pub fn check_namespace(object: &mut Value, call: &Call) -> ApiResult<()> {
    if !call.endpoint.namespaced {
        meta::set_text(object, "namespace", "");
        return Ok(());
    }
    let sent = meta::namespace(object);
    if !sent.is_empty() && sent != call.info.namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    meta::set_text(object, "namespace", &call.info.namespace);
    Ok(())
}

/// Checks the name and namespace of an updated object against the URL.
pub fn check_identity(object: &mut Value, call: &Call) -> ApiResult<()> {
    let url = &call.info.name;
    let name = meta::name(object);
    if name.is_empty() {
        let text = format!("the name of the object ({url} based on URL) was undeterminable: name must be provided");
        return Err(ApiError::bad_request(text));
    }
    if name != url {
        let text = format!("the name of the object ({name}) does not match the name on the URL ({url})");
        return Err(ApiError::bad_request(text));
    }
    let namespace = meta::namespace(object);
    if call.endpoint.namespaced && !namespace.is_empty() && namespace != call.info.namespace {
        return Err(ApiError::bad_request(format!(
            "the namespace of the object ({namespace}) does not match the namespace on the request ({})",
            call.info.namespace
        )));
    }
    check_namespace(object, call)
}

/// Removes identical ownerReferences and warns about them.
pub fn dedup_owners(object: &mut Value, warnings: &Warnings, after_admission: bool) {
    let Some(owners) = meta::metadata_mut(object).get_mut("ownerReferences").and_then(Value::as_array_mut) else {
        return;
    };
    let mut kept: Vec<Value> = Vec::with_capacity(owners.len());
    let mut repeated: Vec<String> = Vec::new();
    for owner in owners.drain(..) {
        if kept.contains(&owner) {
            let uid = owner.get("uid").and_then(Value::as_str).unwrap_or("").to_owned();
            if !repeated.contains(&uid) {
                repeated.push(uid);
            }
        } else {
            kept.push(owner);
        }
    }
    *owners = kept;
    if !repeated.is_empty() {
        let when = if after_admission { " after mutating admission happens" } else { "" };
        let uids = repeated.join(", ");
        warnings.add(format!(
            ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, \
             and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {uids}"
        ));
    }
}

/// As [`check_identity`] for an apply body, whose name may be left to the URL.
pub fn check_identity_for_apply(object: &mut Value, call: &Call) -> ApiResult<()> {
    if meta::name(object).is_empty() {
        meta::set_text(object, "name", &call.info.name);
    }
    check_identity(object, call)
}
