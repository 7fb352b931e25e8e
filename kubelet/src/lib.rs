//! kubelet: runs Pods through the container runtime interface.
//!
//! One task per Pod (`workers`) owns what is wanted and what was seen of it; everything else is a service it calls.

pub mod admission;
pub mod allot;
pub mod api;
pub mod backoff;
pub mod certificates;
mod checkpoint;
pub mod claims;
pub mod config;
pub mod cpus;
pub mod cri;
pub mod csi;
pub mod devices;
pub mod env;
pub mod events;
pub mod evict;
pub mod gc;
pub mod hooks;
mod housekeeping;
pub mod images;
pub mod kubelet;
pub mod logs;
pub mod memory;
pub mod metrics;
pub mod net;
pub mod node;
pub mod objects;
pub mod options;
pub mod paths;
pub mod platform;
pub mod pleg;
pub mod plugins;
pub mod pods;
pub mod probes;
mod rate;
pub mod runtime_health;
pub mod server;
pub mod services;
pub mod sources;
pub mod spec;
mod startup;
pub mod stats;
pub mod status;
pub mod volumes;
pub mod workers;
