//! What the machine is and has.

use std::fs;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::Path;

use crate::config::KubeletConfiguration;
use crate::node::NodeFacts;
use crate::platform::{CgroupLimits, Platform};
use crate::pods::quantity;
use crate::pods::resources::{self, Amounts};

/// The node's name: what was asked for, or the host name, in lower case.
pub fn node_name(asked: Option<&str>) -> String {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let name = asked.map(str::to_owned).or(host).unwrap_or_default();
    name.trim().to_lowercase()
}

/// Addresses: those asked for, else what the name resolves to, else that of the default route.
pub fn addresses(asked: Option<&str>, name: &str) -> Vec<IpAddr> {
    let asked: Vec<IpAddr> =
        asked.iter().flat_map(|text| text.split(',')).filter_map(|ip| ip.trim().parse().ok()).collect();
    let given: Vec<IpAddr> = asked.iter().copied().filter(|ip| !ip.is_unspecified()).collect();
    if !given.is_empty() {
        return given;
    }
    let wants_v6 = asked.iter().any(|ip| ip.is_ipv6());
    let resolved = (name, 0_u16).to_socket_addrs().into_iter().flatten().map(|address| address.ip());
    let usable = |ip: &IpAddr| !ip.is_loopback() && !ip.is_multicast() && !ip.is_unspecified();
    if let Some(ip) = resolved.filter(usable).find(|ip| ip.is_ipv6() == wants_v6) {
        return vec![ip];
    }
    default_route(wants_v6).into_iter().collect()
}

/// The address the kernel would send from; nothing is sent.
fn default_route(v6: bool) -> Option<IpAddr> {
    let (bind, to) = if v6 { ("[::]:0", "[2001:db8::1]:9") } else { ("0.0.0.0:0", "192.0.2.1:9") };
    let socket = UdpSocket::bind(bind).ok()?;
    socket.connect(to.parse::<SocketAddr>().ok()?).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}

/// A line of `/proc/meminfo` in bytes.
pub fn meminfo(key: &str) -> i64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let kilobytes: i64 = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0);
    kilobytes * 1024
}

/// When the kernel began.
pub fn boot_time() -> jiff::Timestamp {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let seconds = text.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok());
    seconds.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok()).unwrap_or_default()
}

/// Bytes of swap.
pub fn swap_bytes() -> i64 {
    meminfo("SwapTotal")
}

/// Sizes of huge pages the kernel has, as `2MB`.
pub fn huge_page_sizes() -> Vec<String> {
    let entries = fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let mut sizes: Vec<u64> = entries
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok())
        .collect();
    sizes.sort_unstable();
    sizes.into_iter().map(page_size).collect()
}

fn page_size(kilobytes: u64) -> String {
    match kilobytes {
        n if n >= 1 << 20 => format!("{}GB", n >> 20),
        n if n >= 1 << 10 => format!("{}MB", n >> 10),
        n => format!("{n}KB"),
    }
}

/// Everything there is.
pub fn capacity(config: &KubeletConfiguration, platform: &dyn Platform, root: &Path) -> Amounts {
    let cores = std::thread::available_parallelism().map_or(1, |n| i64::try_from(n.get()).unwrap_or(1));
    let mut out = Amounts::new();
    out.insert("cpu".to_owned(), quantity::from_count(cores));
    out.insert("memory".to_owned(), ki(meminfo("MemTotal")));
    let mut pods = i64::from(config.max_pods);
    if config.pods_per_core > 0 {
        pods = pods.min(cores * i64::from(config.pods_per_core));
    }
    out.insert("pods".to_owned(), quantity::from_count(pods));
    if let Ok(usage) = platform.fs_usage(root) {
        out.insert("ephemeral-storage".to_owned(), ki(i64::try_from(usage.capacity).unwrap_or(i64::MAX)));
    }
    for size in huge_page_sizes() {
        let name = size.replace("KB", "Ki").replace("MB", "Mi").replace("GB", "Gi");
        out.insert(format!("hugepages-{name}"), quantity::from_bytes(huge_page_bytes(&name)));
    }
    out
}

fn ki(bytes: i64) -> k8s_openapi::apimachinery::pkg::api::resource::Quantity {
    k8s_openapi::apimachinery::pkg::api::resource::Quantity(format!("{}Ki", bytes / 1024))
}

fn huge_page_bytes(size: &str) -> i64 {
    let each = quantity::value(&k8s_openapi::apimachinery::pkg::api::resource::Quantity(size.to_owned()));
    let path = format!("/sys/kernel/mm/hugepages/hugepages-{}kB/nr_hugepages", each / 1024);
    let count: i64 = fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    count.saturating_mul(each)
}

/// What is reserved of a resource, in thousandths for cpu.
pub(crate) fn reserved(config: &KubeletConfiguration, name: &str) -> i64 {
    [&config.kube_reserved, &config.system_reserved]
        .into_iter()
        .filter_map(|map| map.get(name))
        .map(|text| resources::number(name, &k8s_openapi::apimachinery::pkg::api::resource::Quantity(text.clone())))
        .sum()
}

/// What is left for Pods after reservations and hard eviction limits.
pub fn allocatable(config: &KubeletConfiguration, capacity: &Amounts) -> Amounts {
    let mut out = Amounts::new();
    let huge: i64 = capacity
        .iter()
        .filter(|(name, _)| name.starts_with("hugepages-"))
        .map(|(_, amount)| quantity::value(amount))
        .sum();
    for (name, amount) in capacity {
        let all = resources::number(name, amount);
        let mut left = all - reserved(config, name);
        match name.as_str() {
            "memory" => left -= threshold(config, "memory.available", all) + huge,
            "ephemeral-storage" => left -= threshold(config, "nodefs.available", all),
            _ => {}
        }
        let left = left.max(0);
        let shown = match name.as_str() {
            "cpu" => quantity::from_milli(left),
            "pods" => quantity::from_count(left),
            "ephemeral-storage" => quantity::from_count(left),
            "memory" => ki(left),
            _ if left == all => amount.clone(),
            _ => quantity::from_bytes(left),
        };
        out.insert(name.clone(), shown);
    }
    out
}

/// What a node keeps of a resource from Pods.
pub(crate) fn withheld(config: &KubeletConfiguration, name: &str) -> i64 {
    let eviction = if name == "memory" { threshold(config, "memory.available", meminfo("MemTotal")) } else { 0 };
    reserved(config, name) + eviction
}

/// A hard eviction limit in bytes; percentages count from the capacity.
fn threshold(config: &KubeletConfiguration, signal: &str, capacity: i64) -> i64 {
    let Some(text) = config.eviction_hard.get(signal) else { return 0 };
    match text.strip_suffix('%') {
        Some(percent) => {
            let percent: f64 = percent.parse().unwrap_or(0.0);
            (capacity as f64 * percent / 100.0) as i64
        }
        None => quantity::value(&k8s_openapi::apimachinery::pkg::api::resource::Quantity(text.clone())),
    }
}

/// Limits of a group that may use no more than what is reserved for it.
pub fn reserved_limits(reserved: &std::collections::BTreeMap<String, String>) -> CgroupLimits {
    let amount = |name: &str| {
        let text = reserved.get(name)?;
        Some(resources::number(name, &k8s_openapi::apimachinery::pkg::api::resource::Quantity(text.clone())))
    };
    CgroupLimits {
        cpu_shares: amount("cpu").map(resources::shares),
        memory: amount("memory"),
        pids: amount("pid"),
        ..CgroupLimits::default()
    }
}

/// Limits of the group above all Pods: the capacity less the reservations.
pub fn pods_group_limits(config: &KubeletConfiguration, facts: &NodeFacts) -> CgroupLimits {
    let left = |name: &str| {
        let all = facts.capacity.get(name).map_or(0, |amount| resources::number(name, amount));
        (all - reserved(config, name)).max(0)
    };
    CgroupLimits {
        cpu_shares: Some(resources::shares(left("cpu"))),
        memory: Some(left("memory")).filter(|bytes| *bytes > 0),
        ..CgroupLimits::default()
    }
}
