//! Ending Pods before the node runs out of memory, disk or process ids.
//!
//! [`Evictor`] takes a look every ten seconds: [`observe`] reads signals from statistics, `state` decides which
//! [`threshold`]s are met for long enough, and what follows is acted upon through [`World`]: first what the node itself
//! can free, then one Pod by [`rank`]. Pods over their own limits of local storage are ended whatever the node has.
//! Invariants: one Pod per look (local limits aside); critical Pods are never ended; nothing is done twice upon one look.

mod admit;
mod live;
mod local;
mod message;
mod observe;
mod rank;
mod state;
mod threshold;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio_util::sync::CancellationToken;

pub use admit::admit;
pub use live::LiveWorld;
pub(crate) use local::is_limited;
pub use observe::{Observation, Observations};
pub use rank::{Candidate, Layout};
pub use threshold::{Condition, Signal, Threshold, thresholds};

use crate::metrics::METRICS;
use crate::pods;
use crate::status::Verdict;
use crate::workers::StopRequest;
use state::State;

const PERIOD: Duration = Duration::from_secs(10);
/// Grace of a Pod that is ended at once.
const IMMEDIATE: i64 = 1;

/// What a node can free without ending a Pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reclaim {
    /// Dead containers.
    Containers,
    /// Images that are not used.
    Images,
}

/// What eviction sees and does.
#[async_trait]
pub trait World: Send + Sync {
    /// Signals, and how file systems are divided.
    async fn observe(&self) -> (Observations, Layout);
    /// Pods that are not ended yet, with what they use.
    async fn candidates(&self) -> Vec<Candidate>;
    /// Those among them that have limits of local storage.
    async fn limited(&self) -> Vec<Candidate>;
    /// Frees what the node can.
    async fn reclaim(&self, what: Reclaim);
    /// Tells the node's conditions.
    fn tell(&self, conditions: &BTreeSet<Condition>);
    /// Tells that something is short.
    fn warn(&self, message: String);
    /// Ends a Pod.
    fn evict(&self, pod: &Arc<Pod>, request: StopRequest);
    /// Returns when memory crosses a threshold between two looks; where nobody tells that, never.
    async fn alarmed(&self, thresholds: &[Threshold]);
    /// Waits, for a while, until Pods are gone.
    async fn wait_gone(&self, pods: &[Arc<Pod>]);
}

/// How eviction behaves.
#[derive(Clone, Debug)]
pub struct EvictionPolicy {
    /// Thresholds.
    pub thresholds: Vec<Threshold>,
    /// How long pressure is told after it was last seen.
    pub transition: Duration,
    /// Longest grace of Pods that are ended by soft thresholds.
    pub max_grace: i64,
    /// Whether limits of local storage are enforced.
    pub local_limits: bool,
}

/// Takes looks and acts.
pub struct Evictor<W> {
    world: W,
    policy: EvictionPolicy,
    state: State,
}

impl<W: World> Evictor<W> {
    /// Nothing was seen yet.
    pub fn new(world: W, policy: EvictionPolicy) -> Self {
        Self { world, policy, state: State::default() }
    }

    /// Looks until stopped.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let evicted = tokio::select! {
                () = stop.cancelled() => return,
                evicted = self.look(Timestamp::now()) => evicted,
            };
            let pause = async {
                if evicted.is_empty() {
                    tokio::select! {
                        () = tokio::time::sleep(PERIOD) => {}
                        () = self.world.alarmed(&self.policy.thresholds) => {}
                    }
                } else {
                    self.world.wait_gone(&evicted).await;
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = pause => {}
            }
        }
    }

    /// Takes one look; answers the Pods that were ended.
    async fn look(&mut self, now: Timestamp) -> Vec<Arc<Pod>> {
        let (observations, layout) = self.world.observe().await;
        let policy = &self.policy;
        let decision = self.state.step(&policy.thresholds, observations.clone(), now, policy.transition);
        self.world.tell(&decision.conditions);
        if policy.local_limits {
            let evicted = self.enforce_limits().await;
            if !evicted.is_empty() {
                return evicted;
            }
        }
        let Some(threshold) = decision.act.first().copied() else { return Vec::new() };
        let resource = threshold.signal.resource();
        tracing::warn!(signal = threshold.signal.as_str(), "attempting to reclaim");
        self.world.warn(format!("Attempting to reclaim {resource}"));
        if self.reclaim(threshold.signal, layout).await {
            return Vec::new();
        }
        let mut candidates = self.world.candidates().await;
        rank::rank(&mut candidates, threshold.signal, layout);
        let Some(victim) = candidates.iter().find(|one| !pods::is_critical(&one.pod)) else {
            tracing::error!(resource, "no pods may be evicted");
            return Vec::new();
        };
        let grace = match threshold.grace {
            None => IMMEDIATE,
            Some(_) => policy.max_grace.min(pods::termination_grace(&victim.pod)).max(0),
        };
        let message = message::message(&threshold, &observations, victim);
        let disruption = Some(("TerminationByKubelet", message.clone()));
        METRICS.evictions.with_label_values(&[threshold.signal.as_str()]).inc();
        if let Some(seen) = observations.get(&threshold.signal) {
            let age = Timestamp::now().duration_since(seen.at).as_secs_f64();
            METRICS.pods.eviction_age.with_label_values(&[threshold.signal.as_str()]).observe(age.max(0.0));
        }
        self.evict(&victim.pod, grace, message, disruption);
        vec![Arc::clone(&victim.pod)]
    }

    /// Frees what the node itself can; answers whether that was enough.
    async fn reclaim(&self, signal: Signal, layout: Layout) -> bool {
        for what in reclaims(signal, layout) {
            self.world.reclaim(*what).await;
            let (observations, _) = self.world.observe().await;
            if self.state.is_resolved(&observations) {
                tracing::info!(signal = signal.as_str(), "able to reduce resource pressure without evicting pods");
                return true;
            }
        }
        false
    }

    async fn enforce_limits(&self) -> Vec<Arc<Pod>> {
        let mut evicted = Vec::new();
        for Candidate { pod, stats } in self.world.limited().await {
            let Some(excess) = stats.as_ref().and_then(|stats| local::excess(&pod, stats)) else { continue };
            if !pods::is_critical(&pod) {
                METRICS.evictions.with_label_values(&[excess.signal]).inc();
                self.evict(&pod, IMMEDIATE, excess.message, None);
                evicted.push(pod);
            }
        }
        evicted
    }

    fn evict(&self, pod: &Arc<Pod>, grace: i64, message: String, disruption: Option<(&'static str, String)>) {
        tracing::info!(pod = pods::describe(pod), why = message, "evicting pod");
        let verdict = Verdict { phase: "Failed", reason: "Evicted".to_owned(), message, disruption };
        self.world.evict(pod, StopRequest { grace: Some(grace), verdict: Some(verdict) });
    }
}

/// What of the node's own may help.
fn reclaims(signal: Signal, layout: Layout) -> &'static [Reclaim] {
    use Reclaim::{Containers, Images};
    match signal {
        Signal::Memory | Signal::AllocatableMemory | Signal::Pid => &[],
        _ if !layout.image_fs => &[Containers, Images],
        Signal::ImageFs | Signal::ImageFsInodes if layout.split => &[Images],
        Signal::ImageFs | Signal::ImageFsInodes => &[Containers, Images],
        _ if layout.split => &[Containers],
        _ => &[],
    }
}
