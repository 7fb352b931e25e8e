//! kubelet: runs Pods through the container runtime interface.
//!
//! One task per Pod (`workers`) owns what is wanted and what was seen of it; everything else is a service it calls.

pub mod backoff;
pub mod config;
pub mod cri;
pub mod env;
pub mod events;
pub mod images;
pub mod metrics;
pub mod net;
pub mod node;
pub mod objects;
pub mod paths;
pub mod platform;
pub mod pods;
pub mod spec;
pub mod volumes;
