use super::*;
use crate::plugins::testing::{Fixture, node_view, pod_view};

#[test]
fn assumed_pods_count_until_confirmed_or_refused() {
    let mut fixture = Fixture::new();
    fixture.node("n", |n| n);
    let cluster = &mut fixture.cluster;
    let node = cluster.nodes.find("n").unwrap();
    let pod = pod_view("p", |p| p.requests("1", "1Gi"));
    cluster.assume(&pod, node);
    assert!(cluster.is_assumed(&pod.uid));
    assert_eq!(cluster.nodes.cpu.requested[node.at()], 1000);
    assert!(cluster.forget(&pod.uid));
    assert_eq!(cluster.nodes.cpu.requested[node.at()], 0);
    cluster.assume(&pod, node);
    let confirmed = pod_view("p", |p| p.requests("1", "1Gi").spec("nodeName", "n".into()));
    cluster.set_pod(&confirmed);
    assert!(!cluster.forget(&pod.uid));
    assert_eq!(cluster.pod_counts(), (1, 0));
    assert_eq!(cluster.nodes.cpu.requested[node.at()], 1000);
    cluster.check();
}

#[test]
fn pods_may_be_known_before_their_node() {
    let mut cluster = Cluster::default();
    let pod = pod_view("p", |p| p.requests("1", "1Gi").spec("nodeName", "late".into()));
    cluster.set_pod(&pod);
    assert_eq!(cluster.nodes.len(), 0);
    assert!(cluster.set_node(&node_view("late", |n| n)));
    let node = cluster.node_of(&pod.uid).unwrap();
    assert_eq!(cluster.nodes.cpu.requested[node.at()], 1000);
    cluster.remove_node("late");
    assert_eq!(cluster.nodes.len(), 0);
    cluster.remove_pod(&pod.uid);
    assert_eq!(cluster.nodes.find("late"), None);
}

#[test]
fn places_and_texts_are_used_again() {
    let mut cluster = Cluster::default();
    for round in 0..50 {
        let name = format!("n{round}");
        cluster.set_node(&node_view(&name, |n| n.label("round", &name).resource("example.com/x", "1")));
        let pod = pod_view("p", |p| p.request("example.com/x", "1").spec("nodeName", name.as_str().into()));
        cluster.set_pod(&pod);
        cluster.remove_node(&name);
        cluster.remove_pod(&pod.uid);
        assert_eq!(cluster.symbols.find(&name), None);
    }
    assert_eq!(cluster.nodes.slots(), 1);
}

#[test]
fn zones_are_tried_in_turn() {
    let mut cluster = Cluster::default();
    for (name, zone) in [("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b"), ("c1", "c")] {
        cluster.set_node(&node_view(name, |n| n.label("topology.kubernetes.io/zone", zone)));
    }
    cluster.begin();
    let order: Vec<String> = cluster.ordered().iter().map(|n| cluster.nodes.name(*n).to_string()).collect();
    assert_eq!(order, ["a1", "b1", "c1", "a2", "a3"]);
}

#[test]
fn counts_follow_pods_and_nodes() {
    let mut cluster = Cluster::default();
    for (name, zone) in [("a1", "a"), ("b1", "b")] {
        cluster.set_node(&node_view(name, |n| n.label("zone", zone)));
    }
    let question = || Question {
        key: "zone".into(),
        counted: Counted::Selected {
            namespace: "default".into(),
            selector: machinery::selector::LabelSelector::parse("app=web").unwrap(),
        },
        eligible: Eligible::default(),
    };
    let count = |cluster: &mut Cluster, node: &str| {
        let view = cluster.view(question());
        let node = cluster.nodes.find(node).unwrap();
        cluster.counts(view).unwrap().count(node)
    };
    assert_eq!(count(&mut cluster, "a1"), Some(0));
    let pod = pod_view("p", |p| p.label("app", "web").spec("nodeName", "a1".into()));
    cluster.set_pod(&pod);
    assert_eq!((count(&mut cluster, "a1"), count(&mut cluster, "b1")), (Some(1), Some(0)));
    let leaving = pod_view("p", |p| p.label("app", "web").spec("nodeName", "a1".into()).terminating());
    cluster.set_pod(&leaving);
    assert_eq!(count(&mut cluster, "a1"), Some(0));
    cluster.set_pod(&pod);
    cluster.set_node(&node_view("a1", |n| n.label("zone", "b")));
    assert_eq!(count(&mut cluster, "b1"), Some(1));
    cluster.remove_pod(&pod.uid);
    assert_eq!(count(&mut cluster, "b1"), Some(0));
}

#[test]
fn rules_are_known_while_somebody_carries_them() {
    let mut cluster = Cluster::default();
    cluster.set_node(&node_view("n", |n| n));
    let term = serde_json::json!({"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "zone"});
    let affinity = serde_json::json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
    let carrier = pod_view("c", |p| p.spec("affinity", affinity).spec("nodeName", "n".into()));
    let web = pod_view("w", |p| p.label("app", "web"));
    let about = |cluster: &Cluster| cluster.rules_about(&web.template, |k| k == RuleKind::AntiAffinity).len();
    cluster.set_pod(&carrier);
    assert_eq!(about(&cluster), 1);
    cluster.remove_pod(&carrier.uid);
    assert_eq!(about(&cluster), 0);
}
