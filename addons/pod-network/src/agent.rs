//! One synchronisation: from the Nodes and the state of the host to the state there must be.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use controller::{Informer, ObjectKey};
use k8s_openapi::{api::core::v1::Node, apimachinery::pkg::apis::meta::v1::Time};
use kube::{Api, Client};
use parking_lot::Mutex;
use serde_json::json;

use crate::{
    cni::Places,
    host::{Host, HostError},
    links::observe,
    nodes::{CONDITION, NodeView},
    plan::{NoPlan, Plan, Settings, plan},
    rules::Rules,
};

/// Why a synchronisation did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SyncError {
    #[error("the Node {0:?} does not exist yet")]
    NoNode(String),
    #[error(transparent)]
    NoPlan(#[from] NoPlan),
    #[error(transparent)]
    Host(#[from] HostError),
    #[error("cannot write the CNI configuration: {0}")]
    Files(#[from] std::io::Error),
    #[error("CNI plugins are missing: {0}")]
    Plugins(String),
    #[error("cannot set the condition of the Node: {0}")]
    Condition(#[from] kube::Error),
}

/// The agent of a node.
pub(crate) struct Agent {
    pub(crate) node: String,
    pub(crate) settings: Settings,
    pub(crate) bridge: String,
    pub(crate) masquerade: bool,
    pub(crate) places: Places,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) nodes: Informer<NodeView>,
    pub(crate) client: Client,
    pub(crate) rules: Rules,
    /// Nodes already told of as unreachable.
    pub(crate) told: Mutex<Vec<(String, &'static str)>>,
}

impl Agent {
    /// Makes everything as it must be. Returns the number of nodes with a route and of changes made.
    pub(crate) async fn sync(&self) -> Result<(usize, usize), SyncError> {
        let key = ObjectKey::new("", &self.node);
        let own = self.nodes.get(&key).ok_or_else(|| SyncError::NoNode(self.node.clone()))?;
        let others = self.nodes.list().into_iter().filter(|n| n.key != key);
        let peers: BTreeMap<String, NodeView> = others.map(|n| (n.key.name.clone(), n.view.clone())).collect();
        let observed = observe(&*self.host, &self.settings.device).await?;
        let plan = plan(&self.settings, &own.view, &peers, &observed.uplinks(&own.view))?;
        self.tell_unreachable(&plan);
        let mut changes = 0;
        for command in observed.commands(&plan, &self.settings.device) {
            tracing::info!(%command, "Changing the network");
            self.host.run(&command, "").await?;
            changes += 1;
        }
        self.kernel(&plan)?;
        changes += usize::from(self.rules.apply(&*self.host, &plan, self.masquerade).await?);
        let missing = self.places.install_plugins()?;
        if self.places.configure(&self.bridge, &plan.own, plan.mtu)? {
            tracing::info!(file = %self.places.name, mtu = plan.mtu, "Wrote the CNI configuration");
            changes += 1;
        }
        if !missing.is_empty() {
            return Err(SyncError::Plugins(missing.join(", ")));
        }
        if !own.view.told {
            self.set_condition().await?;
        }
        Ok((plan.routes.len(), changes))
    }

    fn tell_unreachable(&self, plan: &Plan) {
        let mut told = self.told.lock();
        for (node, reason) in plan.unreachable.iter().filter(|u| !told.contains(u)) {
            tracing::warn!(node, reason, "Pods of a node cannot be reached");
        }
        told.clone_from(&plan.unreachable);
    }

    fn kernel(&self, plan: &Plan) -> Result<(), HostError> {
        let families: Vec<bool> = plan.own.iter().map(|n| matches!(n.addr(), IpAddr::V4(_))).collect();
        if families.contains(&true) {
            self.host.set("net/ipv4/ip_forward", "1")?;
            // Only where bridges know of the packet filter.
            self.host.set("net/bridge/bridge-nf-call-iptables", "1")?;
        }
        if families.contains(&false) {
            self.host.set("net/ipv6/conf/all/forwarding", "1")?;
            self.host.set("net/bridge/bridge-nf-call-ip6tables", "1")?;
        }
        Ok(())
    }

    async fn set_condition(&self) -> Result<(), SyncError> {
        let (kind, reason, message) = CONDITION;
        let now = Time(k8s_openapi::jiff::Timestamp::now());
        let condition = json!({
            "type": kind, "status": "False", "reason": reason, "message": message,
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        });
        let patch = json!({"status": {"conditions": [condition]}});
        let nodes = Api::<Node>::all(self.client.clone());
        let parameters = kube::api::PatchParams::default();
        nodes.patch_status(&self.node, &parameters, &kube::api::Patch::Strategic(patch)).await?;
        tracing::info!(node = %self.node, "The pod network is up");
        Ok(())
    }
}
