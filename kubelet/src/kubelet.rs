//! The kubelet as a whole: building its parts and running them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use runtime::Runtime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::admission::Allowlist;
use crate::api::{AccessError, AccessSettings, ApiAccess, ApiSink, ApiSource, Mirrors, Ready, Reconnect, StatusWriter};
use crate::backoff::BackOff;
use crate::certificates::Purpose;
use crate::certificates::rotation::{Rotation, Use};
use crate::certificates::store::PairStore;
use crate::claims::{ClaimDrivers, Claims};
use crate::config::{self, KubeletConfiguration};
use crate::cpus::reconcile;
use crate::cri::{Cri, CriError, RuntimeVersion};
use crate::csi::{Csi, CsiNodes};
use crate::devices::DeviceRegistration;
use crate::events::{EventSink, Events, LogSink};
use crate::evict::{EvictionPolicy, Evictor, LiveWorld};
use crate::gc::{ContainerPolicy, Gc, ImageGc};
use crate::hooks::Hooks;
use crate::housekeeping::{Rounds, housekeep, qos_loop, system_loop};
use crate::images::{Images, Providers, Records, Verification, node_files};
use crate::metrics::METRICS;
use crate::node::status::SharedPressure;
use crate::node::{LeaseLoop, NodeFacts, NodeLoop, SharedFacts, machine};
use crate::objects::{ApiObjects, NoObjects, Objects, Strategy};
use crate::options::KubeletFlags;
use crate::paths::Paths;
use crate::platform::{self, CgroupDriver, CgroupVersion, Linux, Platform};
use crate::pleg::Pleg;
use crate::plugins::{Handlers, Registry};
use crate::probes::{Probes, Runner};
use crate::resize::Resizes;
use crate::server::podresources::PodResources;
use crate::server::{self, Access, Heartbeat, Pages, Server, ServerError};
use crate::services::Services;
use crate::shutdown::{self, Shutdown, ShutdownWatch};
use crate::sources::{Desired, FileSource, Snapshot, SourceName, UrlSource};
use crate::spec::Settings;
use crate::start_times::StartTimes;
use crate::startup::{self, allotter, cgroup_driver, check_machine, ids_per_pod, image_policy, make_directories};
use crate::stats::Stats;
use crate::status::StatusStore;
use crate::user_namespaces::{HostIds, UserNamespaces};
use crate::volumes::Volumes;
use crate::workers::{Workers, resize_loop};

const HOUSEKEEPING: Duration = Duration::from_secs(2);
const SLOW_HOUSEKEEPING: Duration = Duration::from_secs(1);
const RESTART_INITIAL: Duration = Duration::from_secs(10);

/// Why the kubelet does not run.
#[derive(Debug, thiserror::Error)]
pub enum KubeletError {
    /// Configuration.
    #[error(transparent)]
    Config(#[from] config::ConfigError),
    /// The way to the apiserver.
    #[error("failed to run Kubelet")]
    Access(#[from] AccessError),
    /// Server.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// Metrics.
    #[error("failed to register metrics")]
    Metrics(#[from] prometheus::Error),
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

/// Runs the kubelet until it is told to stop.
pub async fn run(flags: KubeletFlags, runtime: Runtime) -> Result<(), KubeletError> {
    let kubelet = Kubelet::build(flags, &runtime).await?;
    runtime::env::notify_ready();
    kubelet.run().await
}

/// What talks to the apiserver.
struct ApiParts {
    client: kube::Client,
    ready: Ready,
    reconnect: Reconnect,
    mirrors: Arc<Mirrors>,
}

/// A kubelet ready to run.
struct Kubelet {
    flags: KubeletFlags,
    runtime: Runtime,
    services: Arc<Services>,
    workers: Arc<Workers>,
    pleg: Arc<Pleg>,
    stats: Arc<Stats>,
    gc: Arc<Gc>,
    api: Option<ApiParts>,
    runtime_version: String,
}

impl Kubelet {
    /// Builds all parts.
    async fn build(flags: KubeletFlags, runtime: &Runtime) -> Result<Self, KubeletError> {
        let loaded = config::load(flags.config.as_deref(), flags.config_dir.as_deref(), flags.overrides.clone())?;
        for warning in &loaded.warnings {
            tracing::warn!(warning, "configuration");
        }
        let config = Arc::new(loaded.config);
        METRICS.register_in(&runtime.registry)?;
        runtime::metrics::feature_gates(&runtime.registry, &config::gates(&config))?;
        startup::process(&flags, &config, runtime)?;
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
        startup::own_group(&config, &*platform)?;
        let name = machine::node_name(flags.hostname_override.as_deref());
        let access = match &flags.kubeconfig {
            Some(path) => Some(ApiAccess::open(access_settings(path, &flags, &config, &name, runtime)?).await?),
            None => None,
        };
        let paths = Paths::new(&flags.root_dir, &config.pod_logs_dir, "/var/log/containers");
        make_directories(&paths, &*platform)?;
        let max_pods = u32::try_from(config.max_pods).unwrap_or(0);
        let host_ids = HostIds::find(ids_per_pod(&config), max_pods).await.map_err(KubeletError::Machine)?;
        if access.is_none() && !config.pod_cidr.is_empty() {
            cri.update_runtime_config(&config.pod_cidr).await.map_err(runtime_failed("address range"))?;
        }
        let parts = Parts { config, cri, version, platform, paths, driver, name, host_ids };
        let kubelet = assemble(flags, parts, access.as_ref(), runtime)?;
        if let Some(access) = access {
            let facts = kubelet.services.facts.clone();
            runtime.tasks.spawn("client certificate", access.run(facts, runtime.shutdown.clone()));
        }
        Ok(kubelet)
    }

    /// Runs until stopped.
    async fn run(self) -> Result<(), KubeletError> {
        let stop = self.runtime.shutdown.clone();
        let (services, workers, pleg) = (&self.services, &self.workers, &self.pleg);
        METRICS.node.provider.with_label_values(&["cadvisor"]).set(1);
        METRICS.node.cgroup_version.set(match services.platform.cgroup_version() {
            CgroupVersion::V1 => 1,
            CgroupVersion::V2 => 2,
        });
        METRICS.node_name.with_label_values(&[services.facts.get().name.as_str()]).set(1);
        services.health.check(&services.cri).await;
        services.images.recover().await;
        if let Err(error) = pleg.relist(&services.cri, workers).await {
            tracing::warn!(%error, "first relist");
        } else {
            services.health.relisted();
        }
        let (deliveries, mut snapshots) = mpsc::channel::<Snapshot>(16);
        let mut expected = self.start_sources(&deliveries);
        if let Some(api) = &self.api {
            expected.insert(SourceName::Api);
            self.start_api(api, &deliveries);
        }
        self.start_runtime_watch();
        if services.config.make_iptables_util_chains {
            self.spawn("iptables chains", crate::net::chains::keep(Arc::clone(services), self.stop()));
        }
        self.start_plugins();
        self.spawn("garbage collection", Arc::clone(&self.gc).run(self.stop()));
        self.spawn("log rotation", crate::logs::monitor::run(Arc::clone(&self.services), self.stop()));
        self.spawn("volume statistics", Arc::clone(&self.stats).watch_claims(self.stop()));
        self.spawn("eviction", self.evictor()?.run(self.stop()));
        let groups = shutdown::groups(&self.services.config);
        if !groups.is_empty() {
            let (services, workers) = (Arc::clone(&self.services), Arc::clone(&self.workers));
            self.spawn("node shutdown", ShutdownWatch { services, workers, groups }.run(self.stop()));
        }
        let heartbeat = Arc::new(Heartbeat::default());
        let frequency = self.services.config.sync_frequency.0;
        self.spawn("watchdog", Arc::clone(&heartbeat).feed(frequency, self.stop()));
        let server = self.serve(&heartbeat)?;
        let sync = async {
            let mut desired = Desired::new(expected);
            let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
            let mut rounds = Rounds::default();
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    delivery = snapshots.recv() => match delivery {
                        Some(snapshot) => desired.apply(snapshot, workers),
                        None => stop.cancelled().await,
                    },
                    _ = housekeeping.tick() => {
                        heartbeat.beat();
                        let began = Instant::now();
                        housekeep(&desired, services, workers, pleg, &mut rounds).await;
                        if began.elapsed() > SLOW_HOUSEKEEPING {
                            tracing::error!(actual = ?began.elapsed(), "housekeeping took longer than expected");
                        }
                        self.mirror(&desired).await;
                    }
                }
            }
        };
        let served = tokio::join!(sync, server).1;
        drop(deliveries);
        Ok(served?)
    }

    /// Makes the API show the static Pods, once it is known what it shows.
    async fn mirror(&self, desired: &Desired) {
        let Some(api) = self.api.as_ref().filter(|_| desired.is_complete()) else { return };
        for uid in api.mirrors.reconcile(&desired.static_pods(), &desired.of(SourceName::Api)).await {
            self.services.statuses.refresh(&uid);
        }
    }

    fn spawn(&self, name: &str, future: impl Future<Output = ()> + Send + 'static) {
        self.runtime.tasks.spawn(name, future);
    }

    fn stop(&self) -> CancellationToken {
        self.runtime.shutdown.clone()
    }

    /// Follows what happens in the container runtime.
    fn start_runtime_watch(&self) {
        let (services, stop) = (Arc::clone(&self.services), self.stop());
        self.spawn("runtime status", async move { services.health.run(&services.cri, stop).await });
        let (services, workers, pleg, stop) =
            (Arc::clone(&self.services), Arc::clone(&self.workers), Arc::clone(&self.pleg), self.stop());
        self.spawn("relist", async move { pleg.run(&services.cri, &workers, &services.health, stop).await });
        let (workers, services) = (Arc::clone(&self.workers), Arc::clone(&self.services));
        self.spawn("resizes", resize_loop(workers, services, self.stop()));
        self.spawn("out of memory", crate::oom::watch(Arc::clone(&self.services), self.stop()));
        self.spawn("system containers", system_loop(Arc::clone(&self.services), self.stop()));
        self.spawn("control groups", qos_loop(Arc::clone(&self.services), Arc::clone(&self.workers), self.stop()));
    }

    /// Takes plugins that introduce themselves.
    fn start_plugins(&self) {
        let services = &self.services;
        let node = services.facts.get().name.clone();
        let client = self.api.as_ref().map(|api| api.client.clone());
        let drivers = CsiNodes::new(Arc::clone(&services.csi), client.clone(), &node);
        let devices = DeviceRegistration::new(Arc::clone(&services.allot.devices));
        let claims = ClaimDrivers::new(Arc::clone(&services.claims), client, &node, self.stop());
        let handlers: Handlers = [
            ("CSIPlugin", Arc::clone(&drivers) as _),
            ("DevicePlugin", Arc::new(devices.clone()) as _),
            ("DRAPlugin", Arc::clone(&claims) as _),
        ]
        .into();
        self.spawn("device plugins", devices.serve(self.stop()));
        let (parts, held) = (Arc::clone(services), Arc::clone(&self.workers));
        self.spawn("processors", reconcile(parts, held, self.stop()));
        let list = PodResources { services: Arc::clone(services), workers: Arc::clone(&self.workers) };
        let socket = services.paths.root().join("pod-resources/kubelet.sock");
        self.spawn("pod resources", list.serve(socket, self.stop()));
        let registry = Registry { dir: services.paths.root().join("plugins_registry"), handlers: Arc::new(handlers) };
        match &self.api {
            Some(api) => {
                let stop = self.stop();
                self.when_ready("CSINode", api.ready.clone(), Arc::clone(&drivers).initialise(stop));
                self.when_ready("resource slices", api.ready.clone(), claims.clean_up());
                self.when_ready("plugins", api.ready.clone(), registry.run(self.stop()));
            }
            None => self.spawn("plugins", registry.run(self.stop())),
        }
    }

    fn evictor(&self) -> Result<Evictor<LiveWorld>, KubeletError> {
        let config = &self.services.config;
        let thresholds = crate::evict::thresholds(config).map_err(|problems| {
            KubeletError::Machine(format!("invalid eviction thresholds: {}", problems.join(", ")))
        })?;
        let policy = EvictionPolicy {
            thresholds,
            transition: config.eviction_pressure_transition_period.0,
            max_grace: i64::from(config.eviction_max_pod_grace_period),
            local_limits: config.local_storage_capacity_isolation,
        };
        let world = LiveWorld {
            services: Arc::clone(&self.services),
            workers: Arc::clone(&self.workers),
            stats: Arc::clone(&self.stats),
            gc: Arc::clone(&self.gc),
        };
        Ok(Evictor::new(world, policy))
    }

    /// Starts the sources that are configured and answers their names.
    fn start_sources(&self, deliveries: &mpsc::Sender<Snapshot>) -> BTreeSet<SourceName> {
        let mut expected = BTreeSet::new();
        let config = &self.services.config;
        let node = self.services.facts.get().name.clone();
        if !config.static_pod_path.is_empty() {
            expected.insert(SourceName::File);
            let dir = Path::new(&config.static_pod_path).to_owned();
            let source = FileSource { dir, node: node.clone(), period: config.file_check_frequency.0 };
            self.spawn("static pods", source.run(deliveries.clone(), self.stop()));
        }
        if !config.static_pod_url.is_empty() {
            expected.insert(SourceName::Http);
            let source = UrlSource {
                url: config.static_pod_url.clone(),
                headers: config.static_pod_url_header.clone(),
                node,
                period: config.http_check_frequency.0,
            };
            self.spawn("pods of a URL", source.run(deliveries.clone(), self.stop()));
        }
        tracing::info!(standalone = self.api.is_none(), sources = ?expected, "pod sources");
        expected
    }

    /// The servers, as a future that ends with them; a server that fails stops the kubelet.
    fn serve(
        &self,
        heartbeat: &Arc<Heartbeat>,
    ) -> Result<impl Future<Output = Result<(), ServerError>> + use<>, KubeletError> {
        let (client, ready) = match &self.api {
            Some(api) => (Some(&api.client), api.ready.clone()),
            None => (None, Ready::now()),
        };
        let config = &self.services.config;
        let access = Access::new(config, client, ready.clone(), &self.runtime.tasks).map_err(ServerError::from)?;
        let certificate = server::certificate(&self.services, &self.flags.cert_dir, &self.runtime.tasks)?;
        if let Some(client) = client.filter(|_| config.server_tls_bootstrap && config.tls_cert_file.is_empty()) {
            let store = PairStore::new(&self.flags.cert_dir, Purpose::Server);
            let usage = Use::Server(Arc::clone(&certificate));
            let rotation = Rotation { client: client.clone(), store, usage, facts: self.services.facts.clone() };
            self.when_ready("serving certificate", ready, rotation.run(self.stop()));
        }
        let server = Arc::new(Server {
            services: Arc::clone(&self.services),
            workers: Arc::clone(&self.workers),
            access,
            stats: Arc::clone(&self.stats),
            heartbeat: Arc::clone(heartbeat),
            pages: Pages::new(&self.runtime, config),
        });
        let stop = self.stop();
        Ok(async move {
            let result = server.run(certificate, stop.clone()).await;
            if result.is_err() {
                stop.cancel();
            }
            result
        })
    }

    /// Runs what needs the apiserver, from the moment there is a way to it.
    fn when_ready(&self, name: &str, mut ready: Ready, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop();
        self.spawn(name, async move {
            tokio::select! {
                () = stop.cancelled() => return,
                () = ready.wait() => {}
            }
            work.await;
        });
    }

    /// Starts everything that needs an apiserver.
    fn start_api(&self, api: &ApiParts, deliveries: &mpsc::Sender<Snapshot>) {
        let services = &self.services;
        let node = services.facts.get().name.clone();
        let source = ApiSource { client: api.client.clone(), node: node.clone() };
        self.when_ready("pods of the API", api.ready.clone(), source.run(deliveries.clone(), self.stop()));
        let writer = StatusWriter { client: api.client.clone(), store: Arc::clone(&services.statuses) };
        self.when_ready("pod statuses", api.ready.clone(), writer.run(self.stop()));
        let seconds = services.config.node_lease_duration_seconds;
        let lease = LeaseLoop::new(api.client.clone(), node, seconds, api.reconnect.clone());
        self.when_ready("lease", api.ready.clone(), lease.run(self.stop()));
        let object = NodeLoop {
            client: api.client.clone(),
            services: Arc::clone(services),
            runtime_version: self.runtime_version.clone(),
            labels: self.flags.node_labels.clone(),
            external_cloud: self.flags.cloud_provider == "external",
            mirrors: Arc::clone(&api.mirrors),
            closed: Default::default(),
        };
        self.when_ready("node", api.ready.clone(), object.run(self.stop()));
    }
}

fn access_settings(
    kubeconfig: &Path,
    flags: &KubeletFlags,
    config: &KubeletConfiguration,
    node: &str,
    runtime: &Runtime,
) -> Result<AccessSettings, KubeletError> {
    Ok(AccessSettings {
        kubeconfig: kubeconfig.to_owned(),
        bootstrap: flags.bootstrap_kubeconfig.clone(),
        cert_dir: flags.cert_dir.clone(),
        rotate: config.rotate_certificates,
        node: node.to_owned(),
        connection: client::Connection {
            user_agent: runtime::version::user_agent(runtime.component),
            qps: config.kube_api_qps as f32,
            burst: config.kube_api_burst,
            metrics: Some(client::ClientMetrics::new(&runtime.registry)?),
        },
    })
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
    host_ids: HostIds,
}

fn assemble(
    flags: KubeletFlags,
    parts: Parts,
    access: Option<&ApiAccess>,
    runtime: &Runtime,
) -> Result<Kubelet, KubeletError> {
    let Parts { config, cri, version, platform, paths, driver, name, host_ids } = parts;
    let started = Timestamp::now();
    let addresses: Vec<IpAddr> = machine::addresses(flags.node_ip.as_deref(), &name);
    let capacity = machine::capacity(&config, &*platform, paths.root());
    let mut allocatable = machine::allocatable(&config, &capacity);
    if flags.ignore_eviction_in_allocatable {
        let lenient = KubeletConfiguration { eviction_hard: Default::default(), ..(*config).clone() };
        allocatable = machine::allocatable(&lenient, &capacity);
    }
    let facts = SharedFacts::new(NodeFacts { name: name.clone(), addresses, capacity, allocatable, object: None });
    let objects: Arc<dyn Objects> = match access {
        Some(access) => {
            let strategy = Strategy::parse(&config.config_map_and_secret_change_detection_strategy).unwrap_or_default();
            Arc::new(ApiObjects::start(access.client().clone(), access.ready(), strategy))
        }
        None => Arc::new(NoObjects),
    };
    let sink: Arc<dyn EventSink> = match access {
        Some(access) => {
            let stop = runtime.shutdown.clone();
            let limits = (config.event_record_qps, config.event_burst);
            Arc::new(ApiSink::start(access.client().clone(), &name, limits, access.ready(), stop))
        }
        None => Arc::new(LogSink),
    };
    let events = Events::new(sink, &name);
    let mut settings = Settings::new(&config, driver, platform.cgroup_version() == CgroupVersion::V2);
    settings.huge_pages = machine::huge_page_sizes();
    settings.swap_capacity = machine::swap_bytes();
    settings.apparmor = platform::has_apparmor();
    let csi = Csi::new(
        &paths,
        Arc::clone(&platform),
        Arc::clone(&objects),
        events.clone(),
        &name,
        config.enable_controller_attach_detach,
    );
    let allot = allotter(&config, &paths).map_err(KubeletError::Machine)?;
    let user_namespaces = UserNamespaces::open(paths.clone(), host_ids, ids_per_pod(&config));
    let resizes = Resizes::open(paths.root()).map_err(KubeletError::Machine)?;
    let claims = Claims::open(paths.root().join("dra_manager_state"), Arc::clone(&objects));
    let sysctls = Allowlist::new(&config.allowed_unsafe_sysctls);
    let providers = match &flags.credential_providers {
        Some((file, dir)) => {
            Some(Providers::read(file, dir).map_err(|error| KubeletError::Machine(error.to_string()))?)
        }
        None => None,
    };
    let policy = Verification::new(
        &config.image_pull_credentials_verification_policy,
        &config.preloaded_images_verification_allowlist,
    );
    let (dir, policy) = (paths.root().join("image_manager"), policy.map_err(KubeletError::Machine)?);
    let records = if settings.features.verified_images { Records::new(&dir, policy) } else { Records::none(&dir) };
    let registry_files = node_files(paths.root(), runtime::env::home().as_deref());
    let cell: Arc<OnceLock<std::sync::Weak<Workers>>> = Arc::default();
    let wake = {
        let cell = Arc::clone(&cell);
        Arc::new(move |uid: &str| {
            if let Some(workers) = cell.get().and_then(std::sync::Weak::upgrade) {
                workers.nudge(uid);
            }
        })
    };
    let probes = Probes::new(Runner::new(cri.clone(), events.clone()), wake, started)
        .map_err(|error| KubeletError::Machine(format!("failed to start the thread of probes: {error}")))?;
    let starts: Arc<StartTimes> = Arc::default();
    let services = Arc::new(Services {
        tracer: startup::tracer(&config, &name, runtime)?,
        starts: Arc::clone(&starts),
        health: Arc::default(),
        images: Images::new(cri.clone(), events.clone(), &config, registry_files, providers, records, starts),
        volumes: Volumes::new(
            paths.clone(),
            Arc::clone(&platform),
            Arc::clone(&objects),
            Arc::clone(&csi),
            events.clone(),
        ),
        csi,
        allot,
        claims,
        resizes,
        user_namespaces,
        probes,
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
        pressure: SharedPressure::default(),
        shutdown: Shutdown::default(),
        sysctls,
        objects,
        events,
        started,
    });
    let workers = Workers::new(Arc::clone(&services));
    // The cell is new, so nobody can have filled it.
    drop(cell.set(Arc::downgrade(&workers)));
    let runtime_version = format!("{}://{}", version.name, version.version.trim_start_matches('v'));
    let api = access.map(|access| ApiParts {
        client: access.client().clone(),
        ready: access.ready(),
        reconnect: access.reconnect(),
        mirrors: Mirrors::new(access.client().clone(), &name),
    });
    let stats = Stats::new(Arc::clone(&services), Arc::clone(&workers), &flags.runtime_cgroups);
    let images =
        ImageGc::new(Arc::clone(&services), Arc::clone(&workers), Arc::clone(&stats), image_policy(&services.config));
    let policy = ContainerPolicy {
        min_age: flags.minimum_container_ttl,
        max_per_container: flags.maximum_dead_containers_per_container,
        max_total: flags.maximum_dead_containers,
        all: false,
    };
    let gc = Gc::new(Arc::clone(&services), Arc::clone(&workers), policy, images);
    Ok(Kubelet {
        flags,
        runtime: runtime.clone(),
        services,
        workers,
        pleg: Arc::default(),
        stats,
        gc,
        api,
        runtime_version,
    })
}
