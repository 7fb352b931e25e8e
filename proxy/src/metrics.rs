//! Metrics of the proxy, by the names that dashboards know.

use prometheus::{Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};
use runtime::metrics::{Stability, counter_vec, exponential_buckets, gauge_vec, histogram_vec};

use crate::family::Family;

/// Metrics of both families.
#[derive(Clone)]
pub(crate) struct Metrics {
    sync: HistogramVec,
    full: HistogramVec,
    partial: HistogramVec,
    outside: HistogramVec,
    programming: HistogramVec,
    last: GaugeVec,
    queued: GaugeVec,
    endpoint_changes: IntCounterVec,
    endpoint_pending: IntGaugeVec,
    service_changes: IntCounterVec,
    service_pending: IntGaugeVec,
    no_local: IntGaugeVec,
    rules_total: IntGaugeVec,
    rules_last: IntGaugeVec,
    restore_failures: IntCounterVec,
    partial_failures: IntCounterVec,
    nftables_failures: IntCounterVec,
    nftables_cleanup_failures: IntCounterVec,
    conntrack_duration: HistogramVec,
    conntrack_deleted: IntCounterVec,
    pub(crate) healthz: IntCounterVec,
    pub(crate) livez: IntCounterVec,
}

fn programming_buckets() -> Vec<f64> {
    let mut all = vec![0.25, 0.5];
    all.extend((1..=60).map(f64::from));
    all.extend((65..=120).step_by(5).map(f64::from));
    all.extend((150..=300).step_by(30).map(f64::from));
    all
}

fn time_gauge(registry: &Registry, name: &str, help: &str) -> Result<GaugeVec, prometheus::Error> {
    let gauge = GaugeVec::new(Opts::new(name, format!("[ALPHA] {help}")), &["ip_family"])?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let buckets = exponential_buckets(0.001, 2.0, 15);
        let family = &["ip_family"];
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            histogram_vec(registry, Stability::Alpha, &format!("kubeproxy_{name}"), help, family, buckets)
        };
        let count = |name: &str, help: &str, labels: &[&str]| {
            counter_vec(registry, Stability::Alpha, &format!("kubeproxy_{name}"), help, labels)
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            gauge_vec(registry, Stability::Alpha, &format!("kubeproxy_{name}"), help, labels)
        };
        Ok(Self {
            sync: histogram("sync_proxy_rules_duration_seconds", "SyncProxyRules latency in seconds", &buckets)?,
            full: histogram(
                "sync_full_proxy_rules_duration_seconds",
                "SyncProxyRules latency in seconds for full resyncs",
                &buckets,
            )?,
            partial: histogram(
                "sync_partial_proxy_rules_duration_seconds",
                "SyncProxyRules latency in seconds for partial resyncs",
                &buckets,
            )?,
            outside: histogram(
                "sync_proxy_rules_outside_duration_seconds",
                "Time of SyncProxyRules that programs and the kernel took in seconds",
                &buckets,
            )?,
            programming: histogram(
                "network_programming_duration_seconds",
                "In Cluster Network Programming Latency in seconds",
                &programming_buckets(),
            )?,
            last: time_gauge(
                registry,
                "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
                "The last time proxy rules were successfully synced",
            )?,
            queued: time_gauge(
                registry,
                "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
                "The last time a sync of proxy rules was queued",
            )?,
            endpoint_changes: count(
                "sync_proxy_rules_endpoint_changes_total",
                "Cumulative proxy rules Endpoint changes",
                family,
            )?,
            endpoint_pending: gauge(
                "sync_proxy_rules_endpoint_changes_pending",
                "Pending proxy rules Endpoint changes",
                family,
            )?,
            service_changes: count(
                "sync_proxy_rules_service_changes_total",
                "Cumulative proxy rules Service changes",
                family,
            )?,
            service_pending: gauge(
                "sync_proxy_rules_service_changes_pending",
                "Pending proxy rules Service changes",
                family,
            )?,
            no_local: gauge(
                "sync_proxy_rules_no_local_endpoints_total",
                "Number of services with a Local traffic policy and no endpoints",
                &["ip_family", "traffic_policy"],
            )?,
            rules_total: gauge(
                "sync_proxy_rules_iptables_total",
                "Total number of iptables rules owned by kube-proxy",
                &["ip_family", "table"],
            )?,
            rules_last: gauge(
                "sync_proxy_rules_iptables_last",
                "Number of iptables rules written by kube-proxy in last sync",
                &["ip_family", "table"],
            )?,
            restore_failures: count(
                "sync_proxy_rules_iptables_restore_failures_total",
                "Cumulative proxy iptables restore failures",
                family,
            )?,
            partial_failures: count(
                "sync_proxy_rules_iptables_partial_restore_failures_total",
                "Cumulative proxy iptables partial restore failures",
                family,
            )?,
            nftables_failures: count(
                "sync_proxy_rules_nftables_sync_failures_total",
                "Cumulative proxy nftables sync failures",
                family,
            )?,
            nftables_cleanup_failures: count(
                "sync_proxy_rules_nftables_cleanup_failures_total",
                "Cumulative proxy nftables cleanup failures",
                family,
            )?,
            conntrack_duration: histogram(
                "conntrack_reconciler_sync_duration_seconds",
                "ReconcileConntrackFlowsLatency latency in seconds",
                &buckets,
            )?,
            conntrack_deleted: count(
                "conntrack_reconciler_deleted_entries_total",
                "Cumulative conntrack flows deleted by conntrack reconciler",
                family,
            )?,
            healthz: count("proxy_healthz_total", "Cumulative proxy healthz HTTP status", &["code"])?,
            livez: count("proxy_livez_total", "Cumulative proxy livez HTTP status", &["code"])?,
        })
    }

    /// The metrics of one family.
    pub(crate) fn of(&self, family: Family) -> FamilyMetrics {
        let label = &[family.label()];
        let no_local = |policy: &str| self.no_local.with_label_values(&[family.label(), policy]);
        let table = |vec: &IntGaugeVec, table: &str| vec.with_label_values(&[family.label(), table]);
        FamilyMetrics {
            sync: self.sync.with_label_values(label),
            full: self.full.with_label_values(label),
            partial: self.partial.with_label_values(label),
            outside: self.outside.with_label_values(label),
            programming: self.programming.with_label_values(label),
            last: self.last.with_label_values(label),
            queued: self.queued.with_label_values(label),
            endpoint_changes: self.endpoint_changes.with_label_values(label),
            endpoint_pending: self.endpoint_pending.with_label_values(label),
            service_changes: self.service_changes.with_label_values(label),
            service_pending: self.service_pending.with_label_values(label),
            no_local_internal: no_local("internal"),
            no_local_external: no_local("external"),
            filter_total: table(&self.rules_total, "filter"),
            nat_total: table(&self.rules_total, "nat"),
            filter_last: table(&self.rules_last, "filter"),
            nat_last: table(&self.rules_last, "nat"),
            restore_failures: self.restore_failures.with_label_values(label),
            partial_failures: self.partial_failures.with_label_values(label),
            nftables_failures: self.nftables_failures.with_label_values(label),
            nftables_cleanup_failures: self.nftables_cleanup_failures.with_label_values(label),
            conntrack_duration: self.conntrack_duration.with_label_values(label),
            conntrack_deleted: self.conntrack_deleted.with_label_values(label),
        }
    }
}

/// Metrics of one family.
#[derive(Clone)]
pub(crate) struct FamilyMetrics {
    pub(crate) sync: Histogram,
    pub(crate) full: Histogram,
    pub(crate) partial: Histogram,
    pub(crate) outside: Histogram,
    pub(crate) programming: Histogram,
    pub(crate) last: Gauge,
    pub(crate) queued: Gauge,
    pub(crate) endpoint_changes: IntCounter,
    pub(crate) endpoint_pending: prometheus::IntGauge,
    pub(crate) service_changes: IntCounter,
    pub(crate) service_pending: prometheus::IntGauge,
    pub(crate) no_local_internal: prometheus::IntGauge,
    pub(crate) no_local_external: prometheus::IntGauge,
    pub(crate) filter_total: prometheus::IntGauge,
    pub(crate) nat_total: prometheus::IntGauge,
    pub(crate) filter_last: prometheus::IntGauge,
    pub(crate) nat_last: prometheus::IntGauge,
    pub(crate) restore_failures: IntCounter,
    pub(crate) partial_failures: IntCounter,
    pub(crate) nftables_failures: IntCounter,
    pub(crate) nftables_cleanup_failures: IntCounter,
    pub(crate) conntrack_duration: Histogram,
    pub(crate) conntrack_deleted: IntCounter,
}
