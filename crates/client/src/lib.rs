//! Thin layer over kube: kubeconfig and in-cluster set-up, discovery, dynamic access.
//!
//! No HTTP is written here: requests go through `kube::Client`, to which [`connect`] adds a user agent, a rate limit, a
//! deadline for everything but watches and upgrades, and the `rest_client_*` metrics.

pub mod answers;
mod connect;
mod connector;
pub mod delegated;
mod discovery;
mod dynamic;
mod error;
mod journal;
mod metrics;
mod reload;
mod transport;
mod watches;
mod write;

pub use connect::{
    ClientError, Connection, connect, connect_to, connect_with, connect_with_token, connect_without_credentials,
};
pub use delegated::{DelegatedAuth, DelegatedError};
pub use discovery::{DiscoveredResource, Discovery, Snapshot};
pub use dynamic::{api_for, api_resource, typed_api};
pub use error::{ApiErrorExt, CallError};
pub use metrics::ClientMetrics;
pub use reload::{Reload, reloadable};
pub use transport::{RateLimit, Transport, TransportLayer};
pub use write::{
    RETRY, Scope, apply, apply_status, merge_patch, modify, modify_status, object_name, retry_on_conflict,
    strategic_patch,
};

#[cfg(test)]
mod tests;
