//! Carries out a preemption: marks the victims, tells why, deletes them.

use std::sync::Arc;

use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::{api::CallError, objects::PodView, record::Told, scheduler::Shared};

/// Pods that have to go for another one.
pub(crate) struct Eviction {
    pub(crate) node: Arc<str>,
    pub(crate) victims: Vec<Arc<PodView>>,
    /// Pods that lose their nomination to the node.
    pub(crate) displaced: Vec<Arc<PodView>>,
}

impl Eviction {
    /// Removes the victims for `preemptor`. It is not tried again before all of them are asked to go; then it is, if any
    /// of what happened meanwhile may have helped.
    pub(crate) async fn run(self, shared: &Shared, preemptor: &Arc<PodView>) {
        shared.metrics.running("preemption", 1);
        let began = shared.now();
        for pod in &self.displaced {
            let cleared = shared.api.patch_status(pod, &json!({"nominatedNodeName": null})).await;
            if let Err(error) = cleared
                && !error.is_not_found()
            {
                tracing::error!(pod = %pod.full_name(), %error, "Cannot clear 'NominatedNodeName' field of pod");
            }
        }
        let leaving: Vec<&Arc<PodView>> = self.victims.iter().filter(|v| !v.terminating).collect();
        let mut failed = false;
        for victim in leaving {
            if self.remove(shared, preemptor, victim).await.is_err() {
                failed = true;
                shared.state.lock().doomed.remove(&victim.uid);
            }
        }
        self.ended(shared, preemptor, failed);
        shared.metrics.running("preemption", -1);
        shared.metrics.evicted(!failed, shared.now().saturating_sub(began));
    }

    fn ended(&self, shared: &Shared, preemptor: &Arc<PodView>, again: bool) {
        let now = shared.now();
        shared.state.lock().queue.preemption_ended(&preemptor.uid, again, &shared.profiles, now);
        shared.wake.notify_one();
    }

    async fn remove(&self, shared: &Shared, preemptor: &Arc<PodView>, victim: &Arc<PodView>) -> Result<(), CallError> {
        let status = disruption(preemptor, OffsetDateTime::from(shared.clock.now()));
        let removed = match shared.api.patch_status(victim, &status).await {
            Ok(()) => shared.api.delete(victim).await,
            Err(error) => Err(error),
        };
        match removed {
            Ok(()) => {}
            Err(error) if error.is_not_found() => {
                tracing::info!(v = 2, victim = %victim.full_name(), "Victim Pod is already deleted");
                return Ok(());
            }
            Err(error) => {
                tracing::error!(preemptor = %preemptor.full_name(), victim = %victim.full_name(), %error, "Error occurred during preemption");
                return Err(error);
            }
        }
        shared.recorder.record(Told {
            about: Arc::clone(victim),
            related: Some(Arc::clone(preemptor)),
            kind: "Normal",
            reason: "Preempted",
            action: "Preempting",
            note: format!("Preempted by pod {} on node {}", preemptor.uid, self.node),
            scheduler: Arc::from(&*preemptor.template.scheduler_name),
        });
        Ok(())
    }
}

/// The condition that tells why a Pod has to go.
fn disruption(preemptor: &PodView, now: OffsetDateTime) -> Value {
    json!({"conditions": [{
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "PreemptionByScheduler",
        "message": format!("{}: preempting to accommodate a higher priority pod", preemptor.template.scheduler_name),
        "lastTransitionTime": machinery::time::format(now),
    }]})
}
