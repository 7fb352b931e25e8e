//! kube-apiserver, kube-controller-manager and kube-scheduler.

use std::path::Path;

use super::{Mount, Probe, Probes, StaticPod, command, environment, probe_host};
use crate::{
    audit,
    config::{ApiEndpoint, Arg, ClusterConfiguration, HostPathMount, Timeouts, argument},
    constants::{ADVERTISE_ANNOTATION, CONTROLLER_MANAGER_CONF, SCHEDULER_CONF},
    encryption,
    error::{Result, fail},
    host::{Host, PathKind},
    images,
};

/// Directories with certificates that distributions use beside `/etc/ssl/certs`.
const CERTIFICATE_DIRECTORIES: [&str; 5] = [
    "/etc/pki/ca-trust",
    "/etc/pki/tls/certs",
    "/etc/ca-certificates",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
];

/// What the manifests are made from.
pub struct Inputs<'a> {
    /// This host.
    pub host: &'a dyn Host,
    /// The cluster.
    pub cluster: &'a ClusterConfiguration,
    /// Where its API server listens.
    pub endpoint: &'a ApiEndpoint,
    /// Timeouts.
    pub timeouts: Option<&'a Timeouts>,
}

impl Inputs<'_> {
    fn pki(&self, file: &str) -> String {
        format!("{}/{file}", self.cluster.certificates_dir)
    }

    fn startup_failures(&self) -> u64 {
        Timeouts::component(self.timeouts).as_secs().div_ceil(10)
    }

    /// The manifest of a component.
    pub fn component(&self, name: &str) -> Result<StaticPod> {
        match name {
            "kube-apiserver" => Ok(self.api_server()),
            "kube-controller-manager" => Ok(self.controller_manager()),
            "kube-scheduler" => Ok(self.scheduler()),
            other => fail!("couldn't retrieve StaticPodSpec for {other:?}"),
        }
    }

    fn api_server(&self) -> StaticPod {
        let given = &self.cluster.api_server;
        let mut mounts = vec![Mount::same("k8s-certs", &self.cluster.certificates_dir, "DirectoryOrCreate", true)];
        mounts.push(Mount::same("audit-log", audit::LOG_DIRECTORY, "DirectoryOrCreate", false));
        mounts.extend(self.trusted());
        mounts.extend(self.external_etcd());
        let host = probe_host(&self.endpoint.advertise_address);
        let probe = |path| Probe { path, scheme: "HTTPS", host: host.clone() };
        StaticPod {
            name: "kube-apiserver",
            image: images::component(self.cluster, "kube-apiserver"),
            command: command("kube-apiserver", self.api_server_flags(), &given.extra_args),
            mounts: with_extra(mounts, &given.extra_volumes),
            annotations: vec![(ADVERTISE_ANNOTATION, self.endpoint.authority())],
            envs: environment(self.host, &given.extra_envs),
            requests: vec![("cpu", "250m")],
            probes: Probes {
                port: self.endpoint.bind_port,
                liveness: probe("/livez"),
                readiness: Some(probe("/readyz")),
                startup: probe("/livez"),
                startup_failures: self.startup_failures(),
            },
        }
    }

    fn api_server_flags(&self) -> Vec<(&'static str, String)> {
        let given = &self.cluster.api_server.extra_args;
        let mut flags = vec![
            ("advertise-address", self.endpoint.advertise_address.clone()),
            ("allow-privileged", "true".into()),
            ("audit-log-maxage", "30".into()),
            ("audit-log-maxbackup", "10".into()),
            ("audit-log-maxsize", "100".into()),
            ("audit-log-path", format!("{}/audit.log", audit::LOG_DIRECTORY)),
            ("audit-policy-file", self.pki(audit::FILE)),
            ("client-ca-file", self.pki("ca.crt")),
            ("enable-admission-plugins", "NodeRestriction".into()),
            ("enable-bootstrap-token-auth", "true".into()),
            ("encryption-provider-config", self.pki(encryption::FILE)),
            ("kubelet-client-certificate", self.pki("apiserver-kubelet-client.crt")),
            ("kubelet-client-key", self.pki("apiserver-kubelet-client.key")),
            ("kubelet-preferred-address-types", "InternalIP,ExternalIP,Hostname".into()),
            ("proxy-client-cert-file", self.pki("front-proxy-client.crt")),
            ("proxy-client-key-file", self.pki("front-proxy-client.key")),
            ("requestheader-allowed-names", "front-proxy-client".into()),
            ("requestheader-client-ca-file", self.pki("front-proxy-ca.crt")),
            ("requestheader-extra-headers-prefix", "X-Remote-Extra-".into()),
            ("requestheader-group-headers", "X-Remote-Group".into()),
            ("requestheader-username-headers", "X-Remote-User".into()),
            ("secure-port", self.endpoint.bind_port.to_string()),
            (
                "service-account-issuer",
                format!("https://kubernetes.default.svc.{}", self.cluster.networking.dns_domain),
            ),
            ("service-account-key-file", self.pki("sa.pub")),
            ("service-account-signing-key-file", self.pki("sa.key")),
            ("service-cluster-ip-range", self.cluster.networking.service_subnet.clone()),
            ("tls-cert-file", self.pki("apiserver.crt")),
            ("tls-private-key-file", self.pki("apiserver.key")),
        ];
        if argument(given, "authorization-config").is_none() {
            flags.push(("authorization-mode", "Node,RBAC".into()));
        }
        flags.extend(self.etcd_flags());
        flags
    }

    fn etcd_flags(&self) -> Vec<(&'static str, String)> {
        if self.cluster.embedded_store().is_some() {
            return Vec::new();
        }
        let mut flags = Vec::new();
        if let Some(external) = &self.cluster.etcd.external {
            flags.push(("etcd-servers", external.endpoints.join(",")));
            if !external.ca_file.is_empty() {
                flags.push(("etcd-cafile", external.ca_file.clone()));
            }
            if !external.cert_file.is_empty() && !external.key_file.is_empty() {
                flags.push(("etcd-certfile", external.cert_file.clone()));
                flags.push(("etcd-keyfile", external.key_file.clone()));
            }
            return flags;
        }
        let local = self.cluster.local_etcd();
        let loopback = if self.endpoint.is_v6() { "[::1]" } else { "127.0.0.1" };
        let servers = argument(&local.extra_args, "advertise-client-urls")
            .map_or_else(|| format!("https://{loopback}:2379"), ToOwned::to_owned);
        flags.push(("etcd-servers", servers));
        flags.push(("etcd-cafile", self.pki("etcd/ca.crt")));
        flags.push(("etcd-certfile", self.pki("apiserver-etcd-client.crt")));
        flags.push(("etcd-keyfile", self.pki("apiserver-etcd-client.key")));
        flags
    }

    fn controller_manager(&self) -> StaticPod {
        let given = &self.cluster.controller_manager;
        let mut mounts = vec![
            Mount::same("k8s-certs", &self.cluster.certificates_dir, "DirectoryOrCreate", true),
            Mount::same("kubeconfig", CONTROLLER_MANAGER_CONF, "FileOrCreate", true),
        ];
        mounts.extend(self.trusted());
        let probe = |path| Probe { path, scheme: "HTTPS", host: bind_address(&given.extra_args) };
        StaticPod {
            name: "kube-controller-manager",
            image: images::component(self.cluster, "kube-controller-manager"),
            command: command("kube-controller-manager", self.controller_manager_flags(), &given.extra_args),
            mounts: with_extra(mounts, &given.extra_volumes),
            annotations: Vec::new(),
            envs: environment(self.host, &given.extra_envs),
            requests: vec![("cpu", "200m")],
            probes: Probes {
                port: 10257,
                liveness: probe("/healthz"),
                readiness: None,
                startup: probe("/healthz"),
                startup_failures: self.startup_failures(),
            },
        }
    }

    fn controller_manager_flags(&self) -> Vec<(&'static str, String)> {
        let kubeconfig = || CONTROLLER_MANAGER_CONF.to_owned();
        let external_ca =
            self.host.exists(Path::new(&self.pki("ca.crt"))) && !self.host.exists(Path::new(&self.pki("ca.key")));
        let signing = |file: &str| if external_ca { String::new() } else { self.pki(file) };
        let mut flags = vec![
            ("authentication-kubeconfig", kubeconfig()),
            ("authorization-kubeconfig", kubeconfig()),
            ("bind-address", "127.0.0.1".into()),
            ("client-ca-file", self.pki("ca.crt")),
            ("cluster-name", self.cluster.cluster_name.clone()),
            ("cluster-signing-cert-file", signing("ca.crt")),
            ("cluster-signing-key-file", signing("ca.key")),
            ("controllers", "*,bootstrapsigner,tokencleaner".into()),
            ("kubeconfig", kubeconfig()),
            ("leader-elect", "true".into()),
            ("requestheader-client-ca-file", self.pki("front-proxy-ca.crt")),
            ("root-ca-file", self.pki("ca.crt")),
            ("service-account-private-key-file", self.pki("sa.key")),
            ("use-service-account-credentials", "true".into()),
        ];
        let networking = &self.cluster.networking;
        if !networking.pod_subnet.is_empty() {
            flags.push(("allocate-node-cidrs", "true".into()));
            flags.push(("cluster-cidr", networking.pod_subnet.clone()));
            flags.push(("service-cluster-ip-range", networking.service_subnet.clone()));
        }
        flags
    }

    fn scheduler(&self) -> StaticPod {
        let given = &self.cluster.scheduler;
        let flags = vec![
            ("authentication-kubeconfig", SCHEDULER_CONF.to_owned()),
            ("authorization-kubeconfig", SCHEDULER_CONF.to_owned()),
            ("bind-address", "127.0.0.1".to_owned()),
            ("kubeconfig", SCHEDULER_CONF.to_owned()),
            ("leader-elect", "true".to_owned()),
        ];
        let mounts = vec![Mount::same("kubeconfig", SCHEDULER_CONF, "FileOrCreate", true)];
        let probe = |path| Probe { path, scheme: "HTTPS", host: bind_address(&given.extra_args) };
        StaticPod {
            name: "kube-scheduler",
            image: images::component(self.cluster, "kube-scheduler"),
            command: command("kube-scheduler", flags, &given.extra_args),
            mounts: with_extra(mounts, &given.extra_volumes),
            annotations: Vec::new(),
            envs: environment(self.host, &given.extra_envs),
            requests: vec![("cpu", "100m")],
            probes: Probes {
                port: 10259,
                liveness: probe("/livez"),
                readiness: Some(probe("/readyz")),
                startup: probe("/livez"),
                startup_failures: self.startup_failures(),
            },
        }
    }

    /// What clients trust beside the cluster's own authority.
    fn trusted(&self) -> Vec<Mount> {
        let mut mounts = vec![Mount::same("ca-certs", "/etc/ssl/certs", "DirectoryOrCreate", true)];
        for directory in CERTIFICATE_DIRECTORIES {
            if self.host.kind(Path::new(directory)) == Some(PathKind::Directory) {
                let name = directory.trim_start_matches('/').replace('/', "-");
                mounts.push(Mount::same(&name, directory, "DirectoryOrCreate", true));
            }
        }
        mounts
    }

    /// Directories with the files of an external etcd, unless they are mounted anyway.
    fn external_etcd(&self) -> Vec<Mount> {
        let Some(external) = &self.cluster.etcd.external else { return Vec::new() };
        let mut directories = Vec::new();
        for file in [&external.ca_file, &external.cert_file, &external.key_file] {
            let Some(directory) = Path::new(file).parent().filter(|_| !file.is_empty()) else { continue };
            let known = [self.cluster.certificates_dir.as_str(), "/etc/ssl/certs"];
            let covered = known.iter().chain(&CERTIFICATE_DIRECTORIES).any(|d| directory.starts_with(d));
            if !covered && !directories.contains(&directory) {
                directories.push(directory);
            }
        }
        let mount = |(index, directory): (usize, &&Path)| {
            let path = directory.to_string_lossy();
            Mount::same(&format!("etcd-certs-{index}"), &path, "DirectoryOrCreate", true)
        };
        directories.iter().enumerate().map(mount).collect()
    }
}

fn bind_address(args: &[Arg]) -> String {
    probe_host(argument(args, "bind-address").unwrap_or("127.0.0.1"))
}

/// Adds the user's volumes; one with a name that is taken replaces it.
fn with_extra(mut mounts: Vec<Mount>, extra: &[HostPathMount]) -> Vec<Mount> {
    for given in extra {
        mounts.retain(|mount| mount.name != given.name);
        mounts.push(given.into());
    }
    mounts
}
