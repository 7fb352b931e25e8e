//! Configuration files that are read again when they change.

use std::{path::Path, time::Duration};

use futures::future::BoxFuture;
use machinery::field::ErrorList;
use prometheus::{GaugeVec, IntCounterVec, Opts, Registry};
use runtime::{
    metrics::{Stability, counter_vec},
    tls::{TlsError, WatchedFile},
};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

/// How often files are looked at.
const PERIOD: Duration = Duration::from_secs(5);

/// `apiserver_<what>_config_controller_*`.
#[derive(Clone)]
pub(crate) struct ReloadMetrics {
    reloads: IntCounterVec,
    last: GaugeVec,
    id: String,
}

impl ReloadMetrics {
    /// `id` names the server.
    pub(crate) fn new(registry: &Registry, what: &str, level: Stability, id: &str) -> Result<Self, prometheus::Error> {
        let name = |end: &str| format!("apiserver_{what}_config_controller_{end}");
        let labels = ["apiserver_id_hash", "status"];
        let help = format!(
            "Total number of automatic reloads of {what} configuration split by status and apiserver identity."
        );
        let reloads = counter_vec(registry, level, &name("automatic_reloads_total"), &help, &labels)?;
        let help = format!(
            "[ALPHA] Timestamp of the last automatic reload of {what} configuration split by status and apiserver identity."
        );
        let last = GaugeVec::new(Opts::new(name("automatic_reload_last_timestamp_seconds"), help), &labels)?;
        registry.register(Box::new(last.clone()))?;
        Ok(Self { reloads, last, id: format!("sha256:{}", hex::encode(Sha256::digest(id.as_bytes()))) })
    }

    fn count(&self, succeeded: bool) {
        let labels = &[self.id.as_str(), if succeeded { "success" } else { "failure" }];
        self.reloads.with_label_values(labels).inc();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        self.last.with_label_values(labels).set(now.as_secs_f64());
    }
}

/// All that is wrong with a configuration, in one text.
pub(crate) fn shown(errors: &ErrorList) -> String {
    let all: Vec<String> = errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect();
    all.join(", ")
}

/// Gives `apply` what the file holds, whenever that is something else, until `stop`. What is refused is ignored, and
/// counted.
pub(crate) fn follow(
    path: &Path,
    stop: &CancellationToken,
    metrics: ReloadMetrics,
    mut apply: impl FnMut(String) -> BoxFuture<'static, Result<(), String>> + Send + 'static,
) -> Result<(), TlsError> {
    let mut file = WatchedFile::open(path)?;
    let shown = path.display().to_string();
    tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
        loop {
            tokio::time::sleep(PERIOD).await;
            if !file.changed() {
                continue;
            }
            let outcome = apply(String::from_utf8_lossy(file.content()).into_owned()).await;
            metrics.count(outcome.is_ok());
            match outcome {
                Ok(()) => tracing::info!(file = shown, "reloaded configuration"),
                Err(why) => tracing::error!(file = shown, err = why, "failed to reload configuration"),
            }
        }
    }));
    Ok(())
}
