//! kube-scheduler: places Pods on Nodes.
//!
//! [`run`] wires: informers (`watch`) keep the state (`cluster`, `queue`, `nominations`); the loop (`scheduler`) takes
//! a Pod, finds a node (`cycle` with the `plugins` of a profile) or Pods to preempt, and leaves the rest to tasks that
//! wait for the API server (`bind`, `report`, `preempt`, `record`).
//!
//! It writes nothing but bindings, Pod status, deletions of preempted Pods, claims of volumes and devices, events and its
//! lease. `extended` is the loop's other way, with extenders that are asked.

mod api;
mod bind;
mod cluster;
mod config;
mod cycle;
mod devices;
mod events;
mod extended;
mod extenders;
mod framework;
mod memo;
mod meter;
mod metrics;
mod nominations;
mod objects;
pub mod options;
mod plugins;
mod preempt;
mod queue;
mod record;
mod report;
mod resource_metrics;
mod scheduler;
mod serve;
mod spread_selector;
mod start;
mod watch;

pub use start::{StartError, run};

#[cfg(test)]
mod flow_tests;
#[cfg(test)]
mod reference_tests;
