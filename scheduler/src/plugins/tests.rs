//! Filters and scores that need no more than a few lines each.

use serde_json::json;

use super::{
    node_affinity::NodeAffinity, node_declared_features::NodeDeclaredFeatures, node_ports::NodePorts,
    node_unschedulable::NodeUnschedulable, taint_toleration::TaintToleration,
};
use crate::plugins::testing::{Fixture, pod_view};

#[test]
fn cordoned_nodes() {
    let mut fixture = Fixture::new();
    fixture.node("a", |n| n);
    fixture.node("b", |n| n.unschedulable());
    let told = fixture.filter(&NodeUnschedulable, &pod_view("p", |p| p));
    assert_eq!(told[1].1, "!node(s) were unschedulable");
    let tolerant = pod_view("t", |p| p.toleration("node.kubernetes.io/unschedulable", "NoSchedule"));
    assert_eq!(fixture.passing(&NodeUnschedulable, &tolerant), ["a", "b"]);
}

#[test]
fn features_that_are_declared() {
    let mut fixture = Fixture::new();
    fixture.node("a", |n| n.feature("RestartAllContainersOnContainerExits"));
    fixture.node("b", |n| n.feature("Other"));
    let rule = |action: &str| {
        let rules = json!([{"action": action, "exitCodes": {"operator": "In", "values": [1]}}]);
        pod_view("p", |p| p.with("/spec/containers/0/restartPolicyRules", rules))
    };
    let told = fixture.filter(&NodeDeclaredFeatures, &rule("RestartAllContainers"));
    assert_eq!(told[0].1, "");
    assert_eq!(told[1].1, "!node(s) didn't match Pod's required features");
    assert_eq!(fixture.passing(&NodeDeclaredFeatures, &rule("Restart")), ["a", "b"]);
}

#[test]
fn taints_and_tolerations() {
    let cases = [
        (json!([]), false),
        (json!([{"key": "k", "operator": "Exists"}]), true),
        (json!([{"operator": "Exists"}]), true),
        (json!([{"key": "k", "operator": "Exists", "effect": "NoExecute"}]), false),
        (json!([{"key": "k", "value": "v"}]), false),
        (json!([{"key": "k", "effect": "NoSchedule"}]), true),
        (json!([{"key": "other", "operator": "Exists"}]), false),
    ];
    let mut fixture = Fixture::new();
    fixture.node("n", |n| n.taint("k", "NoSchedule").taint("soft", "PreferNoSchedule"));
    for (tolerations, fits) in cases {
        let pod = pod_view("p", |p| p.spec("tolerations", tolerations.clone()));
        let told = fixture.filter(&TaintToleration, &pod);
        let want = if fits { "" } else { "!node(s) had untolerated taint(s)" };
        assert_eq!(told[0].1, want, "{tolerations}");
    }
}

#[test]
fn soft_taints_score() {
    let mut fixture = Fixture::new();
    fixture.node("a", |n| n);
    assert_eq!(fixture.scores(&TaintToleration, &pod_view("p", |p| p)), []);
    fixture.node("b", |n| n.taint("x", "PreferNoSchedule"));
    fixture.node("c", |n| n.taint("x", "PreferNoSchedule").taint("y", "PreferNoSchedule"));
    let scores = fixture.scores(&TaintToleration, &pod_view("p", |p| p));
    assert_eq!(scores, [("a", 100), ("b", 50), ("c", 0)]);
    let tolerant = pod_view("t", |p| p.toleration("x", "PreferNoSchedule"));
    assert_eq!(fixture.scores(&TaintToleration, &tolerant), [("a", 100), ("b", 100), ("c", 0)]);
}

fn requiring(expressions: serde_json::Value) -> serde_json::Value {
    let term = json!({"matchExpressions": expressions});
    json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}})
}

#[test]
fn node_selector_operators() {
    let mut fixture = Fixture::new();
    fixture.node("n", |n| n.label("disk", "ssd").label("cores", "16"));
    let one =
        |key: &str, operator: &str, values: &[&str]| json!([{"key": key, "operator": operator, "values": values}]);
    let cases = [
        (one("disk", "In", &["hdd", "ssd"]), true),
        (one("disk", "In", &["hdd"]), false),
        (one("disk", "NotIn", &["hdd"]), true),
        (one("none", "NotIn", &["x"]), true),
        (one("disk", "Exists", &[]), true),
        (one("none", "Exists", &[]), false),
        (one("none", "DoesNotExist", &[]), true),
        (one("cores", "Gt", &["15"]), true),
        (one("cores", "Gt", &["16"]), false),
        (one("cores", "Lt", &["17"]), true),
        (one("none", "Lt", &["17"]), false),
        (one("disk", "Gt", &["1"]), false),
        (json!([]), false),
    ];
    for (expressions, fits) in cases {
        let pod = pod_view("p", |p| p.spec("affinity", requiring(expressions.clone())));
        assert_eq!(!fixture.passing(&NodeAffinity::default(), &pod).is_empty(), fits, "{expressions}");
    }
    let selecting = pod_view("s", |p| p.spec("nodeSelector", json!({"disk": "hdd"})));
    let told = fixture.filter(&NodeAffinity::default(), &selecting);
    assert_eq!(told[0].1, "!node(s) didn't match Pod's node affinity/selector");
    let plain = pod_view("q", |p| p);
    assert!(fixture.filter(&NodeAffinity::default(), &plain).is_empty(), "skipped");
}

#[test]
fn node_names_in_affinity() {
    let mut fixture = Fixture::new();
    fixture.node("a", |n| n);
    fixture.node("b", |n| n);
    let fields = |names: &[&[&str]]| {
        let field = |values: &&[&str]| json!({"key": "metadata.name", "operator": "In", "values": values});
        let term = json!({"matchFields": names.iter().map(field).collect::<Vec<_>>()});
        let required = json!({"nodeSelectorTerms": [term]});
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}})
    };
    let pod = pod_view("p", |p| p.spec("affinity", fields(&[&["b"]])));
    assert_eq!(fixture.filter(&NodeAffinity::default(), &pod)[0], ("only".into(), "b".into()));
    assert_eq!(fixture.passing(&NodeAffinity::default(), &pod), ["b"]);
    let torn = pod_view("t", |p| p.spec("affinity", fields(&[&["a"], &["b"]])));
    let told = fixture.filter(&NodeAffinity::default(), &torn);
    assert_eq!(told, [("*".into(), "pod affinity terms conflict".into())]);
}

#[test]
fn preferred_node_affinity_scores() {
    let mut fixture = Fixture::new();
    fixture.node("a", |n| n.label("disk", "ssd"));
    fixture.node("b", |n| n.label("disk", "ssd").label("zone", "z"));
    fixture.node("c", |n| n);
    let term = |key: &str| json!({"matchExpressions": [{"key": key, "operator": "Exists"}]});
    let preferred = json!([{"weight": 2, "preference": term("disk")}, {"weight": 1, "preference": term("zone")}]);
    let affinity = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}});
    let pod = pod_view("p", |p| p.spec("affinity", affinity));
    assert_eq!(fixture.scores(&NodeAffinity::default(), &pod), [("a", 66), ("b", 100), ("c", 0)]);
}

#[test]
fn host_ports_conflict() {
    let mut fixture = Fixture::new();
    fixture.node("n", |n| n);
    fixture.bound("old", "n", |p| p.host_port("10.0.0.1", "TCP", 80));
    let cases = [
        ("10.0.0.1", "TCP", 80, false),
        ("10.0.0.2", "TCP", 80, true),
        ("0.0.0.0", "TCP", 80, false),
        ("10.0.0.1", "UDP", 80, true),
        ("10.0.0.1", "TCP", 81, true),
    ];
    for (address, protocol, port, fits) in cases {
        let pod = pod_view("p", |p| p.host_port(address, protocol, port));
        let told = fixture.filter(&NodePorts, &pod);
        let want = if fits { "" } else { "node(s) didn't have free ports for the requested pod ports" };
        assert_eq!(told[0].1, want, "{address} {protocol} {port}");
    }
    fixture.cluster.remove_pod("uid-old");
    let pod = pod_view("p", |p| p.host_port("0.0.0.0", "TCP", 80));
    assert_eq!(fixture.filter(&NodePorts, &pod)[0].1, "");
}
