//! The kubelet's own metric series, registered in one process-wide registry of names given by the metrics contract.

mod allot;
mod images;
mod node;
mod pods;

use std::sync::LazyLock;
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

pub use allot::AllotSeries;
pub use images::{ImageSeries, size_label};
pub use node::{NodeSeries, PodResourcesSeries, StartupSeries};
pub use pods::PodSeries;

const POD_START: [f64; 25] = [
    0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 20.0, 30.0, 45.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0, 480.0,
    600.0, 900.0, 1200.0, 1800.0, 2700.0, 3600.0,
];

/// All series of the kubelet.
pub struct Metrics {
    /// Lives of Pods.
    pub pods: PodSeries,
    /// Images.
    pub images: ImageSeries,
    /// What containers get for themselves.
    pub allot: AllotSeries,
    /// The node.
    pub node: NodeSeries,
    /// Series of `/metrics`.
    pub registry: Registry,
    /// Series of `/metrics/probes`.
    pub probe_registry: Registry,
    runtime_operations: IntCounterVec,
    runtime_errors: IntCounterVec,
    runtime_duration: HistogramVec,
    /// `kubelet_pleg_relist_duration_seconds`
    pub relist_duration: Histogram,
    /// `kubelet_pleg_relist_interval_seconds`
    pub relist_interval: Histogram,
    /// `kubelet_pleg_last_seen_seconds`
    pub relist_last_seen: Gauge,
    /// `kubelet_pleg_discard_events`
    pub relist_discarded: IntCounter,
    /// `kubelet_running_pods`
    pub running_pods: IntGauge,
    /// `kubelet_running_containers`
    pub running_containers: IntGaugeVec,
    /// `kubelet_desired_pods`
    pub desired_pods: IntGaugeVec,
    /// `kubelet_mirror_pods`
    pub mirror_pods: IntGauge,
    /// `kubelet_node_name`
    pub node_name: IntGaugeVec,
    /// `kubelet_started_pods_total`
    pub started_pods: IntCounter,
    /// `kubelet_started_pods_errors_total`
    pub started_pods_errors: IntCounter,
    /// `kubelet_started_containers_total`
    pub started_containers: IntCounterVec,
    /// `kubelet_started_containers_errors_total`
    pub started_containers_errors: IntCounterVec,
    /// `kubelet_pod_worker_duration_seconds`
    pub worker_duration: HistogramVec,
    /// `kubelet_pod_start_duration_seconds`
    pub pod_start: Histogram,
    /// `kubelet_pod_status_sync_duration_seconds`
    pub status_sync: Histogram,
    /// `kubelet_cgroup_manager_duration_seconds`
    pub cgroup_duration: HistogramVec,
    /// `kubelet_graceful_shutdown_start_time_seconds`
    pub shutdown_start: Gauge,
    /// `kubelet_graceful_shutdown_end_time_seconds`
    pub shutdown_end: Gauge,
    /// `kubelet_evictions`
    pub evictions: IntCounterVec,
    /// `kubelet_preemptions`
    pub preemptions: IntCounterVec,
    /// `kubelet_admission_rejections_total`
    pub admission_rejections: IntCounterVec,
    /// `kubelet_container_requested_resizes_total`
    pub requested_resizes: IntCounterVec,
    /// `kubelet_pod_infeasible_resizes_total`
    pub infeasible_resizes: IntCounterVec,
    /// `kubelet_pod_pending_resizes`
    pub pending_resizes: IntGaugeVec,
    /// `kubelet_pod_in_progress_resizes`
    pub in_progress_resizes: IntGauge,
    /// `kubelet_image_garbage_collected_total`
    pub images_collected: IntCounterVec,
    /// `kubelet_orphaned_runtime_pods_total`
    pub orphaned_pods: IntCounter,
    /// `kubelet_restarted_pods_total`
    pub restarted_pods: IntCounterVec,
    /// `kubelet_http_requests_total`
    pub http_requests: IntCounterVec,
    /// `kubelet_http_requests_duration_seconds`
    pub http_duration: HistogramVec,
    /// `kubelet_http_inflight_requests`
    pub http_inflight: IntGaugeVec,
    /// `kubelet_certificate_manager_client_ttl_seconds`
    pub client_ttl: Gauge,
    /// `kubelet_certificate_manager_server_ttl_seconds`
    pub server_ttl: Gauge,
    /// End of the client certificate.
    pub client_expiry: Expiry,
    /// End of the serving certificate.
    pub server_expiry: Expiry,
    /// `kubelet_certificate_manager_client_expiration_renew_errors`
    pub client_renew_errors: IntCounter,
    /// `kubelet_server_expiration_renew_errors`
    pub server_renew_errors: IntCounter,
    /// `volume_manager_total_volumes`
    pub volumes: GaugeVec,
    /// `storage_operation_duration_seconds`
    pub storage_operations: HistogramVec,
    /// `kubelet_device_plugin_registration_total`
    pub device_registrations: IntCounterVec,
    /// `kubelet_device_plugin_alloc_duration_seconds`
    pub device_alloc: HistogramVec,
    /// `dra_grpc_operations_duration_seconds`
    pub dra_calls: HistogramVec,
    /// `kubelet_volume_stats_*`: capacity, available, used bytes; inodes, free, used; abnormal health.
    pub volume_stats: [GaugeVec; 7],
    /// `csi_operations_seconds`
    pub csi_operations: HistogramVec,
    /// `prober_probe_total`
    pub probes: IntCounterVec,
    /// `prober_probe_duration_seconds`
    pub probe_duration: HistogramVec,
}

/// The series of this process.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// Counts one call to the runtime.
pub fn runtime_operation(operation: &str, elapsed: Duration, failed: bool) {
    METRICS.runtime_operations.with_label_values(&[operation]).inc();
    METRICS.runtime_duration.with_label_values(&[operation]).observe(elapsed.as_secs_f64());
    if failed {
        METRICS.runtime_errors.with_label_values(&[operation]).inc();
    }
}

/// `count` buckets from `first` on, each `factor` times the one before.
fn exponential(first: f64, factor: f64, count: i32) -> Vec<f64> {
    (0..count).map(|n| first * factor.powi(n)).collect()
}

struct Builder(Registry);

impl Builder {
    fn add<C: prometheus::core::Collector + Clone + 'static>(&self, made: Result<C, prometheus::Error>) -> C {
        match made {
            Ok(collector) => {
                if let Err(error) = self.0.register(Box::new(collector.clone())) {
                    tracing::error!(%error, "metric not registered");
                }
                collector
            }
            // Names and label lists are constants of this file.
            Err(error) => unreachable!("metric definition: {error}"),
        }
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::new(name, alpha(help)))
    }

    fn beta_counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::new(name, format!("[BETA] {help}")))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.add(IntCounterVec::new(Opts::new(name, alpha(help)), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.add(Gauge::new(name, alpha(help)))
    }

    fn int_gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::new(name, alpha(help)))
    }

    fn int_gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.add(IntGaugeVec::new(Opts::new(name, alpha(help)), labels))
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.add(Histogram::with_opts(HistogramOpts::new(name, alpha(help)).buckets(buckets.to_vec())))
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
        self.add(HistogramVec::new(HistogramOpts::new(name, alpha(help)).buckets(buckets.to_vec()), labels))
    }
}

fn alpha(help: &str) -> String {
    format!("[ALPHA] {help}")
}

/// When a certificate ends; unknown at first.
#[derive(Default)]
pub struct Expiry(parking_lot::Mutex<Option<jiff::Timestamp>>);

impl Expiry {
    /// There is a certificate that ends then.
    pub fn set(&self, at: jiff::Timestamp) {
        *self.0.lock() = Some(at);
    }

    /// Seconds that are left.
    fn show(&self, gauge: &Gauge) {
        if let Some(at) = *self.0.lock() {
            gauge.set(at.duration_since(jiff::Timestamp::now()).as_secs_f64());
        }
    }
}

/// All series of one registry, shown by another.
struct Nested(Registry);

impl Collector for Nested {
    fn desc(&self) -> Vec<&Desc> {
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        METRICS.client_expiry.show(&METRICS.client_ttl);
        METRICS.server_expiry.show(&METRICS.server_ttl);
        self.0.gather()
    }
}

impl Metrics {
    /// Lets the registry of the process show the kubelet's series too.
    pub fn register_in(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(Nested(self.registry.clone())))
    }

    fn new() -> Self {
        let registry = Registry::new();
        let probe_registry = Registry::new();
        let make = Builder(registry.clone());
        let probe = Builder(probe_registry.clone());
        let default: &[f64] = prometheus::DEFAULT_BUCKETS;
        let runtime_buckets = exponential(0.005, 2.5, 14);
        let storage: [f64; 13] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 25.0, 50.0, 120.0, 300.0, 600.0];
        let metrics = Self {
            pods: PodSeries::new(&make),
            images: ImageSeries::new(&make),
            allot: AllotSeries::new(&make),
            node: NodeSeries::new(&make),
            runtime_operations: make.counters(
                "kubelet_runtime_operations_total",
                "Cumulative number of runtime operations by operation type.",
                &["operation_type"],
            ),
            runtime_errors: make.counters(
                "kubelet_runtime_operations_errors_total",
                "Cumulative number of runtime operation errors by operation type.",
                &["operation_type"],
            ),
            runtime_duration: make.histograms(
                "kubelet_runtime_operations_duration_seconds",
                "Duration in seconds of runtime operations. Broken down by operation type.",
                &["operation_type"],
                &runtime_buckets,
            ),
            relist_duration: make.histogram(
                "kubelet_pleg_relist_duration_seconds",
                "Duration in seconds for relisting pods in PLEG.",
                default,
            ),
            relist_interval: make.histogram(
                "kubelet_pleg_relist_interval_seconds",
                "Interval in seconds between relisting in PLEG.",
                default,
            ),
            relist_last_seen: make
                .gauge("kubelet_pleg_last_seen_seconds", "Timestamp in seconds when PLEG was last seen active."),
            relist_discarded: make.counter("kubelet_pleg_discard_events", "The number of discard events in PLEG."),
            running_pods: make.int_gauge("kubelet_running_pods", "Number of pods that have a running pod sandbox"),
            running_containers: make.int_gauges(
                "kubelet_running_containers",
                "Number of containers currently running",
                &["container_state"],
            ),
            desired_pods: make.int_gauges(
                "kubelet_desired_pods",
                "The number of pods the kubelet is being instructed to run. static is true if the pod is not from the apiserver.",
                &["static"],
            ),
            mirror_pods: make
                .int_gauge("kubelet_mirror_pods", "The number of mirror pods the kubelet will try to create (one per admitted static pod)"),
            node_name: make.int_gauges("kubelet_node_name", "The node's name. The count is always 1.", &["node"]),
            started_pods: make.counter("kubelet_started_pods_total", "Cumulative number of pods started"),
            started_pods_errors: make
                .counter("kubelet_started_pods_errors_total", "Cumulative number of errors when starting pods"),
            started_containers: make.counters(
                "kubelet_started_containers_total",
                "Cumulative number of containers started",
                &["container_type"],
            ),
            started_containers_errors: make.counters(
                "kubelet_started_containers_errors_total",
                "Cumulative number of errors when starting containers",
                &["container_type", "code"],
            ),
            worker_duration: make.histograms(
                "kubelet_pod_worker_duration_seconds",
                "Duration in seconds to sync a single pod. Broken down by operation type: create, update, or sync",
                &["operation_type"],
                default,
            ),
            pod_start: make.histogram(
                "kubelet_pod_start_duration_seconds",
                "Duration in seconds from kubelet seeing a pod for the first time to the pod starting to run",
                &POD_START,
            ),
            status_sync: make.histogram(
                "kubelet_pod_status_sync_duration_seconds",
                "Duration in seconds to sync a pod status update. Measures time from detection of a change to pod status until the API is successfully updated for that pod, even if multiple intevening changes to pod status occur.",
                default,
            ),
            cgroup_duration: make.histograms(
                "kubelet_cgroup_manager_duration_seconds",
                "Duration in seconds for cgroup manager operations. Broken down by method.",
                &["operation_type"],
                default,
            ),
            evictions: make.counters(
                "kubelet_evictions",
                "Cumulative number of pod evictions by eviction signal",
                &["eviction_signal"],
            ),
            shutdown_start: make.gauge(
                "kubelet_graceful_shutdown_start_time_seconds",
                "Last graceful shutdown start time since unix epoch in seconds",
            ),
            shutdown_end: make.gauge(
                "kubelet_graceful_shutdown_end_time_seconds",
                "Last graceful shutdown end time since unix epoch in seconds",
            ),
            preemptions: make.counters(
                "kubelet_preemptions",
                "Cumulative number of pod preemptions by preemption resource",
                &["preemption_signal"],
            ),
            admission_rejections: make.counters(
                "kubelet_admission_rejections_total",
                "Cumulative number pod admission rejections by the Kubelet.",
                &["reason"],
            ),
            requested_resizes: make.counters(
                "kubelet_container_requested_resizes_total",
                "Number of requested resizes, counted at the container level. Different resources on the same container are counted separately. The 'requirement' label refers to 'memory' or 'limits'; the 'operation' label can be one of 'add', 'remove', 'increase' or 'decrease'.",
                &["resource", "requirement", "operation"],
            ),
            infeasible_resizes: make.counters(
                "kubelet_pod_infeasible_resizes_total",
                "Number of infeasible resizes for pods.",
                &["reason_detail"],
            ),
            pending_resizes: make.int_gauges(
                "kubelet_pod_pending_resizes",
                "Number of pending resizes for pods.",
                &["reason"],
            ),
            in_progress_resizes: make
                .int_gauge("kubelet_pod_in_progress_resizes", "Number of in-progress resizes for pods."),
            images_collected: make.counters(
                "kubelet_image_garbage_collected_total",
                "Total number of images garbage collected by the kubelet, whether through disk usage or image age.",
                &["reason"],
            ),
            orphaned_pods: make.counter(
                "kubelet_orphaned_runtime_pods_total",
                "Number of pods that have been detected in the container runtime without being already known to the pod worker. This typically indicates the kubelet was restarted while a pod was force deleted in the API or in the local configuration, which is unusual.",
            ),
            restarted_pods: make.counters(
                "kubelet_restarted_pods_total",
                "Number of pods that have been restarted because they were deleted and recreated with the same UID while the kubelet was watching them (common for static pods, extremely uncommon for API pods)",
                &["static"],
            ),
            http_requests: make.counters(
                "kubelet_http_requests_total",
                "Number of the http requests received since the server started",
                &["method", "path", "server_type", "long_running"],
            ),
            http_duration: make.histograms(
                "kubelet_http_requests_duration_seconds",
                "Duration in seconds to serve http requests",
                &["method", "path", "server_type", "long_running"],
                default,
            ),
            http_inflight: make.int_gauges(
                "kubelet_http_inflight_requests",
                "Number of the inflight http requests",
                &["method", "path", "server_type", "long_running"],
            ),
            client_ttl: make.gauge(
                "kubelet_certificate_manager_client_ttl_seconds",
                "Gauge of the TTL (time-to-live) of the Kubelet's client certificate. The value is in seconds until certificate expiry (negative if already expired). If client certificate is invalid or unused, the value will be +INF.",
            ),
            server_ttl: make.gauge(
                "kubelet_certificate_manager_server_ttl_seconds",
                "Gauge of the shortest TTL (time-to-live) of the Kubelet's serving certificate. The value is in seconds until certificate expiry (negative if already expired). If serving certificate is invalid or unused, the value will be +INF.",
            ),
            client_expiry: Expiry::default(),
            server_expiry: Expiry::default(),
            client_renew_errors: make.counter(
                "kubelet_certificate_manager_client_expiration_renew_errors",
                "Counter of certificate renewal errors.",
            ),
            server_renew_errors: make
                .counter("kubelet_server_expiration_renew_errors", "Counter of certificate renewal errors."),
            volumes: make.add(GaugeVec::new(
                Opts::new("volume_manager_total_volumes", alpha("Number of volumes in Volume Manager")),
                &["plugin_name", "state"],
            )),
            storage_operations: make.histograms(
                "storage_operation_duration_seconds",
                "Storage operation duration",
                &["volume_plugin", "operation_name", "status", "migrated"],
                &storage,
            ),
            device_registrations: make.counters(
                "kubelet_device_plugin_registration_total",
                "Cumulative number of device plugin registrations. Broken down by resource name.",
                &["resource_name"],
            ),
            device_alloc: make.histograms(
                "kubelet_device_plugin_alloc_duration_seconds",
                "Duration in seconds to serve a device plugin Allocation request. Broken down by resource name.",
                &["resource_name"],
                default,
            ),
            dra_calls: make.histograms(
                "dra_grpc_operations_duration_seconds",
                "Duration in seconds of the DRA gRPC operations",
                &["driver_name", "method_name", "grpc_status_code"],
                &storage,
            ),
            volume_stats: [
                ("capacity_bytes", "Capacity in bytes of the volume"),
                ("available_bytes", "Number of available bytes in the volume"),
                ("used_bytes", "Number of used bytes in the volume"),
                ("inodes", "Maximum number of inodes in the volume"),
                ("inodes_free", "Number of free inodes in the volume"),
                ("inodes_used", "Number of used inodes in the volume"),
                ("health_status_abnormal", "Abnormal volume health status. The count is either 1 or 0. 1 indicates the volume is unhealthy, 0 indicates volume is healthy"),
            ]
            .map(|(name, help)| {
                let opts = Opts::new(format!("kubelet_volume_stats_{name}"), alpha(help));
                make.add(GaugeVec::new(opts, &["namespace", "persistentvolumeclaim"]))
            }),
            csi_operations: make.histograms(
                "csi_operations_seconds",
                "Container Storage Interface operation duration with gRPC error code status total",
                &["driver_name", "method_name", "grpc_status_code", "migrated"],
                &storage,
            ),
            probes: probe.counters(
                "prober_probe_total",
                "Cumulative number of a liveness, readiness or startup probe for a container by result.",
                &["probe_type", "result", "container", "pod", "namespace", "pod_uid"],
            ),
            probe_duration: probe.histograms(
                "prober_probe_duration_seconds",
                "Duration in seconds for a probe response.",
                &["probe_type", "container", "pod", "namespace"],
                default,
            ),
            registry,
            probe_registry,
        };
        metrics.client_ttl.set(f64::INFINITY);
        metrics.server_ttl.set(f64::INFINITY);
        metrics
    }
}
