//! The node itself: facts, the Node object, its lease.

mod coming_up;
mod facts;
pub(crate) mod labels;
mod lease;
pub mod machine;
mod object;
pub mod status;

pub use facts::{NodeFacts, SharedFacts};
pub use lease::LeaseLoop;
pub use object::NodeLoop;
