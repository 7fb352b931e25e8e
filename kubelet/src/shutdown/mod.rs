//! Ending Pods in order before the machine goes down.
//!
//! [`Logind`] holds the machine up while this kubelet has Pods; when it is told that the machine is about to go down,
//! Pods are ended in groups by priority, lowest first, each within its own time, and then the machine is let go. From
//! that moment on the node is not ready and takes no Pods, until it is told that the shutdown was called off.

mod groups;
mod logind;
mod watch;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

pub use groups::{Group, groups};
pub use logind::{Logind, SystemLogind};
pub use watch::ShutdownWatch;

use crate::metrics::METRICS;

/// What keeps the node from being ready.
pub const NOT_READY: &str = "node is shutting down";
/// Reason and text of a Pod that is not taken.
pub const REFUSAL: (&str, &str) = ("NodeShutdown", "Pod was rejected as the node is shutting down.");

/// Whether the machine is going down.
#[derive(Default)]
pub struct Shutdown {
    active: AtomicBool,
    changed: Notify,
}

impl Shutdown {
    /// Whether it is.
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Acquire)
    }

    /// It is, or it is not any more.
    pub fn set(&self, active: bool) {
        self.active.store(active, Ordering::Release);
        self.changed.notify_one();
    }

    /// Returns when it changed since the last call.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// When the last shutdown took place, as it is kept over the restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LastShutdown {
    /// When it began.
    pub start_time: Option<Timestamp>,
    /// When all Pods had ended.
    pub end_time: Option<Timestamp>,
}

impl LastShutdown {
    /// Reads it; what cannot be read did not take place.
    pub fn read(path: &Path) -> Self {
        let text = std::fs::read(path).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Writes it.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let text = serde_json::to_vec(self)?;
        let draft = path.with_extension("tmp");
        std::fs::write(&draft, text)?;
        std::fs::rename(draft, path)
    }

    /// Tells the series.
    pub fn publish(&self) {
        for (gauge, time) in [(&METRICS.shutdown_start, self.start_time), (&METRICS.shutdown_end, self.end_time)] {
            gauge.set(time.map_or(0.0, |time| time.duration_since(Timestamp::UNIX_EPOCH).as_secs_f64()));
        }
    }
}
