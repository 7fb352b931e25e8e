//! Names of the plugins, and sets of them.

use std::fmt;

macro_rules! plugins {
    ($($id:ident),+ $(,)?) => {
        /// A plugin. The order is the one in which they run by default.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub(crate) enum PluginId {
            $($id),+,
            /// Stands for all extenders, which are no plugins.
            Extender,
        }

        impl PluginId {
            /// All plugins.
            pub(crate) const ALL: &[Self] = &[$(Self::$id),+];

            /// As configurations and metrics name it.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$id => stringify!($id)),+,
                    Self::Extender => "Extender",
                }
            }
        }
    };
}

plugins! {
    SchedulingGates,
    PrioritySort,
    NodeUnschedulable,
    NodeName,
    TaintToleration,
    NodeAffinity,
    NodePorts,
    NodeResourcesFit,
    VolumeRestrictions,
    NodeVolumeLimits,
    VolumeBinding,
    VolumeZone,
    PodTopologySpread,
    InterPodAffinity,
    DynamicResources,
    DefaultPreemption,
    NodeResourcesBalancedAllocation,
    ImageLocality,
    DefaultBinder,
    NodeDeclaredFeatures,
}

impl PluginId {
    /// The plugin of a name.
    pub(crate) fn find(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|p| p.name() == name).copied()
    }

    fn bit(self) -> u32 {
        1 << (self as u32)
    }
}

impl fmt::Display for PluginId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of plugins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PluginSet(u32);

impl PluginSet {
    pub(crate) fn insert(&mut self, plugin: PluginId) {
        self.0 |= plugin.bit();
    }

    pub(crate) fn contains(self, plugin: PluginId) -> bool {
        self.0 & plugin.bit() != 0
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = PluginId> {
        PluginId::ALL.iter().copied().chain([PluginId::Extender]).filter(move |p| self.contains(*p))
    }
}

impl Extend<PluginId> for PluginSet {
    fn extend<I: IntoIterator<Item = PluginId>>(&mut self, plugins: I) {
        plugins.into_iter().for_each(|p| self.insert(p));
    }
}

impl FromIterator<PluginId> for PluginSet {
    fn from_iter<I: IntoIterator<Item = PluginId>>(plugins: I) -> Self {
        let mut set = Self::default();
        plugins.into_iter().for_each(|p| set.insert(p));
        set
    }
}
