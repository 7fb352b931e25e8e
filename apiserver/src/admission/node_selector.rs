//! PodNodeSelector: namespaces say on which nodes their Pods run.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use async_trait::async_trait;
use generic::{
    admission::{AdmissionRequest, Operation, Plugin},
    resource::Resource,
};
use machinery::{ApiError, ApiResult, Reason, meta};
use serde::Deserialize;
use serde_json::{Value, json};

use super::namespaced::annotation;

const ANNOTATION: &str = "scheduler.alpha.kubernetes.io/node-selector";
/// Where the selector of namespaces stands that have none.
const CLUSTER: &str = "clusterDefaultNodeSelector";

type Labels = BTreeMap<String, String>;

/// What the operator sets.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct NodeSelectorFile {
    /// By namespace the labels that its Pods may ask for; and the default.
    pub(super) pod_node_selector_plugin_config: HashMap<String, String>,
}

/// The plugin.
pub(super) struct PodNodeSelector {
    pub(super) namespaces: Arc<Resource>,
    pub(super) settings: HashMap<String, String>,
}

/// Labels of a text like `a=b,c=d`.
fn labels(text: &str) -> Result<Labels, ApiError> {
    let wrong = |why: String| ApiError::new(500, Reason::Unknown, why);
    let mut labels = Labels::new();
    for pair in text.split(',').filter(|_| !text.is_empty()) {
        let (key, value) = match pair.split('=').collect::<Vec<_>>().as_slice() {
            [key, value] => (key.trim(), value.trim()),
            _ => return Err(wrong(format!("invalid selector: [{pair}]"))),
        };
        if let Some(why) = machinery::names::qualified_name(key).into_iter().next() {
            return Err(wrong(format!("key: Invalid value: {key:?}: {why}")));
        }
        if let Some(why) = machinery::names::label_value(value).into_iter().next() {
            return Err(wrong(format!("value: Invalid value: {value:?}: {why}")));
        }
        labels.insert(key.to_owned(), value.to_owned());
    }
    Ok(labels)
}

fn of_pod(pod: &Value) -> Labels {
    let selector = pod.pointer("/spec/nodeSelector").and_then(Value::as_object).into_iter().flatten();
    selector.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
}

fn conflict(one: &Labels, other: &Labels) -> bool {
    one.iter().any(|(key, value)| other.get(key).is_some_and(|found| found != value))
}

impl PodNodeSelector {
    async fn of_namespace(&self, request: &AdmissionRequest) -> ApiResult<Labels> {
        match annotation(&self.namespaces, &request.namespace, ANNOTATION).await? {
            Some(text) => labels(&text),
            None => labels(self.settings.get(CLUSTER).map(String::as_str).unwrap_or_default()),
        }
    }
}

#[async_trait]
impl Plugin for PodNodeSelector {
    fn name(&self) -> &'static str {
        "PodNodeSelector"
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.operation == Operation::Create && request.is("", "pods") && request.subresource.is_empty()
    }

    async fn admit(
        &self,
        request: &AdmissionRequest,
        object: Option<&mut Value>,
        _old: Option<&Value>,
    ) -> ApiResult<()> {
        let Some(pod) = object else { return Ok(()) };
        let (of_namespace, own) = (self.of_namespace(request).await?, of_pod(pod));
        // A conflict is told by the validating half.
        if !conflict(&of_namespace, &own) {
            let both: Labels = of_namespace.into_iter().chain(own).collect();
            if !both.is_empty() {
                pod["spec"]["nodeSelector"] = json!(both);
            }
        }
        self.validate(request, Some(pod), None).await
    }

    async fn validate(
        &self,
        request: &AdmissionRequest,
        object: Option<&Value>,
        _old: Option<&Value>,
    ) -> ApiResult<()> {
        let Some(pod) = object else { return Ok(()) };
        let refused = |why| Err(ApiError::forbidden(&request.resource.group_resource(), meta::name(pod), why));
        let own = of_pod(pod);
        if conflict(&self.of_namespace(request).await?, &own) {
            return refused("pod node label selector conflicts with its namespace node label selector");
        }
        let allowed = labels(self.settings.get(&request.namespace).map(String::as_str).unwrap_or_default())?;
        if !allowed.is_empty() && own.iter().any(|(key, value)| allowed.get(key) != Some(value)) {
            return refused("pod node label selector labels conflict with its namespace whitelist");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_labels() {
        let of = |text| labels(text).map_err(|error| error.to_string());
        assert_eq!(of(""), Ok(Labels::new()));
        assert_eq!(of("a = b,c="), Ok([("a".to_owned(), "b".to_owned()), ("c".to_owned(), String::new())].into()));
        assert_eq!(of("a"), Err("invalid selector: [a]".into()));
        assert_eq!(of("a=b=c"), Err("invalid selector: [a=b=c]".into()));
        assert!(of("-=b").is_err() && of("a=b c").is_err());
    }

    #[test]
    fn conflicts_are_about_the_same_label() {
        let of = |text| labels(text).unwrap_or_default();
        for (one, other, conflicts) in [("a=b", "a=c", true), ("a=b", "a=b,c=d", false), ("", "a=b", false)] {
            assert_eq!(conflict(&of(one), &of(other)), conflicts, "{one} {other}");
        }
    }
}
