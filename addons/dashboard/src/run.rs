//! The process: flags, the certificate, the listeners.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use axum::Router;
use clap::Args;
use client::{Connection, connect_without_credentials};
use runtime::{
    Runtime,
    flags::ClientArgs,
    serving::{bind, serve_router},
    tls::{self, ServerOptions, ServingCertificate, TlsError},
};

use crate::{assets, forward::Forwarder, security};

/// Time for running requests at the end.
const GRACE: Duration = Duration::from_secs(5);

/// Flags.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// The IP address on which to serve the --port
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    /// The secure port to listen to for incoming HTTPS requests
    #[arg(long, default_value_t = 8443)]
    pub port: u16,
    /// The IP address on which to serve the --insecure-port
    #[arg(long, default_value = "127.0.0.1")]
    pub insecure_bind_address: IpAddr,
    /// The port to listen to for incoming HTTP requests, for a proxy on the same host that does TLS; 0 for none
    #[arg(long, default_value_t = 0)]
    pub insecure_port: u16,
    /// File containing the default x509 certificate for HTTPS; one is made without it
    #[arg(long)]
    pub tls_cert_file: Option<PathBuf>,
    /// File containing the default x509 private key matching --tls-cert-file
    #[arg(long)]
    pub tls_key_file: Option<PathBuf>,
    /// Address of /healthz and /metrics
    #[arg(long, default_value = "0.0.0.0:9256")]
    pub metrics_bind_address: SocketAddr,
    /// How the API server is reached. Credentials are not used.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// Why the dashboard does not run.
#[derive(Debug, thiserror::Error)]
pub enum DashboardError {
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] runtime::serving::ServingError),
    /// There is no client.
    #[error(transparent)]
    Client(#[from] client::ClientError),
    /// The certificate is not usable.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A certificate and its key come together.
    #[error("--tls-cert-file and --tls-key-file must be given together")]
    HalfPair,
    /// A metric is registered twice.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
}

/// Runs until the order to stop.
pub async fn run(options: Options, runtime: Runtime) -> Result<(), DashboardError> {
    if options.tls_cert_file.is_some() != options.tls_key_file.is_some() {
        return Err(DashboardError::HalfPair);
    }
    let requests = client::ClientMetrics::new(&runtime.registry)?;
    let mut connection = Connection::of(runtime.component, "", &options.client, Some(requests));
    // Many users are behind one client: the API server knows them apart, and is fair to them.
    connection.qps = 0.0;
    let client = connect_without_credentials(&options.client, &connection).await?;
    let forwarder = Forwarder::new(client, &runtime.registry, runtime.tasks.token().child_token())?;
    let site = Router::new().merge(assets::router()).merge(forwarder.router());
    let site = site.layer(axum::middleware::map_response(security::protect));

    let certificate = certificate(&options, &runtime)?;
    let offer = ServerOptions { no_client_certificates: true, ..ServerOptions::default() };
    let tls = tls::server_config_with(&offer, certificate)?;
    let stop = runtime.tasks.token().clone();
    let secure = bind(SocketAddr::new(options.bind_address, options.port), false, false)?;
    runtime.tasks.spawn("https", serve_router(secure, Some(tls), site.clone(), stop.clone(), GRACE));
    if options.insecure_port != 0 {
        let address = SocketAddr::new(options.insecure_bind_address, options.insecure_port);
        let plain = bind(address, false, false)?;
        runtime.tasks.spawn("http", serve_router(plain, None, site, stop.clone(), GRACE));
    }
    let pages = Router::new().merge(runtime.health.router()).merge(runtime::metrics::router(runtime.registry.clone()));
    let listener = bind(options.metrics_bind_address, false, false)?;
    runtime.tasks.spawn("pages", serve_router(listener, None, pages, stop, GRACE));
    tracing::info!(port = options.port, "Serving the dashboard");
    runtime.shutdown.cancelled().await;
    Ok(())
}

fn certificate(options: &Options, runtime: &Runtime) -> Result<Arc<ServingCertificate>, TlsError> {
    if let (Some(certificate), Some(key)) = (&options.tls_cert_file, &options.tls_key_file) {
        return tls::watch_pair(certificate, key, &runtime.tasks);
    }
    let (certificate, key) = tls::self_signed("kubernetes-dashboard", &["kubernetes-dashboard".to_owned()], &[])?;
    Ok(Arc::new(ServingCertificate::new(certificate.as_bytes(), key.as_bytes())?))
}
