//! The asynchronous half of scheduling: tells the API server where a Pod goes.

use std::{sync::Arc, time::Duration};

use crate::{
    metrics::Attempt,
    queue::Waiting,
    report::{Nominate, Report},
    scheduler::{Shared, take_back},
};

/// A Pod on its way to a node.
pub(crate) struct Binding {
    pub(crate) waiting: Waiting,
    pub(crate) node: Arc<str>,
    /// When its cycle began.
    pub(crate) began: Duration,
}

impl Binding {
    /// Binds the Pod, or takes the assumption back.
    pub(crate) async fn run(self, shared: &Shared) {
        let pod = &self.waiting.pod;
        let profile = &pod.template.scheduler_name;
        shared.metrics.running("binding", 1);
        let bind_began = shared.now();
        let bound = shared.api.bind(pod, &self.node).await;
        let now = shared.now();
        shared.metrics.running("binding", -1);
        let status = if bound.is_ok() { "Success" } else { "Error" };
        shared.metrics.ran("Bind", status, profile, now.saturating_sub(bind_began));
        match bound {
            Ok(()) => {
                shared.state.lock().queue.remove(&pod.uid);
                shared.metrics.attempted(profile, Attempt::Scheduled, now.saturating_sub(self.began));
                let since = self.waiting.first_attempt.unwrap_or(self.began);
                shared.metrics.bound(self.waiting.attempts, now.saturating_sub(since));
                tracing::info!(v = 2, pod = %pod.full_name(), node = %self.node, "Successfully bound pod to node");
                let note = format!("Successfully assigned {} to {}", pod.full_name(), self.node);
                shared.tell(pod, "Normal", "Scheduled", "Binding", note);
            }
            Err(error) => {
                shared.metrics.attempted(profile, Attempt::Error, now.saturating_sub(self.began));
                let known = take_back(shared, pod);
                if !known || error.is_not_found() {
                    tracing::info!(v = 2, pod = %pod.full_name(), "Pod is gone while it was being bound");
                    return;
                }
                let message = format!("binding rejected: running Bind plugin \"DefaultBinder\": {error}");
                tracing::error!(pod = %pod.full_name(), node = %self.node, err = %message, "Error scheduling pod; retrying");
                let nominate = Nominate::Keep;
                Report { pod: Arc::clone(pod), reason: "SchedulerError", message, nominate, preemption: None }
                    .run(shared)
                    .await;
            }
        }
    }
}
