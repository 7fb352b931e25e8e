//! Series about the lives of Pods.

use prometheus::{Gauge, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::{Builder, POD_START, exponential};

/// The series.
pub struct PodSeries {
    /// `kubelet_active_pods`
    pub active: IntGaugeVec,
    /// `kubelet_working_pods`
    pub working: IntGaugeVec,
    /// `kubelet_managed_ephemeral_containers`
    pub ephemeral: IntGauge,
    /// `kubelet_containers_per_pod_count`
    pub containers: Histogram,
    /// `kubelet_pod_start_sli_duration_seconds`
    pub start_sli: Histogram,
    /// `kubelet_pod_start_total_duration_seconds`
    pub start_total: Histogram,
    /// `kubelet_pod_worker_start_duration_seconds`
    pub worker_start: Histogram,
    /// `kubelet_run_podsandbox_duration_seconds`
    pub sandbox_duration: HistogramVec,
    /// `kubelet_run_podsandbox_errors_total`
    pub sandbox_errors: IntCounterVec,
    /// `kubelet_started_user_namespaced_pods_total`
    pub user_namespaced: IntCounter,
    /// `kubelet_started_user_namespaced_pods_errors_total`
    pub user_namespaced_errors: IntCounter,
    /// `kubelet_terminated_containers_total`
    pub terminated: IntCounterVec,
    /// `kubelet_orphan_pod_cleaned_volumes`
    pub orphan_volumes: Gauge,
    /// `kubelet_orphan_pod_cleaned_volumes_errors`
    pub orphan_volume_errors: Gauge,
    /// `kubelet_lifecycle_handler_http_fallbacks_total`
    pub hook_fallbacks: IntCounter,
    /// `kubelet_sleep_action_terminated_early_total`
    pub short_sleeps: IntCounter,
    /// `kubelet_eviction_stats_age_seconds`
    pub eviction_age: HistogramVec,
    /// `kubelet_pod_resize_duration_milliseconds`
    pub resize_duration: HistogramVec,
    /// `kubelet_pod_deferred_accepted_resizes_total`
    pub accepted_resizes: IntCounterVec,
    /// `kubelet_container_log_filesystem_used_bytes`
    pub log_bytes: IntGaugeVec,
}

impl PodSeries {
    pub(super) fn new(make: &Builder) -> Self {
        let default: &[f64] = prometheus::DEFAULT_BUCKETS;
        Self {
            active: make.int_gauges(
                "kubelet_active_pods",
                "The number of pods the kubelet considers active and which are being considered when admitting new pods. static is true if the pod is not from the apiserver.",
                &["static"],
            ),
            working: make.int_gauges(
                "kubelet_working_pods",
                "Number of pods the kubelet is actually running, broken down by lifecycle phase, whether the pod is desired, orphaned, or runtime only (also orphaned), and whether the pod is static. An orphaned pod has been removed from local configuration or force deleted in the API and consumes resources that are not otherwise visible.",
                &["config", "lifecycle", "static"],
            ),
            ephemeral: make.int_gauge(
                "kubelet_managed_ephemeral_containers",
                "Current number of ephemeral containers in pods managed by this kubelet.",
            ),
            containers: make.histogram(
                "kubelet_containers_per_pod_count",
                "The number of containers per pod.",
                &exponential(1.0, 2.0, 5),
            ),
            start_sli: make.histogram(
                "kubelet_pod_start_sli_duration_seconds",
                "Duration in seconds to start a pod, excluding time to pull images and run init containers, measured from pod creation timestamp to when all its containers are reported as started and observed via watch",
                &POD_START,
            ),
            start_total: make.histogram(
                "kubelet_pod_start_total_duration_seconds",
                "Duration in seconds to start a pod since creation, including time to pull images and run init containers, measured from pod creation timestamp to when all its containers are reported as started and observed via watch",
                &POD_START,
            ),
            worker_start: make.histogram(
                "kubelet_pod_worker_start_duration_seconds",
                "Duration in seconds from kubelet seeing a pod to starting a worker.",
                default,
            ),
            sandbox_duration: make.histograms(
                "kubelet_run_podsandbox_duration_seconds",
                "Duration in seconds of the run_podsandbox operations. Broken down by RuntimeClass.Handler.",
                &["runtime_handler"],
                default,
            ),
            sandbox_errors: make.counters(
                "kubelet_run_podsandbox_errors_total",
                "Cumulative number of the run_podsandbox operation errors by RuntimeClass.Handler.",
                &["runtime_handler"],
            ),
            user_namespaced: make.counter(
                "kubelet_started_user_namespaced_pods_total",
                "Cumulative number of pods with user namespaces started. This metric will only be collected on Linux.",
            ),
            user_namespaced_errors: make.counter(
                "kubelet_started_user_namespaced_pods_errors_total",
                "Cumulative number of errors when starting pods with user namespaces. This metric will only be collected on Linux.",
            ),
            terminated: make.counters(
                "kubelet_terminated_containers_total",
                "Cumulative number of containers that terminated, by exit code and reason.",
                &["container_type", "exit_code", "reason"],
            ),
            orphan_volumes: make.gauge(
                "kubelet_orphan_pod_cleaned_volumes",
                "The total number of orphaned Pods whose volumes were cleaned in the last periodic sweep.",
            ),
            orphan_volume_errors: make.gauge(
                "kubelet_orphan_pod_cleaned_volumes_errors",
                "The number of orphaned Pods whose volumes failed to be cleaned in the last periodic sweep.",
            ),
            hook_fallbacks: make.counter(
                "kubelet_lifecycle_handler_http_fallbacks_total",
                "The number of times lifecycle handlers successfully fell back to http from https.",
            ),
            short_sleeps: make.counter(
                "kubelet_sleep_action_terminated_early_total",
                "The number of times lifecycle sleep handler got terminated before it finishes",
            ),
            eviction_age: make.histograms(
                "kubelet_eviction_stats_age_seconds",
                "Time between when stats are collected, and when pod is evicted based on those stats by eviction signal",
                &["eviction_signal"],
                default,
            ),
            resize_duration: make.histograms(
                "kubelet_pod_resize_duration_milliseconds",
                "Duration in milliseconds to actuate a pod resize",
                &["success"],
                &exponential(10.0, 2.0, 19),
            ),
            accepted_resizes: make.counters(
                "kubelet_pod_deferred_accepted_resizes_total",
                "Cumulative number of resizes that were accepted after being deferred.",
                &["retry_trigger"],
            ),
            log_bytes: make.int_gauges(
                "kubelet_container_log_filesystem_used_bytes",
                "Bytes used by the container's logs on the filesystem.",
                &["uid", "namespace", "pod", "container"],
            ),
        }
    }
}
