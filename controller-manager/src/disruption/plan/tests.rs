use ::controller::{ObjectKey, Viewed};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn pod(name: &str, value: Value) -> Arc<Cached<PodView>> {
    let pod: Pod = serde_json::from_value(value).unwrap();
    let view = PodView::project(pod);
    Arc::new(Cached { key: ObjectKey::new("ns", name), uid: name.into(), resource_version: "1".into(), view })
}

fn ready(name: &str) -> Arc<Cached<PodView>> {
    pod(name, json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}))
}

fn budget(spec: Value, status: Value) -> PodDisruptionBudget {
    serde_json::from_value(json!({"metadata": {"generation": 3}, "spec": spec, "status": status})).unwrap()
}

#[test]
fn needs() {
    let cases = [
        (json!({"minAvailable": 2}), 5, false, (5, 2)),
        (json!({"minAvailable": "50%"}), 5, true, (5, 3)),
        (json!({"minAvailable": "100%"}), 3, true, (3, 3)),
        (json!({"maxUnavailable": 1}), 5, true, (5, 4)),
        (json!({"maxUnavailable": "30%"}), 5, true, (5, 3)),
        (json!({"maxUnavailable": 9}), 5, true, (5, 0)),
        (json!({"maxUnavailable": 0}), 5, true, (5, 5)),
        (json!({}), 5, false, (0, 0)),
    ];
    for (spec, count, scale, (expected, healthy)) in cases {
        let parsed: PodDisruptionBudgetSpec = serde_json::from_value(spec.clone()).unwrap();
        assert_eq!(needs_scale(&parsed), scale, "{spec}");
        assert_eq!(need(&parsed, count), Ok(Need { expected, healthy }), "{spec}");
    }
    let wrong: PodDisruptionBudgetSpec = serde_json::from_value(json!({"minAvailable": "half"})).unwrap();
    assert!(need(&wrong, 1).is_err());
}

#[test]
fn disrupted_pods_stay_for_a_while() {
    let time = |text: &str| Time(at(text));
    let entries = BTreeMap::from([
        ("new".to_owned(), time("2024-01-01T00:01:30Z")),
        ("newer".to_owned(), time("2024-01-01T00:02:00Z")),
        ("old".to_owned(), time("2024-01-01T00:00:00Z")),
        ("going".to_owned(), time("2024-01-01T00:02:00Z")),
        ("unknown".to_owned(), time("2024-01-01T00:02:00Z")),
    ]);
    let going = pod("going", json!({"metadata": {"deletionTimestamp": "2024-01-01T00:02:00Z"}}));
    let pods = [ready("new"), ready("newer"), ready("old"), ready("other"), going];
    let found = disrupted(Some(&entries), &pods, at("2024-01-01T00:02:01Z"));
    assert_eq!(found.kept.keys().collect::<Vec<_>>(), ["new", "newer"]);
    assert_eq!(found.overdue, ["old"]);
    assert_eq!(found.next, Some(at("2024-01-01T00:03:30Z")));
    assert_eq!(disrupted(None, &pods, at("2024-01-01T00:02:01Z")), Disrupted::default());
}

#[test]
fn statuses() {
    let now = Time(at("2024-01-01T00:00:00Z"));
    let none = BTreeMap::new();
    let one = BTreeMap::from([("a".to_owned(), now.clone())]);
    let unready = pod("c", json!({"status": {"phase": "Running"}}));
    let pods = [ready("a"), ready("b"), unready];
    let show = |need: (i32, i32), disrupted: &BTreeMap<String, Time>| {
        let need = Need { expected: need.0, healthy: need.1 };
        let status = status(&budget(json!({}), json!({})), need, &pods, disrupted, &now);
        let condition = status.conditions.unwrap().remove(0);
        assert_eq!(status.observed_generation, Some(3));
        assert_eq!((condition.observed_generation, condition.message.as_str()), (Some(3), ""));
        (status.current_healthy.unwrap(), status.disruptions_allowed.unwrap(), condition.status, condition.reason)
    };
    let yes = |healthy: i32, allowed: i32| (healthy, allowed, "True".to_owned(), "SufficientPods".to_owned());
    let no = |healthy: i32| (healthy, 0, "False".to_owned(), "InsufficientPods".to_owned());
    assert_eq!(show((3, 1), &none), yes(2, 1));
    assert_eq!(show((3, 1), &one), no(1));
    assert_eq!(show((3, 2), &none), no(2));
    assert_eq!(show((3, 3), &none), no(2));
    assert_eq!(show((0, 0), &none), no(2));
}

#[test]
fn transitions_and_failures() {
    let (then, now) = (Time(at("2024-01-01T00:00:00Z")), Time(at("2024-01-02T00:00:00Z")));
    let old = json!({"disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2,
        "observedGeneration": 2, "conditions": [{"type": "Other", "status": "True", "reason": "", "message": "",
        "lastTransitionTime": then}, {"type": CONDITION, "status": "True", "reason": "SufficientPods",
        "message": "", "lastTransitionTime": then}]});
    let budget = budget(json!({}), old);
    let pods = [ready("a"), ready("b")];
    let same = status(&budget, Need { expected: 2, healthy: 1 }, &pods, &BTreeMap::new(), &now);
    assert_eq!(same.conditions.unwrap()[1].last_transition_time, then);
    let failed = failed(&budget, "no luck", &now);
    assert_eq!(
        (failed.disruptions_allowed, failed.current_healthy, failed.observed_generation),
        (Some(0), Some(2), Some(2))
    );
    let condition = &failed.conditions.unwrap()[1];
    assert_eq!((condition.reason.as_str(), condition.message.as_str()), ("SyncFailed", "no luck"));
    assert_eq!(condition.last_transition_time, now);
}

#[test]
fn targets_that_go_on_running() {
    let target = |status: &str, reason: &str, phase: &str, meta: Value| {
        let pod = pod(
            "a",
            json!({"metadata": meta, "status": {"phase": phase, "conditions": [{"type": TARGET,
            "status": status, "reason": reason, "lastTransitionTime": "2024-01-01T00:00:00Z"}]}}),
        );
        stale_at(&pod).map(|t| t.to_string())
    };
    let wanted = Some("2024-01-01T00:02:00Z".to_owned());
    assert_eq!(target("True", "EvictionByEvictionAPI", "Running", json!({})), wanted);
    assert_eq!(target("True", "TerminationByKubelet", "Running", json!({})), None);
    assert_eq!(target("False", "EvictionByEvictionAPI", "Running", json!({})), None);
    assert_eq!(target("True", "EvictionByEvictionAPI", "Failed", json!({})), None);
    let deleted = json!({"deletionTimestamp": "2024-01-01T00:00:00Z"});
    assert_eq!(target("True", "EvictionByEvictionAPI", "Running", deleted), None);
    assert_eq!(stale_at(&ready("a")), None);
}
