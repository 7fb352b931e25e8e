//! Series about what containers get for themselves.

use prometheus::{Gauge, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::{Builder, exponential};

/// The series.
pub struct AllotSeries {
    /// `kubelet_cpu_manager_pinning_requests_total`
    pub cpu_requests: IntCounter,
    /// `kubelet_cpu_manager_pinning_errors_total`
    pub cpu_errors: IntCounter,
    /// `kubelet_cpu_manager_shared_pool_size_millicores`
    pub shared_pool: Gauge,
    /// `kubelet_cpu_manager_exclusive_cpu_allocation_count`
    pub exclusive_cpus: IntGauge,
    /// `kubelet_cpu_manager_allocation_per_numa`
    pub cpus_per_node: IntGaugeVec,
    /// `kubelet_memory_manager_pinning_requests_total`
    pub memory_requests: IntCounter,
    /// `kubelet_memory_manager_pinning_errors_total`
    pub memory_errors: IntCounter,
    /// `kubelet_topology_manager_admission_requests_total`
    pub topology_requests: IntCounter,
    /// `kubelet_topology_manager_admission_errors_total`
    pub topology_errors: IntCounter,
    /// `kubelet_topology_manager_admission_duration_ms`
    pub topology_duration: Histogram,
    /// `kubelet_container_aligned_compute_resources_count`
    pub aligned: IntCounterVec,
    /// `kubelet_container_aligned_compute_resources_failure_count`
    pub misaligned: IntCounterVec,
}

impl AllotSeries {
    pub(super) fn new(make: &Builder) -> Self {
        Self {
            cpu_requests: make.counter(
                "kubelet_cpu_manager_pinning_requests_total",
                "The number of cpu core allocations which required pinning.",
            ),
            cpu_errors: make.counter(
                "kubelet_cpu_manager_pinning_errors_total",
                "The number of cpu core allocations which required pinning failed.",
            ),
            shared_pool: make.gauge(
                "kubelet_cpu_manager_shared_pool_size_millicores",
                "The size of the shared CPU pool for non-guaranteed QoS pods, in millicores.",
            ),
            exclusive_cpus: make.int_gauge(
                "kubelet_cpu_manager_exclusive_cpu_allocation_count",
                "The total number of CPUs exclusively allocated to containers running on this node",
            ),
            cpus_per_node: make.int_gauges(
                "kubelet_cpu_manager_allocation_per_numa",
                "Number of CPUs allocated per NUMA node",
                &["numa_node"],
            ),
            memory_requests: make.counter(
                "kubelet_memory_manager_pinning_requests_total",
                "The number of memory pages allocations which required pinning.",
            ),
            memory_errors: make.counter(
                "kubelet_memory_manager_pinning_errors_total",
                "The number of memory pages allocations which required pinning that failed.",
            ),
            topology_requests: make.counter(
                "kubelet_topology_manager_admission_requests_total",
                "The number of admission requests where resources have to be aligned.",
            ),
            topology_errors: make.counter(
                "kubelet_topology_manager_admission_errors_total",
                "The number of admission request failures where resources could not be aligned.",
            ),
            topology_duration: make.histogram(
                "kubelet_topology_manager_admission_duration_ms",
                "Duration in milliseconds to serve a pod admission request.",
                &exponential(0.05, 2.0, 15),
            ),
            aligned: make.counters(
                "kubelet_container_aligned_compute_resources_count",
                "Cumulative number of aligned compute resources allocated to containers by alignment type.",
                &["scope", "boundary"],
            ),
            misaligned: make.counters(
                "kubelet_container_aligned_compute_resources_failure_count",
                "Cumulative number of failures to allocate aligned compute resources to containers by alignment type.",
                &["scope", "boundary"],
            ),
        }
    }
}
