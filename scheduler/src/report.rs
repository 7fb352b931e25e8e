//! What is told of a Pod that was not placed: an event, its condition PodScheduled, its nominated node.

use std::sync::Arc;

use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::devices::Release;
use crate::{objects::PodView, preempt::Eviction, scheduler::Shared};

/// What becomes of `status.nominatedNodeName`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Nominate {
    Keep,
    Nothing,
    Node(Arc<str>),
}

/// See the module.
pub(crate) struct Report {
    pub(crate) pod: Arc<PodView>,
    /// Reason of the condition.
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) nominate: Nominate,
    /// Pods to remove for this one.
    pub(crate) preemption: Option<Eviction>,
    /// Devices to be taken from a claim.
    pub(crate) release: Option<Release>,
}

impl Report {
    /// Something went wrong, so that the Pod is tried again.
    pub(crate) fn of_error(pod: &Arc<PodView>, message: String) -> Self {
        Self {
            pod: Arc::clone(pod),
            reason: "SchedulerError",
            message,
            nominate: Nominate::Keep,
            preemption: None,
            release: None,
        }
    }

    /// Tells it, and carries out the preemption.
    pub(crate) async fn run(self, shared: &Shared) {
        let pod = &self.pod;
        tracing::info!(v = 2, pod = %pod.full_name(), err = %self.message, "Unable to schedule pod");
        shared.tell(pod, "Warning", "FailedScheduling", "Scheduling", self.message.clone());
        if let Some(status) = self.status(OffsetDateTime::from(shared.clock.now())) {
            let call = shared.metrics.calling("pod_status_patch");
            let written = shared.api.patch_status(pod, &status).await;
            call.ended(&written);
            if let Err(error) = written
                && !error.is_not_found()
            {
                tracing::error!(pod = %pod.full_name(), %error, "Error updating pod");
            }
        }
        if let Some(release) = &self.release
            && let Some((devices, _)) = shared.profiles.of(pod).and_then(|p| p.devices.as_ref())
        {
            devices.deallocate(release, pod, &shared.api).await;
        }
        if let Some(eviction) = self.preemption {
            eviction.run(shared, &self.pod).await;
        }
    }

    /// The status to write; `None` if it is there already.
    fn status(&self, now: OffsetDateTime) -> Option<Value> {
        let current = self.pod.scheduled.as_deref();
        let same =
            current.is_some_and(|c| &*c.status == "False" && &*c.reason == self.reason && *c.message == *self.message);
        let mut status = json!({});
        if !same {
            let mut condition = json!({
                "type": "PodScheduled",
                "status": "False",
                "reason": self.reason,
                "message": self.message,
                "lastProbeTime": null,
            });
            if self.pod.generation > 0 {
                condition["observedGeneration"] = self.pod.generation.into();
            }
            if current.is_none_or(|c| &*c.status != "False") {
                condition["lastTransitionTime"] = machinery::time::format(now).into();
            }
            status["conditions"] = json!([condition]);
        }
        let nominated = &*self.pod.nominated_node;
        match &self.nominate {
            Nominate::Node(node) if **node != *nominated => status["nominatedNodeName"] = json!(&**node),
            Nominate::Nothing if !nominated.is_empty() => status["nominatedNodeName"] = Value::Null,
            _ => {}
        }
        (status != json!({})).then_some(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::Fixture;

    #[test]
    fn only_what_changed_is_written() {
        let fixture = Fixture::new();
        let told = fixture.pod("p", |p| p.condition("Unschedulable", "no room").nominated("n1"));
        let report = |message: &str, nominate| Report {
            pod: Arc::clone(&told),
            reason: "Unschedulable",
            message: message.into(),
            nominate,
            preemption: None,
            release: None,
        };
        let now = OffsetDateTime::UNIX_EPOCH;
        assert_eq!(report("no room", Nominate::Keep).status(now), None);
        assert_eq!(report("no room", Nominate::Node("n1".into())).status(now), None);
        assert_eq!(report("no room", Nominate::Nothing).status(now), Some(json!({"nominatedNodeName": null})));
        let other = report("still none", Nominate::Keep).status(now).unwrap();
        assert_eq!(other["conditions"][0]["message"], "still none");
        assert_eq!(other["conditions"][0].get("lastTransitionTime"), None);
        let fresh = Report { pod: fixture.pod("q", |p| p), ..report("x", Nominate::Keep) };
        assert_eq!(fresh.status(now).unwrap()["conditions"][0]["lastTransitionTime"], "1970-01-01T00:00:00Z");
    }
}
