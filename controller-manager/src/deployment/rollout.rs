//! The steps of a rollout.

use std::sync::Arc;

use ::controller::{EventType, ReconcileError};
use client::{ApiErrorExt, CallError};
use k8s_openapi::{
    api::apps::v1::{ReplicaSet, ReplicaSetSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, ResourceExt, api::PostParams};

use super::{
    plan::{self, HASH_LABEL, Resize},
    revision, status,
    sync::Run,
};
use crate::{children, template, views};

/// Longest name of an object.
const MAX_NAME: usize = 253;

impl Run<'_> {
    /// Replaces old Pods by new ones within the bounds, one kind of step at a time.
    pub(super) async fn roll(&mut self) -> Result<(), ReconcileError> {
        self.ensure_new().await?;
        let Some(new) = self.new.clone() else { return Ok(()) };
        let to = plan::new_size(&self.deployment, &self.all(), plan::size(&new));
        let grown = self.resize_all(&[Resize { name: plan::name(&new).to_owned(), to }]).await?;
        if !grown {
            let sizes = plan::shrink_old(&self.deployment, self.new.as_ref(), &self.old);
            let shrunk = self.resize_all(&sizes).await?;
            if !shrunk {
                self.clean_when_complete().await?;
            }
        }
        self.finish().await
    }

    /// Removes all old Pods before there are new ones.
    pub(super) async fn recreate(&mut self) -> Result<(), ReconcileError> {
        let active = plan::active(&self.old);
        let sizes: Vec<Resize> = active.iter().map(|s| Resize { name: plan::name(s).to_owned(), to: 0 }).collect();
        if self.resize_all(&sizes).await? || self.old_pods_run() {
            return self.finish().await;
        }
        self.ensure_new().await?;
        if let Some(new) = self.new.clone() {
            let to = plan::wanted(&self.deployment);
            self.resize_all(&[Resize { name: plan::name(&new).to_owned(), to }]).await?;
        }
        self.clean_when_complete().await?;
        self.finish().await
    }

    fn old_pods_run(&self) -> bool {
        let pods = &self.by.shared.pods;
        let runs = |uid: &str| pods.by_index(views::BY_CONTROLLER, uid).iter().any(|p| !p.phase.is_terminal());
        plan::sum(&self.old, plan::actual) > 0 || self.old.iter().any(|s| runs(plan::uid(s)))
    }

    async fn clean_when_complete(&mut self) -> Result<(), ReconcileError> {
        if status::is_complete(&self.deployment, &status::present(&self.deployment)) {
            self.clean().await?;
        }
        Ok(())
    }

    /// Deletes what is beyond the limit of history.
    pub(super) async fn clean(&mut self) -> Result<(), ReconcileError> {
        for set in plan::outdated(&self.deployment, &self.old) {
            let api: Api<ReplicaSet> = Api::namespaced(self.by.client.clone(), &self.key.namespace);
            let name = plan::name(&set);
            match api.delete(name, &children::delete_exactly(plan::uid(&set))).await {
                Err(error) if !error.is_not_found() => {
                    return Err(CallError::new(format!("delete ReplicaSet {name}"), error).into());
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Writes the status, or sees to it that a stuck rollout is noticed.
    async fn finish(&mut self) -> Result<(), ReconcileError> {
        let next = status::rollout(&self.deployment, &self.all(), self.new.as_ref(), &self.now);
        if self.deployment.status.as_ref() == Some(&next) {
            self.again = status::look_again(&self.deployment, &next, &self.now);
            return Ok(());
        }
        self.write(next).await
    }

    /// Keeps revision, annotations and minReadySeconds of the new ReplicaSet, if there is one.
    pub(super) async fn sync_revision(&mut self) -> Result<(), ReconcileError> {
        let Some(new) = self.new.clone() else { return Ok(()) };
        let annotations = revision::annotate(&self.deployment, &new, revision::next(&self.old), true);
        let spec = plan::spec(&self.deployment);
        let seconds = new.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0);
        let ready = spec.min_ready_seconds.unwrap_or(0);
        if annotations.is_some() || seconds != ready {
            let mut set = ReplicaSet::clone(&new);
            set.metadata.annotations = annotations.or(set.metadata.annotations);
            if let Some(spec) = &mut set.spec {
                spec.min_ready_seconds = Some(ready);
            }
            self.replace(set).await?;
        }
        let text = format!("Found new replica set {:?}", plan::name(&new));
        self.show("FoundNewReplicaSet", text, Known::Keep).await
    }

    /// The Deployment shows the revision of the new ReplicaSet, and that there is one.
    async fn show(&mut self, reason: &str, text: String, known: Known) -> Result<(), ReconcileError> {
        let mut object = self.deployment.clone();
        let shown = self.new.as_ref().and_then(|s| s.metadata.annotations.as_ref()?.get(revision::REVISION).cloned());
        if let Some(revision) = shown {
            object.metadata.annotations.get_or_insert_default().insert(revision::REVISION.into(), revision);
        }
        // A rollback to where we are is no rollback.
        let mut status = status::present(&self.deployment);
        let missing = status::find(&status, status::PROGRESSING).is_none();
        if status::deadline(&self.deployment).is_some() && (missing || known == Known::Replace) {
            status::set(&mut status, status::condition(status::PROGRESSING, "True", reason, text, &self.now));
        }
        if status != status::present(&self.deployment) {
            object.status = Some(status);
        }
        if object == self.deployment { Ok(()) } else { self.put(object).await }
    }

    /// Creates the new ReplicaSet unless it exists.
    async fn ensure_new(&mut self) -> Result<(), ReconcileError> {
        if self.new.is_some() {
            return Ok(());
        }
        let set = self.new_set();
        let name = set.name_any();
        let size = plan::size(&set);
        let api: Api<ReplicaSet> = Api::namespaced(self.by.client.clone(), &self.key.namespace);
        match api.create(&PostParams::default(), &set).await {
            Ok(created) => {
                self.by.shared.own.wrote(self.key, "replicasets", &created.resource_version().unwrap_or_default());
                self.new = Some(Arc::new(created));
                if size > 0 {
                    let text = format!("Scaled up replica set {name} from 0 to {size}");
                    self.tell(EventType::Normal, "ScalingReplicaSet", text);
                }
                let text = format!("Created new replica set {name:?}");
                self.show("NewReplicaSetCreated", text, Known::Replace).await
            }
            Err(error) if error.is_already_exists() => self.name_taken(&api, &name, &set).await,
            Err(error) if error.is_namespace_terminating() => Err(error.into()),
            Err(error) => {
                let text = format!("Failed to create new replica set {name:?}: {}", error.text());
                self.tell(EventType::Warning, "ReplicaSetCreateError", text.clone());
                if status::deadline(&self.deployment).is_some() {
                    let mut status = status::present(&self.deployment);
                    let failed =
                        status::condition(status::PROGRESSING, "False", "ReplicaSetCreateError", text, &self.now);
                    status::set(&mut status, failed);
                    // The error that matters is the one of the creation.
                    if let Err(second) = self.write(status).await {
                        tracing::debug!(err = %second, key = %self.key, "status of a failed creation not written");
                    }
                }
                Err(CallError::new(format!("create ReplicaSet {name}"), error).into())
            }
        }
    }

    /// The name is ours and the cache is late, or it is somebody else's and the next hash is another one.
    async fn name_taken(&mut self, api: &Api<ReplicaSet>, name: &str, set: &ReplicaSet) -> Result<(), ReconcileError> {
        let present = api.get(name).await?;
        let owner = ::controller::claim::controller_of(present.metadata.owner_references.as_deref());
        let ours = owner.is_some_and(|o| Some(&o.uid) == self.deployment.metadata.uid.as_ref());
        let templates = (present.spec.as_ref().and_then(|s| s.template.as_ref()), set.spec.as_ref());
        let same = match templates {
            (Some(theirs), Some(spec)) => {
                spec.template.as_ref().is_some_and(|t| template::same_but_for(HASH_LABEL, theirs, t))
            }
            _ => false,
        };
        if ours && same {
            self.new = Some(Arc::new(present));
            return self.show("FoundNewReplicaSet", format!("Found new replica set {name:?}"), Known::Keep).await;
        }
        let mut status = status::present(&self.deployment);
        status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
        self.write(status).await?;
        Err(format!("replica set {name:?} exists and is not ours, another hash is tried").into())
    }

    fn new_set(&self) -> ReplicaSet {
        let spec = plan::spec(&self.deployment);
        let hash = template::hash(&spec.template, status::present(&self.deployment).collision_count);
        let own = self.deployment.name_any();
        let mut end = own.len().min(MAX_NAME - 1 - hash.len());
        while !own.is_char_boundary(end) {
            end -= 1;
        }
        let mut template = spec.template;
        let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
        labels.insert(HASH_LABEL.into(), hash.clone());
        let labels = labels.clone();
        let mut selector = spec.selector;
        selector.match_labels.get_or_insert_default().insert(HASH_LABEL.into(), hash.clone());
        let mut set = ReplicaSet {
            metadata: ObjectMeta {
                name: Some(format!("{}-{hash}", &own[..end])),
                namespace: Some(self.key.namespace.clone()),
                owner_references: Some(vec![children::owner_reference(&self.deployment)]),
                labels: Some(labels),
                ..ObjectMeta::default()
            },
            spec: Some(ReplicaSetSpec {
                replicas: Some(plan::new_size(&self.deployment, &self.old, 0)),
                min_ready_seconds: spec.min_ready_seconds,
                selector,
                template: Some(template),
            }),
            status: None,
        };
        set.metadata.annotations = revision::annotate(&self.deployment, &set, revision::next(&self.old), false);
        set
    }
}

/// Whether a condition that is there is replaced.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    Keep,
    Replace,
}
