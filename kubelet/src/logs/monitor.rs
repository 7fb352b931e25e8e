//! Keeping logs of running containers within their size.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use super::rotate::rotate;
use crate::cri::{CriError, v1};
use crate::pods::quantity;
use crate::services::Services;

/// Looks at all logs now and then, until stopped.
pub async fn run(services: Arc<Services>, stop: CancellationToken) {
    let config = &services.config;
    let period = config.container_log_monitor_interval.0;
    let workers = usize::try_from(config.container_log_max_workers).unwrap_or(1).max(1);
    let size = k8s_openapi::apimachinery::pkg::api::resource::Quantity(config.container_log_max_size.clone());
    // A size that is not positive means that logs grow without limit.
    let Some(limit) = u64::try_from(quantity::value(&size)).ok().filter(|limit| *limit > 0) else { return };
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(period) => {}
        }
        let running = match running(&services).await {
            Ok(running) => running,
            Err(error) => {
                tracing::error!(%error, "listing containers whose logs may be rotated");
                continue;
            }
        };
        let services = &services;
        futures::stream::iter(running)
            .for_each_concurrent(workers, |id| async move {
                if let Err(error) = one(services, &id, limit).await {
                    tracing::error!(container = id, error, "log of a container");
                }
            })
            .await;
    }
}

async fn running(services: &Services) -> Result<Vec<String>, CriError> {
    let state = Some(v1::ContainerStateValue { state: v1::ContainerState::ContainerRunning as i32 });
    let filter = v1::ContainerFilter { state, ..Default::default() };
    Ok(services.cri.list_containers(Some(filter)).await?.into_iter().map(|container| container.id).collect())
}

async fn one(services: &Services, id: &str, limit: u64) -> Result<(), String> {
    let text = |error: CriError| error.to_string();
    let status = services.cri.container_status(id, false).await.map_err(text)?.status.unwrap_or_default();
    let log = Path::new(&status.log_path).to_owned();
    if !log.starts_with(services.paths.pod_logs()) {
        return Ok(());
    }
    match fs::metadata(&log) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return services.cri.reopen_container_log(id).await.map_err(text);
        }
        Err(error) => return Err(error.to_string()),
        Ok(meta) if meta.len() < limit => return Ok(()),
        Ok(_) => {}
    }
    let files = usize::try_from(services.config.container_log_max_files).unwrap_or(2);
    let path = log.clone();
    let rotated = tokio::task::spawn_blocking(move || rotate(&path, files));
    let rotated = rotated.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    if let Err(error) = services.cri.reopen_container_log(id).await {
        // Nothing writes to the new name; the old one is what the runtime still has open.
        fs::rename(&rotated, &log).map_err(|error| error.to_string())?;
        return Err(error.to_string());
    }
    Ok(())
}
