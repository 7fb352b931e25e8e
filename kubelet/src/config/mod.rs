//! `KubeletConfiguration` (kubelet.config.k8s.io/v1beta1): fields, defaults, files.

mod load;
mod span;
mod types;

pub use load::{ConfigError, Loaded, load};
pub use span::Span;
pub use types::*;

#[cfg(test)]
mod tests;
