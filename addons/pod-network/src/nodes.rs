//! Nodes as far as the network goes.

use std::net::IpAddr;

use controller::Viewed;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;

/// Type, reason and message of the condition that the agent sets.
pub(crate) const CONDITION: (&str, &str, &str) =
    ("NetworkUnavailable", "PodNetworkIsUp", "The pod network is running on this node");

/// What the agent reads of a Node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeView {
    /// Internal addresses.
    pub(crate) addresses: Vec<IpAddr>,
    /// Networks of its Pods, at most one of each family.
    pub(crate) cidrs: Vec<IpNet>,
    /// Whether the condition says that the network is there, in the agent's words.
    pub(crate) told: bool,
}

impl Viewed for NodeView {
    type Object = Node;

    fn project(node: Node) -> Self {
        let spec = node.spec.unwrap_or_default();
        let status = node.status.unwrap_or_default();
        let mut texts = spec.pod_cidrs.unwrap_or_default();
        if texts.is_empty() {
            texts.extend(spec.pod_cidr);
        }
        let mut cidrs: Vec<IpNet> = Vec::new();
        for cidr in texts.iter().filter_map(|t| t.parse::<IpNet>().ok()) {
            if !cidrs.iter().any(|c| c.addr().is_ipv4() == cidr.addr().is_ipv4()) {
                cidrs.push(cidr.trunc());
            }
        }
        let addresses = status.addresses.unwrap_or_default().into_iter();
        let internal = addresses.filter(|a| a.type_ == "InternalIP").filter_map(|a| a.address.parse().ok());
        let (kind, reason, _) = CONDITION;
        let told = status
            .conditions
            .unwrap_or_default()
            .iter()
            .any(|c| c.type_ == kind && c.status == "False" && c.reason.as_deref() == Some(reason));
        Self { addresses: internal.collect(), cidrs, told }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_of_a_node() {
        let node = serde_json::json!({
            "metadata": {"name": "n"},
            "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.7/24", "fd00:1::/64", "10.9.0.0/24", "x"]},
            "status": {
                "addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "192.0.2.1"}],
                "conditions": [{"type": "NetworkUnavailable", "status": "False", "reason": "PodNetworkIsUp"}],
            },
        });
        let view = NodeView::project(serde_json::from_value(node).expect("a node"));
        assert_eq!(view.cidrs.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.244.1.0/24", "fd00:1::/64"]);
        assert_eq!(view.addresses, ["192.0.2.1".parse::<IpAddr>().expect("address")]);
        assert!(view.told);
        assert_eq!(NodeView::project(Node::default()), NodeView::default());
    }
}
