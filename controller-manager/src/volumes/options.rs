//! Flags of the binder.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use k8s_openapi::api::core::v1::{PersistentVolume, Pod};
use runtime::flags::duration;
use serde_json::{Value, json};

/// Smallest part of a volume that adds to the time its recycling may take.
const GIBIBYTE: i64 = 1 << 30;

/// What becomes of claims and volumes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Persistentvolume-binder-controller flags")]
pub struct VolumeOptions {
    /// The period for syncing persistent volumes and persistent volume claims
    #[arg(long, default_value = "15s", value_parser = duration)]
    pub pvclaimbinder_sync_period: Duration,
    /// Enable dynamic provisioning for environments that support it.
    #[arg(long, default_value_t = true)]
    pub enable_dynamic_provisioning: bool,
    /// Enable HostPath PV provisioning when running without a cloud provider. This allows testing and development of
    /// provisioning features. HostPath provisioning is not supported in any way, won't work in a multi-node cluster,
    /// and should not be used for anything other than testing or development.
    #[arg(long, default_value_t = false)]
    pub enable_hostpath_provisioner: bool,
    /// Full path of the directory in which the flex volume plugin should search for additional third party volume
    /// plugins. The controllers call none: kubelets mount such volumes, and all provisioning is external.
    #[arg(long, default_value = "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/")]
    pub flex_volume_plugin_dir: String,
    /// The file path to a pod definition used as a template for NFS persistent volume recycling
    #[arg(long)]
    pub pv_recycler_pod_template_filepath_nfs: Option<PathBuf>,
    /// The minimum ActiveDeadlineSeconds to use for an NFS Recycler pod
    #[arg(long, default_value_t = 300)]
    pub pv_recycler_minimum_timeout_nfs: i32,
    /// the increment of time added per Gi to ActiveDeadlineSeconds for an NFS scrubber pod
    #[arg(long, default_value_t = 30)]
    pub pv_recycler_increment_timeout_nfs: i32,
    /// The file path to a pod definition used as a template for HostPath persistent volume recycling. This is for
    /// development and testing only and will not work in a multi-node cluster.
    #[arg(long)]
    pub pv_recycler_pod_template_filepath_hostpath: Option<PathBuf>,
    /// The minimum ActiveDeadlineSeconds to use for a HostPath Recycler pod. This is for development and testing only
    /// and will not work in a multi-node cluster.
    #[arg(long, default_value_t = 60)]
    pub pv_recycler_minimum_timeout_hostpath: i32,
    /// the increment of time added per Gi to ActiveDeadlineSeconds for a HostPath scrubber pod. This is for development
    /// and testing only and will not work in a multi-node cluster.
    #[arg(long, default_value_t = 30)]
    pub pv_recycler_timeout_increment_hostpath: i32,
}

/// How volumes of one plugin are recycled.
#[derive(Clone, Debug)]
pub(super) struct Recycler {
    /// The Pod, but for its name, its volume and its deadline.
    pub(super) template: Pod,
    minimum: i32,
    increment: i32,
}

impl Recycler {
    /// Seconds that a volume of a capacity may take.
    pub(super) fn deadline(&self, volume: &PersistentVolume) -> i64 {
        let capacity = volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()?.get("storage"));
        let bytes =
            capacity.and_then(|size| machinery::quantity::Quantity::parse(&size.0).ok()).map_or(0, |q| q.value());
        (bytes / GIBIBYTE).saturating_mul(i64::from(self.increment)).max(i64::from(self.minimum))
    }
}

impl VolumeOptions {
    /// All that is wrong.
    pub(crate) fn validate(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.pvclaimbinder_sync_period.is_zero() {
            problems.push("--pvclaimbinder-sync-period must be greater than 0".to_owned());
        }
        problems.extend(self.nfs_recycler().err());
        problems.extend(self.host_path_recycler().err());
        problems
    }

    pub(super) fn nfs_recycler(&self) -> Result<Recycler, String> {
        Ok(Recycler {
            template: template(self.pv_recycler_pod_template_filepath_nfs.as_ref())?,
            minimum: self.pv_recycler_minimum_timeout_nfs,
            increment: self.pv_recycler_increment_timeout_nfs,
        })
    }

    pub(super) fn host_path_recycler(&self) -> Result<Recycler, String> {
        Ok(Recycler {
            template: template(self.pv_recycler_pod_template_filepath_hostpath.as_ref())?,
            minimum: self.pv_recycler_minimum_timeout_hostpath,
            increment: self.pv_recycler_timeout_increment_hostpath,
        })
    }

    /// As `/configz` shows it.
    pub(crate) fn document(&self) -> Value {
        let path = |file: &Option<PathBuf>| file.as_ref().map(|f| f.display().to_string()).unwrap_or_default();
        json!({
            "PVClaimBinderSyncPeriod": runtime::flags::format_duration(self.pvclaimbinder_sync_period),
            "VolumeConfiguration": {
                "EnableHostPathProvisioning": self.enable_hostpath_provisioner,
                "EnableDynamicProvisioning": self.enable_dynamic_provisioning,
                "FlexVolumePluginDir": self.flex_volume_plugin_dir,
                "PersistentVolumeRecyclerConfiguration": {
                    "MaximumRetry": 3,
                    "PodTemplateFilePathNFS": path(&self.pv_recycler_pod_template_filepath_nfs),
                    "MinimumTimeoutNFS": self.pv_recycler_minimum_timeout_nfs,
                    "IncrementTimeoutNFS": self.pv_recycler_increment_timeout_nfs,
                    "PodTemplateFilePathHostPath": path(&self.pv_recycler_pod_template_filepath_hostpath),
                    "MinimumTimeoutHostPath": self.pv_recycler_minimum_timeout_hostpath,
                    "IncrementTimeoutHostPath": self.pv_recycler_timeout_increment_hostpath,
                },
            },
        })
    }
}

/// The Pod of a file, or one that empties its volume.
fn template(file: Option<&PathBuf>) -> Result<Pod, String> {
    let Some(file) = file.filter(|file| !file.as_os_str().is_empty()) else {
        return serde_json::from_value(usual()).map_err(|error| error.to_string());
    };
    let fail = |reason: String| format!("could not create recycler pod from file {}: {reason}", file.display());
    let text = runtime::config_file::read(file).map_err(|error| fail(util::chain(&error)))?;
    let pod: Pod = serde_yaml::from_str(&text).map_err(|error| fail(error.to_string()))?;
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref()).map_or(0, Vec::len);
    if volumes == 0 {
        return Err(fail("invalid recycler pod template: does not contain any volume(s)".to_owned()));
    }
    Ok(pod)
}

fn usual() -> Value {
    let scrub = "test -e /scrub && find /scrub -mindepth 1 -delete && test -z \"$(ls -A /scrub)\" || exit 1";
    json!({
        "metadata": {"namespace": "default"},
        "spec": {
            "restartPolicy": "Never",
            "volumes": [{"name": "vol"}],
            "containers": [{
                "name": "pv-recycler",
                "image": "registry.k8s.io/build-image/debian-base:bookworm-v1.0.6",
                "command": ["/bin/sh"],
                "args": ["-c", scrub],
                "volumeMounts": [{"name": "vol", "mountPath": "/scrub"}],
            }],
        },
    })
}
