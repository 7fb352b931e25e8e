//! What must be there before containers start: control group, directories, volumes, pull secrets.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;

use super::actor::{Actor, RoundError, VOLUME_RETRY};
use crate::admission::Refusal;
use crate::cri::PodView;
use crate::events::EventType;
use crate::metrics::METRICS;
use crate::pods;
use crate::spec::pod_cgroup;
use crate::volumes::{Mounted, VolumeError};

impl Actor {
    /// Control group and directories.
    pub(super) async fn prepare_node(&self) -> Result<(), RoundError> {
        let services = Arc::clone(&self.services);
        let (name, limits) = (pod_cgroup(&self.pod, &services.settings), self.group_limits(&self.pod));
        let pod_dir = services.paths.pod(self.uid());
        let per_pod = services.settings.cgroups_per_qos;
        let work = tokio::task::spawn_blocking(move || {
            let is_new = per_pod && !services.platform.cgroup_exists(&name);
            if is_new {
                let start = std::time::Instant::now();
                services.platform.apply_cgroup(&name, &limits).map_err(|error| (true, error))?;
                METRICS.cgroup_duration.with_label_values(&["create"]).observe(start.elapsed().as_secs_f64());
            }
            make_pod_dirs(&pod_dir).map_err(|error| (false, error))?;
            Ok(is_new)
        });
        let result = work.await.map_err(|error| RoundError::Other(error.to_string()))?;
        if let Ok(true) = result {
            self.services.resizes.told_pod(self.uid(), pods::spec(&self.pod).resources.clone());
        }
        result.map(drop).map_err(|(is_cgroup, error): (bool, std::io::Error)| {
            let text = if is_cgroup {
                format!("unable to ensure pod container exists: {error}")
            } else {
                format!("error making pod data directories: {error}")
            };
            let reason = if is_cgroup { "FailedCreatePodContainer" } else { "FailedToMakePodDataDirectories" };
            self.services.events.pod(&self.pod, EventType::Warning, reason, text.as_str());
            RoundError::Other(text)
        })
    }

    /// Whether containers run without the group that limits the Pod.
    pub(super) async fn lost_its_group(&self, view: &PodView) -> bool {
        if !self.services.settings.cgroups_per_qos || view.running().next().is_none() {
            return false;
        }
        let name = pod_cgroup(&self.pod, &self.services.settings);
        let platform = Arc::clone(&self.services.platform);
        tokio::task::spawn_blocking(move || !platform.cgroup_exists(&name)).await.unwrap_or(false)
    }

    pub(super) async fn mount(&mut self) -> Result<Mounted, RoundError> {
        let facts = self.services.facts.get();
        match self.services.volumes.set_up(&self.pod, &facts).await {
            Ok(mounted) => {
                self.volume_delay = VOLUME_RETRY.0;
                Ok(mounted)
            }
            Err(errors) => {
                for (reason, text) in VolumeError::events(&errors) {
                    self.services.events.pod(&self.pod, EventType::Warning, reason, text);
                }
                if errors.iter().all(VolumeError::is_waiting) {
                    // Nothing failed, so nothing has to be spared.
                    self.volume_delay = VOLUME_RETRY.0;
                }
                if let Some(error) = errors.iter().find(|error| error.is_over_limit()) {
                    let refusal = Refusal::new("VolumeAttachmentLimitExceeded", error.to_string());
                    return Err(RoundError::Refused(refusal));
                }
                let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
                Err(RoundError::Volumes(texts.join("; ")))
            }
        }
    }

    pub(super) async fn pull_secrets(&self) -> Vec<Arc<Secret>> {
        let mut found = Vec::new();
        let mut missing = Vec::new();
        let names = pods::spec(&self.pod).image_pull_secrets.iter().flatten().map(|secret| secret.name.as_str());
        for name in names.filter(|name| !name.is_empty()) {
            match self.services.objects.secret(pods::namespace(&self.pod), name).await {
                Ok(secret) => found.push(secret),
                Err(_) => missing.push(name),
            }
        }
        if !missing.is_empty() {
            let text = format!(
                "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                missing.join(", ")
            );
            self.services.events.pod(&self.pod, EventType::Warning, "FailedToRetrieveImagePullSecret", text);
        }
        found
    }
}

fn make_pod_dirs(pod_dir: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    for dir in [pod_dir.to_owned(), pod_dir.join("volumes"), pod_dir.join("plugins")] {
        if !dir.is_dir() {
            std::fs::create_dir_all(&dir)?;
            std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o750))?;
        }
    }
    Ok(())
}
