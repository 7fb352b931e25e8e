//! What the runtime knows about one Pod, in the shape the decisions use.

use std::collections::HashMap;

use super::v1;
use super::{Cri, CriError};

/// Keys that tie runtime objects to Pods.
pub mod labels {
    /// Pod name.
    pub const POD_NAME: &str = "io.kubernetes.pod.name";
    /// Pod namespace.
    pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
    /// Pod UID.
    pub const POD_UID: &str = "io.kubernetes.pod.uid";
    /// Container name.
    pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
    /// Hash over name and image.
    pub const HASH: &str = "io.kubernetes.container.hash";
    /// How often the container was started before.
    pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
    /// Where the container writes its last words.
    pub const TERMINATION_PATH: &str = "io.kubernetes.container.terminationMessagePath";
    /// How its last words are found.
    pub const TERMINATION_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
    /// Container ports as JSON.
    pub const PORTS: &str = "io.kubernetes.container.ports";
    /// preStop hook as JSON, so that a Pod that is known only to the runtime still gets it.
    pub const PRE_STOP: &str = "io.kubernetes.container.preStopHandler";
    /// Grace of the spec.
    pub const GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";
    /// Grace of the deletion.
    pub const DELETION_GRACE: &str = "io.kubernetes.pod.deletionGracePeriod";
}

/// A container's state in the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordState {
    /// Created and not started.
    Created,
    /// Its process runs.
    Running,
    /// Its process ended.
    Exited,
    /// The runtime cannot say.
    Unknown,
}

/// One container record.
#[derive(Clone, Debug)]
pub struct ContainerRecord {
    /// Runtime id.
    pub id: String,
    /// Container name in the Pod.
    pub name: String,
    /// State.
    pub state: RecordState,
    /// Sandbox it lives in.
    pub sandbox_id: String,
    /// Nanoseconds.
    pub created_at: i64,
    /// Nanoseconds.
    pub started_at: i64,
    /// Nanoseconds.
    pub finished_at: i64,
    /// Exit code.
    pub exit_code: i32,
    /// Runtime's reason.
    pub reason: String,
    /// Runtime's message.
    pub message: String,
    /// Image as the runtime reports it.
    pub image: String,
    /// Digest form.
    pub image_ref: String,
    /// How often the container was started before.
    pub restart_count: i32,
    /// Hash over name and image at start.
    pub hash: String,
    /// Where its log is.
    pub log_path: String,
    /// Annotations given at creation.
    pub annotations: HashMap<String, String>,
    /// Limits in force.
    pub resources: Option<v1::LinuxContainerResources>,
    /// Identity of its first process.
    pub user: Option<v1::LinuxContainerUser>,
    /// Mounts.
    pub mounts: Vec<v1::Mount>,
}

/// One sandbox.
#[derive(Clone, Debug)]
pub struct SandboxRecord {
    /// Runtime id.
    pub id: String,
    /// Attempt number.
    pub attempt: u32,
    /// Whether it is usable.
    pub ready: bool,
    /// Nanoseconds.
    pub created_at: i64,
    /// Whether it shares the node's network.
    pub host_network: bool,
    /// Its addresses.
    pub ips: Vec<String>,
    /// Runtime handler.
    pub handler: String,
}

/// Everything the runtime has of one Pod; sandboxes and containers newest first.
#[derive(Clone, Debug, Default)]
pub struct PodView {
    /// Sandboxes, newest first.
    pub sandboxes: Vec<SandboxRecord>,
    /// Containers, newest first.
    pub containers: Vec<ContainerRecord>,
}

impl PodView {
    /// Reads one Pod from the runtime.
    pub async fn read(cri: &Cri, uid: &str) -> Result<Self, CriError> {
        let selector = HashMap::from([(labels::POD_UID.to_owned(), uid.to_owned())]);
        let filter = v1::PodSandboxFilter { label_selector: selector.clone(), ..Default::default() };
        let mut listed = cri.list_pod_sandbox(Some(filter)).await?;
        listed.sort_by_key(|s| std::cmp::Reverse((s.metadata.as_ref().map_or(0, |m| m.attempt), s.created_at)));
        let mut sandboxes = Vec::with_capacity(listed.len());
        for (index, sandbox) in listed.into_iter().enumerate() {
            let status = match cri.pod_sandbox_status(&sandbox.id, false).await {
                Ok(answer) => answer.status,
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(error),
            };
            sandboxes.push(sandbox_record(sandbox, status.unwrap_or_default(), index == 0));
        }
        let filter = v1::ContainerFilter { label_selector: selector, ..Default::default() };
        let mut containers = Vec::new();
        for container in cri.list_containers(Some(filter)).await? {
            match cri.container_status(&container.id, false).await {
                Ok(answer) => containers.push(container_record(container, answer.status.unwrap_or_default())),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        containers.sort_by_key(|c| std::cmp::Reverse(c.created_at));
        Ok(Self { sandboxes, containers })
    }

    /// The newest record of a container.
    pub fn newest(&self, name: &str) -> Option<&ContainerRecord> {
        self.containers.iter().find(|record| record.name == name)
    }

    /// Records of a container, newest first.
    pub fn records<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a ContainerRecord> {
        self.containers.iter().filter(move |record| record.name == name)
    }

    /// The sandbox in use: the newest, if it is ready.
    pub fn active_sandbox(&self) -> Option<&SandboxRecord> {
        self.sandboxes.first().filter(|sandbox| sandbox.ready)
    }

    /// Addresses of the newest sandbox that has any.
    pub fn ips(&self) -> &[String] {
        self.sandboxes.first().map_or(&[], |sandbox| sandbox.ips.as_slice())
    }

    /// Running containers.
    pub fn running(&self) -> impl Iterator<Item = &ContainerRecord> {
        self.containers.iter().filter(|record| record.state == RecordState::Running)
    }
}

impl ContainerRecord {
    /// An annotation as a number of seconds.
    pub fn seconds(&self, key: &str) -> Option<i64> {
        self.annotations.get(key)?.parse().ok()
    }
}

fn sandbox_record(listed: v1::PodSandbox, status: v1::PodSandboxStatus, newest: bool) -> SandboxRecord {
    let mode = status
        .linux
        .and_then(|linux| linux.namespaces)
        .and_then(|namespaces| namespaces.options)
        .map_or(v1::NamespaceMode::Pod as i32, |options| options.network);
    let mut ips = Vec::new();
    if let Some(network) = status.network.filter(|_| newest) {
        let all = std::iter::once(network.ip).chain(network.additional_ips.into_iter().map(|ip| ip.ip));
        ips.extend(all.filter(|ip| ip.parse::<std::net::IpAddr>().is_ok()));
    }
    SandboxRecord {
        id: listed.id,
        attempt: listed.metadata.map_or(0, |metadata| metadata.attempt),
        ready: status.state == v1::PodSandboxState::SandboxReady as i32,
        created_at: listed.created_at,
        host_network: mode == v1::NamespaceMode::Node as i32,
        ips,
        handler: listed.runtime_handler,
    }
}

fn container_record(listed: v1::Container, status: v1::ContainerStatus) -> ContainerRecord {
    let name = listed.labels.get(labels::CONTAINER_NAME).cloned().unwrap_or_default();
    let annotation = |key: &str| status.annotations.get(key).cloned().unwrap_or_default();
    let attempt = status.metadata.as_ref().map_or(0, |metadata| metadata.attempt);
    ContainerRecord {
        name,
        state: match v1::ContainerState::try_from(status.state) {
            Ok(v1::ContainerState::ContainerCreated) => RecordState::Created,
            Ok(v1::ContainerState::ContainerRunning) => RecordState::Running,
            Ok(v1::ContainerState::ContainerExited) => RecordState::Exited,
            Ok(v1::ContainerState::ContainerUnknown) | Err(_) => RecordState::Unknown,
        },
        sandbox_id: listed.pod_sandbox_id,
        created_at: status.created_at,
        started_at: status.started_at,
        finished_at: status.finished_at,
        exit_code: status.exit_code,
        restart_count: annotation(labels::RESTART_COUNT)
            .parse()
            .unwrap_or_else(|_| i32::try_from(attempt).unwrap_or(i32::MAX)),
        hash: annotation(labels::HASH),
        reason: status.reason,
        message: status.message,
        image: status.image.map(|image| image.image).unwrap_or_default(),
        image_ref: status.image_ref,
        log_path: status.log_path,
        resources: status.resources.and_then(|resources| resources.linux),
        user: status.user.and_then(|user| user.linux),
        mounts: status.mounts,
        annotations: status.annotations,
        id: listed.id,
    }
}
