//! Connections that become something else, such as WebSocket: joined byte by byte until they end or fall silent.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use http::{Request, Version, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use prometheus::IntGauge;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use super::body::Progress;

/// Bytes moved at once.
const PIECE: usize = 16 * 1024;

/// Whether a request asks for another protocol.
pub(super) fn asked(request: &Request<Body>) -> bool {
    let headers = request.headers();
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let mut tokens = values.flat_map(|value| value.split(','));
    // HTTP/2 over cleartext is agreed upon hop by hop.
    let cleartext = headers.get(header::UPGRADE).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"h2c"));
    request.version() == Version::HTTP_11
        && headers.contains_key(header::UPGRADE)
        && !cleartext
        && tokens.any(|token| token.trim().eq_ignore_ascii_case("upgrade"))
}

/// Counts one connection until dropped.
pub(super) struct Counted(pub(super) IntGauge);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Joins two connections; gives up when neither says anything for `idle`.
pub(super) async fn join(client: OnUpgrade, backend: OnUpgrade, idle: Duration) {
    let (client, backend) = match tokio::try_join!(client, backend) {
        Ok(both) => both,
        Err(error) => return tracing::debug!(%error, "an upgrade failed"),
    };
    let (from_client, to_client) = tokio::io::split(TokioIo::new(client));
    let (from_backend, to_backend) = tokio::io::split(TokioIo::new(backend));
    let progress = Arc::new(Progress::new());
    let both =
        async { tokio::try_join!(pump(from_client, to_backend, &progress), pump(from_backend, to_client, &progress)) };
    tokio::select! {
        ended = both => {
            if let Err(error) = ended {
                tracing::debug!(%error, "joined connections ended");
            }
        }
        () = silence(&progress, idle) => {}
    }
}

async fn pump(
    mut from: ReadHalf<TokioIo<Upgraded>>,
    mut to: WriteHalf<TokioIo<Upgraded>>,
    progress: &Progress,
) -> std::io::Result<()> {
    let mut buffer = vec![0; PIECE];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..count]).await?;
        to.flush().await?;
        progress.touch(count);
    }
}

/// Ends when nothing was touched for `idle`.
async fn silence(progress: &Progress, idle: Duration) {
    loop {
        let deadline = progress.last() + idle;
        if std::time::Instant::now() >= deadline {
            return;
        }
        tokio::time::sleep_until(deadline.into()).await;
    }
}
