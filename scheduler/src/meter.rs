//! What an attempt to place a Pod did, by plugin and extension point; told to the metrics when it is over, so that
//! counting costs the search next to nothing.

use std::{
    cell::{Cell, RefCell},
    time::{Duration, Instant},
};

use rand::Rng;

use crate::{
    config::Point,
    framework::{Denial, PluginId},
    metrics::Metrics,
};

/// Of so many attempts one has its plugins timed.
const SAMPLED: u32 = 10;
const PLUGINS: usize = PluginId::ALL.len();
/// The points where evaluations are counted.
const COUNTED: [Point; 4] = [Point::PreFilter, Point::Filter, Point::PreScore, Point::Score];

/// How a plugin, or all of a point, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Success,
    Skip,
    Unschedulable,
    /// Not even preemption helps.
    Unresolvable,
    Error,
}

impl Status {
    /// As metrics name it.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Success => "Success",
            Self::Skip => "Skip",
            Self::Unschedulable => "Unschedulable",
            Self::Unresolvable => "UnschedulableAndUnresolvable",
            Self::Error => "Error",
        }
    }

    /// What a filter said.
    pub(crate) fn of_filter(outcome: &Result<(), Denial>) -> Self {
        match outcome {
            Ok(()) => Self::Success,
            Err(denial) if denial.resolvable => Self::Unschedulable,
            Err(_) => Self::Unresolvable,
        }
    }
}

/// Whether the plugins of an attempt are timed.
pub(crate) fn sampled() -> bool {
    rand::rng().random_ratio(1, SAMPLED)
}

/// See the module.
pub(crate) struct Meter {
    sampled: bool,
    evaluations: [[Cell<u32>; COUNTED.len()]; PLUGINS],
    points: RefCell<Vec<(Point, Status, Duration)>>,
    plugins: RefCell<Vec<(PluginId, Point, Status, Duration)>>,
}

impl Meter {
    pub(crate) fn new() -> Self {
        Self {
            sampled: sampled(),
            evaluations: Default::default(),
            points: RefCell::default(),
            plugins: RefCell::default(),
        }
    }

    /// Whether plugins are timed.
    pub(crate) fn is_sampled(&self) -> bool {
        self.sampled
    }

    /// Runs a plugin at a point.
    pub(crate) fn plugin<T>(
        &self,
        plugin: PluginId,
        point: Point,
        status: impl FnOnce(&T) -> Status,
        work: impl FnOnce() -> T,
    ) -> T {
        if !self.sampled {
            return work();
        }
        let began = Instant::now();
        let done = work();
        self.plugins.borrow_mut().push((plugin, point, status(&done), began.elapsed()));
        done
    }

    /// A plugin looked at the Pod, or at so many nodes.
    pub(crate) fn evaluated(&self, plugin: PluginId, point: Point, times: usize) {
        let row = self.evaluations.get(plugin as usize);
        if let (Some(row), Some(column)) = (row, COUNTED.iter().position(|p| *p == point)) {
            let times = u32::try_from(times).unwrap_or(u32::MAX);
            row[column].set(row[column].get().saturating_add(times));
        }
    }

    /// All plugins of a point ran.
    pub(crate) fn point(&self, point: Point, status: Status, took: Duration) {
        self.points.borrow_mut().push((point, status, took));
    }

    /// Tells the metrics.
    pub(crate) fn tell(self, metrics: &Metrics, profile: &str) {
        for (plugin, row) in PluginId::ALL.iter().zip(&self.evaluations) {
            for (point, times) in COUNTED.iter().zip(row).filter(|(_, times)| times.get() > 0) {
                metrics.evaluated(*plugin, *point, profile, times.get());
            }
        }
        for (point, status, took) in self.points.into_inner() {
            metrics.ran(point, status, profile, took);
        }
        for (plugin, point, status, took) in self.plugins.into_inner() {
            metrics.plugin_ran(plugin, point, status, took);
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;

    #[test]
    fn what_was_done_is_told() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        let meter = Meter { sampled: true, ..Meter::new() };
        let done = meter.plugin(PluginId::NodePorts, Point::Filter, |_| Status::Skip, || 7);
        assert_eq!(done, 7);
        meter.evaluated(PluginId::NodePorts, Point::Filter, 3);
        meter.evaluated(PluginId::NodePorts, Point::Reserve, 3);
        meter.point(Point::PreFilter, Status::Unresolvable, Duration::from_millis(1));
        meter.tell(&metrics, "p");
        let text = runtime::metrics::expose(&registry);
        for line in [
            "scheduler_plugin_evaluation_total{extension_point=\"Filter\",plugin=\"NodePorts\",profile=\"p\"} 3",
            "scheduler_plugin_execution_duration_seconds_count{extension_point=\"Filter\",plugin=\"NodePorts\",status=\"Skip\"} 1",
            "scheduler_framework_extension_point_duration_seconds_count{extension_point=\"PreFilter\",profile=\"p\",status=\"UnschedulableAndUnresolvable\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        assert!(!text.contains("Reserve"), "{text}");
    }
}
