//! Revisions of a DaemonSet's template.

use ::controller::ReconcileError;
use client::{ApiErrorExt, CallError, Scope};
use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, DaemonSet},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, PostParams},
};
use serde_json::json;

use super::{placement::HASH, plan::Daemon, sync::Reconciler};
use crate::{
    children::{self, Candidate, Claimer},
    revisions, template, views,
};

/// The hash a revision stands for.
pub(super) fn hash_of(revision: &ControllerRevision) -> String {
    revision.labels().get(HASH).cloned().unwrap_or_default()
}

/// Old revisions to delete, given the hashes in use.
fn outdated(set: &DaemonSet, mut old: Vec<ControllerRevision>, used: &[String]) -> Vec<ControllerRevision> {
    let limit = set.spec.as_ref().and_then(|s| s.revision_history_limit).unwrap_or(10);
    let limit = usize::try_from(limit).unwrap_or(0);
    revisions::sort(&mut old);
    let (live, dead): (Vec<_>, Vec<_>) = old.into_iter().partition(|r| used.contains(&hash_of(r)));
    let surplus = dead.len().saturating_sub(limit);
    drop(live);
    dead.into_iter().take(surplus).collect()
}

impl Reconciler {
    fn revisions(&self, namespace: &str) -> Api<ControllerRevision> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The revision of the present template, made if there is none, and all others.
    pub(super) async fn history(
        &self,
        set: &DaemonSet,
        pods: &[Daemon],
    ) -> Result<(ControllerRevision, Vec<ControllerRevision>), ReconcileError> {
        let namespace = set.namespace().unwrap_or_default();
        let api = self.revisions(&namespace);
        let spec = set.spec.clone().unwrap_or_default();
        let data = revisions::data(&spec.template);
        let (mut current, mut old) = (Vec::new(), Vec::new());
        for mut revision in self.claim_revisions(set).await? {
            if hash_of(&revision).is_empty() {
                let name = revision.name_any();
                revision.labels_mut().insert(HASH.into(), name.clone());
                revision = api.replace(&name, &PostParams::default(), &revision).await?;
            }
            let list = if revisions::keeps(&revision, &data) { &mut current } else { &mut old };
            list.push(revision);
        }
        let next = old.iter().map(|r| r.revision).max().unwrap_or(0).saturating_add(1);
        if current.is_empty() {
            return Ok((self.snapshot(set, next).await?, old));
        }
        let mut kept = self.merge(&api, &namespace, current, pods).await?;
        if kept.revision < next {
            kept.revision = next;
            let name = kept.name_any();
            kept = api.replace(&name, &PostParams::default(), &kept).await?;
        }
        Ok((kept, old))
    }

    async fn claim_revisions(&self, set: &DaemonSet) -> Result<Vec<ControllerRevision>, ReconcileError> {
        let namespace = set.namespace().unwrap_or_default();
        let selector = children::selector_of(&set.spec.clone().unwrap_or_default().selector)?;
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
            if claimer.claim::<ControllerRevision>(&candidate).await? {
                claimed.push(revision.view.0.clone());
            }
        }
        Ok(claimed)
    }

    /// Keeps the highest of equal revisions; Pods of the others are relabelled.
    async fn merge(
        &self,
        api: &Api<ControllerRevision>,
        namespace: &str,
        mut equal: Vec<ControllerRevision>,
        pods: &[Daemon],
    ) -> Result<ControllerRevision, ReconcileError> {
        revisions::sort(&mut equal);
        let Some(kept) = equal.pop() else { return Err("no revision to keep".into()) };
        let hash = hash_of(&kept);
        for other in equal {
            let theirs = hash_of(&other);
            let of_other = |p: &&Daemon| theirs != hash && p.labels.get(HASH) == Some(&theirs);
            for pod in pods.iter().filter(of_other) {
                let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
                let patch = json!({"metadata": {"labels": {HASH: hash}}});
                client::merge_patch(&api, &pod.key.name, Scope::Object, &patch).await?;
            }
            match api.delete(&other.name_any(), &DeleteParams::default()).await {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ => {}
            }
        }
        Ok(kept)
    }

    async fn snapshot(&self, set: &DaemonSet, number: i64) -> Result<ControllerRevision, ReconcileError> {
        let spec = set.spec.clone().unwrap_or_default();
        let collisions = set.status.as_ref().and_then(|s| s.collision_count);
        let hash = template::hash(&spec.template, collisions);
        let name = format!("{}-{hash}", set.name_any());
        let namespace = set.namespace().unwrap_or_default();
        let mut labels = spec.template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
        labels.insert(HASH.into(), hash);
        let data = revisions::data(&spec.template);
        let revision = ControllerRevision {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(namespace.clone()),
                labels: Some(labels),
                annotations: set.metadata.annotations.clone(),
                owner_references: Some(vec![children::owner_reference(set)]),
                ..ObjectMeta::default()
            },
            data: Some(data.clone()),
            revision: number,
        };
        let api = self.revisions(&namespace);
        match api.create(&PostParams::default(), &revision).await {
            Ok(created) => Ok(created),
            Err(error) if error.is_already_exists() => {
                let present = api.get(&name).await?;
                if revisions::keeps(&present, &data) {
                    return Ok(present);
                }
                self.collided(set, collisions).await?;
                Err(format!("revision {name:?} exists with other data, another hash is tried").into())
            }
            Err(error) => Err(CallError::new(format!("create ControllerRevision {name}"), error).into()),
        }
    }

    async fn collided(&self, set: &DaemonSet, collisions: Option<i32>) -> Result<(), ReconcileError> {
        let api: Api<DaemonSet> = Api::namespaced(self.client.clone(), &set.namespace().unwrap_or_default());
        client::modify_status(&api, &set.name_any(), |fresh| {
            let status = fresh.status.get_or_insert_default();
            if status.collision_count != collisions {
                return false;
            }
            status.collision_count = Some(collisions.unwrap_or(0) + 1);
            true
        })
        .await?;
        Ok(())
    }

    /// Deletes revisions beyond the limit that no Pod is of.
    pub(super) async fn clean(
        &self,
        set: &DaemonSet,
        old: Vec<ControllerRevision>,
        pods: &[Daemon],
    ) -> Result<(), ReconcileError> {
        let used: Vec<String> = pods.iter().filter_map(|p| p.labels.get(HASH).cloned()).collect();
        let api = self.revisions(&set.namespace().unwrap_or_default());
        for revision in outdated(set, old, &used) {
            match api.delete(&revision.name_any(), &DeleteParams::default()).await {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_is_limited() {
        let set: DaemonSet = serde_json::from_value(
            json!({"metadata": {}, "spec": {"selector": {}, "template": {}, "revisionHistoryLimit": 1}}),
        )
        .unwrap();
        let revision = |number: i64| -> ControllerRevision {
            serde_json::from_value(json!({"metadata": {"name": format!("r{number}"), "labels": {HASH: number.to_string()}}, "revision": number})).unwrap()
        };
        let old: Vec<_> = [4, 1, 3, 2].map(revision).into();
        let gone: Vec<i64> = outdated(&set, old, &["2".to_owned()]).iter().map(|r| r.revision).collect();
        assert_eq!(gone, [1, 3]);
    }
}
