//! Flags about kubelets: where they are, and how this server proves itself to them.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use runtime::flags::duration;

/// Flags about kubelets.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Misc flags")]
pub struct KubeletOptions {
    /// CA of the kubelets' serving certificates; without it they are not checked.
    #[arg(long)]
    pub kubelet_certificate_authority: Option<PathBuf>,
    /// Client certificate for kubelets.
    #[arg(long)]
    pub kubelet_client_certificate: Option<PathBuf>,
    /// Client key for kubelets.
    #[arg(long)]
    pub kubelet_client_key: Option<PathBuf>,
    /// Time to connect to a kubelet.
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub kubelet_timeout: Duration,
    /// Node address types by which kubelets are reached, most preferred first.
    #[arg(long, value_delimiter = ',', default_value = "Hostname,InternalDNS,InternalIP,ExternalDNS,ExternalIP")]
    pub kubelet_preferred_address_types: Vec<String>,
    /// Port of kubelets whose Node does not say. Deprecated.
    #[arg(long, default_value_t = 10250)]
    pub kubelet_port: u16,
    /// Port of kubelets without TLS. Nothing is asked there, with any value. Deprecated.
    #[arg(long, default_value_t = 10255)]
    pub kubelet_read_only_port: u16,
    /// Bytes a second that each stream to a Pod (exec, attach, port-forward) may carry in each direction; 0 for any
    /// number.
    #[arg(long, default_value_t = 0)]
    pub max_connection_bytes_per_sec: u64,
}

impl KubeletOptions {
    /// All that is wrong.
    pub(crate) fn validate(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.kubelet_client_certificate.is_some() != self.kubelet_client_key.is_some() {
            problems.push("--kubelet-client-certificate and --kubelet-client-key go together".into());
        }
        problems
    }
}
