//! Flags of node IPAM.

use clap::Args;
use ipnet::IpNet;

use super::Pool;

/// Pod address ranges.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Node IPAM controller flags")]
pub struct IpamOptions {
    /// Should CIDRs for Pods be allocated and set on the Nodes.
    #[arg(long, default_value_t = false)]
    pub allocate_node_cidrs: bool,
    /// CIDR ranges for Pods in the cluster: one, or one of each address family.
    #[arg(long, value_delimiter = ',')]
    pub cluster_cidr: Vec<IpNet>,
    /// CIDR ranges for Services; excluded from the Pods' ranges.
    #[arg(long, value_delimiter = ',')]
    pub service_cluster_ip_range: Vec<IpNet>,
    /// Mask size of node CIDRs of a cluster with one address family. Default is 24 for IPv4 and 64 for IPv6.
    #[arg(long)]
    pub node_cidr_mask_size: Option<u8>,
    /// Mask size of IPv4 node CIDRs of a dual-stack cluster. Default is 24.
    #[arg(long)]
    pub node_cidr_mask_size_ipv4: Option<u8>,
    /// Mask size of IPv6 node CIDRs of a dual-stack cluster. Default is 64.
    #[arg(long)]
    pub node_cidr_mask_size_ipv6: Option<u8>,
}

fn is_v4(cidr: &IpNet) -> bool {
    matches!(cidr, IpNet::V4(_))
}

impl IpamOptions {
    fn mask(&self, cidr: &IpNet) -> u8 {
        let (default, of_family) = match is_v4(cidr) {
            true => (24, self.node_cidr_mask_size_ipv4),
            false => (64, self.node_cidr_mask_size_ipv6),
        };
        of_family.or(self.node_cidr_mask_size).unwrap_or(default)
    }

    /// The pools of the cluster's ranges, without the Services' part.
    pub(super) fn pools(&self) -> Result<Vec<Pool>, String> {
        let mut pools = Vec::new();
        for cidr in &self.cluster_cidr {
            let mut pool = Pool::new(*cidr, self.mask(cidr))?;
            for service in &self.service_cluster_ip_range {
                pool.occupy(*service);
            }
            pools.push(pool);
        }
        Ok(pools)
    }

    /// All that is wrong.
    pub(crate) fn validate(&self) -> Vec<String> {
        if !self.allocate_node_cidrs {
            return Vec::new();
        }
        let mut problems = Vec::new();
        match self.cluster_cidr.as_slice() {
            [] => problems.push("--cluster-cidr must be set when --allocate-node-cidrs is".to_owned()),
            [_] => {}
            [first, second] if is_v4(first) != is_v4(second) => {
                if self.node_cidr_mask_size.is_some() {
                    problems.push("usage of --node-cidr-mask-size is not allowed with dual-stack clusters".to_owned());
                }
            }
            [_, _] => problems.push("--cluster-cidr: expected one IPv4 and one IPv6 CIDR".to_owned()),
            _ => problems.push("--cluster-cidr: at most two CIDRs are allowed".to_owned()),
        }
        problems
    }
}
