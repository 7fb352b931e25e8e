//! Flags, named as those of ingress-nginx.

use std::{net::IpAddr, time::Duration};

use clap::Args;
use controller::ObjectKey;
use runtime::flags::{ClientArgs, duration};

/// Flags.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Ingress Class Controller value this Ingress satisfies: the class named by an Ingress has this spec.controller
    #[arg(long, default_value = "k8s.io/ingress-nginx")]
    pub controller_class: String,
    /// Name of the ingress class this controller satisfies, for the annotation kubernetes.io/ingress.class and for
    /// --ingress-class-by-name
    #[arg(long, default_value = "nginx")]
    pub ingress_class: String,
    /// Define if Ingress Controller should watch for Ingress Class by Name together with Controller Class
    #[arg(long, default_value_t = false)]
    pub ingress_class_by_name: bool,
    /// Define if Ingress Controller should also watch for Ingresses without an IngressClass or the annotation specified
    #[arg(long, default_value_t = false)]
    pub watch_ingress_without_class: bool,
    /// Namespace the controller watches for updates to Kubernetes objects; all namespaces if empty
    #[arg(long, default_value = "")]
    pub watch_namespace: String,
    /// Name of the ConfigMap containing custom global configurations for the controller (namespace/name)
    #[arg(long, default_value = "", value_parser = object_key)]
    pub configmap: OptionalKey,
    /// Service used to serve HTTP requests not matching any known server name (namespace/name); its first port is used
    #[arg(long, default_value = "", value_parser = object_key)]
    pub default_backend_service: OptionalKey,
    /// Secret containing a SSL certificate to be used by the default HTTPS server (namespace/name)
    #[arg(long, default_value = "", value_parser = object_key)]
    pub default_ssl_certificate: OptionalKey,
    /// Disable support for catch-all Ingresses
    #[arg(long, default_value_t = false)]
    pub disable_catch_all: bool,
    /// Address to serve HTTP and HTTPS on
    #[arg(long, default_value = "::")]
    pub bind_address: IpAddr,
    /// Port to use for servicing HTTP traffic
    #[arg(long, default_value_t = 80)]
    pub http_port: u16,
    /// Port to use for servicing HTTPS traffic
    #[arg(long, default_value_t = 443)]
    pub https_port: u16,
    /// Host to bind the healthz endpoint
    #[arg(long, default_value = "::")]
    pub healthz_host: IpAddr,
    /// Port to use for the healthz endpoint and metrics
    #[arg(long, default_value_t = 10254)]
    pub healthz_port: u16,
    /// URL path of the health check endpoint
    #[arg(long, default_value = "/healthz", value_parser = absolute_path)]
    pub health_check_path: String,
    /// Enables the collection of metrics
    #[arg(long, default_value_t = true)]
    pub enable_metrics: bool,
    /// Election id to use for Ingress status updates: name of the Lease
    #[arg(long, default_value = "ingress-controller-leader")]
    pub election_id: String,
    /// Update the load-balancer status of Ingress objects this controller satisfies
    #[arg(long, default_value_t = true)]
    pub update_status: bool,
    /// Update the load-balancer status of Ingress objects when the last controller shuts down
    #[arg(long, default_value_t = true)]
    pub update_status_on_shutdown: bool,
    /// Time interval in seconds in which the status should check if an update is required
    #[arg(long, default_value_t = 60)]
    pub status_update_interval: u64,
    /// Service fronting the Ingress controller (namespace/name); its addresses are set as the load-balancer status
    #[arg(long, default_value = "", value_parser = object_key)]
    pub publish_service: OptionalKey,
    /// Customized address or addresses, separated by comma, to set as the load-balancer status of Ingress objects
    #[arg(long, value_delimiter = ',')]
    pub publish_status_address: Vec<String>,
    /// Set the load-balancer status of Ingress objects to internal Node addresses instead of external
    #[arg(long, default_value_t = false)]
    pub report_node_internal_ip_address: bool,
    /// Seconds to wait after receiving the shutdown signal, before stopping to accept connections
    #[arg(long, default_value_t = 0)]
    pub shutdown_grace_period: u64,
    /// Time for running requests to end after that
    #[arg(long, default_value = "240s", value_parser = duration)]
    pub worker_shutdown_timeout: Duration,
    /// How the API server is reached.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `namespace/name`, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OptionalKey(pub Option<ObjectKey>);

fn object_key(text: &str) -> Result<OptionalKey, String> {
    if text.is_empty() {
        return Ok(OptionalKey(None));
    }
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(OptionalKey(Some(ObjectKey::new(namespace, name))))
        }
        _ => Err(format!("{text:?} is not namespace/name")),
    }
}

fn absolute_path(text: &str) -> Result<String, String> {
    if text.starts_with('/') { Ok(text.to_owned()) } else { Err(format!("{text:?} does not begin with /")) }
}
