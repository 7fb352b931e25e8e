//! kube-apiserver: the Kubernetes API over etcd or an embedded store.
//!
//! [`run`] is the wiring: options, store, resources, identity, authorizers, admission, routes, and then serving.

pub mod account_options;
mod admission;
pub mod admission_options;
pub mod aggregation;
pub mod audit;
pub mod auth_options;
mod authorization;
mod bootstrap;
mod debug_socket;
mod egress;
pub mod encryption;
mod external_signer;
mod flow;
pub mod generic_options;
mod health;
mod identity;
mod identity_lease;
mod kms;
pub mod kubelet_options;
mod kubernetes_service;
mod loopback;
pub mod misc_options;
pub mod options;
mod reload;
mod resources;
mod routes;
mod runtime_config;
pub mod service_options;
pub mod storage_options;
mod store;
mod system_logs;
mod token_tracking;

use std::{
    net::{IpAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use generic::{
    admission::AdmissionMetrics,
    authn::{AuthnError, Peer, service_account::KeyError},
    authz::Authorizer,
    chain,
    flowcontrol::FlowControl,
    metrics::Metrics,
    published::Published,
    server::{Limits, Server, Times},
};
use ipnet::IpNet;
use machinery::ApiError;
use registry::{
    connect::webhook::Caller,
    endpoints::StorageSettings,
    services::{Addresses, Events, NodePorts, Repair, ServiceHooks, first_address},
};
use runtime::{
    Runtime,
    clock::RealClock,
    features::FeatureGates,
    profiling,
    serving::{Connection, SecureServing, ServingError},
    tls,
};
use storage::{cache::CacheMetrics, contract::StoreError, metered::StoreMetrics};
use tokio_util::sync::CancellationToken;

use crate::{
    authorization::Authorizers,
    generic_options::GenericOptions,
    health::StoreHealth,
    identity_lease::IdentityLease,
    kubernetes_service::{KubernetesService, Reconciler},
    options::Options,
    resources::{HandlerSettings, Resources},
    runtime_config::RuntimeConfig,
};

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The flags do not fit together.
    #[error("{0}")]
    Flags(String),
    /// A certificate or key is unusable.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// A ServiceAccount key is unusable.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Who signs tokens elsewhere cannot be used.
    #[error(transparent)]
    Signer(#[from] external_signer::SignerError),
    /// Traces cannot be sent.
    #[error(transparent)]
    Tracing(#[from] spans::TracingError),
    /// An authenticator cannot be set up.
    #[error(transparent)]
    Authn(#[from] AuthnError),
    /// The audit log cannot be kept.
    #[error("audit: {0}")]
    Audit(#[from] audit::AuditError),
    /// The encryption configuration is unusable.
    #[error("encryption provider config: {0}")]
    Encryption(#[from] encryption::EncryptionError),
    /// The store does not open.
    #[error("store: {0}")]
    Store(#[from] StoreError),
    /// An admission plugin cannot run.
    #[error(transparent)]
    Admission(#[from] admission::PluginError),
    /// The configuration of an admission plugin is unusable.
    #[error(transparent)]
    Plugin(#[from] admission::ConfigurationError),
    /// The bootstrap objects cannot be written.
    #[error("bootstrap: {0}")]
    Api(#[from] ApiError),
    /// The secure port cannot be had.
    #[error(transparent)]
    Serving(#[from] ServingError),
    /// The identity towards other API servers cannot be used.
    #[error(transparent)]
    Identity(#[from] aggregator::IdentityError),
    /// A metric name is taken.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Time that connections have to end once all requests have.
const DRAINED_GRACE: Duration = Duration::from_secs(2);
/// The address of the interface that the default route leaves by, of the wanted family if there is one; no packet is
/// sent to find it.
fn default_address(v4: bool) -> IpAddr {
    let probe = |(bind, to): (&str, &str)| -> Option<IpAddr> {
        let socket = UdpSocket::bind(bind).ok()?;
        socket.connect(to).ok()?;
        let address = socket.local_addr().ok()?.ip();
        (!address.is_unspecified() && !address.is_loopback()).then_some(address)
    };
    let mut families = [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")];
    if !v4 {
        families.reverse();
    }
    families.into_iter().find_map(probe).unwrap_or(IpAddr::from([127, 0, 0, 1]))
}

fn advertise_address(options: &Options, v4: bool) -> IpAddr {
    options.advertise_address.unwrap_or_else(|| match options.serving.bind_address {
        address if address.is_unspecified() => default_address(v4),
        address => address,
    })
}

/// The address of the `kubernetes` Service and that of this server. The Service leads to servers of its own family only.
fn own_addresses(options: &Options) -> Result<(IpAddr, IpAddr), StartError> {
    let range = options.service_cluster_ip_range.first();
    let service = first_address(*range.ok_or_else(|| StartError::Flags("no range of cluster IPs".into()))?);
    let advertise = advertise_address(options, service.is_ipv4());
    if service.is_ipv4() != advertise.is_ipv4() && options.service.reconciler() != Reconciler::None {
        let family = |address: IpAddr| if address.is_ipv4() { "IPv4" } else { "IPv6" };
        return Err(StartError::Flags(format!(
            "service IP family {:?} must match public address family {:?}",
            family(service),
            family(advertise)
        )));
    }
    Ok((service, advertise))
}

/// Traces as the operator wants them.
fn tracer(options: &Options, id: &str, runtime: &Runtime) -> Result<spans::Tracer, StartError> {
    let Some(file) = &options.misc.tracing_config_file else { return Ok(spans::Tracer::off()) };
    let service = spans::Service { name: "apiserver", instance: id.to_owned(), host: String::new() };
    Ok(spans::Tracer::start(&spans::Config::read(file)?, &service, &runtime.tasks)?)
}

/// Flow control by the stored levels and schemas, unless the flags turn it off.
async fn flow_control(
    options: &Options,
    resources: &Resources,
    registry: &runtime::Registry,
    stop: &CancellationToken,
) -> Result<Option<Arc<FlowControl>>, StartError> {
    let keeper = flow::Keeper::new(resources)?;
    keeper.bootstrap().await?;
    tokio::spawn(keeper.clone().run(stop.clone()));
    if !options.enable_priority_and_fairness {
        return Ok(None);
    }
    let seats = options.generic.max_requests_inflight.saturating_add(options.generic.max_mutating_requests_inflight);
    let seats = u32::try_from(seats).unwrap_or(u32::MAX);
    let flow = FlowControl::new(seats, options.generic.request_timeout / 4, RealClock::shared(), registry)?;
    flow.follow(&keeper.schemas, &keeper.levels, stop).await;
    Ok(Some(flow))
}

/// Runs the component until it is told to stop.
pub async fn run(mut options: Options, runtime: Runtime) -> Result<(), StartError> {
    options.complete();
    let gates = FeatureGates::unless(options.validate(), options.gates()).map_err(StartError::Flags)?;
    runtime::metrics::feature_gates(&runtime.registry, &gates)?;
    if !runtime.given("service-cluster-ip-range") {
        tracing::warn!(
            "No CIDR for service cluster IPs specified. Default value which was 10.0.0.0/24 is deprecated and will be \
             removed in future releases. Please specify it using --service-cluster-ip-range on kube-apiserver."
        );
    }
    let (service_ip, advertise) = own_addresses(&options)?;
    let mut serving = identity::bind(&options, advertise, service_ip, &runtime.tasks)?;
    loopback::add(&mut serving, &runtime.health, RealClock::shared())?;
    serve(options, serving, (advertise, gates), runtime).await
}

async fn serve(
    mut options: Options,
    serving: SecureServing,
    (advertise, gates): (IpAddr, FeatureGates),
    runtime: Runtime,
) -> Result<(), StartError> {
    // Background work goes on until requests have ended.
    let finished = CancellationToken::new();
    let _finish = finished.clone().drop_guard();
    let (registry, stop, port) = (runtime.registry.clone(), runtime.shutdown.clone(), serving.address.port());
    let id = uuid::Uuid::new_v4().to_string();
    let tracer = tracer(&options, &id, &runtime)?;
    let egress = egress::load(options.misc.egress_selector_config_file.as_deref(), &registry)?;
    let mut store = store::open(&options, &stop, &finished).await?;
    let mut overrides = store::Overrides::open(&options, &stop, &finished).await?;
    store::seal(&mut store, &mut overrides, &options, &runtime, &id, &finished).await?;
    let settings = StorageSettings {
        store: Arc::clone(&store),
        overrides: overrides.by_resource(),
        prefix: options.storage.prefix().to_owned(),
        event_ttl: options.event_ttl,
        keeping: options.storage.keeping(CacheMetrics::register(&registry)?),
        store_metrics: StoreMetrics::register(&registry)?,
    };
    let resources = Arc::new(Resources::new(&settings));
    let addresses = Arc::new(Addresses {
        ranges: options.service_cluster_ip_range.iter().map(IpNet::trunc).collect(),
        objects: resources.get("networking.k8s.io", "ipaddresses")?,
        cidrs: resources.get("networking.k8s.io", "servicecidrs")?,
    });
    let (first_port, last_port) = options.service.service_node_port_range;
    let ports = Arc::new(NodePorts {
        range: first_port..=last_port,
        store: Arc::clone(&store),
        key: format!("{}/ranges/servicenodeports", settings.prefix),
    });
    let identity = identity::load(&mut options, &registry, &finished).await?;
    let audiences = if options.api_audiences.is_empty() {
        options.accounts.service_account_issuer.clone()
    } else {
        options.api_audiences.clone()
    };
    let context = identity::Context { registry: &registry, id: &id, stop: &finished, runtime: &runtime };
    let identity::Authentication { authenticators, bearer, keys, anonymous } =
        identity::authentication(&options, &identity, &resources, &audiences, &context).await?;
    let authorizers = Arc::new(Authorizers::new(&resources, &registry, &finished)?);
    let authorizer: Arc<dyn Authorizer> = authorizers.chain(&options.authorization, &registry, &id, &finished).await?;
    bootstrap::basics(&resources).await?;
    bootstrap::policy(&resources).await?;
    bootstrap::authentication(&resources, &options, identity.client_ca.as_deref()).await?;
    let flow = flow_control(&options, &resources, &registry, &finished).await?;
    authorizers.rbac.synced().await;
    let handlers = resources::handlers(
        &resources,
        &HandlerSettings {
            options: &options,
            audiences: &audiences,
            bearer,
            signer: Arc::clone(&identity.signer),
            store: Arc::clone(&store),
            egress: &egress,
        },
    )?;
    let hooks = Arc::new(ServiceHooks { addresses: Arc::clone(&addresses), ports: Arc::clone(&ports) });
    let file = options.admission.admission_control_config_file.as_deref();
    let mut settings_of_plugins = file.map(admission::Settings::read).transpose()?.unwrap_or_default();
    settings_of_plugins.connect(RealClock::shared()).await?;
    let lookups =
        admission::Lookups::new(&resources, &authorizer, &registry, (settings_of_plugins, &gates, &egress), &finished)?;
    let choice = admission::Choice {
        enable: &options.admission.enable_admission_plugins,
        disable: &options.admission.disable_admission_plugins,
        only: &options.admission.admission_control,
        allow_privileged: options.allow_privileged,
    };
    let longest = options.storage.etcd_healthcheck_timeout.max(options.storage.etcd_readycheck_timeout);
    let store_health = StoreHealth::follow(&store, longest, &finished);
    health::add_checks(&runtime.health, &resources, &store_health, &options, &stop);
    health::add_overrides(&runtime.health, &overrides.stores, &options, &finished);
    let serves =
        RuntimeConfig::parse(&options.runtime_config).map_err(StartError::Flags)?.serves(options.generic.forward());
    let published = Arc::new(Published::with_built_in(options.external_address(advertise, port), Arc::clone(&serves)));
    let reached = (Arc::clone(&published), egress.cluster.clone());
    let aggregation = aggregation::start(&options.aggregation, &resources, reached, &registry, &finished)?;
    tokio::spawn(
        finished
            .clone()
            .run_until_cancelled_owned(aggregation::keep_authentication(Arc::clone(&resources), options.clone())),
    );
    health::add_aggregation(&runtime.health, &aggregation, options.generic.livez_grace_period);
    let endpoints = registry::endpoints::endpoints(&resources.0, &handlers, &hooks, &*serves);
    health::add_definitions(&runtime.health, endpoints.custom(), options.generic.livez_grace_period);
    let definitions = apiextensions::Definitions::new(apiextensions::Settings {
        definitions: resources.get("apiextensions.k8s.io", "customresourcedefinitions")?,
        store: Arc::clone(&store),
        prefix: settings.prefix.clone(),
        keeping: settings.keeping.clone(),
        endpoints: Arc::clone(endpoints.custom()),
        published: Arc::clone(&published),
        webhooks: Arc::new(Caller::new(resources.get("", "services")?, egress)),
    });
    tokio::spawn(definitions.run(finished.clone()));
    let auditor = audit::auditor(&options.audit, &registry).await?;
    let server = Arc::new(Server {
        endpoints,
        authenticators,
        anonymous_paths: anonymous,
        authorizer,
        plugins: admission::plugins(&lookups, &choice, AdmissionMetrics::new(&registry)?)?,
        store: Arc::clone(&store),
        front: options.generic.front()?,
        nonresource: routes::router(routes::Routes {
            profiling: options.profiling.profiling,
            logs: options.misc.enable_logs_handler,
            runtime: runtime.clone(),
            published,
            flow: flow.clone(),
            address: options.external_address(advertise, port),
            jwks_uri: options.accounts.service_account_jwks_uri.clone(),
            issuer: options.accounts.service_account_issuer.first().cloned().unwrap_or_default(),
            keys,
        }),
        metrics: Metrics::new(&registry)?,
        flow,
        limits: Limits::new(options.generic.max_requests_inflight, options.generic.max_mutating_requests_inflight),
        audit: auditor.clone(),
        times: Times {
            request: options.generic.request_timeout,
            shortest_watch: Duration::from_secs(options.generic.min_request_timeout),
        },
        collection_workers: options.storage.delete_collection_workers,
        delegate: Some(aggregation.delegate),
        tracer,
    });
    let host = runtime::env::hostname().unwrap_or_default();
    let events = Arc::new(Events { objects: resources.get("", "events")?, host });
    let repair = Repair {
        addresses: Arc::clone(&addresses),
        ports,
        services: resources.get("", "services")?,
        events: Arc::clone(&events),
    };
    tokio::spawn(repair.run(finished.clone()));
    let service = KubernetesService {
        services: resources.get("", "services")?,
        endpoints: resources.get("", "endpoints")?,
        slices: resources.get("discovery.k8s.io", "endpointslices")?,
        cidrs: resources.get("networking.k8s.io", "servicecidrs")?,
        addresses,
        events,
        advertise,
        port,
        node_port: options.service.kubernetes_service_node_port,
        reconciler: options.service.reconciler(),
        store: Arc::clone(&store),
        leases: format!("{}/masterleases/", settings.prefix),
    };
    match IdentityLease::new(resources.get("coordination.k8s.io", "leases")?, &id) {
        Ok(lease) => drop(tokio::spawn(lease.run(finished.clone()))),
        Err(error) => tracing::warn!(%error, "no identity lease without the name of the host"),
    }
    store::tell_size(&options, &store, &settings.store_metrics, &finished);
    tokio::spawn(token_tracking::run(resources.get("", "configmaps")?, finished.clone()));
    tokio::spawn(bootstrap::keep_namespaces(resources.get("", "namespaces")?, finished.clone()));
    if let Some(socket) = &options.misc.debug_socket_path {
        debug_socket::serve(socket, profiling::router(&runtime.tasks), finished.clone())
            .map_err(|error| StartError::Flags(format!("--debug-socket-path {}: {error}", socket.display())))?;
    }
    let measured = Arc::clone(&server);
    tokio::spawn(finished.clone().run_until_cancelled_owned(async move { measured.metrics.measure().await }));
    // Clients are to find another server before this one stops answering.
    let leaving = tokio::spawn(service.run(runtime.health.clone(), stop.clone()));
    listen(server, serving, Ending { leaving, options: options.generic.clone(), stop }).await;
    if let Some(auditor) = auditor {
        auditor.close().await;
    }
    Ok(())
}

/// How serving ends.
struct Ending {
    /// Ends when other servers are all that clients find.
    leaving: tokio::task::JoinHandle<()>,
    options: GenericOptions,
    stop: CancellationToken,
}

impl Ending {
    /// Resolves when no connection is accepted any more.
    async fn closed(self, server: Arc<Server>) {
        self.stop.cancelled().await;
        let (left, ()) = tokio::join!(self.leaving, tokio::time::sleep(self.options.shutdown_delay_duration));
        if let Err(error) = left {
            tracing::error!(%error, "the address of this server stays among those of the kubernetes Service");
        }
        server.front.close();
        tracing::info!("No new requests are accepted");
        if server.front.sends_retry_after() {
            server.front.drained(self.options.request_timeout).await;
        }
    }

    /// Time that connections have to end after that.
    fn grace(&self) -> Duration {
        match self.options.shutdown_send_retry_after {
            true => DRAINED_GRACE,
            false => self.options.request_timeout.max(self.options.shutdown_watch_termination_grace_period),
        }
    }
}

async fn listen(server: Arc<Server>, serving: SecureServing, ending: Ending) {
    let serves = Arc::clone(&server);
    let handler = move |request: http::Request<axum::body::Body>| {
        let server = Arc::clone(&serves);
        let peer = request
            .extensions()
            .get::<Connection>()
            .map(|c| Peer { address: Some(c.peer), certificates: Arc::clone(&c.certificates) })
            .unwrap_or_default();
        chain::serve(server, request, peer)
    };
    let (end, grace) = (CancellationToken::new(), ending.grace());
    let closing = end.clone();
    tokio::spawn(async move {
        ending.closed(server).await;
        closing.cancel();
    });
    serving.serve_handler(handler, end, grace).await;
}
