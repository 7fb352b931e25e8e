//! Container logs as the runtime writes them.

mod line;
mod read;
pub mod rotate;

pub use line::{Line, parse};
pub use read::{LogOptions, stream, tail_bytes};
