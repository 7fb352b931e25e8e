//! Ingress controller: requests from outside the cluster go to Services by the rules of Ingress objects.
//!
//! ```text
//!  informers --> sync --> plan (Ingresses --> table, certificates)    status (addresses into Ingresses, by the leader)
//!                 |            |
//!              backends        v
//!           (EndpointSlices) table, swapped at once <-- proxy (one lookup per request) <-- HTTP, HTTPS
//! ```
//! A request holds the route it was given; whatever changes meanwhile concerns the next one. Annotations, flags, metrics
//! and the IngressClass are those of ingress-nginx, so that manifests written for it work.

mod affinity;
mod annotations;
mod backends;
mod certificates;
mod class;
mod metrics;
mod objects;
mod options;
mod path;
mod plan;
mod policy;
mod proxy;
mod run;
mod settings;
mod status;
mod sync;
mod table;

pub use options::Options;
pub use run::{IngressError, run};
