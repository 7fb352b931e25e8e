//! One reconciliation of a Deployment.

use std::{sync::Arc, time::Duration};

use ::controller::{EventRecorder, EventType, ObjectKey, Outcome, Reconcile, ReconcileError, events::reference_to};
use client::CallError;
use k8s_openapi::{
    api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{Api, Client, ResourceExt, api::PostParams};
use runtime::clock::Clock;

use super::{
    Shared,
    plan::{self, Resize, Scaling, Set},
    revision, status,
};
use crate::{
    children::{self, Candidate, Claimer},
    context, views,
};

const SETS: &str = "replicasets";
const DEPLOYMENTS: &str = "deployments";

pub(super) struct Reconciler {
    pub(super) shared: Arc<Shared>,
    pub(super) client: Client,
    pub(super) recorder: EventRecorder,
    pub(super) clock: Arc<dyn Clock>,
}

/// A Deployment during its reconciliation, as fresh as the writes have made it.
pub(super) struct Run<'a> {
    pub(super) by: &'a Reconciler,
    pub(super) key: &'a ObjectKey,
    pub(super) deployment: Deployment,
    pub(super) new: Option<Set>,
    pub(super) old: Vec<Set>,
    pub(super) now: Time,
    pub(super) again: Option<Duration>,
}

impl Reconcile for Reconciler {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(deployment) = self.shared.deployments.get(key) else {
            self.shared.own.forget(key);
            return Ok(Outcome::Done);
        };
        let seen = |resource: &str| match resource {
            SETS => self.shared.sets.last_revision(),
            _ => self.shared.deployments.last_revision(),
        };
        if !self.shared.own.lagging(key, seen).is_empty() {
            return Ok(context::LAG);
        }
        let deployment = deployment.view.0.clone();
        let now = context::now(self.clock.as_ref());
        let mut run = Run { by: self, key, deployment, new: None, old: Vec::new(), now, again: None };
        run.go().await?;
        Ok(run.again.map_or(Outcome::Done, Outcome::After))
    }
}

impl Reconciler {
    /// The ReplicaSets of the Deployment after adoption and release.
    async fn claim(&self, key: &ObjectKey, deployment: &Deployment) -> Result<Vec<Set>, ReconcileError> {
        let selector = children::selector_of(&plan::spec(deployment).selector)?;
        let claimer = Claimer::new(&self.client, deployment, &[]);
        let own = self.shared.sets.by_index(views::BY_CONTROLLER, &deployment.uid().unwrap_or_default());
        let orphans = self.shared.sets.by_index(views::BY_CONTROLLER, &views::orphans_of(&key.namespace));
        let mut claimed = Vec::new();
        let mut failed = None;
        for set in own.into_iter().chain(orphans) {
            let labels = set.metadata.labels.clone().unwrap_or_default();
            let candidate = Candidate {
                name: &set.key.name,
                uid: &set.uid,
                controller: super::controller(&set).map(|o| o.uid.as_str()),
                deleting: set.metadata.deletion_timestamp.is_some(),
                matches: children::matches(&selector, &labels),
            };
            match claimer.claim::<ReplicaSet>(&candidate).await {
                Ok(true) => claimed.push(Arc::new(set.view.0.clone())),
                Ok(false) => {}
                Err(error) => {
                    failed.get_or_insert(error);
                }
            }
        }
        match failed {
            Some(error) => Err(error.into()),
            None => Ok(claimed),
        }
    }
}

impl Run<'_> {
    async fn go(&mut self) -> Result<(), ReconcileError> {
        let selector = children::selector_of(&plan::spec(&self.deployment).selector)?;
        if selector.is_everything() {
            return self.selects_all().await;
        }
        let sets = self.by.claim(self.key, &self.deployment).await?;
        (self.new, self.old) = plan::split(&self.deployment, &sets);
        if self.deployment.metadata.deletion_timestamp.is_some() {
            return self.count().await;
        }
        if let Some(condition) = status::pausing(&self.deployment, &self.now) {
            let mut status = status::present(&self.deployment);
            status::set(&mut status, condition);
            self.write(status).await?;
        }
        if plan::is_paused(&self.deployment) {
            return self.scale().await;
        }
        if self.roll_back().await? {
            return Ok(());
        }
        self.sync_revision().await?;
        if plan::is_scaling(&self.deployment, &self.all()) {
            return self.scale().await;
        }
        if plan::is_recreate(&self.deployment) { self.recreate().await } else { self.roll().await }
    }

    pub(super) fn all(&self) -> Vec<Set> {
        self.old.iter().chain(&self.new).cloned().collect()
    }

    async fn selects_all(&mut self) -> Result<(), ReconcileError> {
        let text = "This deployment is selecting all pods. A non-empty selector is required.";
        self.tell(EventType::Warning, "SelectingAll", text.to_owned());
        let mut status = status::present(&self.deployment);
        if status.observed_generation < self.deployment.metadata.generation {
            status.observed_generation = self.deployment.metadata.generation;
            self.write(status).await?;
        }
        Ok(())
    }

    pub(super) fn tell(&self, kind: EventType, reason: &str, message: String) {
        self.by.recorder.event(&reference_to(&self.deployment), kind, reason, message);
    }

    /// Only counts.
    async fn count(&mut self) -> Result<(), ReconcileError> {
        let status = status::counted(&self.deployment, &self.all(), self.new.as_ref(), &self.now);
        self.write(status).await
    }

    /// Sizes as `spec.replicas` says, without a rollout.
    async fn scale(&mut self) -> Result<(), ReconcileError> {
        self.sync_revision().await?;
        match plan::scale(&self.deployment, self.new.as_ref(), &self.old) {
            Scaling::Sizes(sizes) => {
                self.resize_all(&sizes).await?;
            }
            Scaling::Proportional(sizes) => {
                for to in &sizes {
                    self.resize(to).await?;
                }
            }
        }
        if plan::is_paused(&self.deployment) {
            self.clean().await?;
        }
        self.count().await
    }

    /// Resizes what has another size; whether anything had.
    pub(super) async fn resize_all(&mut self, sizes: &[Resize]) -> Result<bool, ReconcileError> {
        let mut changed = false;
        for to in sizes {
            let differs = self.find(&to.name).is_some_and(|s| plan::size(s) != to.to);
            if differs {
                self.resize(to).await?;
            }
            changed |= differs;
        }
        Ok(changed)
    }

    fn find(&self, name: &str) -> Option<&Set> {
        self.old.iter().chain(&self.new).find(|s| plan::name(s) == name)
    }

    /// Writes size and annotations of a ReplicaSet if they differ.
    async fn resize(&mut self, to: &Resize) -> Result<(), ReconcileError> {
        let Some(set) = self.find(&to.name) else { return Ok(()) };
        let from = plan::size(set);
        let mut annotations = set.metadata.annotations.clone().unwrap_or_default();
        revision::sized(&self.deployment, &mut annotations);
        if from == to.to && set.metadata.annotations.as_ref() == Some(&annotations) {
            return Ok(());
        }
        let mut set = ReplicaSet::clone(set);
        set.metadata.annotations = Some(annotations);
        if let Some(spec) = &mut set.spec {
            spec.replicas = Some(to.to);
        }
        self.replace(set).await?;
        if from != to.to {
            let direction = if to.to > from { "up" } else { "down" };
            let text = format!("Scaled {direction} replica set {} from {from} to {}", to.name, to.to);
            self.tell(EventType::Normal, "ScalingReplicaSet", text);
        }
        Ok(())
    }

    /// Writes a ReplicaSet and goes on with what the server made of it.
    pub(super) async fn replace(&mut self, set: ReplicaSet) -> Result<(), ReconcileError> {
        let name = set.name_any();
        let api: Api<ReplicaSet> = Api::namespaced(self.by.client.clone(), &self.key.namespace);
        let written = api.replace(&name, &PostParams::default(), &set).await;
        let written = written.map_err(|e| CallError::new(format!("update ReplicaSet {name}"), e))?;
        self.by.shared.own.wrote(self.key, SETS, &written.resource_version().unwrap_or_default());
        let written = Arc::new(written);
        for known in self.old.iter_mut().chain(self.new.as_mut()) {
            if plan::uid(known) == plan::uid(&written) {
                *known = Arc::clone(&written);
            }
        }
        Ok(())
    }

    /// Writes the status if it differs.
    pub(super) async fn write(&mut self, status: DeploymentStatus) -> Result<(), ReconcileError> {
        if self.deployment.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let mut object = self.deployment.clone();
        object.status = Some(status);
        self.put(object).await
    }

    /// Writes the status subresource, which carries annotations too.
    pub(super) async fn put(&mut self, object: Deployment) -> Result<(), ReconcileError> {
        let api: Api<Deployment> = Api::namespaced(self.by.client.clone(), &self.key.namespace);
        let written = api.replace_status(&self.key.name, &PostParams::default(), &object).await;
        let mut written = written.map_err(|e| CallError::new(format!("update status of {}", self.key), e))?;
        self.by.shared.own.wrote(self.key, DEPLOYMENTS, &written.resource_version().unwrap_or_default());
        written.metadata.managed_fields = None;
        self.deployment = written;
        Ok(())
    }
}
