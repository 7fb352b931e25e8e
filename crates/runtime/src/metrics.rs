//! The metric registry of a process and its exposition.

mod exposition;
mod memory;
mod reset;
mod selection;

use std::{io::Write, sync::LazyLock};

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, header};
use prometheus::{
    Counter, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

pub use self::selection::{Allowed, AllowedLabels, Selection};
use self::{exposition::Form, reset::Baseline};
use crate::{features::FeatureGates, health::HealthChecks, version};

/// Kernel clock ticks per second, as every supported architecture reports them to programs.
const TICKS: f64 = 100.0;
/// Memory page, bytes.
const PAGE: i64 = 4096;

/// Promise about a metric; begins its help text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stability {
    /// May change any time.
    Alpha,
    /// May change with notice.
    Beta,
    /// Stays.
    Stable,
}

impl Stability {
    fn name(self) -> &'static str {
        match self {
            Self::Alpha => "ALPHA",
            Self::Beta => "BETA",
            Self::Stable => "STABLE",
        }
    }

    fn help(self, text: &str) -> String {
        REGISTERED.with_label_values(&[self.name(), ""]).inc();
        format!("[{}] {text}", self.name())
    }
}

/// How many metrics this process has, by what is promised about them.
static REGISTERED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "[BETA] The count of registered metrics broken by stability level and deprecation version.";
    let labels = &["stability_level", "deprecated_version"];
    // Only a bad name would fail.
    #[allow(clippy::expect_used)]
    IntCounterVec::new(Opts::new("registered_metrics_total", help), labels).expect("a metric")
});

/// How many metrics the operator does not want to see.
static DISABLED: LazyLock<IntCounter> = LazyLock::new(|| {
    // Only a bad name would fail.
    #[allow(clippy::expect_used)]
    IntCounter::new("disabled_metrics_total", "[BETA] The count of disabled metrics.").expect("a metric")
});

fn registered<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// A counter.
pub fn counter(registry: &Registry, level: Stability, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    registered(registry, IntCounter::new(name, level.help(help))?)
}

/// A counter with labels.
pub fn counter_vec(
    registry: &Registry,
    level: Stability,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntCounterVec, prometheus::Error> {
    registered(registry, IntCounterVec::new(Opts::new(name, level.help(help)), labels)?)
}

/// A gauge.
pub fn gauge(registry: &Registry, level: Stability, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    registered(registry, IntGauge::new(name, level.help(help))?)
}

/// A gauge with labels.
pub fn gauge_vec(
    registry: &Registry,
    level: Stability,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntGaugeVec, prometheus::Error> {
    registered(registry, IntGaugeVec::new(Opts::new(name, level.help(help)), labels)?)
}

/// A gauge with labels for a collector that fills it when it is asked; it is not registered itself.
pub fn unregistered_gauge_vec(
    level: Stability,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntGaugeVec, prometheus::Error> {
    IntGaugeVec::new(Opts::new(name, level.help(help)), labels)
}

/// A gauge of fractions.
pub fn float_gauge(registry: &Registry, level: Stability, name: &str, help: &str) -> Result<Gauge, prometheus::Error> {
    registered(registry, Gauge::new(name, level.help(help))?)
}

/// A gauge of fractions with labels.
pub fn float_gauge_vec(
    registry: &Registry,
    level: Stability,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<GaugeVec, prometheus::Error> {
    registered(registry, GaugeVec::new(Opts::new(name, level.help(help)), labels)?)
}

/// A histogram.
pub fn histogram(
    registry: &Registry,
    level: Stability,
    name: &str,
    help: &str,
    buckets: &[f64],
) -> Result<Histogram, prometheus::Error> {
    let options = HistogramOpts::new(name, level.help(help)).buckets(buckets.to_vec());
    registered(registry, Histogram::with_opts(options)?)
}

/// A histogram with labels.
pub fn histogram_vec(
    registry: &Registry,
    level: Stability,
    name: &str,
    help: &str,
    labels: &[&str],
    buckets: &[f64],
) -> Result<HistogramVec, prometheus::Error> {
    let options = HistogramOpts::new(name, level.help(help)).buckets(buckets.to_vec());
    registered(registry, HistogramVec::new(options, labels)?)
}

/// `count` bucket bounds from `start`, each `factor` times the one before.
pub fn exponential_buckets(start: f64, factor: f64, count: usize) -> Vec<f64> {
    std::iter::successors(Some(start), |b| Some(b * factor)).take(count).collect()
}

/// A registry with build information and process metrics.
pub fn registry() -> Result<Registry, prometheus::Error> {
    let registry = Registry::new();
    let info = version::info();
    let text = |key: &str| info.get(key).and_then(|v| v.as_str()).unwrap_or("").to_owned();
    let build = gauge_vec(
        &registry,
        Stability::Beta,
        "kubernetes_build_info",
        "A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree state, build \
         date, Go version, and compiler from which Kubernetes was built, and platform on which it is running.",
        &[
            "major",
            "minor",
            "git_version",
            "git_commit",
            "git_tree_state",
            "build_date",
            "go_version",
            "compiler",
            "platform",
        ],
    )?;
    let keys =
        ["major", "minor", "gitVersion", "gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform"];
    build.with_label_values(&keys.map(text)).set(1);
    registry.register(Box::new(Versions::new()?))?;
    let go = registered(
        &registry,
        IntGaugeVec::new(Opts::new("go_info", "Information about the Go environment."), &["version"])?,
    )?;
    go.with_label_values(&[text("goVersion")]).set(1);
    registry.register(Box::new(Process::new()?))?;
    registry.register(Box::new(memory::Memory::new()?))?;
    registry.register(Box::new(REGISTERED.clone()))?;
    registry.register(Box::new(DISABLED.clone()))?;
    counter(&registry, Stability::Beta, "hidden_metrics_total", "The count of hidden metrics.")?;
    Ok(registry)
}

/// Registers `kubernetes_feature_enabled` with the state of each gate, which are those of the process from now on.
pub fn feature_gates(registry: &Registry, gates: &FeatureGates) -> Result<(), prometheus::Error> {
    let enabled = gauge_vec(
        registry,
        Stability::Beta,
        "kubernetes_feature_enabled",
        "This metric records the data about the stage and enablement of a k8s feature.",
        &["name", "stage"],
    )?;
    for (name, stage, on) in gates.iter() {
        enabled.with_label_values(&[name, stage.label()]).set(i64::from(on));
    }
    gates.govern_clients();
    Ok(())
}

/// `version_info`, read when asked for: the command line may say which version is emulated.
struct Versions(IntGaugeVec);

impl Versions {
    fn new() -> Result<Self, prometheus::Error> {
        let help = "Provides the compatibility version info of the component. The component label is the name of the \
                    component, usually kube, but is relevant for aggregated-apiservers.";
        let labels = &["component", "binary", "emulation", "min_compat"];
        unregistered_gauge_vec(Stability::Alpha, "version_info", help, labels).map(Self)
    }
}

impl Collector for Versions {
    fn desc(&self) -> Vec<&Desc> {
        self.0.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.0.reset();
        let [binary, emulated, compatible] =
            [version::BINARY, version::emulated(), version::compatible()].map(|version| version.to_string());
        self.0.with_label_values(&["kube", &binary, &emulated, &compatible]).set(1);
        self.0.collect()
    }
}

/// Process metrics, read when asked for.
struct Process {
    cpu: Counter,
    resident: IntGauge,
    virtual_memory: IntGauge,
    virtual_max: Gauge,
    files: IntGauge,
    max_files: IntGauge,
    start: Gauge,
    tasks: IntGauge,
    threads: IntGauge,
}

impl Process {
    fn new() -> Result<Self, prometheus::Error> {
        Ok(Self {
            cpu: Counter::new("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.")?,
            resident: IntGauge::new("process_resident_memory_bytes", "Resident memory size in bytes.")?,
            virtual_memory: IntGauge::new("process_virtual_memory_bytes", "Virtual memory size in bytes.")?,
            virtual_max: Gauge::new(
                "process_virtual_memory_max_bytes",
                "Maximum amount of virtual memory available in bytes.",
            )?,
            files: IntGauge::new("process_open_fds", "Number of open file descriptors.")?,
            max_files: IntGauge::new("process_max_fds", "Maximum number of open file descriptors.")?,
            start: Gauge::new("process_start_time_seconds", "Start time of the process since unix epoch in seconds.")?,
            tasks: IntGauge::new("go_goroutines", "Number of goroutines that currently exist.")?,
            threads: IntGauge::new("go_threads", "Number of OS threads created.")?,
        })
    }

    fn parts(&self) -> [&dyn Collector; 9] {
        [
            &self.cpu,
            &self.resident,
            &self.virtual_memory,
            &self.virtual_max,
            &self.files,
            &self.max_files,
            &self.start,
            &self.tasks,
            &self.threads,
        ]
    }

    fn read(&self) {
        if let Ok(handle) = tokio::runtime::Handle::try_current() {
            self.tasks.set(i64::try_from(handle.metrics().num_alive_tasks()).unwrap_or(i64::MAX));
        }
        let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return };
        let Some((_, rest)) = stat.rsplit_once(") ") else { return };
        // Fields count from the third one (state) of proc(5).
        let fields: Vec<&str> = rest.split(' ').collect();
        let number = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
        let whole = |at: usize| fields.get(at).and_then(|f| f.parse::<i64>().ok()).unwrap_or(0);
        self.cpu.reset();
        self.cpu.inc_by((number(11) + number(12)) / TICKS);
        self.threads.set(whole(17));
        self.virtual_memory.set(whole(20));
        self.resident.set(whole(21) * PAGE);
        if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
            self.files.set(i64::try_from(files.count()).unwrap_or(i64::MAX));
        }
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let limit = |name: &str| {
            let line = limits.lines().find_map(|l| l.strip_prefix(name))?;
            line.split_whitespace().next().map(str::to_owned)
        };
        self.max_files.set(limit("Max open files").and_then(|v| v.parse().ok()).unwrap_or(0));
        let most = limit("Max address space").and_then(|v| v.parse::<f64>().ok());
        self.virtual_max.set(most.unwrap_or(18_446_744_073_709_551_615.0));
        self.start.set(*BOOT + number(19) / TICKS);
    }
}

/// Start of the machine, seconds since the epoch.
static BOOT: LazyLock<f64> = LazyLock::new(|| {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    stat.lines().find_map(|l| l.strip_prefix("btime ")).and_then(|t| t.trim().parse().ok()).unwrap_or(0.0)
});

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.parts().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.read();
        self.parts().into_iter().flat_map(Collector::collect).collect()
    }
}

/// What a registry shows.
fn shown(registry: &Registry) -> Vec<MetricFamily> {
    let families = registry.gather();
    match Selection::installed() {
        None => families,
        Some(selection) => selection.apply(families),
    }
}

/// The exposition of a registry.
pub fn expose(registry: &Registry) -> String {
    exposition::text(&shown(registry))
}

/// A response with the exposition of a registry in the form that the client likes best, compressed if it takes that.
pub fn response(registry: &Registry, headers: &HeaderMap) -> Response {
    encoded(&shown(registry), headers)
}

fn encoded(families: &[MetricFamily], headers: &HeaderMap) -> Response {
    let form = Form::wanted(headers);
    let body = form.encode(families);
    let accepts = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|v| v.to_str().ok());
    let gzip = accepts.flat_map(|v| v.split(',')).any(|e| e.split(';').next().is_some_and(|n| n.trim() == "gzip"));
    let kind = (header::CONTENT_TYPE, form.content_type());
    if gzip {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        if encoder.write_all(&body).is_ok()
            && let Ok(body) = encoder.finish()
        {
            return ([kind, (header::CONTENT_ENCODING, "gzip")], body).into_response();
        }
    }
    ([kind], body).into_response()
}

async fn all(State(registry): State<Registry>, headers: HeaderMap) -> Response {
    response(&registry, &headers)
}

async fn slis(State(registry): State<Registry>) -> Response {
    let wanted = ["kubernetes_healthcheck", "kubernetes_healthchecks_total"];
    let families: Vec<MetricFamily> = shown(&registry).into_iter().filter(|f| wanted.contains(&f.name())).collect();
    ([(header::CONTENT_TYPE, Form::Text.content_type())], exposition::text(&families)).into_response()
}

/// `/metrics`, and `/metrics/slis` with the health metrics of the same registry.
pub fn router(registry: Registry) -> Router {
    Router::new().route("/metrics", get(all)).route("/metrics/slis", get(slis)).with_state(registry)
}

/// [`router`], with a `/metrics/slis` that may be reset by `DELETE`.
pub fn resettable_router(registry: Registry, health: &HealthChecks) -> Router {
    let health = health.clone();
    let reset = move || {
        health.reset_metrics();
        async { ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], "metrics reset\n") }
    };
    Router::new().route("/metrics", get(all)).route("/metrics/slis", get(slis).delete(reset)).with_state(registry)
}

/// [`resettable_router`], whose `/metrics` may be reset too: series with labels begin anew.
pub fn all_resettable_router(registry: Registry, health: &HealthChecks) -> Router {
    let baseline = Baseline::default();
    let (from, known) = (baseline.clone(), registry.clone());
    let show = move |headers: HeaderMap| {
        let families = from.since(shown(&known));
        async move { encoded(&families, &headers) }
    };
    let known = registry.clone();
    let reset = move || {
        baseline.set(shown(&known));
        async { ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], "metrics reset\n") }
    };
    let health = health.clone();
    let reset_checks = move || {
        health.reset_metrics();
        async { ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], "metrics reset\n") }
    };
    Router::new()
        .route("/metrics", get(show).delete(reset))
        .route("/metrics/slis", get(slis).delete(reset_checks))
        .with_state(registry)
}

/// Remaining lives of the certificates that clients present, one observation a request.
pub fn certificate_expirations(registry: &Registry) -> Result<Histogram, prometheus::Error> {
    const BUCKETS: [f64; 14] = [
        0.0,
        1800.0,
        3600.0,
        7200.0,
        21_600.0,
        43_200.0,
        86_400.0,
        172_800.0,
        345_600.0,
        604_800.0,
        2_592_000.0,
        7_776_000.0,
        15_552_000.0,
        31_104_000.0,
    ];
    histogram(
        registry,
        Stability::Alpha,
        "apiserver_client_certificate_expiration_seconds",
        "Distribution of the remaining lifetime on the certificate used to authenticate a request.",
        &BUCKETS,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_set_is_exposed() {
        let registry = registry().unwrap();
        let text = expose(&registry);
        for name in [
            "kubernetes_build_info{",
            "process_cpu_seconds_total ",
            "process_resident_memory_bytes ",
            "process_start_time_seconds ",
            "process_open_fds ",
            "process_max_fds ",
            "go_goroutines ",
        ] {
            assert!(text.lines().any(|l| l.starts_with(name)), "{name} in {text}");
        }
        assert!(text.contains("# TYPE process_cpu_seconds_total counter"));
        assert!(text.contains("# HELP kubernetes_build_info [BETA] "));
    }
}
