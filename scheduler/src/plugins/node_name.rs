//! NodeName: a Pod that names its node goes nowhere else.

use crate::{
    cluster::{Cluster, NodeIx},
    events::ClusterEvent,
    framework::{Denial, Filter, NodeCheck, Plugin, PluginId, Prepared},
    objects::PodView,
};

const REASON: &str = "node(s) didn't match the requested node name";

/// See the module.
pub(crate) struct NodeName;

struct Check(Box<str>);

impl Plugin for NodeName {
    fn id(&self) -> PluginId {
        PluginId::NodeName
    }

    fn as_filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }

    fn may_help(&self, _pod: &PodView, event: &ClusterEvent<'_>) -> bool {
        matches!(event, ClusterEvent::NodeAdded(_))
    }
}

impl Filter for NodeName {
    fn is_local(&self) -> bool {
        true
    }

    fn prepare(&self, pod: &PodView, _cluster: &mut Cluster) -> Prepared {
        if pod.node_name.is_empty() {
            return Prepared::Skip;
        }
        Prepared::Check(Box::new(Check(pod.node_name.clone())))
    }
}

impl NodeCheck for Check {
    fn check(&self, cluster: &Cluster, node: NodeIx) -> Result<(), Denial> {
        if **cluster.nodes.name(node) == *self.0 { Ok(()) } else { Err(Denial::by_node(REASON)) }
    }
}
