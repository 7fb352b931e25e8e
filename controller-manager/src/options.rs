//! Flags of kube-controller-manager.

use std::{net::SocketAddr, path::PathBuf};

use clap::Parser;
use runtime::process::LoggingArgs;

/// The Kubernetes controller manager: the control loops that make the cluster what its objects say.
#[derive(Clone, Debug, Parser)]
#[command(name = "kube-controller-manager", version = runtime::version::GIT_VERSION)]
pub struct Options {
    /// Credentials of the API.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// CA bundle that every namespace gets as kube-root-ca.crt.
    #[arg(long)]
    pub root_ca_file: Option<PathBuf>,
    /// Address of the health and metrics server.
    #[arg(long, default_value = "127.0.0.1:10252")]
    pub healthz_bind_address: SocketAddr,
    /// Logs.
    #[command(flatten)]
    pub logging: LoggingArgs,
}
