//! Subresources of Pods.

pub mod binding;
pub mod eviction;
