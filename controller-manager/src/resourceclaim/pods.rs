//! What Pods need: claims made from templates, their names in the Pod's status, reservations of Pods that the scheduler
//! did not place.

use ::controller::{Cached, EventType, ObjectKey, Outcome, ReconcileError};
use client::ApiErrorExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::PostParams};
use serde_json::json;

use super::{BY_OWNER, Reconciler, plan};
use crate::{
    nodelifecycle::eviction::reference,
    views::{PodClaimSource, PodDevices, PodView},
};

/// Owner of the fields that are applied to Pods.
const MANAGER: &str = "ResourceClaimController";

/// Why a Pod has no claim yet.
#[derive(Debug, thiserror::Error)]
enum MakeError {
    #[error("resource claim template {0:?}: resourceclaimtemplate.resource.k8s.io {0:?} not found")]
    NoTemplate(String),
    #[error("create ResourceClaim : {}", .0.text())]
    Call(#[from] kube::Error),
}

impl Reconciler {
    pub(super) async fn reconcile_pod(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(pod) = self.pods.get(key).filter(|pod| pod.deletion.is_none() && !plan::is_done(pod)) else {
            return Ok(Outcome::Done);
        };
        let Some(devices) = &pod.devices else { return Ok(Outcome::Done) };
        let mut made = devices.made.clone();
        for (name, source) in &devices.claims {
            let PodClaimSource::Template(template) = source else { continue };
            if self.is_there(&pod, devices, name).await? {
                continue;
            }
            match self.make(&pod, name, template).await {
                Ok(claim) => {
                    made.retain(|(known, _)| known != name);
                    made.push((name.clone(), Some(claim)));
                }
                Err(MakeError::Call(error)) if error.is_namespace_terminating() => return Ok(Outcome::Done),
                Err(error) => {
                    let text = format!("PodResourceClaim {name}: {error}");
                    let about = reference(key, &pod.uid);
                    self.recorder.event(&about, EventType::Warning, "FailedResourceClaimCreation", text);
                    return Err(error.into());
                }
            }
        }
        if made != devices.made {
            self.tell(&pod, &made).await?;
        }
        if pod.node.is_empty() {
            // The scheduler allocates and reserves.
            return Ok(Outcome::Done);
        }
        let told = PodDevices { claims: devices.claims.clone(), made, extended: None };
        for claim in told.names() {
            self.reserve(&pod, claim).await?;
        }
        Ok(Outcome::Done)
    }

    /// Whether the claim that the Pod's status tells of exists. The status may tell that none is needed.
    async fn is_there(&self, pod: &Cached<PodView>, devices: &PodDevices, name: &str) -> Result<bool, ReconcileError> {
        let claim = match devices.made_for(name) {
            None => return Ok(false),
            Some(None) => return Ok(true),
            Some(Some(claim)) => claim,
        };
        if let Some(known) = self.claims.get(&ObjectKey::new(&pod.key.namespace, claim)) {
            return Ok(plan::owner(&known).is_some_and(|owner| owner.uid == pod.uid));
        }
        // The cache may not have it yet.
        let live = self.claim_api(&pod.key.namespace).get_opt(claim).await?;
        Ok(live.is_some_and(|claim| plan::owner(&claim).is_some_and(|owner| owner.uid == pod.uid)))
    }

    /// The name of the claim for a Pod: one that was made before, or a new one.
    async fn make(&self, pod: &Cached<PodView>, name: &str, template: &str) -> Result<String, MakeError> {
        let owned = self.claims.by_index(BY_OWNER, &pod.uid);
        let found = owned
            .iter()
            .find(|claim| plan::made_for(claim, &pod.uid) == Some(name) && claim.metadata.deletion_timestamp.is_none());
        if let Some(known) = found {
            return Ok(known.key.name.clone());
        }
        let slot = (pod.uid.clone(), name.to_owned());
        if let Some(known) = self.made.lock().get(&slot) {
            return Ok(known.clone());
        }
        let key = ObjectKey::new(&pod.key.namespace, template);
        let template = self.templates.get(&key).ok_or_else(|| MakeError::NoTemplate(template.to_owned()))?;
        let wanted = plan::claim_of((&pod.key.namespace, &pod.key.name, &pod.uid), name, &template);
        let created = self.claim_api(&pod.key.namespace).create(&PostParams::default(), &wanted).await;
        let labels = [if created.is_ok() { "success" } else { "failure" }, plan::admin_access(&wanted)];
        self.created.with_label_values(&labels).inc();
        let claim = created?;
        self.made.lock().insert(slot, claim.name_any());
        Ok(claim.name_any())
    }

    /// Writes the names of claims into the Pod's status.
    async fn tell(&self, pod: &Cached<PodView>, made: &[(String, Option<String>)]) -> Result<(), ReconcileError> {
        let statuses: Vec<_> = made
            .iter()
            .map(|(name, claim)| match claim {
                Some(claim) => json!({"name": name, "resourceClaimName": claim}),
                None => json!({"name": name}),
            })
            .collect();
        let applied = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": pod.key.name, "namespace": pod.key.namespace, "uid": pod.uid},
            "status": {"resourceClaimStatuses": statuses},
        });
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.key.namespace);
        match client::apply_status(&api, &pod.key.name, MANAGER, &applied).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Reserves an allocated claim for a Pod that has a node.
    async fn reserve(&self, pod: &Cached<PodView>, claim: &str) -> Result<(), ReconcileError> {
        let Some(known) = self.claims.get(&ObjectKey::new(&pod.key.namespace, claim)) else { return Ok(()) };
        if !plan::is_allocated(&known) || plan::consumers(&known).iter().any(|c| c.uid == pod.uid) {
            return Ok(());
        }
        let api = self.claim_api(&pod.key.namespace);
        let change = |fresh: &mut _| plan::reserve(fresh, &pod.key.name, &pod.uid);
        match client::modify_status(&api, claim, change).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }
}
