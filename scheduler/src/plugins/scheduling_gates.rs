//! SchedulingGates: a Pod with gates waits until they are gone.

use crate::{
    events::ClusterEvent,
    framework::{Gate, Plugin, PluginId},
    objects::PodView,
};

/// See the module.
pub(crate) struct SchedulingGates;

impl Plugin for SchedulingGates {
    fn id(&self) -> PluginId {
        PluginId::SchedulingGates
    }

    fn as_gate(&self) -> Option<&dyn Gate> {
        Some(self)
    }

    fn may_help(&self, _pod: &PodView, event: &ClusterEvent<'_>) -> bool {
        matches!(event, ClusterEvent::Own { .. })
    }
}

impl Gate for SchedulingGates {
    fn is_open(&self, pod: &PodView) -> bool {
        pod.template.gates.is_empty()
    }
}
