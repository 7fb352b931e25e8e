//! `kubeadm upkeep`: what a control plane needs from time to time, done without anybody asking. It runs on every control
//! plane, as a DaemonSet; a Lease lets one host at a time do its part, so that never two of them restart components.

mod certificates;
mod data;
mod lock;
mod metrics;
#[cfg(test)]
mod tests;

use std::{net::SocketAddr, path::Path, path::PathBuf, sync::Arc, time::Duration};

use runtime::CancellationToken;
use serde_json::json;
use time::OffsetDateTime;

use crate::{
    client::Cluster,
    config::{ClusterConfiguration, defaults},
    constants::ADMIN_CONF,
    error::{Context, Error, Result},
    fetch,
    host::Host,
};
use lock::Lock;
use metrics::Metrics;

/// Time for one call of the API with its repetitions.
const PATIENCE: Duration = Duration::from_secs(20);
/// Pause after another host was found at work.
const BUSY: Duration = Duration::from_secs(60);
/// How often a warning is told again.
const REMIND: time::Duration = time::Duration::days(1);

/// What is done, and how often.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of the node.
    pub node: String,
    /// Time between rounds.
    pub interval: Duration,
    /// Only one round.
    pub once: bool,
    /// Certificates are renewed when this part of their life is left, percent.
    pub renew_at: u32,
    /// Where snapshots go.
    pub snapshots: PathBuf,
    /// Time between snapshots; zero for none.
    pub snapshot_interval: Duration,
    /// How many of them are kept.
    pub kept: usize,
    /// Where metrics are served; `None` for nowhere.
    pub metrics: Option<SocketAddr>,
}

/// How a round ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    Done,
    /// Another host is at work.
    Busy,
}

struct Upkeep {
    host: Arc<dyn Host>,
    settings: Settings,
    metrics: Metrics,
    /// When what was told last.
    told: Vec<(String, OffsetDateTime)>,
}

/// Does its rounds until `stop`.
pub async fn run(host: Arc<dyn Host>, settings: Settings, stop: CancellationToken) -> Result<()> {
    let metrics = Metrics::new().context("cannot make metrics")?;
    if let Some(address) = settings.metrics {
        metrics.serve(address, stop.clone()).await?;
    }
    let (once, interval) = (settings.once, settings.interval);
    let mut upkeep = Upkeep { host, settings, metrics, told: Vec::new() };
    loop {
        let ended = match stop.run_until_cancelled(upkeep.round()).await {
            Some(ended) => ended,
            None => return Ok(()),
        };
        if once {
            return ended.map(drop);
        }
        let pause = match ended {
            Ok(Round::Busy) => BUSY.min(interval),
            Ok(Round::Done) => interval,
            Err(error) => {
                upkeep.host.line(&format!("[upkeep] {error}"));
                interval
            }
        };
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return Ok(());
        }
    }
}

impl Upkeep {
    async fn round(&mut self) -> Result<Round> {
        let host = Arc::clone(&self.host);
        let reached = async {
            let api = Cluster::load(&*host, Path::new(ADMIN_CONF), None, PATIENCE).await?;
            let cluster = fetch::cluster(&*host, &api).await?;
            let lock = Lock::take(&api, &self.settings.node, host.now()).await?;
            Ok::<_, Error>((api, cluster, lock))
        };
        match reached.await {
            Ok((_, _, None)) => Ok(Round::Busy),
            Ok((api, cluster, Some(lock))) => {
                let certificates = self.certificates(Some(&api), &cluster).await;
                let data = self.data(&api, &cluster).await;
                lock.release(&api).await;
                self.metrics.errors(&[("certificates", &certificates), ("data", &data)]);
                certificates.and(data).map(|()| Round::Done)
            }
            Err(cause) => {
                // Perhaps because certificates ended: then nobody but this can bring the cluster back.
                host.line(&format!("[upkeep] The cluster cannot be reached: {cause}"));
                let mut cluster = ClusterConfiguration::default();
                defaults::cluster_static(&mut cluster);
                let ended = self.certificates(None, &cluster).await;
                self.metrics.errors(&[("certificates", &ended)]);
                ended.map(|()| Round::Done)
            }
        }
    }

    /// Tells something about this node as an event, a warning not more than once a day.
    async fn tell(&mut self, api: Option<&Cluster>, kind: &str, reason: &str, message: &str) {
        let now = self.host.now();
        self.told.retain(|(_, at)| now - *at < REMIND);
        if kind == "Warning" {
            if self.told.iter().any(|(text, _)| text == message) {
                return;
            }
            self.told.push((message.to_owned(), now));
        }
        self.host.line(&format!("[upkeep] {message}"));
        let Some(api) = api else { return };
        let (node, at) = (&self.settings.node, machinery::time::format(now));
        let event = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": format!("{node}.{}", self.host.random_text(16)), "namespace": "default"},
            "involvedObject": {"kind": "Node", "name": node, "uid": node},
            "reason": reason, "message": message, "type": kind, "count": 1,
            "source": {"component": "kubeadm-upkeep", "host": node},
            "firstTimestamp": at, "lastTimestamp": at,
        });
        if let Err(error) = api.create_once(&event).await {
            self.host.line(&format!("[upkeep] cannot make an event: {}", crate::client::error_text(&error)));
        }
    }
}
