//! Informers, indexed stores, work queues, controller driver, expectations, events, leases.
//!
//! A controller is: views of what it reads ([`Viewed`]), handlers that map changes to keys of a [`Queue`], and a
//! [`Reconcile`] implementation that [`Driver`] runs. Reconcilers get a key, never an event.

mod batch;
pub mod claim;
mod driver;
pub mod events;
pub mod expectations;
mod informer;
mod key;
pub mod leader;
mod own_writes;
mod queue;
mod reflector;
mod store;
#[cfg(test)]
mod testing;

pub use batch::{Batched, slow_start};
pub use driver::{Driver, Outcome, Reconcile, ReconcileError, Retries};
pub use events::{EventRecorder, EventType};
pub use expectations::{Expectations, UidExpectations};
pub use informer::{InformerConfig, InformerSet, Viewed, Whole, start_informer};
pub use key::ObjectKey;
pub use leader::{ElectionMetrics, LeaderConfig, LeaderElector, LeaderError};
pub use own_writes::OwnWrites;
pub use queue::{Queue, QueueConfig, QueueMetrics, RateLimiting};
pub use store::{Cached, Change, Index, Informer};
