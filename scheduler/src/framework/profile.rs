//! A profile: the plugins that place the Pods of one scheduler name.

use std::sync::Arc;

use super::{Filter, Gate, PluginId, Score, SharedPlugin};

/// A plugin that scores, with its weight.
#[derive(Clone)]
pub(crate) struct Scorer {
    pub(crate) plugin: SharedPlugin,
    pub(crate) weight: i64,
}

/// See the module. The lists are in the order in which the plugins run.
#[derive(Clone, Default)]
pub(crate) struct Profile {
    pub(crate) scheduler_name: String,
    /// Share of the nodes to find before scoring; 0 adapts it to their number.
    pub(crate) percentage: i32,
    pub(crate) gates: Vec<SharedPlugin>,
    pub(crate) filters: Vec<SharedPlugin>,
    pub(crate) scorers: Vec<Scorer>,
    /// Settings of DefaultPreemption, if it is enabled.
    pub(crate) preemption: Option<crate::plugins::default_preemption::DefaultPreemption>,
    /// Finds volumes for claims, if VolumeBinding is enabled, and how long that may take.
    pub(crate) volumes: Option<(Arc<crate::plugins::volumes::Storage>, std::time::Duration)>,
    /// Finds devices for claims, if DynamicResources is enabled, and how long they may take to be ready.
    pub(crate) devices: Option<(Arc<crate::devices::Devices>, std::time::Duration)>,
    /// Whether DynamicResources takes part after filtering.
    pub(crate) claims: bool,
    /// Every plugin that takes part anywhere: who may know what an event is good for.
    pub(crate) plugins: Vec<SharedPlugin>,
}

impl Profile {
    pub(crate) fn gates(&self) -> impl Iterator<Item = (PluginId, &dyn Gate)> {
        self.gates.iter().filter_map(|p| p.as_gate().map(|g| (p.id(), g)))
    }

    pub(crate) fn filters(&self) -> impl Iterator<Item = (PluginId, &dyn Filter)> {
        self.filters.iter().filter_map(|p| p.as_filter().map(|f| (p.id(), f)))
    }

    pub(crate) fn scores(&self) -> impl Iterator<Item = (PluginId, i64, &dyn Score)> {
        self.scorers.iter().filter_map(|s| s.plugin.as_score().map(|p| (s.plugin.id(), s.weight, p)))
    }

    pub(crate) fn find(&self, plugin: PluginId) -> Option<&SharedPlugin> {
        self.plugins.iter().find(|p| p.id() == plugin)
    }
}
