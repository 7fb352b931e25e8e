//! The health and the metrics server.

use std::{net::SocketAddr, time::Duration};

use axum::{Router, response::IntoResponse, routing::get};
use http::StatusCode;
use machinery::time::format;
use runtime::Runtime;
use serde_json::json;
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{ProxyError, options::Settings, sync::Progress};

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

/// Pause between tries to listen.
const BIND_RETRY: Duration = Duration::from_secs(5);

/// Listens and serves; an address that is taken is tried again, unless that is to be fatal.
async fn listen(
    address: SocketAddr,
    router: Router,
    hard_fail: bool,
    stop: &CancellationToken,
) -> Result<(), ProxyError> {
    let first = TcpListener::bind(address).await;
    if hard_fail {
        let listener = first.map_err(|source| ProxyError::Listen { address, source })?;
        tokio::spawn(runtime::serving::serve_router(listener, None, router, stop.clone(), GRACE));
        return Ok(());
    }
    let stop = stop.clone();
    tokio::spawn(async move {
        let mut bound = first;
        let listener = loop {
            match bound {
                Ok(listener) => break listener,
                Err(error) => tracing::error!(%error, %address, "cannot listen, trying again"),
            }
            if stop.run_until_cancelled(tokio::time::sleep(BIND_RETRY)).await.is_none() {
                return;
            }
            bound = TcpListener::bind(address).await;
        };
        runtime::serving::serve_router(listener, None, router, stop, GRACE).await;
    });
    Ok(())
}

/// Starts both servers.
pub(crate) async fn start(settings: &Settings, runtime: &Runtime, progress: &Progress) -> Result<(), ProxyError> {
    let (healthz, livez) = (progress.clone(), progress.clone());
    let router = Router::new()
        .route("/healthz", get(move || async move { health(&healthz) }))
        .route("/livez", get(move || async move { health(&livez) }));
    listen(settings.healthz, router, settings.hard_fail, &runtime.shutdown).await?;
    let router = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/proxyMode", get(|| async { "iptables" }))
        .merge(runtime::metrics::router(runtime.registry.clone()))
        .merge(runtime::zpages::router(runtime, &["/healthz", "/proxyMode", "/metrics"]));
    listen(settings.metrics, router, settings.hard_fail, &runtime.shutdown).await
}
