//! Between the versions of one custom resource.

use std::sync::Arc;

use async_trait::async_trait;
use machinery::{ApiError, ApiResult, GroupVersion, Reason};
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
    /// There is a webhook that cannot be called.
    Impossible(Arc<str>),
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
            Self::Impossible(why) if objects.iter().any(differs) => {
                let text = format!("conversion webhook failed: {why}");
                return Err(ApiError::new(500, Reason::Unknown, text));
            }
            Self::Impossible(_) => {}
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

#[cfg(test)]
mod tests {
    use super::*;

    struct Marks;

    #[async_trait]
    impl ConvertElsewhere for Marks {
        async fn convert(&self, mut objects: Vec<Value>, to: &GroupVersion) -> ApiResult<Vec<Value>> {
            for object in &mut objects {
                object["apiVersion"] = json!(to.to_string());
                object["converted"] = json!(true);
            }
            Ok(objects)
        }
    }

    #[tokio::test]
    async fn only_objects_in_another_version_are_converted() {
        let objects = ["g.io/v1", "g.io/v2", "g.io/v1"].map(|v| json!({"apiVersion": v}));
        let to = GroupVersion::new("g.io", "v2");
        let webhook = Converter::Webhook(Arc::new(Marks));
        let converted = webhook.convert(objects.to_vec(), &to).await.expect("converted");
        let marked: Vec<bool> = converted.iter().map(|o| o.get("converted").is_some()).collect();
        assert_eq!(marked, [true, false, true]);
        assert!(converted.iter().all(|o| o["apiVersion"] == "g.io/v2"));
        let renamed = Converter::Rename.convert(objects.to_vec(), &to).await.expect("converted");
        assert!(renamed.iter().all(|o| *o == json!({"apiVersion": "g.io/v2"})));
        assert!(Converter::Impossible("x".into()).convert(objects.to_vec(), &to).await.is_err());
    }
}
