use ::controller::{ObjectKey, Viewed};
use serde_json::json;

use super::*;

fn set(strategy: serde_json::Value) -> DaemonSet {
    serde_json::from_value(json!({"metadata": {"name": "d"}, "spec": {"selector": {}, "updateStrategy": strategy,
        "template": {"spec": {"containers": []}}}}))
    .unwrap()
}

fn rolling(surge: serde_json::Value, unavailable: serde_json::Value) -> DaemonSet {
    set(json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}))
}

/// `name@node:hash`, then `!` for not ready, `F` failed, `S` succeeded, `D` being deleted; `~node` for bound for it.
fn pod(text: &str) -> Daemon {
    let (name, rest) = text.split_once('@').unwrap();
    let (node, rest) = rest.split_once(':').unwrap();
    let flags = |c: char| rest.contains(c);
    let hash = rest.trim_end_matches(['!', 'F', 'S', 'D']);
    let phase = if flags('F') {
        "Failed"
    } else if flags('S') {
        "Succeeded"
    } else {
        "Running"
    };
    let ready = if flags('!') || phase != "Running" { "False" } else { "True" };
    let mut pod = json!({"metadata": {"name": name, "labels": {HASH: hash}, "creationTimestamp": "2024-01-01T00:00:00Z"},
        "spec": {"nodeName": node.trim_start_matches('~'), "containers": []},
        "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]}});
    if let Some(pinned) = node.strip_prefix('~') {
        pod["spec"] = json!({"containers": [], "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [pinned]}]}]}}}});
    }
    if flags('D') {
        pod["metadata"]["deletionTimestamp"] = json!("2024-01-01T00:00:00Z");
    }
    let view = PodView::project(serde_json::from_value(pod).unwrap());
    Arc::new(Cached { key: ObjectKey::new("ns", name), uid: name.into(), resource_version: "1".into(), view })
}

fn world<'a>(set: &'a DaemonSet, nodes: &[(&'a str, Fit)], pods: &[&str]) -> World<'a> {
    let pods: Vec<Daemon> = pods.iter().map(|p| pod(p)).collect();
    let now = Timestamp::from_second(2_000_000_000).unwrap();
    World { set, nodes: nodes.iter().copied().collect(), pods: by_node(&pods, false), hash: "new", now }
}

fn names(pods: &[Daemon]) -> Vec<&str> {
    pods.iter().map(|p| p.key.name.as_str()).collect()
}

#[test]
fn one_pod_on_each_node() {
    let set = rolling(json!(0), json!(1));
    let nodes = [("a", Fit::Runs), ("b", Fit::Runs), ("c", Fit::Keeps), ("d", Fit::None), ("e", Fit::Keeps)];
    let pods = ["p1@a:new", "p2@a:new", "p3@c:new", "p4@d:new", "p5@~gone:new", "p6@~b:newF", "p7@lost:new"];
    let plan = world(&set, &nodes, &pods).manage();
    assert_eq!(plan.create, Vec::<String>::new());
    assert_eq!(names(&plan.delete), ["p2", "p4", "p5"]);
    assert_eq!(plan.failed.iter().map(|(n, p)| (n.as_str(), p.key.name.as_str())).collect::<Vec<_>>(), [("b", "p6")]);
    let empty = world(&set, &nodes, &["x@a:newFD"]).manage();
    assert_eq!(empty.create, ["a", "b"]);
}

#[test]
fn replacing_within_the_budget() {
    let nodes = [("a", Fit::Runs), ("b", Fit::Runs), ("c", Fit::Runs)];
    let cases: [(i32, &[&str], &[&str]); 6] = [
        (1, &["p1@a:old", "p2@b:old", "p3@c:old"], &["p1"]),
        (2, &["p1@a:old", "p2@b:old", "p3@c:old"], &["p1", "p2"]),
        (1, &["p1@a:new!", "p2@b:old", "p3@c:old"], &[]),
        (1, &["p1@a:old!", "p2@b:old", "p3@c:old"], &["p1"]),
        (1, &["p2@b:old", "p3@c:old"], &[]),
        (1, &["p1@a:new", "p2@b:old", "p3@c:old"], &["p2"]),
    ];
    for (most, pods, expected) in cases {
        let set = rolling(json!(0), json!(most));
        assert_eq!(names(&world(&set, &nodes, pods).roll().delete), expected, "{most} {pods:?}");
    }
    // Percentages round up, and both zero means one.
    let set = rolling(json!(0), json!("0%"));
    assert_eq!(world(&set, &nodes, &["p1@a:old", "p2@b:old", "p3@c:old"]).roll().delete.len(), 1);
}

#[test]
fn surging() {
    let nodes = [("a", Fit::Runs), ("b", Fit::Runs)];
    let set = rolling(json!(1), json!(0));
    let of = |pods: &[&str]| {
        let plan = world(&set, &nodes, pods).roll();
        (plan.create.clone(), names(&plan.delete).join(","))
    };
    assert_eq!(of(&["p1@a:old", "p2@b:old"]), (vec!["a".into()], String::new()));
    assert_eq!(of(&["p1@a:old", "q1@a:new!", "p2@b:old"]), (vec![], String::new()));
    assert_eq!(of(&["p1@a:old", "q1@a:new", "p2@b:old"]), (vec!["b".into()], "p1".into()));
    assert_eq!(of(&["p1@a:old!", "p2@b:old"]), (vec!["a".into(), "b".into()], String::new()));
    // Both may stand side by side; the old one goes when it is not ready.
    assert!(world(&set, &nodes, &["p1@a:old", "q1@a:new!", "p2@b:old"]).manage().delete.is_empty());
    assert_eq!(names(&world(&set, &nodes, &["p1@a:old!", "q1@a:new!", "p2@b:old"]).manage().delete), ["p1"]);
}

#[test]
fn status_counts_nodes() {
    let set = rolling(json!(0), json!(1));
    let nodes = [("a", Fit::Runs), ("b", Fit::Runs), ("c", Fit::None), ("d", Fit::Runs)];
    let status =
        world(&set, &nodes, &["p1@a:new", "p2@b:old!", "p3@c:old"]).status(&DaemonSetStatus::default(), Some(4));
    let expected = DaemonSetStatus {
        desired_number_scheduled: 3,
        current_number_scheduled: 2,
        number_misscheduled: 1,
        number_ready: 1,
        number_available: Some(1),
        number_unavailable: Some(2),
        updated_number_scheduled: Some(1),
        observed_generation: Some(4),
        ..DaemonSetStatus::default()
    };
    assert_eq!(status, expected);
}
