//! The FlowSchemas and PriorityLevelConfigurations of every cluster: mandatory ones that always are as here, and
//! suggested ones that a cluster may change.

use serde_json::{Value, json};

/// Annotation that says whether the server keeps a spec as it is here.
pub const AUTOUPDATE: &str = "apf.kubernetes.io/autoupdate-spec";
/// Group and version of both kinds.
const API_VERSION: &str = "flowcontrol.apiserver.k8s.io/v1";
const LEVEL: &str = "PriorityLevelConfiguration";

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": API_VERSION, "kind": kind,
        "metadata": {"name": name, "annotations": {AUTOUPDATE: "true"}},
        "spec": spec,
    })
}

/// A level that queues: its shares, the percentage it lends, its queues and the size of a hand of them.
fn queuing(name: &str, shares: u32, lendable: u32, queues: u32, hand: u32) -> Value {
    let queuing = json!({"queues": queues, "handSize": hand, "queueLengthLimit": 50});
    object(
        LEVEL,
        name,
        &json!({"type": "Limited", "limited": {
            "nominalConcurrencyShares": shares, "lendablePercent": lendable,
            "limitResponse": {"type": "Queue", "queuing": queuing},
        }}),
    )
}

fn schema(name: &str, level: &str, precedence: u32, distinguisher: &str, rules: &[Value]) -> Value {
    let mut spec = json!({
        "priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence, "rules": rules,
    });
    if !distinguisher.is_empty() {
        spec["distinguisherMethod"] = json!({"type": distinguisher});
    }
    object("FlowSchema", name, &spec)
}

fn groups(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({"kind": "Group", "group": {"name": name}})).collect()
}

fn users(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({"kind": "User", "user": {"name": name}})).collect()
}

fn system_accounts(names: &[&str]) -> Vec<Value> {
    let account = |name| json!({"namespace": "kube-system", "name": name});
    names.iter().map(|name| json!({"kind": "ServiceAccount", "serviceAccount": account(name)})).collect()
}

/// A rule on everything.
fn all(subjects: &[Value]) -> Value {
    json!({
        "subjects": subjects,
        "resourceRules": [{
            "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true,
        }],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    })
}

/// A rule on objects in namespaces.
fn namespaced(subjects: &[Value], verbs: &[&str], group: &str, resource: &str) -> Value {
    json!({
        "subjects": subjects,
        "resourceRules": [{"verbs": verbs, "apiGroups": [group], "resources": [resource], "namespaces": ["*"]}],
    })
}

const EVERYBODY: [&str; 2] = ["system:unauthenticated", "system:authenticated"];
const COORDINATION: &str = "coordination.k8s.io";

/// Levels and schemas, levels first, that are always there as here. Of level `exempt` only the type is fixed.
pub fn mandatory() -> Vec<Value> {
    vec![
        object(
            LEVEL,
            "exempt",
            &json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}}),
        ),
        object(
            LEVEL,
            "catch-all",
            &json!({"type": "Limited", "limited": {
                "nominalConcurrencyShares": 5, "lendablePercent": 0, "limitResponse": {"type": "Reject"},
            }}),
        ),
        schema("exempt", "exempt", 1, "", &[all(&groups(&["system:masters"]))]),
        schema("catch-all", "catch-all", 10_000, "ByUser", &[all(&groups(&EVERYBODY))]),
    ]
}

/// Levels and schemas, levels first, that a cluster has unless it decides otherwise.
pub fn suggested() -> Vec<Value> {
    let controllers = users(&["system:kube-controller-manager"]);
    let leaders = users(&["system:kube-controller-manager", "system:kube-scheduler"]);
    let leaders = [leaders, system_accounts(&["*"])].concat();
    let elects = ["get", "create", "update"];
    let endpoints = system_accounts(&["endpoint-controller", "endpointslicemirroring-controller"]);
    let nodes = groups(&["system:nodes"]);
    let mut own_node = namespaced(&nodes, &["*"], COORDINATION, "leases");
    if let Some(rules) = own_node["resourceRules"].as_array_mut() {
        rules.insert(
            0,
            json!({
                "verbs": ["*"], "apiGroups": [""], "resources": ["nodes", "nodes/status"], "namespaces": ["*"],
                "clusterScope": true,
            }),
        );
    }
    let probes = json!({
        "subjects": groups(&EVERYBODY),
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}],
    });
    vec![
        queuing("system", 30, 33, 64, 6),
        queuing("node-high", 40, 25, 64, 6),
        queuing("leader-election", 10, 0, 16, 4),
        queuing("workload-high", 40, 50, 128, 6),
        queuing("workload-low", 100, 90, 128, 6),
        queuing("global-default", 20, 50, 128, 6),
        schema("probes", "exempt", 2, "", &[probes]),
        schema(
            "system-leader-election",
            "leader-election",
            100,
            "ByUser",
            &[namespaced(&leaders, &elects, COORDINATION, "leases")],
        ),
        schema(
            "endpoint-controller",
            "workload-high",
            150,
            "ByUser",
            &[namespaced(&[controllers.clone(), endpoints].concat(), &elects, "", "endpoints")],
        ),
        schema(
            "workload-leader-election",
            "leader-election",
            200,
            "ByUser",
            &[namespaced(&system_accounts(&["*"]), &elects, COORDINATION, "leases")],
        ),
        schema("system-node-high", "node-high", 400, "ByUser", &[own_node]),
        schema("system-nodes", "system", 500, "ByUser", &[all(&nodes)]),
        schema("kube-controller-manager", "workload-high", 800, "ByNamespace", &[all(&controllers)]),
        schema("kube-scheduler", "workload-high", 800, "ByNamespace", &[all(&users(&["system:kube-scheduler"]))]),
        schema("kube-system-service-accounts", "workload-high", 900, "ByNamespace", &[all(&system_accounts(&["*"]))]),
        schema("service-accounts", "workload-low", 9000, "ByUser", &[all(&groups(&["system:serviceaccounts"]))]),
        schema("global-default", "global-default", 9900, "ByUser", &[all(&groups(&EVERYBODY))]),
    ]
}

#[cfg(test)]
mod tests {
    use crate::validation;

    #[test]
    fn all_of_them_are_valid() {
        for mut object in super::mandatory().into_iter().chain(super::suggested()) {
            let kind = object["kind"].as_str().unwrap_or_default().to_owned();
            let gvk = machinery::GroupVersionKind::new("flowcontrol.apiserver.k8s.io", "v1", kind);
            crate::defaults::apply(&gvk, &mut object);
            let before = object.clone();
            let errors = validation::create(&gvk, &object);
            assert!(errors.is_empty(), "{before}: {errors:?}");
        }
    }
}
