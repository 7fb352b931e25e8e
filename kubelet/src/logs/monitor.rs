//! Keeping logs of running containers within their size.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use super::rotate::rotate;
use crate::cri::{CriError, labels, v1};
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
            .for_each_concurrent(workers, |(id, log)| async move {
                if let Err(error) = one(services, &id, log, limit).await {
                    tracing::error!(container = id, error, "log of a container");
                }
            })
            .await;
    }
}

/// Running containers with their logs.
async fn running(services: &Services) -> Result<Vec<(String, PathBuf)>, CriError> {
    let state = Some(v1::ContainerStateValue { state: v1::ContainerState::ContainerRunning as i32 });
    let filter = v1::ContainerFilter { state, ..Default::default() };
    let all = services.cri.list_containers(Some(filter)).await?;
    let with_log = |one: v1::Container| log_of(services.paths.pod_logs(), &one).map(|log| (one.id, log));
    Ok(all.into_iter().filter_map(with_log).collect())
}

/// Where the kubelet told the runtime to write.
fn log_of(root: &Path, container: &v1::Container) -> Option<PathBuf> {
    let label = |name: &str| container.labels.get(name).map(String::as_str);
    let [namespace, pod, uid, name] =
        [labels::POD_NAMESPACE, labels::POD_NAME, labels::POD_UID, labels::CONTAINER_NAME].map(label);
    let (namespace, pod, uid, name) = (namespace?, pod?, uid?, name?);
    let plain = [namespace, pod, uid, name].iter().all(|part| !part.contains('/') && *part != "..");
    let attempt = container.metadata.as_ref()?.attempt;
    plain.then(|| root.join(format!("{namespace}_{pod}_{uid}")).join(name).join(format!("{attempt}.log")))
}

async fn one(services: &Services, id: &str, log: PathBuf, limit: u64) -> Result<(), String> {
    let text = |error: CriError| error.to_string();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_where_the_labels_say() {
        let mut container = v1::Container {
            metadata: Some(v1::ContainerMetadata { name: "c".into(), attempt: 3 }),
            labels: [
                (labels::POD_NAMESPACE, "ns"),
                (labels::POD_NAME, "p"),
                (labels::POD_UID, "u"),
                (labels::CONTAINER_NAME, "c"),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
            ..v1::Container::default()
        };
        let root = Path::new("/var/log/pods");
        assert_eq!(log_of(root, &container), Some(PathBuf::from("/var/log/pods/ns_p_u/c/3.log")));
        container.labels.insert(labels::CONTAINER_NAME.to_owned(), "../x".to_owned());
        assert_eq!(log_of(root, &container), None);
        container.labels.clear();
        assert_eq!(log_of(root, &container), None);
    }
}
