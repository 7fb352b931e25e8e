//! One reconciliation of a StatefulSet.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ::controller::{
    EventRecorder, EventType, ObjectKey, Outcome, Reconcile, ReconcileError, events::reference_to, slow_start,
};
use client::{ApiErrorExt, CallError};
use k8s_openapi::api::{
    apps::v1::{StatefulSet, StatefulSetStatus},
    core::v1::{ObjectReference, PersistentVolumeClaim, Pod},
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, PostParams},
};
use runtime::clock::Clock;

use super::{
    Shared,
    history::History,
    identity,
    plan::{self, Action, StatefulPod, World},
};
use crate::{
    children::{self, Candidate, Claimer},
    context, revisions, views,
};

/// Pods that are made at once in parallel mode.
const BURST: usize = 500;
const PODS: &str = "pods";
const CLAIMS: &str = "persistentvolumeclaims";

pub(super) struct Reconciler {
    pub(super) shared: Arc<Shared>,
    pub(super) client: Client,
    pub(super) recorder: EventRecorder,
    pub(super) clock: Arc<dyn Clock>,
}

impl Reconcile for Reconciler {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let shared = &self.shared;
        let Some(set) = shared.sets.get(key) else {
            shared.own.forget(key);
            return Ok(Outcome::Done);
        };
        let seen = |resource: &str| match resource {
            PODS => shared.pods.last_revision(),
            CLAIMS => shared.claims.last_revision(),
            _ => shared.sets.last_revision(),
        };
        if !shared.own.lagging(key, seen).is_empty() {
            return Ok(context::LAG);
        }
        let set = &set.view.0;
        let pods = self.claim(key, set).await?;
        let history = self.history(set).await?;
        let (current, update) = (history.current.name_any(), history.update.name_any());
        let now = context::now(self.clock.as_ref()).0;
        let world = World { set, pods, current: &current, update: &update, now };
        let acted = self.act(key, &world, &history).await;
        self.write_status(key, set, world.status(history.collisions)).await?;
        acted?;
        self.clean(&world, &history).await?;
        Ok(world.next_available().map_or(Outcome::Done, |s| Outcome::After(Duration::from_secs(s))))
    }
}

impl Reconciler {
    async fn claim(&self, key: &ObjectKey, set: &StatefulSet) -> Result<BTreeMap<i32, StatefulPod>, ReconcileError> {
        let selector = children::selector_of(&identity::spec(set).selector)?;
        let claimer = Claimer::new(&self.client, set, &[]);
        let own = self.shared.pods.by_index(views::BY_CONTROLLER, &set.uid().unwrap_or_default());
        let orphans = self.shared.pods.by_index(views::BY_CONTROLLER, &views::orphans_of(&key.namespace));
        let mut claimed = BTreeMap::new();
        for pod in own.into_iter().chain(orphans) {
            let ordinal = identity::ordinal(set, &pod.key.name);
            let candidate = Candidate {
                name: &pod.key.name,
                uid: &pod.uid,
                controller: pod.controller().map(|o| o.uid.as_str()),
                deleting: pod.deletion.is_some(),
                matches: ordinal.is_some() && children::matches(&selector, &pod.labels),
            };
            if claimer.claim::<Pod>(&candidate).await?
                && let Some(ordinal) = ordinal
            {
                claimed.insert(ordinal, pod);
            }
        }
        Ok(claimed)
    }

    fn claims_of(
        &self,
        key: &ObjectKey,
        set: &StatefulSet,
        ordinal: i32,
    ) -> Vec<Arc<::controller::Cached<super::Claim>>> {
        let pod = identity::pod_name(set, ordinal);
        let templates = identity::spec(set).volume_claim_templates.unwrap_or_default();
        let names = templates.iter().map(|t| identity::claim_name(t, &pod));
        names.filter_map(|n| self.shared.claims.get(&ObjectKey::new(key.namespace.clone(), n))).collect()
    }

    async fn act(&self, key: &ObjectKey, world: &World<'_>, history: &History) -> Result<(), ReconcileError> {
        let retained = |ordinal: i32| {
            let pod = world.pods.get(&ordinal).map(|p| p.uid.as_str());
            let name = identity::pod_name(world.set, ordinal);
            self.claims_of(key, world.set, ordinal).iter().all(|c| {
                identity::is_contested(world.set, c, &name) || identity::owned(world.set, c, ordinal, pod).is_none()
            })
        };
        let (creations, others): (Vec<Action>, Vec<Action>) =
            world.plan(retained).into_iter().partition(|a| matches!(a, Action::Create { .. }));
        for action in &others {
            match action {
                Action::Delete(name) => self.delete(key, world.set, name).await?,
                Action::Claims(ordinal) => self.ensure_claims(key, world.set, *ordinal).await?,
                Action::Repair(ordinal) => self.repair(key, world, *ordinal).await?,
                Action::Create { .. } => {}
            }
        }
        let count = creations.len().min(BURST);
        let creations = &creations;
        let done = slow_start(count, 1, |at| async move {
            match creations[at] {
                Action::Create { ordinal, updated } => self.create(key, world, history, ordinal, updated).await,
                _ => Ok(()),
            }
        })
        .await;
        done.error.map_or(Ok(()), Err)
    }

    fn tell(&self, about: &ObjectReference, verb: &str, pod: &str, set: &str, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => {
                let text = format!("{verb} Pod {pod} in StatefulSet {set} successful");
                self.recorder.event(about, EventType::Normal, &format!("Successful{verb}"), text);
            }
            Err(error) => {
                let text = format!("{verb} Pod {pod} in StatefulSet {set} failed error: {error}");
                self.recorder.event(about, EventType::Warning, &format!("Failed{verb}"), text);
            }
        }
    }

    async fn create(
        &self,
        key: &ObjectKey,
        world: &World<'_>,
        history: &History,
        ordinal: i32,
        updated: bool,
    ) -> Result<(), ReconcileError> {
        let set = world.set;
        let name = identity::pod_name(set, ordinal);
        if self.claims_of(key, set, ordinal).iter().any(|c| identity::is_stale(c, &name)) {
            // The claim goes with the Pod that was there before.
            return Ok(());
        }
        let about = reference_to(set);
        self.ensure_claims(key, set, ordinal).await?;
        let revision = if updated { &history.update } else { &history.current };
        let template = revisions::template_of(revision).unwrap_or_else(|| identity::spec(set).template);
        let pod = identity::pod(set, &template, &revision.name_any(), ordinal)?;
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        match api.create(&PostParams::default(), &pod).await {
            Ok(created) => {
                self.shared.own.wrote(key, PODS, &created.resource_version().unwrap_or_default());
                self.tell(&about, "Create", &name, &key.name, Ok(()));
                Ok(())
            }
            Err(error) if error.is_namespace_terminating() => Ok(()),
            Err(error) => {
                self.tell(&about, "Create", &name, &key.name, Err(error.text()));
                Err(CallError::new(format!("create Pod {name}"), error).into())
            }
        }
    }

    async fn delete(&self, key: &ObjectKey, set: &StatefulSet, name: &str) -> Result<(), ReconcileError> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let about = reference_to(set);
        match api.delete(name, &DeleteParams::background()).await {
            Ok(_) => {
                self.tell(&about, "Delete", name, &key.name, Ok(()));
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => {
                self.tell(&about, "Delete", name, &key.name, Err(error.text()));
                Err(CallError::new(format!("delete Pod {name}"), error).into())
            }
        }
    }

    /// Creates the claims of a Pod that are missing.
    async fn ensure_claims(&self, key: &ObjectKey, set: &StatefulSet, ordinal: i32) -> Result<(), ReconcileError> {
        let pod = identity::pod_name(set, ordinal);
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &key.namespace);
        let about = reference_to(set);
        for mut claim in identity::claims(set, &pod) {
            let name = claim.name_any();
            if let Some(present) = self.shared.claims.get(&ObjectKey::new(key.namespace.clone(), name.clone())) {
                if present.metadata.deletion_timestamp.is_some() {
                    return Err(format!("pvc {name} is being deleted").into());
                }
                continue;
            }
            if identity::claim_owners(set, ordinal).0 {
                claim.metadata.owner_references = Some(vec![children::owner_reference(set)]);
            }
            match api.create(&PostParams::default(), &claim).await {
                Ok(created) => {
                    self.shared.own.wrote(key, CLAIMS, &created.resource_version().unwrap_or_default());
                    let text = format!("Create Claim {name} Pod {pod} in StatefulSet {} success", key.name);
                    self.recorder.event(&about, EventType::Normal, "SuccessfulCreate", text);
                }
                Err(error) if error.is_already_exists() || error.is_namespace_terminating() => {}
                Err(error) => {
                    let text = format!(
                        "Create Claim {name} for Pod {pod} in StatefulSet {} failed error: {}",
                        key.name,
                        error.text()
                    );
                    self.recorder.event(&about, EventType::Warning, "FailedCreate", text);
                    return Err(CallError::new(format!("create PersistentVolumeClaim {name}"), error).into());
                }
            }
        }
        Ok(())
    }

    /// Gives a Pod its labels and storage back, and its claims their owners.
    async fn repair(&self, key: &ObjectKey, world: &World<'_>, ordinal: i32) -> Result<(), ReconcileError> {
        let Some(pod) = world.pods.get(&ordinal) else { return Ok(()) };
        let (set, name) = (world.set, &pod.key.name);
        self.own_claims(key, set, ordinal, &pod.uid).await?;
        let condemned = !(identity::range(set).0..identity::range(set).1).contains(&ordinal);
        let right = identity::is_labelled(&pod.labels, name, ordinal) && identity::has_storage(set, pod, name);
        if right || condemned {
            return Ok(());
        }
        self.ensure_claims(key, set, ordinal).await?;
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let about = reference_to(set);
        let written = client::modify(&api, name, |pod| {
            let before = pod.clone();
            identity::identify(set, pod, ordinal);
            *pod != before
        });
        match written.await {
            Ok(pod) => {
                self.shared.own.wrote(key, PODS, &pod.resource_version().unwrap_or_default());
                self.tell(&about, "Update", name, &key.name, Ok(()));
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => {
                self.tell(&about, "Update", name, &key.name, Err(error.to_string()));
                Err(error.into())
            }
        }
    }

    async fn own_claims(
        &self,
        key: &ObjectKey,
        set: &StatefulSet,
        ordinal: i32,
        pod: &str,
    ) -> Result<(), ReconcileError> {
        let name = identity::pod_name(set, ordinal);
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &key.namespace);
        for claim in self.claims_of(key, set, ordinal) {
            if identity::is_contested(set, &claim, &name) {
                let text = format!(
                    "PersistentVolumeClaim {} has a conflicting OwnerReference that acts as a managing controller, \
                     the retention policy is ignored for this claim",
                    claim.key
                );
                self.recorder.event(&reference_to(set), EventType::Warning, "ConflictingController", text);
                continue;
            }
            let Some(owners) = identity::owned(set, &claim, ordinal, Some(pod)) else { continue };
            let mut object = claim.view.0.clone();
            object.metadata.owner_references = Some(owners).filter(|o| !o.is_empty());
            let written = api.replace(&claim.key.name, &PostParams::default(), &object).await;
            let written =
                written.map_err(|e| CallError::new(format!("update PersistentVolumeClaim {}", claim.key), e))?;
            self.shared.own.wrote(key, CLAIMS, &written.resource_version().unwrap_or_default());
        }
        Ok(())
    }

    async fn write_status(
        &self,
        key: &ObjectKey,
        set: &StatefulSet,
        next: StatefulSetStatus,
    ) -> Result<(), ReconcileError> {
        if plan::is_same(set.status.as_ref(), &next) {
            return Ok(());
        }
        let api: Api<StatefulSet> = Api::namespaced(self.client.clone(), &key.namespace);
        let mut object = set.clone();
        object.status = Some(next.clone());
        let written = match api.replace_status(&key.name, &PostParams::default(), &object).await {
            Ok(written) => written,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) if error.is_conflict() => {
                let mut fresh = api.get(&key.name).await?;
                if fresh.uid() != set.uid() {
                    return Ok(());
                }
                fresh.status = Some(next);
                api.replace_status(&key.name, &PostParams::default(), &fresh).await?
            }
            Err(error) => return Err(CallError::new(format!("update status of StatefulSet {key}"), error).into()),
        };
        self.shared.own.wrote(key, "statefulsets", &written.resource_version().unwrap_or_default());
        Ok(())
    }
}
