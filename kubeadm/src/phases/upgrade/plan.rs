//! `kubeadm upgrade plan` and `diff`: what an upgrade would change.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use super::{Upgrade, static_pods};
use crate::{
    client::{Cluster, fetch, items},
    config::{ClusterConfiguration, ImageSource, version::Version},
    error::{Context, Result, fail},
    images, manifests, yaml,
};

/// Width of the line between parts.
const RULE: usize = 69;

/// One row of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// Its name.
    pub name: String,
    /// Its node; empty for what has none.
    pub node: String,
    /// Its version.
    pub current: String,
    /// The version it would have.
    pub target: String,
}

/// A version to upgrade to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Available {
    /// `stable version` and the like.
    pub description: String,
    /// The version.
    pub version: Version,
    /// What kubeadm upgrades.
    pub components: Vec<Component>,
    /// What the user upgrades.
    pub manual: Vec<Component>,
}

/// Versions that a cluster could be upgraded to: the given one, that of the installed programs, or what was released.
pub async fn targets(upgrade: &Upgrade, given: Option<Version>) -> Vec<(String, Version)> {
    let host = &*upgrade.init.host;
    let (from, own) = (&upgrade.from, Version::own());
    let (major, minor) = from.minor();
    let is_newer = |version: &Version| version.order() > from.order();
    let series = format!("version in the v{major}.{minor} series");
    let described = |version: &Version| match (version.pre.as_str(), version.minor() == from.minor()) {
        ("", true) => series.clone(),
        ("", false) => "stable version".to_owned(),
        (pre, _) if pre.starts_with("rc") => "release candidate version".to_owned(),
        _ => "experimental version".to_owned(),
    };
    let mut found = Vec::new();
    if let Some(version) = given {
        host.line(&format!("[upgrade/versions] Target version: {version}"));
        found.push(version);
    } else if upgrade.init.cluster().image_source() == ImageSource::Programs {
        host.line(&format!("[upgrade/versions] Target version: {own}"));
        found.push(own);
    } else {
        let released = async |label: &str| {
            let url = format!("https://dl.k8s.io/release/{label}.txt");
            fetch(&url, Duration::from_secs(10)).await.ok().and_then(|text| Version::parse(&text))
        };
        let stable = released("stable").await.filter(|v| v.minor() <= own.minor()).unwrap_or(own);
        host.line(&format!("[upgrade/versions] Target version: {stable}"));
        if let Some(patch) = released(&format!("stable-{major}.{minor}")).await {
            host.line(&format!("[upgrade/versions] Latest version in the v{major}.{minor} series: {patch}"));
            found.push(patch);
        }
        found.push(stable);
        found.extend(released("latest").await.filter(|latest| upgrade.options.allowed.covers(latest)));
    }
    found.retain(is_newer);
    found.dedup();
    found.into_iter().map(|version| (described(&version), version)).collect()
}

/// What runs now: versions of the control plane by component and node, and of the kubelets by node.
pub struct Running {
    pods: BTreeMap<&'static str, Vec<(String, String)>>,
    kubelets: Vec<(String, String)>,
    dns: Option<String>,
    proxy: Option<String>,
}

impl Running {
    /// Reads it from the cluster.
    pub async fn read(api: &Cluster) -> Result<Self> {
        let mut pods = BTreeMap::new();
        for name in manifests::COMPONENTS {
            let path = format!("/api/v1/namespaces/kube-system/pods?labelSelector=component%3D{name}");
            let list = api.get(&path).await.with_context(|| format!("cannot list the Pods of {name}"))?;
            let node = |pod: &Value| text(pod, "/spec/nodeName");
            let tag = |pod: &Value| tag(&text(pod, "/spec/containers/0/image"));
            pods.insert(name, items(&list.unwrap_or_default()).map(|pod| (node(pod), tag(pod))).collect());
        }
        let nodes = api.get("/api/v1/nodes").await.context("cannot list nodes")?.unwrap_or_default();
        let kubelet =
            |node: &Value| (machinery::meta::name(node).to_owned(), text(node, "/status/nodeInfo/kubeletVersion"));
        let apps = "/apis/apps/v1/namespaces/kube-system";
        let image = async |path: String| -> Result<Option<String>> {
            let found = api.get(&path).await?;
            Ok(found.map(|object| tag(&text(&object, "/spec/template/spec/containers/0/image"))))
        };
        Ok(Self {
            pods,
            kubelets: items(&nodes).map(kubelet).collect(),
            dns: image(format!("{apps}/deployments/coredns")).await?,
            proxy: image(format!("{apps}/daemonsets/kube-proxy")).await?,
        })
    }

    /// The tables of one target.
    pub fn against(&self, upgrade: &Upgrade, description: String, version: Version) -> Available {
        let host = &*upgrade.init.host;
        let target = version.to_string();
        let cluster = ClusterConfiguration { kubernetes_version: target.clone(), ..upgrade.init.cluster().clone() };
        let row = |name: &str, node: &str, current: &str, target: &str| Component {
            name: name.to_owned(),
            node: node.to_owned(),
            current: current.to_owned(),
            target: target.to_owned(),
        };
        let mut components = Vec::new();
        for name in ["kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
            components.extend(self.of(name).iter().map(|(node, tag)| row(name, node, tag, &target)));
        }
        components.extend(self.proxy.iter().map(|tag| row("kube-proxy", "", tag, &target)));
        components.extend(self.dns.iter().map(|current| row("CoreDNS", "", current, &tag(&images::dns(&cluster)))));
        let etcd = images::etcd_tag(host, &cluster);
        if upgrade.options.etcd {
            components.extend(self.of("etcd").iter().map(|(node, tag)| row("etcd", node, tag, &etcd)));
        }
        let manual = self.kubelets.iter().filter(|(_, current)| *current != target);
        let manual = manual.map(|(node, current)| row("kubelet", node, current, &target)).collect();
        Available { description, version, components, manual }
    }

    fn of(&self, name: &str) -> &[(String, String)] {
        self.pods.get(name).map_or(&[], Vec::as_slice)
    }
}

/// Versions of the components' configurations: group, current, preferred.
const CONFIGS: [(&str, &str); 2] = [("kubeproxy.config.k8s.io", "v1alpha1"), ("kubelet.config.k8s.io", "v1beta1")];

/// The plan as text.
pub fn text_of(found: &[Available], table: impl Fn(&[Vec<String>]) -> String) -> String {
    let mut out = String::new();
    let own = Version::own();
    for one in found {
        if !one.manual.is_empty() {
            out.push_str(
                "Components that must be upgraded manually after you have upgraded the control plane with 'kubeadm upgrade \
                 apply':\n",
            );
            out.push_str(&table(&rows(&one.manual)));
            out.push('\n');
        }
        out.push_str(&format!("Upgrade to the latest {}:\n\n{}\n", one.description, table(&rows(&one.components))));
        out.push_str(&format!(
            "You can now apply the upgrade by executing the following command:\n\n\tkubeadm upgrade apply {}\n\n",
            one.version
        ));
        if one.version.order() > own.order() {
            out.push_str(&format!(
                "Note: Before you can perform this upgrade, you have to update kubeadm to {}.\n\n",
                one.version
            ));
        }
        out.push_str(&format!("{}\n\n", "_".repeat(RULE)));
    }
    out.push_str(&format!(
        "\nThe table below shows the current state of component configs as understood by this version of kubeadm.\nConfigs \
         that have a \"yes\" mark in the \"MANUAL UPGRADE REQUIRED\" column require manual config upgrade or\nresetting to \
         kubeadm defaults before a successful upgrade can be performed. The version to manually\nupgrade to is denoted in \
         the \"PREFERRED VERSION\" column.\n\n{}{}\n\n",
        table(&config_rows()),
        "_".repeat(RULE)
    ));
    out
}

fn rows(components: &[Component]) -> Vec<Vec<String>> {
    let header = ["COMPONENT", "NODE", "CURRENT", "TARGET"].map(ToOwned::to_owned).to_vec();
    let row = |c: &Component| vec![c.name.clone(), c.node.clone(), c.current.clone(), c.target.clone()];
    std::iter::once(header).chain(components.iter().map(row)).collect()
}

fn config_rows() -> Vec<Vec<String>> {
    let header = ["API GROUP", "CURRENT VERSION", "PREFERRED VERSION", "MANUAL UPGRADE REQUIRED"];
    let row = |(group, version): &(&str, &str)| [*group, *version, *version, "no"].map(ToOwned::to_owned).to_vec();
    std::iter::once(header.map(ToOwned::to_owned).to_vec()).chain(CONFIGS.iter().map(row)).collect()
}

/// The plan as an object of the given version.
pub fn object_of(found: &[Available], api_version: &str) -> Value {
    let component = |c: &Component| {
        let mut value = json!({"name": c.name, "currentVersion": c.current, "newVersion": c.target});
        if !c.node.is_empty() {
            value["nodeName"] = c.node.as_str().into();
        }
        value
    };
    let available = |one: &Available| {
        let components: Vec<Value> = one.manual.iter().chain(&one.components).map(component).collect();
        json!({"description": one.description, "components": components})
    };
    let config = |(group, version): &(&str, &str)| json!({"group": group, "currentVersion": version, "preferredVersion": version, "manualUpgradeRequired": false});
    json!({
        "apiVersion": api_version,
        "kind": "UpgradePlan",
        "availableUpgrades": found.iter().map(available).collect::<Vec<_>>(),
        "configVersions": CONFIGS.iter().map(config).collect::<Vec<_>>(),
    })
}

/// The manifests of this host against those of the target, as a unified diff.
pub fn diff(upgrade: &Upgrade, context: usize) -> Result<String> {
    let mut out = String::new();
    for name in ["kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
        let path = manifests::path(name);
        let shown = path.display().to_string();
        let Ok(old) = upgrade.init.host.read_text(&path) else {
            return fail!("the manifest file {shown:?} does not exist");
        };
        let new = yaml::to_yaml(&static_pods::manifest(upgrade, name)?)?;
        let diff = similar::TextDiff::from_lines(&old, &new);
        out.push_str(&diff.unified_diff().context_radius(context).header(&shown, "new manifest").to_string());
    }
    Ok(out)
}

/// What follows the last colon of an image.
fn tag(image: &str) -> String {
    image.rsplit_once(':').map_or("", |(_, tag)| tag).to_owned()
}

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}
