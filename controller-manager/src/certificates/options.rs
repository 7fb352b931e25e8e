//! Flags of the signers.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use runtime::flags::duration;
use serde_json::{Value, json};

use super::{CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY};

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
    /// CA certificate for the kubernetes.io/legacy-unknown signer.
    #[arg(long)]
    pub cluster_signing_legacy_unknown_cert_file: Option<PathBuf>,
    /// Its key.
    #[arg(long)]
    pub cluster_signing_legacy_unknown_key_file: Option<PathBuf>,
    /// The longest life of signed certificates; requests may ask for less.
    #[arg(long, default_value = "8760h", value_parser = duration)]
    pub cluster_signing_duration: Duration,
}

impl SigningOptions {
    fn special(&self) -> [(&'static str, &'static str, &Option<PathBuf>, &Option<PathBuf>); 4] {
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
            (
                LEGACY,
                "legacy-unknown",
                &self.cluster_signing_legacy_unknown_cert_file,
                &self.cluster_signing_legacy_unknown_key_file,
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

    /// As `/configz` shows it.
    pub(crate) fn document(&self) -> Value {
        let pair = |certificate: &Option<PathBuf>, key: &Option<PathBuf>| {
            let path = |file: &Option<PathBuf>| file.as_ref().map(|f| f.display().to_string()).unwrap_or_default();
            json!({"CertFile": path(certificate), "KeyFile": path(key)})
        };
        let [serving, client, server_client, legacy] = self.special().map(|(_, _, cert, key)| pair(cert, key));
        let mut all = json!({
            "ClusterSigningDuration": runtime::flags::format_duration(self.cluster_signing_duration),
            "KubeletServingSignerConfiguration": serving,
            "KubeletClientSignerConfiguration": client,
            "KubeAPIServerClientSignerConfiguration": server_client,
            "LegacyUnknownSignerConfiguration": legacy,
        });
        let general = pair(&self.cluster_signing_cert_file, &self.cluster_signing_key_file);
        all["ClusterSigningCertFile"] = general["CertFile"].clone();
        all["ClusterSigningKeyFile"] = general["KeyFile"].clone();
        all
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
