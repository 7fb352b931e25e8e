//! What the Node object says, computed.

use std::collections::BTreeMap;
use std::fs;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeFeatures, NodeRuntimeHandler,
    NodeRuntimeHandlerFeatures, NodeStatus, NodeSwapStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{NodeFacts, machine};
use crate::cri::v1;
use crate::pods::quantity;
use crate::status::whole_second;

const MAX_NAMES: usize = 5;

/// Pressure on the node's resources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Memory runs out.
    pub memory: bool,
    /// Disk runs out.
    pub disk: bool,
    /// Process ids run out.
    pub pid: bool,
}

/// The present pressure.
#[derive(Debug, Default)]
pub struct SharedPressure(parking_lot::RwLock<Pressure>);

impl SharedPressure {
    /// The present pressure.
    pub fn get(&self) -> Pressure {
        *self.0.read()
    }

    /// Changes it.
    pub fn set(&self, pressure: Pressure) {
        *self.0.write() = pressure;
    }
}

/// Everything the status is computed from.
pub struct StatusInput<'a> {
    /// Facts.
    pub facts: &'a NodeFacts,
    /// The status before.
    pub previous: &'a NodeStatus,
    /// Features that the Node declares.
    pub declared: Option<&'a [&'static str]>,
    /// What keeps the node from being ready.
    pub errors: &'a [String],
    /// Pressure.
    pub pressure: Pressure,
    /// `containerd://1.6.20`
    pub runtime_version: &'a str,
    /// Devices of plugins: all and usable.
    pub devices: BTreeMap<String, (usize, usize)>,
    /// Volumes to be left attached.
    pub volumes_in_use: Vec<String>,
    /// Images, biggest first, already limited.
    pub images: Vec<ContainerImage>,
    /// Runtime handlers and features.
    pub runtime: (Vec<v1::RuntimeHandler>, Option<v1::RuntimeFeatures>),
    /// Port of the kubelet's server.
    pub port: u16,
    /// Addresses are a cloud provider's business.
    pub external_cloud: bool,
    /// Now.
    pub now: Timestamp,
}

/// Computes it; parts that others own are kept.
pub fn compute(input: StatusInput<'_>) -> NodeStatus {
    let mut status = input.previous.clone();
    if !input.external_cloud {
        status.addresses = Some(addresses(input.facts));
    }
    let keep = status.capacity.take().unwrap_or_default().into_iter().filter(|(name, _)| name.contains('/'));
    let (mut capacity, mut allocatable) = (input.facts.capacity.clone(), input.facts.allocatable.clone());
    for (name, amount) in keep {
        allocatable.insert(name.clone(), amount.clone());
        capacity.insert(name, amount);
    }
    for (name, (all, usable)) in input.devices {
        let amount = |count: usize| quantity::from_count(i64::try_from(count).unwrap_or(i64::MAX));
        allocatable.insert(name.clone(), amount(usable));
        capacity.insert(name, amount(all));
    }
    status.capacity = Some(capacity);
    status.allocatable = Some(allocatable);
    status.daemon_endpoints =
        Some(NodeDaemonEndpoints { kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(input.port) }) });
    status.node_info = Some(system_info(input.runtime_version));
    status.volumes_in_use = (!input.volumes_in_use.is_empty()).then_some(input.volumes_in_use);
    status.images = (!input.images.is_empty()).then_some(input.images);
    let (handlers, features) = input.runtime;
    status.runtime_handlers = (!handlers.is_empty()).then(|| runtime_handlers(handlers));
    status.features =
        features.map(|features| NodeFeatures { supplemental_groups_policy: Some(features.supplemental_groups_policy) });
    status.declared_features = input.declared.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
    let conditions = conditions(input.previous, input.errors, input.pressure, input.now);
    status.conditions = Some(conditions);
    status
}

fn runtime_handlers(handlers: Vec<v1::RuntimeHandler>) -> Vec<NodeRuntimeHandler> {
    let mut out: Vec<NodeRuntimeHandler> = handlers
        .into_iter()
        .map(|handler| NodeRuntimeHandler {
            name: Some(handler.name),
            features: handler.features.map(|features| NodeRuntimeHandlerFeatures {
                recursive_read_only_mounts: Some(features.recursive_read_only_mounts),
                user_namespaces: Some(features.user_namespaces),
            }),
        })
        .collect();
    out.sort_by(|a, b| a.name.cmp(&b.name));
    out
}

/// Internal addresses, the host name last.
pub fn addresses(facts: &NodeFacts) -> Vec<NodeAddress> {
    let internal =
        facts.addresses.iter().map(|ip| NodeAddress { type_: "InternalIP".to_owned(), address: ip.to_string() });
    let host = NodeAddress { type_: "Hostname".to_owned(), address: facts.name.clone() };
    internal.chain([host]).collect()
}

/// Facts about the system.
pub fn system_info(runtime_version: &str) -> NodeSystemInfo {
    let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    let swap = machine::swap_bytes();
    let machine_id = read("/etc/machine-id");
    let product = read("/sys/class/dmi/id/product_uuid").to_lowercase();
    NodeSystemInfo {
        architecture: architecture().to_owned(),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: runtime_version.to_owned(),
        kernel_version: read("/proc/sys/kernel/osrelease"),
        kube_proxy_version: String::new(),
        kubelet_version: runtime::version::GIT_VERSION.to_owned(),
        operating_system: "linux".to_owned(),
        os_image: os_image(),
        swap: (swap > 0).then_some(NodeSwapStatus { capacity: Some(swap) }),
        system_uuid: if product.is_empty() { machine_id.clone() } else { product },
        machine_id,
    }
}

/// The machine's architecture as container images name it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

fn os_image() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    value.map_or("Unknown".to_owned(), |value| value.trim_matches('"').to_owned())
}

/// Images as the Node lists them: biggest first, a few names each, digests before tags.
pub fn images(all: Vec<v1::Image>, max: i32) -> Vec<ContainerImage> {
    let mut out: Vec<ContainerImage> = all
        .into_iter()
        .map(|image| ContainerImage {
            names: Some(image.repo_digests.into_iter().chain(image.repo_tags).take(MAX_NAMES).collect()),
            size_bytes: i64::try_from(image.size).ok(),
        })
        .collect();
    out.sort_by(|a, b| b.size_bytes.cmp(&a.size_bytes).then_with(|| a.names.cmp(&b.names)));
    if let Ok(max) = usize::try_from(max) {
        out.truncate(max);
    }
    out
}

fn conditions(previous: &NodeStatus, errors: &[String], pressure: Pressure, now: Timestamp) -> Vec<NodeCondition> {
    let old = previous.conditions.as_deref().unwrap_or_default();
    let pressures = [
        (
            "MemoryPressure",
            pressure.memory,
            ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
            ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ),
        (
            "DiskPressure",
            pressure.disk,
            ("KubeletHasDiskPressure", "kubelet has disk pressure"),
            ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ),
        (
            "PIDPressure",
            pressure.pid,
            ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
            ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ),
    ];
    let mut out: Vec<NodeCondition> = pressures
        .into_iter()
        .map(|(type_, is_on, on, off)| {
            let (reason, message) = if is_on { on } else { off };
            condition(old, type_, is_on, reason, message.to_owned(), now)
        })
        .collect();
    let ready = match errors {
        [] => condition(old, "Ready", true, "KubeletReady", "kubelet is posting ready status".to_owned(), now),
        [one] => condition(old, "Ready", false, "KubeletNotReady", one.clone(), now),
        many => condition(old, "Ready", false, "KubeletNotReady", format!("[{}]", many.join(", ")), now),
    };
    out.push(ready);
    let own: Vec<String> = out.iter().map(|condition| condition.type_.clone()).collect();
    let mut all: Vec<NodeCondition> = old.iter().filter(|condition| !own.contains(&condition.type_)).cloned().collect();
    all.extend(out);
    all
}

fn condition(
    old: &[NodeCondition],
    type_: &str,
    is_true: bool,
    reason: &str,
    message: String,
    now: Timestamp,
) -> NodeCondition {
    let status = if is_true { "True" } else { "False" };
    let now = Time(whole_second(now));
    let before = old.iter().find(|condition| condition.type_ == type_ && condition.status == status);
    NodeCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_heartbeat_time: Some(now.clone()),
        last_transition_time: before.and_then(|before| before.last_transition_time.clone()).or(Some(now)),
    }
}

/// Whether two statuses differ in more than heartbeat times.
pub fn differs(a: &NodeStatus, b: &NodeStatus) -> bool {
    let without = |status: &NodeStatus| {
        let mut copy = status.clone();
        copy.conditions.iter_mut().flatten().for_each(|condition| condition.last_heartbeat_time = None);
        copy
    };
    without(a) != without(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(previous: &NodeStatus, errors: &[String], at: i64) -> NodeStatus {
        let facts =
            NodeFacts { name: "n".into(), addresses: vec!["10.0.0.1".parse().unwrap()], ..NodeFacts::default() };
        compute(StatusInput {
            facts: &facts,
            previous,
            errors,
            pressure: Pressure::default(),
            runtime_version: "containerd://1.6",
            devices: [("x/y".to_owned(), (3, 2))].into(),
            volumes_in_use: Vec::new(),
            images: Vec::new(),
            runtime: (Vec::new(), None),
            port: 10250,
            external_cloud: false,
            declared: Some(&["F"]),
            now: Timestamp::from_second(at).unwrap(),
        })
    }

    #[test]
    fn heartbeats_are_not_changes() {
        let first = status(&NodeStatus::default(), &[], 100);
        assert_eq!(first.capacity.as_ref().unwrap()["x/y"].0, "3");
        assert_eq!(first.allocatable.as_ref().unwrap()["x/y"].0, "2");
        let second = status(&first, &[], 200);
        assert!(!differs(&first, &second));
        let types: Vec<&str> = first.conditions.as_ref().unwrap().iter().map(|c| c.type_.as_str()).collect();
        assert_eq!(types, ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"]);
        let broken = status(&second, &["a".into(), "b".into()], 300);
        assert!(differs(&second, &broken));
        let ready = broken.conditions.as_ref().unwrap().last().unwrap();
        assert_eq!((ready.status.as_str(), ready.message.as_deref()), ("False", Some("[a, b]")));
        assert_eq!(ready.last_transition_time.as_ref().unwrap().0.as_second(), 300);
    }
}
