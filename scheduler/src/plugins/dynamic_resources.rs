//! DynamicResources: Pods that ask for devices through resource claims.
//!
//! Devices are not allocated by this scheduler, so that such a Pod cannot be placed: it waits and says why.

use crate::{
    cluster::Cluster,
    events::ClusterEvent,
    framework::{Filter, Plugin, PluginId, Prepared},
    objects::PodView,
};

const REASON: &str = "cannot allocate all claims";

/// See the module.
pub(crate) struct DynamicResources;

impl Plugin for DynamicResources {
    fn id(&self) -> PluginId {
        PluginId::DynamicResources
    }

    fn as_filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }

    fn may_help(&self, _pod: &PodView, event: &ClusterEvent<'_>) -> bool {
        matches!(event, ClusterEvent::Own { old, new } if old.template.wants_devices != new.template.wants_devices)
    }
}

impl Filter for DynamicResources {
    fn prepare(&self, pod: &PodView, _cluster: &mut Cluster) -> Prepared {
        if pod.template.wants_devices { Prepared::Reject(REASON.to_owned()) } else { Prepared::Skip }
    }
}
