//! Process runtime of every component: flags, configuration, logs, metrics, health, TLS, tasks, signals.

pub mod health;
pub mod metrics;
pub mod process;
pub mod serving;
pub mod tls;
pub mod version;
