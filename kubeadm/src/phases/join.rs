//! `kubeadm join`: what its phases share, and the phases themselves.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::Value;
use time::OffsetDateTime;

use super::{
    certs, control_plane::write_manifest, kubeconfigs, mark, preflight::PULLING, upload_certs, wait, workflow::Phase,
};
use crate::{
    audit,
    client::Cluster,
    config::{
        ApiEndpoint, ClusterConfiguration, JoinConfiguration, Timeouts,
        component::{self, ComponentConfig},
        split_host_port,
    },
    constants::{ADMIN_CONF, BOOTSTRAP_KUBELET_CONF, KUBELET_CONF, KUBERNETES_DIR},
    cri::Cri,
    discovery, encryption,
    error::{Context, Error, Result, fail},
    etcd, fetch,
    host::{Host, PathKind},
    images::{
        self,
        supply::{Policy, Supply},
    },
    kubeconfig::Kubeconfig,
    kubelet::{self, Taints},
    manifests::control_plane,
    patches::Patches,
    pki::table::TABLE,
    preflight::{self as checks_of, checks},
    yaml,
};

/// What the phases of `join` share.
pub struct Join {
    /// This host.
    pub host: Arc<dyn Host>,
    /// The configuration.
    pub config: JoinConfiguration,
    /// Directory of the installed programs.
    pub programs: PathBuf,
    /// Checks that only warn, in lower case.
    pub ignored: Vec<String>,
    /// Phases that are left out.
    pub skipped: Vec<String>,
    /// When this run began.
    pub started: OffsetDateTime,
    /// Only tell what would be done.
    pub dry_run: bool,
    patches: Option<Patches>,
    bootstrap: Option<Kubeconfig>,
    found: Option<Found>,
}

/// What the cluster says about itself.
#[derive(Clone)]
struct Found {
    cluster: ClusterConfiguration,
    kubelet: ComponentConfig,
}

impl Join {
    /// A run that has done nothing yet.
    pub fn new(host: Arc<dyn Host>, config: JoinConfiguration, programs: PathBuf) -> Self {
        let started = host.now();
        Self {
            host,
            dry_run: config.dry_run,
            skipped: config.skip_phases.clone(),
            ignored: Vec::new(),
            config,
            programs,
            started,
            patches: None,
            bootstrap: None,
            found: None,
        }
    }

    fn timeouts(&self) -> Option<&Timeouts> {
        self.config.timeouts.as_ref()
    }

    fn node(&self) -> &str {
        &self.config.node_registration.name
    }

    /// Whether this host becomes a control plane.
    pub fn is_control_plane(&self) -> bool {
        self.config.control_plane.is_some()
    }

    fn endpoint(&self) -> ApiEndpoint {
        self.config.control_plane.as_ref().map(|c| c.local_api_endpoint.clone()).unwrap_or_default()
    }

    fn read_patches(&mut self) -> Result<()> {
        let directory = self.config.patches.as_ref().map(|p| p.directory.clone()).unwrap_or_default();
        if self.patches.is_none() && !directory.is_empty() {
            self.patches = Some(Patches::read(&*self.host, Path::new(&directory))?);
        }
        Ok(())
    }

    /// The kubeconfig of the kubelet's first request.
    async fn bootstrap(&mut self) -> Result<Kubeconfig> {
        if let Some(file) = &self.bootstrap {
            return Ok(file.clone());
        }
        let admin = Path::new(ADMIN_CONF);
        let file = if self.is_control_plane() && self.host.kind(admin) == Some(PathKind::File) {
            Kubeconfig::load(&*self.host, admin)?
        } else {
            discovery::discover(&*self.host, &self.config).await?
        };
        self.bootstrap = Some(file.clone());
        Ok(file)
    }

    async fn api(&mut self) -> Result<Cluster> {
        let file = self.bootstrap().await?;
        Cluster::connect(&file, None, Timeouts::api(self.timeouts())).await
    }

    /// The administrator of the joined cluster; on a control plane through its own API server.
    async fn admin(&mut self) -> Result<Cluster> {
        let local = self.endpoint().url();
        let patience = Timeouts::api(self.timeouts());
        Cluster::load(&*self.host, Path::new(ADMIN_CONF), Some(&local), patience).await
    }

    async fn found(&mut self) -> Result<Found> {
        if let Some(found) = &self.found {
            return Ok(found.clone());
        }
        let api = self.api().await?;
        fetch::announce(&*self.host, "preflight");
        let cluster =
            fetch::cluster(&*self.host, &api).await.context("unable to fetch the kubeadm-config ConfigMap")?;
        let Some(mut kubelet) = fetch::component(&api, "kubelet-config", "kubelet").await? else {
            return fail!("unable to fetch the kubelet-config ConfigMap: configmaps \"kubelet-config\" not found");
        };
        component::complete_kubelet(&*self.host, &mut kubelet, &cluster)?;
        let found = Found { cluster, kubelet };
        self.found = Some(found.clone());
        Ok(found)
    }
}

/// The phases of `join` in order.
pub static PHASES: &[Phase<Join>] = &[
    Phase::leaf("preflight", "Run join pre-flight checks", |c| Box::pin(preflight(c))),
    Phase::group(
        "control-plane-prepare",
        "Prepare the machine for serving a control plane",
        &[
            Phase::all("Prepare the machine for serving a control plane"),
            Phase::leaf(
                "download-certs",
                "Download certificates shared among control-plane nodes from the kubeadm-certs Secret",
                |c| Box::pin(download(c)),
            ),
            Phase::leaf("certs", "Generate the certificates for the new control plane components", |c| {
                Box::pin(certificates(c))
            }),
            Phase::leaf("kubeconfig", "Generate the kubeconfig for the new control plane components", |c| {
                Box::pin(kubeconfig_files(c))
            }),
            Phase::leaf("control-plane", "Generate the manifests for the new control plane components", |c| {
                Box::pin(manifests(c))
            }),
        ],
    ),
    Phase::leaf("check-etcd", "Check etcd health for control plane join", |c| Box::pin(check_etcd(c))),
    Phase::leaf("kubelet-start", "Write kubelet settings, certificates and (re)start the kubelet", |c| {
        Box::pin(kubelet_start(c))
    }),
    Phase::leaf("etcd-join", "Join etcd for control plane nodes", |c| Box::pin(etcd_join(c))),
    Phase::leaf("kubelet-wait-bootstrap", "Wait for the kubelet to bootstrap itself", |c| Box::pin(wait_bootstrap(c))),
    Phase::group(
        "control-plane-join",
        "Join a machine as a control plane instance",
        &[
            Phase::all("Joins a machine as a control plane instance"),
            Phase::leaf("mark-control-plane", "Mark a node as a control-plane", |c| Box::pin(mark_node(c))),
        ],
    ),
    Phase::leaf("wait-control-plane", "Wait for the control plane to start", |c| Box::pin(wait_control_plane(c))),
];

async fn preflight(join: &mut Join) -> Result<()> {
    let host = join.host.clone();
    host.line("[preflight] Running pre-flight checks");
    checks_of::report(&*host, &[checks::privileged(&*host)], &join.ignored)?;
    let cri = Cri::new(&join.config.node_registration.cri_socket)?;
    let endpoint = join.config.discovery.bootstrap_token.as_ref().map(|d| split_host_port(&d.api_server_endpoint).0);
    let subject = checks::Subject { host: &*host, node: join.node(), cri: &cri, programs: &join.programs };
    let ca = if join.is_control_plane() { "" } else { join.config.ca_cert_path.as_str() };
    let found = checks::worker(&subject, ca, endpoint).await;
    checks_of::report(&*host, &found, &join.ignored)?;
    let found = join.found().await?;
    if join.is_control_plane() {
        control_plane_conditions(join, &found.cluster)?;
        host.line("[preflight] Running pre-flight checks before initializing the new control plane instance");
        let subject = checks::Subject { host: &*host, node: join.node(), cri: &cri, programs: &join.programs };
        let port = join.endpoint().bind_port;
        let results = checks::control_plane(&subject, &found.cluster, port).await;
        checks_of::report(&*host, &results, &join.ignored)?;
    }
    if join.dry_run {
        host.line("[preflight] Would pull the required images (like 'kubeadm config images pull')");
        return Ok(());
    }
    bring_images(join, &found.cluster, &cri).await
}

/// A control plane pulls its images; a worker makes those that no registry has.
async fn bring_images(join: &Join, cluster: &ClusterConfiguration, cri: &Cri) -> Result<()> {
    let host = &*join.host;
    let policy = Policy::of(&join.config.node_registration);
    let supply = Supply { host, cri, cluster, programs: &join.programs, policy };
    let images = if join.is_control_plane() {
        PULLING.iter().for_each(|line| host.line(line));
        images::required(host, cluster)
    } else {
        images::of_nodes(cluster).into_iter().filter(|image| supply.is_built(image)).collect()
    };
    checks::sandbox_image(host, cri, &images::pause(cluster)).await;
    checks_of::report(host, &[checks::images(&supply, &images).await], &join.ignored)
}

fn control_plane_conditions(join: &Join, cluster: &ClusterConfiguration) -> Result<()> {
    let unmet = |cause: &str| {
        fail!(
            "\nOne or more conditions for hosting a new control plane instance is not satisfied.\n\n{cause}\n\nPlease ensure \
             that:\n* The cluster has a stable controlPlaneEndpoint address.\n* The certificates that must be shared \
             among control plane instances are provided.\n\n"
        )
    };
    if cluster.control_plane_endpoint.is_empty() {
        return unmet(
            "unable to add a new control plane instance to a cluster that doesn't have a stable controlPlaneEndpoint \
             address",
        );
    }
    if cluster.embedded_store().is_some() {
        return unmet("the API server keeps its data itself; only a cluster with etcd has several control planes");
    }
    if join.config.control_plane.as_ref().is_some_and(|c| !c.certificate_key.is_empty()) {
        return Ok(());
    }
    let mut files =
        vec!["ca.crt", "ca.key", "sa.key", "sa.pub", "front-proxy-ca.crt", "front-proxy-ca.key", encryption::FILE];
    if cluster.has_local_etcd() {
        files.extend(["etcd/ca.crt", "etcd/ca.key"]);
    }
    let directory = Path::new(&cluster.certificates_dir);
    match files.iter().map(|f| directory.join(f)).find(|f| !join.host.exists(f)) {
        Some(missing) => {
            unmet(&format!("failure loading certificate: couldn't load {}: no such file", missing.display()))
        }
        None => Ok(()),
    }
}

async fn download(join: &mut Join) -> Result<()> {
    let Some(plane) = join.config.control_plane.clone() else { return Ok(()) };
    if plane.certificate_key.is_empty() {
        return Ok(());
    }
    let found = join.found().await?;
    let api = join.api().await?;
    upload_certs::download(&*join.host, &api, &found.cluster, &plane.certificate_key)
        .await
        .context("error downloading certs")
}

async fn certificates(join: &mut Join) -> Result<()> {
    if !join.is_control_plane() {
        return Ok(());
    }
    let found = join.found().await?;
    let endpoint = join.endpoint();
    let host = join.host.clone();
    host.line(&format!("[certs] Using certificateDir folder {:?}", found.cluster.certificates_dir));
    let inputs = certs::Inputs {
        host: &*host,
        cluster: &found.cluster,
        endpoint: &endpoint,
        node: join.node(),
        started: join.started,
    };
    tokio::task::block_in_place(|| {
        TABLE.iter().try_for_each(|row| inputs.ensure(row))?;
        host.line("[certs] Valid certificates and keys now exist in \"/etc/kubernetes/pki\"");
        inputs.ensure_service_account()
    })
}

async fn kubeconfig_files(join: &mut Join) -> Result<()> {
    if !join.is_control_plane() {
        return Ok(());
    }
    let found = join.found().await?;
    let endpoint = join.endpoint();
    join.host.line("[kubeconfig] Generating kubeconfig files");
    join.host.line(&format!("[kubeconfig] Using kubeconfig folder {KUBERNETES_DIR:?}"));
    let inputs = kubeconfigs::Inputs {
        host: &*join.host,
        cluster: &found.cluster,
        endpoint: &endpoint,
        node: join.node(),
        started: join.started,
        directory: Path::new(KUBERNETES_DIR),
    };
    tokio::task::block_in_place(|| {
        ["admin.conf", "controller-manager.conf", "scheduler.conf"].iter().try_for_each(|file| inputs.ensure(file))
    })
}

async fn manifests(join: &mut Join) -> Result<()> {
    if !join.is_control_plane() {
        return Ok(());
    }
    join.read_patches()?;
    let found = join.found().await?;
    let endpoint = join.endpoint();
    let host = &*join.host;
    host.line(&format!("[control-plane] Using manifest folder {:?}", crate::constants::MANIFESTS_DIR));
    audit::ensure(host, Path::new(&found.cluster.certificates_dir))?;
    let inputs =
        control_plane::Inputs { host, cluster: &found.cluster, endpoint: &endpoint, timeouts: join.timeouts() };
    for name in ["kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
        host.line(&format!("[control-plane] Creating static Pod manifest for {name:?}"));
        write_manifest(host, &inputs.component(name)?, join.patches.as_ref())?;
    }
    Ok(())
}

async fn check_etcd(join: &mut Join) -> Result<()> {
    if !join.is_control_plane() {
        return Ok(());
    }
    let found = join.found().await?;
    if !found.cluster.has_local_etcd() {
        join.host.line("[check-etcd] Skipping etcd check in external mode");
        return Ok(());
    }
    join.host.line("[check-etcd] Checking that the etcd cluster is healthy");
    let patience = Timeouts::api(join.timeouts());
    let api = Cluster::load(&*join.host, Path::new(ADMIN_CONF), None, patience).await?;
    let etcd = etcd::Etcd::of_cluster(&*join.host, &api, &found.cluster).await?;
    etcd.check().await.context("etcd cluster is not healthy")
}

async fn kubelet_start(join: &mut Join) -> Result<()> {
    join.read_patches()?;
    let found = join.found().await?;
    let mut bootstrap = join.bootstrap().await?;
    let api = join.api().await?;
    let host = &*join.host;
    refuse_present_node(&api, join.node()).await?;
    let text = |file: &Kubeconfig| yaml::to_yaml(&file.0);
    if join.config.discovery.bootstrap_token.is_some() || join.config.discovery.file.is_some() {
        discovery::rename_cluster(&mut bootstrap, &found.cluster.cluster_name);
    }
    if join.is_control_plane() {
        let local = join.endpoint().url();
        bootstrap.set("clusters", "cluster", |cluster| {
            cluster.insert("server".into(), Value::from(local));
        });
    }
    host.put(Path::new(BOOTSTRAP_KUBELET_CONF), 0o600, text(&bootstrap)?.as_bytes())
        .context("couldn't save bootstrap-kubelet.conf to disk")?;
    let ca = Path::new(&join.config.ca_cert_path);
    if !host.exists(ca) {
        let pem = bootstrap.authorities(host).ok_or_else(|| Error::new("the cluster has no certificate authority"))?;
        host.put(ca, 0o644, &pem).context("couldn't save the CA certificate to disk")?;
    }
    if !join.dry_run {
        tokio::task::block_in_place(|| kubelet::stop(host))?;
    }
    let node = &join.config.node_registration;
    kubelet::write_config(host, node, &found.kubelet, join.patches.as_ref())?;
    let taints = if join.is_control_plane() { Taints::ByKubeadm } else { Taints::ByKubelet };
    kubelet::write_environment(host, node, taints)?;
    if join.dry_run {
        return Ok(());
    }
    tokio::task::block_in_place(|| kubelet::start(host, &join.programs))
}

/// A Node of this name that is Ready belongs to another host.
async fn refuse_present_node(api: &Cluster, name: &str) -> Result<()> {
    let found = api.get(&format!("/api/v1/nodes/{name}")).await.with_context(|| format!("cannot get Node {name:?}"))?;
    let conditions = found.as_ref().and_then(|node| node.pointer("/status/conditions")).and_then(Value::as_array);
    let text = |c: &Value, field: &str| c.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let ready = conditions.into_iter().flatten().any(|c| text(c, "type") == "Ready" && text(c, "status") == "True");
    if ready {
        return fail!(
            "a Node with name {name:?} and status \"Ready\" already exists in the cluster. You must delete the existing \
             Node or change the name of this new joining Node"
        );
    }
    Ok(())
}

async fn etcd_join(join: &mut Join) -> Result<()> {
    if !join.is_control_plane() {
        return Ok(());
    }
    let found = join.found().await?;
    if !found.cluster.has_local_etcd() {
        join.host.line("[etcd-join] Skipping etcd join in external mode");
        return Ok(());
    }
    join.read_patches()?;
    let patience = Timeouts::api(join.timeouts());
    let api = Cluster::load(&*join.host, Path::new(ADMIN_CONF), None, patience).await?;
    let endpoint = join.endpoint();
    let node = join.node().to_owned();
    let joining = etcd::Joining {
        host: &*join.host,
        cluster: &found.cluster,
        endpoint: &endpoint,
        node: &node,
        timeouts: join.config.timeouts.as_ref(),
        patches: join.patches.as_ref(),
    };
    joining.join(&api).await.context("error creating local etcd static pod manifest file")
}

async fn wait_bootstrap(join: &mut Join) -> Result<()> {
    if join.dry_run {
        join.host.line("[kubelet-wait] Would wait for the kubelet to be bootstrapped");
        return Ok(());
    }
    let host = join.host.clone();
    let config = kubelet::config_from_file(&*host);
    wait::kubelet_or_help(&*host, &config, Timeouts::kubelet(join.timeouts())).await?;
    host.line("[kubelet-start] Waiting for the kubelet to perform the TLS Bootstrap");
    let end = tokio::time::Instant::now() + Timeouts::bootstrap(join.timeouts());
    let outcome = loop {
        match usable(&*host).await {
            Ok(()) => break Ok(()),
            Err(cause) if tokio::time::Instant::now() > end => {
                break fail!("failed while waiting for TLS bootstrap: {cause}");
            }
            Err(_) => tokio::time::sleep(std::time::Duration::from_secs(1)).await,
        }
    };
    host.remove(Path::new(BOOTSTRAP_KUBELET_CONF)).context("couldn't remove bootstrap-kubelet.conf")?;
    outcome
}

/// Whether kubelet.conf makes a client.
async fn usable(host: &dyn Host) -> Result<()> {
    Cluster::load(host, Path::new(KUBELET_CONF), None, std::time::Duration::ZERO).await.map(drop)
}

async fn mark_node(join: &mut Join) -> Result<()> {
    if !join.is_control_plane() {
        return Ok(());
    }
    let api = join.admin().await?;
    let taints = join.config.node_registration.taints.clone().unwrap_or_default();
    mark::mark(&*join.host, &api, join.node(), &taints, Timeouts::api(join.timeouts())).await
}

async fn wait_control_plane(join: &mut Join) -> Result<()> {
    if !join.is_control_plane() || join.dry_run {
        return Ok(());
    }
    let api = join.admin().await?;
    let local = join.endpoint().advertise_address;
    let socket = &join.config.node_registration.cri_socket;
    wait::control_plane_or_help(&*join.host, &api, &local, socket, Timeouts::component(join.timeouts())).await
}

/// The words at the end.
pub fn farewell(join: &Join, cluster: Option<&ClusterConfiguration>) -> String {
    if !join.is_control_plane() {
        return "
This node has joined the cluster:
* Certificate signing request was sent to apiserver and a response was received.
* The Kubelet was informed of the new secure connection details.

Run 'kubectl get nodes' on the control-plane to see this node join the cluster.

"
        .into();
    }
    let etcd = match cluster {
        Some(cluster) if cluster.has_local_etcd() => {
            "* A new etcd member was added to the local/stacked etcd cluster.\n"
        }
        _ => "",
    };
    format!(
        "
This node has joined the cluster and a new control plane instance was created:

* Certificate signing request was sent to apiserver and approval was received.
* The Kubelet was informed of the new secure connection details.
* Control plane label and taint were applied to the new node.
* The Kubernetes control plane instances scaled up.
{etcd}
To start administering your cluster from this node, you need to run the following as a regular user:

	mkdir -p $HOME/.kube
	sudo cp -i /etc/kubernetes/admin.conf $HOME/.kube/config
	sudo chown $(id -u):$(id -g) $HOME/.kube/config

Run 'kubectl get nodes' to see this node join the cluster.

"
    )
}

impl Join {
    /// The configuration of the joined cluster, if it was read.
    pub fn cluster(&self) -> Option<&ClusterConfiguration> {
        self.found.as_ref().map(|found| &found.cluster)
    }
}
