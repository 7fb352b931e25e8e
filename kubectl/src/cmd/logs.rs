//! `kubectl logs`.

use crate::{cli::Logs, cluster::Cluster, error::CommandError};

/// Runs the command.
pub async fn run(cluster: &Cluster, options: &Logs) -> Result<String, CommandError> {
    let name = options.pod.strip_prefix("pod/").or_else(|| options.pod.strip_prefix("pods/")).unwrap_or(&options.pod);
    let mut query = Vec::new();
    if let Some(container) = &options.container {
        query.push(format!("container={}", super::get::escape(container)));
    }
    if let Some(tail) = options.tail.filter(|t| *t >= 0) {
        query.push(format!("tailLines={tail}"));
    }
    if options.previous {
        query.push("previous=true".to_owned());
    }
    let path = format!("/api/v1/namespaces/{}/pods/{name}/log?{}", cluster.namespace, query.join("&"));
    cluster.text(&path).await
}
