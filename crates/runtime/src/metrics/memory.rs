//! What dashboards of Go programs read of memory: the same questions, answered from what the kernel knows.

use std::collections::HashMap;

use prometheus::{
    IntGauge,
    core::{Collector, Desc},
    proto::{Metric, MetricFamily, MetricType, Quantile, Summary},
};

/// Name, what it says, and the lines of `/proc/self/status` it is the sum of.
const GAUGES: [(&str, &str, &[&str]); 8] = [
    ("go_memstats_alloc_bytes", "Number of bytes allocated in heap and currently in use.", &["RssAnon"]),
    ("go_memstats_heap_alloc_bytes", "Number of heap bytes allocated and currently in use.", &["RssAnon"]),
    ("go_memstats_heap_inuse_bytes", "Number of heap bytes that are in use.", &["RssAnon"]),
    ("go_memstats_heap_sys_bytes", "Number of heap bytes obtained from system.", &["VmData"]),
    ("go_memstats_stack_inuse_bytes", "Number of bytes obtained from system for stack allocator.", &["VmStk"]),
    ("go_memstats_stack_sys_bytes", "Number of bytes obtained from system for stack allocator.", &["VmStk"]),
    ("go_memstats_sys_bytes", "Number of bytes obtained from system.", &["VmData", "VmStk"]),
    ("go_memstats_other_sys_bytes", "Number of bytes used for other system allocations.", &["VmPTE"]),
];
const PAUSES: &str = "go_gc_duration_seconds";

/// The collector.
pub(super) struct Memory {
    gauges: Vec<IntGauge>,
    pauses: Desc,
}

impl Memory {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let gauges = GAUGES.iter().map(|(name, help, _)| IntGauge::new(*name, *help)).collect::<Result<_, _>>()?;
        let help = "A summary of the wall-time pause (stop-the-world) duration in garbage collection cycles.";
        Ok(Self { gauges, pauses: Desc::new(PAUSES.to_owned(), help.to_owned(), Vec::new(), HashMap::new())? })
    }

    /// There is no garbage collection and so there are no pauses.
    fn no_pauses(&self) -> MetricFamily {
        let mut summary = Summary::default();
        let quantiles = [0.0, 0.25, 0.5, 0.75, 1.0].map(|at| {
            let mut quantile = Quantile::default();
            quantile.set_quantile(at);
            quantile.set_value(0.0);
            quantile
        });
        summary.set_quantile(quantiles.into());
        summary.set_sample_count(0);
        summary.set_sample_sum(0.0);
        let mut metric = Metric::default();
        metric.set_summary(summary);
        let mut family = MetricFamily::default();
        family.set_name(self.pauses.fq_name.clone());
        family.set_help(self.pauses.help.clone());
        family.set_field_type(MetricType::SUMMARY);
        family.set_metric(vec![metric]);
        family
    }
}

impl Collector for Memory {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges.iter().flat_map(Collector::desc).chain([&self.pauses]).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let bytes = |name: &&str| {
            let line = status.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
            let kilobytes = line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse::<i64>().ok());
            kilobytes.unwrap_or(0).saturating_mul(1024)
        };
        for (gauge, (_, _, parts)) in self.gauges.iter().zip(GAUGES) {
            gauge.set(parts.iter().map(bytes).sum());
        }
        self.gauges.iter().flat_map(Collector::collect).chain([self.no_pauses()]).collect()
    }
}
