//! The audit log that the flags ask for.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Args;
use generic::{
    audit::{
        Auditor,
        delivery::{Backend, Batching, Mode, Sink, Truncation},
        log::{LogFile, LogSettings},
        policy::Policy,
        webhook::AuditWebhook,
    },
    remote::{Remote, RemoteError},
};
use prometheus::{IntCounterVec, Registry};
use runtime::{
    config_file,
    flags::duration,
    metrics::{Stability, counter_vec},
};

/// The version of events.
const VERSION: &str = "audit.k8s.io/v1";
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Why there is no audit log.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The policy cannot be read or decoded.
    #[error("loading audit policy file: {0}")]
    Policy(#[from] config_file::ConfigError),
    /// The log cannot be opened.
    #[error("{path}: {source}")]
    Log {
        /// The log.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The webhook cannot be found.
    #[error("initializing audit webhook: {0}")]
    Webhook(#[from] RemoteError),
    /// A metric name is taken.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Flags of the audit log.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Auditing flags")]
pub struct AuditOptions {
    /// What is recorded in the audit log; nothing without it.
    #[arg(long)]
    pub audit_policy_file: Option<PathBuf>,
    /// The audit log; - is standard output.
    #[arg(long)]
    pub audit_log_path: Option<PathBuf>,
    /// Days that full audit logs are kept; 0 for ever.
    #[arg(long, default_value_t = 366)]
    pub audit_log_maxage: u64,
    /// Full audit logs that are kept; 0 for all.
    #[arg(long, default_value_t = 100)]
    pub audit_log_maxbackup: usize,
    /// Size of a full audit log, megabytes; 0 for any size.
    #[arg(long, default_value_t = 100)]
    pub audit_log_maxsize: u64,
    /// Whether full audit logs are compressed.
    #[arg(long, default_value_t = false)]
    pub audit_log_compress: bool,
    /// Format of the log: json or legacy.
    #[arg(long, default_value = "json")]
    pub audit_log_format: String,
    /// Version of events in the log.
    #[arg(long, default_value = VERSION)]
    pub audit_log_version: String,
    /// When requests go on: batch (at once), blocking (when their events are in the log), blocking-strict (only then).
    #[arg(long, default_value = "blocking")]
    pub audit_log_mode: String,
    /// Events that wait for the log at most, in batch mode.
    #[arg(long, default_value_t = 10_000)]
    pub audit_log_batch_buffer_size: usize,
    /// Events written at once.
    #[arg(long, default_value_t = 1)]
    pub audit_log_batch_max_size: usize,
    /// How long an event waits for others.
    #[arg(long, default_value = "0s", value_parser = duration)]
    pub audit_log_batch_max_wait: Duration,
    /// Whether writes are limited.
    #[arg(long, default_value_t = false)]
    pub audit_log_batch_throttle_enable: bool,
    /// Writes a second.
    #[arg(long, default_value_t = 0.0)]
    pub audit_log_batch_throttle_qps: f64,
    /// Writes at once.
    #[arg(long, default_value_t = 0)]
    pub audit_log_batch_throttle_burst: usize,
    /// Whether events that are too large for the log are cut down.
    #[arg(long, default_value_t = false)]
    pub audit_log_truncate_enabled: bool,
    /// Bytes of a batch.
    #[arg(long, default_value_t = 10_485_760)]
    pub audit_log_truncate_max_batch_size: usize,
    /// Bytes of an event.
    #[arg(long, default_value_t = 102_400)]
    pub audit_log_truncate_max_event_size: usize,
    /// kubeconfig of a server that events are posted to.
    #[arg(long)]
    pub audit_webhook_config_file: Option<PathBuf>,
    /// Version of events that are posted.
    #[arg(long, default_value = VERSION)]
    pub audit_webhook_version: String,
    /// When requests go on: batch, blocking, blocking-strict.
    #[arg(long, default_value = "batch")]
    pub audit_webhook_mode: String,
    /// Events that wait to be posted at most.
    #[arg(long, default_value_t = 10_000)]
    pub audit_webhook_batch_buffer_size: usize,
    /// Events posted at once.
    #[arg(long, default_value_t = 400)]
    pub audit_webhook_batch_max_size: usize,
    /// How long an event waits for others.
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub audit_webhook_batch_max_wait: Duration,
    /// Whether posts are limited.
    #[arg(long, default_value_t = true)]
    pub audit_webhook_batch_throttle_enable: bool,
    /// Posts a second.
    #[arg(long, default_value_t = 10.0)]
    pub audit_webhook_batch_throttle_qps: f64,
    /// Posts at once.
    #[arg(long, default_value_t = 15)]
    pub audit_webhook_batch_throttle_burst: usize,
    /// Whether events that are too large are cut down before they are posted.
    #[arg(long, default_value_t = false)]
    pub audit_webhook_truncate_enabled: bool,
    /// Bytes of a batch.
    #[arg(long, default_value_t = 10_485_760)]
    pub audit_webhook_truncate_max_batch_size: usize,
    /// Bytes of an event.
    #[arg(long, default_value_t = 102_400)]
    pub audit_webhook_truncate_max_event_size: usize,
    /// Pause before a post that failed is tried again.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub audit_webhook_initial_backoff: Duration,
    /// The old name of --audit-webhook-initial-backoff, which counts if both are given. Deprecated.
    #[arg(long, value_parser = duration)]
    pub audit_webhook_batch_initial_backoff: Option<Duration>,
}

/// How events of one backend are delivered, by the flags of that backend.
struct Delivery<'a> {
    mode: &'a str,
    batching: Batching,
    truncation: Option<Truncation>,
}

impl Delivery<'_> {
    fn sink(&self, backend: Backend, errors: &IntCounterVec) -> Sink {
        let mode = match self.mode {
            "batch" => Mode::Batch(self.batching),
            "blocking-strict" => Mode::Strict,
            _ => Mode::Blocking,
        };
        Sink::new(backend, mode, self.truncation, errors.clone())
    }
}

/// Opens the log and finds the webhook, if there is a policy and a place for events.
pub(crate) async fn auditor(options: &AuditOptions, registry: &Registry) -> Result<Option<Arc<Auditor>>, AuditError> {
    let Some(file) = &options.audit_policy_file else { return Ok(None) };
    if options.audit_log_path.is_none() && options.audit_webhook_config_file.is_none() {
        return Ok(None);
    }
    let policy: Policy = config_file::decode(&config_file::read(file)?, &["audit.k8s.io/v1"], "Policy")?;
    let help = "Counter of audit events that failed to be audited properly. Plugin identifies the plugin affected by the error.";
    let errors = counter_vec(registry, Stability::Alpha, "apiserver_audit_error_total", help, &["plugin"])?;
    let mut sinks = Vec::new();
    if let Some(path) = &options.audit_log_path {
        sinks.push(options.log_delivery().sink(Backend::Log(options.log(path)?), &errors));
    }
    if let Some(file) = &options.audit_webhook_config_file {
        let remote = Remote::of_kubeconfig(file).await?;
        let webhook = AuditWebhook {
            remote,
            backoff: options.audit_webhook_batch_initial_backoff.unwrap_or(options.audit_webhook_initial_backoff),
        };
        sinks.push(options.webhook_delivery().sink(Backend::Webhook(Arc::new(webhook)), &errors));
    }
    Ok(Some(Arc::new(Auditor::new(policy, sinks, registry)?)))
}

impl AuditOptions {
    fn log(&self, path: &Path) -> Result<Arc<LogFile>, AuditError> {
        let settings = LogSettings {
            path: path.to_owned(),
            max_size: self.audit_log_maxsize << 20,
            max_backups: self.audit_log_maxbackup,
            max_age: DAY.saturating_mul(u32::try_from(self.audit_log_maxage).unwrap_or(u32::MAX)),
            compress: self.audit_log_compress,
            legacy: self.audit_log_format == "legacy",
        };
        let log = LogFile::open(settings).map_err(|source| AuditError::Log { path: path.to_owned(), source })?;
        Ok(Arc::new(log))
    }

    fn log_delivery(&self) -> Delivery<'_> {
        let throttle = (self.audit_log_batch_throttle_qps, self.audit_log_batch_throttle_burst);
        Delivery {
            mode: &self.audit_log_mode,
            batching: Batching {
                buffer: self.audit_log_batch_buffer_size,
                size: self.audit_log_batch_max_size,
                wait: self.audit_log_batch_max_wait,
                throttle: self.audit_log_batch_throttle_enable.then_some(throttle),
            },
            truncation: self.audit_log_truncate_enabled.then_some(Truncation {
                batch: self.audit_log_truncate_max_batch_size,
                event: self.audit_log_truncate_max_event_size,
            }),
        }
    }

    fn webhook_delivery(&self) -> Delivery<'_> {
        let throttle = (self.audit_webhook_batch_throttle_qps, self.audit_webhook_batch_throttle_burst);
        Delivery {
            mode: &self.audit_webhook_mode,
            batching: Batching {
                buffer: self.audit_webhook_batch_buffer_size,
                size: self.audit_webhook_batch_max_size,
                wait: self.audit_webhook_batch_max_wait,
                throttle: self.audit_webhook_batch_throttle_enable.then_some(throttle),
            },
            truncation: self.audit_webhook_truncate_enabled.then_some(Truncation {
                batch: self.audit_webhook_truncate_max_batch_size,
                event: self.audit_webhook_truncate_max_event_size,
            }),
        }
    }

    /// All that is wrong.
    pub(crate) fn validate(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (what, mode) in [("log", &self.audit_log_mode), ("webhook", &self.audit_webhook_mode)] {
            if !matches!(mode.as_str(), "batch" | "blocking" | "blocking-strict") {
                problems.push(format!(
                    "invalid audit {what} mode {mode}, allowed modes are \"batch,blocking,blocking-strict\""
                ));
            }
        }
        if !matches!(self.audit_log_format.as_str(), "legacy" | "json") {
            let format = &self.audit_log_format;
            problems.push(format!("invalid audit log format {format}, allowed formats are \"legacy,json\""));
        }
        for version in [&self.audit_log_version, &self.audit_webhook_version] {
            if version != VERSION {
                problems.push(format!("invalid audit version {version}, allowed version is {VERSION:?}"));
            }
        }
        for (what, delivery) in [("log", self.log_delivery()), ("webhook", self.webhook_delivery())] {
            let Batching { buffer, size, throttle, .. } = delivery.batching;
            if delivery.mode == "batch" {
                if buffer == 0 {
                    problems
                        .push(format!("invalid audit batch {what} buffer size {buffer}, must be a positive number"));
                }
                if size == 0 {
                    problems
                        .push(format!("invalid audit batch {what} max batch size {size}, must be a positive number"));
                }
                if let Some((qps, burst)) = throttle
                    && (qps <= 0.0 || burst == 0)
                {
                    problems.push(format!(
                        "invalid audit batch {what} throttle QPS {qps} and burst {burst}, must be positive numbers"
                    ));
                }
            }
            if let Some(Truncation { batch, event }) = delivery.truncation
                && (event == 0 || batch < event)
            {
                problems.push(format!(
                    "invalid audit truncate {what} max batch size {batch}, must be at least the max event size {event}"
                ));
            }
        }
        problems
    }
}
