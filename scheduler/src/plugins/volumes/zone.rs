//! VolumeZone: a volume that says where it is can be used there only.

use std::sync::Arc;

use super::{Storage, has_claims};
use crate::{
    cluster::{Cluster, NodeIx},
    events::ClusterEvent,
    framework::{Denial, Filter, NodeCheck, Plugin, PluginId, Prepared},
    objects::PodView,
};

const REASON: &str = "node(s) had no available volume zone";
const KEYS: [&str; 4] = [
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
];
/// Separates several zones in one label.
const SEPARATOR: &str = "__";

/// See the module.
pub(crate) struct VolumeZone(pub(crate) Arc<Storage>);

struct Check(Vec<(&'static str, Vec<String>)>);

impl Plugin for VolumeZone {
    fn id(&self) -> PluginId {
        PluginId::VolumeZone
    }

    fn as_filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }

    fn may_help(&self, _pod: &PodView, event: &ClusterEvent<'_>) -> bool {
        matches!(event, ClusterEvent::StorageChanged) || event.node_changed(|c| c.labels)
    }
}

impl Filter for VolumeZone {
    fn prepare(&self, pod: &PodView, _cluster: &mut Cluster) -> Prepared {
        if !has_claims(pod) {
            return Prepared::Skip;
        }
        let mut places = Vec::new();
        for volume in self.0.volumes_of(pod) {
            for key in KEYS {
                if let Some(value) = volume.labels.get(key) {
                    places.push((key, value.split(SEPARATOR).map(str::to_owned).collect()));
                }
            }
        }
        if places.is_empty() { Prepared::Skip } else { Prepared::Check(Box::new(Check(places))) }
    }
}

impl NodeCheck for Check {
    fn check(&self, cluster: &Cluster, node: NodeIx) -> Result<(), Denial> {
        let label = |key: &str| {
            let found = cluster.symbols.find(key).and_then(|k| cluster.nodes.label(node, k));
            found.map(|v| cluster.symbols.text(v))
        };
        // A node that says nothing of zones and regions is taken to be anywhere.
        if KEYS.iter().all(|k| label(k).is_none()) {
            return Ok(());
        }
        // The beta keys mean the same as their successors.
        let twin = |key: &str| KEYS.iter().find(|k| **k != key && k.rsplit('/').next() == key.rsplit('/').next());
        let there = |key: &str| label(key).or_else(|| twin(key).and_then(|k| label(k)));
        let fits = |(key, values): &(&str, Vec<String>)| there(key).is_some_and(|v| values.iter().any(|w| w == v));
        if self.0.iter().all(fits) { Ok(()) } else { Err(Denial::by_node(REASON)) }
    }
}
