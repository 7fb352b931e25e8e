//! The health and the metrics server.

use std::{net::SocketAddr, time::Duration};

use axum::{Router, response::IntoResponse, routing::get};
use http::StatusCode;
use machinery::time::format;
use prometheus::Registry;
use serde_json::json;
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::{ProxyError, options::Options, sync::Progress};

/// Grace for running requests.
const GRACE: Duration = Duration::from_secs(1);

fn health(progress: &Progress) -> impl IntoResponse + use<> {
    let healthy = progress.is_healthy();
    let at = i64::try_from(progress.last_synced()).unwrap_or(0);
    let now = OffsetDateTime::now_utc();
    let last = OffsetDateTime::from_unix_timestamp(at).unwrap_or(now);
    let shown = if healthy { now } else { last };
    let body = json!({
        "lastUpdated": format(shown),
        "currentTime": format(now),
        "healthy": healthy,
        "status": {"IPv4": {"lastUpdated": format(last), "healthy": healthy}},
    });
    let code = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let headers = [("content-type", "application/json"), ("x-content-type-options", "nosniff")];
    (code, headers, body.to_string())
}

async fn listen(address: SocketAddr, router: Router, stop: &CancellationToken) -> Result<(), ProxyError> {
    let listener = TcpListener::bind(address).await.map_err(|source| ProxyError::Listen { address, source })?;
    let handler = move |request| {
        let router = router.clone();
        async move {
            match router.oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        }
    };
    tokio::spawn(runtime::serving::serve(listener, None, handler, stop.clone(), GRACE));
    Ok(())
}

/// Starts both servers.
pub(crate) async fn start(
    options: &Options,
    registry: Registry,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<(), ProxyError> {
    let (healthz, livez) = (progress.clone(), progress.clone());
    let router = Router::new()
        .route("/healthz", get(move || async move { health(&healthz) }))
        .route("/livez", get(move || async move { health(&livez) }));
    listen(options.healthz_bind_address, router, stop).await?;
    let router = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/proxyMode", get(|| async { "iptables" }))
        .merge(runtime::metrics::router(registry));
    listen(options.metrics_bind_address, router, stop).await
}
