//! Eviction on the real node.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::observe::{Observations, observe};
use super::rank::{Candidate, Layout};
use super::threshold::{Condition, Signal, Threshold};
use super::{Reclaim, World};
use crate::events::EventType;
use crate::gc::Gc;
use crate::node::machine;
use crate::node::status::Pressure;
use crate::pods;
use crate::services::Services;
use crate::stats::{PodStats, Stats};
use crate::workers::{Stage, StopRequest, Workers};

const CLEANUP: Duration = Duration::from_secs(30);
/// Time between two looks that memory asks for.
const SHORTEST: Duration = Duration::from_secs(1);

/// The node.
pub struct LiveWorld {
    /// Parts of the kubelet.
    pub services: Arc<Services>,
    /// Pods.
    pub workers: Arc<Workers>,
    /// Statistics.
    pub stats: Arc<Stats>,
    /// Garbage collection.
    pub gc: Arc<Gc>,
}

impl LiveWorld {
    /// Groups with the use of memory from which on thresholds are met.
    async fn marks(&self, thresholds: &[Threshold]) -> Vec<(String, u64)> {
        let services = Arc::clone(&self.services);
        let thresholds = thresholds.to_vec();
        let work = tokio::task::spawn_blocking(move || {
            let pods = services.platform.cgroup_path(&services.settings.pods_root);
            let of = |threshold: &Threshold| {
                let path = match threshold.signal {
                    Signal::Memory => "/",
                    Signal::AllocatableMemory => pods.as_str(),
                    _ => return None,
                };
                let usage = services.platform.cgroup_usage(path).ok()?;
                let installed = || u64::try_from(machine::meminfo("MemTotal")).ok();
                let capacity = if path == "/" { installed()? } else { usage.memory_limit? };
                Some((path.to_owned(), mark(threshold, capacity, usage.inactive_file)))
            };
            thresholds.iter().filter_map(of).collect::<Vec<_>>()
        });
        work.await.unwrap_or_default()
    }
}

/// The use at which too little is left. Page cache that can be dropped counts as used and as left.
fn mark(threshold: &Threshold, capacity: u64, inactive_file: u64) -> u64 {
    capacity.saturating_add(inactive_file).saturating_sub(threshold.value.of(capacity))
}

#[async_trait]
impl World for LiveWorld {
    async fn observe(&self) -> (Observations, Layout) {
        let node = self.stats.node().await;
        let layout = Layout { image_fs: node.dedicated_image_fs, split: node.container_fs.is_some() };
        (observe(&node, Timestamp::now()), layout)
    }

    async fn candidates(&self) -> Vec<Candidate> {
        let stats = match self.stats.pods().await {
            Ok(stats) => stats,
            Err(error) => {
                tracing::error!(%error, "statistics of pods");
                return Vec::new();
            }
        };
        let mut by_uid: HashMap<String, PodStats> = stats.into_iter().map(|one| (one.uid.clone(), one)).collect();
        let live = self.workers.all().into_iter().filter(|summary| summary.stage == Stage::Syncing);
        live.map(|summary| Candidate { stats: by_uid.remove(pods::uid(&summary.pod)), pod: summary.pod }).collect()
    }

    async fn limited(&self) -> Vec<Candidate> {
        let live = self.workers.all().into_iter().filter(|summary| summary.stage == Stage::Syncing);
        // Statistics of all Pods are not gathered for nobody.
        if !live.into_iter().any(|summary| super::is_limited(&summary.pod)) {
            return Vec::new();
        }
        let mut candidates = self.candidates().await;
        candidates.retain(|one| super::is_limited(&one.pod));
        candidates
    }

    async fn reclaim(&self, what: Reclaim) {
        let result = match what {
            Reclaim::Containers => self.gc.remove_dead_containers().await,
            Reclaim::Images => self.gc.remove_unused_images().await,
        };
        if let Err(error) = result {
            tracing::warn!(error = util::chain(&error), ?what, "unexpected error when attempting to reduce pressure");
        }
    }

    fn tell(&self, conditions: &BTreeSet<Condition>) {
        self.services.pressure.set(Pressure {
            memory: conditions.contains(&Condition::Memory),
            disk: conditions.contains(&Condition::Disk),
            pid: conditions.contains(&Condition::Pid),
        });
    }

    fn warn(&self, message: String) {
        self.services.events.node(EventType::Warning, "EvictionThresholdMet", message);
    }

    fn evict(&self, pod: &Arc<Pod>, request: StopRequest) {
        let message = request.verdict.as_ref().map(|verdict| verdict.message.clone()).unwrap_or_default();
        self.services.events.pod(pod, EventType::Warning, "Evicted", message);
        self.workers.stop(pods::uid(pod), request);
    }

    async fn alarmed(&self, thresholds: &[Threshold]) {
        if !self.services.config.kernel_memcg_notification {
            return std::future::pending().await;
        }
        let marks = self.marks(thresholds).await;
        let watch = |(path, mark): (String, u64)| match self.services.platform.watch_memory(&path, mark) {
            Ok(watch) => Some(watch),
            Err(error) => {
                tracing::debug!(%error, path, mark, "the kernel does not tell of memory");
                None
            }
        };
        let watches: Vec<_> = marks.into_iter().filter_map(watch).collect();
        // Memory that goes up and down around a mark is not looked at all the time.
        tokio::time::sleep(SHORTEST).await;
        if watches.is_empty() {
            return std::future::pending().await;
        }
        let crossed = watches.iter().map(|watch| Box::pin(watch.crossed()));
        if let (Err(error), ..) = futures::future::select_all(crossed).await {
            tracing::warn!(%error, "waiting for memory");
            std::future::pending::<()>().await;
        }
    }

    async fn wait_gone(&self, pods: &[Arc<Pod>]) {
        let all = async {
            for pod in pods {
                if let Some(mut stage) = self.workers.stage(pods::uid(pod)) {
                    // A task that is gone has ended too.
                    let _ended = stage.wait_for(|stage| *stage == Stage::Finished).await.is_err();
                }
            }
        };
        if tokio::time::timeout(CLEANUP, all).await.is_err() {
            tracing::info!("timed out waiting for evicted pods to be cleaned up");
        }
    }
}
