//! Whether a Pod wants to be on this node, and the node wants it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};

use super::Refusal;
use crate::pods::{self, selector};

const OS_LABEL: &str = "kubernetes.io/os";
const OS: &str = "linux";

/// Decides by what the Node says.
pub(super) fn admit(pod: &Pod, node: &Node) -> Result<(), Refusal> {
    let spec = pods::spec(pod);
    let wanted_os = spec.node_selector.as_ref().and_then(|wanted| wanted.get(OS_LABEL));
    if wanted_os.is_some_and(|os| os != OS) {
        let text = "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label";
        return Err(Refusal::new("PodOSSelectorNodeLabelDoesNotMatch", text));
    }
    if spec.os.as_ref().is_some_and(|os| os.name != OS) {
        let text = "Failed to admit pod as the OS field doesn't match node OS";
        return Err(Refusal::new("PodOSNotSupported", text));
    }
    if !is_chosen(pod, node) {
        let text = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        return Err(Refusal::new("NodeAffinity", text));
    }
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    if !pods::is_static(pod) && taints.iter().any(|taint| taint.effect == "NoExecute" && !is_tolerated(pod, taint)) {
        let text = "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate";
        return Err(Refusal::new("TaintToleration", text));
    }
    Ok(())
}

fn is_chosen(pod: &Pod, node: &Node) -> bool {
    let spec = pods::spec(pod);
    let none = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&none);
    let selected = spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    selected && required.is_none_or(|required| selector::matches(required, node))
}

fn is_tolerated(pod: &Pod, taint: &Taint) -> bool {
    pods::spec(pod).tolerations.iter().flatten().any(|toleration| tolerates(toleration, taint))
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let given = |text: &Option<String>| text.clone().unwrap_or_default();
    let (key, effect) = (given(&toleration.key), given(&toleration.effect));
    let same_value = || given(&toleration.value) == given(&taint.value);
    (effect.is_empty() || effect == taint.effect)
        && (key.is_empty() || key == taint.key)
        && match toleration.operator.as_deref() {
            Some("Exists") => true,
            None | Some("" | "Equal") => !key.is_empty() && same_value(),
            Some(_) => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn decide(spec: Value) -> Result<(), String> {
        let taints = json!([{ "key": "gone", "effect": "NoExecute" }, { "key": "busy", "effect": "NoSchedule" }]);
        let labels = json!({ "kubernetes.io/os": "linux", "zone": "a" });
        let node = json!({ "metadata": { "name": "n", "labels": labels }, "spec": { "taints": taints } });
        let mut spec = spec;
        if spec.get("tolerations").is_none() {
            spec["tolerations"] = json!([{ "key": "gone", "operator": "Exists" }]);
        }
        let pod = serde_json::from_value(json!({ "spec": spec })).unwrap();
        admit(&pod, &serde_json::from_value(node).unwrap()).map_err(|refusal| refusal.reason)
    }

    #[test]
    fn selectors_and_taints_are_looked_at() {
        for (spec, expected) in [
            (json!({}), Ok(())),
            (json!({ "nodeSelector": { "zone": "a" } }), Ok(())),
            (json!({ "nodeSelector": { "zone": "b" } }), Err("NodeAffinity")),
            (json!({ "nodeSelector": { "kubernetes.io/os": "windows" } }), Err("PodOSSelectorNodeLabelDoesNotMatch")),
            (json!({ "os": { "name": "windows" } }), Err("PodOSNotSupported")),
            (json!({ "tolerations": [] }), Err("TaintToleration")),
            (json!({ "tolerations": [{ "operator": "Exists" }] }), Ok(())),
            (json!({ "tolerations": [{ "key": "gone", "value": "x" }] }), Err("TaintToleration")),
            (json!({ "tolerations": [{ "key": "gone", "effect": "NoSchedule" }] }), Err("TaintToleration")),
        ] {
            assert_eq!(decide(spec.clone()), expected.map_err(str::to_owned), "{spec}");
        }
    }
}
