//! Versioned key-value stores of the apiserver and the watch cache above them.
//!
//! [`contract::Store`] is what a store must do: compare-and-swap writes, reads at a revision, watches from a
//! revision, expiry. [`embedded`] keeps everything in one local directory, [`etcd`] speaks to an etcd cluster; both
//! pass the same `suite`. [`cache`] feeds from one store watch per resource and serves every GET, LIST and WATCH.

pub mod cache;
pub mod contract;
pub mod embedded;
pub mod encrypted;
pub mod etcd;
pub mod metered;
#[cfg(any(test, feature = "test-util"))]
pub mod suite;
