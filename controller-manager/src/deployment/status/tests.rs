use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::*;

fn at(second: i64) -> Time {
    Time(Timestamp::from_second(second).unwrap())
}

fn deployment(replicas: i32, paused: bool, status: &Value) -> Deployment {
    serde_json::from_value(json!({"metadata": {"name": "d", "generation": 2}, "spec": {"replicas": replicas,
        "paused": paused, "progressDeadlineSeconds": 600, "selector": {}, "template": {},
        "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}, "status": status}))
    .unwrap()
}

fn set(name: &str, size: i32, status: Value) -> Set {
    let spec = json!({"replicas": size, "selector": {}});
    Arc::new(
        serde_json::from_value(json!({"metadata": {"name": name, "uid": name}, "spec": spec, "status": status}))
            .unwrap(),
    )
}

fn progressing(second: i64, reason: &str) -> Value {
    let time = at(second).0.to_string();
    json!({"conditions": [{"type": "Progressing", "status": "True", "reason": reason, "lastUpdateTime": time,
        "lastTransitionTime": time}], "observedGeneration": 2})
}

fn reasons(status: &DeploymentStatus) -> Vec<(&str, &str)> {
    let conditions = status.conditions.iter().flatten();
    conditions.map(|c| (c.status.as_str(), c.reason.as_deref().unwrap_or_default())).collect()
}

#[test]
fn conditions_of_a_rollout() {
    let up = |n: i32| json!({"replicas": n, "availableReplicas": n, "readyReplicas": n, "observedGeneration": 1, "terminatingReplicas": 1});
    let waiting = json!({"replicas": 2, "observedGeneration": 1});
    let cases = [
        ("done", progressing(0, "ReplicaSetUpdated"), up(2), 10, ("True", "NewReplicaSetAvailable"), Some(1)),
        ("moved", progressing(0, "NewReplicaSetCreated"), waiting.clone(), 10, ("True", "ReplicaSetUpdated"), None),
        (
            "late",
            json!({"replicas": 2, "updatedReplicas": 2, "conditions": progressing(0, "ReplicaSetUpdated")["conditions"]}),
            waiting,
            601,
            ("False", "ProgressDeadlineExceeded"),
            None,
        ),
        (
            "stays done",
            progressing(0, "NewReplicaSetAvailable"),
            up(2),
            9999,
            ("True", "NewReplicaSetAvailable"),
            Some(1),
        ),
    ];
    for (what, before, now_is, now, expected, terminating) in cases {
        let new = set("n", 2, now_is);
        let got = rollout(&deployment(2, false, &before), std::slice::from_ref(&new), Some(&new), &at(now));
        assert!(reasons(&got).contains(&expected), "{what}: {got:?}");
        assert_eq!(got.terminating_replicas, terminating, "{what}");
    }
}

#[test]
fn progress_keeps_its_transition_time() {
    let new = set("n", 2, json!({"replicas": 1}));
    let got = rollout(
        &deployment(2, false, &progressing(0, "ReplicaSetUpdated")),
        std::slice::from_ref(&new),
        Some(&new),
        &at(50),
    );
    let progress = find(&got, PROGRESSING).unwrap();
    assert_eq!((progress.last_update_time.clone(), progress.last_transition_time.clone()), (Some(at(50)), Some(at(0))));
    assert_eq!(progress.message.as_deref(), Some("ReplicaSet \"n\" is progressing."));
    assert_eq!(got.unavailable_replicas, Some(2));
}

#[test]
fn failures_are_copied() {
    let failing = json!({"replicas": 0, "conditions": [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "no"}]});
    let new = set("n", 2, failing);
    let failed = rollout(&deployment(2, false, &json!({})), std::slice::from_ref(&new), Some(&new), &at(1));
    assert_eq!(find(&failed, REPLICA_FAILURE).and_then(|c| c.message.as_deref()), Some("no"));
    let well = set("n", 2, json!({"replicas": 0}));
    let mut d = deployment(2, false, &json!({}));
    d.status = Some(failed);
    assert!(find(&rollout(&d, std::slice::from_ref(&well), Some(&well), &at(1)), REPLICA_FAILURE).is_none());
}

#[test]
fn pausing_and_resuming() {
    let reason = |d: &Deployment| pausing(d, &at(1)).and_then(|c| c.reason);
    assert_eq!(reason(&deployment(1, true, &json!({}))).as_deref(), Some("DeploymentPaused"));
    assert_eq!(reason(&deployment(1, true, &progressing(0, "DeploymentPaused"))), None);
    assert_eq!(
        reason(&deployment(1, false, &progressing(0, "DeploymentPaused"))).as_deref(),
        Some("DeploymentResumed")
    );
    assert_eq!(reason(&deployment(1, true, &progressing(0, "ProgressDeadlineExceeded"))), None);
}

#[test]
fn stuck_rollouts_are_looked_at_again() {
    let d = deployment(2, false, &progressing(100, "ReplicaSetUpdated"));
    assert_eq!(look_again(&d, &DeploymentStatus::default(), &at(200)), Some(Duration::from_secs(501)));
    let over = deployment(2, false, &progressing(100, "ProgressDeadlineExceeded"));
    assert_eq!(look_again(&over, &DeploymentStatus::default(), &at(200)), None);
}
