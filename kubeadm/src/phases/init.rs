//! `kubeadm init`: what its phases share, and their order.

use std::{path::PathBuf, sync::Arc};

use time::OffsetDateTime;

use super::{
    addons, certs, cluster_info, control_plane, kubeconfigs, mark, preflight, summary, upload, upload_certs, wait,
    workflow::Phase,
};
use crate::{
    client::Cluster,
    config::{ClusterConfiguration, Configuration, Timeouts},
    constants::{ADMIN_CONF, KUBERNETES_DIR},
    cri::Cri,
    error::{Context, Result},
    host::Host,
    kubeconfig::Kubeconfig,
    patches::Patches,
};

/// Whether the addons are applied or printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Addons {
    /// Applied.
    #[default]
    Applied,
    /// Printed.
    Printed,
}

/// What the phases of `init` share.
pub struct Init {
    /// This host.
    pub host: Arc<dyn Host>,
    /// The configuration.
    pub config: Configuration,
    /// Directory of the installed programs.
    pub programs: PathBuf,
    /// Checks that only warn, in lower case.
    pub ignored: Vec<String>,
    /// Phases that are left out.
    pub skipped: Vec<String>,
    /// When this run began.
    pub started: OffsetDateTime,
    /// Whether certificates are uploaded.
    pub upload_certs: bool,
    /// Whether the join command hides its token.
    pub hide_token: bool,
    /// Whether the key of uploaded certificates is hidden.
    pub hide_certificate_key: bool,
    /// Only tell what would be done.
    pub dry_run: bool,
    /// Directory of kubeconfig files.
    pub kubeconfig_dir: PathBuf,
    /// The kubeconfig of the API's administrator.
    pub kubeconfig: PathBuf,
    /// What happens to addons.
    pub addons: Addons,
    /// Patches, once read.
    pub patches: Option<Patches>,
    cluster: Option<Cluster>,
}

impl Init {
    /// A run that has done nothing yet.
    pub fn new(host: Arc<dyn Host>, config: Configuration, programs: PathBuf) -> Self {
        let started = host.now();
        Self {
            host,
            dry_run: config.init.dry_run,
            skipped: config.init.skip_phases.clone(),
            ignored: Vec::new(),
            config,
            programs,
            started,
            upload_certs: false,
            hide_token: false,
            hide_certificate_key: false,
            kubeconfig_dir: KUBERNETES_DIR.into(),
            kubeconfig: ADMIN_CONF.into(),
            addons: Addons::default(),
            patches: None,
            cluster: None,
        }
    }

    /// The cluster's configuration.
    pub fn cluster(&self) -> &ClusterConfiguration {
        &self.config.cluster
    }

    /// Timeouts.
    pub fn timeouts(&self) -> Option<&Timeouts> {
        self.config.init.timeouts.as_ref()
    }

    /// Name of this node.
    pub fn node(&self) -> &str {
        &self.config.init.node_registration.name
    }

    /// Directory of certificates.
    pub fn pki(&self) -> PathBuf {
        PathBuf::from(&self.config.cluster.certificates_dir)
    }

    /// The patches of the user.
    pub fn patches(&mut self) -> Result<Option<&Patches>> {
        let directory = self.config.init.patches.as_ref().map(|p| p.directory.as_str()).filter(|d| !d.is_empty());
        let Some(directory) = directory else { return Ok(None) };
        if self.patches.is_none() {
            self.patches = Some(Patches::read(&*self.host, directory.as_ref())?);
        }
        Ok(self.patches.as_ref())
    }

    /// The container runtime.
    pub fn cri(&self) -> Result<Cri> {
        Cri::new(&self.config.init.node_registration.cri_socket)
    }

    /// The API of the cluster, as its administrator. The first use makes sure that the administrator is one.
    pub async fn api(&mut self) -> Result<Cluster> {
        if let Some(cluster) = &self.cluster {
            return Ok(cluster.clone());
        }
        let cluster = if self.dry_run { Cluster::told() } else { self.connect().await? };
        self.cluster = Some(cluster.clone());
        Ok(cluster)
    }

    /// Uses a connection that is there.
    pub fn use_cluster(&mut self, cluster: Cluster) {
        self.cluster = Some(cluster);
    }

    async fn connect(&self) -> Result<Cluster> {
        let cluster = self.reach().await?;
        if self.kubeconfig == self.kubeconfig_dir.join("admin.conf") {
            let super_admin = self.kubeconfig_dir.join("super-admin.conf");
            let local = self.config.init.local_api_endpoint.url();
            crate::admin::ensure(&*self.host, &cluster, &super_admin, &local, Timeouts::api(self.timeouts()))
                .await
                .context("could not bootstrap the admin user in file admin.conf")?;
        }
        Ok(cluster)
    }

    /// The API server of this host with the administrator's credentials, which may not be allowed anything yet.
    pub async fn reach(&self) -> Result<Cluster> {
        let file = Kubeconfig::load(&*self.host, &self.kubeconfig)?;
        let local = self.config.init.local_api_endpoint.url();
        Cluster::connect(&file, Some(&local), Timeouts::api(self.timeouts())).await
    }
}

/// The phases of `init` in order.
pub static PHASES: &[Phase<Init>] = &[
    Phase::leaf("preflight", "Run pre-flight checks", |c| Box::pin(preflight::init(c))),
    Phase::group(
        "certs",
        "Certificate generation",
        &[
            Phase::all("Generate all certificates"),
            Phase::leaf(
                "ca",
                "Generate the self-signed Kubernetes CA to provision identities for other Kubernetes components",
                |c| Box::pin(certs::one(c, "ca")),
            ),
            Phase::leaf("apiserver", "Generate the certificate for serving the Kubernetes API", |c| {
                Box::pin(certs::one(c, "apiserver"))
            }),
            Phase::leaf(
                "apiserver-kubelet-client",
                "Generate the certificate for the API server to connect to kubelet",
                |c| Box::pin(certs::one(c, "apiserver-kubelet-client")),
            ),
            Phase::leaf("front-proxy-ca", "Generate the self-signed CA to provision identities for front proxy", |c| {
                Box::pin(certs::one(c, "front-proxy-ca"))
            }),
            Phase::leaf("front-proxy-client", "Generate the certificate for the front proxy client", |c| {
                Box::pin(certs::one(c, "front-proxy-client"))
            }),
            Phase::leaf("etcd-ca", "Generate the self-signed CA to provision identities for etcd", |c| {
                Box::pin(certs::one(c, "etcd-ca"))
            }),
            Phase::leaf("etcd-server", "Generate the certificate for serving etcd", |c| {
                Box::pin(certs::one(c, "etcd-server"))
            }),
            Phase::leaf("etcd-peer", "Generate the certificate for etcd nodes to communicate with each other", |c| {
                Box::pin(certs::one(c, "etcd-peer"))
            }),
            Phase::leaf(
                "etcd-healthcheck-client",
                "Generate the certificate for liveness probes to healthcheck etcd",
                |c| Box::pin(certs::one(c, "etcd-healthcheck-client")),
            ),
            Phase::leaf("apiserver-etcd-client", "Generate the certificate the apiserver uses to access etcd", |c| {
                Box::pin(certs::one(c, "apiserver-etcd-client"))
            }),
            Phase::leaf(
                "sa",
                "Generate a private key for signing service account tokens along with its public key",
                |c| Box::pin(certs::service_account(c)),
            ),
        ],
    )
    .first(|c| Box::pin(certs::announce(c))),
    Phase::group(
        "kubeconfig",
        "Generate all kubeconfig files necessary to establish the control plane and the admin kubeconfig file",
        &[
            Phase::all("Generate all kubeconfig files"),
            Phase::leaf("admin", "Generate a kubeconfig file for the admin to use and for kubeadm itself", |c| {
                Box::pin(kubeconfigs::one(c, "admin.conf"))
            }),
            Phase::leaf("super-admin", "Generate a kubeconfig file for the super-admin", |c| {
                Box::pin(kubeconfigs::one(c, "super-admin.conf"))
            }),
            Phase::leaf(
                "kubelet",
                "Generate a kubeconfig file for the kubelet to use *only* for cluster bootstrapping purposes",
                |c| Box::pin(kubeconfigs::one(c, "kubelet.conf")),
            ),
            Phase::leaf("controller-manager", "Generate a kubeconfig file for the controller manager to use", |c| {
                Box::pin(kubeconfigs::one(c, "controller-manager.conf"))
            }),
            Phase::leaf("scheduler", "Generate a kubeconfig file for the scheduler to use", |c| {
                Box::pin(kubeconfigs::one(c, "scheduler.conf"))
            }),
        ],
    )
    .first(|c| Box::pin(kubeconfigs::announce(c))),
    Phase::group(
        "etcd",
        "Generate static Pod manifest file for local etcd",
        &[Phase::leaf(
            "local",
            "Generate the static Pod manifest file for a local, single-node local etcd instance",
            |c| Box::pin(control_plane::etcd(c)),
        )],
    ),
    Phase::group(
        "control-plane",
        "Generate all static Pod manifest files necessary to establish the control plane",
        &[
            Phase::all("Generate all static Pod manifest files"),
            Phase::leaf("apiserver", "Generates the kube-apiserver static Pod manifest", |c| {
                Box::pin(control_plane::component(c, "kube-apiserver"))
            }),
            Phase::leaf("controller-manager", "Generates the kube-controller-manager static Pod manifest", |c| {
                Box::pin(control_plane::component(c, "kube-controller-manager"))
            }),
            Phase::leaf("scheduler", "Generates the kube-scheduler static Pod manifest", |c| {
                Box::pin(control_plane::component(c, "kube-scheduler"))
            }),
        ],
    )
    .first(|c| Box::pin(control_plane::announce(c))),
    Phase::leaf("kubelet-start", "Write kubelet settings and (re)start the kubelet", |c| {
        Box::pin(control_plane::kubelet_start(c))
    }),
    Phase::leaf("wait-control-plane", "Wait for the control plane to start", |c| Box::pin(wait::init(c))),
    Phase::group(
        "upload-config",
        "Upload the kubeadm and kubelet configuration to a ConfigMap",
        &[
            Phase::all("Upload all configuration to a config map"),
            Phase::leaf("kubeadm", "Upload the kubeadm ClusterConfiguration to a ConfigMap", |c| {
                Box::pin(upload::kubeadm(c))
            }),
            Phase::leaf("kubelet", "Upload the kubelet component config to a ConfigMap", |c| {
                Box::pin(upload::kubelet(c))
            }),
        ],
    ),
    Phase::leaf("upload-certs", "Upload certificates to kubeadm-certs", |c| Box::pin(upload_certs::init(c))),
    Phase::leaf("mark-control-plane", "Mark a node as a control-plane", |c| Box::pin(mark::init(c))),
    Phase::leaf("bootstrap-token", "Generates bootstrap tokens used to join a node to a cluster", |c| {
        Box::pin(cluster_info::init(c))
    }),
    Phase::group(
        "kubelet-finalize",
        "Updates settings relevant to the kubelet after TLS bootstrap",
        &[
            Phase::all("Run all kubelet-finalize phases"),
            Phase::leaf("enable-client-cert-rotation", "Enable kubelet client certificate rotation", |c| {
                Box::pin(control_plane::kubelet_finalize(c))
            }),
        ],
    ),
    Phase::group(
        "addon",
        "Install required addons for passing conformance tests",
        &[
            Phase::all("Install all the addons"),
            Phase::leaf("coredns", "Install the CoreDNS addon to a Kubernetes cluster", |c| Box::pin(addons::dns(c))),
            Phase::leaf("kube-proxy", "Install the kube-proxy addon to a Kubernetes cluster", |c| {
                Box::pin(addons::proxy(c))
            }),
            Phase::leaf("pod-network", "Install the pod network to a Kubernetes cluster", |c| {
                Box::pin(addons::network(c))
            }),
            Phase::leaf("local-path", "Install local path volumes to a Kubernetes cluster", |c| {
                Box::pin(addons::storage(c))
            }),
            Phase::leaf("metrics", "Install the metrics API to a Kubernetes cluster", |c| Box::pin(addons::metrics(c))),
            Phase::leaf("upkeep", "Install the upkeep of control planes to a Kubernetes cluster", |c| {
                Box::pin(addons::upkeep(c))
            }),
        ],
    ),
    Phase::leaf("show-join-command", "Show the join command for control-plane and worker node", |c| {
        Box::pin(summary::init(c))
    }),
];
