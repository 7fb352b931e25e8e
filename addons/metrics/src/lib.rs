//! Metrics addon: `metrics.k8s.io/v1beta1` from the kubelets' `/metrics/resource`.
//!
//! ```text
//!  Nodes --> [scrape] each kubelet, every 15 s --> [usage] last two samples of each container --> rates
//!                                                                                           \--> [api] nodes, pods
//! ```
//! It is reached through the API aggregation of kube-apiserver; requests are authenticated and authorized by asking it.

mod api;
mod exposition;
mod run;
mod scrape;
mod usage;

pub use run::{MetricsError, Options, run};
