//! The process: flags, informers, serving.

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum::Router;
use clap::Args;
use client::{Connection, DelegatedAuth, connect};
use controller::InformerSet;
use parking_lot::RwLock;
use runtime::{
    Runtime,
    flags::{ClientArgs, DelegatedAuthArgs, SecureServingArgs, duration},
    health::Scope,
    metrics::{self, Stability},
    serving::SecureServing,
    tls::TlsError,
};
use tokio::sync::watch;

use crate::{
    api::{self, Served},
    scrape::Scraper,
    usage::Book,
};

/// Default of `--secure-port`.
const PORT: u16 = 10250;
/// Names of the Service in the certificate that is made when none is given.
const NAMES: [&str; 2] = ["metrics.kube-system", "metrics.kube-system.svc"];
/// Time for running requests at the end.
const GRACE: Duration = Duration::from_secs(1);
/// Shortest time between two looks: kubelets measure no more often.
const SHORTEST: Duration = Duration::from_secs(10);

/// Flags.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Time between two looks at a kubelet
    #[arg(long, default_value = "15s", value_parser = duration)]
    pub metric_resolution: Duration,
    /// CA of the kubelets' serving certificates
    #[arg(long)]
    pub kubelet_certificate_authority: Option<PathBuf>,
    /// Do not verify the kubelets' serving certificates
    #[arg(long, default_value_t = false)]
    pub kubelet_insecure_tls: bool,
    /// Node address types by which kubelets are reached, most preferred first
    #[arg(long, value_delimiter = ',', default_value = "InternalIP,ExternalIP,Hostname")]
    pub kubelet_preferred_address_types: Vec<String>,
    /// File with the bearer token for kubelets
    #[arg(long, default_value = "/var/run/secrets/kubernetes.io/serviceaccount/token")]
    pub kubelet_token_file: PathBuf,
    /// How the API server is reached.
    #[command(flatten)]
    pub client: ClientArgs,
    /// Serving.
    #[command(flatten)]
    pub serving: SecureServingArgs,
    /// Who may read.
    #[command(flatten)]
    pub auth: DelegatedAuthArgs,
}

impl Options {
    fn validate(&self) -> Result<(), MetricsError> {
        if self.metric_resolution < SHORTEST {
            let text = "metric-resolution should be a time duration at least 10s";
            return Err(MetricsError::Flags(text.into()));
        }
        if self.kubelet_certificate_authority.is_none() && !self.kubelet_insecure_tls {
            let text = "--kubelet-certificate-authority or --kubelet-insecure-tls is needed";
            return Err(MetricsError::Flags(text.into()));
        }
        Ok(())
    }
}

/// Why the addon does not run.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// Flags are wrong.
    #[error("{0}")]
    Flags(String),
    /// There is no client.
    #[error(transparent)]
    Client(#[from] client::ClientError),
    /// A certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The server cannot be set up.
    #[error(transparent)]
    Serving(#[from] runtime::serving::ServingError),
    /// Requests cannot be authenticated or authorized.
    #[error(transparent)]
    Auth(#[from] client::DelegatedError),
    /// A metric is registered twice.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Runs until the order to stop.
pub async fn run(options: Options, runtime: Runtime) -> Result<(), MetricsError> {
    options.validate()?;
    let requests = client::ClientMetrics::new(&runtime.registry)?;
    let connection = Connection::of(runtime.component, "", &options.client, Some(requests));
    let client = connect(&options.client, &connection).await?;
    let auth = DelegatedAuth::with_client(&options.auth, client.clone(), &runtime).await?;
    let informers = InformerSet::new(client, &runtime.tasks);
    let served = Served {
        nodes: informers.get(),
        pods: informers.get(),
        book: Arc::new(RwLock::new(Book::new(options.metric_resolution))),
    };
    let told = metrics::counter_vec(
        &runtime.registry,
        Stability::Alpha,
        "metrics_server_kubelet_request_total",
        "Number of requests sent to Kubelet API",
        &["success"],
    )?;
    let took = metrics::histogram_vec(
        &runtime.registry,
        Stability::Alpha,
        "metrics_server_kubelet_request_duration_seconds",
        "Duration of requests to Kubelet API in seconds",
        &["node"],
        &metrics::exponential_buckets(0.005, 2.0, 12),
    )?;
    let clock = Arc::clone(&runtime.clock);
    let scraper = Scraper::new(&options, served.nodes.clone(), Arc::clone(&served.book), clock, (told, took))?;
    let (rounds, done) = watch::channel(false);
    add_checks(&runtime, &served, done);
    let Some(serving) =
        SecureServing::bind(&options.serving, PORT, runtime.component, &NAMES.map(String::from), &[], &runtime.tasks)?
    else {
        return Err(MetricsError::Flags("--secure-port may not be 0".into()));
    };
    let router: Router =
        runtime.health.router().merge(metrics::router(runtime.registry.clone())).merge(api::router(served.clone()));
    runtime.tasks.spawn("secure server", serving.serve(auth.protect(router), runtime.shutdown.clone(), GRACE));
    if !(served.nodes.wait_synced(&runtime.shutdown).await && served.pods.wait_synced(&runtime.shutdown).await) {
        return Ok(());
    }
    runtime.tasks.spawn_cancellable(
        "scraper",
        scraper.run(move || {
            rounds.send_replace(true);
        }),
    );
    runtime.shutdown.cancelled().await;
    Ok(())
}

fn add_checks(runtime: &Runtime, served: &Served, done: watch::Receiver<bool>) {
    let (nodes, pods) = (served.nodes.clone(), served.pods.clone());
    runtime.health.add_to(Scope::READY, "metadata-informer-sync", move || match nodes.synced() && pods.synced() {
        true => Ok(()),
        false => Err("nodes and Pods are not read yet".into()),
    });
    runtime.health.add_to(Scope::READY, "metric-storage-ready", move || match *done.borrow() {
        true => Ok(()),
        false => Err("no metrics to serve".into()),
    });
}
