//! Cluster DNS: names of Services and Pods, answered from informers; everything else goes to upstream resolvers.
//!
//! ```text
//!  UDP, TCP --> wire (decode) --> resolver --+-- zone      (Services, EndpointSlices, Namespaces, Pods)
//!                                            +-- cache     (answers of upstreams)
//!                                            +-- forward   (upstream resolvers)
//! ```
//! What belongs to which zone says a Corefile ([`corefile`]).

mod cache;
pub mod corefile;
mod forward;
mod metrics;
mod name;
mod pages;
mod resolv;
mod resolver;
mod run;
mod server;
mod store;
mod wire;
mod zone;

pub use run::{DnsError, Options, run};
