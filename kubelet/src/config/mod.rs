//! `KubeletConfiguration` (kubelet.config.k8s.io/v1beta1): fields, defaults, files.

mod features;
mod load;
mod logging;
mod span;
mod types;
mod validate;

pub use features::Features;
pub(crate) use features::{RESIZE_INIT, RESIZE_POD, RESTART_ALL};
pub use load::{ConfigError, Loaded, load};
pub use logging::Logging;
pub use span::Span;
pub use types::*;
pub use validate::gates;
pub(crate) use validate::tracing;

#[cfg(test)]
mod tests;
