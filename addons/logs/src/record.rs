//! What is collected: a line with where it comes from.

use std::sync::Arc;

use serde::Serialize;

/// The container a line is of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub(crate) struct Source {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) uid: String,
    pub(crate) container: String,
    /// How often the container was started again.
    pub(crate) restart: u32,
    pub(crate) node: Arc<str>,
}

/// A line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Record {
    /// When it was written, as the runtime has it; absent if the line was not the runtime's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) time: Option<String>,
    pub(crate) stream: Stream,
    pub(crate) log: String,
    /// Whether the line goes on in the next record.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) partial: bool,
    pub(crate) kubernetes: Arc<Source>,
}

/// Where a container wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stream {
    Stdout,
    Stderr,
    /// The line is not in the runtime's format.
    Unknown,
}

impl Stream {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Unknown => "unknown",
        }
    }
}
