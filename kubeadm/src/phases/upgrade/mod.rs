//! `kubeadm upgrade`: what its phases share, and the phases of `apply` and `node`.
//!
//! An upgrade is an `init` of a cluster that is there: the configuration comes from the cluster with the new version put
//! in, and most phases are those of [`init`](super::init). Its own are the exchange of static Pods ([`static_pods`]), the
//! version policy ([`policy`]), the health of the cluster ([`health`]) and the files of the kubelet.

mod health;
mod kubelet_files;
pub mod plan;
pub mod policy;
mod source;
pub mod static_pods;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use serde_json::Value;

use self::policy::{Allowed, Versions};
use super::{addons, cluster_info, init::Init, preflight::PULLING, upload, workflow::Phase};
use crate::{
    addons::{metrics, network, storage, upkeep},
    client::{Cluster, items, object_path},
    config::{ClusterConfiguration, ImageSource, version::Version},
    error::{Context, Result, fail},
    images::{
        self,
        supply::{Policy, Supply},
    },
    preflight::{self, checks},
};
pub use source::{Given, read};

/// What the user chose.
#[derive(Clone, Debug)]
pub struct Options {
    /// Unstable versions that are allowed.
    pub allowed: Allowed,
    /// Whether certificates are renewed.
    pub certificate_renewal: bool,
    /// Whether etcd is upgraded.
    pub etcd: bool,
    /// Whether the version policy is only advice.
    pub force: bool,
    /// Whether nobody is asked.
    pub yes: bool,
}

/// What the phases share.
pub struct Upgrade {
    /// The cluster with its new version, and this host in it.
    pub init: Init,
    /// The version of the cluster before.
    pub from: Version,
    /// What the user chose.
    pub options: Options,
    /// Whether this host is a control plane.
    pub is_control_plane: bool,
}

/// The phases of `upgrade apply` in order.
pub static APPLY: &[Phase<Upgrade>] = &[
    Phase::leaf("preflight", "Run preflight checks before upgrade", |c| Box::pin(preflight_apply(c))),
    CONTROL_PLANE,
    Phase::group(
        "upload-config",
        "Upload the kubeadm and kubelet configurations to ConfigMaps",
        &[
            Phase::all("Upload all the configurations to ConfigMaps"),
            Phase::leaf("kubeadm", "Upload the kubeadm ClusterConfiguration to a ConfigMap", |c| {
                Box::pin(upload::kubeadm(&mut c.init))
            }),
            Phase::leaf("kubelet", "Upload the kubelet configuration to a ConfigMap", |c| {
                Box::pin(upload::kubelet(&mut c.init))
            }),
        ],
    ),
    KUBECONFIG,
    KUBELET_CONFIG,
    Phase::leaf("bootstrap-token", "Configures bootstrap token and cluster-info RBAC rules", |c| {
        Box::pin(bootstrap_token(c))
    }),
    ADDON,
    Phase::leaf("post-upgrade", "Run post upgrade tasks", |c| Box::pin(post_upgrade(c))),
];

/// The phases of `upgrade node` in order.
pub static NODE: &[Phase<Upgrade>] = &[
    Phase::leaf("preflight", "Run upgrade node pre-flight checks", |c| Box::pin(preflight_node(c))),
    CONTROL_PLANE,
    KUBECONFIG,
    KUBELET_CONFIG,
    ADDON,
    Phase::leaf("post-upgrade", "Run post upgrade tasks", |c| Box::pin(post_upgrade(c))),
];

const CONTROL_PLANE: Phase<Upgrade> =
    Phase::leaf("control-plane", "Upgrade the control plane instance deployed on this node, if any", |c| {
        Box::pin(control_plane(c))
    });
const KUBECONFIG: Phase<Upgrade> =
    Phase::leaf("kubeconfig", "Upgrade kubeconfig files for this node", |c| Box::pin(kubelet_files::kubeconfig(c)));
const KUBELET_CONFIG: Phase<Upgrade> =
    Phase::leaf("kubelet-config", "Upgrade the kubelet configuration for this node", |c| {
        Box::pin(kubelet_files::config(c))
    });
const ADDON: Phase<Upgrade> = Phase::group(
    "addon",
    "Upgrade the default kubeadm addons",
    &[
        Phase::all("Upgrade all the addons"),
        Phase::leaf("coredns", "Upgrade the CoreDNS addon", |c| Box::pin(dns(c))),
        Phase::leaf("kube-proxy", "Upgrade the kube-proxy addon", |c| Box::pin(proxy(c))),
        Phase::leaf("programs", "Upgrade the addons that come with the installed programs", |c| Box::pin(programs(c))),
    ],
);

impl Upgrade {
    /// Whether the cluster is well enough to be upgraded.
    pub async fn check_health(&mut self) -> Result<()> {
        health::check(self).await
    }
}

async fn preflight_apply(upgrade: &mut Upgrade) -> Result<()> {
    let host = upgrade.init.host.clone();
    host.line("[upgrade/preflight] Running preflight checks");
    let ignored = upgrade.init.ignored.clone();
    preflight::report(&*host, &[checks::privileged(&*host), checks::system(&*host)], &ignored)?;
    let cri = upgrade.init.cri()?;
    preflight::report(&*host, &[checks::runtime_version(&cri).await], &ignored)?;
    upgrade.check_health().await?;
    policy_holds(upgrade).await?;
    if !(upgrade.options.yes || upgrade.options.force || upgrade.init.dry_run) {
        host.say("[upgrade] Are you sure you want to proceed? [y/N]: ");
        let answer = host.ask().unwrap_or_default().trim().to_lowercase();
        if !["y", "yes"].contains(&answer.as_str()) {
            return fail!("won't proceed; the user didn't answer (Y|y) in order to continue");
        }
    }
    bring_images(upgrade).await
}

/// The version policy, and what is printed about it.
async fn policy_holds(upgrade: &mut Upgrade) -> Result<()> {
    let api = upgrade.init.api().await?;
    let host = &*upgrade.init.host;
    let text = upgrade.init.cluster().kubernetes_version.as_str();
    let Some(target) = Version::parse(text) else { return fail!("could not parse version {text:?}") };
    let versions = Versions { cluster: upgrade.from.clone(), kubeadm: Version::own(), kubelets: kubelets(&api).await? };
    host.line(&format!(
        "[upgrade/preflight] You have chosen to upgrade the cluster version to {:?}",
        target.to_string()
    ));
    host.line(&format!("[upgrade/versions] Cluster version: {}", versions.cluster));
    host.line(&format!("[upgrade/versions] kubeadm version: {}", versions.kubeadm));
    let objections = policy::objections(&target, &versions, upgrade.options.allowed);
    if let Some(text) = objections.text(upgrade.options.force) {
        return fail!("{text}");
    }
    for text in &objections.skippable {
        host.line(&format!("[upgrade/preflight] Skipped because of --force: {text}"));
    }
    Ok(())
}

/// Versions of the kubelets, each once.
pub(super) async fn kubelets(api: &Cluster) -> Result<Vec<Version>> {
    let list = api.get("/api/v1/nodes").await.context("couldn't list all nodes in the cluster")?.unwrap_or_default();
    let version = |node: &Value| node.pointer("/status/nodeInfo/kubeletVersion")?.as_str().map(ToOwned::to_owned);
    let found: BTreeSet<String> = items(&list).filter_map(version).collect();
    Ok(found.iter().filter_map(|text| Version::parse(text)).collect())
}

async fn preflight_node(upgrade: &mut Upgrade) -> Result<()> {
    let host = upgrade.init.host.clone();
    host.line("[upgrade/preflight] Running pre-flight checks");
    let cri = upgrade.init.cri()?;
    let found = [checks::privileged(&*host), checks::system(&*host), checks::runtime_version(&cri).await];
    preflight::report(&*host, &found, &upgrade.init.ignored)?;
    bring_images(upgrade).await
}

async fn bring_images(upgrade: &Upgrade) -> Result<()> {
    let init = &upgrade.init;
    let host = &*init.host;
    if init.dry_run {
        host.line("[upgrade/preflight] Would pull the required images (like 'kubeadm config images pull')");
        return Ok(());
    }
    for line in PULLING {
        host.line(&line.replace("[preflight]", "[upgrade/preflight]"));
    }
    let cri = init.cri()?;
    let policy = Policy::of(&init.config.init.node_registration);
    let supply = Supply { host, cri: &cri, cluster: init.cluster(), programs: &init.programs, policy };
    let needed = match upgrade.is_control_plane {
        true => images::required(host, init.cluster()),
        false => images::of_nodes(init.cluster()),
    };
    preflight::report(host, &[checks::images(&supply, &needed).await], &init.ignored)
}

async fn control_plane(upgrade: &mut Upgrade) -> Result<()> {
    if !upgrade.is_control_plane {
        upgrade.init.host.line("[upgrade/control-plane] Skipping phase. Not a control plane node.");
        return Ok(());
    }
    static_pods::run(upgrade).await
}

async fn bootstrap_token(upgrade: &mut Upgrade) -> Result<()> {
    let api = upgrade.init.api().await?;
    let host = &*upgrade.init.host;
    host.line("[upgrade/bootstrap-token] Configuring bootstrap token and cluster-info RBAC rules");
    for (words, objects) in cluster_info::rights() {
        host.line(&format!("[bootstrap-token] {words}"));
        for object in objects {
            api.create_or_update(host, &object).await?;
        }
    }
    for object in cluster_info::readers() {
        api.create_or_update(host, &object).await?;
    }
    Ok(())
}

/// Whether the addons may be upgraded: all API servers are, and the host may write.
async fn addons_may_change(upgrade: &mut Upgrade) -> Result<bool> {
    if !upgrade.is_control_plane {
        upgrade.init.host.line("[upgrade/addon] Skipping the addon/coredns phase. Not a control plane node.");
        return Ok(false);
    }
    if upgrade.init.dry_run {
        return Ok(true);
    }
    let api = upgrade.init.api().await?;
    let image = images::component(upgrade.init.cluster(), "kube-apiserver");
    let pods = api.get("/api/v1/namespaces/kube-system/pods?labelSelector=component%3Dkube-apiserver").await?;
    let behind = behind(&pods.unwrap_or_default(), &image);
    if !behind.is_empty() {
        upgrade.init.host.line(&format!(
            "[upgrade/addon] Skipping upgrade of addons because control plane instances [{}] have not been upgraded",
            behind.join(" ")
        ));
    }
    Ok(behind.is_empty())
}

/// Nodes whose API server runs another image.
fn behind(pods: &Value, image: &str) -> Vec<String> {
    let is_other = |pod: &&Value| pod.pointer("/spec/containers/0/image").and_then(Value::as_str) != Some(image);
    let node = |pod: &Value| pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default().to_owned();
    items(pods).filter(is_other).map(node).collect()
}

async fn dns(upgrade: &mut Upgrade) -> Result<()> {
    if addons_may_change(upgrade).await? { addons::dns(&mut upgrade.init).await } else { Ok(()) }
}

async fn proxy(upgrade: &mut Upgrade) -> Result<()> {
    if addons_may_change(upgrade).await? { addons::proxy(&mut upgrade.init).await } else { Ok(()) }
}

/// Addons that init installs without being asked, where they still are.
async fn programs(upgrade: &mut Upgrade) -> Result<()> {
    type Objects = fn(&ClusterConfiguration) -> Result<Vec<Value>>;
    const ALL: [(&str, Objects); 4] = [
        ("pod-network", network::objects),
        ("local-path", storage::objects),
        ("metrics", metrics::objects),
        ("upkeep", upkeep::objects),
    ];
    if upgrade.init.cluster().image_source() != ImageSource::Programs || !addons_may_change(upgrade).await? {
        return Ok(());
    }
    let api = upgrade.init.api().await?;
    for (name, objects) in ALL {
        let objects = objects(upgrade.init.cluster())?;
        if !upgrade.init.dry_run && !is_installed(&api, &objects).await? {
            continue;
        }
        for object in &objects {
            api.create_or_update(&*upgrade.init.host, object).await?;
        }
        upgrade.init.host.line(&format!("[addons] Applied addon: {name}"));
    }
    Ok(())
}

async fn is_installed(api: &Cluster, objects: &[Value]) -> Result<bool> {
    let is_workload = |object: &&Value| {
        ["Deployment", "DaemonSet"].contains(&object.get("kind").and_then(Value::as_str).unwrap_or_default())
    };
    match objects.iter().find(is_workload) {
        Some(workload) => Ok(api.get(&object_path(workload)).await?.is_some()),
        None => Ok(false),
    }
}

/// What earlier versions left behind.
async fn post_upgrade(upgrade: &mut Upgrade) -> Result<()> {
    if upgrade.init.dry_run {
        return Ok(());
    }
    let api = upgrade.init.api().await?;
    let path = format!("/api/v1/nodes/{}", upgrade.init.node());
    let patch = serde_json::json!({"metadata": {"annotations": {source::CRI_SOCKET_ANNOTATION: null}}});
    if api.get(&path).await?.is_some_and(|node| source::annotated_socket(&node).is_some()) {
        api.patch(&path, &patch).await.context("cannot remove the annotation of the container runtime's socket")?;
    }
    Ok(())
}

/// The last words of `upgrade apply`.
pub fn farewell(upgrade: &Upgrade) {
    let host = &*upgrade.init.host;
    if upgrade.init.dry_run {
        host.line("[upgrade/successful] Finished dryrunning successfully!");
        return;
    }
    host.line("");
    host.line(&format!(
        "[upgrade] SUCCESS! A control plane node of your cluster was upgraded to {:?}.",
        upgrade.init.cluster().kubernetes_version
    ));
    host.line("");
    host.line("[upgrade] Now please proceed with upgrading the rest of the nodes by following the right order.");
}
