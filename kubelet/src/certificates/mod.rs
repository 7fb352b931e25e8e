//! The kubelet's certificates: bootstrap from a token, rotation before they expire.
//!
//! - [`store`]: certificate and key on disk, with a link to the newest pair.
//! - [`request`]: a CertificateSigningRequest from key to certificate.
//! - [`bootstrap`]: the first client certificate, and the kubeconfig that names it.
//! - [`rotation`]: the following ones.

pub mod bootstrap;
pub mod request;
pub mod rotation;
pub mod store;

use std::path::PathBuf;

/// Certificates that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file.
    #[error("{path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// A key or certificate that is unusable.
    #[error("{what}: {reason}")]
    Content {
        /// Which.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// A kubeconfig.
    #[error("unable to load bootstrap kubeconfig")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// The apiserver.
    #[error("cannot create certificate signing request")]
    Api(#[from] kube::Error),
    /// Nobody signed in time.
    #[error("timed out waiting for the certificate signing request {0} to be signed")]
    Timeout(String),
    /// Somebody said no.
    #[error("certificate signing request {name} is {condition}: {message}")]
    Refused {
        /// Of the request.
        name: String,
        /// `denied` or `failed`.
        condition: &'static str,
        /// What they said.
        message: String,
    },
    /// The kubelet is being stopped.
    #[error("stopped")]
    Stopped,
}

fn content(what: &'static str, reason: impl ToString) -> CertificateError {
    CertificateError::Content { what, reason: reason.to_string() }
}

fn file(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> CertificateError + '_ {
    move |source| CertificateError::File { path: path.to_owned(), source }
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Talking to the apiserver.
    Client,
    /// Serving.
    Server,
}

impl Purpose {
    /// The signer.
    pub fn signer(self) -> &'static str {
        match self {
            Self::Client => "kubernetes.io/kube-apiserver-client-kubelet",
            Self::Server => "kubernetes.io/kubelet-serving",
        }
    }

    /// Usages that are asked for with an ECDSA key.
    pub fn usages(self) -> [&'static str; 2] {
        match self {
            Self::Client => ["digital signature", "client auth"],
            Self::Server => ["digital signature", "server auth"],
        }
    }

    /// First part of the file names.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Client => "kubelet-client",
            Self::Server => "kubelet-server",
        }
    }
}
