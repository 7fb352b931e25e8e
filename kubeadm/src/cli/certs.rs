//! `kubeadm certs`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `kubeadm certs`.
#[derive(Debug, Args)]
pub struct CertsCommand {
    /// What to do.
    #[command(subcommand)]
    pub action: Option<CertsAction>,
}

/// What to do with certificates.
#[derive(Debug, Subcommand)]
pub enum CertsAction {
    /// Check certificates expiration for a Kubernetes cluster.
    CheckExpiration {
        /// Which certificates.
        #[command(flatten)]
        of: CertsFlags,
        /// Output format. One of: text|json|yaml.
        #[arg(short = 'o', long = "output", default_value = "text", value_name = "FORMAT")]
        output: String,
    },
    /// Renew certificates for a Kubernetes cluster.
    Renew {
        /// Name of a certificate, or `all`.
        name: Option<String>,
        /// Which certificates.
        #[command(flatten)]
        of: CertsFlags,
    },
    /// Generate certificate keys.
    CertificateKey,
    /// Generate keys and certificate signing requests.
    GenerateCsr {
        /// Where the certificates are stored.
        #[arg(long, default_value = "/etc/kubernetes/pki", value_name = "PATH")]
        cert_dir: String,
        /// Path to a kubeadm configuration file.
        #[arg(long, value_name = "PATH")]
        config: Option<PathBuf>,
        /// Where the kubeconfig files are stored.
        #[arg(long, default_value = "/etc/kubernetes", value_name = "PATH")]
        kubeconfig_dir: PathBuf,
    },
}

/// Which certificates.
#[derive(Debug, Args)]
pub struct CertsFlags {
    /// The path where to save the certificates.
    #[arg(long, default_value = "/etc/kubernetes/pki", value_name = "PATH")]
    pub cert_dir: String,
    /// Path to a kubeadm configuration file.
    #[arg(long, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// The kubeconfig file to use when talking to the cluster.
    #[arg(long, value_name = "PATH")]
    pub kubeconfig: Option<PathBuf>,
}
