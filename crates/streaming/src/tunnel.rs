//! Bytes of a SPDY connection inside binary WebSocket messages: subprotocol `SPDY/3.1+portforward.k8s.io` (KEP-4006).

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::Response;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

use crate::websocket::{Handshake, Socket, normal_close};

/// The subprotocol.
pub const PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";
/// Largest message that is sent, bytes.
const PIECE: usize = 32 * 1024;
/// Time for either side to take what was read from the other.
const WRITE_TIMEOUT: Duration = Duration::from_secs(300);

/// Why a tunnel ended before either side closed it.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The client's side.
    #[error("client: {0}")]
    Client(#[from] tokio_tungstenite::tungstenite::Error),
    /// The back end's side.
    #[error("backend: {0}")]
    Backend(#[from] std::io::Error),
    /// Text is no SPDY.
    #[error("unexpected text message")]
    Text,
    /// One side does not take what the other sends.
    #[error("timed out writing")]
    Deadline,
}

/// Answers an agreed handshake, and carries bytes between it and an upgraded back end.
pub fn start(handshake: Handshake, backend: Upgraded) -> Response<Body> {
    let (response, socket) = handshake.split();
    tokio::spawn(async move {
        let ended = match socket.await {
            Ok(socket) => run(socket, TokioIo::new(backend)).await,
            Err(error) => return tracing::debug!(%error, "upgrade of a client"),
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "tunnel ended");
        }
    });
    response
}

/// Carries bytes until either side closes.
pub async fn run<T>(socket: Socket, backend: T) -> Result<(), TunnelError>
where
    T: AsyncRead + AsyncWrite,
{
    let (mut to_client, mut from_client) = socket.split();
    let (mut from_backend, mut to_backend) = tokio::io::split(backend);
    let up = async {
        while let Some(message) = from_client.next().await {
            match message? {
                Message::Binary(data) => {
                    let write = tokio::time::timeout(WRITE_TIMEOUT, to_backend.write_all(&data));
                    write.await.map_err(|_| TunnelError::Deadline)??;
                }
                Message::Text(_) => return Err(TunnelError::Text),
                Message::Close(_) => break,
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
        Ok(to_backend.shutdown().await?)
    };
    let down = async {
        let mut piece = vec![0; PIECE];
        loop {
            let count = from_backend.read(&mut piece).await?;
            if count == 0 {
                return Ok(to_client.send(normal_close()).await?);
            }
            let message = Message::Binary(Bytes::copy_from_slice(&piece[..count]));
            let send = tokio::time::timeout(WRITE_TIMEOUT, to_client.send(message));
            send.await.map_err(|_| TunnelError::Deadline)??;
        }
    };
    tokio::select! {
        ended = up => ended,
        ended = down => ended,
    }
}
