//! PodTopologyLabels and PodResizeValidator: what a Pod takes from its node, and what its node must have.

use std::sync::Arc;

use async_trait::async_trait;
use generic::{
    admission::{AdmissionRequest, Operation, Plugin},
    resource::{Resource, decode_cached},
};
use machinery::{ApiResult, meta, quantity::Quantity};
use semantics::resources::{pod_total, read};
use serde_json::{Value, json};
use storage::cache::CachedObject;

const TOPOLOGY: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

async fn node(nodes: &Resource, name: &str) -> ApiResult<Option<Arc<CachedObject>>> {
    match nodes.get_settled("", name).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Copies zone and region of the node onto Pods that are bound to it.
pub(super) struct PodTopologyLabels {
    pub(super) nodes: Arc<Resource>,
}

#[async_trait]
impl Plugin for PodTopologyLabels {
    fn name(&self) -> &'static str {
        "PodTopologyLabels"
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        let binding = request.is("", "pods") && request.subresource == "binding" || request.is("", "bindings");
        let pod = request.is("", "pods") && request.subresource.is_empty();
        request.operation == Operation::Create && (binding || pod)
    }

    async fn admit(
        &self,
        request: &AdmissionRequest,
        object: Option<&mut Value>,
        _old: Option<&Value>,
    ) -> ApiResult<()> {
        let Some(object) = object else { return Ok(()) };
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or("").to_owned();
        let name = if request.kind.kind == "Binding" {
            if text("/target/kind") == "Node" { text("/target/name") } else { String::new() }
        } else {
            text("/spec/nodeName")
        };
        if name.is_empty() {
            return Ok(());
        }
        let Some(node) = node(&self.nodes, &name).await? else { return Ok(()) };
        let labels: Vec<_> = TOPOLOGY.iter().filter_map(|key| Some((*key, node.index.label(key)?))).collect();
        if !labels.is_empty() {
            let own = meta::object_mut(meta::metadata_mut(object).entry("labels").or_insert_with(|| json!({})));
            own.extend(labels.into_iter().map(|(key, value)| (key.to_owned(), json!(value))));
        }
        Ok(())
    }
}

/// Refuses to resize a Pod beyond what its node could ever give.
pub(super) struct PodResizeValidator {
    pub(super) nodes: Arc<Resource>,
}

#[async_trait]
impl Plugin for PodResizeValidator {
    fn name(&self) -> &'static str {
        "PodResizeValidator"
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.operation == Operation::Update && request.is("", "pods") && request.subresource == "resize"
    }

    async fn validate(&self, request: &AdmissionRequest, object: Option<&Value>, old: Option<&Value>) -> ApiResult<()> {
        let (Some(new), Some(old)) = (object, old) else { return Ok(()) };
        let generation = |pod: &Value| pod.pointer("/metadata/generation").cloned();
        let name = new.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or("");
        if name.is_empty() || generation(new) == generation(old) {
            return Ok(());
        }
        let Some(node) = node(&self.nodes, name).await? else { return Ok(()) };
        match problem(new, &decode_cached(&node)?.object) {
            Some(why) => Err(request.reject(object, &why)),
            None => Ok(()),
        }
    }
}

fn problem(pod: &Value, node: &Value) -> Option<String> {
    let system = meta::text_map(node, "labels").find(|(key, _)| *key == "kubernetes.io/os").map(|(_, os)| os);
    if let Some(system) = system.filter(|system| *system != "linux") {
        let name = meta::name(node);
        return Some(format!("pod resize is only supported on linux nodes, node {name:?} is {system:?}"));
    }
    let requested = pod_total(pod["spec"].as_object()?, "requests");
    let allocatable = read(node.pointer("/status/allocatable"));
    let mut lacking = Vec::new();
    for (name, amount) in [("cpu", Quantity::milli_value as fn(&Quantity) -> i64), ("memory", Quantity::value)] {
        let (Some(wanted), Some(there)) = (requested.get(name), allocatable.get(name)) else { continue };
        let (wanted, there) = (amount(wanted), amount(there));
        if wanted > there {
            lacking.push(format!("{name}, requested: {wanted}, allocatable: {there}"));
        }
    }
    (!lacking.is_empty()).then(|| format!("node didn't have enough allocatable resources: {}", lacking.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resizing_stays_within_the_node() {
        let pod =
            json!({"spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": "5", "memory": "2Ki"}}}]}});
        let node = |cpu: &str, memory: &str, os: &str| {
            json!({"metadata": {"name": "n", "labels": {"kubernetes.io/os": os}},
                "status": {"allocatable": {"cpu": cpu, "memory": memory}}})
        };
        assert_eq!(problem(&pod, &node("5", "1Gi", "linux")), None);
        assert_eq!(
            problem(&pod, &node("4", "1Ki", "linux")).expect("too much"),
            "node didn't have enough allocatable resources: cpu, requested: 5000, allocatable: 4000; memory, requested: \
             2048, allocatable: 1024"
        );
        assert_eq!(
            problem(&pod, &node("8", "1Gi", "windows")).expect("windows"),
            "pod resize is only supported on linux nodes, node \"n\" is \"windows\""
        );
    }
}
