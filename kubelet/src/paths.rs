//! Where the kubelet keeps things.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;

use crate::pods;

/// Directories below the kubelet's root and the log root.
#[derive(Clone, Debug)]
pub struct Paths {
    root: PathBuf,
    pod_logs: PathBuf,
    container_logs: PathBuf,
}

impl Paths {
    /// Paths below the given roots.
    pub fn new(root: impl Into<PathBuf>, pod_logs: impl Into<PathBuf>, container_logs: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), pod_logs: pod_logs.into(), container_logs: container_logs.into() }
    }

    /// `/var/lib/kubelet`
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `pods`
    pub fn pods(&self) -> PathBuf {
        self.root.join("pods")
    }

    /// `pods/<uid>`
    pub fn pod(&self, uid: &str) -> PathBuf {
        self.pods().join(uid)
    }

    /// `pods/<uid>/volumes`
    pub fn volumes(&self, uid: &str) -> PathBuf {
        self.pod(uid).join("volumes")
    }

    /// `pods/<uid>/volumes/<plugin>/<volume>`
    pub fn volume(&self, uid: &str, plugin: &str, volume: &str) -> PathBuf {
        self.volumes(uid).join(plugin).join(volume)
    }

    /// `pods/<uid>/volume-subpaths`
    pub fn subpaths(&self, uid: &str) -> PathBuf {
        self.pod(uid).join("volume-subpaths")
    }

    /// `pods/<uid>/volumeDevices/<plugin>/<volume>`
    pub fn device(&self, uid: &str, plugin: &str, volume: &str) -> PathBuf {
        self.pod(uid).join("volumeDevices").join(plugin).join(volume)
    }

    /// `pods/<uid>/etc-hosts`
    pub fn etc_hosts(&self, uid: &str) -> PathBuf {
        self.pod(uid).join("etc-hosts")
    }

    /// `pods/<uid>/containers/<name>`
    pub fn container(&self, uid: &str, name: &str) -> PathBuf {
        self.pod(uid).join("containers").join(name)
    }

    /// `seccomp`
    pub fn seccomp(&self) -> PathBuf {
        self.root.join("seccomp")
    }

    /// `/var/log/pods`
    pub fn pod_logs(&self) -> &Path {
        &self.pod_logs
    }

    /// `/var/log/containers`
    pub fn container_logs(&self) -> &Path {
        &self.container_logs
    }

    /// `/var/log/pods/<ns>_<name>_<uid>`
    pub fn logs_of(&self, pod: &Pod) -> PathBuf {
        self.pod_logs.join(format!("{}_{}_{}", pods::namespace(pod), pods::name(pod), pods::uid(pod)))
    }

    /// `/var/log/containers/<pod>_<ns>_<container>-<id>.log`, at most 255 bytes.
    pub fn log_link(&self, pod: &str, namespace: &str, container: &str, id: &str) -> PathBuf {
        let mut name = format!("{pod}_{namespace}_{container}-{id}");
        name.truncate(name.floor_char_boundary(255 - ".log".len()));
        self.container_logs.join(format!("{name}.log"))
    }
}
