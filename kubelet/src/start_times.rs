//! How long Pods take to start, as those who made them see it.
//!
//! A Pod counts once: when the API shows for the first time that all its containers have started. A Pod that had
//! started before this kubelet saw it does not count.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use parking_lot::Mutex;

use crate::metrics::METRICS;
use crate::pods;

/// More Pods than these are not followed at a time.
const FOLLOWED: usize = 10_000;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Span {
    first: Option<Timestamp>,
    last: Option<Timestamp>,
}

impl Span {
    fn add(&mut self, from: Timestamp, to: Timestamp) {
        self.first = Some(self.first.map_or(from, |first| first.min(from)));
        self.last = Some(self.last.map_or(to, |last| last.max(to)));
    }

    fn seconds(self) -> f64 {
        match (self.first, self.last) {
            (Some(first), Some(last)) => last.duration_since(first).as_secs_f64().max(0.0),
            _ => 0.0,
        }
    }
}

/// Durations of one start, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Durations {
    total: f64,
    /// Without pulling images and init containers.
    own: f64,
}

/// Starts under way by UID.
#[derive(Default)]
pub struct StartTimes(Mutex<HashMap<String, Span>>);

impl StartTimes {
    /// An image was pulled for a Pod.
    pub fn pulled(&self, uid: &str, from: Timestamp, to: Timestamp) {
        if let Some(span) = self.0.lock().get_mut(uid) {
            span.add(from, to);
        }
    }

    /// The API shows this of a Pod.
    pub fn observed(&self, pod: &Pod, now: Timestamp) {
        if let Some(durations) = self.step(pod, now) {
            METRICS.pods.start_total.observe(durations.total);
            METRICS.pods.start_sli.observe(durations.own);
        }
    }

    fn step(&self, pod: &Pod, now: Timestamp) -> Option<Durations> {
        if pods::is_static(pod) {
            return None;
        }
        let mut starting = self.0.lock();
        let uid = pods::uid(pod);
        if !has_started(pod) {
            let over = pods::is_terminal_phase(pods::phase(pod)) || pods::is_deleting(pod);
            if over {
                starting.remove(uid);
            } else if starting.len() < FOLLOWED && pods::phase(pod) != "Running" {
                starting.entry(uid.to_owned()).or_default();
            }
            return None;
        }
        let mut excluded = starting.remove(uid)?;
        let created = pod.metadata.creation_timestamp.as_ref()?.0;
        for status in pod.status.iter().flat_map(|status| status.init_container_statuses.iter().flatten()) {
            let Some(ended) = status.state.as_ref().and_then(|state| state.terminated.as_ref()) else { continue };
            if let (Some(from), Some(to)) = (&ended.started_at, &ended.finished_at) {
                excluded.add(from.0, to.0);
            }
        }
        let total = now.duration_since(created).as_secs_f64().max(0.0);
        Some(Durations { total, own: (total - excluded.seconds()).max(0.0) })
    }

    /// A Pod is over.
    pub fn forget(&self, uid: &str) {
        self.0.lock().remove(uid);
    }
}

/// Whether every regular container has started, running or ended since.
fn has_started(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let statuses = status.container_statuses.as_deref().unwrap_or_default();
    let started = |status: &ContainerStatus| {
        status.state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some())
    };
    !statuses.is_empty() && statuses.len() == pods::containers(pod).len() && statuses.iter().all(started)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(status: Value) -> Pod {
        let value = json!({
            "metadata": { "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z" },
            "spec": { "containers": [{ "name": "c" }], "initContainers": [{ "name": "i" }] }, "status": status,
        });
        serde_json::from_value(value).unwrap()
    }

    fn at(second: i64) -> Timestamp {
        "2026-01-01T00:00:00Z"
            .parse::<Timestamp>()
            .unwrap()
            .checked_add(jiff::SignedDuration::from_secs(second))
            .unwrap()
    }

    fn running() -> Pod {
        pod(json!({
            "phase": "Running",
            "containerStatuses": [{ "name": "c", "state": { "running": {} } }],
            "initContainerStatuses": [{ "name": "i", "state": { "terminated": {
                "exitCode": 0, "startedAt": "2026-01-01T00:00:06Z", "finishedAt": "2026-01-01T00:00:08Z",
            } } }],
        }))
    }

    #[test]
    fn pulls_and_init_containers_are_not_the_kubelets() {
        let times = StartTimes::default();
        assert_eq!(times.step(&pod(json!({ "phase": "Pending" })), at(1)), None);
        times.pulled("u", at(2), at(6));
        assert_eq!(times.step(&running(), at(10)), Some(Durations { total: 10.0, own: 4.0 }));
        assert_eq!(times.step(&running(), at(11)), None, "once");
    }

    #[test]
    fn what_ran_before_does_not_count() {
        let times = StartTimes::default();
        assert_eq!(times.step(&running(), at(10)), None);
        assert_eq!(times.step(&pod(json!({ "phase": "Pending" })), at(11)), None);
        let failed = pod(json!({ "phase": "Failed" }));
        assert_eq!(times.step(&failed, at(12)), None);
        assert_eq!(times.step(&running(), at(13)), None, "it was over");
    }
}
