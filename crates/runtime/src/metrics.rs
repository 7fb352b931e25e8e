//! The metric registry of a process and its exposition.

use axum::{Router, extract::State, response::{IntoResponse, Response}, routing::get};
use prometheus::{Encoder, Gauge, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::version;

/// Memory page, bytes.
const PAGE: i64 = 4096;
/// Kernel clock ticks per second.
const TICKS: f64 = 100.0;

/// A registry with build information and process metrics.
pub fn registry() -> Result<Registry, prometheus::Error> {
    let registry = Registry::new();
    let build = IntGaugeVec::new(
        Opts::new(
            "kubernetes_build_info",
            "A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree state, build date, Go version, and compiler from which Kubernetes was built, and platform on which it is running.",
        ),
        &["major", "minor", "git_version", "git_commit", "git_tree_state", "build_date", "go_version", "compiler", "platform"],
    )?;
    let info = version::info();
    let text = |key: &str| info.get(key).and_then(|v| v.as_str()).unwrap_or("").to_owned();
    let values = [
        text("major"),
        text("minor"),
        text("gitVersion"),
        text("gitCommit"),
        text("gitTreeState"),
        text("buildDate"),
        text("goVersion"),
        text("compiler"),
        text("platform"),
    ];
    build.with_label_values(&values).set(1);
    registry.register(Box::new(build))?;
    Ok(registry)
}

/// Process metrics, read when asked for.
struct Process {
    cpu: Gauge,
    resident: IntGauge,
    virtual_memory: IntGauge,
    files: IntGauge,
    start: Gauge,
}

impl Process {
    fn new() -> Result<Self, prometheus::Error> {
        Ok(Self {
            cpu: Gauge::new("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.")?,
            resident: IntGauge::new("process_resident_memory_bytes", "Resident memory size in bytes.")?,
            virtual_memory: IntGauge::new("process_virtual_memory_bytes", "Virtual memory size in bytes.")?,
            files: IntGauge::new("process_open_fds", "Number of open file descriptors.")?,
            start: Gauge::new(
                "process_start_time_seconds",
                "Start time of the process since unix epoch in seconds.",
            )?,
        })
    }

    fn read(&self) {
        let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return };
        let Some((_, rest)) = stat.rsplit_once(") ") else { return };
        let fields: Vec<&str> = rest.split(' ').collect();
        let number = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
        // Fields count from the third one (state) of proc(5).
        self.cpu.set((number(11) + number(12)) / TICKS);
        let whole = |at: usize| fields.get(at).and_then(|f| f.parse::<i64>().ok()).unwrap_or(0);
        self.virtual_memory.set(whole(20));
        self.resident.set(whole(21) * PAGE);
        if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
            self.files.set(i64::try_from(files.count()).unwrap_or(i64::MAX));
        }
        let boot = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let boot = boot.lines().find_map(|l| l.strip_prefix("btime ")).and_then(|t| t.parse::<f64>().ok());
        self.start.set(boot.unwrap_or(0.0) + number(19) / TICKS);
    }

    fn families(&self) -> Vec<prometheus::proto::MetricFamily> {
        use prometheus::core::Collector;
        self.read();
        let mut families = self.cpu.collect();
        families.extend(self.resident.collect());
        families.extend(self.virtual_memory.collect());
        families.extend(self.files.collect());
        families.extend(self.start.collect());
        families
    }
}

/// The exposition of a registry and of the process.
pub fn expose(registry: &Registry) -> String {
    let mut families = registry.gather();
    if let Ok(process) = Process::new() {
        families.extend(process.families());
    }
    let mut out = Vec::new();
    if let Err(error) = TextEncoder::new().encode(&families, &mut out) {
        tracing::error!(%error, "metrics cannot be written");
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// `/metrics`.
pub fn router(registry: Registry) -> Router {
    async fn metrics(State(registry): State<Registry>) -> Response {
        ([("content-type", "text/plain; version=0.0.4; charset=utf-8")], expose(&registry)).into_response()
    }
    Router::new().route("/metrics", get(metrics)).with_state(registry)
}
