//! Metrics of the caches.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::Collector,
};

const LABELS: &[&str] = &["group", "resource"];
const READ_WAIT_BUCKETS: &[f64] = &[0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0];

/// Metrics of all caches of a process.
#[derive(Clone)]
pub struct CacheMetrics {
    events_received: IntCounterVec,
    store_events: IntCounterVec,
    events_dispatched: IntCounterVec,
    initializations: IntCounterVec,
    resource_version: IntGaugeVec,
    read_wait: HistogramVec,
    consistent_reads: IntCounterVec,
    capacity: IntGaugeVec,
    capacity_increase: IntCounterVec,
    capacity_decrease: IntCounterVec,
    init_events: IntCounterVec,
    terminated_watchers: IntCounterVec,
    list_total: IntCounterVec,
    list_fetched: IntCounterVec,
    list_returned: IntCounterVec,
    objects: IntGaugeVec,
    objects_old: IntGaugeVec,
    size: IntGaugeVec,
    decode_errors: IntCounterVec,
    consistency_checks: IntCounterVec,
}

fn added<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: Result<C, prometheus::Error>,
) -> Result<C, prometheus::Error> {
    let collector = collector?;
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

impl CacheMetrics {
    /// Registers the metrics.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            added(registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let gauge =
            |name: &str, help: &str, labels: &[&str]| added(registry, IntGaugeVec::new(Opts::new(name, help), labels));
        let wait = HistogramOpts::new(
            "apiserver_watch_cache_read_wait_seconds",
            "[ALPHA] Time that reads waited for the watch cache to become fresh.",
        );
        Ok(Self {
            events_received: counter(
                "apiserver_watch_cache_events_received_total",
                "[ALPHA] Events that the watch cache received.",
                LABELS,
            )?,
            store_events: counter(
                "apiserver_storage_events_received_total",
                "[BETA] Events received from storage.",
                LABELS,
            )?,
            events_dispatched: counter(
                "apiserver_watch_cache_events_dispatched_total",
                "[ALPHA] Events that the watch cache dispatched.",
                LABELS,
            )?,
            initializations: counter(
                "apiserver_watch_cache_initializations_total",
                "[ALPHA] Times that the watch cache was filled from storage.",
                LABELS,
            )?,
            resource_version: gauge(
                "apiserver_watch_cache_resource_version",
                "[ALPHA] Revision that the watch cache has reached.",
                LABELS,
            )?,
            read_wait: added(registry, HistogramVec::new(wait.buckets(READ_WAIT_BUCKETS.to_vec()), LABELS))?,
            consistent_reads: counter(
                "apiserver_watch_cache_consistent_read_total",
                "[ALPHA] Consistent reads from the watch cache.",
                &["group", "resource", "success", "fallback"],
            )?,
            capacity: gauge("watch_cache_capacity", "[ALPHA] Events that the watch cache has room for.", LABELS)?,
            capacity_increase: counter(
                "watch_cache_capacity_increase_total",
                "[ALPHA] Times that the watch cache grew.",
                LABELS,
            )?,
            capacity_decrease: counter(
                "watch_cache_capacity_decrease_total",
                "[ALPHA] Times that the watch cache shrank.",
                LABELS,
            )?,
            init_events: counter(
                "apiserver_init_events_total",
                "[ALPHA] Events sent to watchers when they started.",
                LABELS,
            )?,
            terminated_watchers: counter(
                "apiserver_terminated_watchers_total",
                "[ALPHA] Watchers closed because they were too slow.",
                LABELS,
            )?,
            list_total: counter(
                "apiserver_cache_list_total",
                "[ALPHA] Lists served from the watch cache.",
                &["group", "resource", "index"],
            )?,
            list_fetched: counter(
                "apiserver_cache_list_fetched_objects_total",
                "[ALPHA] Objects read from the watch cache for lists.",
                &["group", "resource", "index"],
            )?,
            list_returned: counter(
                "apiserver_cache_list_returned_objects_total",
                "[ALPHA] Objects returned by lists from the watch cache.",
                LABELS,
            )?,
            objects: gauge("apiserver_resource_objects", "[ALPHA] Number of stored objects.", LABELS)?,
            objects_old: gauge(
                "apiserver_storage_objects",
                "[STABLE] (Deprecated since 1.34.0) Number of stored objects.",
                &["resource"],
            )?,
            size: gauge("apiserver_resource_size_estimate_bytes", "[ALPHA] Estimated size of stored objects.", LABELS)?,
            decode_errors: counter(
                "apiserver_storage_decode_errors_total",
                "[ALPHA] Stored objects that could not be decoded.",
                LABELS,
            )?,
            consistency_checks: counter(
                "apiserver_storage_consistency_checks_total",
                "[ALPHA] Comparisons of the watch cache with storage.",
                &["group", "resource", "status"],
            )?,
        })
    }

    /// The metrics of one resource.
    pub(super) fn of(&self, group: &str, resource: &str) -> ResourceMetrics {
        let labels = &[group, resource];
        let full = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
        ResourceMetrics {
            events_received: self.events_received.with_label_values(labels),
            store_events: self.store_events.with_label_values(labels),
            events_dispatched: self.events_dispatched.with_label_values(labels),
            initializations: self.initializations.with_label_values(labels),
            resource_version: self.resource_version.with_label_values(labels),
            read_wait: self.read_wait.with_label_values(labels),
            capacity: self.capacity.with_label_values(labels),
            capacity_increase: self.capacity_increase.with_label_values(labels),
            capacity_decrease: self.capacity_decrease.with_label_values(labels),
            init_events: self.init_events.with_label_values(labels),
            terminated_watchers: self.terminated_watchers.with_label_values(labels),
            full,
            decode_errors: self.decode_errors.with_label_values(labels),
            all: self.clone(),
            group: group.to_owned(),
            resource: resource.to_owned(),
        }
    }
}

/// Metrics of one cache.
pub(super) struct ResourceMetrics {
    pub(super) events_received: IntCounter,
    pub(super) store_events: IntCounter,
    pub(super) events_dispatched: IntCounter,
    pub(super) initializations: IntCounter,
    pub(super) resource_version: IntGauge,
    pub(super) read_wait: Histogram,
    pub(super) capacity: IntGauge,
    pub(super) capacity_increase: IntCounter,
    pub(super) capacity_decrease: IntCounter,
    pub(super) init_events: IntCounter,
    pub(super) terminated_watchers: IntCounter,
    pub(super) decode_errors: IntCounter,
    all: CacheMetrics,
    /// `resource.group`.
    full: String,
    group: String,
    resource: String,
}

impl ResourceMetrics {
    /// How many objects there are, and how large they are.
    pub(super) fn count(&self, objects: i64, bytes: i64) {
        let labels = &[self.group.as_str(), &self.resource];
        self.all.objects.with_label_values(labels).set(objects);
        self.all.objects_old.with_label_values(&[&self.full]).set(objects);
        self.all.size.with_label_values(labels).set(bytes);
    }

    /// That nobody knows.
    pub(super) fn count_unknown(&self) {
        self.count(-1, -1);
    }

    /// A consistent read: whether the cache could serve it, and whether storage did.
    pub(super) fn consistent_read(&self, success: bool, fallback: bool) {
        let text = |flag| if flag { "true" } else { "false" };
        let labels = &[self.group.as_str(), &self.resource, text(success), text(fallback)];
        self.all.consistent_reads.with_label_values(labels).inc();
    }

    /// A list served from the cache by an index (empty for none).
    pub(super) fn list(&self, index: &str, fetched: u64, returned: u64) {
        let labels = &[self.group.as_str(), &self.resource, index];
        self.all.list_total.with_label_values(labels).inc();
        self.all.list_fetched.with_label_values(labels).inc_by(fetched);
        self.all.list_returned.with_label_values(&labels[..2]).inc_by(returned);
    }

    /// A comparison with the store.
    pub(super) fn consistency_check(&self, status: &str) {
        self.all.consistency_checks.with_label_values(&[self.group.as_str(), &self.resource, status]).inc();
    }

    /// The room of the ring.
    pub(super) fn set_capacity(&self, capacity: usize) {
        let (old, new) = (self.capacity.get(), capacity as i64);
        if new == old {
            return;
        }
        self.capacity.set(new);
        if old > 0 {
            if new > old { self.capacity_increase.inc() } else { self.capacity_decrease.inc() }
        }
    }
}
