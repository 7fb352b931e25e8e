//! NodePorts: two Pods cannot have the same port of a node.

use std::sync::Arc;

use crate::{
    cluster::{Cluster, NodeIx},
    events::ClusterEvent,
    framework::{Denial, Filter, NodeCheck, Plugin, PluginId, Prepared},
    objects::{HostPort, PodView, Template},
};

const REASON: &str = "node(s) didn't have free ports for the requested pod ports";

/// See the module.
pub(crate) struct NodePorts;

struct Check(Arc<Template>);

fn conflict(wanted: &[HostPort], taken: &[HostPort]) -> bool {
    wanted.iter().any(|w| taken.iter().any(|t| w.conflicts(t)))
}

impl Plugin for NodePorts {
    fn id(&self) -> PluginId {
        PluginId::NodePorts
    }

    fn as_filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }

    fn may_help(&self, pod: &PodView, event: &ClusterEvent<'_>) -> bool {
        match event {
            ClusterEvent::PodDeleted(gone) => conflict(&pod.template.host_ports, &gone.template.host_ports),
            ClusterEvent::NodeAdded(_) => true,
            _ => false,
        }
    }
}

impl Filter for NodePorts {
    fn is_local(&self) -> bool {
        true
    }

    fn prepare(&self, pod: &PodView, _cluster: &mut Cluster) -> Prepared {
        if pod.template.host_ports.is_empty() {
            return Prepared::Skip;
        }
        Prepared::Check(Box::new(Check(Arc::clone(&pod.template))))
    }
}

impl NodeCheck for Check {
    fn check(&self, cluster: &Cluster, node: NodeIx) -> Result<(), Denial> {
        if conflict(&self.0.host_ports, &cluster.nodes.get(node).ports) {
            return Err(Denial::by_pods(REASON));
        }
        Ok(())
    }
}
