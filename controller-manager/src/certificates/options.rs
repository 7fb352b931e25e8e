//! Flags of the signers.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use runtime::flags::duration;

use super::{CLIENT, KUBELET_CLIENT, KUBELET_SERVING};

/// The CAs that sign.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Csrsigning controller flags")]
pub struct SigningOptions {
    /// File with a PEM CA certificate used to issue all cluster-scoped certificates. Excludes the more specific flags.
    #[arg(long)]
    pub cluster_signing_cert_file: Option<PathBuf>,
    /// File with the PEM key of that CA.
    #[arg(long)]
    pub cluster_signing_key_file: Option<PathBuf>,
    /// CA certificate for the kubernetes.io/kubelet-serving signer.
    #[arg(long)]
    pub cluster_signing_kubelet_serving_cert_file: Option<PathBuf>,
    /// Its key.
    #[arg(long)]
    pub cluster_signing_kubelet_serving_key_file: Option<PathBuf>,
    /// CA certificate for the kubernetes.io/kube-apiserver-client-kubelet signer.
    #[arg(long)]
    pub cluster_signing_kubelet_client_cert_file: Option<PathBuf>,
    /// Its key.
    #[arg(long)]
    pub cluster_signing_kubelet_client_key_file: Option<PathBuf>,
    /// CA certificate for the kubernetes.io/kube-apiserver-client signer.
    #[arg(long)]
    pub cluster_signing_kube_apiserver_client_cert_file: Option<PathBuf>,
    /// Its key.
    #[arg(long)]
    pub cluster_signing_kube_apiserver_client_key_file: Option<PathBuf>,
    /// The longest life of signed certificates; requests may ask for less.
    #[arg(long, default_value = "8760h", value_parser = duration)]
    pub cluster_signing_duration: Duration,
}

impl SigningOptions {
    fn special(&self) -> [(&'static str, &'static str, &Option<PathBuf>, &Option<PathBuf>); 3] {
        [
            (
                KUBELET_SERVING,
                "kubelet-serving",
                &self.cluster_signing_kubelet_serving_cert_file,
                &self.cluster_signing_kubelet_serving_key_file,
            ),
            (
                KUBELET_CLIENT,
                "kubelet-client",
                &self.cluster_signing_kubelet_client_cert_file,
                &self.cluster_signing_kubelet_client_key_file,
            ),
            (
                CLIENT,
                "kube-apiserver-client",
                &self.cluster_signing_kube_apiserver_client_cert_file,
                &self.cluster_signing_kube_apiserver_client_key_file,
            ),
        ]
    }

    /// Certificate and key files of a signer.
    pub(super) fn pair(&self, signer: &str) -> Option<(&Path, &Path)> {
        let special = self.special().into_iter().find(|(name, ..)| *name == signer);
        let special = special.and_then(|(_, _, certificate, key)| Some((certificate.as_deref()?, key.as_deref()?)));
        let general = || Some((self.cluster_signing_cert_file.as_deref()?, self.cluster_signing_key_file.as_deref()?));
        special.or_else(general)
    }

    /// All that is wrong.
    pub(crate) fn validate(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let general = self.cluster_signing_cert_file.is_some() || self.cluster_signing_key_file.is_some();
        if self.cluster_signing_cert_file.is_some() != self.cluster_signing_key_file.is_some() {
            problems
                .push("cannot specify only one of --cluster-signing-cert-file and --cluster-signing-key-file".into());
        }
        for (_, name, certificate, key) in self.special() {
            if certificate.is_some() != key.is_some() {
                problems.push(format!("cannot specify only one of --cluster-signing-{name}-{{cert,key}}-file"));
            }
            if general && certificate.is_some() {
                problems.push(format!("cannot specify --cluster-signing-{name}-cert-file and other --cluster-signing-*-file flags at the same time"));
            }
        }
        problems
    }
}
