//! kube-proxy: forwards Service traffic.
//!
//! Informers keep slim [`view`]s of Services and EndpointSlices; [`model::plan`] folds one Service into service ports,
//! and only what changed is folded again. A [`backend::Backend`] of the chosen mode brings the kernel to the model, in
//! each family by itself. Changes coalesce: a synchronization starts some time after the end of the one before.

pub mod backend;
pub mod config;
mod conntrack;
pub mod family;
mod health;
mod healthcheck;
mod iptables;
mod ipvs;
mod metrics;
pub mod model;
mod netlink;
mod nftables;
mod node;
mod servers;
mod start;
mod sync;
mod track;
pub mod view;

pub use config::flags::{DEPRECATED, Options};
pub use start::run;

use crate::{backend::BackendError, config::flags::OptionsError};

/// Why the proxy does not run.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The flags or the configuration file are unusable.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The configuration cannot be written.
    #[error("failed to write the configuration: {0}")]
    Write(#[source] std::io::Error),
    /// There is no client.
    #[error(transparent)]
    Client(#[from] client::ClientError),
    /// The host has no name.
    #[error("cannot find out the host name")]
    Host(#[source] std::io::Error),
    /// So that a new start reads it.
    #[error("content of the proxy server's configuration file was updated")]
    ConfigurationChanged,
    /// So that a new start uses them.
    #[error("the ranges of Pod addresses of the node changed")]
    RangesChanged,
    /// Pods' traffic cannot be told.
    #[error("{}", match .exists {
        true => format!("timeout waiting for PodCIDR allocation on node {node:?}"),
        false => format!("timeout waiting for node {node:?} to exist"),
    })]
    NodeRanges {
        /// The Node.
        node: String,
        /// Whether there is such a Node.
        exists: bool,
    },
    /// Rules cannot be written.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A server address cannot be listened on.
    #[error("listen on {address}: {source}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A metric name is taken.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}
