//! Where records go.

mod file;
mod http;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub(crate) use file::{FileSink, Retention};
pub use http::HttpSinkError;
pub(crate) use http::{Endpoint, HttpSink};

use crate::record::Record;

/// Why records did not arrive.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SinkError {
    /// They may later.
    #[error("{0}")]
    Later(String),
    /// They are too many at once.
    #[error("the server takes no request of this size")]
    TooLarge,
    /// They never will.
    #[error("{0}")]
    Never(String),
}

/// A sink.
#[derive(Clone)]
pub(crate) enum Sink {
    File(Arc<FileSink>),
    Http(Arc<HttpSink>),
}

impl Sink {
    /// Sends records; once it is done they are safe, or somebody else's.
    pub(crate) async fn send(&self, records: &Arc<[Record]>) -> Result<(), SinkError> {
        match self {
            Self::File(sink) => {
                let (sink, records) = (Arc::clone(sink), Arc::clone(records));
                let written = tokio::task::spawn_blocking(move || sink.write(&records)).await;
                match written {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(error)) => Err(SinkError::Later(error.to_string())),
                    Err(error) => Err(SinkError::Later(error.to_string())),
                }
            }
            Self::Http(sink) => sink.post(records).await,
        }
    }
}
