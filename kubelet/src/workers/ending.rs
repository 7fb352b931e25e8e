//! The last two stages of a Pod's task: stopping everything, then leaving nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::actor::{Actor, NETWORK_RETRY, RETRY, RoundError};
use crate::cri::PodView;
use crate::events::EventType;
use crate::metrics::METRICS;
use crate::pods;
use crate::resize::Trigger;
use crate::spec::pod_cgroup;

const CLEANUP_RETRY: Duration = Duration::from_millis(200);

impl Actor {
    pub(super) async fn terminate_until_stopped(&mut self) {
        self.services.probes.stop_liveness(self.uid());
        loop {
            let orders = self.take_orders();
            let (inbox, pod) = (Arc::clone(&self.inbox), Arc::clone(&self.pod));
            let (start, span) = (Instant::now(), self.span("syncTerminatingPod"));
            let result = tokio::select! {
                result = Box::pin(span.within(self.terminate(orders.grace))) => result,
                () = inbox.shortened(&pod, orders.grace) => continue,
            };
            METRICS.worker_duration.with_label_values(&["kill"]).observe(start.elapsed().as_secs_f64());
            match result {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(pod = pods::describe(&self.pod), %error, "stopping the pod");
                    let text = format!("error killing pod: {error}");
                    self.services.events.pod(&self.pod, EventType::Warning, "FailedKillPod", text);
                    tokio::time::sleep(NETWORK_RETRY).await;
                }
            }
        }
    }

    async fn terminate(&mut self, grace: i64) -> Result<(), RoundError> {
        let services = Arc::clone(&self.services);
        let view = Arc::new(PodView::read(&services.cri, self.uid()).await?);
        self.publish(&view, false).await;
        services.kill_pod(&self.pod, &view, grace).await?;
        let view = Arc::new(PodView::read(&services.cri, self.uid()).await?);
        let left: Vec<&str> = view.running().map(|record| record.name.as_str()).collect();
        if !left.is_empty() {
            let left = left.join(" ");
            let text = format!("detected running containers after a successful KillPod, CRI violation: [{left}]");
            return Err(RoundError::Other(text));
        }
        services.claims.unprepare(self.uid()).await.map_err(RoundError::Other)?;
        services.probes.remove(self.uid(), Some(&view));
        self.publish(&view, true).await;
        Ok(())
    }

    /// Volumes and control group must be gone before the Pod counts as over.
    pub(super) async fn clean_until_done(&mut self) {
        let services = Arc::clone(&self.services);
        let uid = self.uid().to_owned();
        let cgroup = pod_cgroup(&self.pod, &services.settings);
        let mut delay = CLEANUP_RETRY;
        let _span = self.span("syncTerminatedPod");
        let start = Instant::now();
        loop {
            let mut errors = Vec::new();
            if let Err(error) = services.volumes.tear_down(&uid).await {
                errors.push(format!("unmount volumes: {error}"));
            }
            if services.settings.cgroups_per_qos {
                let (services, cgroup) = (Arc::clone(&services), cgroup.clone());
                let removed = tokio::task::spawn_blocking(move || services.platform.remove_cgroup(&cgroup)).await;
                if let Ok(Err(error)) = removed {
                    errors.push(format!("remove cgroup: {error}"));
                }
            }
            if errors.is_empty() {
                break;
            }
            tracing::warn!(pod = pods::describe(&self.pod), errors = errors.join("; "), "cleaning up after the pod");
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(RETRY);
        }
        METRICS.worker_duration.with_label_values(&["terminated"]).observe(start.elapsed().as_secs_f64());
        services.starts.forget(&uid);
        services.allot.release(&uid);
        services.resizes.wake(Trigger::PodsRemoved);
        services.user_namespaces.release(&uid);
        services.objects.unregister(&uid);
        services.images.forget(&uid);
        services.restarts.forget(|(owner, _, _)| *owner == uid);
    }
}
