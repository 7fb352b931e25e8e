//! The process: flags, informers, listeners, the end.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use axum::Router;
use client::{Connection, connect};
use controller::{EventRecorder, Index, Informer, InformerConfig, ObjectKey, Viewed, start_informer};
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{ConfigMap, Secret},
};
use kube::{Api, Client, Resource};
use runtime::{
    CancellationToken, Runtime,
    health::Scope,
    serving::{Limits, serve_router, serve_with},
    tasks::TaskGroup,
    tls::{ServerOptions, TlsError, server_config_with},
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use crate::{
    Options,
    backends::{Backends, Sources},
    certificates::{CertificateTable, Certificates},
    metrics::IngressMetrics,
    objects::Certificate,
    proxy::{Proxy, Scheme},
    status::StatusWriter,
    sync::{Ours, Sync, Watched},
};

/// Bounds of a client's connection.
const LIMITS: Limits = Limits { max_streams: 128, max_header_bytes: 64 * 1024 };
/// Time without a client taking what is sent to it.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);
/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;
/// Time for running requests of the pages at the end.
const GRACE: Duration = Duration::from_secs(1);
/// Name of the certificate that nobody asked for.
const SELF_SIGNED: &str = "Kubernetes Ingress Controller Fake Certificate";

/// Why the controller does not run.
#[derive(Debug, thiserror::Error)]
pub enum IngressError {
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
    /// There is no certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The name of the host is unknown.
    #[error("cannot tell the name of this host: {0}")]
    Name(std::io::Error),
    /// A metric is registered twice.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
}

/// Runs until the order to stop.
pub async fn run(options: Options, runtime: Runtime) -> Result<(), IngressError> {
    let requests = client::ClientMetrics::new(&runtime.registry)?;
    let connection = Connection::of(runtime.component, "", &options.client, Some(requests));
    let client = connect(&options.client, &connection).await?;
    let metrics = Arc::new(IngressMetrics::new(&runtime.registry)?);
    let ports = (options.http_port, options.https_port);
    let proxy = Arc::new(Proxy::new(Arc::clone(&metrics), &runtime.tasks, ports)?);
    let (certificate, key) = runtime::tls::self_signed(SELF_SIGNED, &["ingress.local".to_owned()], &[])?;
    let self_signed = Arc::new(Certificate::new(certificate.as_bytes(), key.as_bytes())?);
    let none = CertificateTable { hosts: Default::default(), default: Arc::clone(&self_signed) };
    let certificates = Arc::new(Certificates(ArcSwap::from_pointee(none)));
    let watched = watch(&client, &options, &runtime.tasks);

    // Ports are taken before anything is announced.
    let http = listen(options.bind_address, options.http_port)?;
    let https = listen(options.bind_address, options.https_port)?;
    pages(&options, &runtime, &metrics)?;
    if !watched.wait_synced(&runtime.shutdown).await {
        return Ok(());
    }
    let host = runtime::env::hostname().unwrap_or_default();
    let clock = Arc::clone(&runtime.clock);
    let recorder =
        EventRecorder::new(client.clone(), "nginx-ingress-controller", &host, Arc::clone(&clock), &runtime.tasks);
    let ours = Arc::new(Ours::default());
    if options.update_status {
        let writer = StatusWriter {
            client,
            options: options.clone(),
            ours: Arc::clone(&ours),
            sources: watched.sources.clone(),
            clock: Arc::clone(&clock),
            pod: this_pod(),
        };
        writer.start(&runtime, recorder.clone())?;
    }
    let sync = Sync {
        options: options.clone(),
        backends: Backends::new(watched.sources.clone()),
        watched,
        proxy: Arc::clone(&proxy),
        certificates: Arc::clone(&certificates),
        self_signed,
        recorder,
        metrics,
        clock,
        ours,
    };
    // Nobody is answered before there is a table.
    runtime.tasks.spawn_cancellable("sync", sync.start());
    serve(&options, &runtime, proxy, certificates, (http, https)).await
}

/// The Pod that this runs in.
fn this_pod() -> Option<ObjectKey> {
    let variable = runtime::env::non_empty;
    Some(ObjectKey::new(variable("POD_NAMESPACE")?, variable("POD_NAME")?))
}

fn watch(client: &Client, options: &Options, tasks: &TaskGroup) -> Watched {
    fn informer<V>(client: &Client, namespace: &str, tasks: &TaskGroup) -> Informer<V>
    where
        V: Viewed,
        V::Object: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        let indices: &'static [Index<V>] = V::INDICES;
        start_informer(tasks, api::<V::Object>(client, namespace), V::config(), indices, V::project)
    }
    let tasks = tasks.child("informers");
    let namespace = options.watch_namespace.as_str();
    let one = |name: &str| InformerConfig { fields: format!("metadata.name={name}"), ..InformerConfig::default() };
    let classes = start_informer(&tasks, Api::all(client.clone()), InformerConfig::default(), &[], Viewed::project);
    let configuration = options.configmap.0.as_ref().map(|key| {
        let api = api::<ConfigMap>(client, &key.namespace);
        start_informer(&tasks, api, one(&key.name), &[], Viewed::project)
    });
    let default_secret = options.default_ssl_certificate.0.as_ref().map(|key| {
        let api = api::<Secret>(client, &key.namespace);
        (key.clone(), start_informer(&tasks, api, one(&key.name), &[], Viewed::project))
    });
    Watched {
        ingresses: informer(client, namespace, &tasks),
        classes,
        secrets: informer(client, namespace, &tasks),
        default_secret,
        configuration,
        sources: Sources { services: informer(client, namespace, &tasks), slices: informer(client, namespace, &tasks) },
    }
}

/// The API of a kind in a namespace, or in all.
fn api<K>(client: &Client, namespace: &str) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match namespace {
        "" => Api::all(client.clone()),
        namespace => Api::namespaced(client.clone(), namespace),
    }
}

/// A listener whose connections break when the other side takes nothing for a while.
fn listen(address: IpAddr, port: u16) -> Result<TcpListener, IngressError> {
    let address = SocketAddr::new(address, port);
    let open = |address: SocketAddr| -> std::io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() && address.ip().is_unspecified() {
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_tcp_user_timeout(Some(SEND_TIMEOUT))?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    let opened = open(address).or_else(|error| match address {
        // A machine without IPv6 has no `::`.
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => open(SocketAddr::from(([0, 0, 0, 0], port))),
        _ => Err(error),
    });
    opened.map_err(|source| IngressError::Listen { address, source })
}

fn pages(options: &Options, runtime: &Runtime, metrics: &IngressMetrics) -> Result<(), IngressError> {
    let (tables, ending) = (metrics.reloads.clone(), runtime.shutdown.clone());
    runtime.health.add_to(Scope::READY, "routes", move || match (ending.is_cancelled(), tables.get()) {
        (true, _) => Err("the controller is about to end".into()),
        (false, 0) => Err("objects are not read yet".into()),
        (false, _) => Ok(()),
    });
    let mut pages = Router::new().merge(runtime.health.router());
    if !["/healthz", "/livez", "/readyz"].contains(&options.health_check_path.as_str()) {
        pages = pages.route(&options.health_check_path, axum::routing::get(|| async { "ok" }));
    }
    if options.enable_metrics {
        pages = pages.merge(runtime::metrics::router(runtime.registry.clone()));
    }
    let listener = listen(options.healthz_host, options.healthz_port)?;
    let stop = runtime.tasks.token().clone();
    runtime.tasks.spawn("pages", serve_router(listener, None, pages, stop, GRACE));
    Ok(())
}

async fn serve(
    options: &Options,
    runtime: &Runtime,
    proxy: Arc<Proxy>,
    certificates: Arc<Certificates>,
    (http, https): (TcpListener, TcpListener),
) -> Result<(), IngressError> {
    let tls = ServerOptions { no_client_certificates: true, ..ServerOptions::default() };
    let tls = server_config_with(&tls, certificates)?;
    let servers = runtime.tasks.child("servers");
    // Cancelled later than the shutdown begins, so that load balancers can turn away first.
    let stop = CancellationToken::new();
    let patience = options.worker_shutdown_timeout;
    for (listener, tls, scheme) in [(http, None, Scheme::Http), (https, Some(tls), Scheme::Https)] {
        let proxy = Arc::clone(&proxy);
        let handler = move |request| Arc::clone(&proxy).handle(scheme, request);
        servers.spawn(format!("{scheme:?}"), serve_with(listener, tls, handler, stop.clone(), patience, LIMITS));
    }
    tracing::info!(http = options.http_port, https = options.https_port, "Serving Ingresses");
    runtime.shutdown.cancelled().await;
    runtime.clock.sleep(Duration::from_secs(options.shutdown_grace_period)).await;
    stop.cancel();
    let left = servers.stop(patience.saturating_add(GRACE)).await;
    if !left.is_empty() || !proxy.drain(patience).await {
        tracing::warn!("Connections were cut at the end");
    }
    Ok(())
}
