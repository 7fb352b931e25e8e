//! One plain request to a back end, over a connection of its own.

use std::time::Duration;

use axum::body::Body;
use http::{HeaderValue, Request, Response, header};
use hyper_util::rt::TokioIo;

use crate::{BackendError, Connection, is_hop_by_hop};

/// Time for a back end to begin its answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Sends `request` (origin-form target) and returns the answer as it begins; the body streams.
///
/// Headers of one hop are removed in both directions. Dropping the answer's body closes the connection.
pub async fn send(connection: Connection, request: Request<Body>, host: &str) -> Result<Response<Body>, BackendError> {
    let exchange = exchange(connection, request, host);
    tokio::time::timeout(ANSWER_TIMEOUT, exchange).await.map_err(|_| BackendError::Deadline)?
}

async fn exchange(
    connection: Connection,
    mut request: Request<Body>,
    host: &str,
) -> Result<Response<Body>, BackendError> {
    let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(connection)).await?;
    tokio::spawn(async move {
        if let Err(error) = driver.await {
            tracing::debug!(%error, "connection of a forwarded request");
        }
    });
    strip(request.headers_mut());
    request.headers_mut().insert(header::HOST, HeaderValue::from_str(host).map_err(http::Error::from)?);
    let mut answer = sender.send_request(request).await?;
    strip(answer.headers_mut());
    Ok(answer.map(Body::new))
}

fn strip(headers: &mut http::HeaderMap) {
    let names: Vec<_> = headers.keys().filter(|name| is_hop_by_hop(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}
