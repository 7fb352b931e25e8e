//! The sandbox's configuration.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use k8s_openapi::api::core::v1::Pod;

use super::{Settings, SpecError, security};
use crate::cri::{labels, v1};
use crate::net;
use crate::platform::CgroupName;
use crate::pods;
use crate::pods::resources::{self, Effective, Qos};

/// What a sandbox is built from besides the Pod.
pub struct SandboxInputs<'a> {
    /// Attempt number.
    pub attempt: u32,
    /// Directory of the Pod's logs.
    pub log_directory: &'a Path,
    /// Resolver configuration.
    pub dns: v1::DnsConfig,
    /// Groups that volumes say may use them.
    pub groups: &'a [i64],
    /// User ids.
    pub users: &'a v1::UserNamespace,
    /// Settings of the node.
    pub settings: &'a Settings,
}

/// The group of a Pod.
pub fn pod_cgroup(pod: &Pod, settings: &Settings) -> CgroupName {
    let parent = match resources::qos(pod) {
        _ if !settings.cgroups_per_qos => return settings.pods_root.clone(),
        Qos::Guaranteed => settings.pods_root.clone(),
        Qos::Burstable => settings.pods_root.child("burstable"),
        Qos::BestEffort => settings.pods_root.child("besteffort"),
    };
    parent.child(&format!("pod{}", pods::uid(pod)))
}

/// Builds it.
pub fn sandbox_config(pod: &Pod, inputs: SandboxInputs<'_>) -> Result<v1::PodSandboxConfig, SpecError> {
    let settings = inputs.settings;
    let hostname = if pods::host_network(pod) {
        String::new()
    } else {
        net::kernel_hostname(pod, &settings.dns.domain).map_err(|error| SpecError::new(error.to_string()))?
    };
    let mut labels: HashMap<String, String> = pod.metadata.labels.clone().unwrap_or_default().into_iter().collect();
    labels.extend(identity(pod));
    Ok(v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: pods::name(pod).to_owned(),
            uid: pods::uid(pod).to_owned(),
            namespace: pods::namespace(pod).to_owned(),
            attempt: inputs.attempt,
        }),
        hostname,
        log_directory: inputs.log_directory.display().to_string(),
        dns_config: Some(inputs.dns),
        port_mappings: port_mappings(pod),
        labels,
        annotations: pod.metadata.annotations.clone().unwrap_or_default().into_iter().collect(),
        linux: Some(linux(pod, inputs.users, inputs.groups, settings)),
    })
}

/// The labels that tie runtime objects to a Pod.
pub(super) fn identity(pod: &Pod) -> [(String, String); 3] {
    [
        (labels::POD_NAME, pods::name(pod)),
        (labels::POD_NAMESPACE, pods::namespace(pod)),
        (labels::POD_UID, pods::uid(pod)),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
}

fn linux(pod: &Pod, users: &v1::UserNamespace, groups: &[i64], settings: &Settings) -> v1::LinuxPodSandboxConfig {
    let mut own = security::sandbox(pod, users);
    security::add_groups_to_sandbox(pod, &mut own, groups);
    let context = pods::spec(pod).security_context.as_ref();
    let sysctls = context.into_iter().flat_map(|context| context.sysctls.iter().flatten());
    let (overhead, resources) = pod_amounts(pod, settings);
    v1::LinuxPodSandboxConfig {
        cgroup_parent: pod_cgroup(pod, settings).path(settings.driver),
        security_context: Some(own),
        sysctls: sysctls.map(|sysctl| (sysctl.name.replace('/', "."), sysctl.value.clone())).collect(),
        overhead,
        resources: Some(resources),
    }
}

/// What the runtime is told of the Pod's overhead, and of the sum of its containers.
pub fn pod_amounts(
    pod: &Pod,
    settings: &Settings,
) -> (Option<v1::LinuxContainerResources>, v1::LinuxContainerResources) {
    let sums = Effective::of(pod);
    let amounts = |cpu: i64, cpu_limit: Option<i64>, memory: Option<i64>| v1::LinuxContainerResources {
        cpu_period: settings.cpu_period,
        cpu_shares: resources::shares(cpu),
        cpu_quota: resources::quota(cpu_limit.unwrap_or(0), settings.cpu_period),
        memory_limit_in_bytes: memory.unwrap_or(0),
        ..v1::LinuxContainerResources::default()
    };
    let overhead = pods::spec(pod).overhead.is_some().then(|| {
        let cpu = sums.overhead("cpu");
        amounts(cpu, Some(cpu), Some(sums.overhead("memory")))
    });
    let without = |name: &str| sums.limit(name).map(|limit| limit - sums.overhead(name));
    (overhead, amounts(sums.request_without_overhead("cpu"), without("cpu"), without("memory")))
}

/// Every port of every regular container, each once.
fn port_mappings(pod: &Pod) -> Vec<v1::PortMapping> {
    let mut out = Vec::new();
    for container in
        pods::containers(pod).iter().chain(pods::init_containers(pod).iter().filter(|c| pods::is_sidecar(c)))
    {
        let mut seen = BTreeSet::new();
        for port in container.ports.iter().flatten() {
            let protocol = match port.protocol.as_deref() {
                Some("UDP") => v1::Protocol::Udp,
                Some("SCTP") => v1::Protocol::Sctp,
                _ => v1::Protocol::Tcp,
            };
            let host_ip = port.host_ip.clone().unwrap_or_default();
            let host_port = port.host_port.unwrap_or(0);
            let key = match port.name.as_deref().filter(|name| !name.is_empty()) {
                Some(name) => format!("{}-{name}", container.name),
                None => {
                    let family = if host_ip.contains(':') { "v6" } else { "v4" };
                    format!("{family}-{}-{host_ip}-{}-{host_port}", protocol.as_str_name(), port.container_port)
                }
            };
            if seen.insert(key) {
                let container_port = port.container_port;
                out.push(v1::PortMapping { protocol: protocol as i32, container_port, host_port, host_ip });
            }
        }
    }
    out
}
