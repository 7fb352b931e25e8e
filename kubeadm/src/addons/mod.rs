//! Objects of the addons.

pub mod dns;
pub mod metrics;
pub mod network;
pub mod proxy;
pub mod storage;
#[cfg(test)]
mod tests;
pub mod upkeep;

use serde_json::Value;

use crate::{
    config::ClusterConfiguration,
    error::{Context, Result},
    images, yaml,
};

/// Fills in and decodes a manifest of several documents.
fn render(manifest: &str, cluster: &ClusterConfiguration) -> Result<Vec<Value>> {
    let dns = cluster.dns_address()?.to_string();
    let version = images::tag(&cluster.kubernetes_version);
    let values = [
        ("${IMAGE_REPOSITORY}", cluster.image_repository.as_str()),
        ("${VERSION}", version.as_str()),
        ("${DNS_SERVICE_IP}", dns.as_str()),
        ("${DNS_DOMAIN}", cluster.networking.dns_domain.as_str()),
        ("${CERTIFICATES_DIR}", cluster.certificates_dir.as_str()),
        ("${POD_CIDR}", cluster.networking.pod_subnet.as_str()),
    ];
    let text = values.iter().fold(manifest.to_owned(), |text, (name, value)| text.replace(name, value));
    yaml::split(&text).into_iter().map(|d| yaml::parse(d).context("unable to decode an addon's manifest")).collect()
}
