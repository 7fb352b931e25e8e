//! One claim: finds its volume, or says what it waits for.

use std::sync::Arc;

use ::controller::{EventType, ObjectKey, Outcome, Reconcile, ReconcileError};
use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim},
    storage::v1::StorageClass,
};

use super::{
    BETA_CLASS, BIND_COMPLETED, BOUND_BY_CONTROLLER, IN_TREE, SELECTED_NODE, STORAGE_PROVISIONER, Shared, annotate,
    annotation, claim_key, class_of_claim, hostpath, is_annotated, is_reserved_for, matching, name, namespace, steps,
    successor, uid,
};

const DEFAULT_CLASS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

pub(super) struct Reconciler(pub(super) Arc<Shared>);

/// The annotation that names the provisioner, the newer one if it is there.
fn provisioner_key(claim: &PersistentVolumeClaim) -> &'static str {
    let [now, before] = STORAGE_PROVISIONER;
    if is_annotated(claim, now) { now } else { before }
}

impl Reconcile for Reconciler {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(cached) = self.0.claims.get(key) else { return Ok(Outcome::Done) };
        let claim = &cached.view.0;
        if let Some(changed) = steps::migrated(claim, provisioner_key(claim)) {
            self.0.write_claim(&changed).await?;
            return Ok(Outcome::Done);
        }
        if is_annotated(claim, BIND_COMPLETED) { self.bound(claim).await } else { self.unbound(claim).await }
    }
}

impl Reconciler {
    fn volume(&self, named: &str) -> Option<Arc<::controller::Cached<super::VolumeView>>> {
        self.0.volumes.get(&ObjectKey::new("", named))
    }

    async fn unbound(&self, claim: &PersistentVolumeClaim) -> Result<Outcome, ReconcileError> {
        let named = claim.spec.as_ref().and_then(|s| s.volume_name.clone()).unwrap_or_default();
        if !named.is_empty() {
            return self.asks_for(claim, &named).await;
        }
        let delayed = self.waits_for_consumer(claim) && !is_annotated(claim, SELECTED_NODE);
        let volumes = self.0.volumes.list();
        let chosen = matching::best(volumes.iter().map(|v| &v.view.0), claim, self.waits_for_consumer(claim));
        if let Some(volume) = chosen {
            return self.bind(volume, claim).await;
        }
        if let Some(class) = self.late_default(claim) {
            let mut changed = claim.clone();
            changed.spec.get_or_insert_default().storage_class_name = Some(class);
            self.0.write_claim(&changed).await?;
            return Ok(Outcome::Done);
        }
        if delayed {
            self.tell_waiting(claim);
        } else if class_of_claim(claim).is_empty() {
            let text = "no persistent volumes available for this claim and no storage class is set";
            self.0.tell(claim, EventType::Normal, "FailedBinding", text);
        } else {
            if self.0.dynamic_provisioning {
                self.provision(claim).await?;
            }
            return Ok(Outcome::Done);
        }
        self.pending(claim).await
    }

    /// The claim says which volume it wants.
    async fn asks_for(&self, claim: &PersistentVolumeClaim, named: &str) -> Result<Outcome, ReconcileError> {
        let Some(cached) = self.volume(named) else { return self.pending(claim).await };
        let volume = &cached.view.0;
        let taken = volume.spec.as_ref().is_some_and(|s| s.claim_ref.is_some());
        if is_reserved_for(volume, claim) {
            return self.bind(volume, claim).await;
        }
        if taken {
            if !is_annotated(claim, BOUND_BY_CONTROLLER) {
                let text = format!("volume {named:?} already bound to a different claim.");
                self.0.tell(claim, EventType::Warning, "FailedBinding", text);
            }
            return self.pending(claim).await;
        }
        match matching::mismatch(volume, claim) {
            None => self.bind(volume, claim).await,
            Some(why) => {
                let text = format!("Cannot bind to requested volume {named:?}: {why}");
                self.0.tell(claim, EventType::Warning, "VolumeMismatch", text);
                self.pending(claim).await
            }
        }
    }

    /// The claim was bound: looks whether it still is.
    async fn bound(&self, claim: &PersistentVolumeClaim) -> Result<Outcome, ReconcileError> {
        let named = claim.spec.as_ref().and_then(|s| s.volume_name.clone()).unwrap_or_default();
        let lost = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
        if named.is_empty() {
            let text = "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!";
            return self.lost(claim, "ClaimLost", text).await;
        }
        let Some(cached) = self.volume(&named) else { return self.lost(claim, "ClaimLost", lost).await };
        let volume = &cached.view.0;
        match volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref()) {
            None => self.bind(volume, claim).await,
            Some(r) if r.uid.as_deref() == Some(uid(claim)) => self.bind(volume, claim).await,
            Some(r) if r.uid.is_none() && claim_key(r) == ObjectKey::new(namespace(claim), name(claim)) => {
                self.bind(volume, claim).await
            }
            Some(_) => {
                let text = "Two claims are bound to the same volume, this one is bound incorrectly";
                self.lost(claim, "ClaimMisbound", text).await
            }
        }
    }

    async fn bind(&self, volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Result<Outcome, ReconcileError> {
        let mut volume = volume.clone();
        if let Some(changed) = steps::volume_names_claim(&volume, claim) {
            volume = self.0.write_volume(&changed).await?;
        }
        if let Some(changed) = steps::volume_phase(&volume, "Bound", "") {
            volume = self.0.write_volume_status(&changed).await?;
        }
        let mut claim = claim.clone();
        if let Some(changed) = steps::claim_names_volume(&claim, &volume) {
            claim = self.0.write_claim(&changed).await?;
        }
        if let Some(changed) = steps::claim_bound(&claim, &volume) {
            self.0.write_claim_status(&changed).await?;
            let place = format!("{}/{}", namespace(&claim), name(&claim));
            tracing::info!(v = 2, claim = %place, volume = name(&volume), "volume bound to claim");
        }
        Ok(Outcome::Done)
    }

    async fn pending(&self, claim: &PersistentVolumeClaim) -> Result<Outcome, ReconcileError> {
        if let Some(changed) = steps::claim_phase(claim, "Pending") {
            self.0.write_claim_status(&changed).await?;
        }
        Ok(Outcome::Done)
    }

    async fn lost(&self, claim: &PersistentVolumeClaim, reason: &str, text: &str) -> Result<Outcome, ReconcileError> {
        if let Some(changed) = steps::claim_phase(claim, "Lost") {
            self.0.write_claim_status(&changed).await?;
            self.0.tell(claim, EventType::Warning, reason, text);
        }
        Ok(Outcome::Done)
    }

    fn class(&self, claim: &PersistentVolumeClaim) -> Option<StorageClass> {
        let class = self.0.classes.get(&ObjectKey::new("", class_of_claim(claim)))?;
        Some(class.view.0.clone())
    }

    fn waits_for_consumer(&self, claim: &PersistentVolumeClaim) -> bool {
        let mode = self.class(claim).and_then(|class| class.volume_binding_mode);
        mode.as_deref() == Some("WaitForFirstConsumer")
    }

    /// The default class, for a claim that never named one and was made before there was a default.
    fn late_default(&self, claim: &PersistentVolumeClaim) -> Option<String> {
        let unnamed = claim.spec.as_ref()?.storage_class_name.is_none() && !is_annotated(claim, BETA_CLASS);
        let defaults = self.0.classes.list();
        let is_default = |class: &StorageClass| DEFAULT_CLASS.iter().any(|key| annotation(class, key) == Some("true"));
        let newest = defaults.iter().filter(|class| unnamed && is_default(&class.view.0)).min_by(|a, b| {
            let created = |class: &StorageClass| class.metadata.creation_timestamp.as_ref().map(|t| t.0);
            created(&b.view.0).cmp(&created(&a.view.0)).then_with(|| a.key.name.cmp(&b.key.name))
        });
        newest.map(|class| class.key.name.clone())
    }

    /// Says what keeps a claim whose volume is chosen with its first Pod.
    fn tell_waiting(&self, claim: &PersistentVolumeClaim) {
        let uses = |pod: &crate::views::PodView| pod.claims.iter().any(|(_, used)| used == name(claim));
        let pods = self.0.pods.in_namespace(namespace(claim));
        let mut waiting: Vec<String> = pods
            .iter()
            .filter(|pod| uses(&pod.view) && pod.node.is_empty() && pod.is_active())
            .map(|pod| pod.key.name.clone())
            .collect();
        waiting.sort();
        match waiting.as_slice() {
            [] => {
                let text = "waiting for first consumer to be created before binding";
                self.0.tell(claim, EventType::Normal, "WaitForFirstConsumer", text);
            }
            [pod] => {
                let text = format!("waiting for pod {pod} to be scheduled");
                self.0.tell(claim, EventType::Normal, "WaitForPodScheduled", text);
            }
            pods => {
                let text = format!("waiting for pods {} to be scheduled", pods.join(","));
                self.0.tell(claim, EventType::Normal, "WaitForPodScheduled", text);
            }
        }
    }

    /// Asks the class's provisioner for a volume.
    async fn provision(&self, claim: &PersistentVolumeClaim) -> Result<(), ReconcileError> {
        let wanted = class_of_claim(claim);
        let failed = |text: String| self.0.tell(claim, EventType::Warning, "ProvisioningFailed", text);
        let mut claim = claim.clone();
        if let Some(changed) = steps::claim_phase(&claim, "Pending") {
            claim = self.0.write_claim_status(&changed).await?;
        }
        let Some(class) = self.class(&claim) else {
            failed(format!("storageclass.storage.k8s.io {wanted:?} not found"));
            return Ok(());
        };
        let provisioner = successor(&class.provisioner).unwrap_or(&class.provisioner);
        if provisioner == hostpath::PROVISIONER {
            return self.0.provision_host_path(&claim, &class).await;
        }
        if provisioner.starts_with(IN_TREE) {
            failed(format!("no volume plugin matched name: {provisioner}"));
            return Ok(());
        }
        let mut asked = claim.clone();
        let set = STORAGE_PROVISIONER.map(|key| annotate(&mut asked, key, provisioner));
        if set.contains(&true) {
            self.0.write_claim(&asked).await?;
        }
        let text = format!(
            "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the \
             system administrator. If volume creation is delayed, please verify that the provisioner is running and \
             correctly registered."
        );
        self.0.tell(&claim, EventType::Normal, "ExternalProvisioning", text);
        Ok(())
    }
}
