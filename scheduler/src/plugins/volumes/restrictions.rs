//! VolumeRestrictions: a claim for one Pod only is for one Pod only.

use std::sync::Arc;

use super::{Storage, claims_of, has_claims};
use crate::{
    cluster::{Cluster, NodeIx},
    events::ClusterEvent,
    framework::{Denial, Filter, NodeCheck, Plugin, PluginId, Prepared},
    objects::PodView,
};

const REASON: &str = "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use \
                      by another pod";

/// See the module.
pub(crate) struct VolumeRestrictions(pub(crate) Arc<Storage>);

/// Namespace and names of the claims that nobody else may use.
struct Check(Box<str>, Vec<String>);

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
                other.namespace() == pod.namespace()
                    && other.template.claims.iter().any(|c| pod.template.claims.contains(c))
            }
            ClusterEvent::StorageChanged | ClusterEvent::NodeAdded(_) => true,
            _ => false,
        }
    }
}

impl Filter for VolumeRestrictions {
    fn prepare(&self, pod: &PodView, _cluster: &mut Cluster) -> Prepared {
        if !has_claims(pod) {
            return Prepared::Skip;
        }
        let single = claims_of(pod)
            .into_iter()
            .filter(|(key, _)| self.0.claim(key).is_some_and(|c| c.modes.iter().any(|m| &**m == "ReadWriteOncePod")));
        let single: Vec<String> = single.map(|(key, _)| key.name).collect();
        if single.is_empty() {
            return Prepared::Skip;
        }
        Prepared::Check(Box::new(Check(pod.namespace().into(), single)))
    }
}

impl NodeCheck for Check {
    fn check(&self, cluster: &Cluster, _node: NodeIx) -> Result<(), Denial> {
        let used = self.1.iter().any(|claim| cluster.users_of_claim(&self.0, claim) > 0);
        if used { Err(Denial::by_pods(REASON)) } else { Ok(()) }
    }
}
