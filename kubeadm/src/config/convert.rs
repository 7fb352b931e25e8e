//! From `kubeadm.k8s.io/v1beta3`.

use serde_json::{Map, Value, json};

use super::documents::Documents;

/// Where a timeout that moved to another place waits until [`spread`].
const MOVED: &str = "\u{0}timeouts";

/// Brings the fields of an old document into today's form.
pub(super) fn from_v1beta3(fields: &mut Map<String, Value>) {
    for component in ["apiServer", "controllerManager", "scheduler"] {
        arguments(fields.get_mut(component), "extraArgs");
    }
    arguments(fields.get_mut("etcd").and_then(|etcd| etcd.get_mut("local")), "extraArgs");
    arguments(fields.get_mut("nodeRegistration"), "kubeletExtraArgs");
    move_timeout(fields, "apiServer", "timeoutForControlPlane", "controlPlaneComponentHealthCheck");
    move_timeout(fields, "discovery", "timeout", "discovery");
}

/// Puts timeouts of the cluster's configuration where they are today: into that of the host.
pub(super) fn spread(documents: &mut Documents) {
    let moved = documents.kinds().any(|kind| kind == "ClusterConfiguration");
    if moved
        && let Value::Object(fields) = documents.entry("ClusterConfiguration")
        && let Some(timeouts) = fields.remove(MOVED)
    {
        machinery::meta::object_mut(documents.entry("InitConfiguration")).entry("timeouts").or_insert(timeouts);
    }
    if documents.kinds().any(|kind| kind == "JoinConfiguration")
        && let Value::Object(fields) = documents.entry("JoinConfiguration")
        && let Some(timeouts) = fields.remove(MOVED)
    {
        fields.entry("timeouts").or_insert(timeouts);
    }
}

/// A map of arguments becomes a list.
fn arguments(owner: Option<&mut Value>, field: &str) {
    let Some(value) = owner.and_then(|owner| owner.get_mut(field)) else { return };
    if let Value::Object(map) = value {
        let mut pairs: Vec<_> = map.iter().collect();
        pairs.sort_by(|a, b| a.0.cmp(b.0));
        *value = pairs.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    }
}

fn move_timeout(fields: &mut Map<String, Value>, owner: &str, old: &str, new: &str) {
    let Some(Value::Object(owner)) = fields.get_mut(owner) else { return };
    if let Some(value) = owner.remove(old) {
        fields.insert(MOVED.to_owned(), json!({new: value}));
    }
}
