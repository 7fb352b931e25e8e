//! Refusals with their texts.

use serde_json::{Value, json};

use super::*;
use crate::pods::quantity;

fn pod(spec: Value) -> Arc<Pod> {
    let mut whole = json!({ "metadata": { "name": "p", "namespace": "n", "uid": "u" },
        "spec": { "containers": [{ "name": "c" }] } });
    for (key, value) in spec.as_object().unwrap() {
        whole["spec"][key] = value.clone();
    }
    Arc::new(serde_json::from_value(whole).unwrap())
}

fn asks(cpu: &str) -> Arc<Pod> {
    pod(json!({ "containers": [{ "name": "c", "resources": { "requests": { "cpu": cpu, "example.com/x": "5" } },
        "ports": [{ "containerPort": 80, "hostPort": 80 }] }] }))
}

fn decide(pod: &Pod, others: &[Arc<Pod>]) -> Result<(), (String, String)> {
    let allocatable = [("cpu", quantity::from_count(4)), ("pods", quantity::from_count(2))];
    let node = NodeFacts {
        name: "node".into(),
        allocatable: allocatable.map(|(name, amount)| (name.to_owned(), amount)).into(),
        ..NodeFacts::default()
    };
    let sysctls = Allowlist::new(&["kernel.msg*".to_owned(), "net/core/somaxconn".to_owned()]);
    let situation = Situation {
        node: &node,
        pressure: Pressure::default(),
        support: Support::default(),
        shutting_down: false,
        declared: None,
        sysctls: &sysctls,
        others,
    };
    admit(pod, &situation).map(drop).map_err(|refusal| (refusal.reason, refusal.message))
}

#[test]
fn room_is_checked() {
    let refused = |reason: &str, message: &str| Err((reason.to_owned(), message.to_owned()));
    let small = pod(json!({ "containers": [{ "name": "c", "resources": { "requests": { "cpu": "1" } } }] }));
    assert_eq!(decide(&small, &[asks("3")]), Ok(()));
    assert_eq!(
        decide(&small, &[asks("3500m")]),
        refused("OutOfcpu", "Node didn't have enough resource: cpu, requested: 1000, used: 3500, capacity: 4000")
    );
    assert_eq!(
        decide(&small, &[asks("1"), asks("1")]),
        refused("OutOfpods", "Node didn't have enough resource: pods, requested: 1, used: 2, capacity: 2")
    );
    assert_eq!(
        decide(&asks("1"), &[asks("1")]),
        refused("NodePorts", "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports")
    );
    assert_eq!(
        decide(&pod(json!({ "nodeName": "other" })), &[]),
        refused("NodeName", "Predicate NodeName failed: node(s) didn't match the requested node name")
    );
    let critical = json!({ "priority": 2_000_000_000, "containers": [{ "name": "c",
        "resources": { "requests": { "cpu": "100" } } }] });
    let (reason, message) = decide(&pod(critical), &[]).unwrap_err();
    assert_eq!(reason, "UnexpectedAdmissionError");
    assert!(message.ends_with("[(res: cpu, q: 96000), ]"), "{message}");
}

#[test]
fn ports_of_different_addresses_do_not_clash() {
    let on = |ip: &str| {
        pod(json!({ "containers": [{ "name": "c",
        "ports": [{ "containerPort": 1, "hostPort": 80, "hostIP": ip }] }] }))
    };
    assert_eq!(decide(&on("10.0.0.1"), &[on("127.0.0.1")]), Ok(()));
    for (a, b) in [("10.0.0.1", "10.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "")] {
        assert!(decide(&on(a), &[on(b)]).is_err(), "{a} {b}");
    }
}

#[test]
fn sysctls_are_checked() {
    let sets = |name: &str, more: Value| {
        let mut spec = json!({ "securityContext": { "sysctls": [{ "name": name, "value": "1" }] } });
        for (key, value) in more.as_object().unwrap() {
            spec[key] = value.clone();
        }
        decide(&pod(spec), &[]).map_err(|(_, message)| message)
    };
    assert_eq!(sets("net/ipv4/tcp_syncookies", json!({})), Ok(()));
    assert_eq!(sets("net.core.somaxconn", json!({})), Ok(()));
    assert_eq!(sets("kernel.msgmax", json!({})), Ok(()));
    assert_eq!(sets("vm.swappiness", json!({})), Err("forbidden sysctl: \"vm.swappiness\" not allowlisted".into()));
    let text = "forbidden sysctl: \"net.ipv4.tcp_syncookies\" not allowed with host Net enabled";
    assert_eq!(sets("net.ipv4.tcp_syncookies", json!({ "hostNetwork": true })), Err(text.into()));
    let text = "forbidden sysctl: \"kernel.msgmax\" not allowed with host IPC enabled";
    assert_eq!(sets("kernel.msgmax", json!({ "hostIPC": true })), Err(text.into()));
}
