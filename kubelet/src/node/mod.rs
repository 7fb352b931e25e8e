//! The node itself: facts, the Node object, its lease.

mod facts;
pub mod machine;

pub use facts::{NodeFacts, SharedFacts};
