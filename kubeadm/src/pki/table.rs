//! The certificates of a cluster, in the order they are made.

use super::Usage;

/// Where the names of a certificate come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamesOf {
    /// There are none.
    None,
    /// The API server.
    ApiServer,
    /// etcd towards its clients.
    EtcdServer,
    /// etcd towards its members.
    EtcdPeer,
}

/// What a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A certificate authority.
    Authority,
    /// Signed by one.
    Leaf {
        /// Name of the authority.
        authority: &'static str,
        /// What it is good for.
        usage: Usage,
        /// Its names.
        names: NamesOf,
    },
}

/// One certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Name of its phase.
    pub name: &'static str,
    /// What it is for.
    pub long_name: &'static str,
    /// File below the certificate directory, without suffix.
    pub file: &'static str,
    /// Common name; `None` is the name of the node.
    pub common_name: Option<&'static str>,
    /// What it is.
    pub role: Role,
}

const fn authority(name: &'static str, long_name: &'static str, file: &'static str, cn: &'static str) -> Row {
    Row { name, long_name, file, common_name: Some(cn), role: Role::Authority }
}

const fn client(
    name: &'static str,
    long_name: &'static str,
    file: &'static str,
    of: &'static str,
    cn: &'static str,
) -> Row {
    let role = Role::Leaf { authority: of, usage: Usage::Client, names: NamesOf::None };
    Row { name, long_name, file, common_name: Some(cn), role }
}

/// All certificates; an authority stands before what it signs.
pub const TABLE: [Row; 10] = [
    authority(
        "ca",
        "self-signed Kubernetes CA to provision identities for other Kubernetes components",
        "ca",
        "kubernetes",
    ),
    Row {
        name: "apiserver",
        long_name: "certificate for serving the Kubernetes API",
        file: "apiserver",
        common_name: Some("kube-apiserver"),
        role: Role::Leaf { authority: "ca", usage: Usage::Server, names: NamesOf::ApiServer },
    },
    client(
        "apiserver-kubelet-client",
        "certificate for the API server to connect to kubelet",
        "apiserver-kubelet-client",
        "ca",
        "kube-apiserver-kubelet-client",
    ),
    authority(
        "front-proxy-ca",
        "self-signed CA to provision identities for front proxy",
        "front-proxy-ca",
        "front-proxy-ca",
    ),
    client(
        "front-proxy-client",
        "certificate for the front proxy client",
        "front-proxy-client",
        "front-proxy-ca",
        "front-proxy-client",
    ),
    authority("etcd-ca", "self-signed CA to provision identities for etcd", "etcd/ca", "etcd-ca"),
    Row {
        name: "etcd-server",
        long_name: "certificate for serving etcd",
        file: "etcd/server",
        common_name: None,
        role: Role::Leaf { authority: "etcd-ca", usage: Usage::Both, names: NamesOf::EtcdServer },
    },
    Row {
        name: "etcd-peer",
        long_name: "certificate for etcd nodes to communicate with each other",
        file: "etcd/peer",
        common_name: None,
        role: Role::Leaf { authority: "etcd-ca", usage: Usage::Both, names: NamesOf::EtcdPeer },
    },
    client(
        "etcd-healthcheck-client",
        "certificate for liveness probes to healthcheck etcd",
        "etcd/healthcheck-client",
        "etcd-ca",
        "kube-etcd-healthcheck-client",
    ),
    client(
        "apiserver-etcd-client",
        "certificate the apiserver uses to access etcd",
        "apiserver-etcd-client",
        "etcd-ca",
        "kube-apiserver-etcd-client",
    ),
];

impl Row {
    /// By name.
    pub fn named(name: &str) -> Option<&'static Self> {
        TABLE.iter().find(|row| row.name == name)
    }

    /// Whether only a cluster with its own etcd needs it.
    pub fn is_of_etcd(&self) -> bool {
        self.name == "etcd-ca" || matches!(self.role, Role::Leaf { authority: "etcd-ca", .. })
    }

    /// Name of the authority that signs it.
    pub fn authority(&self) -> Option<&'static Self> {
        match self.role {
            Role::Authority => None,
            Role::Leaf { authority, .. } => Self::named(authority),
        }
    }
}
