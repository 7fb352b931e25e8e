//! Pods that are not taken.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::watch;

use super::inbox::StopRequest;
use super::registry::Stage;
use crate::admission::{self, Refusal, Situation, Support, Victim};
use crate::events::EventType;
use crate::metrics::METRICS;
use crate::node::NodeFacts;
use crate::pods;
use crate::pods::resources::qos;
use crate::services::Services;
use crate::status::Verdict;

/// Whether an earlier kubelet took the Pod.
pub(super) fn is_taken(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|status| status.start_time.is_some())
}

impl Services {
    /// Whether a Pod that is seen for the first time is refused. What is over or ending passes, and so does what an
    /// earlier kubelet took.
    pub(super) fn refuses(&self, pod: &Pod, others: &[Arc<Pod>]) -> Result<Vec<Victim>, Refusal> {
        if is_taken(pod) || pods::is_deleting(pod) || pods::is_terminal_phase(pods::phase(pod)) {
            return Ok(Vec::new());
        }
        let node = self.facts.get();
        admission::admit(pod, &self.situation(&node, others))
    }

    /// What decisions are made from.
    pub(super) fn situation<'a>(&'a self, node: &'a NodeFacts, others: &'a [Arc<Pod>]) -> Situation<'a> {
        let groups = self.health.features().1.is_some_and(|features| features.supplemental_groups_policy);
        let support = Support { apparmor: self.settings.apparmor, strict_groups: groups };
        let shutting_down = self.shutdown.is_active();
        Situation {
            node,
            pressure: self.pressure.get(),
            support,
            shutting_down,
            sysctls: &self.sysctls,
            declared: self.settings.features.declared.as_deref(),
            others,
        }
    }

    /// Ends a Pod for a critical one.
    pub(super) fn preempt(&self, victim: &Victim) -> StopRequest {
        let text = "Preempted in order to admit critical pod";
        self.events.pod(&victim.pod, EventType::Warning, "Preempting", text);
        METRICS.preemptions.with_label_values(&[&victim.resource]).inc();
        let disruption = "Pod was preempted by Kubelet to accommodate a critical pod.".to_owned();
        let verdict = Verdict {
            phase: "Failed",
            reason: "Preempting".to_owned(),
            message: text.to_owned(),
            disruption: Some(("TerminationByKubelet", disruption)),
        };
        StopRequest { grace: None, verdict: Some(verdict) }
    }

    /// Tells why, and counts the Pod as over.
    pub(super) fn reject(&self, pod: &Arc<Pod>, refusal: &Refusal, stage: &watch::Sender<Stage>) {
        let Refusal { reason, message } = refusal;
        METRICS.admission_rejections.with_label_values(&[reason]).inc();
        self.events.pod(pod, EventType::Warning, reason, message.as_str());
        let status = PodStatus {
            phase: Some("Failed".to_owned()),
            reason: Some(reason.clone()),
            message: Some(format!("Pod was rejected: {message}")),
            qos_class: Some(qos(pod).as_str().to_owned()),
            observed_generation: pod.metadata.generation,
            ..PodStatus::default()
        };
        self.statuses.set(pod, status);
        self.statuses.finish(pods::uid(pod));
        stage.send_replace(Stage::Finished);
    }
}
