//! VolumeRestrictions: a claim for one Pod only is for one Pod only, and so are most disks on a node.

use std::sync::Arc;

use super::{Storage, claims_of, has_claims};
use crate::{
    cluster::{Cluster, NodeIx},
    events::ClusterEvent,
    framework::{Denial, Filter, NodeCheck, Plugin, PluginId, Prepared},
    objects::{PodView, Template},
};

const NO_DISK: &str = "node(s) had no available disk";
const REASON: &str = "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use \
                      by another pod";

/// See the module.
pub(crate) struct VolumeRestrictions(pub(crate) Arc<Storage>);

struct Check {
    template: Arc<Template>,
    /// Names of the claims that nobody else may use.
    single: Vec<String>,
}

impl Plugin for VolumeRestrictions {
    fn id(&self) -> PluginId {
        PluginId::VolumeRestrictions
    }

    fn as_filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }

    fn may_help(&self, pod: &PodView, event: &ClusterEvent<'_>) -> bool {
        match event {
            ClusterEvent::PodDeleted(other) => {
                let (own, gone) = (&pod.template, &other.template);
                own.disks.iter().any(|disk| gone.disks.iter().any(|d| d.conflicts(disk)))
                    || own.namespace == gone.namespace && gone.claims.iter().any(|c| own.claims.contains(c))
            }
            ClusterEvent::StorageChanged | ClusterEvent::NodeAdded(_) => true,
            _ => false,
        }
    }
}

impl Filter for VolumeRestrictions {
    fn prepare(&self, pod: &PodView, _cluster: &mut Cluster) -> Prepared {
        if !has_claims(pod) && pod.template.disks.is_empty() {
            return Prepared::Skip;
        }
        let single = claims_of(pod)
            .into_iter()
            .filter(|(key, _)| self.0.claim(key).is_some_and(|c| c.modes.iter().any(|m| &**m == "ReadWriteOncePod")));
        let single: Vec<String> = single.map(|(key, _)| key.name).collect();
        if single.is_empty() && pod.template.disks.is_empty() {
            return Prepared::Skip;
        }
        Prepared::Check(Box::new(Check { template: Arc::clone(&pod.template), single }))
    }
}

impl NodeCheck for Check {
    fn check(&self, cluster: &Cluster, node: NodeIx) -> Result<(), Denial> {
        if !self.template.disks.is_empty() {
            let there = cluster.nodes.get(node).pods.iter().flat_map(|pod| &pod.template.disks);
            if there.into_iter().any(|taken| self.template.disks.iter().any(|disk| disk.conflicts(taken))) {
                return Err(Denial::by_pods(NO_DISK));
            }
        }
        let namespace = &self.template.namespace;
        let used = self.single.iter().any(|claim| cluster.users_of_claim(namespace, claim) > 0);
        if used { Err(Denial::by_pods(REASON)) } else { Ok(()) }
    }
}
