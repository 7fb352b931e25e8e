use ::controller::{ObjectKey, Viewed};
use serde_json::{Value, json};

use super::*;

fn set(replicas: i32, extra: Value) -> StatefulSet {
    let mut spec = json!({"replicas": replicas, "selector": {}, "template": {}, "serviceName": "s",
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}});
    for (key, value) in extra.as_object().unwrap() {
        spec[key] = value.clone();
    }
    serde_json::from_value(json!({"metadata": {"name": "web", "generation": 2}, "spec": spec})).unwrap()
}

/// `ordinal:revision`, then `!` not ready, `P` pending, `F` failed, `D` being deleted.
fn pods(texts: &[&str]) -> BTreeMap<i32, StatefulPod> {
    texts
        .iter()
        .map(|text| {
            let (ordinal, rest) = text.split_once(':').unwrap();
            let revision = rest.trim_end_matches(['!', 'P', 'F', 'D']);
            let has = |c: char| rest.contains(c);
            let phase = if has('P') { "Pending" } else if has('F') { "Failed" } else { "Running" };
            let ready = if phase == "Running" && !has('!') { "True" } else { "False" };
            let name = format!("web-{ordinal}");
            let mut pod = json!({"metadata": {"name": name, "labels": {REVISION: revision,
                "statefulset.kubernetes.io/pod-name": name, "apps.kubernetes.io/pod-index": ordinal}},
                "spec": {"containers": []}, "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]}});
            if has('D') {
                pod["metadata"]["deletionTimestamp"] = json!("2024-01-01T00:00:00Z");
            }
            let view = PodView::project(serde_json::from_value(pod).unwrap());
            let cached = Cached { key: ObjectKey::new("n", name.clone()), uid: name, resource_version: "1".into(), view };
            (ordinal.parse().unwrap(), Arc::new(cached))
        })
        .collect()
}

fn acts(set: &StatefulSet, texts: &[&str]) -> Vec<String> {
    let now = Timestamp::from_second(2_000_000_000).unwrap();
    let world = World { set, pods: pods(texts), current: "old", update: "new", now };
    let text = |action: Action| match action {
        Action::Create { ordinal, updated } => format!("+{ordinal}{}", if updated { "new" } else { "old" }),
        Action::Delete(name) => format!("-{}", name.trim_start_matches("web-")),
        Action::Claims(ordinal) => format!("claims{ordinal}"),
        Action::Repair(ordinal) => format!("repair{ordinal}"),
    };
    world.plan(|_| true).into_iter().map(text).collect()
}

#[test]
fn ordered() {
    let three = set(3, json!({}));
    let cases: [(&[&str], &[&str]); 10] = [
        (&[], &["+0new"]),
        (&["0:new"], &["+1new"]),
        (&["0:new!"], &[]),
        (&["0:newP"], &["claims0"]),
        (&["0:newF"], &["-0"]),
        (&["0:newFD"], &[]),
        (&["0:new", "1:newD"], &[]),
        (&["0:new", "2:new"], &["+1new"]),
        (&["0:new", "1:new", "2:new", "3:new", "4:new"], &["-4"]),
        (&["0:new", "1:new", "2:new", "3:new", "4:newD"], &[]),
    ];
    for (pods, expected) in cases {
        assert_eq!(acts(&three, pods), expected, "{pods:?}");
    }
    // Only the first unhealthy Pod may go while it is unhealthy.
    let one = set(1, json!({}));
    assert_eq!(acts(&one, &["0:new", "1:new", "2:new!"]), ["-2"]);
    assert_eq!(acts(&one, &["0:new", "1:new!", "2:new!"]), Vec::<String>::new());
    assert_eq!(acts(&one, &["0:new!", "1:new"]), Vec::<String>::new());
}

#[test]
fn parallel() {
    let three = set(3, json!({"podManagementPolicy": "Parallel"}));
    assert_eq!(acts(&three, &["1:new!"]), ["+0new", "+2new"]);
    assert_eq!(acts(&three, &["0:new!", "1:new!", "2:new!", "3:new!", "4:new"]), ["-4", "-3"]);
    assert_eq!(acts(&three, &["0:old!", "1:old!", "2:old!"]), ["-2"]);
}

#[test]
fn rolling() {
    let three = set(3, json!({}));
    assert_eq!(acts(&three, &["0:old", "1:old", "2:old"]), ["-2"]);
    assert_eq!(acts(&three, &["0:old", "1:old", "2:new"]), ["-1"]);
    assert_eq!(acts(&three, &["0:old", "1:old", "2:new!"]), Vec::<String>::new());
    let partitioned = set(3, json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}}));
    assert_eq!(acts(&partitioned, &["0:old", "1:old", "2:old"]), ["-2"]);
    assert_eq!(acts(&partitioned, &["0:old", "1:old", "2:new"]), Vec::<String>::new());
    assert_eq!(acts(&partitioned, &["0:old"]), ["+1old"]);
    let by_hand = set(2, json!({"updateStrategy": {"type": "OnDelete"}}));
    assert_eq!(acts(&by_hand, &["0:old", "1:old"]), Vec::<String>::new());
    assert_eq!(acts(&by_hand, &["0:old"]), ["+1new"]);
}

#[test]
fn status_moves_to_the_new_revision_when_all_are_up() {
    let of = |texts: &[&str]| {
        let set = set(2, json!({}));
        let now = Timestamp::from_second(2_000_000_000).unwrap();
        World { set: &set, pods: pods(texts), current: "old", update: "new", now }.status(0)
    };
    let half = of(&["0:old", "1:new"]);
    assert_eq!(
        (half.current_replicas, half.updated_replicas, half.current_revision.as_deref()),
        (Some(1), Some(1), Some("old"))
    );
    let waiting = of(&["0:new", "1:new!"]);
    assert_eq!((waiting.current_replicas, waiting.ready_replicas), (None, Some(1)));
    let done = of(&["0:new", "1:new"]);
    assert_eq!((done.current_replicas, done.current_revision.as_deref(), done.replicas), (Some(2), Some("new"), 2));
    let kept = StatefulSetStatus { conditions: Some(Vec::new()), ..done.clone() };
    assert!(is_same(Some(&kept), &done) && !is_same(None, &done));
}
