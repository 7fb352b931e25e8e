//! The error of every step: one text, built from context and cause.

use std::fmt::Display;

/// Why a command failed, as it is printed after `error: `.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

/// Result of a step.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error with this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// Puts words before a cause: `CONTEXT: CAUSE`.
pub trait Context<T> {
    /// Adds a fixed context.
    fn context(self, context: impl Display) -> Result<T>;
    /// Adds a context that is made only when needed.
    fn with_context<D: Display>(self, context: impl FnOnce() -> D) -> Result<T>;
}

impl<T, E: Display> Context<T> for std::result::Result<T, E> {
    fn context(self, context: impl Display) -> Result<T> {
        self.map_err(|cause| Error(format!("{context}: {cause}")))
    }

    fn with_context<D: Display>(self, context: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|cause| Error(format!("{}: {cause}", context())))
    }
}

macro_rules! fail {
    ($($part:tt)*) => { Err($crate::error::Error::new(format!($($part)*))) };
}
pub(crate) use fail;
