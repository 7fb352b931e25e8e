use serde_json::{Value, json};

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

fn behavior(value: Value) -> HorizontalPodAutoscalerBehavior {
    serde_json::from_value(value).unwrap()
}

fn bounds(behavior: Option<&HorizontalPodAutoscalerBehavior>) -> Bounds<'_> {
    Bounds { min: 2, max: 100, behavior, stabilization: Duration::from_secs(300) }
}

#[test]
fn without_rules() {
    // Current and wanted size, what is done and why.
    let cases = [
        (3, 5, 5, "ReadyForNewScale", "DesiredWithinRange"),
        (3, 10, 6, "ReadyForNewScale", "ScaleUpLimit"),
        (1, 10, 4, "ReadyForNewScale", "ScaleUpLimit"),
        (80, 120, 100, "ReadyForNewScale", "TooManyReplicas"),
        (3, 1, 2, "ReadyForNewScale", "TooFewReplicas"),
    ];
    for (current, wanted, replicas, able, limited) in cases {
        let decision = History::default().decide(current, wanted, bounds(None), at(0));
        assert_eq!((decision.replicas, decision.able.reason, decision.limited.reason), (replicas, able, limited));
    }
}

#[test]
fn the_most_of_five_minutes_stays() {
    let mut history = History::default();
    history.begin(8, at(0));
    let held = history.decide(8, 3, bounds(None), at(200));
    assert_eq!((held.replicas, held.able.reason), (8, "ScaleDownStabilized"));
    let freed = history.decide(8, 3, bounds(None), at(301));
    assert_eq!((freed.replicas, freed.able.reason), (3, "ReadyForNewScale"));
}

#[test]
fn windows_of_rules() {
    let rules = behavior(json!({
        "scaleUp": {"stabilizationWindowSeconds": 60, "policies": [{"type": "Percent", "value": 900, "periodSeconds": 15}]},
        "scaleDown": {"stabilizationWindowSeconds": 120, "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]},
    }));
    let mut history = History::default();
    history.begin(5, at(0));
    let step = |history: &mut History, wanted, second| {
        let decision = history.decide(5, wanted, bounds(Some(&rules)), at(second));
        (decision.replicas, decision.able.reason)
    };
    assert_eq!(step(&mut history, 9, 10), (5, "ScaleUpStabilized"));
    assert_eq!(step(&mut history, 8, 65), (8, "ReadyForNewScale"));
    assert_eq!(step(&mut history, 2, 70), (5, "ScaleDownStabilized"));
    assert_eq!(step(&mut history, 2, 191), (2, "ReadyForNewScale"));
}

#[test]
fn policies_limit_the_rate() {
    let with = |up: Value, down: Value| behavior(json!({"scaleUp": up, "scaleDown": down}));
    let policy = |kind: &str, value: i32| json!({"type": kind, "value": value, "periodSeconds": 60});
    let both = |select: &str| {
        json!({"stabilizationWindowSeconds": 0, "selectPolicy": select,
            "policies": [policy("Pods", 4), policy("Percent", 10)]})
    };
    let off = json!({"stabilizationWindowSeconds": 0, "selectPolicy": "Disabled", "policies": [policy("Pods", 4)]});
    let cases = [
        // Rules of both directions, current and wanted size, what is done and why.
        (both("Max"), 10, 50, 14, "ScaleUpLimit"),
        (both("Min"), 10, 50, 11, "ScaleUpLimit"),
        (both("Max"), 15, 50, 19, "ScaleUpLimit"),
        (both("Max"), 55, 80, 61, "ScaleUpLimit"),
        (both("Max"), 55, 10, 49, "ScaleDownLimit"),
        (both("Min"), 55, 10, 51, "ScaleDownLimit"),
        (off.clone(), 10, 50, 10, "ScaleUpLimit"),
        (off, 10, 2, 10, "ScaleDownLimit"),
        (both("Max"), 98, 200, 100, "TooManyReplicas"),
        (both("Max"), 4, 1, 2, "TooFewReplicas"),
        (both("Max"), 10, 12, 12, "DesiredWithinRange"),
    ];
    for (rules, current, wanted, replicas, reason) in cases {
        let rules = with(rules.clone(), rules);
        let decision = History::default().decide(current, wanted, bounds(Some(&rules)), at(0));
        assert_eq!((decision.replicas, decision.limited.reason), (replicas, reason), "{current} {wanted}");
    }
}

#[test]
fn earlier_steps_count_within_the_period() {
    let rules = behavior(json!({
        "scaleUp": {"stabilizationWindowSeconds": 0, "policies": [{"type": "Pods", "value": 4, "periodSeconds": 60}]},
    }));
    let mut history = History::default();
    let step = |history: &History, current, second| {
        history.clone().decide(current, 50, bounds(Some(&rules)), at(second)).replicas
    };
    assert_eq!(step(&history, 10, 0), 14);
    history.scaled(10, 14, &rules, at(0));
    assert_eq!(step(&history, 14, 30), 14);
    assert_eq!(step(&history, 14, 61), 18);
}
