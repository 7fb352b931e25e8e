//! What is said to extenders and what they answer. Requests have the names of Go's fields; answers may spell them in any
//! case.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

/// The question to a filter or a prioritizer.
pub(super) fn arguments(pod: &Value, names: &[String], nodes: Option<Vec<Value>>) -> Value {
    match nodes {
        None => json!({"Pod": pod, "Nodes": null, "NodeNames": names}),
        Some(nodes) => json!({
            "Pod": pod,
            "Nodes": {"kind": "NodeList", "apiVersion": "v1", "metadata": {}, "items": nodes},
            "NodeNames": null,
        }),
    }
}

/// The answer of a filter.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Filtered {
    nodes: Option<NodeList>,
    nodenames: Option<Vec<String>>,
    failednodes: Option<BTreeMap<String, String>>,
    failedandunresolvablenodes: Option<BTreeMap<String, String>>,
    pub(super) error: String,
}

#[derive(Debug, Default, Deserialize)]
struct NodeList {
    #[serde(default)]
    items: Vec<NamedNode>,
}

#[derive(Debug, Default, Deserialize)]
struct NamedNode {
    #[serde(default)]
    metadata: Named,
}

#[derive(Debug, Default, Deserialize)]
struct Named {
    #[serde(default)]
    name: String,
}

impl Filtered {
    /// Nodes that are left.
    pub(super) fn left(&self, by_name: bool) -> Vec<String> {
        if by_name {
            return self.nodenames.clone().unwrap_or_default();
        }
        self.nodes.iter().flat_map(|list| &list.items).map(|node| node.metadata.name.clone()).collect()
    }

    /// Nodes that are not, why, and whether the absence of other Pods could change it.
    pub(super) fn failed(&self) -> impl Iterator<Item = (&str, &str, bool)> {
        let hopeless = self.failedandunresolvablenodes.iter().flatten();
        let others = self.failednodes.iter().flatten();
        let others = others
            .filter(|(name, _)| !self.failedandunresolvablenodes.as_ref().is_some_and(|list| list.contains_key(*name)));
        hopeless
            .map(|(name, why)| (name.as_str(), why.as_str(), false))
            .chain(others.map(|(name, why)| (name.as_str(), why.as_str(), true)))
    }
}

/// A node's priority.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct HostPriority {
    pub(super) host: String,
    pub(super) score: i64,
}

/// Pods that would have to go from a node.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Victims {
    pods: Option<Vec<Value>>,
    numpdbviolations: i64,
}

impl Victims {
    /// Their UIDs.
    pub(super) fn uids(&self) -> Vec<String> {
        let uid = |pod: &Value| pod.get("uid").and_then(Value::as_str).map(str::to_owned);
        self.pods.iter().flatten().filter_map(uid).collect()
    }

    pub(super) fn violations(&self) -> usize {
        usize::try_from(self.numpdbviolations).unwrap_or(0)
    }
}

/// The answer of a preemptor.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Preempted {
    pub(super) nodenametometavictims: Option<BTreeMap<String, Victims>>,
}

/// The answer of a binder.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Bound {
    pub(super) error: String,
}

/// Brings the names of fields to lower case, down to `depth` levels of objects.
pub(super) fn lowered(value: Value, depth: usize) -> Value {
    match value {
        Value::Object(fields) if depth > 0 => {
            let fields = fields.into_iter().map(|(key, value)| (key.to_lowercase(), lowered(value, depth - 1)));
            Value::Object(fields.collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(|item| lowered(item, depth)).collect()),
        other => other,
    }
}

/// The answer of a preemptor, whose second level has names of nodes that stay as they are.
pub(super) fn lowered_victims(value: Value) -> Value {
    let Value::Object(fields) = value else { return value };
    let one = |value: Value| match value {
        Value::Object(nodes) => {
            Value::Object(nodes.into_iter().map(|(node, victims)| (node, lowered(victims, 2))).collect())
        }
        other => other,
    };
    Value::Object(fields.into_iter().map(|(key, value)| (key.to_lowercase(), one(value))).collect())
}
