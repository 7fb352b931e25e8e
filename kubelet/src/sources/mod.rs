//! Where Pods come from: manifests in a directory, a URL, the apiserver.

mod desired;
mod file;
mod manifest;
mod url;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;

pub use desired::Desired;
pub use file::FileSource;
pub use manifest::{ManifestError, Origin, decode, prepare};
pub use url::UrlSource;

/// A source's name, as annotations spell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceName {
    /// Manifests in a directory.
    File,
    /// A URL.
    Http,
    /// The apiserver.
    Api,
}

impl SourceName {
    /// The annotation's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Http => "http",
            Self::Api => "api",
        }
    }
}

/// The whole content of a source, by UID.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Which source.
    pub source: SourceName,
    /// All its Pods.
    pub pods: BTreeMap<String, Arc<Pod>>,
}

/// How sources deliver.
pub type Deliveries = mpsc::Sender<Snapshot>;
