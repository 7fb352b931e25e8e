//! The pod network.

use std::path::Path;

use serde_json::Value;

use crate::{config::ClusterConfiguration, error::Result, host::Host};

const MANIFEST: &str = include_str!("../../../deploy/addons/pod-network.yaml");
/// Name of the configuration that the addon itself writes.
const OWN: &str = "timonel";

/// The objects of the addon.
pub fn objects(cluster: &ClusterConfiguration) -> Result<Vec<Value>> {
    super::render(MANIFEST, cluster)
}

/// Whether another pod network is set up on this host.
pub fn is_configured(host: &dyn Host, directory: &Path) -> bool {
    let files = host.list(directory).unwrap_or_default();
    files.iter().any(|file| {
        let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let is_network = [".conf", ".conflist", ".json"].iter().any(|end| name.ends_with(end));
        is_network && !name.contains(OWN) && !name.contains("loopback")
    })
}
