//! Waiting for the machine to go down, and what then happens.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio_util::sync::CancellationToken;

use super::groups::position;
use super::{Group, LastShutdown, Logind, SystemLogind};
use crate::bus::BusError;
use crate::events::EventType;
use crate::pods;
use crate::services::Services;
use crate::status::Verdict;
use crate::workers::{Stage, StopRequest, Workers};

const SOCKET: &str = "/run/dbus/system_bus_socket";
const DROP_IN: &str = "/etc/systemd/logind.conf.d/99-kubelet.conf";
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// The daemon reads its settings when it comes to it.
const SETTLE: (u32, Duration) = (20, Duration::from_millis(500));
const MESSAGE: &str = "Pod was terminated in response to imminent node shutdown.";

/// Waits for the machine to go down.
pub struct ShutdownWatch {
    /// Parts of the kubelet.
    pub services: Arc<Services>,
    /// Pods.
    pub workers: Arc<Workers>,
    /// Who ends when; not empty.
    pub groups: Vec<Group>,
}

impl ShutdownWatch {
    /// Waits until stopped.
    pub async fn run(self, stop: CancellationToken) {
        LastShutdown::read(&self.state_file()).publish();
        let mut delay = RETRY.0;
        loop {
            let watched = async {
                let mut logind = SystemLogind::connect(Path::new(SOCKET), Path::new(DROP_IN)).await?;
                self.watch(&mut logind, &mut delay).await
            };
            let error = tokio::select! {
                () = stop.cancelled() => return,
                ended = watched => ended.err(),
            };
            if let Some(error) = error {
                tracing::error!(error = util::chain(&error).to_string(), "graceful node shutdown");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(delay) => {}
            }
            delay = (delay * 2).min(RETRY.1);
        }
    }

    fn state_file(&self) -> PathBuf {
        self.services.paths.root().join("graceful_node_shutdown_state")
    }

    /// Follows one connection; `retry` is set back once it works.
    pub(super) async fn watch(&self, logind: &mut dyn Logind, retry: &mut Duration) -> Result<(), BusError> {
        self.ask_for_time(logind).await?;
        let mut lock: Option<OwnedFd> = Some(logind.inhibit().await?);
        *retry = RETRY.0;
        loop {
            let begins = logind.prepares_for_shutdown().await?;
            tracing::info!(begins, "shutdown manager detected new shutdown event");
            self.services.shutdown.set(begins);
            let what = if begins { "event" } else { "cancellation" };
            let text = format!("Shutdown manager detected shutdown {what}");
            self.services.events.node(EventType::Normal, "Shutdown", text);
            if begins {
                self.end_pods().await;
                lock = None;
            } else if lock.is_none() {
                lock = Some(logind.inhibit().await?);
            }
        }
    }

    /// Makes sure that the machine can be held up for as long as all groups take.
    async fn ask_for_time(&self, logind: &mut dyn Logind) -> Result<(), BusError> {
        let wanted: Duration = self.groups.iter().map(|group| group.time).sum();
        let mut delay = logind.max_delay().await?;
        if delay >= wanted {
            return Ok(());
        }
        logind.set_max_delay(wanted).await?;
        for _ in 0..SETTLE.0 {
            delay = logind.max_delay().await?;
            if delay >= wanted {
                return Ok(());
            }
            tokio::time::sleep(SETTLE.1).await;
        }
        Err(BusError::Failed {
            name: "node shutdown manager was unable to update logind InhibitDelayMaxSec".to_owned(),
            message: format!(
                "current value of InhibitDelayMaxSec ({delay:?}) is less than requested ShutdownGracePeriod ({wanted:?})"
            ),
        })
    }

    /// Ends all Pods, group after group; what does not end in its group's time is left behind.
    async fn end_pods(&self) {
        let mut last = LastShutdown { start_time: Some(Timestamp::now()), end_time: None };
        self.keep(&last);
        for (index, group) in self.groups.iter().enumerate() {
            let all = self.workers.all().into_iter().filter(|summary| summary.stage < Stage::Finished);
            let mine: Vec<_> = all.filter(|summary| position(&self.groups, &summary.pod) == index).collect();
            for summary in mine.iter().filter(|summary| summary.stage < Stage::Terminated) {
                self.workers.stop(pods::uid(&summary.pod), request(&summary.pod, group.time));
            }
            let ends = mine.iter().filter_map(|summary| self.workers.stage(pods::uid(&summary.pod)));
            let ends = join_all(ends.map(|mut stage| async move {
                // A task that is gone has ended too.
                let _ended = stage.wait_for(|stage| *stage == Stage::Finished).await.is_err();
            }));
            if tokio::time::timeout(group.time, ends).await.is_err() {
                tracing::warn!(priority = group.priority, "shutdown manager pod killing time out");
            }
        }
        last.end_time = Some(Timestamp::now());
        self.keep(&last);
    }

    fn keep(&self, last: &LastShutdown) {
        last.publish();
        if let Err(error) = last.write(&self.state_file()) {
            tracing::error!(%error, "state of the node's shutdown");
        }
    }
}

/// How a Pod ends: in its own time, but not later than its group.
fn request(pod: &Pod, time: Duration) -> StopRequest {
    let limit = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let verdict = Verdict {
        phase: "Failed",
        reason: "Terminated".to_owned(),
        message: MESSAGE.to_owned(),
        disruption: Some(("TerminationByKubelet", MESSAGE.to_owned())),
    };
    StopRequest { grace: Some(limit.min(pods::termination_grace(pod))), verdict: Some(verdict) }
}
