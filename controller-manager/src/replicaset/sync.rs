//! One reconciliation of a ReplicaSet or ReplicationController.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ::controller::{Cached, ObjectKey, Outcome, Reconcile, ReconcileError, events::reference_to, slow_start};
use client::ApiErrorExt;
use futures::future::join_all;
use k8s_openapi::{api::core::v1::ObjectReference, jiff::Timestamp};
use kube::{Api, Client, ResourceExt, api::PostParams};
use runtime::clock::Clock;

use super::{
    ReplicaKind, SetView, Shared,
    kind::SetStatus,
    plan::{self, Observed, Step},
};
use crate::{
    children::{self, Candidate, Claimer, NoLabels, PodControl, PodError},
    context,
    views::{self, PodView},
};

const PODS: &str = "pods";
const SETS: &str = "sets";

pub(super) struct Reconciler<K: ReplicaKind> {
    pub(super) shared: Arc<Shared<K>>,
    pub(super) control: PodControl,
    pub(super) client: Client,
    pub(super) clock: Arc<dyn Clock>,
}

type Pods = Vec<Arc<Cached<PodView>>>;

impl<K: ReplicaKind> Reconcile for Reconciler<K> {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(set) = self.shared.sets.get(key) else {
            self.shared.expectations.forget(key);
            self.shared.own.forget(key);
            return Ok(Outcome::Done);
        };
        if !self.shared.own.lagging(key, |resource| self.seen(resource)).is_empty() {
            return Ok(context::LAG);
        }
        // Asked before the Pods are read: what is observed in between makes the answer old, not wrong.
        let act = self.shared.expectations.satisfied(key) && set.meta().deletion_timestamp.is_none();
        let (active, terminating) = self.children(&set).await?;
        let acted = if act { self.act(key, &set, &active).await } else { Ok(()) };
        let now = context::now(self.clock.as_ref()).0;
        let views: Vec<&PodView> = active.iter().map(|p| &p.view).collect();
        let failure = acted.as_ref().err().map(ToString::to_string);
        self.write_status(key, &set, &views, terminating, failure.as_deref(), now, act).await?;
        acted?;
        let next = plan::next_available(&views, set.min_ready_seconds(), now);
        Ok(next.map_or(Outcome::Done, |seconds| Outcome::After(Duration::from_secs(seconds))))
    }
}

impl<K: ReplicaKind> Reconciler<K> {
    fn seen(&self, resource: &str) -> u64 {
        match resource {
            PODS => self.shared.pods.last_revision(),
            _ => self.shared.sets.last_revision(),
        }
    }

    /// Active Pods that belong to the set after adoption and release, and how many of its own are terminating.
    async fn children(&self, set: &Cached<SetView<K>>) -> Result<(Pods, usize), ReconcileError> {
        let selector = set.selector()?;
        let pods = &self.shared.pods;
        let own = pods.by_index(views::BY_CONTROLLER, &set.uid);
        let terminating = own.iter().filter(|p| p.is_terminating() && children::matches(&selector, &p.labels)).count();
        let claimer = Claimer::new(&self.client, &set.0, &[]);
        let orphans = pods.by_index(views::BY_CONTROLLER, &views::orphans_of(&set.key.namespace));
        let mut claimed = Vec::new();
        let mut failed = None;
        for pod in own.into_iter().chain(orphans).filter(|p| p.is_active()) {
            let candidate = Candidate {
                name: &pod.key.name,
                uid: &pod.uid,
                controller: pod.controller().map(|o| o.uid.as_str()),
                deleting: false,
                matches: children::matches(&selector, &pod.labels),
            };
            match claimer.claim::<k8s_openapi::api::core::v1::Pod>(&candidate).await {
                Ok(true) => claimed.push(Arc::clone(&pod)),
                Ok(false) => {}
                Err(error) => {
                    failed.get_or_insert(error);
                }
            }
        }
        match failed {
            Some(error) => Err(error.into()),
            None => Ok((claimed, terminating)),
        }
    }

    async fn act(&self, key: &ObjectKey, set: &Cached<SetView<K>>, active: &Pods) -> Result<(), PodError> {
        match plan::step(set.replicas(), active.len()) {
            Step::Rest => Ok(()),
            Step::Create(count) => self.create(key, set, count).await,
            Step::Delete(count) => self.delete(key, set, active, count).await,
        }
    }

    async fn create(&self, key: &ObjectKey, set: &Cached<SetView<K>>, count: usize) -> Result<(), PodError> {
        let owner = children::owner_reference(&set.0);
        let template = set.template().ok_or(NoLabels)?;
        let pod = children::pod_of(template, &children::name_prefix(&key.name), &owner)?;
        let parent = reference_to(&set.0);
        let expectations = &self.shared.expectations;
        expectations.expect_creations(key, count);
        let (pod, parent) = (&pod, &parent);
        let done = slow_start(count, 1, |_| async move {
            match self.control.create(&key.namespace, pod, parent).await {
                Ok(created) => {
                    let version = created.resource_version().unwrap_or_default();
                    self.shared.own.wrote(key, PODS, &version);
                    Ok(())
                }
                // The set goes away with its namespace.
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

    async fn delete(
        &self,
        key: &ObjectKey,
        set: &Cached<SetView<K>>,
        active: &Pods,
        count: usize,
    ) -> Result<(), PodError> {
        let related = if count < active.len() { self.related(set) } else { Vec::new() };
        let victims = plan::victims(active, &related, count, context::now(self.clock.as_ref()).0);
        let parent: ObjectReference = reference_to(&set.0);
        let expectations = &self.shared.expectations;
        expectations.expect_deletions(key, victims.iter().map(|p| p.uid.clone()));
        let parent = &parent;
        let deletions = victims.into_iter().map(|pod| async move {
            let outcome = self.control.delete(&key.namespace, &pod.key.name, parent).await;
            match outcome {
                Ok(()) => Ok(()),
                Err(error) => {
                    expectations.deletion_observed(key, &pod.uid);
                    if error.is_not_found() { Ok(()) } else { Err(error) }
                }
            }
        });
        join_all(deletions).await.into_iter().collect()
    }

    /// Pods of all sets that have the owner of this one.
    fn related(&self, set: &Cached<SetView<K>>) -> Pods {
        let owner = ::controller::claim::controller_of(set.meta().owner_references.as_deref());
        let sets = match owner {
            Some(owner) => self.shared.sets.by_index(views::BY_CONTROLLER, &owner.uid),
            None => Vec::new(),
        };
        let mut uids: Vec<&str> = sets.iter().map(|s| s.uid.as_str()).collect();
        if uids.is_empty() {
            uids.push(&set.uid);
        }
        uids.iter().flat_map(|uid| self.shared.pods.by_index(views::BY_CONTROLLER, uid)).collect()
    }

    #[allow(clippy::too_many_arguments)]
    async fn write_status(
        &self,
        key: &ObjectKey,
        set: &Cached<SetView<K>>,
        active: &[&PodView],
        terminating: usize,
        error: Option<&str>,
        now: Timestamp,
        acted: bool,
    ) -> Result<(), ReconcileError> {
        let labels = BTreeMap::new();
        let template = set.template().and_then(|t| t.metadata.as_ref()).and_then(|m| m.labels.as_ref());
        let present = set.status();
        let observed = Observed {
            active,
            terminating: (K::CONTROLLER == "replicaset-controller").then_some(terminating),
            replicas: set.replicas(),
            min_ready_seconds: set.min_ready_seconds(),
            generation: set.meta().generation.unwrap_or(0),
            template_labels: template.unwrap_or(&labels),
            error,
            now,
        };
        let mut next = plan::status(&observed, &present);
        if !acted {
            // Nothing was tried, so nothing is known about success.
            next.failure = present.failure.clone();
        }
        if next == present {
            return Ok(());
        }
        self.put(key, &set.0, &next).await
    }

    /// Writes a status: at first over what the cache has, then over what the server has.
    async fn put(&self, key: &ObjectKey, set: &K, status: &SetStatus) -> Result<(), ReconcileError> {
        let api: Api<K> = Api::namespaced(self.client.clone(), &key.namespace);
        let mut object = set.clone();
        object.put_status(status);
        let written = match api.replace_status(&key.name, &PostParams::default(), &object).await {
            Ok(written) => written,
            Err(_) => {
                let fresh = match api.get(&key.name).await {
                    Err(error) if error.is_not_found() => return Ok(()),
                    fresh => fresh?,
                };
                if fresh.uid() != set.uid() {
                    return Ok(());
                }
                let mut fresh = fresh;
                fresh.put_status(status);
                api.replace_status(&key.name, &PostParams::default(), &fresh).await?
            }
        };
        self.shared.own.wrote(key, SETS, &written.resource_version().unwrap_or_default());
        Ok(())
    }
}
