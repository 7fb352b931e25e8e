//! Control groups.

use std::path::Path;

use super::Findings;
use crate::host::{Host, PathKind};

const REQUIRED_V1: [&str; 6] = ["cpu", "cpuacct", "cpuset", "devices", "freezer", "memory"];
const REQUIRED_V2: [&str; 3] = ["cpu", "cpuset", "memory"];

/// Whether the host has the unified hierarchy.
pub fn is_v2(host: &dyn Host) -> bool {
    host.kind(Path::new("/sys/fs/cgroup/cgroup.controllers")) == Some(PathKind::File)
}

/// Checks the controllers.
pub fn check(host: &dyn Host, found: Findings) -> Findings {
    if is_v2(host) {
        let text = host.read_text(Path::new("/sys/fs/cgroup/cgroup.controllers")).unwrap_or_default();
        let present: Vec<&str> = text.split_whitespace().collect();
        return missing(found, &REQUIRED_V2, &present);
    }
    let table = host.read_text(Path::new("/proc/cgroups")).unwrap_or_default();
    let present: Vec<&str> = table
        .lines()
        .filter(|line| !line.starts_with('#') && line.ends_with("\t1"))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    missing(found, &REQUIRED_V1, &present).error(
        "cgroups v1 support is deprecated and will be removed in a future release. Please migrate to cgroups v2. To \
         explicitly enable cgroups v1 support for kubelet v1.35 or newer, you must set the kubelet configuration option \
         'FailCgroupV1' to 'false'. You must also explicitly skip this validation. For more information, see \
         https://git.k8s.io/enhancements/keps/sig-node/5573-remove-cgroup-v1",
    )
}

fn missing(found: Findings, required: &[&str], present: &[&str]) -> Findings {
    let absent: Vec<&str> = required.iter().filter(|name| !present.contains(name)).copied().collect();
    found.error_if(!absent.is_empty(), || format!("missing required cgroups: {}", absent.join(" ")))
}
