//! A member of etcd on this host.

use super::{Mount, Probe, Probes, StaticPod, command};
use crate::{
    config::{ApiEndpoint, Arg, ClusterConfiguration, Timeouts, argument, join_host_port, version::Version},
    constants::ETCD_ANNOTATION,
    host::Host,
    images,
};

/// Another member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its peer URL.
    pub peer_url: String,
}

/// What the manifest is made from.
pub struct Inputs<'a> {
    /// This host.
    pub host: &'a dyn Host,
    /// The cluster.
    pub cluster: &'a ClusterConfiguration,
    /// Address of this host.
    pub endpoint: &'a ApiEndpoint,
    /// Name of this node.
    pub node: &'a str,
    /// All members, when this one joins others.
    pub members: &'a [Member],
    /// Timeouts.
    pub timeouts: Option<&'a Timeouts>,
}

impl Inputs<'_> {
    /// The manifest.
    pub fn static_pod(&self) -> StaticPod {
        let local = self.cluster.local_etcd();
        let modern = self.is_modern();
        let (host, port) = self.probe_address(&local.extra_args);
        let probe = |path| Probe { path, scheme: "HTTP", host: host.clone() };
        // Before 3.6 there is only one health page.
        let (live, ready) = if modern { ("/livez", "/readyz") } else { ("/health", "/health") };
        let certs = format!("{}/etcd", self.cluster.certificates_dir);
        StaticPod {
            name: "etcd",
            image: images::etcd(self.host, self.cluster),
            command: command("etcd", self.flags(modern), &local.extra_args),
            mounts: vec![
                Mount::same("etcd-data", &local.data_dir, "DirectoryOrCreate", false),
                Mount::same("etcd-certs", &certs, "DirectoryOrCreate", false),
            ],
            annotations: vec![(ETCD_ANNOTATION, self.url(2379))],
            envs: local.extra_envs.clone(),
            requests: vec![("cpu", "100m"), ("memory", "100Mi")],
            probes: Probes {
                port,
                liveness: probe(live),
                readiness: Some(probe(ready)),
                startup: probe(ready),
                startup_failures: Timeouts::component(self.timeouts).as_secs().div_ceil(10),
            },
        }
    }

    fn url(&self, port: u16) -> String {
        format!("https://{}", join_host_port(&self.endpoint.advertise_address, port))
    }

    fn loopback(&self) -> &'static str {
        if self.endpoint.is_v6() { "::1" } else { "127.0.0.1" }
    }

    /// Whether the image is of etcd 3.6 or later; a tag that is no version counts as such.
    fn is_modern(&self) -> bool {
        let tag = images::etcd_tag(self.host, self.cluster);
        Version::parse(&tag).is_none_or(|version| version.minor() >= (3, 6))
    }

    fn probe_address(&self, given: &[Arg]) -> (String, i32) {
        let default = (self.loopback().to_owned(), 2381);
        let Some(urls) = argument(given, "listen-metrics-urls") else { return default };
        let first = urls.split(',').next().unwrap_or_default();
        let authority = first.split_once("://").map_or(first, |(_, rest)| rest);
        match crate::config::split_host_port(authority) {
            ("", _) => default,
            (host, port) => (host.to_owned(), port.unwrap_or(2381)),
        }
    }

    fn flags(&self, modern: bool) -> Vec<(&'static str, String)> {
        let local = self.cluster.local_etcd();
        let pki = |file: &str| format!("{}/etcd/{file}", self.cluster.certificates_dir);
        let loopback = |scheme: &str, port: u16| format!("{scheme}://{}", join_host_port(self.loopback(), port));
        let mut flags = vec![
            ("advertise-client-urls", self.url(2379)),
            ("cert-file", pki("server.crt")),
            ("client-cert-auth", "true".into()),
            ("data-dir", local.data_dir),
            ("initial-advertise-peer-urls", self.url(2380)),
            ("initial-cluster", format!("{}={}", self.node, self.url(2380))),
            ("key-file", pki("server.key")),
            ("listen-client-urls", format!("{},{}", loopback("https", 2379), self.url(2379))),
            ("listen-metrics-urls", loopback("http", 2381)),
            ("listen-peer-urls", self.url(2380)),
            ("name", self.node.to_owned()),
            ("peer-cert-file", pki("peer.crt")),
            ("peer-client-cert-auth", "true".into()),
            ("peer-key-file", pki("peer.key")),
            ("peer-trusted-ca-file", pki("ca.crt")),
            ("snapshot-count", "10000".into()),
            ("trusted-ca-file", pki("ca.crt")),
        ];
        if modern {
            flags.push(("feature-gates", "InitialCorruptCheck=true".into()));
            flags.push(("watch-progress-notify-interval", "5s".into()));
        } else {
            flags.push(("experimental-initial-corrupt-check", "true".into()));
            flags.push(("experimental-watch-progress-notify-interval", "5s".into()));
        }
        if !self.members.is_empty() {
            let all: Vec<String> = self.members.iter().map(|m| format!("{}={}", m.name, m.peer_url)).collect();
            flags.retain(|(name, _)| *name != "initial-cluster");
            flags.push(("initial-cluster", all.join(",")));
            flags.push(("initial-cluster-state", "existing".into()));
        }
        flags
    }
}
