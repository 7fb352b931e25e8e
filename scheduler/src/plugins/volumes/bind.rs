//! Reserve and PreBind of VolumeBinding: volumes are set aside for a Pod, then claims and volumes are told, and the Pod
//! waits until they have found each other.

use std::{sync::Arc, time::Duration};

use controller::ObjectKey;
use serde_json::json;

use super::{Storage, binding::Choice, has_claims};
use crate::{
    api::{Api, CallError},
    cluster::{Cluster, NodeIx},
    objects::{PodView, SELECTED_NODE},
};

/// Why the volumes of a Pod are not ready.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    #[error("binding volumes: {0}")]
    Call(#[from] CallError),
    #[error("binding volumes: context deadline exceeded")]
    Late,
    #[error("binding volumes: {0}")]
    Changed(String),
}

/// What is to be done for the volumes of one Pod.
#[derive(Debug, Default)]
pub(crate) struct VolumePlan {
    node: Arc<str>,
    choices: Vec<(ObjectKey, Choice)>,
}

impl VolumePlan {
    /// Whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.choices.is_empty()
    }
}

impl Storage {
    /// Sets aside what a Pod needs on the node that was chosen; `None` if that is no longer to be had.
    pub(crate) fn reserve(&self, pod: &PodView, cluster: &Cluster, node: NodeIx) -> Option<VolumePlan> {
        if !has_claims(pod) {
            return Some(VolumePlan::default());
        }
        let claims = self.sort(pod).ok()?;
        let choices = self.choose(&claims.open, cluster, node).ok()?;
        let mut reserved = self.reserved.lock();
        for (key, choice) in &choices {
            if let Choice::Volume(volume) = choice {
                reserved.insert(volume.clone(), key.clone());
            }
        }
        Some(VolumePlan { node: Arc::clone(cluster.nodes.name(node)), choices })
    }

    /// Gives back what was set aside.
    pub(crate) fn release(&self, plan: &VolumePlan) {
        let mut reserved = self.reserved.lock();
        for (key, choice) in &plan.choices {
            if let Choice::Volume(volume) = choice
                && reserved.get(volume) == Some(key)
            {
                reserved.remove(volume);
            }
        }
    }

    /// Tells claims and volumes, and waits until all claims are bound, for `deadline` at most.
    pub(crate) async fn bind(&self, plan: &VolumePlan, api: &Api, deadline: Duration) -> Result<(), VolumeError> {
        // Changes from here on are seen.
        let mut changes = self.changes.subscribe();
        for (key, choice) in &plan.choices {
            self.tell(plan, key, choice, api).await?;
        }
        let all_bound = async {
            loop {
                changes.borrow_and_update();
                if self.all_bound(plan)? {
                    return Ok(());
                }
                if changes.changed().await.is_err() {
                    return Err(VolumeError::Late);
                }
            }
        };
        tokio::time::timeout(deadline, all_bound).await.unwrap_or(Err(VolumeError::Late))
    }

    async fn tell(&self, plan: &VolumePlan, key: &ObjectKey, choice: &Choice, api: &Api) -> Result<(), VolumeError> {
        let gone = || VolumeError::Changed(format!("persistentvolumeclaim {:?} not found", key.name));
        let claim = self.claim(key).ok_or_else(gone)?;
        match choice {
            Choice::Provision if claim.selected_node.as_deref() == Some(&*plan.node) => Ok(()),
            Choice::Provision => {
                let patch = json!({"metadata": {
                    "uid": claim.uid,
                    "annotations": {SELECTED_NODE: &*plan.node},
                }});
                Ok(api.patch_claim(key, &patch).await?)
            }
            Choice::Volume(name) => {
                let lost = || VolumeError::Changed(format!("persistentvolume {name:?} not found"));
                let volume = self.volume(name).ok_or_else(lost)?;
                let patch = json!({
                    "metadata": {
                        "uid": volume.uid,
                        "resourceVersion": volume.resource_version,
                        "annotations": {"pv.kubernetes.io/bound-by-controller": "yes"},
                    },
                    "spec": {"claimRef": {
                        "apiVersion": "v1",
                        "kind": "PersistentVolumeClaim",
                        "namespace": key.namespace,
                        "name": key.name,
                        "uid": claim.uid,
                        "resourceVersion": claim.resource_version,
                    }},
                });
                Ok(api.patch_volume(name, &patch).await?)
            }
        }
    }

    fn all_bound(&self, plan: &VolumePlan) -> Result<bool, VolumeError> {
        for (key, choice) in &plan.choices {
            let Some(claim) = self.claim(key) else {
                return Err(VolumeError::Changed(format!("persistentvolumeclaim {:?} not found", key.name)));
            };
            if claim.bound {
                continue;
            }
            // A provisioner that cannot make the volume here takes the node away.
            let taken_back = |n: &str| *n != *plan.node;
            if *choice == Choice::Provision && claim.selected_node.as_deref().is_some_and(taken_back) {
                return Err(VolumeError::Changed(format!("provisioning failed for PVC {:?}", key.name)));
            }
            return Ok(false);
        }
        Ok(true)
    }
}
