//! Container logs as the runtime writes them.

mod line;
pub mod monitor;
mod read;
mod rotate;

pub use line::{Line, parse};
pub use read::{LogOptions, stream, tail_bytes};
