//! API aggregation: its flags, and what it is given.

use std::{path::PathBuf, sync::Arc, time::Duration};

use aggregator::{Aggregation, ProxyIdentity, Routing, Settings};
use clap::Args;
use generic::published::Published;
use prometheus::Registry;
use registry::connect::egress::Dialer;
use tokio_util::sync::CancellationToken;

use crate::{StartError, bootstrap, options::Options, resources::Resources};

/// How often the ConfigMap for servers that delegate authentication is looked after.
const KEEP: Duration = Duration::from_secs(10);

/// Flags of aggregation.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "API aggregation flags")]
pub struct AggregationOptions {
    /// Client certificate that proves this server to other API servers and to admission webhooks.
    #[arg(long)]
    pub proxy_client_cert_file: Option<PathBuf>,
    /// Key of that certificate.
    #[arg(long)]
    pub proxy_client_key_file: Option<PathBuf>,
    /// Requests to other API servers go to endpoints of their Services rather than to cluster IPs.
    #[arg(long, default_value_t = false)]
    pub enable_aggregator_routing: bool,
    /// Whether answers of other API servers that send clients elsewhere are refused.
    #[arg(long, default_value_t = true)]
    pub aggregator_reject_forwarding_redirect: bool,
}

impl AggregationOptions {
    /// All that is wrong.
    pub(crate) fn validate(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.proxy_client_cert_file.is_some() != self.proxy_client_key_file.is_some() {
            problems.push("--proxy-client-cert-file and --proxy-client-key-file go together".to_owned());
        }
        problems
    }

    fn identity(&self) -> Result<Option<ProxyIdentity>, StartError> {
        match (&self.proxy_client_cert_file, &self.proxy_client_key_file) {
            (Some(certificate), Some(key)) => Ok(Some(ProxyIdentity::open(certificate, key)?)),
            _ => Ok(None),
        }
    }
}

/// Starts aggregation.
pub(crate) fn start(
    options: &AggregationOptions,
    resources: &Resources,
    (published, dialer): (Arc<Published>, Dialer),
    metrics: &Registry,
    stop: &CancellationToken,
) -> Result<Aggregation, StartError> {
    let settings = Settings {
        api_services: resources.get("apiregistration.k8s.io", "apiservices")?,
        definitions: resources.get("apiextensions.k8s.io", "customresourcedefinitions")?,
        services: resources.get("", "services")?,
        slices: resources.get("discovery.k8s.io", "endpointslices")?,
        published,
        identity: options.identity()?,
        dialer,
        routing: if options.enable_aggregator_routing { Routing::Endpoints } else { Routing::ClusterIp },
        rejects_redirects: options.aggregator_reject_forwarding_redirect,
        metrics: metrics.clone(),
    };
    Ok(aggregator::start(settings, stop)?)
}

/// Keeps `kube-system/extension-apiserver-authentication` as the files of the flags have it.
pub(crate) async fn keep_authentication(resources: Arc<Resources>, options: Options) {
    loop {
        tokio::time::sleep(KEEP).await;
        let bundle = match options.client_ca_file.as_deref().map(runtime::tls::read).transpose() {
            Ok(bundle) => bundle,
            Err(error) => {
                tracing::warn!(%error, "client CA");
                continue;
            }
        };
        if let Err(error) = bootstrap::authentication(&resources, &options, bundle.as_deref()).await {
            tracing::warn!(%error, "extension-apiserver-authentication is not up to date");
        }
    }
}
