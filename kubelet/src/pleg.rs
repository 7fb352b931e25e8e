//! Noticing what changed in the runtime.
//!
//! One list of all sandboxes and containers a second is compared with the last; a Pod whose states differ is woken, all
//! others cost nothing. Where the runtime has an event stream that stays up, the list becomes a rare safety net.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::cri::{Cri, CriError, labels};
use crate::metrics::METRICS;
use crate::runtime_health::RuntimeHealth;
use crate::workers::Workers;

const RELIST: Duration = Duration::from_secs(1);
const RELIST_WITH_EVENTS: Duration = Duration::from_secs(300);
const STREAM_RETRIES: u32 = 5;

/// States by runtime id of one Pod.
type States = BTreeMap<String, i32>;

/// A Pod in the runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimePod {
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Whether a sandbox is ready or a container runs.
    pub running: bool,
    states: States,
}

/// Pods by UID.
pub type RuntimePods = HashMap<String, RuntimePod>;

/// The last list.
#[derive(Default)]
pub struct Pleg {
    pods: Mutex<Arc<RuntimePods>>,
    relist: Notify,
}

impl Pleg {
    /// Watches until stopped.
    pub async fn run(&self, cri: &Cri, workers: &Workers, health: &RuntimeHealth, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.watch(cri, workers, health) => {}
        }
    }

    async fn watch(&self, cri: &Cri, workers: &Workers, health: &RuntimeHealth) {
        let streaming = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let events = self.events(cri, workers, &streaming);
        let lists = async {
            let mut last = Instant::now();
            loop {
                METRICS.relist_interval.observe(last.elapsed().as_secs_f64());
                last = Instant::now();
                match self.relist(cri, workers).await {
                    Ok(()) => health.relisted(),
                    Err(error) => tracing::warn!(%error, "relist"),
                }
                METRICS.relist_duration.observe(last.elapsed().as_secs_f64());
                let live = streaming.load(std::sync::atomic::Ordering::Relaxed);
                let period = if live { RELIST_WITH_EVENTS } else { RELIST };
                tokio::select! {
                    () = tokio::time::sleep(period) => {}
                    () = self.relist.notified() => {}
                }
            }
        };
        tokio::join!(events, lists);
    }

    /// Follows the event stream; gives up where the runtime has none.
    async fn events(&self, cri: &Cri, workers: &Workers, streaming: &std::sync::atomic::AtomicBool) {
        use std::sync::atomic::Ordering::Relaxed;
        let mut failures = 0;
        while failures < STREAM_RETRIES {
            match cri.container_events().await {
                Ok(mut stream) => {
                    streaming.store(true, Relaxed);
                    self.relist.notify_one();
                    while let Ok(Some(event)) = stream.message().await {
                        failures = 0;
                        let metadata = event.pod_sandbox_status.and_then(|status| status.metadata);
                        match metadata {
                            Some(metadata) => workers.nudge(&metadata.uid),
                            None => self.relist.notify_one(),
                        }
                    }
                    streaming.store(false, Relaxed);
                    self.relist.notify_one();
                }
                Err(error) if error.is_unimplemented() => return,
                Err(_) => {}
            }
            failures += 1;
            tokio::time::sleep(RELIST * failures).await;
        }
    }

    /// Lists everything and wakes the Pods that differ.
    pub async fn relist(&self, cri: &Cri, workers: &Workers) -> Result<(), CriError> {
        let fresh = read(cri).await?;
        let ready = fresh.values().filter(|pod| pod.running).count();
        METRICS.running_pods.set(i64::try_from(ready).unwrap_or(i64::MAX));
        let changed: Vec<String> = {
            let mut known = self.pods.lock();
            let changed = differing(&known, &fresh);
            // What did not change keeps its memory.
            if !changed.is_empty() {
                *known = Arc::new(fresh);
            }
            changed
        };
        for uid in changed {
            workers.nudge(&uid);
        }
        METRICS.relist_last_seen.set(jiff::Timestamp::now().as_second() as f64);
        Ok(())
    }

    /// The Pods of the last list.
    pub fn pods(&self) -> Arc<RuntimePods> {
        Arc::clone(&self.pods.lock())
    }
}

async fn read(cri: &Cri) -> Result<RuntimePods, CriError> {
    let mut pods = RuntimePods::new();
    let mut owners: HashMap<String, String> = HashMap::new();
    let mut counts = [0_i64; 4];
    for sandbox in cri.all_sandboxes().await? {
        let Some(metadata) = sandbox.metadata else { continue };
        owners.insert(sandbox.id.clone(), metadata.uid.clone());
        let pod = pods.entry(metadata.uid).or_default();
        pod.name = metadata.name;
        pod.namespace = metadata.namespace;
        // Sandboxes count as containers; their states do not overlap with those of containers.
        pod.running |= sandbox.state == 0;
        pod.states.insert(sandbox.id, 100 + sandbox.state);
    }
    for container in cri.all_containers().await? {
        let state = usize::try_from(container.state).unwrap_or(3).min(3);
        counts[state] += 1;
        let pod = match owners.get(&container.sandbox) {
            Some(uid) => pods.get_mut(uid),
            None => owner_without_sandbox(cri, &container.id).await?.map(|uid| pods.entry(uid).or_default()),
        };
        let Some(pod) = pod else { continue };
        pod.running |= container.state == 1;
        pod.states.insert(container.id, container.state);
    }
    for (state, count) in ["created", "running", "exited", "unknown"].iter().zip(counts) {
        METRICS.running_containers.with_label_values(&[state]).set(count);
    }
    Ok(pods)
}

/// A container whose sandbox is gone, or came after the list of those, says itself whose it is.
async fn owner_without_sandbox(cri: &Cri, id: &str) -> Result<Option<String>, CriError> {
    match cri.container_status(id, false).await {
        Ok(answer) => Ok(answer.status.and_then(|mut status| status.labels.remove(labels::POD_UID))),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn differing(known: &RuntimePods, fresh: &RuntimePods) -> Vec<String> {
    let changed = fresh.iter().filter(|(uid, pod)| known.get(*uid).is_none_or(|old| old.states != pod.states));
    let gone = known.keys().filter(|uid| !fresh.contains_key(*uid));
    changed.map(|(uid, _)| uid.clone()).chain(gone.cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(states: &[(&str, i32)]) -> RuntimePod {
        let states = states.iter().map(|(id, state)| ((*id).to_owned(), *state)).collect();
        RuntimePod { states, ..RuntimePod::default() }
    }

    #[test]
    fn only_pods_that_differ_are_named() {
        let known =
            HashMap::from([("a".into(), pod(&[("1", 1)])), ("b".into(), pod(&[("2", 1)])), ("c".into(), pod(&[]))]);
        let fresh =
            HashMap::from([("a".into(), pod(&[("1", 1)])), ("b".into(), pod(&[("2", 2)])), ("d".into(), pod(&[]))]);
        let mut names = differing(&known, &fresh);
        names.sort();
        assert_eq!(names, ["b", "c", "d"]);
    }
}
