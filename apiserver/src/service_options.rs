//! Flags about Services: their addresses and ports, and the Service that leads to the servers.

use clap::Args;
use ipnet::IpNet;

use crate::kubernetes_service::Reconciler;

/// Flags of Services.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Misc flags")]
pub struct ServiceOptions {
    /// Range of node ports: first-last, or first+size.
    #[arg(long, default_value = "30000-32767", value_parser = port_range)]
    pub service_node_port_range: (u16, u16),
    /// How the endpoints of the kubernetes Service are kept: lease, master-count, none.
    #[arg(long, default_value = "lease")]
    pub endpoint_reconciler_type: String,
    /// Number of servers of the cluster, for endpoint reconciler master-count.
    #[arg(long, default_value_t = 1)]
    pub apiserver_count: usize,
    /// Port of the kubernetes Service on every node; 0 makes the Service one of type ClusterIP.
    #[arg(long, default_value_t = 0)]
    pub kubernetes_service_node_port: u16,
}

impl ServiceOptions {
    /// All that is wrong.
    pub(crate) fn validate(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !matches!(self.endpoint_reconciler_type.as_str(), "lease" | "master-count" | "none") {
            problems.push(format!(
                "--endpoint-reconciler-type must be one of: [master-count lease none], got {:?}",
                self.endpoint_reconciler_type
            ));
        }
        if self.apiserver_count == 0 {
            problems.push("--apiserver-count should be a positive number, but value \"0\" provided".into());
        }
        let (first, last) = self.service_node_port_range;
        let port = self.kubernetes_service_node_port;
        if port != 0 && !(first..=last).contains(&port) {
            problems.push(format!("kubernetes service node port range {first}-{last} doesn't contain {port}"));
        }
        problems
    }

    pub(crate) fn reconciler(&self) -> Reconciler {
        match self.endpoint_reconciler_type.as_str() {
            "master-count" => Reconciler::Count(self.apiserver_count),
            "none" => Reconciler::None,
            _ => Reconciler::Lease,
        }
    }
}

/// What is wrong with the ranges of cluster IPs.
pub(crate) fn problems_of_ranges(ranges: &[IpNet]) -> Vec<String> {
    let mut problems = Vec::new();
    match ranges {
        [] => problems.push("--service-cluster-ip-range must contain at least one valid cidr".to_owned()),
        [_] => {}
        [first, second] if first.addr().is_ipv4() != second.addr().is_ipv4() => {}
        [_, _] => problems.push(
            "--service-cluster-ip-range[0] and --service-cluster-ip-range[1] must be of different IP family".to_owned(),
        ),
        _ => problems.push("--service-cluster-ip-range must not contain more than two entries".to_owned()),
    }
    for range in ranges {
        let length = range.prefix_len();
        if !range.addr().is_ipv4() && length < 64 {
            problems.push(format!("shortest allowed prefix length for service CIDR is 64, got {length}"));
        }
        if range.max_prefix_len() - length < 2 {
            problems.push(format!("--service-cluster-ip-range: {range} has no addresses for Services"));
        }
    }
    problems
}

/// `first-last`, `first+size` or one port.
fn port_range(text: &str) -> Result<(u16, u16), String> {
    let bad = || format!("{text:?} is not a port range (first-last or first+size)");
    let number = |text: &str| text.trim().parse::<u16>().map_err(|_| bad());
    let (first, last) = match (text.split_once('-'), text.split_once('+')) {
        (Some((first, last)), _) => (number(first)?, number(last)?),
        (None, Some((first, size))) => {
            let first = number(first)?;
            (first, first.checked_add(number(size)?).ok_or_else(bad)?)
        }
        (None, None) => (number(text)?, number(text)?),
    };
    if first == 0 || last < first { Err(bad()) } else { Ok((first, last)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        service: ServiceOptions,
    }

    #[test]
    fn ranges_of_addresses() {
        let problems = |text: &str| {
            let ranges: Vec<IpNet> = text.split(',').filter_map(|range| range.parse().ok()).collect();
            problems_of_ranges(&ranges).join("; ")
        };
        for (text, expected) in [
            ("10.0.0.0/24", ""),
            ("fd00::/112", ""),
            ("10.0.0.0/24,fd00::/112", ""),
            ("fd00::/64,10.0.0.0/24", ""),
            (
                "10.0.0.0/24,10.1.0.0/24",
                "--service-cluster-ip-range[0] and --service-cluster-ip-range[1] must be of different IP family",
            ),
            ("10.0.0.0/24,fd00::/112,fd01::/112", "--service-cluster-ip-range must not contain more than two entries"),
            ("fd00::/56", "shortest allowed prefix length for service CIDR is 64, got 56"),
            ("10.0.0.0/31", "--service-cluster-ip-range: 10.0.0.0/31 has no addresses for Services"),
            ("", "--service-cluster-ip-range must contain at least one valid cidr"),
        ] {
            assert_eq!(problems(text), expected, "{text}");
        }
    }

    #[test]
    fn ranges_of_ports_have_three_forms() {
        for (text, range) in [
            ("30000-32767", Some((30_000, 32_767))),
            ("30000+2767", Some((30_000, 32_767))),
            ("30000", Some((30_000, 30_000))),
            ("65000+1000", None),
            ("0-10", None),
            ("10-9", None),
            ("a-b", None),
        ] {
            assert_eq!(port_range(text).ok(), range, "{text}");
        }
    }

    #[test]
    fn bad_settings_are_refused() {
        let problems = |flags: &[&str]| {
            let flags = ["x"].iter().chain(flags);
            <Flags as clap::Parser>::parse_from(flags).service.validate()
        };
        assert_eq!(problems(&["--endpoint-reconciler-type=none"]), Vec::<String>::new());
        assert_eq!(problems(&["--kubernetes-service-node-port=30443"]), Vec::<String>::new());
        for (flags, text) in [
            (vec!["--endpoint-reconciler-type=etcd"], "must be one of: [master-count lease none]"),
            (vec!["--apiserver-count=0"], "should be a positive number"),
            (vec!["--kubernetes-service-node-port=80"], "doesn't contain 80"),
        ] {
            assert!(problems(&flags).join("\n").contains(text), "{flags:?}");
        }
    }
}
