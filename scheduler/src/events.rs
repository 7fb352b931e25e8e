//! What happens in the cluster that may make a waiting Pod schedulable.

use crate::{
    devices::DeviceChange,
    framework::PluginId,
    objects::{NodeView, PodView},
};

/// A change of a node that matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeChange {
    pub(crate) allocatable: bool,
    pub(crate) labels: bool,
    pub(crate) taints: bool,
    /// What the node declares that it can do.
    pub(crate) features: bool,
}

impl NodeChange {
    /// What differs. Images do not make a node fit.
    pub(crate) fn between(old: &NodeView, new: &NodeView) -> Self {
        Self {
            allocatable: old.allocatable != new.allocatable || old.allowed_pods != new.allowed_pods,
            labels: old.labels != new.labels,
            taints: old.taints != new.taints || old.unschedulable != new.unschedulable,
            features: old.features != new.features,
        }
    }

    pub(crate) fn any(self) -> bool {
        self.allocatable || self.labels || self.taints || self.features
    }
}

/// An event.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ClusterEvent<'a> {
    NodeAdded(&'a NodeView),
    NodeChanged {
        new: &'a NodeView,
        change: NodeChange,
    },
    NodeDeleted,
    /// A Pod got a node.
    PodAssigned(&'a PodView),
    /// A Pod on a node changed its labels or needs less.
    PodChanged {
        old: &'a PodView,
        new: &'a PodView,
    },
    /// A Pod on a node, or one that was to come to it, is gone.
    PodDeleted(&'a PodView),
    /// The waiting Pod itself changed.
    Own {
        old: &'a PodView,
        new: &'a PodView,
    },
    NamespaceChanged,
    /// A claim, a volume or a class of volumes changed.
    StorageChanged,
    /// A claim of devices changed, or what is offered.
    DevicesChanged(&'a DeviceChange),
}

impl ClusterEvent<'_> {
    /// As metrics name it.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::NodeAdded(_) => "NodeAdd",
            Self::NodeChanged { change, .. } if change.allocatable => "NodeUpdateNodeAllocatable",
            Self::NodeChanged { change, .. } if change.labels => "NodeUpdateNodeLabel",
            Self::NodeChanged { change, .. } if change.taints => "NodeUpdateNodeTaint",
            Self::NodeChanged { .. } => "NodeUpdateNodeDeclaredFeature",
            Self::NodeDeleted => "NodeDelete",
            Self::PodAssigned(_) => "AssignedPodAdd",
            Self::PodChanged { .. } => "AssignedPodUpdate",
            Self::PodDeleted(_) => "AssignedPodDelete",
            Self::Own { .. } => "UnscheduledPodUpdate",
            Self::NamespaceChanged => "NamespaceUpdate",
            Self::StorageChanged => "PersistentVolumeClaimUpdate",
            Self::DevicesChanged(DeviceChange::Claim { .. }) => "ResourceClaimUpdate",
            Self::DevicesChanged(DeviceChange::Offer) => "ResourceSliceUpdate",
            Self::DevicesChanged(DeviceChange::Class) => "DeviceClassUpdate",
        }
    }

    /// Whether the event can ever help a Pod that `plugin` rejected: a first look, before each Pod is asked.
    pub(crate) fn concerns(&self, plugin: PluginId) -> bool {
        // Nobody knows what an extender waits for.
        if plugin == PluginId::Extender {
            return true;
        }
        match self {
            Self::PodAssigned(_) => matches!(plugin, PluginId::InterPodAffinity | PluginId::PodTopologySpread),
            Self::NamespaceChanged => plugin == PluginId::InterPodAffinity,
            Self::NodeDeleted => plugin == PluginId::PodTopologySpread,
            Self::DevicesChanged(DeviceChange::Class) => {
                matches!(plugin, PluginId::DynamicResources | PluginId::NodeResourcesFit)
            }
            Self::DevicesChanged(_) => plugin == PluginId::DynamicResources,
            Self::StorageChanged => matches!(
                plugin,
                PluginId::VolumeBinding
                    | PluginId::VolumeZone
                    | PluginId::VolumeRestrictions
                    | PluginId::NodeVolumeLimits
            ),
            Self::NodeAdded(_)
            | Self::NodeChanged { .. }
            | Self::PodChanged { .. }
            | Self::PodDeleted(_)
            | Self::Own { .. } => true,
        }
    }

    /// Whether a node came, or changed in the way that `what` tells.
    pub(crate) fn node_changed(&self, what: impl Fn(NodeChange) -> bool) -> bool {
        match self {
            Self::NodeAdded(_) => true,
            Self::NodeChanged { change, .. } => what(*change),
            _ => false,
        }
    }
}
