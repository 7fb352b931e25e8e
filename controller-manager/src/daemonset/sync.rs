//! One reconciliation of a DaemonSet.

use std::{collections::HashMap, sync::Arc, time::Duration};

use ::controller::{
    Cached, EventRecorder, EventType, ObjectKey, Outcome, Reconcile, ReconcileError, events::reference_to, slow_start,
};
use client::ApiErrorExt;
use futures::future::join_all;
use k8s_openapi::api::{
    apps::v1::{DaemonSet, DaemonSetStatus},
    core::v1::Pod,
};
use kube::{Api, Client, ResourceExt, api::PostParams};
use parking_lot::Mutex;
use runtime::clock::Clock;
use util::Backoff;

use super::{
    Shared, history, placement,
    plan::{self, Daemon, Plan, World},
};
use crate::{
    children::{self, Candidate, Claimer, PodControl, PodError},
    context,
    views::{self, NodeView},
};

/// Pods that one reconciliation creates or deletes at most.
const BURST: usize = 250;
const PODS: &str = "pods";
const SETS: &str = "daemonsets";
/// Delays before a failed Pod is replaced.
const BACKOFF: Backoff = Backoff::doubling(Duration::from_secs(1), Duration::from_secs(15 * 60));
/// Failed Pods that are remembered.
const REMEMBERED: usize = 10_000;

/// How often a Pod failed on a node, and when it was last replaced.
type Failures = HashMap<(String, i64, String), (u32, Duration)>;

pub(super) struct Reconciler {
    pub(super) shared: Arc<Shared>,
    pub(super) control: PodControl,
    pub(super) client: Client,
    pub(super) recorder: EventRecorder,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) failures: Mutex<Failures>,
}

impl Reconcile for Reconciler {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let shared = &self.shared;
        let Some(set) = shared.sets.get(key) else {
            shared.expectations.forget(key);
            shared.own.forget(key);
            return Ok(Outcome::Done);
        };
        let seen = |resource: &str| match resource {
            PODS => shared.pods.last_revision(),
            _ => shared.sets.last_revision(),
        };
        if !shared.own.lagging(key, seen).is_empty() {
            return Ok(context::LAG);
        }
        let spec = set.spec.clone().unwrap_or_default();
        let selector = children::selector_of(&spec.selector)?;
        if selector.is_everything() {
            let text = "This daemon set is selecting all pods. A non-empty selector is required.";
            self.recorder.event(&reference_to(&set.view.0), EventType::Warning, "SelectingAll", text);
            return Ok(Outcome::Done);
        }
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        let allowed = shared.expectations.satisfied(key);
        let pods = self.claim(&set.view.0, key).await?;
        let (current, old) = self.history(&set.view.0, &pods).await?;
        let hash = history::hash_of(&current);
        let mut again = None;
        let mut acted = Ok(());
        if allowed {
            acted = self.act(key, &set.view.0, &pods, &hash, &mut again).await;
            if acted.is_ok() {
                acted = self.clean(&set.view.0, old, &pods).await;
            }
        }
        let nodes = shared.nodes();
        let world = self.world(&set.view.0, &nodes, &pods, &hash, true);
        self.write_status(key, &set.view.0, &world, allowed).await?;
        acted?;
        let available = world.next_available().map(Duration::from_secs);
        let next = again.into_iter().chain(available).min();
        Ok(next.map_or(Outcome::Done, Outcome::After))
    }
}

impl Reconciler {
    fn world<'a>(
        &self,
        set: &'a DaemonSet,
        nodes: &'a [Arc<Cached<NodeView>>],
        pods: &[Daemon],
        hash: &'a str,
        with_leftovers: bool,
    ) -> World<'a> {
        let now = context::now(self.clock.as_ref()).0;
        World { set, nodes: plan::fits(set, nodes), pods: plan::by_node(pods, with_leftovers), hash, now }
    }

    async fn claim(&self, set: &DaemonSet, key: &ObjectKey) -> Result<Vec<Daemon>, ReconcileError> {
        let selector = children::selector_of(&set.spec.clone().unwrap_or_default().selector)?;
        let claimer = Claimer::new(&self.client, set, &[]);
        let own = self.shared.pods.by_index(views::BY_CONTROLLER, &set.uid().unwrap_or_default());
        let orphans = self.shared.pods.by_index(views::BY_CONTROLLER, &views::orphans_of(&key.namespace));
        let mut claimed = Vec::new();
        for pod in own.into_iter().chain(orphans) {
            let candidate = Candidate {
                name: &pod.key.name,
                uid: &pod.uid,
                controller: pod.controller().map(|o| o.uid.as_str()),
                deleting: pod.deletion.is_some(),
                matches: children::matches(&selector, &pod.labels),
            };
            if claimer.claim::<Pod>(&candidate).await? {
                claimed.push(pod);
            }
        }
        Ok(claimed)
    }

    /// Makes and removes Pods, and replaces old ones if that leaves the count right.
    async fn act(
        &self,
        key: &ObjectKey,
        set: &DaemonSet,
        pods: &[Daemon],
        hash: &str,
        again: &mut Option<Duration>,
    ) -> Result<(), ReconcileError> {
        let nodes = self.shared.nodes();
        let world = self.world(set, &nodes, pods, hash, false);
        let mut plan = world.manage();
        self.bury(set, &mut plan, again);
        self.carry_out(key, set, plan, hash).await?;
        if plan::is_rolling(set) && self.shared.expectations.satisfied(key) {
            self.carry_out(key, set, world.roll(), hash).await?;
        }
        Ok(())
    }

    /// Pods that ended are deleted; failed ones only after their back-off.
    fn bury(&self, set: &DaemonSet, plan: &mut Plan, again: &mut Option<Duration>) {
        let about = reference_to(set);
        let observed = set.status.as_ref().and_then(|s| s.observed_generation).unwrap_or(0);
        for (node, pod) in std::mem::take(&mut plan.failed) {
            let key = (set.uid().unwrap_or_default(), observed, node.clone());
            if let Some(wait) = self.backed_off(key) {
                *again = Some(again.map_or(wait, |a| a.min(wait)));
                continue;
            }
            let text = format!("Found failed daemon pod {} on node {node}, will try to kill it", pod.key);
            self.recorder.event(&about, EventType::Warning, "FailedDaemonPod", text);
            plan.delete.push(pod);
        }
        for (node, pod) in std::mem::take(&mut plan.succeeded) {
            let text = format!("Found succeeded daemon pod {} on node {node}, will try to delete it", pod.key);
            self.recorder.event(&about, EventType::Normal, "SucceededDaemonPod", text);
            plan.delete.push(pod);
        }
    }

    /// How long a failed Pod has to stay; if not, its end is counted.
    fn backed_off(&self, key: (String, i64, String)) -> Option<Duration> {
        let now = self.clock.elapsed();
        let mut failures = self.failures.lock();
        if failures.len() > REMEMBERED {
            failures.retain(|_, (_, at)| now.saturating_sub(*at) < BACKOFF.max * 2);
        }
        let known = failures.get(&key).copied().filter(|(_, at)| now.saturating_sub(*at) < BACKOFF.max * 2);
        let count = match known {
            None => 0,
            Some((count, at)) => {
                let due = at + BACKOFF.delay(count.saturating_sub(1));
                if due > now {
                    return Some(due - now);
                }
                count
            }
        };
        failures.insert(key, (count.saturating_add(1), now));
        None
    }

    async fn carry_out(
        &self,
        key: &ObjectKey,
        set: &DaemonSet,
        mut plan: Plan,
        hash: &str,
    ) -> Result<(), ReconcileError> {
        plan.create.truncate(BURST);
        plan.delete.truncate(BURST);
        if plan.create.is_empty() && plan.delete.is_empty() {
            return Ok(());
        }
        let expectations = &self.shared.expectations;
        expectations.set(key, plan.create.len(), plan.delete.iter().map(|p| p.uid.clone()));
        let created = self.create(key, set, &plan.create, hash).await;
        let parent = reference_to(set);
        let parent = &parent;
        let deletions = plan.delete.iter().map(|pod| async move {
            match self.control.delete(&key.namespace, &pod.key.name, parent).await {
                Ok(()) => Ok(()),
                Err(error) => {
                    expectations.deletion_observed(key, &pod.uid);
                    if error.is_not_found() { Ok(()) } else { Err(error) }
                }
            }
        });
        let deleted: Result<(), PodError> = join_all(deletions).await.into_iter().collect();
        created?;
        deleted?;
        Ok(())
    }

    async fn create(&self, key: &ObjectKey, set: &DaemonSet, nodes: &[String], hash: &str) -> Result<(), PodError> {
        let owner = children::owner_reference(set);
        let template = set.spec.clone().unwrap_or_default().template;
        let (generation, prefix) = (plan::generation(set), children::name_prefix(&key.name));
        let parent = reference_to(set);
        let expectations = &self.shared.expectations;
        let (owner, template, prefix, parent) = (&owner, &template, &prefix, &parent);
        let done = slow_start(nodes.len(), 1, |at| async move {
            let made = placement::template_for(template, &nodes[at], hash, generation);
            let outcome = match children::pod_of(&made, prefix, owner) {
                Ok(pod) => self.control.create(&key.namespace, &pod, parent).await,
                Err(error) => Err(error.into()),
            };
            match outcome {
                Ok(created) => {
                    self.shared.own.wrote(key, PODS, &created.resource_version().unwrap_or_default());
                    Ok(())
                }
                Err(error) if error.is_namespace_terminating() => Ok(()),
                Err(error) => {
                    expectations.creation_observed(key);
                    Err(error)
                }
            }
        })
        .await;
        for _ in 0..done.skipped {
            expectations.creation_observed(key);
        }
        done.error.map_or(Ok(()), Err)
    }

    async fn write_status(
        &self,
        key: &ObjectKey,
        set: &DaemonSet,
        world: &World<'_>,
        acted: bool,
    ) -> Result<(), ReconcileError> {
        let present = set.status.clone().unwrap_or_default();
        let observed = if acted { set.metadata.generation } else { None };
        let next = world.status(&present, observed);
        if set.status.as_ref() == Some(&next) {
            return Ok(());
        }
        let api: Api<DaemonSet> = Api::namespaced(self.client.clone(), &key.namespace);
        let mut object = set.clone();
        object.status = Some(next.clone());
        let written = match api.replace_status(&key.name, &PostParams::default(), &object).await {
            Ok(written) => written,
            Err(_) => {
                let mut fresh = match api.get(&key.name).await {
                    Err(error) if error.is_not_found() => return Ok(()),
                    fresh => fresh?,
                };
                if fresh.uid() != set.uid() {
                    return Ok(());
                }
                let kept = fresh.status.take().unwrap_or_default();
                fresh.status = Some(DaemonSetStatus {
                    collision_count: kept.collision_count,
                    conditions: kept.conditions,
                    ..next
                });
                api.replace_status(&key.name, &PostParams::default(), &fresh).await?
            }
        };
        self.shared.own.wrote(key, SETS, &written.resource_version().unwrap_or_default());
        Ok(())
    }
}
