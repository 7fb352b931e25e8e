//! The kubelet as a whole: building its parts and running them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::api::{self, ApiSink, ApiSource, Mirrors, StatusWriter};
use crate::backoff::BackOff;
use crate::certificates::bootstrap;
use crate::certificates::rotation::{Rotation, Use};
use crate::certificates::store::PairStore;
use crate::certificates::{CertificateError, Purpose};
use crate::config::{self, KubeletConfiguration};
use crate::cri::{Cri, CriError, PodView, RuntimeVersion, v1};
use crate::events::{EventSink, Events, LogSink};
use crate::hooks::Hooks;
use crate::images::Images;
use crate::metrics::METRICS;
use crate::node::{LeaseLoop, NodeFacts, NodeLoop, SharedFacts, machine};
use crate::objects::{ApiObjects, NoObjects, Objects};
use crate::options::KubeletFlags;
use crate::paths::Paths;
use crate::platform::{CgroupDriver, CgroupLimits, CgroupVersion, Linux, Platform};
use crate::pleg::Pleg;
use crate::pods;
use crate::pods::resources::Qos;
use crate::probes::{Probes, Runner};
use crate::server::{self, Access, Heartbeat, Server, ServerError};
use crate::services::Services;
use crate::sources::{FileSource, Snapshot, SourceName, UrlSource};
use crate::spec::{Settings, qos_limits};
use crate::status::StatusStore;
use crate::volumes::Volumes;
use crate::workers::{LostPod, Workers};

const HOUSEKEEPING: Duration = Duration::from_secs(2);
const QOS_PERIOD: Duration = Duration::from_secs(60);
const DRIVER_TRIES: u32 = 3;
const RESTART_INITIAL: Duration = Duration::from_secs(10);

/// Why the kubelet does not run.
#[derive(Debug, thiserror::Error)]
pub enum KubeletError {
    /// Configuration.
    #[error(transparent)]
    Config(#[from] config::ConfigError),
    /// Client.
    #[error(transparent)]
    Client(#[from] api::ClientError),
    /// Certificates.
    #[error("failed to run Kubelet")]
    Certificates(#[from] CertificateError),
    /// Server.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The runtime refused.
    #[error("failed to get the container runtime's {what}")]
    Runtime {
        /// What was asked.
        what: &'static str,
        /// Cause.
        #[source]
        source: CriError,
    },
    /// The machine is not fit.
    #[error("{0}")]
    Machine(String),
    /// Files.
    #[error("{path}")]
    Files {
        /// Which.
        path: PathBuf,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
}

/// A kubelet ready to run.
pub struct Kubelet {
    flags: KubeletFlags,
    services: Arc<Services>,
    workers: Arc<Workers>,
    pleg: Arc<Pleg>,
    client: Option<Client>,
    mirrors: Option<Arc<Mirrors>>,
    runtime_version: String,
}

impl Kubelet {
    /// Builds all parts.
    pub async fn build(flags: KubeletFlags, stop: CancellationToken) -> Result<Self, KubeletError> {
        let loaded = config::load(flags.config.as_deref(), flags.config_dir.as_deref(), flags.overrides.clone())?;
        for warning in &loaded.warnings {
            tracing::warn!(warning, "configuration");
        }
        let config = Arc::new(loaded.config);
        let images_endpoint = match config.image_service_endpoint.as_str() {
            "" => config.container_runtime_endpoint.as_str(),
            endpoint => endpoint,
        };
        let runtime_failed = |what| move |source| KubeletError::Runtime { what, source };
        let cri = Cri::connect(&config.container_runtime_endpoint, images_endpoint, config.runtime_request_timeout.0)
            .map_err(runtime_failed("endpoint"))?;
        let version = cri.version().await.map_err(runtime_failed("version"))?;
        let driver = cgroup_driver(&cri, &config).await.map_err(runtime_failed("cgroup driver"))?;
        let platform: Arc<dyn Platform> = Arc::new(Linux::detect(driver));
        check_machine(&config, &*platform)?;
        let name = machine::node_name(flags.hostname_override.as_deref());
        let access = match &flags.kubeconfig {
            Some(path) => Some(ApiAccess::open(path, &flags, &config, &name, &stop).await?),
            None => None,
        };
        let paths = Paths::new(&flags.root_dir, &config.pod_logs_dir, "/var/log/containers");
        make_directories(&paths, &*platform)?;
        let client = access.as_ref().map(|access| access.client.clone());
        let parts = Parts { config, cri, version, platform, paths, driver, name, client };
        let kubelet = assemble(&flags, parts, &stop);
        if let Some(rotation) = access.and_then(|access| access.rotation(&flags, &kubelet.services)) {
            tokio::spawn(rotation.run(stop));
        }
        Ok(kubelet)
    }

    /// Runs until stopped.
    pub async fn run(self, stop: CancellationToken) -> Result<(), KubeletError> {
        let Self { flags, services, workers, pleg, client, mirrors, runtime_version } = self;
        METRICS.node_name.with_label_values(&[services.facts.get().name.as_str()]).set(1);
        services.health.check(&services.cri).await;
        if let Err(error) = pleg.relist(&services.cri, &workers).await {
            tracing::warn!(%error, "first relist");
        } else {
            services.health.relisted();
        }
        let (deliveries, mut snapshots) = mpsc::channel::<Snapshot>(16);
        let mut expected = start_sources(&flags, &services, &deliveries, &stop);
        if let (Some(client), Some(mirrors)) = (&client, &mirrors) {
            expected.insert(SourceName::Api);
            start_api(&flags, client, mirrors, &services, &runtime_version, &deliveries, &stop);
        }
        let health = {
            let (services, stop) = (Arc::clone(&services), stop.clone());
            async move { services.health.run(&services.cri, stop).await }
        };
        let relist = {
            let (services, workers, pleg, stop) =
                (Arc::clone(&services), Arc::clone(&workers), Arc::clone(&pleg), stop.clone());
            async move { pleg.run(&services.cri, &workers, &services.health, stop).await }
        };
        let heartbeat = Arc::new(Heartbeat::default());
        let server = serve(&flags, &services, &workers, client.as_ref(), &heartbeat, &stop)?;
        let groups = qos_loop(Arc::clone(&services), Arc::clone(&workers), stop.clone());
        let sync = async {
            let mut merged = MergedConfig::new(expected);
            let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    delivery = snapshots.recv() => match delivery {
                        Some(snapshot) => merged.apply(snapshot, &workers),
                        None => stop.cancelled().await,
                    },
                    _ = housekeeping.tick() => {
                        heartbeat.beat();
                        housekeep(&merged, &services, &workers, &pleg).await;
                        if let Some(mirrors) = mirrors.as_ref().filter(|_| merged.is_complete()) {
                            let copies = merged.sources.get(&SourceName::Api).cloned().unwrap_or_default();
                            for uid in mirrors.reconcile(&merged.static_pods(), &copies).await {
                                services.statuses.refresh(&uid);
                            }
                        }
                    }
                }
            }
        };
        let served = tokio::join!(health, relist, groups, sync, server).4;
        drop(deliveries);
        Ok(served?)
    }
}

/// The way to the apiserver, with a certificate that may be replaced.
struct ApiAccess {
    client: Client,
    reload: client::Reload,
    seeded: bool,
}

impl ApiAccess {
    /// Bootstraps where that is needed.
    async fn open(
        kubeconfig: &Path,
        flags: &KubeletFlags,
        config: &KubeletConfiguration,
        node: &str,
        stop: &CancellationToken,
    ) -> Result<Self, KubeletError> {
        if let Some(start) = &flags.bootstrap_kubeconfig {
            bootstrap::ensure(start, kubeconfig, &flags.cert_dir, node, stop).await?;
        }
        let store = PairStore::new(&flags.cert_dir, Purpose::Client);
        let seeded = config.rotate_certificates && bootstrap::seed(kubeconfig, &store)?;
        let pair = store.current().filter(|pair| config.rotate_certificates && pair.is_valid(Timestamp::now()));
        let client = match pair {
            Some(_) => api::client_with_pair(kubeconfig, &store.current_path()).await?,
            None => api::client(kubeconfig).await?,
        };
        let (client, reload) = client::reloadable(client);
        Ok(Self { client, reload, seeded })
    }

    /// What keeps the client certificate fresh, if it is to be kept so.
    fn rotation(self, flags: &KubeletFlags, services: &Services) -> Option<Rotation> {
        let kubeconfig = flags.kubeconfig.clone().filter(|_| services.config.rotate_certificates)?;
        let store = PairStore::new(&flags.cert_dir, Purpose::Client);
        let can_bootstrap = flags.bootstrap_kubeconfig.is_some();
        let usage = Use::Client { reload: self.reload, kubeconfig, can_bootstrap, seeded: self.seeded };
        Some(Rotation { client: self.client, store, usage, facts: services.facts.clone() })
    }
}

/// The runtime's driver, or the configured one where the runtime cannot say.
async fn cgroup_driver(cri: &Cri, config: &KubeletConfiguration) -> Result<CgroupDriver, CriError> {
    let configured = match config.cgroup_driver.as_str() {
        "systemd" => CgroupDriver::Systemd,
        _ => CgroupDriver::Cgroupfs,
    };
    let mut last = None;
    for attempt in 0..DRIVER_TRIES {
        if attempt > 0 {
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        match cri.runtime_config().await {
            Ok(answer) => {
                let systemd = v1::CgroupDriver::Systemd as i32;
                let said = answer.linux.map(|linux| linux.cgroup_driver == systemd);
                return Ok(match said {
                    Some(true) => CgroupDriver::Systemd,
                    Some(false) => CgroupDriver::Cgroupfs,
                    None => configured,
                });
            }
            Err(error) if error.is_unimplemented() => return Ok(configured),
            Err(error) => last = Some(error),
        }
    }
    last.map_or(Ok(configured), Err)
}

fn check_machine(config: &KubeletConfiguration, platform: &dyn Platform) -> Result<(), KubeletError> {
    if platform.cgroup_version() == CgroupVersion::V1 && config.fail_cgroup_v1 {
        let text = "kubelet is configured to not run on a host using cgroup v1. cgroup v1 support is unsupported and will be removed in a future release";
        return Err(KubeletError::Machine(text.to_owned()));
    }
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    if config.fail_swap_on && swaps.lines().count() > 1 {
        let text = format!(
            "running with swap on is not supported, please disable swap or set --fail-swap-on flag to false. /proc/swaps contents: {swaps:?}"
        );
        return Err(KubeletError::Machine(text));
    }
    Ok(())
}

fn make_directories(paths: &Paths, platform: &dyn Platform) -> Result<(), KubeletError> {
    use std::os::unix::fs::PermissionsExt;
    let root = paths.root().to_owned();
    let wanted = [
        (root.clone(), 0o750),
        (paths.pods(), 0o750),
        (root.join("plugins"), 0o750),
        (root.join("plugins_registry"), 0o750),
        (root.join("pod-resources"), 0o750),
        (root.join("checkpoints"), 0o700),
        (root.join("device-plugins"), 0o750),
        (paths.pod_logs().to_owned(), 0o750),
        (paths.container_logs().to_owned(), 0o755),
    ];
    for (path, mode) in wanted {
        let made = std::fs::create_dir_all(&path)
            .and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)));
        made.map_err(|source| KubeletError::Files { path, source })?;
    }
    platform.make_shared(&root).map_err(|source| KubeletError::Files { path: root, source })
}

/// What must be known before anything can be put together.
struct Parts {
    config: Arc<KubeletConfiguration>,
    cri: Cri,
    version: RuntimeVersion,
    platform: Arc<dyn Platform>,
    paths: Paths,
    driver: CgroupDriver,
    name: String,
    client: Option<Client>,
}

fn assemble(flags: &KubeletFlags, parts: Parts, stop: &CancellationToken) -> Kubelet {
    let Parts { config, cri, version, platform, paths, driver, name, client } = parts;
    let started = Timestamp::now();
    let addresses: Vec<IpAddr> = machine::addresses(flags.node_ip.as_deref(), &name);
    let capacity = machine::capacity(&config, &*platform, paths.root());
    let allocatable = machine::allocatable(&config, &capacity);
    let facts = SharedFacts::new(NodeFacts { name: name.clone(), addresses, capacity, allocatable });
    let objects: Arc<dyn Objects> = match &client {
        Some(client) => Arc::new(ApiObjects::start(client.clone())),
        None => Arc::new(NoObjects),
    };
    let sink: Arc<dyn EventSink> = match &client {
        Some(client) => Arc::new(ApiSink::start(client.clone(), &name, stop.clone())),
        None => Arc::new(LogSink),
    };
    let events = Events::new(sink, &name);
    let mut settings = Settings::new(&config, driver, platform.cgroup_version() == CgroupVersion::V2);
    settings.huge_pages = machine::huge_page_sizes();
    settings.swap_capacity = machine::swap_bytes();
    let registry_files = vec![paths.root().join("config.json")];
    let cell: Arc<OnceLock<std::sync::Weak<Workers>>> = Arc::default();
    let wake = {
        let cell = Arc::clone(&cell);
        Arc::new(move |uid: &str| {
            if let Some(workers) = cell.get().and_then(std::sync::Weak::upgrade) {
                workers.nudge(uid);
            }
        })
    };
    let services = Arc::new(Services {
        health: Arc::default(),
        images: Images::new(cri.clone(), events.clone(), &config, registry_files),
        volumes: Volumes::new(paths.clone(), Arc::clone(&platform), Arc::clone(&objects)),
        probes: Probes::new(Runner::new(cri.clone(), events.clone()), wake, started),
        hooks: Hooks::new(cri.clone(), events.clone()),
        statuses: Arc::new(StatusStore::default()),
        restarts: BackOff::new(RESTART_INITIAL, settings.max_restart_period),
        cri,
        runtime_name: version.name.clone(),
        platform,
        paths,
        config,
        settings,
        facts,
        objects,
        events,
        started,
    });
    let workers = Workers::new(Arc::clone(&services));
    // The cell is new, so nobody can have filled it.
    drop(cell.set(Arc::downgrade(&workers)));
    let runtime_version = format!("{}://{}", version.name, version.version.trim_start_matches('v'));
    let mirrors = client.as_ref().map(|client| Mirrors::new(client.clone(), &name));
    Kubelet { flags: flags.clone(), services, workers, pleg: Arc::default(), client, mirrors, runtime_version }
}

/// Starts the sources that are configured and answers their names.
fn start_sources(
    flags: &KubeletFlags,
    services: &Services,
    deliveries: &mpsc::Sender<Snapshot>,
    stop: &CancellationToken,
) -> BTreeSet<SourceName> {
    let mut expected = BTreeSet::new();
    let config = &services.config;
    let node = services.facts.get().name.clone();
    if !config.static_pod_path.is_empty() {
        expected.insert(SourceName::File);
        let dir = Path::new(&config.static_pod_path).to_owned();
        let source = FileSource { dir, node: node.clone(), period: config.file_check_frequency.0 };
        tokio::spawn(source.run(deliveries.clone(), stop.clone()));
    }
    if !config.static_pod_url.is_empty() {
        expected.insert(SourceName::Http);
        let source = UrlSource {
            url: config.static_pod_url.clone(),
            headers: config.static_pod_url_header.clone(),
            node,
            period: config.http_check_frequency.0,
        };
        tokio::spawn(source.run(deliveries.clone(), stop.clone()));
    }
    tracing::info!(standalone = flags.kubeconfig.is_none(), sources = ?expected, "pod sources");
    expected
}

/// The servers, as a future that ends with them; a server that fails stops the kubelet.
fn serve(
    flags: &KubeletFlags,
    services: &Arc<Services>,
    workers: &Arc<Workers>,
    client: Option<&Client>,
    heartbeat: &Arc<Heartbeat>,
    stop: &CancellationToken,
) -> Result<impl Future<Output = Result<(), ServerError>> + use<>, KubeletError> {
    let access = Access::new(&services.config, client).map_err(ServerError::from)?;
    let certificate = server::certificate(services, &flags.cert_dir)?;
    if let Some(client) =
        client.filter(|_| services.config.server_tls_bootstrap && services.config.tls_cert_file.is_empty())
    {
        let store = PairStore::new(&flags.cert_dir, Purpose::Server);
        let usage = Use::Server(Arc::clone(&certificate));
        let rotation = Rotation { client: client.clone(), store, usage, facts: services.facts.clone() };
        tokio::spawn(rotation.run(stop.clone()));
    }
    let server = Arc::new(Server {
        services: Arc::clone(services),
        workers: Arc::clone(workers),
        access,
        heartbeat: Arc::clone(heartbeat),
    });
    let stop = stop.clone();
    Ok(async move {
        let result = server.run(certificate, stop.clone()).await;
        if result.is_err() {
            stop.cancel();
        }
        result
    })
}

/// Starts everything that needs an apiserver.
fn start_api(
    flags: &KubeletFlags,
    client: &Client,
    mirrors: &Arc<Mirrors>,
    services: &Arc<Services>,
    runtime_version: &str,
    deliveries: &mpsc::Sender<Snapshot>,
    stop: &CancellationToken,
) {
    let node = services.facts.get().name.clone();
    let source = ApiSource { client: client.clone(), node: node.clone() };
    tokio::spawn(source.run(deliveries.clone(), stop.clone()));
    let (store, mirrors) = (Arc::clone(&services.statuses), Arc::clone(mirrors));
    let writer = StatusWriter { client: client.clone(), store };
    tokio::spawn(writer.run(stop.clone()));
    let seconds = services.config.node_lease_duration_seconds;
    let lease = LeaseLoop { client: client.clone(), node, seconds };
    tokio::spawn(lease.run(stop.clone()));
    let object = NodeLoop {
        client: client.clone(),
        services: Arc::clone(services),
        runtime_version: runtime_version.to_owned(),
        labels: flags.node_labels.clone(),
        external_cloud: flags.cloud_provider == "external",
        mirrors,
    };
    tokio::spawn(object.run(stop.clone()));
}

/// The desired Pods of all sources.
struct MergedConfig {
    expected: BTreeSet<SourceName>,
    sources: HashMap<SourceName, BTreeMap<String, Arc<Pod>>>,
}

impl MergedConfig {
    fn new(expected: BTreeSet<SourceName>) -> Self {
        Self { expected, sources: HashMap::new() }
    }

    /// Every source has delivered once.
    fn is_complete(&self) -> bool {
        self.expected.iter().all(|source| self.sources.contains_key(source))
    }

    fn static_pods(&self) -> Vec<Arc<Pod>> {
        self.sources.values().flat_map(BTreeMap::values).filter(|pod| pods::is_static(pod)).cloned().collect()
    }

    fn contains(&self, uid: &str) -> bool {
        self.sources.values().any(|pods| pods.contains_key(uid))
    }

    fn apply(&mut self, snapshot: Snapshot, workers: &Workers) {
        let old = self.sources.insert(snapshot.source, snapshot.pods.clone()).unwrap_or_default();
        for uid in old.keys().filter(|uid| !snapshot.pods.contains_key(*uid)) {
            workers.remove(uid);
        }
        // Mirrors are shown in the API and never run.
        let real = snapshot.pods.values().filter(|pod| !pods::is_mirror(pod));
        let mut changed: Vec<Arc<Pod>> = real.filter(|pod| old.get(pods::uid(pod)) != Some(*pod)).cloned().collect();
        changed.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
        for pod in changed {
            workers.update(pod);
        }
        let (stat, other): (Vec<_>, Vec<_>) =
            self.sources.values().flat_map(BTreeMap::values).partition(|pod| pods::is_static(pod));
        METRICS.desired_pods.with_label_values(&["true"]).set(i64::try_from(stat.len()).unwrap_or(i64::MAX));
        METRICS.desired_pods.with_label_values(&["false"]).set(i64::try_from(other.len()).unwrap_or(i64::MAX));
    }
}

/// Ends what nobody wants any more and removes what it left.
async fn housekeep(merged: &MergedConfig, services: &Services, workers: &Workers, pleg: &Pleg) {
    if !merged.is_complete() {
        return;
    }
    workers.prune();
    for (uid, pod) in pleg.pods() {
        if !pod.running || merged.contains(&uid) || workers.get(&uid).is_some() {
            continue;
        }
        // The list may be older than the Pod's end: what counts is what runs now.
        let view = PodView::read(&services.cri, &uid).await;
        if let Some(view) = view.ok().filter(|view| view.running().next().is_some() || view.active_sandbox().is_some())
        {
            METRICS.orphaned_pods.inc();
            tracing::info!(uid, pod = pod.name, namespace = pod.namespace, "stopping a pod that nobody wants");
            let lost = LostPod::restore(&uid, &pod.name, &pod.namespace, &view);
            workers.stop_lost(Arc::new(lost));
        }
    }
    remove_orphans(merged, services, workers, &pleg.pods()).await;
}

/// Directories and control groups of Pods that are over.
async fn remove_orphans(
    merged: &MergedConfig,
    services: &Services,
    workers: &Workers,
    running: &HashMap<String, crate::pleg::RuntimePod>,
) {
    let is_over = |uid: &str| {
        !merged.contains(uid) && workers.get(uid).is_none() && !running.get(uid).is_some_and(|pod| pod.running)
    };
    let entries = std::fs::read_dir(services.paths.pods()).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    for uid in names.filter(|uid| is_over(uid)) {
        if let Err(error) = services.volumes.tear_down(&uid).await {
            tracing::error!(uid, %error, "orphaned pod found, but its volumes are still mounted");
            continue;
        }
        if services.volumes.is_clean(&uid)
            && let Err(error) = std::fs::remove_dir_all(services.paths.pod(&uid))
        {
            tracing::error!(uid, %error, "directory of an orphaned pod");
        }
    }
    if services.settings.cgroups_per_qos {
        for (name, uid) in services.platform.pod_cgroups(&services.settings.pods_root) {
            if is_over(&uid)
                && let Err(error) = services.platform.remove_cgroup(&name)
            {
                tracing::warn!(uid, %error, "control group of an orphaned pod");
            }
        }
    }
}

/// Keeps the groups of all Pods and of the classes.
async fn qos_loop(services: Arc<Services>, workers: Arc<Workers>, stop: CancellationToken) {
    if !services.settings.cgroups_per_qos {
        return;
    }
    let mut ticks = tokio::time::interval(QOS_PERIOD);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let (services, workers) = (Arc::clone(&services), Arc::clone(&workers));
        let written = tokio::task::spawn_blocking(move || write_groups(&services, &workers)).await;
        if let Ok(Err(error)) = written {
            tracing::error!(%error, "control groups of the classes");
        }
    }
}

fn write_groups(services: &Services, workers: &Workers) -> std::io::Result<()> {
    let root = &services.settings.pods_root;
    let limits = if services.config.enforce_node_allocatable.iter().any(|what| what == "pods") {
        machine::pods_group_limits(&services.config, &services.facts.get())
    } else {
        CgroupLimits::default()
    };
    services.platform.apply_cgroup(root, &limits)?;
    let all = workers.all();
    for (qos, name) in [(Qos::Burstable, "burstable"), (Qos::BestEffort, "besteffort")] {
        let limits = qos_limits(qos, all.iter().map(|summary| &*summary.pod));
        services.platform.apply_cgroup(&root.child(name), &limits)?;
    }
    Ok(())
}
