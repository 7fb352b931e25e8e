//! Keeping the kubelet's iptables chains.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::services::Services;

const PERIOD: Duration = Duration::from_secs(60);

/// Makes them, and looks every minute whether somebody flushed them, until stopped.
pub(crate) async fn keep(services: Arc<Services>, stop: CancellationToken) {
    loop {
        let platform = Arc::clone(&services.platform);
        match tokio::task::spawn_blocking(move || platform.ensure_chains()).await {
            Ok(Ok(true)) => tracing::info!("made iptables chains"),
            Ok(Ok(false)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "iptables chains"),
            Err(error) => tracing::error!(%error, "iptables chains"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}
