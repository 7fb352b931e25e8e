//! The process: flags, informer, the loop, health and metrics.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use clap::Args;
use client::{Connection, connect};
use controller::InformerSet;
use ipnet::IpNet;
use parking_lot::Mutex;
use prometheus::{IntCounter, IntCounterVec, IntGauge};
use runtime::{
    Runtime,
    flags::{ClientArgs, duration},
    metrics::{Stability, counter, counter_vec, gauge},
};
use tokio::sync::Notify;
use util::Backoff;

use crate::{
    agent::Agent,
    cni::Places,
    host::{Host, ThisHost},
    links::observe,
    nodes::NodeView,
    plan::{Mode, Settings},
    rules::{self, Rules},
};

/// Changes that come close together are one.
const SETTLE: Duration = Duration::from_millis(100);
const RETRY: Backoff =
    Backoff { base: Duration::from_millis(500), max: Duration::from_secs(15), factor: 2.0, jitter: 0.2 };
/// Longest time a synchronisation may take.
const SYNC_DEADLINE: Duration = Duration::from_secs(120);
/// Time for running requests at the end.
const GRACE: Duration = Duration::from_secs(1);
/// Names of devices are at most this long.
const MAX_DEVICE: usize = 15;

/// Flags.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Name of the Node this runs on; the variable NODE_NAME and the host's name are used if it is empty
    #[arg(long, default_value = "")]
    pub node_name: String,
    /// Networks of all Pods, comma-separated; those of the Nodes are used if it is empty
    #[arg(long, value_delimiter = ',')]
    pub cluster_cidr: Vec<String>,
    /// How packets get to other nodes: auto (direct on the same network segment, else vxlan), vxlan, direct
    #[arg(long, default_value_t = Mode::Auto)]
    pub mode: Mode,
    /// Name of the vxlan device
    #[arg(long, default_value = "timonel.vxlan")]
    pub vxlan_device: String,
    /// Identifier of the vxlan network
    #[arg(long, default_value_t = 4096)]
    pub vxlan_id: u32,
    /// UDP port of vxlan
    #[arg(long, default_value_t = 8472)]
    pub vxlan_port: u16,
    /// MTU of Pods; 0 to derive it from the node's
    #[arg(long, default_value_t = 0)]
    pub mtu: u32,
    /// Name of the bridge that Pods are connected to
    #[arg(long, default_value = "cni0")]
    pub bridge: String,
    /// Masquerade packets of Pods that leave the cluster
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub masquerade: bool,
    /// Directory of CNI configuration
    #[arg(long, default_value = "/etc/cni/net.d")]
    pub cni_conf_dir: PathBuf,
    /// Name of the CNI configuration file
    #[arg(long, default_value = "10-timonel.conflist")]
    pub cni_conf_name: String,
    /// Directory of CNI plugins
    #[arg(long, default_value = "/opt/cni/bin")]
    pub cni_bin_dir: PathBuf,
    /// Directory from which CNI plugins are installed that are missing
    #[arg(long)]
    pub cni_bin_source: Option<PathBuf>,
    /// Time after which everything is looked at again
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub resync_period: Duration,
    /// Address of /healthz, /readyz and /metrics
    #[arg(long, default_value = "127.0.0.1:9254")]
    pub healthz_bind_address: SocketAddr,
    /// Remove everything the agent made on this host, and quit
    #[arg(long, default_value_t = false)]
    pub cleanup: bool,
    /// How the API server is reached.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// Why the agent does not run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Flags make no sense.
    #[error("{0}")]
    Flags(String),
    /// The name of the host is unknown.
    #[error("cannot tell the name of this host: {0}")]
    Name(std::io::Error),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// There is no client.
    #[error(transparent)]
    Client(#[from] client::ClientError),
    /// A metric is registered twice.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
    /// Not everything could be removed.
    #[error("cannot clean up: {0}")]
    Cleanup(String),
}

#[derive(Clone)]
struct AgentMetrics {
    syncs: IntCounterVec,
    changes: IntCounter,
    routes: IntGauge,
}

impl AgentMetrics {
    fn new(registry: &runtime::Registry) -> Result<Self, prometheus::Error> {
        let level = Stability::Alpha;
        let (syncs, help) = ("pod_network_syncs_total", "Number of synchronisations by result.");
        Ok(Self {
            syncs: counter_vec(registry, level, syncs, help, &["result"])?,
            changes: counter(registry, level, "pod_network_changes_total", "Number of changes made to the host.")?,
            routes: gauge(registry, level, "pod_network_routes", "Number of routes to other nodes.")?,
        })
    }
}

impl Options {
    fn settings(&self) -> Result<Settings, AgentError> {
        let cidrs = self.cluster_cidr.iter().filter(|c| !c.is_empty()).map(|c| {
            c.parse::<IpNet>()
                .map(|n| n.trunc())
                .map_err(|_| AgentError::Flags(format!("--cluster-cidr: {c:?} is no network")))
        });
        for (flag, name) in [("vxlan-device", &self.vxlan_device), ("bridge", &self.bridge)] {
            let valid = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if name.is_empty() || name.len() > MAX_DEVICE || name.starts_with(['-', '.']) || !name.chars().all(valid) {
                return Err(AgentError::Flags(format!("--{flag}: {name:?} is no name of a device")));
            }
        }
        if self.vxlan_id == 0 || self.vxlan_id >= 1 << 24 {
            return Err(AgentError::Flags("--vxlan-id must be between 1 and 16777215".into()));
        }
        if self.cni_conf_name.contains('/') || self.cni_conf_name.is_empty() {
            return Err(AgentError::Flags(format!("--cni-conf-name: {:?} is no name of a file", self.cni_conf_name)));
        }
        Ok(Settings {
            mode: self.mode,
            device: self.vxlan_device.clone(),
            vni: self.vxlan_id,
            port: self.vxlan_port,
            mtu: (self.mtu > 0).then_some(self.mtu),
            cluster: cidrs.collect::<Result<_, _>>()?,
        })
    }

    fn places(&self) -> Places {
        Places {
            configuration: self.cni_conf_dir.clone(),
            name: self.cni_conf_name.clone(),
            plugins: self.cni_bin_dir.clone(),
            source: self.cni_bin_source.clone(),
        }
    }
}

/// Runs until the order to stop.
pub async fn run(options: Options, runtime: Runtime) -> Result<(), AgentError> {
    let settings = options.settings()?;
    let host: Arc<dyn Host> = Arc::new(ThisHost);
    if options.cleanup {
        return cleanup(&*host, &settings, &options.places()).await;
    }
    let node = runtime::env::node_name(&options.node_name).map_err(AgentError::Name)?;
    let requests = client::ClientMetrics::new(&runtime.registry)?;
    let connection = Connection::of(runtime.component, "", &options.client, Some(requests));
    let client = connect(&options.client, &connection).await?;
    let informers = InformerSet::new(client.clone(), &runtime.tasks);
    let nodes = informers.get::<NodeView>();
    let wake = Arc::new(Notify::new());
    let notify = Arc::clone(&wake);
    nodes.on_change(move |change| {
        // The kubelet's heartbeats change nothing here.
        if !matches!(change, controller::Change::Updated { old, new } if old.view == new.view) {
            notify.notify_one();
        }
    });
    let agent = Agent {
        node,
        settings,
        bridge: options.bridge.clone(),
        masquerade: options.masquerade,
        places: options.places(),
        host,
        nodes,
        client,
        rules: Rules::default(),
        told: Mutex::default(),
    };
    let metrics = AgentMetrics::new(&runtime.registry)?;
    let progress = Progress::new(options.resync_period);
    serve(&options, &runtime, &progress).await?;
    if !agent.nodes.wait_synced(&runtime.shutdown).await {
        return Ok(());
    }
    tracing::info!(node = %agent.node, mode = %options.mode, "Keeping the pod network");
    let work = keep(&agent, &wake, options.resync_period, &progress, &metrics);
    // Routes and rules stay when the agent ends: Pods go on to talk.
    runtime.shutdown.run_until_cancelled(work).await;
    Ok(())
}

async fn keep(agent: &Agent, wake: &Notify, resync: Duration, progress: &Progress, metrics: &AgentMetrics) {
    let mut failures = 0;
    let mut told = String::new();
    loop {
        let outcome = tokio::time::timeout(SYNC_DEADLINE, agent.sync()).await;
        progress.looked();
        let pause = match outcome {
            Ok(Ok((routes, changes))) => {
                (failures, told) = (0, String::new());
                progress.succeeded();
                metrics.syncs.with_label_values(&["success"]).inc();
                metrics.changes.inc_by(u64::try_from(changes).unwrap_or(0));
                metrics.routes.set(i64::try_from(routes).unwrap_or(i64::MAX));
                resync
            }
            failed => {
                let error =
                    failed.map_or_else(|e| e.to_string(), |r| r.err().map(|e| e.to_string()).unwrap_or_default());
                if error != told {
                    tracing::warn!(error, "The pod network is not as it must be");
                    told = error;
                }
                metrics.syncs.with_label_values(&["error"]).inc();
                failures += 1;
                RETRY.jittered(failures - 1)
            }
        };
        if tokio::time::timeout(pause, wake.notified()).await.is_ok() {
            tokio::time::sleep(SETTLE).await;
        }
    }
}

/// When the loop last went round, and when it last succeeded, in seconds since the start, plus one.
#[derive(Clone)]
struct Progress {
    started: Instant,
    looked: Arc<AtomicU64>,
    succeeded: Arc<AtomicU64>,
    patience: Duration,
}

impl Progress {
    fn new(resync: Duration) -> Self {
        let patience = resync.saturating_mul(2).saturating_add(SYNC_DEADLINE);
        Self { started: Instant::now(), looked: Arc::default(), succeeded: Arc::default(), patience }
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_secs() + 1
    }

    fn looked(&self) {
        self.looked.store(self.now(), Ordering::Relaxed);
    }

    fn succeeded(&self) {
        self.succeeded.store(self.now(), Ordering::Relaxed);
    }

    /// The loop goes round; waiting for the first Nodes is no reason to be restarted.
    fn alive(&self) -> Result<(), String> {
        let looked = self.looked.load(Ordering::Relaxed);
        let silent = self.now().saturating_sub(looked);
        if looked > 0 && silent > self.patience.as_secs() {
            Err(format!("no synchronisation for {silent} seconds"))
        } else {
            Ok(())
        }
    }

    fn ready(&self) -> Result<(), String> {
        if self.succeeded.load(Ordering::Relaxed) > 0 { Ok(()) } else { Err("the network was not set up yet".into()) }
    }
}

async fn serve(options: &Options, runtime: &Runtime, progress: &Progress) -> Result<(), AgentError> {
    use runtime::health::Scope;
    let (alive, ready) = (progress.clone(), progress.clone());
    runtime.health.add_live("sync", move || alive.alive());
    runtime.health.add_to(Scope::READY, "network", move || ready.ready());
    let pages =
        axum::Router::new().merge(runtime.health.router()).merge(runtime::metrics::router(runtime.registry.clone()));
    let address = options.healthz_bind_address;
    let listener = runtime::serving::listen(address).map_err(|source| AgentError::Listen { address, source })?;
    let stop = runtime.tasks.token().clone();
    runtime.tasks.spawn("pages", runtime::serving::serve_router(listener, None, pages, stop, GRACE));
    Ok(())
}

async fn cleanup(host: &dyn Host, settings: &Settings, places: &Places) -> Result<(), AgentError> {
    let failed = |error: &dyn std::error::Error| AgentError::Cleanup(error.to_string());
    places.cleanup().map_err(|e| failed(&e))?;
    rules::cleanup(host).await;
    let observed = observe(host, &settings.device).await.map_err(|e| failed(&e))?;
    for command in observed.cleanup(&settings.device) {
        host.run(&command, "").await.map_err(|e| failed(&e))?;
    }
    Ok(())
}
