//! Metrics.

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, Registry};
use runtime::metrics::{Stability, counter, counter_vec, exponential_buckets, gauge, histogram};

const LEVEL: Stability = Stability::Alpha;

/// All metrics.
pub(crate) struct LogMetrics {
    pub(crate) records: IntCounterVec,
    pub(crate) read_bytes: IntCounter,
    pub(crate) malformed: IntCounter,
    pub(crate) files: IntGauge,
    pub(crate) lag: IntGauge,
    pub(crate) sends: IntCounterVec,
    pub(crate) send_duration: Histogram,
    pub(crate) dropped: IntCounter,
}

impl LogMetrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let count = |name: &str, help: &str| counter(registry, LEVEL, name, help);
        Ok(Self {
            records: counter_vec(registry, LEVEL, "timonel_logs_records_total", "Records that arrived", &["stream"])?,
            read_bytes: count("timonel_logs_read_bytes_total", "Bytes of log files that were read")?,
            malformed: count("timonel_logs_malformed_lines_total", "Lines that are not in the runtime's format")?,
            files: gauge(registry, LEVEL, "timonel_logs_open_files", "Log files being read")?,
            lag: gauge(registry, LEVEL, "timonel_logs_unread_bytes", "Bytes of open log files that were not read yet")?,
            sends: counter_vec(
                registry,
                LEVEL,
                "timonel_logs_sends_total",
                "Attempts to send, by result",
                &["result"],
            )?,
            send_duration: histogram(
                registry,
                LEVEL,
                "timonel_logs_send_duration_seconds",
                "Time of attempts to send",
                &exponential_buckets(0.001, 4.0, 8),
            )?,
            dropped: count("timonel_logs_dropped_records_total", "Records that the sink refused for good")?,
        })
    }
}
