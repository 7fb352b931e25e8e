//! What is the same in all rules of one family.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::expr::{Expressions, Is, Side};
use crate::{
    backend::BackendError,
    config::settings::{Detector, Settings},
    family::Family,
    node::NodePorts,
};

/// The oldest kernel with all that rules need.
const KERNEL: [u32; 2] = [5, 13];
/// A variable that says that the kernel has it all whatever its version.
const SKIP_CHECK: &str = "KUBE_PROXY_NFTABLES_SKIP_KERNEL_VERSION_CHECK";

/// How traffic is spread over the endpoints of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spread {
    /// One rule with a map of all. The kernel's time for many such maps grows with their square.
    Map,
    /// A rule for each, unless they are many: for large clusters.
    Rules,
}

/// How rules are written.
#[derive(Clone, Debug)]
pub(crate) struct Style {
    pub(crate) spread: Spread,
    pub(crate) family: Family,
    pub(crate) mark: u32,
    pub(crate) masquerade_all: bool,
    pub(crate) detector: Detector,
    pub(crate) node_ports: NodePorts,
    pub(crate) node_ip: IpAddr,
}

fn version(text: &str) -> [u32; 2] {
    let mut numbers = text.split(['.', '-']).map(|number| number.parse().unwrap_or(0));
    [numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)]
}

impl Style {
    pub(crate) fn of(
        settings: &Settings,
        detector: Detector,
        node_ports: NodePorts,
        node_ip: IpAddr,
        family: Family,
    ) -> Result<Self, BackendError> {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        if runtime::env::non_empty(SKIP_CHECK).is_none() && version(&release) < KERNEL {
            let text = "kube-proxy in nftables mode requires kernel 5.13 or later";
            return Err(BackendError::Unsupported(text.to_owned()));
        }
        let spread = Spread::Map;
        Ok(Self {
            spread,
            family,
            mark: settings.mark,
            masquerade_all: settings.masquerade_all,
            detector,
            node_ports,
            node_ip,
        })
    }

    /// The addresses of loopback.
    pub(crate) fn loopback(&self) -> IpNet {
        match self.family {
            Family::V4 => IpNet::new_assert(Ipv4Addr::new(127, 0, 0, 0).into(), 8),
            Family::V6 => IpNet::from(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        }
    }

    /// Traffic that is the Pods', or not.
    pub(crate) fn pods(&self, rule: &mut Expressions<'_>, is: Is) {
        match &self.detector {
            Detector::Absent => {}
            Detector::Range(range) => rule.in_range(self.family, Side::Source, is, range),
            Detector::Bridge(name) => rule.interface(is, name, true),
            Detector::Prefix(prefix) => rule.interface(is, prefix, false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels() {
        assert!(version("6.1.0-13-cloud") > KERNEL && version("5.10.1") < KERNEL && version("5.13.0") == KERNEL);
    }
}
