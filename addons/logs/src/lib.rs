//! Log collector: what containers of a node print, to files or over HTTP, each line at least once.
//!
//! ```text
//!  /var/log/pods --> scan (which files) --> tail (lines of a file) --> cri (records) --> batch --> sink
//!                                                        ^                                           |
//!                                                        +---- positions, once a batch has arrived <-+
//! ```
//! One batch is on its way at a time: a slow sink slows the reading down, and nothing piles up in memory. Meanwhile new
//! and rotated files are still noticed and held open, so that what the kubelet removes can still be read. It knows
//! nothing of the API and needs no rights there.

mod collector;
mod cri;
mod metrics;
mod options;
mod positions;
mod record;
mod run;
mod scan;
mod sink;
mod tail;
mod tails;

pub use options::Options;
pub use run::{LogsError, run};
pub use sink::HttpSinkError;
