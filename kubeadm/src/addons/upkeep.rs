//! Upkeep of control planes.

use serde_json::Value;

use crate::{config::ClusterConfiguration, error::Result};

const MANIFEST: &str = include_str!("../../../deploy/addons/upkeep.yaml");

/// The objects of the addon.
pub fn objects(cluster: &ClusterConfiguration) -> Result<Vec<Value>> {
    super::render(MANIFEST, cluster)
}
