//! Local path volumes and the default StorageClass.

use serde_json::Value;

use crate::{config::ClusterConfiguration, error::Result};

const MANIFEST: &str = include_str!("../../../deploy/addons/local-path.yaml");

/// The objects of the addon.
pub fn objects(cluster: &ClusterConfiguration) -> Result<Vec<Value>> {
    super::render(MANIFEST, cluster)
}
