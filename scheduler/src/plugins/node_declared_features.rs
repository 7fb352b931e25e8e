//! NodeDeclaredFeatures: what a Pod asks of its node beyond the oldest kubelet, the node has to declare.

use std::sync::Arc;

use crate::{
    cluster::{Cluster, NodeIx},
    events::ClusterEvent,
    framework::{Denial, Filter, NodeCheck, Plugin, PluginId, Prepared},
    objects::{PodView, Template},
};

const REASON: &str = "node(s) didn't match Pod's required features";

/// See the module.
pub(crate) struct NodeDeclaredFeatures;

struct Check(Arc<Template>);

impl Plugin for NodeDeclaredFeatures {
    fn id(&self) -> PluginId {
        PluginId::NodeDeclaredFeatures
    }

    fn as_filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }

    fn may_help(&self, _pod: &PodView, event: &ClusterEvent<'_>) -> bool {
        match event {
            ClusterEvent::Own { old, new } => old.template.features != new.template.features,
            event => event.node_changed(|c| c.features),
        }
    }
}

impl Filter for NodeDeclaredFeatures {
    fn is_local(&self) -> bool {
        true
    }

    fn prepare(&self, pod: &PodView, _cluster: &mut Cluster) -> Prepared {
        if pod.template.features.is_empty() {
            return Prepared::Skip;
        }
        Prepared::Check(Box::new(Check(Arc::clone(&pod.template))))
    }
}

impl NodeCheck for Check {
    fn check(&self, cluster: &Cluster, node: NodeIx) -> Result<(), Denial> {
        let declared = &cluster.nodes.get(node).features;

        let has = |wanted: &&str| declared.iter().any(|d| **d == **wanted);
        if self.0.features.iter().all(has) { Ok(()) } else { Err(Denial::by_node(REASON)) }
    }
}
