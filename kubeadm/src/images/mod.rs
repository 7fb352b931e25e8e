//! Images: which ones a cluster needs ([`required`]), and how they are made from the installed programs: what goes into
//! one ([`recipe`]), its files ([`layer`]), the archive ([`archive`]) and its way into the runtime ([`supply`]).

pub mod archive;
pub mod layer;
pub mod recipe;
pub mod supply;
#[cfg(test)]
mod tests;

use crate::{
    config::{ClusterConfiguration, ImageSource},
    constants::{COREDNS_TAG, DEFAULT_REPOSITORY, ETCD_TAG, PAUSE_TAG},
    host::{Host, Program},
};

/// What an image is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A component of the control plane, or the proxy: named like its program.
    Component(&'static str),
    /// Cluster DNS.
    Dns,
    /// The pod network.
    Network,
    /// Volumes from directories of nodes.
    Storage,
    /// Something that users may add to a cluster: named like its program, and left out where that is not installed.
    Addon(&'static str),
    /// The process that holds a Pod's namespaces.
    Pause,
    /// etcd.
    Etcd,
}

/// An image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// What it is for.
    pub purpose: Purpose,
    /// Its full name.
    pub reference: String,
}

/// A tag of a version: what a tag cannot hold becomes `_`.
pub fn tag(version: &str) -> String {
    version.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect()
}

/// Name of a component's image.
pub fn component(cluster: &ClusterConfiguration, name: &str) -> String {
    format!("{}/{name}:{}", cluster.image_repository, tag(&cluster.kubernetes_version))
}

/// Name of the sandbox image.
pub fn pause(cluster: &ClusterConfiguration) -> String {
    format!("{}/pause:{PAUSE_TAG}", cluster.image_repository)
}

/// Name of the image of cluster DNS.
pub fn dns(cluster: &ClusterConfiguration) -> String {
    let repository = match cluster.dns.image_repository.as_str() {
        "" => cluster.image_repository.as_str(),
        own => own,
    };
    if builds_dns(cluster) {
        return format!("{repository}/cluster-dns:{}", tag(&cluster.kubernetes_version));
    }
    let name = if repository == DEFAULT_REPOSITORY { "coredns/coredns" } else { "coredns" };
    let given = cluster.dns.image_tag.as_str();
    format!("{repository}/{name}:{}", if given.is_empty() { COREDNS_TAG } else { given })
}

/// Whether cluster DNS comes from the installed programs. An explicit repository or tag of DNS means CoreDNS.
pub fn builds_dns(cluster: &ClusterConfiguration) -> bool {
    cluster.image_source() == ImageSource::Programs
        && cluster.dns.image_repository.is_empty()
        && cluster.dns.image_tag.is_empty()
}

/// Name of the image of the pod network.
pub fn network(cluster: &ClusterConfiguration) -> String {
    component(cluster, "pod-network")
}

/// Name of the image of the local path provisioner.
pub fn storage(cluster: &ClusterConfiguration) -> String {
    component(cluster, "local-path")
}

/// The metrics API, the upkeep of control planes, and what users may add to a cluster with the manifests of
/// `deploy/addons`.
const ADDONS: [&str; 5] = ["timonel-metrics", "kubeadm", "timonel-ingress", "timonel-dashboard", "timonel-logs"];

/// Name of etcd's image.
pub fn etcd(host: &dyn Host, cluster: &ClusterConfiguration) -> String {
    let local = cluster.local_etcd();
    let repository = match local.image_repository.as_str() {
        "" => cluster.image_repository.as_str(),
        own => own,
    };
    format!("{repository}/etcd:{}", etcd_tag(host, cluster))
}

/// Tag of etcd's image: the given one, that of the installed etcd, or the default.
pub fn etcd_tag(host: &dyn Host, cluster: &ClusterConfiguration) -> String {
    let local = cluster.local_etcd();
    if !local.image_tag.is_empty() {
        return local.image_tag;
    }
    let installed = builds_etcd(cluster).then(|| installed_etcd(host)).flatten();
    installed.map_or_else(|| ETCD_TAG.to_owned(), |version| format!("{version}-0"))
}

/// Whether etcd's image is made from the installed program.
pub fn builds_etcd(cluster: &ClusterConfiguration) -> bool {
    let local = cluster.local_etcd();
    cluster.image_source() == ImageSource::Programs && local.image_repository.is_empty()
}

/// Version of the installed etcd.
fn installed_etcd(host: &dyn Host) -> Option<String> {
    let program = host.find_program("etcd")?;
    let answer = host.run(&Program::new(program.to_string_lossy(), ["--version"])).ok()?;
    let version = answer.stdout.lines().find_map(|line| line.strip_prefix("etcd Version: "))?;
    Some(version.trim().to_owned())
}

/// All images of a control plane node, in the order they are listed.
pub fn required(host: &dyn Host, cluster: &ClusterConfiguration) -> Vec<Image> {
    let of = |name: &'static str| Image { purpose: Purpose::Component(name), reference: component(cluster, name) };
    let mut images = vec![of("kube-apiserver"), of("kube-controller-manager"), of("kube-scheduler")];
    images.extend(of_nodes(cluster));
    if cluster.has_local_etcd() {
        images.push(Image { purpose: Purpose::Etcd, reference: etcd(host, cluster) });
    }
    images
}

/// Images every node needs.
pub fn of_nodes(cluster: &ClusterConfiguration) -> Vec<Image> {
    let mut images = Vec::new();
    if !cluster.proxy.disabled {
        images.push(Image { purpose: Purpose::Component("kube-proxy"), reference: component(cluster, "kube-proxy") });
    }
    if !cluster.dns.disabled {
        images.push(Image { purpose: Purpose::Dns, reference: dns(cluster) });
    }
    if cluster.image_source() == ImageSource::Programs {
        images.push(Image { purpose: Purpose::Network, reference: network(cluster) });
        images.push(Image { purpose: Purpose::Storage, reference: storage(cluster) });
        let addon = |name| Image { purpose: Purpose::Addon(name), reference: component(cluster, name) };
        images.extend(ADDONS.map(addon));
    }
    images.push(Image { purpose: Purpose::Pause, reference: pause(cluster) });
    images
}
