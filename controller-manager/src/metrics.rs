//! Metrics of single controllers, under the names by which dashboards know them.

use std::{collections::HashMap, sync::Arc};

use ::controller::ObjectKey;
use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;
use prometheus::{GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};
use runtime::metrics::{self, Stability, exponential_buckets};

type Made<T> = Result<T, prometheus::Error>;

/// Seconds up to which evictions by taints are told apart.
const EVICTION_BUCKETS: [f64; 12] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0, 120.0, 180.0, 240.0];

/// Whole seconds that passed from one moment to another; none if that comes first.
pub(crate) fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    f64::from(u32::try_from(to.as_second() - from.as_second()).unwrap_or(0))
}

/// All of them. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) jobs: JobMetrics,
    /// Seconds between a CronJob's time and its Job.
    pub(crate) cronjob_skew: Histogram,
    pub(crate) nodes: NodeMetrics,
    pub(crate) taint_evictions: EvictionMetrics,
    pub(crate) device_taint_evictions: EvictionMetrics,
    pub(crate) slices: SliceMetrics,
    /// By namespace and reason.
    pub(crate) collected_pods: IntCounterVec,
    /// By code.
    pub(crate) published_bundles: IntCounterVec,
    /// Seconds between the end of a finished Job's time and its deletion.
    pub(crate) job_deletion: Histogram,
    /// Failures of the garbage collector to follow the resources of the server.
    pub(crate) resource_sync_errors: IntCounter,
    /// By plugin, operation, status and whether the volume was of a plugin that is gone.
    pub(crate) storage_operations: HistogramVec,
    /// By status and whether administrators asked.
    pub(crate) created_claims: IntCounterVec,
    pub(crate) ranges: RangeMetrics,
}

/// `node_ipam_controller_*`, by range of the cluster.
#[derive(Clone)]
pub(crate) struct RangeMetrics {
    pub(crate) allocations: IntCounterVec,
    pub(crate) releases: IntCounterVec,
    /// Share of the blocks that are in use.
    pub(crate) usage: GaugeVec,
    pub(crate) size: IntGaugeVec,
    /// Blocks that were looked at for one.
    pub(crate) tries: HistogramVec,
}

impl RangeMetrics {
    fn new(registry: &Registry) -> Made<Self> {
        use Stability::Alpha;
        let by = ["clusterCIDR"];
        let name = |what: &str| format!("node_ipam_controller_{what}");
        let counter = |what: &str, help: &str| metrics::counter_vec(registry, Alpha, &name(what), help, &by);
        let usage = "Gauge measuring percentage of allocated CIDRs.";
        let size = "Maximum number of CIDRs that can be allocated.";
        Ok(Self {
            allocations: counter(
                "cidrset_cidrs_allocations_total",
                "Counter measuring total number of CIDR allocations.",
            )?,
            releases: counter("cidrset_cidrs_releases_total", "Counter measuring total number of CIDR releases.")?,
            usage: metrics::float_gauge_vec(registry, Alpha, &name("cidrset_usage_cidrs"), usage, &by)?,
            // Dashboards know it by this name.
            size: metrics::gauge_vec(registry, Alpha, &name("cirdset_max_cidrs"), size, &by)?,
            tries: metrics::histogram_vec(
                registry,
                Alpha,
                &name("cidrset_allocation_tries_per_request"),
                "Number of endpoints added on each Service sync",
                &by,
                &exponential_buckets(1.0, 5.0, 5),
            )?,
        })
    }
}

/// `job_controller_*`.
#[derive(Clone)]
pub(crate) struct JobMetrics {
    /// By action, completion mode and result.
    pub(crate) syncs: IntCounterVec,
    pub(crate) durations: HistogramVec,
    /// By completion mode, result and reason.
    pub(crate) finished: IntCounterVec,
    /// By completion mode and result.
    pub(crate) finished_pods: IntCounterVec,
}

/// `node_collector_*`, by zone.
#[derive(Clone)]
pub(crate) struct NodeMetrics {
    pub(crate) evictions: IntCounterVec,
    /// Percentage of nodes that are ready.
    pub(crate) health: IntGaugeVec,
    pub(crate) size: IntGaugeVec,
    pub(crate) unhealthy: IntGaugeVec,
}

/// Deletions of Pods for taints.
#[derive(Clone)]
pub(crate) struct EvictionMetrics {
    pub(crate) deletions: IntCounter,
    /// Seconds from when a Pod was to go to its deletion.
    pub(crate) durations: Histogram,
}

/// `endpoint_slice_controller_*`.
#[derive(Clone)]
pub(crate) struct SliceMetrics {
    endpoints: IntGauge,
    desired: IntGauge,
    actual: IntGauge,
    /// By operation.
    pub(crate) changes: IntCounterVec,
    /// By result.
    pub(crate) syncs: IntCounterVec,
    /// What each Service adds.
    known: Arc<Mutex<HashMap<ObjectKey, [i64; 3]>>>,
}

impl SliceMetrics {
    /// Endpoints, slices that these need at least, and slices that there are, of a Service; `None` if it is gone.
    pub(crate) fn set(&self, service: &ObjectKey, counts: Option<[i64; 3]>) {
        let mut known = self.known.lock();
        let before = match counts {
            Some(counts) => known.insert(service.clone(), counts),
            None => known.remove(service),
        };
        drop(known);
        let (before, now) = (before.unwrap_or_default(), counts.unwrap_or_default());
        for (gauge, (before, now)) in
            [&self.endpoints, &self.desired, &self.actual].into_iter().zip(before.into_iter().zip(now))
        {
            gauge.add(now - before);
        }
    }
}

impl Metrics {
    /// Registers all.
    pub(crate) fn new(registry: &Registry) -> Made<Self> {
        use Stability::{Alpha, Stable};
        let counters =
            |level, name: &str, help: &str, labels: &[&str]| metrics::counter_vec(registry, level, name, help, labels);
        let gauges = |name: &str, help: &str| metrics::gauge_vec(registry, Alpha, name, help, &["zone"]);
        let gauge = |name: &str, help: &str| metrics::gauge(registry, Alpha, name, help);
        let syncs = exponential_buckets(0.004, 2.0, 15);
        let (by_sync, ended) = (["action", "completion_mode", "result"], ["completion_mode", "result", "reason"]);
        Ok(Self {
            jobs: JobMetrics {
                syncs: counters(Stable, "job_controller_job_syncs_total", "The number of job syncs", &by_sync)?,
                durations: metrics::histogram_vec(
                    registry,
                    Stable,
                    "job_controller_job_sync_duration_seconds",
                    "The time it took to sync a job",
                    &by_sync,
                    &syncs,
                )?,
                finished: counters(
                    Stable,
                    "job_controller_jobs_finished_total",
                    "The number of finished jobs",
                    &ended,
                )?,
                finished_pods: counters(
                    Stable,
                    "job_controller_job_pods_finished_total",
                    "The number of finished Pods that are fully tracked",
                    &["completion_mode", "result"],
                )?,
            },
            cronjob_skew: metrics::histogram(
                registry,
                Stable,
                "cronjob_controller_job_creation_skew_duration_seconds",
                "Time between when a cronjob is scheduled to be run, and when the corresponding job is created",
                &exponential_buckets(1.0, 2.0, 10),
            )?,
            nodes: NodeMetrics {
                evictions: counters(
                    Stable,
                    "node_collector_evictions_total",
                    "Number of Node evictions that happened since current instance of NodeController started.",
                    &["zone"],
                )?,
                health: gauges("node_collector_zone_health", "Gauge measuring percentage of healthy nodes per zone.")?,
                size: gauges("node_collector_zone_size", "Gauge measuring number of registered Nodes per zones.")?,
                unhealthy: gauges(
                    "node_collector_unhealthy_nodes_in_zone",
                    "Gauge measuring number of not Ready Nodes per zones.",
                )?,
            },
            taint_evictions: EvictionMetrics::new(registry, "taint_eviction_controller")?,
            device_taint_evictions: EvictionMetrics::new(registry, "device_taint_eviction_controller")?,
            slices: SliceMetrics {
                endpoints: gauge("endpoint_slice_controller_endpoints_desired", "Number of endpoints desired")?,
                desired: gauge(
                    "endpoint_slice_controller_desired_endpoint_slices",
                    "Number of EndpointSlices that would exist with perfect endpoint allocation",
                )?,
                actual: gauge("endpoint_slice_controller_num_endpoint_slices", "Number of EndpointSlices")?,
                changes: counters(
                    Alpha,
                    "endpoint_slice_controller_changes",
                    "Number of EndpointSlice changes",
                    &["operation"],
                )?,
                syncs: counters(
                    Alpha,
                    "endpoint_slice_controller_syncs",
                    "Number of EndpointSlice syncs",
                    &["result"],
                )?,
                known: Arc::default(),
            },
            collected_pods: counters(
                Alpha,
                "pod_gc_collector_force_delete_pods_total",
                "Number of pods that are being forcefully deleted since the Pod GC Controller started.",
                &["namespace", "reason"],
            )?,
            published_bundles: counters(
                Alpha,
                "root_ca_cert_publisher_sync_total",
                "Number of namespace syncs happened in root ca cert publisher.",
                &["code"],
            )?,
            job_deletion: metrics::histogram(
                registry,
                Alpha,
                "ttl_after_finished_controller_job_deletion_duration_seconds",
                "The time it took to delete the job since it became eligible for deletion",
                &exponential_buckets(0.1, 2.0, 14),
            )?,
            resource_sync_errors: metrics::counter(
                registry,
                Alpha,
                "garbagecollector_controller_resources_sync_error_total",
                "Number of garbage collector resources sync errors",
            )?,
            storage_operations: metrics::histogram_vec(
                registry,
                Alpha,
                "storage_operation_duration_seconds",
                "Storage operation duration",
                &["volume_plugin", "operation_name", "status", "migrated"],
                &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 25.0, 50.0, 120.0, 300.0, 600.0],
            )?,
            created_claims: counters(
                Alpha,
                "resourceclaim_controller_creates_total",
                "Number of ResourceClaims creation requests, categorized by creation status and admin access",
                &["status", "admin_access"],
            )?,
            ranges: RangeMetrics::new(registry)?,
        })
    }
}

impl EvictionMetrics {
    fn new(registry: &Registry, subsystem: &str) -> Made<Self> {
        let help = "Total number of Pods deleted by the controller since its start.";
        let name = format!("{subsystem}_pod_deletions_total");
        let deletions = metrics::counter(registry, Stability::Alpha, &name, help)?;
        let help = "Latency, in seconds, between the time when a taint effect has been activated for the Pod and its \
                    deletion.";
        let name = format!("{subsystem}_pod_deletion_duration_seconds");
        let durations = metrics::histogram(registry, Stability::Alpha, &name, help, &EVICTION_BUCKETS)?;
        Ok(Self { deletions, durations })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_add_up() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        let (a, b) = (ObjectKey::new("ns", "a"), ObjectKey::new("ns", "b"));
        metrics.slices.set(&a, Some([3, 1, 2]));
        metrics.slices.set(&b, Some([1, 1, 1]));
        metrics.slices.set(&a, Some([5, 1, 1]));
        metrics.slices.set(&b, None);
        let text = metrics::expose(&registry);
        for line in [
            "endpoint_slice_controller_endpoints_desired 5",
            "endpoint_slice_controller_desired_endpoint_slices 1",
            "endpoint_slice_controller_num_endpoint_slices 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }
}
