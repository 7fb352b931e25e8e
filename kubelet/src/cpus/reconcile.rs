//! Keeping running containers on the processors that are theirs now.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::CpuSet;
use crate::cri::{PodView, RecordState};
use crate::pods;
use crate::services::Services;
use crate::workers::{Stage, Workers};

/// Tells the runtime of every container whose processors changed, for as long as the kubelet runs.
pub async fn reconcile(services: Arc<Services>, workers: Arc<Workers>, stop: CancellationToken) {
    if !services.allot.cpus.is_static() {
        return;
    }
    let mut told: HashMap<String, CpuSet> = HashMap::new();
    let mut ticks = tokio::time::interval(services.config.cpu_manager_reconcile_period.0);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let mut now = HashMap::new();
        for summary in workers.all().into_iter().filter(|summary| summary.stage == Stage::Syncing) {
            let uid = pods::uid(&summary.pod);
            let Ok(view) = PodView::read(&services.cri, uid).await else { continue };
            for record in view.containers.iter().filter(|record| record.state == RecordState::Running) {
                let Some(cpus) = services.allot.cpus.of(uid, &record.name) else { continue };
                if told.get(&record.id) != Some(&cpus)
                    && let Err(error) = services.cri.update_cpuset(&record.id, &cpus.to_string()).await
                {
                    tracing::warn!(container = record.name, %error, "processors of a container");
                    continue;
                }
                now.insert(record.id.clone(), cpus);
            }
        }
        told = now;
    }
}
