//! Static Pods of the control plane.

pub mod control_plane;
pub mod etcd;
pub mod present;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::{
    config::{Arg, HostPathMount},
    constants::MANIFESTS_DIR,
    error::{Context, Result},
    host::Host,
    yaml,
};

/// The components that run as static Pods, in the order they are started.
pub const COMPONENTS: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];

/// Path of a component's manifest.
pub fn path(name: &str) -> PathBuf {
    Path::new(MANIFESTS_DIR).join(format!("{name}.yaml"))
}

/// A host path in a Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Name of the volume.
    pub name: String,
    /// Path on the host.
    pub host_path: String,
    /// Path in the container.
    pub mount_path: String,
    /// Whether it cannot be written.
    pub read_only: bool,
    /// Type of the host path.
    pub path_type: String,
}

impl Mount {
    /// A path that is the same on both sides.
    pub fn same(name: &str, path: &str, path_type: &str, read_only: bool) -> Self {
        Self {
            name: name.into(),
            host_path: path.into(),
            mount_path: path.into(),
            read_only,
            path_type: path_type.into(),
        }
    }
}

impl From<&HostPathMount> for Mount {
    fn from(given: &HostPathMount) -> Self {
        Self {
            name: given.name.clone(),
            host_path: given.host_path.clone(),
            mount_path: given.mount_path.clone(),
            read_only: given.read_only,
            path_type: given.path_type.clone(),
        }
    }
}

/// One probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What is asked for.
    pub path: &'static str,
    /// `HTTP` or `HTTPS`.
    pub scheme: &'static str,
    /// Address; empty is that of the Pod.
    pub host: String,
}

/// The probes of a component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probes {
    /// Port they go to.
    pub port: i32,
    /// Liveness.
    pub liveness: Probe,
    /// Readiness.
    pub readiness: Option<Probe>,
    /// Start.
    pub startup: Probe,
    /// How many failures a start may have, ten seconds each.
    pub startup_failures: u64,
}

/// What a static Pod is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct StaticPod {
    /// Name of the component.
    pub name: &'static str,
    /// Image.
    pub image: String,
    /// Command with its arguments.
    pub command: Vec<String>,
    /// Host paths.
    pub mounts: Vec<Mount>,
    /// Annotations.
    pub annotations: Vec<(&'static str, String)>,
    /// Variables.
    pub envs: Vec<Value>,
    /// Requests of resources.
    pub requests: Vec<(&'static str, &'static str)>,
    /// Probes.
    pub probes: Probes,
}

impl StaticPod {
    /// The Pod.
    pub fn to_value(&self) -> Value {
        let mut mounts = self.mounts.clone();
        mounts.sort_by(|a, b| a.name.cmp(&b.name));
        let mut container = json!({
            "name": self.name,
            "image": self.image,
            "imagePullPolicy": "IfNotPresent",
            "command": self.command,
            "ports": [{"containerPort": self.probes.port, "name": "probe-port", "protocol": "TCP"}],
            "livenessProbe": probe(&self.probes.liveness, 10, 8, 10),
            "startupProbe": probe(&self.probes.startup, 10, self.probes.startup_failures, 10),
            "resources": {"requests": map(&self.requests)},
            "volumeMounts": mounts.iter().map(volume_mount).collect::<Vec<_>>(),
        });
        if let Some(readiness) = &self.probes.readiness {
            container["readinessProbe"] = probe(readiness, 0, 3, 1);
        }
        if !self.envs.is_empty() {
            container["env"] = Value::Array(self.envs.clone());
        }
        let mut metadata = json!({
            "name": self.name,
            "namespace": "kube-system",
            "labels": {"component": self.name, "tier": "control-plane"},
        });
        if !self.annotations.is_empty() {
            let annotations: Map<_, _> =
                self.annotations.iter().map(|(k, v)| ((*k).to_owned(), Value::from(v.as_str()))).collect();
            metadata["annotations"] = Value::Object(annotations);
        }
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": metadata,
            "spec": {
                "containers": [container],
                "hostNetwork": true,
                "priority": 2_000_001_000,
                "priorityClassName": "system-node-critical",
                "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
                "volumes": mounts.iter().map(volume).collect::<Vec<_>>(),
            },
            "status": {},
        })
    }

    /// Text of the manifest.
    pub fn to_yaml(&self) -> Result<String> {
        yaml::to_yaml(&self.to_value())
    }
}

/// Writes a manifest.
pub fn write(host: &dyn Host, name: &str, content: &str) -> Result<()> {
    host.create_directory(Path::new(MANIFESTS_DIR), 0o700)
        .with_context(|| format!("failed to create directory {MANIFESTS_DIR:?}"))?;
    let path = path(name);
    host.write(&path, 0o600, content.as_bytes()).with_context(|| {
        format!("failed to write static pod manifest file for {name:?} ({:?})", path.display().to_string())
    })
}

/// The command line: defaults sorted by name without those that are given anew, then what is given.
pub fn command(program: &str, defaults: Vec<(&str, String)>, given: &[Arg]) -> Vec<String> {
    let mut defaults: Vec<_> =
        defaults.into_iter().filter(|(name, _)| !given.iter().any(|arg| arg.name == *name)).collect();
    defaults.sort();
    let defaults = defaults.into_iter().map(|(name, value)| format!("--{name}={value}"));
    let given = given.iter().map(|arg| format!("--{}={}", arg.name, arg.value));
    std::iter::once(program.to_owned()).chain(defaults).chain(given).collect()
}

/// Variables of proxies, then what is given; what is given wins.
pub fn environment(host: &dyn Host, given: &[Value]) -> Vec<Value> {
    let is_given = |name: &str| given.iter().any(|env| env.get("name").and_then(Value::as_str) == Some(name));
    let proxies = host.proxy_variables().into_iter().filter(|(name, _)| !is_given(name));
    proxies.map(|(name, value)| json!({"name": name, "value": value})).chain(given.iter().cloned()).collect()
}

/// The address a probe goes to; unspecified ones are left to the kubelet.
pub fn probe_host(address: &str) -> String {
    if address == "0.0.0.0" || address == "::" { String::new() } else { address.to_owned() }
}

fn probe(probe: &Probe, delay: u32, failures: u64, period: u32) -> Value {
    let mut get = json!({"path": probe.path, "port": "probe-port", "scheme": probe.scheme});
    if !probe.host.is_empty() {
        get["host"] = probe.host.as_str().into();
    }
    let mut value =
        json!({"httpGet": get, "failureThreshold": failures, "periodSeconds": period, "timeoutSeconds": 15});
    if delay > 0 {
        value["initialDelaySeconds"] = delay.into();
    }
    value
}

fn volume(mount: &Mount) -> Value {
    let mut source = json!({"path": mount.host_path});
    if !mount.path_type.is_empty() {
        source["type"] = mount.path_type.as_str().into();
    }
    json!({"name": mount.name, "hostPath": source})
}

fn volume_mount(mount: &Mount) -> Value {
    let mut value = json!({"name": mount.name, "mountPath": mount.mount_path});
    if mount.read_only {
        value["readOnly"] = true.into();
    }
    value
}

fn map(pairs: &[(&str, &str)]) -> Value {
    Value::Object(pairs.iter().map(|(k, v)| ((*k).to_owned(), Value::from(*v))).collect())
}
