//! `/health`, `/ready`, `/metrics`.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, http::StatusCode, routing::get};
use prometheus::Registry;
use runtime::{CancellationToken, tasks::TaskGroup};
use tokio::net::TcpListener;

use crate::server::Server;

/// Time for running requests at the end.
const GRACE: Duration = Duration::from_secs(1);

/// That the process serves.
pub(crate) fn health() -> Router {
    Router::new().route("/health", get(|| async { "OK" }))
}

/// Whether the cluster's names are known and the process is not about to stop.
pub(crate) fn ready(server: &Arc<Server>, shutdown: CancellationToken) -> Router {
    let server = Arc::clone(server);
    let answer = move || async move {
        let ready = !shutdown.is_cancelled() && server.resolver.load().ready();
        if ready { (StatusCode::OK, "OK") } else { (StatusCode::SERVICE_UNAVAILABLE, "kubernetes") }
    };
    Router::new().route("/ready", get(answer))
}

/// Metrics.
pub(crate) fn metrics(registry: Registry) -> Router {
    runtime::metrics::router(registry)
}

/// Serves pages until the group stops.
pub(crate) async fn serve(at: SocketAddr, pages: Router, tasks: &TaskGroup) -> std::io::Result<()> {
    let listener = match TcpListener::bind(at).await {
        Ok(listener) => listener,
        // A machine without IPv6 has no `::`.
        Err(_) if at.ip().is_unspecified() => TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], at.port()))).await?,
        Err(error) => return Err(error),
    };
    let stop = tasks.token().clone();
    tasks.spawn(format!("pages {at}"), runtime::serving::serve_router(listener, None, pages, stop, GRACE));
    Ok(())
}
