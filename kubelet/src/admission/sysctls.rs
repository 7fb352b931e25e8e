//! Kernel parameters that Pods may set.

use k8s_openapi::api::core::v1::Pod;

use super::Refusal;
use crate::pods;

/// Safe ones, which affect nobody else.
const SAFE: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// Names, or beginnings of names that end in `*`.
#[derive(Clone, Debug, Default)]
pub struct Allowlist(Vec<String>);

impl Allowlist {
    /// The safe ones and those of the configuration.
    pub fn new(unsafe_ones: &[String]) -> Self {
        Self(SAFE.iter().map(|name| (*name).to_owned()).chain(unsafe_ones.iter().map(|name| dotted(name))).collect())
    }

    fn allows(&self, name: &str) -> bool {
        self.0.iter().any(|known| match known.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => known == name,
        })
    }

    pub(super) fn admit(&self, pod: &Pod) -> Result<(), Refusal> {
        let spec = pods::spec(pod);
        let sysctls = spec.security_context.iter().flat_map(|context| context.sysctls.iter().flatten());
        for sysctl in sysctls {
            let name = dotted(&sysctl.name);
            let forbidden =
                |why: &str| Err(Refusal::new("SysctlForbidden", format!("forbidden sysctl: {name:?} {why}")));
            if !self.allows(&name) {
                return forbidden("not allowlisted");
            }
            match namespace(&name) {
                Some("network") if spec.host_network == Some(true) => {
                    return forbidden("not allowed with host Net enabled");
                }
                Some("ipc") if spec.host_ipc == Some(true) => return forbidden("not allowed with host IPC enabled"),
                _ => {}
            }
        }
        Ok(())
    }
}

/// `net/ipv4/x` is another spelling of `net.ipv4.x`; the first separator says which is meant.
fn dotted(name: &str) -> String {
    match name.find(['.', '/']).map(|at| name.as_bytes()[at]) {
        Some(b'/') => name
            .chars()
            .map(|c| {
                if c == '/' {
                    '.'
                } else if c == '.' {
                    '/'
                } else {
                    c
                }
            })
            .collect(),
        _ => name.to_owned(),
    }
}

/// The kernel namespace that keeps a parameter apart.
fn namespace(name: &str) -> Option<&'static str> {
    let ipc = name == "kernel.sem" || ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|p| name.starts_with(p));
    match name {
        _ if ipc => Some("ipc"),
        _ if name.starts_with("net.") => Some("network"),
        _ => None,
    }
}
