//! Process runtime of every component: flags, configuration, logs, metrics, health, TLS, tasks, signals.
//!
//! `main.rs` of a daemon is `runtime::run::<Options, _, _, _>(INFO, |options, runtime| async move { … })`. Nothing else
//! in the workspace reads the environment, builds a tokio runtime or installs a signal handler.

pub mod beneath;
pub mod clock;
pub mod config_file;
pub mod env;
pub mod features;
pub mod flags;
pub mod health;
pub mod inotify;
pub mod log_files;
pub mod logging;
pub mod metrics;
pub mod process;
pub mod profiling;
pub mod serving;
pub mod tasks;
pub mod tls;
pub mod version;
pub mod zpages;

pub use process::{ComponentInfo, Runtime, run_component as run, run_tool};
pub use prometheus::Registry;
pub use tokio_util::sync::CancellationToken;
