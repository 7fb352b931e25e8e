//! Test harness: real processes in temporary directories, on free ports, ended when dropped.

pub mod collector;
pub mod guest;
pub mod host;
pub mod kms;
pub mod kubectl;
pub mod machine;
pub mod netns;
pub mod process;
pub mod server;
pub mod signer;
pub mod wait;

pub use guest::Guest;
pub use host::{Host, Segment};
pub use kubectl::Kubectl;
pub use machine::Machine;
pub use netns::Netns;
pub use server::ApiServer;
pub use wait::{wait_until, wait_within};
