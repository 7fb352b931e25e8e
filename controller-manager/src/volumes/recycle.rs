//! Volumes whose policy is to be emptied and offered again: a Pod empties them.

use std::time::Duration;

use ::controller::{EventType, Outcome, ReconcileError};
use client::ApiErrorExt;
use k8s_openapi::api::core::v1::{
    HostPathVolumeSource, NFSVolumeSource, PersistentVolume, PersistentVolumeSpec, Pod, Volume,
};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};

use super::{Shared, annotate, annotation, name, options::Recycler, steps};

/// Time between looks at a Pod that empties a volume.
const LOOK: Duration = Duration::from_secs(2);
/// The claim whose data the Pod removes (on Pods).
const RELEASED_FROM: &str = "pv.kubernetes.io/released-from";
const FAILED: &str = "VolumeFailedRecycle";

/// How the volumes are emptied that can be.
pub(super) struct Recyclers {
    pub(super) nfs: Recycler,
    pub(super) host_path: Recycler,
}

impl Recyclers {
    /// The recycler of a volume.
    fn of(&self, spec: &PersistentVolumeSpec) -> Option<&Recycler> {
        match (&spec.host_path, &spec.nfs) {
            (Some(_), _) => Some(&self.host_path),
            (None, Some(_)) => Some(&self.nfs),
            (None, None) => None,
        }
    }
}

/// The Pod that empties a volume.
fn pod_for(recycler: &Recycler, volume: &PersistentVolume) -> Pod {
    let spec = volume.spec.clone().unwrap_or_default();
    let mut pod = recycler.template.clone();
    pod.metadata.name = Some(pod_name(volume));
    pod.metadata.generate_name = None;
    let released = spec.claim_ref.as_ref().and_then(|claim| claim.uid.clone()).unwrap_or_default();
    annotate(&mut pod, RELEASED_FROM, &released);
    let wanted = pod.spec.get_or_insert_default();
    wanted.active_deadline_seconds = Some(recycler.deadline(volume));
    if let Some(first) = wanted.volumes.get_or_insert_default().first_mut() {
        let host_path = spec.host_path.map(|h| HostPathVolumeSource { path: h.path, type_: None });
        let nfs = spec.nfs.map(|n| NFSVolumeSource { path: n.path, server: n.server, read_only: n.read_only });
        *first = Volume { name: first.name.clone(), host_path, nfs, ..Volume::default() };
    }
    pod
}

fn pod_name(volume: &PersistentVolume) -> String {
    format!("recycler-for-{}", name(volume))
}

/// What a Pod that empties a volume has come to.
#[derive(Debug, PartialEq, Eq)]
enum Stage {
    Works,
    Done,
    Failed(String),
}

fn stage(pod: &Pod) -> Stage {
    let status = pod.status.as_ref();
    match status.and_then(|s| s.phase.as_deref()) {
        Some("Succeeded") => Stage::Done,
        Some("Failed") => {
            let said = status.and_then(|s| s.message.clone()).filter(|text| !text.is_empty());
            Stage::Failed(said.unwrap_or_else(|| "pod failed, pod.Status.Message unknown.".to_owned()))
        }
        _ => Stage::Works,
    }
}

impl Shared {
    /// Takes the next step of emptying a released volume.
    pub(super) async fn recycle(&self, volume: &PersistentVolume) -> Result<Outcome, ReconcileError> {
        let spec = volume.spec.clone().unwrap_or_default();
        let Some(recycler) = self.recyclers.of(&spec) else {
            return self.recycling_failed(volume, "No recycler plugin found for the volume!").await;
        };
        let users = self.users(&spec);
        if !users.is_empty() {
            let text = format!("Volume is used by pods: {}", users.join(","));
            self.tell(volume, EventType::Normal, FAILED, text);
            return Ok(Outcome::Done);
        }
        let wanted = pod_for(recycler, volume);
        let namespace = wanted.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        let Some(pod) = pods.get_opt(&pod_name(volume)).await? else {
            pods.create(&PostParams::default(), &wanted).await?;
            return Ok(Outcome::After(LOOK));
        };
        let of_this = annotation(&pod, RELEASED_FROM) == annotation(&wanted, RELEASED_FROM);
        let stage = if of_this { stage(&pod) } else { Stage::Works };
        if of_this && stage == Stage::Works {
            return Ok(Outcome::After(LOOK));
        }
        match pods.delete(&pod_name(volume), &DeleteParams::default()).await {
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => {}
        }
        match stage {
            Stage::Works => Ok(Outcome::After(LOOK)),
            Stage::Failed(why) => self.recycling_failed(volume, &format!("Recycle failed: {why}")).await,
            Stage::Done => {
                self.tell(volume, EventType::Normal, "VolumeRecycled", "Volume recycled");
                self.offered_again(volume).await
            }
        }
    }

    async fn offered_again(&self, volume: &PersistentVolume) -> Result<Outcome, ReconcileError> {
        let free = match steps::volume_unbound(volume) {
            None => volume.clone(),
            Some(changed) => self.write_volume(&changed).await?,
        };
        if let Some(changed) = steps::volume_phase(&free, "Available", "") {
            self.write_volume_status(&changed).await?;
        }
        Ok(Outcome::Done)
    }

    async fn recycling_failed(&self, volume: &PersistentVolume, text: &str) -> Result<Outcome, ReconcileError> {
        if let Some(changed) = steps::volume_phase(volume, "Failed", text) {
            self.write_volume_status(&changed).await?;
            self.tell(volume, EventType::Warning, FAILED, text);
        }
        Ok(Outcome::Done)
    }

    /// Pods that still use the volume's claim.
    fn users(&self, spec: &PersistentVolumeSpec) -> Vec<String> {
        let Some(claim) = spec.claim_ref.as_ref().map(super::claim_key) else { return Vec::new() };
        let uses = |pod: &crate::views::PodView| pod.claims.iter().any(|(_, used)| *used == claim.name);
        let pods = self.pods.in_namespace(&claim.namespace);
        pods.iter().filter(|pod| uses(&pod.view) && pod.is_active()).map(|pod| pod.key.to_string()).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command, FromArgMatches};
    use serde_json::json;

    use super::*;
    use crate::volumes::options::VolumeOptions;

    #[test]
    fn the_pod_empties_this_volume_in_time() {
        let command = VolumeOptions::augment_args(Command::new("x"));
        let options = VolumeOptions::from_arg_matches(&command.get_matches_from(["x"])).unwrap();
        let volume = serde_json::from_value(json!({
            "metadata": {"name": "v"},
            "spec": {"capacity": {"storage": "5Gi"}, "hostPath": {"path": "/tmp/v"}, "claimRef": {"uid": "u"}},
        }));
        let pod = pod_for(&options.host_path_recycler().unwrap(), &volume.unwrap());
        assert_eq!(pod.metadata.name.as_deref(), Some("recycler-for-v"));
        assert_eq!(annotation(&pod, RELEASED_FROM), Some("u"));
        let spec = pod.spec.unwrap();
        assert_eq!(spec.active_deadline_seconds, Some(150));
        assert_eq!(spec.volumes.unwrap()[0].host_path.as_ref().unwrap().path, "/tmp/v");
        assert_eq!(options.validate(), Vec::<String>::new());
    }

    #[test]
    fn pods_tell_what_they_came_to() {
        let pod = |status: serde_json::Value| serde_json::from_value::<Pod>(json!({"status": status})).unwrap();
        assert_eq!(stage(&pod(json!({"phase": "Running"}))), Stage::Works);
        assert_eq!(stage(&pod(json!({"phase": "Succeeded"}))), Stage::Done);
        assert_eq!(stage(&pod(json!({"phase": "Failed", "message": "m"}))), Stage::Failed("m".into()));
    }
}
