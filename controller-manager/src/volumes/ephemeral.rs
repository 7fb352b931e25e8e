//! Claims of generic ephemeral volumes: made for each Pod, owned by it.

use ::controller::{EventRecorder, EventType, Informer, ObjectKey, Outcome, Reconcile, ReconcileError};
use client::ApiErrorExt;
use k8s_openapi::{
    api::core::v1::{ObjectReference, PersistentVolumeClaim, PersistentVolumeClaimTemplate},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{Api, Client, api::PostParams};

use crate::{
    StartError,
    context::Context,
    table::Started,
    views::{ClaimView, PodView},
};

const CONTROLLER: &str = "ephemeral-volume-controller";
/// Name under which events are recorded.
const SOURCE: &str = "ephemeral_volume";

/// Starts the controller.
pub(crate) async fn start(context: &Context) -> Result<Started, StartError> {
    let client = context.client(CONTROLLER).await?;
    let (pods, claims): (Informer<PodView>, Informer<ClaimView>) = (context.informers.get(), context.informers.get());
    let queue = context.queue("ephemeral_volume");
    let (of_pods, of_claims) = (queue.clone(), queue.clone());
    pods.on_change(move |change| {
        let pod = change.object();
        if !pod.ephemeral.is_empty() && pod.deletion.is_none() {
            of_pods.add(pod.key.clone());
        }
    });
    claims.on_change(move |change| {
        let ::controller::Change::Deleted { old } = change else { return };
        let owners = old.view.0.metadata.owner_references.iter().flatten();
        for owner in owners.filter(|o| o.kind == "Pod" && o.controller == Some(true)) {
            of_claims.add(ObjectKey::new(&old.key.namespace, &owner.name));
        }
    });
    let recorder = context.recorder(&client, SOURCE);
    let workers = context.options.workers.concurrent_ephemeralvolume_syncs;
    let reconciler = Reconciler { client, recorder, pods: pods.clone(), claims: claims.clone() };
    context.drive(CONTROLLER, queue, workers, reconciler, &[&pods, &claims]);
    Ok(Started::Running)
}

struct Reconciler {
    client: Client,
    recorder: EventRecorder,
    pods: Informer<PodView>,
    claims: Informer<ClaimView>,
}

/// The claim of a Pod's volume.
pub(super) fn claim_of(
    pod: &ObjectKey,
    uid: &str,
    volume: &str,
    template: &PersistentVolumeClaimTemplate,
) -> PersistentVolumeClaim {
    let given = template.metadata.clone().unwrap_or_default();
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(format!("{}-{volume}", pod.name)),
            namespace: Some(pod.namespace.clone()),
            labels: given.labels,
            annotations: given.annotations,
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".into(),
                kind: "Pod".into(),
                name: pod.name.clone(),
                uid: uid.to_owned(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..ObjectMeta::default()
        },
        spec: Some(template.spec.clone()),
        status: None,
    }
}

impl Reconcile for Reconciler {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(pod) = self.pods.get(key).filter(|pod| pod.deletion.is_none()) else { return Ok(Outcome::Done) };
        for (volume, template) in &pod.ephemeral {
            let wanted = claim_of(&pod.key, &pod.uid, volume, template);
            let claim = ObjectKey::new(&key.namespace, super::name(&wanted));
            if let Some(known) = self.claims.get(&claim) {
                let mut owners = known.view.0.metadata.owner_references.iter().flatten();
                if owners.any(|o| o.uid == pod.uid && o.controller == Some(true)) {
                    continue;
                }
                let text =
                    format!("ephemeral volume {volume}: PVC {claim} was not created for pod {key} (pod is not owner)");
                let about = ObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("Pod".into()),
                    namespace: Some(key.namespace.clone()),
                    name: Some(key.name.clone()),
                    uid: Some(pod.uid.clone()),
                    ..ObjectReference::default()
                };
                self.recorder.event(&about, EventType::Warning, "FailedBinding", text);
                continue;
            }
            let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &key.namespace);
            match api.create(&PostParams::default(), &wanted).await {
                Err(error) if !error.is_already_exists() => return Err(error.into()),
                _ => {}
            }
        }
        Ok(Outcome::Done)
    }
}
