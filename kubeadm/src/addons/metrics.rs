//! Usage of nodes and Pods, as metrics.k8s.io.

use serde_json::Value;

use crate::{config::ClusterConfiguration, error::Result};

const MANIFEST: &str = include_str!("../../../deploy/addons/metrics.yaml");

/// The objects of the addon.
pub fn objects(cluster: &ClusterConfiguration) -> Result<Vec<Value>> {
    super::render(MANIFEST, cluster)
}
