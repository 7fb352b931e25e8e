use serde_json::json;

use super::*;

fn deployment(replicas: i32, strategy: serde_json::Value) -> Deployment {
    serde_json::from_value(json!({"metadata": {"name": "d", "generation": 1}, "spec": {
        "replicas": replicas, "strategy": strategy, "selector": {}, "revisionHistoryLimit": 1,
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "new"}]}}}}))
    .unwrap()
}

fn rolling(replicas: i32, surge: serde_json::Value, unavailable: serde_json::Value) -> Deployment {
    deployment(
        replicas,
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}),
    )
}

fn set(name: &str, age: u32, size: i32, available: i32, annotations: serde_json::Value) -> Set {
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"name": name, "uid": name, "annotations": annotations, "generation": 1,
                "creationTimestamp": format!("2024-01-01T00:00:{:02}Z", 59 - age)},
            "spec": {"replicas": size, "selector": {},
                "template": {"metadata": {"labels": {"a": "b", "pod-template-hash": name}},
                    "spec": {"containers": [{"name": "c", "image": name}]}}},
            "status": {"replicas": size, "availableReplicas": available, "observedGeneration": 1}}))
        .unwrap(),
    )
}

fn to(name: &str, to: i32) -> Resize {
    Resize { name: name.into(), to }
}

#[test]
fn bounds() {
    let cases = [
        (10, json!("25%"), json!("25%"), (3, 2)),
        (1, json!("25%"), json!("25%"), (1, 0)),
        (4, json!(0), json!(0), (0, 1)),
        (2, json!(1), json!(9), (1, 2)),
        (0, json!(1), json!(1), (1, 0)),
    ];
    for (replicas, surge, unavailable, expected) in cases {
        let d = rolling(replicas, surge, unavailable);
        assert_eq!((max_surge(&d), max_unavailable(&d)), expected);
    }
    let d = deployment(5, json!({"type": "Recreate"}));
    assert_eq!((max_surge(&d), max_unavailable(&d)), (0, 0));
}

#[test]
fn the_new_set_is_the_oldest_with_the_template() {
    let d = rolling(1, json!(1), json!(0));
    let sets = [set("new", 1, 1, 1, json!({})), set("old", 9, 1, 1, json!({}))];
    let mut twin = ReplicaSet::clone(&set("new", 5, 0, 0, json!({})));
    twin.metadata.name = Some("twin".into());
    twin.metadata.uid = Some("twin".into());
    let all = [sets[0].clone(), sets[1].clone(), Arc::new(twin)];
    let (new, old) = split(&d, &all);
    assert_eq!(name(&new.unwrap()), "twin");
    assert_eq!(old.iter().map(|s| name(s)).collect::<Vec<_>>(), ["old", "new"]);
}

#[test]
fn the_new_set_grows_up_to_the_ceiling() {
    let d = rolling(10, json!(3), json!(2));
    let old = [set("old", 9, 10, 10, json!({}))];
    assert_eq!(new_size(&d, &old, 0), 3);
    assert_eq!(new_size(&d, &[old[0].clone(), set("new", 1, 3, 0, json!({}))], 3), 3);
    assert_eq!(new_size(&d, &[set("new", 1, 12, 0, json!({}))], 12), 10);
    assert_eq!(new_size(&d, &[], 0), 10);
}

#[test]
fn old_sets_shrink_within_availability() {
    let d = rolling(10, json!(3), json!(2));
    let cases = [
        // New Pods that are not available yet leave only what may be missing.
        (3, 0, vec![("a", 9, 10, 10)], vec![to("a", 8)]),
        (3, 3, vec![("a", 9, 10, 10)], vec![to("a", 5)]),
        (5, 0, vec![("a", 9, 8, 8)], vec![]),
        // Unhealthy ones go first, the oldest set first.
        (3, 0, vec![("a", 9, 4, 4), ("b", 8, 6, 4)], vec![to("b", 4)]),
        (5, 5, vec![("a", 9, 4, 4), ("b", 8, 4, 2)], vec![to("b", 2), to("a", 1)]),
        (10, 10, vec![("a", 9, 0, 0)], vec![]),
    ];
    for (size, up, old, expected) in cases {
        let new = set("new", 1, size, up, json!({}));
        let old: Vec<Set> = old.into_iter().map(|(n, age, s, a)| set(n, age, s, a, json!({}))).collect();
        assert_eq!(shrink_old(&d, Some(&new), &old), expected, "{size} {up}");
    }
}

#[test]
fn a_rollout_keeps_its_bounds_at_every_step() {
    let d = rolling(10, json!("25%"), json!("25%"));
    let mut sizes = [(10, 10), (0, 0)];
    for _ in 0..50 {
        let old = [set("old", 9, sizes[0].0, sizes[0].1, json!({}))];
        let new = set("new", 1, sizes[1].0, sizes[1].1, json!({}));
        let grown = new_size(&d, &[old[0].clone(), new.clone()], sizes[1].0);
        if grown == sizes[1].0 {
            if let Some(step) = shrink_old(&d, Some(&new), &old).last() {
                sizes[0] = (step.to, sizes[0].1.min(step.to));
            }
        } else {
            sizes[1].0 = grown;
        }
        assert!(sizes[0].0 + sizes[1].0 <= 13);
        assert!(sizes[0].1 + sizes[1].1 >= 8);
        // One more new Pod becomes available.
        sizes[1].1 = (sizes[1].1 + 1).min(sizes[1].0);
    }
    assert_eq!(sizes, [(0, 0), (10, 10)]);
}

#[test]
fn scaling_a_stuck_rollout_keeps_proportions() {
    let annotations = json!({DESIRED: "10", MAX: "13"});
    let (old, new) = (set("old", 9, 8, 8, annotations.clone()), set("new", 1, 5, 0, annotations));
    let d = rolling(30, json!(3), json!(2));
    assert!(is_scaling(&d, &[old.clone(), new.clone()]));
    let expected = Scaling::Proportional(vec![to("old", 20), to("new", 13)]);
    assert_eq!(scale(&d, Some(&new), std::slice::from_ref(&old)), expected);
    let none = scale(&rolling(0, json!(3), json!(2)), Some(&new), &[old]);
    assert_eq!(none, Scaling::Proportional(vec![to("old", 0), to("new", 0)]));
}

#[test]
fn scaling_one_set() {
    let d = rolling(5, json!(1), json!(0));
    let (old, new) = (set("old", 9, 0, 0, json!({})), set("new", 1, 3, 3, json!({DESIRED: "3"})));
    assert_eq!(scale(&d, Some(&new), std::slice::from_ref(&old)), Scaling::Sizes(vec![to("new", 5)]));
    assert_eq!(scale(&d, None, &[old.clone(), set("b", 3, 0, 0, json!({}))]), Scaling::Sizes(vec![to("b", 5)]));
    let full = set("new", 1, 5, 5, json!({DESIRED: "5"}));
    assert_eq!(scale(&d, Some(&full), &[set("old", 9, 2, 2, json!({}))]), Scaling::Sizes(vec![to("old", 0)]));
    assert!(!is_scaling(&d, &[full]));
}

#[test]
fn history_is_limited() {
    let d = rolling(1, json!(1), json!(0));
    let with = |name: &str, revision: &str, size| set(name, 5, size, size, json!({revision::REVISION: revision}));
    let old = [with("c", "3", 0), with("a", "1", 0), with("b", "2", 1)];
    let gone = outdated(&d, &old);
    assert_eq!(gone.iter().map(|s| name(s)).collect::<Vec<_>>(), ["a"]);
}
