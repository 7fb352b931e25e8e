//! The checks and the groups they run in.

use std::{net::IpAddr, path::Path};

use super::{Findings, cgroups, kernel, name_of};
use ipnet::IpNet;

use crate::{
    config::{ClusterConfiguration, ExternalEtcd, version::Version},
    constants::{BOOTSTRAP_KUBELET_CONF, KUBELET_CONF, MANIFESTS_DIR},
    cri::Cri,
    etcd,
    host::{Host, PathKind, Program},
    images::{Image, supply::Supply},
    manifests,
};

/// Least memory of a control plane, in MB.
const MEMORY: u64 = 1700;

/// What the checks look at.
pub struct Subject<'a> {
    /// This host.
    pub host: &'a dyn Host,
    /// Name of the node.
    pub node: &'a str,
    /// The container runtime.
    pub cri: &'a Cri,
    /// Directory of the installed programs.
    pub programs: &'a Path,
}

/// The check that goes before all others.
pub fn privileged(host: &dyn Host) -> Findings {
    Findings::of("IsPrivilegedUser").error_if(!host.is_root(), || "user is not running as root".into())
}

/// Checks of a new control plane: before its node's own ones, those, and after them.
pub async fn init(subject: &Subject<'_>, cluster: &ClusterConfiguration, bind_port: i32) -> Vec<Findings> {
    let mut found = control_plane(subject, cluster, bind_port).await;
    found.extend(node(subject).await);
    found.extend(networks(&cluster.networking.service_subnet).into_iter().map(|v6| forwarding(subject.host, v6)));
    found
}

/// Checks of what a control plane needs beside those of every node.
pub async fn control_plane(subject: &Subject<'_>, cluster: &ClusterConfiguration, bind_port: i32) -> Vec<Findings> {
    let host = subject.host;
    let mut found =
        vec![processors(host), memory(host), kubernetes_version(cluster), firewall(host, &[bind_port, 10250])];
    found.extend([bind_port, 10259, 10257].map(|port| port_is_free(host, port)));
    for name in ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd"] {
        found.push(file_is_free(host, &manifests::path(name).to_string_lossy()));
    }
    found.push(proxied(host, cluster, bind_port));
    found.push(proxied_networks(host, cluster));
    found.push(kubelet_version(subject, Some(&cluster.kubernetes_version)));
    if cluster.has_local_etcd() {
        found.extend([2379, 2380].map(|port| port_is_free(host, port)));
        found.push(directory_is_empty(host, &cluster.local_etcd().data_dir));
    }
    if let Some(external) = &cluster.etcd.external {
        let mut certificates = Findings::of("ExternalEtcdClientCertificates");
        for file in [&external.ca_file, &external.cert_file, &external.key_file] {
            let absent = !file.is_empty() && !host.exists(Path::new(file));
            certificates = certificates.error_if(absent, || format!("{file} doesn't exist"));
        }
        found.push(certificates);
        found.push(external_etcd_version(host, external).await);
    }
    found
}

/// The version that an external etcd says it has.
async fn external_etcd_version(host: &dyn Host, external: &ExternalEtcd) -> Findings {
    let mut found = Findings::of("ExternalEtcdVersion");
    for endpoint in &external.http_endpoints {
        let text = match etcd::version(host, external, endpoint).await {
            Ok(text) => text,
            Err(cause) => {
                found = found.error(format!("couldn't get the version of external etcd {endpoint:?}: {cause}"));
                continue;
            }
        };
        let old = Version::parse(&text).is_none_or(|version| version.numbers < [3, 5, 24]);
        found = found.error_if(old, || {
            format!("this version of kubeadm only supports external etcd version >= 3.5.24-0. Current version: {text}")
        });
    }
    found
}

/// Warns when Pods or Services would be reached by way of a proxy.
fn proxied_networks(host: &dyn Host, cluster: &ClusterConfiguration) -> Findings {
    let mut found = Findings::of("HTTPProxyCIDR");
    let proxies = host.proxy_variables();
    let value = |name: &str| proxies.iter().find(|(n, _)| n.to_lowercase() == name).map(|(_, v)| v.clone());
    let Some(proxy) = value("https_proxy").or_else(|| value("http_proxy")) else { return found };
    let exempt = value("no_proxy").unwrap_or_default();
    let networks = [&cluster.networking.service_subnet, &cluster.networking.pod_subnet];
    for network in networks.iter().flat_map(|list| list.split(',')).filter_map(|n| n.parse::<IpNet>().ok()) {
        let covered = exempt.split(',').filter_map(|n| n.trim().parse::<IpNet>().ok()).any(|n| n.contains(&network));
        found = found.warning_if(!covered, || {
            format!(
                "connection to \"{network}\" uses proxy {proxy:?}. This may lead to malfunctional cluster setup. Make \
                 sure that Pod and Services IP ranges specified correctly as exceptions in proxy configuration"
            )
        });
    }
    found
}

/// Checks of a host that joins as a worker. `endpoint` is the host of the API server.
pub async fn worker(subject: &Subject<'_>, ca_path: &str, endpoint: Option<&str>) -> Vec<Findings> {
    let host = subject.host;
    let manifests = Path::new(MANIFESTS_DIR);
    let mut found = vec![if host.list(manifests).is_ok_and(|entries| !entries.is_empty()) {
        directory_is_empty(host, MANIFESTS_DIR)
    } else {
        Findings::of(name_of("DirAvailable", MANIFESTS_DIR))
    }];
    found.push(file_is_free(host, KUBELET_CONF));
    found.push(file_is_free(host, BOOTSTRAP_KUBELET_CONF));
    if !ca_path.is_empty() {
        found.push(file_is_free(host, ca_path));
    }
    found.extend(node(subject).await);
    found.push(kubelet_version(subject, None));
    if let Some(address) = endpoint.and_then(|host| host.parse::<IpAddr>().ok()) {
        found.push(forwarding(host, address.is_ipv6()));
    }
    found
}

/// Checks of every node.
async fn node(subject: &Subject<'_>) -> Vec<Findings> {
    let host = subject.host;
    let mut found = runtime(subject.cri).await;
    found.push(swap(host));
    for program in ["losetup", "mount", "cp"] {
        let absent = host.find_program(program).is_none();
        found.push(
            Findings::of(format!("FileExisting-{program}"))
                .error_if(absent, || format!("{program} not found in system path")),
        );
    }
    found.push(system(host));
    found.push(hostname(host, subject.node));
    found.push(service(host));
    found.push(port_is_free(host, 10250));
    found.push(bridged(host));
    found
}

/// What of the kernel and its cgroups the kubelet needs.
pub fn system(host: &dyn Host) -> Findings {
    cgroups::check(host, kernel::check(host, Findings::of("SystemVerification")))
}

/// Bridged Pods reach Services only when their traffic passes iptables.
fn bridged(host: &dyn Host) -> Findings {
    let path = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    let found = Findings::of(name_of("FileContent", path));
    match host.read_text(Path::new(path)) {
        Err(_) => found.warning(format!("{path} does not exist; load the kernel module br_netfilter")),
        Ok(text) => found.warning_if(text.trim() != "1", || format!("{path} contents are not set to 1")),
    }
}

async fn runtime(cri: &Cri) -> Vec<Findings> {
    let mut check = Findings::of("CRI");
    if let Err(error) = cri.check().await {
        check = check.error(error.to_string());
        return vec![check];
    }
    vec![check, runtime_version(cri).await]
}

/// Whether the runtime is new enough to tell its cgroup driver.
pub async fn runtime_version(cri: &Cri) -> Findings {
    Findings::of("ContainerRuntimeVersion").warning_if(!cri.tells_configuration().await, || {
        "You must update your container runtime to a version that supports the CRI method RuntimeConfig. Falling back to \
         using cgroupDriver from kubelet config will be removed in 1.37. For more information, see \
         https://git.k8s.io/enhancements/keps/sig-node/4033-group-driver-detection-over-cri"
            .into()
    })
}

fn processors(host: &dyn Host) -> Findings {
    let count = host.processors();
    Findings::of("NumCPU")
        .error_if(count < 2, || format!("the number of available CPUs {count} is less than the required 2"))
}

fn memory(host: &dyn Host) -> Findings {
    let text = host.read_text(Path::new("/proc/meminfo")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib: u64 = line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0);
    let megabytes = kib * 1024 / 1_000_000;
    Findings::of("Mem").error_if(megabytes < MEMORY, || {
        format!("the system RAM ({megabytes} MB) is less than the minimum {MEMORY} MB")
    })
}

fn kubernetes_version(cluster: &ClusterConfiguration) -> Findings {
    let own = Version::own();
    let newer = Version::parse(&cluster.kubernetes_version).is_some_and(|v| v.minor() > own.minor());
    Findings::of("KubernetesVersion").warning_if(newer, || {
        format!(
            "Kubernetes version is greater than kubeadm version. Please consider to upgrade kubeadm. Kubernetes version: \
             {}. Kubeadm version: {}.{}.x",
            cluster.kubernetes_version.trim_start_matches('v'),
            own.minor().0,
            own.minor().1
        )
    })
}

fn firewall(host: &dyn Host, ports: &[i32]) -> Findings {
    let active = host.has_systemd()
        && host.run(&Program::new("systemctl", ["is-active", "firewalld"])).is_ok_and(|ended| ended.success());
    let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
    Findings::of("Firewalld").warning_if(active, || {
        format!(
            "firewalld is active, please ensure ports [{}] are open or your cluster may not function correctly",
            ports.join(" ")
        )
    })
}

fn port_is_free(host: &dyn Host, port: i32) -> Findings {
    let free = u16::try_from(port).is_ok_and(|port| host.port_is_free(port));
    Findings::of(format!("Port-{port}")).error_if(!free, || format!("Port {port} is in use"))
}

fn file_is_free(host: &dyn Host, path: &str) -> Findings {
    Findings::of(name_of("FileAvailable", path))
        .error_if(host.exists(Path::new(path)), || format!("{path} already exists"))
}

fn directory_is_empty(host: &dyn Host, path: &str) -> Findings {
    let full = host.list(Path::new(path)).is_ok_and(|entries| !entries.is_empty());
    Findings::of(name_of("DirAvailable", path)).error_if(full, || format!("{path} is not empty"))
}

/// Warns when the cluster would be reached by way of a proxy.
fn proxied(host: &dyn Host, cluster: &ClusterConfiguration, bind_port: i32) -> Findings {
    let proxies = host.proxy_variables();
    let value = |name: &str| proxies.iter().find(|(n, _)| n.to_lowercase() == name).map(|(_, v)| v.clone());
    let exempt = value("no_proxy").unwrap_or_default();
    let (target, _) = crate::config::split_host_port(&cluster.control_plane_endpoint);
    let covered = exempt.split(',').any(|entry| !entry.is_empty() && (entry == "*" || target.ends_with(entry.trim())));
    let proxy = value("https_proxy").filter(|_| !target.is_empty() && !covered);
    let text = proxy.map(|proxy| {
        format!(
            "Connection to \"https://{target}:{bind_port}\" uses proxy {proxy:?}. If that is not intended, adjust your \
             proxy settings"
        )
    });
    let found = Findings::of("HTTPProxy");
    match text {
        Some(text) => found.warning(text),
        None => found,
    }
}

fn swap(host: &dyn Host) -> Findings {
    let table = host.read_text(Path::new("/proc/swaps")).unwrap_or_default();
    let on = table.lines().count() > 1;
    Findings::of("Swap").warning_if(on, || {
        "swap is supported for cgroup v2 only. The kubelet must be properly configured to use swap. Please refer to \
         https://kubernetes.io/docs/concepts/architecture/nodes/#swap-memory, or disable swap on the node"
            .into()
    })
}

fn hostname(host: &dyn Host, node: &str) -> Findings {
    let mut found = Findings::of("Hostname");
    for problem in machinery::names::dns1123_subdomain(node) {
        found = found.warning(format!("nodeRegistration.name: {problem}"));
    }
    match host.resolve(node) {
        Ok(addresses) if !addresses.is_empty() => found,
        other => {
            let found = found.warning(format!("hostname {node:?} could not be reached"));
            match other {
                Err(error) => found.warning(format!("hostname {node:?}: lookup {node}: {error}")),
                Ok(_) => found,
            }
        }
    }
}

fn service(host: &dyn Host) -> Findings {
    let found = Findings::of("Service-kubelet");
    if !host.has_systemd() {
        return found;
    }
    let ask = |verb: &str| host.run(&Program::new("systemctl", [verb, "kubelet"])).unwrap_or_default();
    if ask("cat").code != Some(0) {
        return found.warning("kubelet service does not exist");
    }
    found.warning_if(!ask("is-enabled").success(), || {
        "kubelet service is not enabled, please run 'systemctl enable kubelet.service'".into()
    })
}

fn kubelet_version(subject: &Subject<'_>, target: Option<&str>) -> Findings {
    let found = Findings::of("KubeletVersion");
    let beside = subject.programs.join("kubelet");
    let program = match subject.host.kind(&beside) {
        Some(PathKind::File) => Some(beside),
        _ => subject.host.find_program("kubelet"),
    };
    let Some(program) = program else {
        return found.error(
            "couldn't get kubelet version: cannot execute 'kubelet --version': executable file not found in $PATH",
        );
    };
    let answer = subject.host.run(&Program::new(program.to_string_lossy(), ["--version"]));
    let version = answer.ok().and_then(|ended| kernel::kubelet_version(&ended.stdout));
    let Some(version) = version else {
        return found.error("couldn't get kubelet version: cannot execute 'kubelet --version'");
    };
    let (major, minor) = Version::own().minor();
    let found = found.error_if(version.minor() < (major, minor.saturating_sub(3)), || {
        format!("Kubelet version \"{}\" is lower than kubeadm can support. Please upgrade kubelet", bare(&version))
    });
    let higher = target.and_then(Version::parse).is_some_and(|t| version.minor() > t.minor());
    found.error_if(higher, || {
        format!(
            "the kubelet version is higher than the control plane version. This is not a supported version skew and may \
             lead to a malfunctional cluster. Kubelet version: \"{}\" Control plane version: \"{}\"",
            bare(&version),
            target.unwrap_or_default().trim_start_matches('v')
        )
    })
}

fn bare(version: &Version) -> String {
    version.to_string().trim_start_matches('v').to_owned()
}

/// The families of networks: whether each is IPv6.
fn networks(text: &str) -> Vec<bool> {
    text.split(',').filter_map(|n| n.parse::<IpNet>().ok()).map(|n| matches!(n, IpNet::V6(_))).collect()
}

fn forwarding(host: &dyn Host, v6: bool) -> Findings {
    let path = if v6 { "/proc/sys/net/ipv6/conf/default/forwarding" } else { "/proc/sys/net/ipv4/ip_forward" };
    let found = Findings::of(name_of("FileContent", path));
    match host.read_text(Path::new(path)) {
        Err(_) => found.error(format!("{path} does not exist")),
        Ok(text) => found.error_if(text.trim() != "1", || format!("{path} contents are not set to 1")),
    }
}

/// Brings images; each failure is an error of its own.
pub async fn images(supply: &Supply<'_>, images: &[Image]) -> Findings {
    let mut found = Findings::of("ImagePull");
    for image in images {
        if let Err(cause) = supply.bring(image).await {
            found = found.error(format!("failed to pull image {}: {cause}", image.reference));
        }
    }
    found
}

/// Warns when the runtime's sandbox image is another one.
pub async fn sandbox_image(host: &dyn Host, cri: &Cri, expected: &str) {
    if let Ok(Some(configured)) = cri.sandbox_image().await
        && configured != expected
    {
        host.warn(&format!(
            "detected that the sandbox image {configured:?} of the container runtime is inconsistent with that used by \
             kubeadm. It is recommended to use {expected:?} as the CRI sandbox image.\n"
        ));
    }
}
