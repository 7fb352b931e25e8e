//! What passes through a connection after HTTP has done its part: upgrades, WebSocket channels, SPDY/3.1 streams.
//!
//! - [`upgrade`]: repeats a client's upgrade at a back end and joins the two connections byte by byte.
//! - [`forward`]: sends one plain request to a back end.
//! - [`websocket`]: the server side of a WebSocket handshake, with Kubernetes' subprotocols.
//! - [`spdy`]: the SPDY/3.1 multiplexer, both roles.
//! - [`translate`]: `v5.channel.k8s.io` on the client's side, SPDY `v4.channel.k8s.io` on the back end's.
//! - [`tunnel`]: SPDY bytes inside binary WebSocket messages (`SPDY/3.1+portforward.k8s.io`).
//!
//! Nothing of a back-end connection is reused after an upgrade that was not answered with 101 (CVE-2018-1002105), and
//! redirects are never followed (CVE-2020-8559).

pub mod forward;
pub mod spdy;
pub mod translate;
pub mod tunnel;
pub mod upgrade;
pub mod websocket;

use http::{HeaderName, header};
use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream to a back end.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connected back end.
pub type Connection = Box<dyn Io>;

/// Why a back end could not serve a request.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The HTTP exchange failed.
    #[error("{0}")]
    Http(#[from] hyper::Error),
    /// The request cannot be written for the back end.
    #[error("{0}")]
    Request(#[from] http::Error),
    /// The back end gave no answer in time.
    #[error("context deadline exceeded")]
    Deadline,
}

/// Headers of one hop (RFC 9110, section 7.6.1); never forwarded.
pub const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    header::UPGRADE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Whether a header is of one hop.
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(name)
}
