//! AdmissionReview, the form of questions and answers.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use machinery::{ApiError, Status, meta};
use serde::Deserialize;
use serde_json::{Value, json};

use super::config::Webhook;
use crate::admission::expressions::Subject;

const GROUP: &str = "admission.k8s.io";

/// What a webhook answered.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// `None`: allowed.
    pub(super) denied: Option<Denied>,
    /// A JSON patch.
    pub(super) patch: Option<Value>,
    pub(super) warnings: Vec<String>,
    /// Notes for the audit log.
    pub(super) notes: BTreeMap<String, String>,
}

/// Why a webhook said no; empty if it did not say.
#[derive(Debug, Default)]
pub(super) struct Denied(pub(super) Option<Status>);

impl Denied {
    /// The error that the client sees.
    pub(super) fn error(self, webhook: &str) -> ApiError {
        let mut status = self.0.unwrap_or_else(|| Status { code: 0, ..Status::default() });
        let by = format!("admission webhook {webhook:?} denied the request");
        status.code = status.code.max(400);
        status.status = "Failure".into();
        let reason = status.reason.as_str();
        status.message = match (status.message.as_str(), reason) {
            ("", "") => format!("{by} without explanation"),
            ("", reason) => format!("{by}: {reason}"),
            (message, _) => format!("{by}: {message}"),
        };
        ApiError::from(status)
    }
}

/// The version in which a webhook is asked: the first of its own that is known.
pub(super) fn version(webhook: &Webhook) -> Option<&str> {
    webhook.admission_review_versions.iter().map(String::as_str).find(|version| matches!(*version, "v1" | "v1beta1"))
}

/// The question.
pub(super) fn question(version: &str, uid: &str, subject: &Subject) -> Value {
    let mut body = subject.about.clone();
    for (field, value) in [("uid", json!(uid)), ("object", subject.object.clone()), ("oldObject", subject.old.clone())]
    {
        body[field] = value;
    }
    json!({"kind": "AdmissionReview", "apiVersion": format!("{GROUP}/{version}"), "request": body})
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Response {
    uid: String,
    allowed: bool,
    status: Option<Value>,
    patch: Option<String>,
    patch_type: Option<String>,
    warnings: Option<Vec<String>>,
    audit_annotations: Option<BTreeMap<String, String>>,
}

/// Reads the answer to the question `uid`. `mutating`: whether a patch is allowed.
pub(super) fn answer(review: &Value, version: &str, uid: &str, mutating: bool) -> Result<Verdict, String> {
    let invalid = |why: String| format!("received invalid webhook response: {why}");
    let api_version = format!("{GROUP}/{version}");
    let text = |field: &str| review.get(field).and_then(Value::as_str).unwrap_or_default();
    if version == "v1" && (text("kind"), text("apiVersion")) != ("AdmissionReview", api_version.as_str()) {
        let got = format!("{}, Kind={}", text("apiVersion"), text("kind"));
        return Err(invalid(format!("expected webhook response of {api_version}, Kind=AdmissionReview, got {got}")));
    }
    let response = review.get("response").filter(|response| !response.is_null());
    let response = response.ok_or_else(|| invalid("response is required".into()))?;
    let response: Response = serde_json::from_value(response.clone()).map_err(|error| invalid(error.to_string()))?;
    if version == "v1" && response.uid != uid {
        return Err(invalid(format!("expected response.uid={uid:?}, got {:?}", response.uid)));
    }
    let warnings = response.warnings.unwrap_or_default();
    let notes = response.audit_annotations.unwrap_or_default();
    if !response.allowed {
        let status = response.status.filter(Value::is_object).and_then(|mut status| {
            meta::object_mut(&mut status).entry("code").or_insert(json!(0));
            serde_json::from_value(status).ok()
        });
        return Ok(Verdict { denied: Some(Denied(status)), patch: None, warnings, notes });
    }
    let patch = match (response.patch.filter(|patch| !patch.is_empty()), response.patch_type.as_deref()) {
        (None, None | Some("")) => None,
        (Some(_), _) if !mutating => return Err(invalid("validating webhook may not patch".into())),
        (None, Some(_)) => return Err(invalid("webhook returned response.patchType but not response.patch".into())),
        (Some(_), None | Some("")) if version == "v1" => {
            return Err(invalid("webhook returned response.patch but not response.patchType".into()));
        }
        (Some(patch), None | Some("" | "JSONPatch")) => {
            let bytes = BASE64_STANDARD.decode(patch).map_err(|error| invalid(error.to_string()))?;
            Some(serde_json::from_slice(&bytes).map_err(|error| invalid(error.to_string()))?)
        }
        (Some(_), Some(other)) => return Err(invalid(format!("response.patchType is {other:?}, not \"JSONPatch\""))),
    };
    Ok(Verdict { denied: None, patch, warnings, notes })
}
