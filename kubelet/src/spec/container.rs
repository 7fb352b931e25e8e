//! A container's configuration.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::mounts::{self, MountInputs};
use super::security::{self, ImageUser};
use super::{Settings, SpecError, resources, sandbox};
use crate::cri::{labels, v1};
use crate::devices::DeviceOptions;
use crate::env::expand;
use crate::node::NodeFacts;
use crate::pods;
use crate::volumes::{Mounted, Volumes};

/// What a container is built from besides the Pod.
pub struct ContainerInputs<'a> {
    /// How often it was started before.
    pub restart_count: i32,
    /// Image id, and the user the image asks for.
    pub image: (&'a str, &'a ImageUser),
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// Ready volumes of the Pod.
    pub mounted: &'a Mounted,
    /// For parts of volumes.
    pub volumes: &'a Volumes,
    /// Images of image volumes.
    pub image_volumes: &'a BTreeMap<String, v1::ImageSpec>,
    /// The managed hosts file, unless the container brings its own.
    pub etc_hosts: Option<&'a Path>,
    /// The file for its last words.
    pub termination_log: Option<&'a Path>,
    /// Container whose processes an ephemeral container wants to see.
    pub target_id: Option<String>,
    /// What the node's plugins and managers add.
    pub extras: Extras,
    /// Runtime can make mounts recursively read-only.
    pub recursive_read_only: bool,
    /// Groups that volumes say may use them.
    pub groups: &'a [i64],
    /// User ids.
    pub users: &'a v1::UserNamespace,
    /// Directory with seccomp profiles.
    pub seccomp_dir: &'a Path,
    /// The node.
    pub node: &'a NodeFacts,
    /// Settings of the node.
    pub settings: &'a Settings,
}

/// What a container has for itself.
#[derive(Clone, Debug, Default)]
pub struct Extras {
    /// What device plugins want done.
    pub devices: DeviceOptions,
    /// CDI names of claimed devices.
    pub cdi: Vec<String>,
    /// Processors it may run on, if that is limited.
    pub cpus: Option<String>,
    /// NUMA nodes that its memory comes from, if that is limited.
    pub memory_nodes: Option<String>,
    /// They are its own: no quota.
    pub exclusive: bool,
}

/// Builds it.
pub async fn container_config(
    pod: &Pod,
    container: &Container,
    inputs: ContainerInputs<'_>,
) -> Result<v1::ContainerConfig, SpecError> {
    let mount_inputs = MountInputs {
        mounted: inputs.mounted,
        volumes: inputs.volumes,
        env: &inputs.env,
        images: inputs.image_volumes,
        recursive_read_only: inputs.recursive_read_only,
    };
    let Extras { devices: given, cdi, cpus, memory_nodes, exclusive } = inputs.extras;
    let mut mounts: Vec<v1::Mount> = given.mounts.into_iter().map(plugin_mount).collect();
    let given_mounts = mounts.len();
    mounts.extend(mounts::volume_mounts(pod, container, &mount_inputs).await?);
    mounts.extend(inputs.etc_hosts.map(|path| file_mount(path, "/etc/hosts")));
    let termination_path = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    mounts.extend(inputs.termination_log.map(|path| file_mount(path, termination_path)));
    for mount in mounts.iter_mut().skip(given_mounts) {
        mount.uid_mappings.clone_from(&inputs.users.uids);
        mount.gid_mappings.clone_from(&inputs.users.gids);
    }

    let mut context =
        security::container(pod, container, inputs.image.1, inputs.seccomp_dir, inputs.users, inputs.settings)?;
    context.supplemental_groups.extend_from_slice(inputs.groups);
    if let (Some(target), Some(options)) = (inputs.target_id, context.namespace_options.as_mut())
        && options.pid == v1::NamespaceMode::Container as i32
    {
        options.pid = v1::NamespaceMode::Target as i32;
        options.target_id = target;
    }
    let mut env = inputs.env;
    for (key, value) in given.env {
        env.entry(key).or_insert(value);
    }
    let expanded = |texts: &Option<Vec<String>>| -> Vec<String> {
        texts.iter().flatten().map(|text| expand(text, |name| env.get(name).cloned())).collect()
    };
    let mut devices: Vec<v1::Device> = given.devices.into_iter().map(plugin_device).collect();
    devices.extend(mounts::volume_devices(container, inputs.mounted)?);
    let mut names = given.cdi;
    names.extend(cdi);
    let mut limits = resources::container_resources(pod, container, inputs.node, inputs.settings);
    limits.cpuset_cpus = cpus.unwrap_or_default();
    limits.cpuset_mems = memory_nodes.unwrap_or_default();
    if exclusive {
        limits.cpu_quota = -1;
    }
    let mut notes: HashMap<String, String> = given.annotations.into_iter().collect();
    notes.extend(annotations(pod, container, inputs.restart_count));
    let attempt = u32::try_from(inputs.restart_count).unwrap_or(0);
    Ok(v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: container.name.clone(), attempt }),
        image: Some(v1::ImageSpec {
            image: inputs.image.0.to_owned(),
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..v1::ImageSpec::default()
        }),
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        labels: sandbox::identity(pod)
            .into_iter()
            .chain([(labels::CONTAINER_NAME.to_owned(), container.name.clone())])
            .collect(),
        annotations: notes,
        log_path: format!("{}/{attempt}.log", container.name),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        linux: Some(v1::LinuxContainerConfig { resources: Some(limits), security_context: Some(context) }),
        mounts,
        devices,
        cdi_devices: names.into_iter().map(|name| v1::CdiDevice { name }).collect(),
        envs: env.into_iter().map(|(key, value)| v1::KeyValue { key, value }).collect(),
    })
}

fn plugin_mount(mount: proto::device::Mount) -> v1::Mount {
    v1::Mount {
        container_path: mount.container_path,
        host_path: mount.host_path,
        readonly: mount.read_only,
        ..v1::Mount::default()
    }
}

fn plugin_device(device: proto::device::DeviceSpec) -> v1::Device {
    let proto::device::DeviceSpec { container_path, host_path, permissions } = device;
    v1::Device { container_path, host_path, permissions }
}

fn file_mount(host: &Path, container_path: &str) -> v1::Mount {
    v1::Mount {
        container_path: container_path.to_owned(),
        host_path: host.display().to_string(),
        ..v1::Mount::default()
    }
}

fn annotations(pod: &Pod, container: &Container, restart_count: i32) -> HashMap<String, String> {
    let json = |value: serde_json::Result<String>| value.unwrap_or_default();
    let mut out = HashMap::from([
        (labels::HASH.to_owned(), pods::container_hash(container)),
        (labels::RESTART_COUNT.to_owned(), restart_count.to_string()),
        (
            labels::TERMINATION_PATH.to_owned(),
            container.termination_message_path.clone().unwrap_or_else(|| "/dev/termination-log".to_owned()),
        ),
        (
            labels::TERMINATION_POLICY.to_owned(),
            container.termination_message_policy.clone().unwrap_or_else(|| "File".to_owned()),
        ),
    ]);
    if let Some(ports) = container.ports.as_ref().filter(|ports| !ports.is_empty()) {
        out.insert(labels::PORTS.to_owned(), json(serde_json::to_string(ports)));
    }
    if let Some(hook) = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref()) {
        out.insert(labels::PRE_STOP.to_owned(), json(serde_json::to_string(hook)));
    }
    if let Some(grace) = pods::spec(pod).termination_grace_period_seconds {
        out.insert(labels::GRACE.to_owned(), grace.to_string());
    }
    if let Some(grace) = pod.metadata.deletion_grace_period_seconds {
        out.insert(labels::DELETION_GRACE.to_owned(), grace.to_string());
    }
    out
}
