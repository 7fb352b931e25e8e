//! RuntimeClass: Pods get the overhead and the placement of the class that they name.

use std::sync::Arc;

use async_trait::async_trait;
use generic::{
    admission::{AdmissionRequest, Operation, Plugin},
    resource::{Resource, decode_cached},
};
use machinery::{ApiResult, meta};
use semantics::resources::read;
use serde_json::{Value, json};

/// The plugin.
pub(super) struct RuntimeClasses {
    pub(super) classes: Arc<Resource>,
}

#[async_trait]
impl Plugin for RuntimeClasses {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.operation == Operation::Create && request.subresource.is_empty() && request.is("", "pods")
    }

    async fn admit(
        &self,
        request: &AdmissionRequest,
        object: Option<&mut Value>,
        _old: Option<&Value>,
    ) -> ApiResult<()> {
        let Some(pod) = object else { return Ok(()) };
        let Some(class) = self.class(request, pod).await? else { return Ok(()) };
        apply(pod, &class).map_err(|why| request.reject(Some(pod), &why))
    }

    async fn validate(
        &self,
        request: &AdmissionRequest,
        object: Option<&Value>,
        _old: Option<&Value>,
    ) -> ApiResult<()> {
        let Some(pod) = object else { return Ok(()) };
        let class = self.class(request, pod).await?;
        let wanted = class.as_ref().map(|class| read(class.pointer("/overhead/podFixed"))).unwrap_or_default();
        let given = read(pod.pointer("/spec/overhead"));
        if given == wanted {
            return Ok(());
        }
        let why = if wanted.is_empty() {
            "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"
        } else {
            "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"
        };
        Err(request.reject(Some(pod), why))
    }
}

impl RuntimeClasses {
    async fn class(&self, request: &AdmissionRequest, pod: &Value) -> ApiResult<Option<Value>> {
        let Some(name) = pod.pointer("/spec/runtimeClassName").and_then(Value::as_str) else { return Ok(None) };
        match self.classes.get_settled("", name).await {
            Ok(found) => Ok(Some(decode_cached(&found)?.object)),
            Err(error) if error.is_not_found() => {
                Err(request.reject(Some(pod), &format!("pod rejected: RuntimeClass \"{name}\" not found")))
            }
            Err(error) => Err(error),
        }
    }
}

/// Takes overhead, node selector and tolerations of the class over.
fn apply(pod: &mut Value, class: &Value) -> Result<(), String> {
    let spec = meta::object_mut(&mut pod["spec"]);
    if let Some(overhead) = class.pointer("/overhead/podFixed").filter(|o| o.is_object()) {
        let given = spec.get("overhead").filter(|o| !o.is_null());
        if given.is_some_and(|given| read(Some(given)) != read(Some(overhead))) {
            return Err("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".into());
        }
        spec.insert("overhead".into(), overhead.clone());
    }
    if let Some(selector) = class.pointer("/scheduling/nodeSelector").and_then(Value::as_object) {
        let own = meta::object_mut(spec.entry("nodeSelector").or_insert_with(|| json!({})));
        for (key, value) in selector {
            let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
            if let Some(given) = own.get(key).filter(|given| *given != value) {
                let (ours, theirs) = (text(value), text(given));
                return Err(format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {ours}; pod.spec.nodeSelector[{key}] = \
                     {theirs}"
                ));
            }
            own.insert(key.clone(), value.clone());
        }
    }
    if let Some(tolerations) = class.pointer("/scheduling/tolerations").and_then(Value::as_array) {
        let own = spec.entry("tolerations").or_insert_with(|| json!([]));
        if let Some(own) = own.as_array_mut() {
            own.extend(tolerations.iter().filter(|t| !own.contains(t)).cloned().collect::<Vec<_>>());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_taken_over() {
        let class = json!({"overhead": {"podFixed": {"cpu": "250m"}}, "scheduling": {
            "nodeSelector": {"kata": "yes"}, "tolerations": [{"key": "kata", "operator": "Exists"}]}});
        let mut pod = json!({"spec": {"overhead": {"cpu": "0.25"}, "tolerations": [{"key": "a"}]}});
        apply(&mut pod, &class).expect("it fits");
        assert_eq!(pod["spec"]["nodeSelector"], json!({"kata": "yes"}));
        assert_eq!(pod["spec"]["tolerations"], json!([{"key": "a"}, {"key": "kata", "operator": "Exists"}]));
        assert_eq!(pod["spec"]["overhead"], json!({"cpu": "250m"}));
        let mut other = json!({"spec": {"nodeSelector": {"kata": "no"}}});
        assert_eq!(
            apply(&mut other, &class).expect_err("they differ"),
            "conflict: runtimeClass.scheduling.nodeSelector[kata] = yes; pod.spec.nodeSelector[kata] = no"
        );
        let mut heavy = json!({"spec": {"overhead": {"cpu": "1"}}});
        assert!(apply(&mut heavy, &class).is_err());
    }
}
