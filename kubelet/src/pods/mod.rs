//! Reading a Pod: identity, kind of source, containers and their roles.

pub mod quantity;
pub mod resources;
pub mod selector;

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec};

/// Annotation with the source a Pod came from (`file`, `http`, `api`).
pub const CONFIG_SOURCE: &str = "kubernetes.io/config.source";
/// Annotation with the hash of a static Pod's manifest.
pub const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// Annotation that marks the API's copy of a static Pod.
pub const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";
/// Annotation with the time a Pod was first seen.
pub const CONFIG_SEEN: &str = "kubernetes.io/config.seen";

/// From this priority on a Pod is critical.
pub const SYSTEM_CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// Which list of the Pod a container stands in, with sidecars told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Runs to completion before the regular containers.
    Init,
    /// An init container that keeps running (`restartPolicy: Always`).
    Sidecar,
    /// An ordinary container.
    Regular,
    /// Added for debugging; never restarted.
    Ephemeral,
}

impl Role {
    /// The list's field name, as events name it.
    pub fn field(self) -> &'static str {
        match self {
            Self::Init | Self::Sidecar => "spec.initContainers",
            Self::Regular => "spec.containers",
            Self::Ephemeral => "spec.ephemeralContainers",
        }
    }

    /// The value of the metric label `container_type`.
    pub fn metric(self) -> &'static str {
        match self {
            Self::Init | Self::Sidecar => "init_container",
            Self::Regular => "container",
            Self::Ephemeral => "ephemeral_container",
        }
    }
}

/// The Pod's UID, empty if it has none.
pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// The Pod's name.
pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// The Pod's namespace.
pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

/// `<name>_<namespace>`, which identifies a static Pod over its manifests' versions.
pub fn full_name(pod: &Pod) -> String {
    format!("{}_{}", name(pod), namespace(pod))
}

/// `<name>_<namespace>(<uid>)`, as log lines and messages name a Pod.
pub fn describe(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

/// An annotation's value.
pub fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// Whether the Pod comes from a manifest on this node.
pub fn is_static(pod: &Pod) -> bool {
    annotation(pod, CONFIG_SOURCE).is_some_and(|source| source != "api")
}

/// Whether the Pod is the API's copy of a static Pod.
pub fn is_mirror(pod: &Pod) -> bool {
    annotation(pod, CONFIG_MIRROR).is_some()
}

/// Whether the Pod must run even when resources are short.
pub fn is_critical(pod: &Pod) -> bool {
    is_static(pod) || is_mirror(pod) || priority(pod) >= SYSTEM_CRITICAL_PRIORITY
}

/// `system-node-critical` Pods get the protection of Guaranteed ones.
pub fn is_node_critical(pod: &Pod) -> bool {
    spec(pod).priority_class_name.as_deref() == Some("system-node-critical") && is_critical(pod)
}

/// The Pod's priority, 0 if unset.
pub fn priority(pod: &Pod) -> i32 {
    spec(pod).priority.unwrap_or(0)
}

/// The Pod's spec; a Pod without one has no containers and every default.
pub fn spec(pod: &Pod) -> &PodSpec {
    static EMPTY: std::sync::OnceLock<PodSpec> = std::sync::OnceLock::new();
    pod.spec.as_ref().unwrap_or_else(|| EMPTY.get_or_init(PodSpec::default))
}

/// The phase in the given copy.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Succeeded or Failed.
pub fn is_terminal_phase(phase: &str) -> bool {
    matches!(phase, "Succeeded" | "Failed")
}

/// Whether the API asked for the Pod's deletion.
pub fn is_deleting(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Whether the Pod lives in the node's network namespace.
pub fn host_network(pod: &Pod) -> bool {
    spec(pod).host_network.unwrap_or(false)
}

/// The Pod-wide restart policy.
pub fn restart_policy(pod: &Pod) -> &str {
    spec(pod).restart_policy.as_deref().unwrap_or("Always")
}

/// Grace for stopping when nobody shortened it.
pub fn termination_grace(pod: &Pod) -> i64 {
    pod.metadata.deletion_grace_period_seconds.or(spec(pod).termination_grace_period_seconds).unwrap_or(30)
}

/// Whether an init container is a sidecar.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Whether a container ends before the regular ones start.
pub fn ends_before_others(pod: &Pod, container: &Container) -> bool {
    init_containers(pod).iter().any(|init| init.name == container.name) && !is_sidecar(container)
}

/// The init containers in order.
pub fn init_containers(pod: &Pod) -> &[Container] {
    spec(pod).init_containers.as_deref().unwrap_or_default()
}

/// The regular containers in order.
pub fn containers(pod: &Pod) -> &[Container] {
    &spec(pod).containers
}

/// The ephemeral containers in order.
pub fn ephemeral_containers(pod: &Pod) -> &[EphemeralContainer] {
    spec(pod).ephemeral_containers.as_deref().unwrap_or_default()
}

/// The role an init container plays.
pub fn init_role(container: &Container) -> Role {
    if is_sidecar(container) { Role::Sidecar } else { Role::Init }
}

/// Init, regular and ephemeral containers with their roles.
pub fn all_containers(pod: &Pod) -> impl Iterator<Item = (Cow<'_, Container>, Role)> {
    init_containers(pod)
        .iter()
        .map(|container| (Cow::Borrowed(container), init_role(container)))
        .chain(containers(pod).iter().map(|container| (Cow::Borrowed(container), Role::Regular)))
        .chain(ephemeral_containers(pod).iter().map(|container| (Cow::Owned(as_container(container)), Role::Ephemeral)))
}

/// The container of that name and its role.
pub fn find_container<'a>(pod: &'a Pod, name: &str) -> Option<(Cow<'a, Container>, Role)> {
    all_containers(pod).find(|(container, _)| container.name == name)
}

/// The fields an ephemeral container shares with the others.
pub fn as_container(from: &EphemeralContainer) -> Container {
    Container {
        args: from.args.clone(),
        command: from.command.clone(),
        env: from.env.clone(),
        env_from: from.env_from.clone(),
        image: from.image.clone(),
        image_pull_policy: from.image_pull_policy.clone(),
        lifecycle: from.lifecycle.clone(),
        liveness_probe: from.liveness_probe.clone(),
        name: from.name.clone(),
        ports: from.ports.clone(),
        readiness_probe: from.readiness_probe.clone(),
        resize_policy: from.resize_policy.clone(),
        resources: from.resources.clone(),
        restart_policy: from.restart_policy.clone(),
        restart_policy_rules: from.restart_policy_rules.clone(),
        security_context: from.security_context.clone(),
        startup_probe: from.startup_probe.clone(),
        stdin: from.stdin,
        stdin_once: from.stdin_once,
        termination_message_path: from.termination_message_path.clone(),
        termination_message_policy: from.termination_message_policy.clone(),
        tty: from.tty,
        volume_devices: from.volume_devices.clone(),
        volume_mounts: from.volume_mounts.clone(),
        working_dir: from.working_dir.clone(),
    }
}

/// Hash of the fields that, when changed, make a running container start again.
pub fn container_hash(container: &Container) -> String {
    let text = serde_json::json!({ "image": container.image.as_deref().unwrap_or_default(), "name": container.name });
    let hash =
        text.to_string().bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{hash:x}")
}
