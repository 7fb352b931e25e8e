//! Which Nodes a DaemonSet is for, and the Pod of one Node: pure.

use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, PodTemplateSpec,
    Toleration,
};
use semantics::taints::tolerates;

/// Label of Pods: the hash of their template.
pub(super) const HASH: &str = "controller-revision-hash";
/// Label of Pods: the number their template had when there were no hashes.
pub(super) const GENERATION: &str = "pod-template-generation";

/// Whether a Node runs the Pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// It should have one.
    Runs,
    /// It gets none, and keeps one it has.
    Keeps,
    /// It must have none.
    None,
}

fn matches(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let number = |t: &str| t.parse::<i64>().ok();
    let limit = values.first().and_then(|v| number(v));
    match requirement.operator.as_str() {
        "In" => value.is_some_and(|v| values.iter().any(|x| x == v)),
        "NotIn" => value.is_none_or(|v| !values.iter().any(|x| x == v)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => value.and_then(number).zip(limit).is_some_and(|(v, l)| v > l),
        "Lt" => value.and_then(number).zip(limit).is_some_and(|(v, l)| v < l),
        _ => false,
    }
}

fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    // A term without requirements matches nothing.
    (!expressions.is_empty() || !fields.is_empty())
        && expressions.iter().all(|r| matches(r, labels.and_then(|l| l.get(&r.key)).map(String::as_str)))
        && fields.iter().all(|r| r.key == "metadata.name" && matches(r, node.metadata.name.as_deref()))
}

fn selects(spec: &PodSpec, node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    let by_labels = spec.node_selector.iter().flatten().all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v));
    let required = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    by_labels && required.is_none_or(|r| r.node_selector_terms.iter().any(|t| term_matches(t, node)))
}

/// Whether a Node runs Pods of a template.
pub(super) fn fit(template: &PodTemplateSpec, node: &Node) -> Fit {
    let Some(spec) = template.spec.as_ref() else { return Fit::None };
    let pinned = spec.node_name.as_deref().filter(|n| !n.is_empty());
    if pinned.is_some_and(|n| Some(n) != node.metadata.name.as_deref()) || !selects(spec, node) {
        return Fit::None;
    }
    let mut tolerations = spec.tolerations.clone().unwrap_or_default();
    tolerate(&mut tolerations, spec.host_network == Some(true));
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
    let untolerated =
        |effect: &str| taints.iter().any(|t| t.effect == effect && !tolerations.iter().any(|o| tolerates(o, t)));
    if untolerated("NoExecute") {
        Fit::None
    } else if untolerated("NoSchedule") {
        Fit::Keeps
    } else {
        Fit::Runs
    }
}

/// Adds what every daemon tolerates.
fn tolerate(tolerations: &mut Vec<Toleration>, host_network: bool) {
    let always = [
        ("not-ready", "NoExecute"),
        ("unreachable", "NoExecute"),
        ("disk-pressure", "NoSchedule"),
        ("memory-pressure", "NoSchedule"),
        ("pid-pressure", "NoSchedule"),
        ("unschedulable", "NoSchedule"),
    ];
    let network = host_network.then_some(("network-unavailable", "NoSchedule"));
    for (key, effect) in always.into_iter().chain(network) {
        let toleration = Toleration {
            key: Some(format!("node.kubernetes.io/{key}")),
            operator: Some("Exists".into()),
            effect: Some(effect.into()),
            ..Toleration::default()
        };
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
}

/// The template of the Pod of one Node.
pub(super) fn template_for(
    template: &PodTemplateSpec,
    node: &str,
    hash: &str,
    generation: Option<i64>,
) -> PodTemplateSpec {
    let mut template = template.clone();
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH.into(), hash.to_owned());
    if let Some(generation) = generation {
        labels.insert(GENERATION.into(), generation.to_string());
    }
    let spec = template.spec.get_or_insert_default();
    tolerate(spec.tolerations.get_or_insert_default(), spec.host_network == Some(true));
    let affinity: &mut Affinity = spec.affinity.get_or_insert_default();
    let node_affinity: &mut NodeAffinity = affinity.node_affinity.get_or_insert_default();
    node_affinity.required_during_scheduling_ignored_during_execution = Some(NodeSelector {
        node_selector_terms: vec![NodeSelectorTerm {
            match_fields: Some(vec![NodeSelectorRequirement {
                key: "metadata.name".into(),
                operator: "In".into(),
                values: Some(vec![node.to_owned()]),
            }]),
            match_expressions: None,
        }],
    });
    template
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(labels: Value, taints: Value) -> Node {
        serde_json::from_value(json!({"metadata": {"name": "n1", "labels": labels}, "spec": {"taints": taints}}))
            .unwrap()
    }

    fn template(spec: Value) -> PodTemplateSpec {
        let mut spec = spec;
        spec["containers"] = json!([]);
        serde_json::from_value(json!({"spec": spec})).unwrap()
    }

    fn affinity(terms: Value) -> Value {
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
    }

    #[test]
    fn fits() {
        let taint = |key: &str, effect: &str| json!([{"key": key, "effect": effect}]);
        let (plain, none) = (json!({"disk": "ssd", "size": "9"}), json!([]));
        let cases = [
            (json!({}), none.clone(), Fit::Runs),
            (json!({"nodeName": "n1"}), none.clone(), Fit::Runs),
            (json!({"nodeName": "n2"}), none.clone(), Fit::None),
            (json!({"nodeSelector": {"disk": "ssd"}}), none.clone(), Fit::Runs),
            (json!({"nodeSelector": {"disk": "hdd"}}), none.clone(), Fit::None),
            (json!({}), taint("x", "NoSchedule"), Fit::Keeps),
            (json!({}), taint("x", "NoExecute"), Fit::None),
            (json!({}), taint("x", "PreferNoSchedule"), Fit::Runs),
            (json!({"tolerations": [{"operator": "Exists"}]}), taint("x", "NoExecute"), Fit::Runs),
            (json!({}), taint("node.kubernetes.io/not-ready", "NoExecute"), Fit::Runs),
            (json!({}), taint("node.kubernetes.io/unschedulable", "NoSchedule"), Fit::Runs),
            (json!({}), taint("node.kubernetes.io/network-unavailable", "NoSchedule"), Fit::Keeps),
            (json!({"hostNetwork": true}), taint("node.kubernetes.io/network-unavailable", "NoSchedule"), Fit::Runs),
            (
                affinity(json!([{"matchExpressions": [{"key": "size", "operator": "Gt", "values": ["8"]}]}])),
                none.clone(),
                Fit::Runs,
            ),
            (
                affinity(
                    json!([{"matchExpressions": [{"key": "disk", "operator": "NotIn", "values": ["ssd"]}]}, {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]),
                ),
                none.clone(),
                Fit::Runs,
            ),
            (affinity(json!([{}])), none, Fit::None),
        ];
        for (spec, taints, expected) in cases {
            assert_eq!(fit(&template(spec.clone()), &node(plain.clone(), taints.clone())), expected, "{spec} {taints}");
        }
    }

    #[test]
    fn pods_are_pinned() {
        let made = template_for(&template(affinity(json!([{"matchFields": []}]))), "n1", "abc", Some(3));
        let text = serde_json::to_value(&made).unwrap();
        let terms = text
            .pointer("/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms");
        assert_eq!(
            terms,
            Some(&json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]))
        );
        assert_eq!(text["metadata"]["labels"], json!({HASH: "abc", GENERATION: "3"}));
        assert_eq!(text["spec"]["tolerations"].as_array().map(Vec::len), Some(6));
    }
}
