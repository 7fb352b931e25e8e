//! Between the versions of one custom resource.

use std::sync::Arc;

use async_trait::async_trait;
use machinery::{ApiResult, GroupVersion};
use serde_json::{Value, json};

/// Converts objects by asking somebody else.
#[async_trait]
pub(crate) trait ConvertElsewhere: Send + Sync {
    /// Objects in another version, in the same order. None of them is in that version already.
    async fn convert(&self, objects: Vec<Value>, to: &GroupVersion) -> ApiResult<Vec<Value>>;
}

/// How objects get from one version to another.
#[derive(Clone)]
pub(crate) enum Converter {
    /// Only `apiVersion` changes.
    Rename,
    /// A webhook is asked.
    Webhook(Arc<dyn ConvertElsewhere>),
}

impl Converter {
    /// Objects in version `to`; those that are in it already stay as they are.
    pub(crate) async fn convert(&self, mut objects: Vec<Value>, to: &GroupVersion) -> ApiResult<Vec<Value>> {
        let api_version = to.to_string();
        let differs = |object: &Value| object.get("apiVersion").and_then(Value::as_str) != Some(&api_version);
        match self {
            Self::Rename => {
                for object in objects.iter_mut().filter(|o| differs(o)) {
                    object["apiVersion"] = json!(api_version);
                }
            }
            Self::Webhook(webhook) => {
                let places: Vec<usize> = (0..objects.len()).filter(|at| differs(&objects[*at])).collect();
                if places.is_empty() {
                    return Ok(objects);
                }
                let sent = places.iter().map(|at| objects[*at].clone()).collect();
                for (at, converted) in places.into_iter().zip(webhook.convert(sent, to).await?) {
                    objects[at] = converted;
                }
            }
        }
        Ok(objects)
    }
}
