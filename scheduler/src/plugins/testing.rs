//! A small cluster for tests.

use std::sync::Arc;

use controller::Viewed;
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, NodeIx},
    framework::{Plugin, PluginId, Prepared, Reason, Reasons},
    objects::{NodeObject, NodeView, PodObject, PodView, SharedPod},
};

/// Nodes and Pods made from short descriptions.
pub(crate) struct Fixture {
    pub(crate) cluster: Cluster,
}

/// A node to be.
pub(crate) struct NodeDraft(Value);

/// A Pod to be.
pub(crate) struct PodDraft(Value);

impl NodeDraft {
    pub(crate) fn resources(mut self, cpu: &str, memory: &str) -> Self {
        self.0["status"]["allocatable"]["cpu"] = cpu.into();
        self.0["status"]["allocatable"]["memory"] = memory.into();
        self
    }

    pub(crate) fn resource(mut self, name: &str, amount: &str) -> Self {
        self.0["status"]["allocatable"][name] = amount.into();
        self
    }

    pub(crate) fn label(mut self, key: &str, value: &str) -> Self {
        self.0["metadata"]["labels"][key] = value.into();
        self
    }

    pub(crate) fn taint(mut self, key: &str, effect: &str) -> Self {
        let taints = self.0["spec"]["taints"].as_array().cloned().unwrap_or_default();
        let taints: Vec<Value> = taints.into_iter().chain([json!({"key": key, "effect": effect})]).collect();
        self.0["spec"]["taints"] = taints.into();
        self
    }

    pub(crate) fn unschedulable(mut self) -> Self {
        self.0["spec"]["unschedulable"] = true.into();
        self
    }

    pub(crate) fn feature(mut self, name: &str) -> Self {
        self.0["status"]["declaredFeatures"] = json!([name]);
        self
    }

    pub(crate) fn image(mut self, name: &str, size: i64) -> Self {
        self.0["status"]["images"] = json!([{"names": [name], "sizeBytes": size}]);
        self
    }
}

impl PodDraft {
    pub(crate) fn with(mut self, path: &str, value: Value) -> Self {
        if let Some(place) = self.0.pointer_mut(path) {
            *place = value;
            return self;
        }
        let (parent, key) = path.rsplit_once('/').unwrap();
        self.0.pointer_mut(parent).unwrap()[key] = value;
        self
    }

    pub(crate) fn spec(self, key: &str, value: Value) -> Self {
        self.with(&format!("/spec/{key}"), value)
    }

    pub(crate) fn requests(self, cpu: &str, memory: &str) -> Self {
        self.with("/spec/containers/0/resources", json!({"requests": {"cpu": cpu, "memory": memory}}))
    }

    pub(crate) fn request(self, name: &str, amount: &str) -> Self {
        self.with("/spec/containers/0/resources", json!({"requests": {name: amount}}))
    }

    pub(crate) fn image(self, image: &str) -> Self {
        self.with("/spec/containers/0/image", image.into())
    }

    pub(crate) fn label(mut self, key: &str, value: &str) -> Self {
        self.0["metadata"]["labels"][key] = value.into();
        self
    }

    pub(crate) fn namespace(self, name: &str) -> Self {
        self.with("/metadata/namespace", name.into())
    }

    pub(crate) fn priority(self, priority: i32) -> Self {
        self.spec("priority", priority.into())
    }

    pub(crate) fn host_port(self, address: &str, protocol: &str, port: u16) -> Self {
        let port = json!({"hostIP": address, "protocol": protocol, "hostPort": port, "containerPort": port});
        self.with("/spec/containers/0/ports", json!([port]))
    }

    pub(crate) fn terminating(self) -> Self {
        self.with("/metadata/deletionTimestamp", "2026-01-01T00:00:00Z".into())
    }

    pub(crate) fn started(self, at: &str) -> Self {
        self.with("/status/startTime", at.into())
    }

    pub(crate) fn nominated(self, node: &str) -> Self {
        self.with("/status/nominatedNodeName", node.into())
    }

    pub(crate) fn condition(self, reason: &str, message: &str) -> Self {
        let condition = json!({"type": "PodScheduled", "status": "False", "reason": reason, "message": message});
        self.with("/status/conditions", json!([condition]))
    }

    /// Being deleted because a scheduler wanted its room.
    pub(crate) fn preempted(self) -> Self {
        let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"});
        self.terminating().with("/status/conditions", json!([condition]))
    }

    pub(crate) fn toleration(self, key: &str, effect: &str) -> Self {
        self.spec("tolerations", json!([{"key": key, "operator": "Exists", "effect": effect}]))
    }

    fn view(self) -> Arc<PodView> {
        let object: PodObject = serde_json::from_value(self.0).unwrap();
        SharedPod::project(object).0
    }
}

/// Reads a node.
pub(crate) fn node_view(name: &str, edit: impl FnOnce(NodeDraft) -> NodeDraft) -> NodeView {
    let draft = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}},
    });
    let object: NodeObject = serde_json::from_value(edit(NodeDraft(draft)).0).unwrap();
    NodeView::project(object)
}

/// Reads a Pod.
pub(crate) fn pod_view(name: &str, edit: impl FnOnce(PodDraft) -> PodDraft) -> Arc<PodView> {
    let draft = json!({
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"), "labels": {}, "generation": 1},
        "spec": {"schedulerName": "default-scheduler", "containers": [{"name": "c", "image": "i"}]},
        "status": {},
    });
    edit(PodDraft(draft)).view()
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self { cluster: Cluster::default() }
    }

    pub(crate) fn node(&mut self, name: &str, edit: impl FnOnce(NodeDraft) -> NodeDraft) {
        self.cluster.set_node(&node_view(name, edit));
    }

    pub(crate) fn pod(&self, name: &str, edit: impl FnOnce(PodDraft) -> PodDraft) -> Arc<PodView> {
        pod_view(name, edit)
    }

    /// A Pod on a node.
    pub(crate) fn bound(&mut self, name: &str, node: &str, edit: impl FnOnce(PodDraft) -> PodDraft) -> Arc<PodView> {
        let pod = pod_view(name, |p| edit(p).spec("nodeName", node.into()));
        self.cluster.set_pod(&pod);
        pod
    }

    fn nodes(&mut self) -> Vec<NodeIx> {
        self.cluster.begin();
        let mut nodes = self.cluster.ordered().to_vec();
        nodes.sort_by_key(|n| Arc::clone(self.cluster.nodes.name(*n)));
        nodes
    }

    /// What a filter says of each node, by name: nothing, or the reasons, with `!` in front if preemption is of no use.
    pub(crate) fn filter(&mut self, plugin: &dyn Plugin, pod: &PodView) -> Vec<(String, String)> {
        let nodes = self.nodes();
        let check = match plugin.as_filter().unwrap().prepare(pod, &mut self.cluster) {
            Prepared::Skip => return Vec::new(),
            Prepared::Reject(text) => return vec![("*".into(), text)],
            Prepared::Check(check) => check,
            Prepared::CheckOnly(names, check) => {
                let told = names.join(",");
                let mut all = vec![("only".to_owned(), told)];
                all.extend(nodes.iter().map(|n| (self.name(*n), said(&check.check(&self.cluster, *n)))));
                return all;
            }
        };
        nodes.iter().map(|n| (self.name(*n), said(&check.check(&self.cluster, *n)))).collect()
    }

    /// Names of the nodes that a filter lets pass.
    pub(crate) fn passing(&mut self, plugin: &dyn Plugin, pod: &PodView) -> Vec<String> {
        let nodes = self.nodes();
        if matches!(plugin.as_filter().unwrap().prepare(pod, &mut self.cluster), Prepared::Skip) {
            return nodes.iter().map(|n| self.name(*n)).collect();
        }
        let told = self.filter(plugin, pod);
        told.into_iter().filter(|(name, said)| name != "only" && said.is_empty()).map(|(name, _)| name).collect()
    }

    /// Scores by node name; none if the plugin gives none.
    pub(crate) fn scores(&mut self, plugin: &dyn Plugin, pod: &PodView) -> Vec<(&'static str, i64)> {
        let nodes = self.nodes();
        let prepared = plugin.as_score().unwrap().prepare(pod, &nodes, &mut self.cluster);
        let Some(scoring) = prepared else { return Vec::new() };
        let mut scores = vec![0; nodes.len()];
        scoring.score(&self.cluster, &nodes, &mut scores);
        nodes.iter().zip(scores).map(|(n, s)| (&*self.name(*n).leak(), s)).collect()
    }

    fn name(&self, node: NodeIx) -> String {
        self.cluster.nodes.name(node).to_string()
    }
}

fn said(outcome: &Result<(), crate::framework::Denial>) -> String {
    let Err(denial) = outcome else { return String::new() };
    let texts = match &denial.reasons {
        Reasons::One(one) => one.text(),
        Reasons::Many(all) => all.iter().map(Reason::text).collect::<Vec<_>>().join(", "),
    };
    format!("{}{texts}", if denial.resolvable { "" } else { "!" })
}

/// A profile of all plugins with their defaults.
pub(crate) fn default_profile() -> crate::framework::Profile {
    let selector: crate::plugins::topology_spread::DefaultSelector =
        Arc::new(|_| machinery::selector::LabelSelector::default());
    let sources = crate::config::Sources {
        selector,
        storage: crate::plugins::volumes::Storage::empty(),
        devices: crate::devices::Devices::empty(),
    };
    crate::config::Settings::defaults().profiles(&sources).unwrap().remove(0)
}

/// Plugins of the ids.
pub(crate) fn set(plugins: &[PluginId]) -> crate::framework::PluginSet {
    plugins.iter().copied().collect()
}
