//! Conversion by a webhook (`ConversionReview`).

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use machinery::{ApiError, ApiResult, GroupVersion, Reason, meta};
use registry::connect::webhook::{Caller, ClientConfig};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::conversion::ConvertElsewhere;

/// Time for one review.
const WITHIN: Duration = Duration::from_secs(30);
/// Versions of reviews that are spoken, by preference of the webhook.
const SPOKEN: [&str; 2] = ["v1", "v1beta1"];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Settings {
    client_config: ClientConfig,
    #[serde(default)]
    conversion_review_versions: Vec<String>,
}

/// The webhook of one definition.
pub(crate) struct Webhook {
    caller: Arc<Caller>,
    config: ClientConfig,
    review_version: String,
}

impl Webhook {
    /// From `spec.conversion.webhook`.
    pub(crate) fn new(caller: &Arc<Caller>, settings: &Value) -> Result<Self, String> {
        let settings = Settings::deserialize(settings).map_err(|error| error.to_string())?;
        let spoken = settings.conversion_review_versions.into_iter().find(|v| SPOKEN.contains(&v.as_str()));
        let review_version = spoken.ok_or("no supported conversion review version")?;
        Ok(Self { caller: Arc::clone(caller), config: settings.client_config, review_version })
    }
}

fn failed(text: String) -> ApiError {
    ApiError::new(500, Reason::Unknown, text)
}

/// `example.com/v1, Kind=Foo`
fn describe(object: &Value) -> String {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or("");
    format!("{}, Kind={}", text("apiVersion"), text("kind"))
}

#[async_trait]
impl ConvertElsewhere for Webhook {
    async fn convert(&self, objects: Vec<Value>, to: &GroupVersion) -> ApiResult<Vec<Value>> {
        let what = objects.first().map(describe).unwrap_or_default();
        let api_version = format!("apiextensions.k8s.io/{}", self.review_version);
        let uid = uuid::Uuid::new_v4().to_string();
        let review = json!({
            "kind": "ConversionReview",
            "apiVersion": api_version,
            "request": {"uid": uid, "desiredAPIVersion": to.to_string(), "objects": objects},
        });
        let failed_by = |why: String| failed(format!("conversion webhook for {what} failed: {why}"));
        let mut answer =
            self.caller.call(&self.config, &review, WITHIN).await.map_err(|error| failed_by(error.to_string()))?;
        let converted = converted_objects(&mut answer, &api_version, &uid).map_err(failed_by)?;
        if converted.len() != objects.len() {
            let (got, sent) = (converted.len(), objects.len());
            return Err(failed(format!("conversion webhook for {what} returned {got} objects, expected {sent}")));
        }
        let pairs = objects.iter().zip(converted).enumerate();
        pairs
            .map(|(at, (original, converted))| {
                checked(original, converted, to).map_err(|why| {
                    failed(format!(
                        "conversion webhook for {what} returned invalid converted object at index {at}: {why}"
                    ))
                })
            })
            .collect()
    }
}

/// The objects of an answer that is one.
fn converted_objects(answer: &mut Value, api_version: &str, uid: &str) -> Result<Vec<Value>, String> {
    let described = describe(answer);
    let expected = format!("{api_version}, Kind=ConversionReview");
    if described != expected {
        return Err(format!("expected webhook response of {expected}, got {described}"));
    }
    let response = answer.get_mut("response").filter(|r| r.is_object()).ok_or("no response provided")?;
    let text = |pointer: &str| response.pointer(pointer).and_then(Value::as_str).unwrap_or("");
    if text("/uid") != uid {
        return Err(format!("expected response.uid={uid:?}, got {:?}", text("/uid")));
    }
    let status = text("/result/status");
    if status != "Success" {
        let message = text("/result/message");
        return Err(match message {
            "" => format!("response.result.status was '{status}', not 'Success'"),
            message => message.to_owned(),
        });
    }
    match response.get_mut("convertedObjects").map(Value::take) {
        Some(Value::Array(list)) => Ok(list),
        _ => Ok(Vec::new()),
    }
}

/// A converted object with the metadata of the original, of which only labels and annotations may differ.
fn checked(original: &Value, mut converted: Value, to: &GroupVersion) -> Result<Value, String> {
    let version = converted.get("apiVersion").and_then(Value::as_str).unwrap_or("");
    if version != to.to_string() {
        return Err(format!("invalid groupVersion (expected {to}, received {version})"));
    }
    let (kind, wanted) = (converted.get("kind"), original.get("kind"));
    if kind != wanted {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or("").to_owned();
        return Err(format!("must have the same kind: {} != {}", text(kind), text(wanted)));
    }
    for (what, field) in [("name", "name"), ("namespace", "namespace"), ("UID", "uid")] {
        let (own, wanted) = (meta::text(&converted, field), meta::text(original, field));
        if own != wanted {
            return Err(format!("must have the same {what}: {own} != {wanted}"));
        }
    }
    let mut metadata = original.get("metadata").cloned().unwrap_or_else(|| json!({}));
    let fields = meta::object_mut(&mut metadata);
    for field in ["labels", "annotations"] {
        match converted.pointer(&format!("/metadata/{field}")) {
            None | Some(Value::Null) => {
                fields.remove(field);
            }
            Some(Value::Object(map)) if map.values().all(Value::is_string) => {
                fields.insert(field.to_owned(), Value::Object(map.clone()));
            }
            Some(_) => return Err(format!("metadata.{field}: Invalid value: must be a map of strings")),
        }
    }
    converted["metadata"] = metadata;
    Ok(converted)
}
