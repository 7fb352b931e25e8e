//! What a ReplicaSet needs: pure.

use machinery::meta;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::objects::{available_in, condition, is_active, is_ready, number, text};

/// Creates and deletes of one sync at most.
const BURST: usize = 500;

/// What to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Pods to create.
    pub(super) create: usize,
    /// Names of Pods to delete.
    pub(super) delete: Vec<String>,
}

/// Compares the wanted number with the active Pods.
pub(super) fn plan(set: &Value, pods: &[Value]) -> Plan {
    if meta::is_deleting(set) {
        return Plan::default();
    }
    let active: Vec<&Value> = pods.iter().filter(|p| is_active(p)).collect();
    let wanted = usize::try_from(number(set, "/spec/replicas")).unwrap_or(0);
    if active.len() <= wanted {
        return Plan { create: (wanted - active.len()).min(BURST), delete: Vec::new() };
    }
    let mut ranked = active.clone();
    ranked.sort_by_key(|pod| rank(pod));
    let surplus = (active.len() - wanted).min(BURST);
    Plan { create: 0, delete: ranked.iter().take(surplus).map(|p| meta::name(p).to_owned()).collect() }
}

/// Pods that go first sort first: unassigned, pending, unready, cheap to delete, recently ready, often restarted, young.
fn rank(pod: &Value) -> (bool, u8, bool, i64, std::cmp::Reverse<String>, std::cmp::Reverse<i64>, std::cmp::Reverse<String>) {
    let phase = match text(pod, "/status/phase") {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let cost = pod.pointer("/metadata/annotations/controller.kubernetes.io~1pod-deletion-cost").and_then(Value::as_str);
    let ready_since = condition(pod, "Ready").map_or(String::new(), |c| text(c, "/lastTransitionTime").to_owned());
    let statuses = pod.pointer("/status/containerStatuses").and_then(Value::as_array);
    let restarts = statuses.into_iter().flatten().map(|s| number(s, "/restartCount")).max().unwrap_or(0);
    (
        !text(pod, "/spec/nodeName").is_empty(),
        phase,
        is_ready(pod),
        cost.and_then(|c| c.parse().ok()).unwrap_or(0),
        std::cmp::Reverse(ready_since),
        std::cmp::Reverse(restarts),
        std::cmp::Reverse(meta::text(pod, "creationTimestamp").to_owned()),
    )
}

/// The status, and the seconds until a Pod becomes available that is not yet.
pub(super) fn status(set: &Value, pods: &[Value], failure: Option<&str>, stamp: &str, now: OffsetDateTime) -> (Value, Option<u64>) {
    let min_ready = number(set, "/spec/minReadySeconds");
    let active: Vec<&Value> = pods.iter().filter(|p| is_active(p)).collect();
    let waits: Vec<i64> = active.iter().filter_map(|p| available_in(p, min_ready, now)).collect();
    let labels = set.pointer("/spec/template/metadata/labels").and_then(Value::as_object);
    let labelled = active.iter().filter(|p| {
        labels.into_iter().flatten().all(|(k, v)| p.pointer("/metadata/labels").and_then(|l| l.get(k)) == Some(v))
    });
    let going = pods.iter().filter(|p| meta::is_deleting(p) && !matches!(text(p, "/status/phase"), "Succeeded" | "Failed"));
    let mut status = json!({
        "replicas": active.len(),
        "fullyLabeledReplicas": labelled.count(),
        "readyReplicas": active.iter().filter(|p| is_ready(p)).count(),
        "availableReplicas": waits.iter().filter(|w| **w == 0).count(),
        "terminatingReplicas": going.count(),
        "observedGeneration": number(set, "/metadata/generation"),
    });
    let present = condition(set, "ReplicaFailure");
    if let Some(message) = failure {
        let same = present.filter(|c| text(c, "/message") == message);
        let since = same.map_or(stamp, |c| text(c, "/lastTransitionTime"));
        status["conditions"] = json!([{
            "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message,
            "lastTransitionTime": since,
        }]);
    }
    let next = waits.into_iter().filter(|w| *w > 0).min().and_then(|w| u64::try_from(w).ok());
    (status, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, node: &str, ready: bool) -> Value {
        json!({"metadata": {"name": name}, "spec": {"nodeName": node}, "status": {"phase": "Running",
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}})
    }

    #[test]
    fn missing_pods_are_created() {
        let set = json!({"spec": {"replicas": 3}});
        assert_eq!(plan(&set, &[pod("a", "n", true)]), Plan { create: 2, delete: vec![] });
        let mut going = pod("b", "n", true);
        going["metadata"]["deletionTimestamp"] = json!("2024-01-01T00:00:00Z");
        assert_eq!(plan(&set, &[going]).create, 3, "a Pod that goes is replaced at once");
    }

    #[test]
    fn unready_and_unassigned_pods_go_first() {
        let set = json!({"spec": {"replicas": 1}});
        let pods = [pod("ready", "n", true), pod("unready", "n", false), pod("unassigned", "", false)];
        assert_eq!(plan(&set, &pods).delete, ["unassigned", "unready"]);
    }

    #[test]
    fn a_deleted_set_leaves_its_pods_to_collection() {
        let set = json!({"metadata": {"deletionTimestamp": "x"}, "spec": {"replicas": 3}});
        assert_eq!(plan(&set, &[]), Plan::default());
    }

    #[test]
    fn availability_takes_min_ready_seconds() {
        let now = machinery::time::parse("2024-01-01T00:00:10Z").expect("time");
        let mut one = pod("a", "n", true);
        one["status"]["conditions"][0]["lastTransitionTime"] = json!("2024-01-01T00:00:05Z");
        let set = json!({"spec": {"replicas": 1, "minReadySeconds": 30}});
        let (status, next) = status(&set, &[one], None, "", now);
        assert_eq!((status["readyReplicas"].as_u64(), status["availableReplicas"].as_u64()), (Some(1), Some(0)));
        assert_eq!(next, Some(25));
    }
}
