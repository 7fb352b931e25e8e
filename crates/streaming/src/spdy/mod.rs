//! SPDY/3.1: streams of bytes with headers over one connection.
//!
//! Peers in the field (containerd, CRI-O, older kubectl) neither send nor honour WINDOW_UPDATE, so this side does not
//! wait for windows either: back-pressure is that of the bounded stream queues and of TCP.

mod frame;
mod headers;
mod session;

pub use session::{Incoming, Session, Stream, StreamSender};

/// Why a session or a stream ended.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SpdyError {
    /// The peer breaks the protocol.
    #[error("SPDY protocol: {0}")]
    Protocol(&'static str),
    /// The connection failed.
    #[error("{0}")]
    Io(String),
    /// The connection is closed.
    #[error("connection closed")]
    Closed,
    /// The peer reset the stream with this status code.
    #[error("stream reset by the peer (status {0})")]
    Reset(u32),
    /// The peer did not answer in time.
    #[error("timed out waiting for the peer")]
    Deadline,
}

impl From<std::io::Error> for SpdyError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error.to_string())
    }
}
