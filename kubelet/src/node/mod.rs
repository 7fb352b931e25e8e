//! The node itself: facts, the Node object, its lease.

mod facts;

pub use facts::{NodeFacts, SharedFacts};
