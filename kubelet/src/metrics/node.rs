//! Series about the node: how it came up, what its plugins are asked.

use prometheus::{Gauge, Histogram, IntCounterVec, IntGauge, IntGaugeVec};

use super::Builder;

const MINUTE: f64 = 60.0;
const HOUR: f64 = 60.0 * MINUTE;
const DAY: f64 = 24.0 * HOUR;

/// Phases of a node's coming up, each a gauge of seconds.
pub struct StartupSeries {
    /// `kubelet_node_startup_pre_kubelet_duration_seconds`
    pub pre_kubelet: Gauge,
    /// `kubelet_node_startup_pre_registration_duration_seconds`
    pub pre_registration: Gauge,
    /// `kubelet_node_startup_registration_duration_seconds`
    pub registration: Gauge,
    /// `kubelet_node_startup_post_registration_duration_seconds`
    pub post_registration: Gauge,
    /// `kubelet_node_startup_duration_seconds`
    pub total: Gauge,
}

/// What others ask on the socket of Pod resources.
pub struct PodResourcesSeries {
    /// `kubelet_pod_resources_endpoint_requests_total`
    pub all: IntCounterVec,
    /// `kubelet_pod_resources_endpoint_requests_*`: list, allocatable, get.
    pub requests: [IntCounterVec; 3],
    /// `kubelet_pod_resources_endpoint_errors_*`: list, allocatable, get.
    pub errors: [IntCounterVec; 3],
}

/// The series.
pub struct NodeSeries {
    /// `kubelet_cgroup_version`
    pub cgroup_version: IntGauge,
    /// `kubelet_metrics_provider`
    pub provider: IntGaugeVec,
    /// `kubelet_node_startup_*`
    pub startup: StartupSeries,
    /// `kubelet_certificate_manager_server_rotation_seconds`
    pub server_rotation: Histogram,
    /// `kubelet_pod_resources_endpoint_*`
    pub pod_resources: PodResourcesSeries,
}

impl NodeSeries {
    pub(super) fn new(make: &Builder) -> Self {
        let phase = |name: &str, help: &str| {
            make.gauge(
                &format!("kubelet_node_startup_{name}duration_seconds"),
                &format!("Duration in seconds of node startup {help}"),
            )
        };
        Self {
            cgroup_version: make.int_gauge("kubelet_cgroup_version", "cgroup version on the hosts."),
            provider: make.int_gauges(
                "kubelet_metrics_provider",
                "Metrics provider used by kubelet to collect container stats. Values can be 'cadvisor' and 'cri'",
                &["provider"],
            ),
            startup: StartupSeries {
                pre_kubelet: phase("pre_kubelet_", "before kubelet starts."),
                pre_registration: phase("pre_registration_", "before registration."),
                registration: phase("registration_", "during registration."),
                post_registration: phase("post_registration_", "after registration."),
                total: phase("", "in total."),
            },
            server_rotation: make.histogram(
                "kubelet_certificate_manager_server_rotation_seconds",
                "Histogram of the number of seconds the previous certificate lived before being rotated.",
                &[
                    MINUTE,
                    HOUR,
                    4.0 * HOUR,
                    DAY,
                    7.0 * DAY,
                    30.0 * DAY,
                    90.0 * DAY,
                    180.0 * DAY,
                    360.0 * DAY,
                    1440.0 * DAY,
                ],
            ),
            pod_resources: pod_resources(make),
        }
    }
}

fn pod_resources(make: &Builder) -> PodResourcesSeries {
    let each = |what: &str, outcome: &str| {
        [("list", "List"), ("get_allocatable", "GetAllocatableResources"), ("get", "Get")].map(|(suffix, name)| {
            make.counters(
                &format!("kubelet_pod_resources_endpoint_{what}_{suffix}"),
                &format!(
                    "Number of requests to the PodResource {name} endpoint{outcome}. Broken down by server api version."
                ),
                &["server_api_version"],
            )
        })
    };
    PodResourcesSeries {
        all: make.counters(
            "kubelet_pod_resources_endpoint_requests_total",
            "Cumulative number of requests to the PodResource endpoint. Broken down by server api version.",
            &["server_api_version"],
        ),
        requests: each("requests", ""),
        errors: each("errors", " which returned error"),
    }
}
