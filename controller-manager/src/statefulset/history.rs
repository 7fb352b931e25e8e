//! Revisions of a StatefulSet's template.

use std::collections::BTreeSet;

use ::controller::ReconcileError;
use client::{ApiErrorExt, CallError};
use k8s_openapi::{
    api::apps::v1::{ControllerRevision, StatefulSet},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, PostParams},
};

use super::{
    identity::{self, REVISION},
    plan::World,
    sync::Reconciler,
};
use crate::{
    children::{self, Candidate, Claimer},
    revisions, template, views,
};

const HASH: &str = "controller.kubernetes.io/hash";
/// Longest part of a revision's name that is the set's.
const MAX_NAME: usize = 223;

/// The revisions a StatefulSet is between.
pub(super) struct History {
    pub(super) current: ControllerRevision,
    pub(super) update: ControllerRevision,
    pub(super) all: Vec<ControllerRevision>,
    pub(super) collisions: i32,
}

/// Revisions beyond the limit that nothing is of, oldest first.
fn outdated<'a>(history: &'a History, used: &BTreeSet<String>, limit: i32) -> Vec<&'a ControllerRevision> {
    let live = |r: &ControllerRevision| {
        let name = r.name_any();
        name == history.current.name_any() || name == history.update.name_any() || used.contains(&name)
    };
    let dead: Vec<&ControllerRevision> = history.all.iter().filter(|r| !live(r)).collect();
    let surplus = dead.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    dead.into_iter().take(surplus).collect()
}

impl Reconciler {
    fn revisions(&self, set: &StatefulSet) -> Api<ControllerRevision> {
        Api::namespaced(self.client.clone(), &set.namespace().unwrap_or_default())
    }

    /// The current and the updated revision; the latter is made if there is none.
    pub(super) async fn history(&self, set: &StatefulSet) -> Result<History, ReconcileError> {
        let mut all = self.claim_revisions(set).await?;
        revisions::sort(&mut all);
        let next = all.last().map_or(0, |r| r.revision).saturating_add(1);
        let data = revisions::data(&identity::spec(set).template);
        let mut collisions = set.status.as_ref().and_then(|s| s.collision_count).unwrap_or(0);
        let equal = all.iter().rposition(|r| revisions::keeps(r, &data));
        let update = match equal {
            Some(at) if at + 1 == all.len() => all[at].clone(),
            Some(at) => {
                let mut revision = all[at].clone();
                revision.revision = next;
                let name = revision.name_any();
                self.revisions(set).replace(&name, &PostParams::default(), &revision).await?
            }
            None => self.snapshot(set, next, &mut collisions).await?,
        };
        let named = set.status.as_ref().and_then(|s| s.current_revision.clone()).unwrap_or_default();
        let current = all.iter().find(|r| r.name_any() == named).cloned().unwrap_or_else(|| update.clone());
        Ok(History { current, update, all, collisions })
    }

    async fn claim_revisions(&self, set: &StatefulSet) -> Result<Vec<ControllerRevision>, ReconcileError> {
        let namespace = set.namespace().unwrap_or_default();
        let selector = children::selector_of(&identity::spec(set).selector)?;
        let claimer = Claimer::new(&self.client, set, &[]);
        let all = &self.shared.revisions;
        let own = all.by_index(views::BY_CONTROLLER, &set.uid().unwrap_or_default());
        let mut claimed = Vec::new();
        for revision in own.into_iter().chain(all.by_index(views::BY_CONTROLLER, &views::orphans_of(&namespace))) {
            let owner = ::controller::claim::controller_of(revision.metadata.owner_references.as_deref());
            let candidate = Candidate {
                name: &revision.key.name,
                uid: &revision.uid,
                controller: owner.map(|o| o.uid.as_str()),
                deleting: revision.metadata.deletion_timestamp.is_some(),
                matches: children::matches(&selector, revision.labels()),
            };
            // What is ours stays ours, whatever its labels.
            let ours = owner.is_some_and(|o| Some(&o.uid) == set.metadata.uid.as_ref());
            if ours || claimer.claim::<ControllerRevision>(&candidate).await? {
                claimed.push(revision.view.0.clone());
            }
        }
        Ok(claimed)
    }

    async fn snapshot(
        &self,
        set: &StatefulSet,
        number: i64,
        collisions: &mut i32,
    ) -> Result<ControllerRevision, ReconcileError> {
        let spec = identity::spec(set);
        let data = revisions::data(&spec.template);
        let api = self.revisions(set);
        loop {
            let text = format!("{}{collisions}", template::normalized(&data.0));
            let hash = util::safe_encode(&util::fnv32(text.as_bytes()).to_string());
            let own = identity::set_name(set);
            let name = format!("{}-{hash}", own.get(..own.len().min(MAX_NAME)).unwrap_or(own));
            let mut labels = spec.template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
            labels.insert(HASH.into(), hash);
            let revision = ControllerRevision {
                metadata: ObjectMeta {
                    name: Some(name.clone()),
                    namespace: set.namespace(),
                    labels: Some(labels),
                    annotations: set.metadata.annotations.clone(),
                    owner_references: Some(vec![children::owner_reference(set)]),
                    ..ObjectMeta::default()
                },
                data: Some(data.clone()),
                revision: number,
            };
            match api.create(&PostParams::default(), &revision).await {
                Ok(created) => return Ok(created),
                Err(error) if error.is_already_exists() => {
                    let present = api.get(&name).await?;
                    if revisions::keeps(&present, &data) {
                        return Ok(present);
                    }
                    *collisions = collisions.saturating_add(1);
                }
                Err(error) => return Err(CallError::new(format!("create ControllerRevision {name}"), error).into()),
            }
        }
    }

    /// Deletes revisions beyond the limit.
    pub(super) async fn clean(&self, world: &World<'_>, history: &History) -> Result<(), ReconcileError> {
        let used: BTreeSet<String> = world.pods.values().filter_map(|p| p.labels.get(REVISION).cloned()).collect();
        let limit = identity::spec(world.set).revision_history_limit.unwrap_or(10);
        let api = self.revisions(world.set);
        for revision in outdated(history, &used, limit) {
            match api.delete(&revision.name_any(), &DeleteParams::default()).await {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }
}
