//! Mirror Pods: what the API shows of the static Pods of a host.

use std::time::Duration;

use serde_json::Value;

use crate::{
    client::{Cluster, INTERVAL, error_text, items},
    config::Period,
    error::{Result, fail},
};

/// The annotation of a mirror Pod that changes with its manifest.
const HASH: &str = "kubernetes.io/config.hash";

/// The mirror Pods of a node.
pub struct Mirrors<'a> {
    /// The cluster.
    pub api: &'a Cluster,
    /// Name of the node.
    pub node: &'a str,
}

impl Mirrors<'_> {
    fn path(&self, component: &str) -> String {
        format!("/api/v1/namespaces/kube-system/pods/{component}-{}", self.node)
    }

    /// The hash of a component's manifest.
    pub async fn hash(&self, component: &str) -> Result<String> {
        let Some(pod) = self.api.get(&self.path(component)).await? else {
            return fail!("failed to get the static Pod {component}-{}: it is not found", self.node);
        };
        Ok(hash_of(&pod).unwrap_or_default().to_owned())
    }

    /// Waits until the kubelet shows another hash and the Pods of the component run, on all nodes.
    pub async fn await_change(&self, component: &str, old: &str, patience: Duration) -> Result<()> {
        let pod = self.path(component);
        let all = format!("/api/v1/namespaces/kube-system/pods?labelSelector=component%3D{component}");
        let end = tokio::time::Instant::now() + patience;
        let mut cause;
        loop {
            cause = match self.api.get_once(&pod).await {
                Err(error) => error_text(&error),
                Ok(pod) if hash_of(&pod).is_none_or(|hash| hash == old) => {
                    format!("static Pod hash for component {component} on Node {} did not change", self.node)
                }
                Ok(_) => match self.api.get_once(&all).await {
                    Err(error) => error_text(&error),
                    Ok(list) if all_run(&list) => return Ok(()),
                    Ok(_) => format!("the Pods of component {component} do not run"),
                },
            };
            if tokio::time::Instant::now() > end {
                return fail!("{cause} after {}", Period(patience));
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

fn hash_of(pod: &Value) -> Option<&str> {
    pod.pointer("/metadata/annotations")?.get(HASH)?.as_str()
}

fn all_run(list: &Value) -> bool {
    let runs = |pod: &Value| pod.pointer("/status/phase").and_then(Value::as_str) == Some("Running");
    items(list).next().is_some() && items(list).all(runs)
}
