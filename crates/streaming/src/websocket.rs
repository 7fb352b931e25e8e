//! The server side of a WebSocket handshake (RFC 6455) with Kubernetes' subprotocols.

use axum::body::Body;
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode,
    header::{self, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION},
};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use sha1::{Digest, Sha1};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message, Utf8Bytes,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

/// RFC 6455, section 1.3.
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Longest message of a client, bytes.
const MAX_MESSAGE: usize = 32 << 20;

/// An accepted connection.
pub type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Why a handshake is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The key is missing.
    #[error("missing Sec-WebSocket-Key")]
    Key,
    /// Only version 13 exists.
    #[error("unsupported Sec-WebSocket-Version")]
    Version,
}

/// Whether a request asks for a WebSocket.
pub fn is_websocket(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(header::UPGRADE).and_then(|value| value.to_str().ok());
    crate::upgrade::is_upgrade(headers) && upgrade.is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
}

/// Subprotocols that the client offers, in its order.
pub fn offered(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|name| name.trim().to_owned()).filter(|n| !n.is_empty()).collect()
}

/// A handshake that was agreed to: the answer for the client, and the connection that follows it.
pub struct Handshake {
    response: Response<Body>,
    connection: OnUpgrade,
}

impl Handshake {
    /// Agrees to a handshake with a subprotocol (empty: none).
    pub fn accept(request: &mut Request<Body>, protocol: &str) -> Result<Self, HandshakeError> {
        let headers = request.headers();
        if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
            return Err(HandshakeError::Version);
        }
        let key = headers.get(SEC_WEBSOCKET_KEY).ok_or(HandshakeError::Key)?;
        let accept = HeaderValue::try_from(accept_key(key.as_bytes())).map_err(|_| HandshakeError::Key)?;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let answer = response.headers_mut();
        answer.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        answer.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        answer.insert(SEC_WEBSOCKET_ACCEPT, accept);
        if let (false, Ok(value)) = (protocol.is_empty(), HeaderValue::from_str(protocol)) {
            answer.insert(SEC_WEBSOCKET_PROTOCOL, value);
        }
        Ok(Self { response, connection: hyper::upgrade::on(request) })
    }

    /// The answer, and the future connection.
    pub fn split(self) -> (Response<Body>, impl Future<Output = Result<Socket, hyper::Error>> + Send + 'static) {
        let connection = self.connection;
        let socket = async move {
            let config = WebSocketConfig::default()
                .max_message_size(Some(MAX_MESSAGE))
                .max_frame_size(Some(MAX_MESSAGE))
                .read_buffer_size(32 * 1024)
                .write_buffer_size(0)
                .max_write_buffer_size(4 << 20);
            let io = TokioIo::new(connection.await?);
            Ok(WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await)
        };
        (self.response, socket)
    }
}

/// The end of a connection where all was said (code 1000); clients take an unexplained end for a failure.
pub(crate) fn normal_close() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() }))
}

fn accept_key(key: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(ACCEPT_GUID);
    STANDARD.encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_key_of_the_rfc() {
        assert_eq!(accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn offers_keep_their_order() {
        let mut headers = HeaderMap::new();
        headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("v5.channel.k8s.io, v4.channel.k8s.io"));
        headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("channel.k8s.io"));
        assert_eq!(offered(&headers), ["v5.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io"]);
    }
}
