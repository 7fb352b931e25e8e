//! The kernel: its release and what it was built with.

use std::path::Path;

use flate2::read::GzDecoder;

use super::Findings;
use crate::{config::version::Version, host::Host};

/// Options without which nothing runs.
const REQUIRED: [&str; 22] = [
    "NAMESPACES",
    "NET_NS",
    "PID_NS",
    "IPC_NS",
    "UTS_NS",
    "CGROUPS",
    "CGROUP_BPF",
    "CGROUP_CPUACCT",
    "CGROUP_DEVICE",
    "CGROUP_FREEZER",
    "CGROUP_PIDS",
    "CGROUP_SCHED",
    "CPUSETS",
    "MEMCG",
    "INET",
    "EXT4_FS",
    "PROC_FS",
    "NETFILTER_XT_TARGET_REDIRECT",
    "NETFILTER_XT_MATCH_COMMENT",
    "FAIR_GROUP_SCHED",
    "CFS_BANDWIDTH",
    "CGROUP_HUGETLB",
];
/// Those of them that only limit what can be done.
const OPTIONAL: [&str; 4] = ["CGROUP_BPF", "CGROUP_HUGETLB", "CFS_BANDWIDTH", "EXT4_FS"];

/// Whether a release is one that is tested: 5.4, 5.10, 5.15 and 6 or later.
pub fn is_supported(release: &str) -> bool {
    let numbers: Vec<u32> = release.split(['.', '-']).map_while(|part| part.parse().ok()).take(2).collect();
    match numbers.as_slice() {
        [5, minor] => [4, 10, 15].contains(minor),
        [major, ..] => *major >= 6,
        [] => false,
    }
}

/// Checks release and options.
pub fn check(host: &dyn Host, mut found: Findings) -> Findings {
    let release = host.read_text(Path::new("/proc/sys/kernel/osrelease")).unwrap_or_default();
    let release = release.trim();
    if !is_supported(release) {
        found = found.error(format!(
            "kernel release {release} is unsupported. Supported LTS versions from the 5.x series are 5.4, 5.10 and 5.15. \
             Any 6.x version is also supported. For cgroups v2 support, the recommended version is 5.10 or newer"
        ));
    }
    let Some(options) = options(host, release) else {
        return found.warning(format!(
            "unable to parse kernel config: unexpected error when reading kernel config for {release}"
        ));
    };
    let missing = |name: &&&str| !options.lines().any(|line| is_set(line, name));
    for name in REQUIRED.iter().filter(missing) {
        let text = format!("missing kernel option: CONFIG_{name}");
        found = if OPTIONAL.contains(name) { found.warning(text) } else { found.error(text) };
    }
    found
}

fn is_set(line: &str, name: &str) -> bool {
    line.strip_prefix("CONFIG_")
        .and_then(|rest| rest.strip_prefix(name))
        .is_some_and(|value| value == "=y" || value == "=m")
}

/// The kernel's configuration, from wherever it is kept.
fn options(host: &dyn Host, release: &str) -> Option<String> {
    if let Ok(packed) = host.read(Path::new("/proc/config.gz")) {
        let mut text = String::new();
        use std::io::Read;
        GzDecoder::new(packed.as_slice()).take(4 << 20).read_to_string(&mut text).ok()?;
        return Some(text);
    }
    let places = [
        format!("/boot/config-{release}"),
        format!("/usr/src/linux-{release}/.config"),
        "/usr/src/linux/.config".to_owned(),
        format!("/usr/lib/modules/{release}/config"),
        format!("/usr/lib/ostree-boot/config-{release}"),
        format!("/usr/lib/kernel/config-{release}"),
        format!("/lib/modules/{release}/build/.config"),
    ];
    places.iter().find_map(|place| host.read_text(Path::new(place)).ok())
}

/// Version in the output of `kubelet --version`.
pub fn kubelet_version(output: &str) -> Option<Version> {
    Version::parse(output.split_whitespace().last()?)
}
