//! NodeUnschedulable: nodes that are cordoned take only Pods that tolerate it.

use crate::{
    cluster::{Cluster, NodeIx},
    events::ClusterEvent,
    framework::{Denial, Filter, NodeCheck, Plugin, PluginId, Prepared},
    objects::{PodView, Taint},
};

const REASON: &str = "node(s) were unschedulable";

/// See the module.
pub(crate) struct NodeUnschedulable;

struct Check;

impl Plugin for NodeUnschedulable {
    fn id(&self) -> PluginId {
        PluginId::NodeUnschedulable
    }

    fn as_filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }

    fn may_help(&self, _pod: &PodView, event: &ClusterEvent<'_>) -> bool {
        match event {
            ClusterEvent::Own { old, new } => old.template.tolerations != new.template.tolerations,
            event => event.node_changed(|c| c.taints),
        }
    }
}

impl Filter for NodeUnschedulable {
    fn is_local(&self) -> bool {
        true
    }

    fn prepare(&self, pod: &PodView, _cluster: &mut Cluster) -> Prepared {
        let taint = Taint::unschedulable();
        if pod.template.tolerations.iter().any(|t| t.tolerates(&taint)) {
            return Prepared::Skip;
        }
        Prepared::Check(Box::new(Check))
    }
}

impl NodeCheck for Check {
    fn check(&self, cluster: &Cluster, node: NodeIx) -> Result<(), Denial> {
        if cluster.nodes.get(node).unschedulable { Err(Denial::by_node(REASON)) } else { Ok(()) }
    }
}
