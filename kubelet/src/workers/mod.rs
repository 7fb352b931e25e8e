//! One task per Pod.
//!
//! ```text
//!            config, runtime, probes
//!                     |
//!   Syncing ----------+--> Terminating --> Terminated --> Finished
//!   (plan, act, wait)      (stop all)      (volumes,       (forgotten when
//!                                           cgroup gone)    config drops it)
//! ```
//! A Pod only moves to the right. Its task owns what is wanted and what was seen; nobody else acts on its containers.
//! Deleting, evicting and finishing all enter at Terminating, where the grace can only shrink.

mod act;
mod actor;
mod ending;
mod inbox;
pub mod plan;
mod prepare;
mod registry;
mod reject;
mod report;
mod resize;
mod start;
mod steps;
mod stop;

pub use inbox::StopRequest;
pub use registry::{PodSummary, Stage, Workers};
pub use resize::resize_loop;
pub use stop::LostPod;

#[cfg(test)]
mod plan_tests;
