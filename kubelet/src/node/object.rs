//! The Node object: registration and keeping its status.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use rand::Rng;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::coming_up::ComingUp;
use super::status::{self, StatusInput};
use crate::api::{CallError, Mirrors, limited};
use crate::events::EventType;
use crate::services::Services;
use crate::shutdown;

const TRIES: u32 = 5;
const REGISTER_BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(7));
/// While the node comes up its readiness is looked at more often.
const STARTUP: Duration = Duration::from_secs(120);
const STARTUP_CHECK: Duration = Duration::from_millis(100);
const ATTACH_ANNOTATION: &str = "volumes.kubernetes.io/controller-managed-attach-detach";
const ADDRESS_ANNOTATION: &str = "alpha.kubernetes.io/provided-node-ip";

/// Registers the node and keeps its status.
pub struct NodeLoop {
    /// Client.
    pub client: Client,
    /// Parts of the kubelet.
    pub services: Arc<Services>,
    /// `containerd://1.6.20`
    pub runtime_version: String,
    /// Labels asked for.
    pub labels: BTreeMap<String, String>,
    /// A cloud provider finishes the node.
    pub external_cloud: bool,
    /// Told when the Node may be another one.
    pub mirrors: Arc<Mirrors>,
    /// Whether the Node takes no Pods, as was last told.
    pub closed: AtomicBool,
}

impl NodeLoop {
    /// Runs until stopped.
    pub async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.work() => {}
        }
    }

    async fn work(&self) {
        let mut coming_up = None;
        if self.services.config.register_node {
            coming_up = self.register().await;
        }
        self.services.events.node(EventType::Normal, "Starting", "Starting kubelet.");
        let began = Instant::now();
        let config = &self.services.config;
        let (update, report) = (config.node_status_update_frequency.0, config.node_status_report_frequency.0);
        let mut reported = Instant::now();
        let mut report_after = report;
        let mut pod_cidr = String::new();
        loop {
            let mut result = Ok(None);
            for attempt in 0..TRIES {
                result = self.update(reported.elapsed() >= report_after).await;
                match &result {
                    Ok(_) => break,
                    Err(error) => tracing::warn!(attempt, %error, "error updating node status, will retry"),
                }
            }
            if let Ok(Some(node)) = result {
                reported = Instant::now();
                report_after = report.mul_f64(rand::rng().random_range(0.5..1.5));
                if coming_up.is_some_and(|up| up.tell(&node, Timestamp::now())) {
                    coming_up = None;
                }
                self.tell_pod_cidr(&node, &mut pod_cidr).await;
            }
            self.wait(update, began).await;
        }
    }

    /// Waits for the next round; readiness that changes while the node comes up ends the wait.
    async fn wait(&self, update: Duration, began: Instant) {
        let until = Instant::now() + update.mul_f64(rand::rng().random_range(1.0..1.04));
        let ready = self.errors().is_empty();
        while Instant::now() < until {
            let starting = began.elapsed() < STARTUP;
            let left = until.saturating_duration_since(Instant::now());
            tokio::select! {
                // Volumes that are to be attached wait for the Node to say so.
                () = self.services.csi.in_use_changed() => return,
                () = self.services.allot.devices.changed() => return,
                () = self.services.shutdown.changed() => return,
                () = tokio::time::sleep(if starting { STARTUP_CHECK } else { left }) => {}
            }
            if starting && self.errors().is_empty() != ready {
                return;
            }
        }
    }

    fn errors(&self) -> Vec<String> {
        let mut errors = self.services.health.runtime_errors();
        errors.extend(self.services.health.network_error());
        errors.extend(self.services.csi.problem());
        if self.services.shutdown.is_active() {
            errors.push(shutdown::NOT_READY.to_owned());
        }
        errors
    }

    fn name(&self) -> String {
        self.services.facts.get().name.clone()
    }

    async fn compute(&self, previous: &NodeStatus) -> NodeStatus {
        let facts = self.services.facts.get();
        let config = &self.services.config;
        let images = match self.services.cri.list_images().await {
            Ok(all) => status::images(all, config.node_status_max_images),
            Err(_) => previous.images.clone().unwrap_or_default(),
        };
        status::compute(StatusInput {
            facts: &facts,
            previous,
            errors: &self.errors(),
            pressure: self.services.pressure.get(),
            runtime_version: &self.runtime_version,
            devices: self.services.allot.amounts(),
            volumes_in_use: self.services.csi.in_use(),
            images,
            runtime: self.services.health.features(),
            port: config.port,
            external_cloud: self.external_cloud,
            declared: self.services.settings.features.declared.as_deref(),
            now: Timestamp::now(),
        })
    }

    fn default_labels(&self) -> BTreeMap<String, String> {
        let arch = status::architecture();
        [
            ("kubernetes.io/hostname", self.name().as_str()),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", arch),
            ("beta.kubernetes.io/os", "linux"),
            ("beta.kubernetes.io/arch", arch),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    }

    async fn initial(&self) -> Node {
        let mut labels = self.default_labels();
        labels.extend(self.labels.clone());
        let mut annotations = BTreeMap::new();
        if self.services.config.enable_controller_attach_detach {
            annotations.insert(ATTACH_ANNOTATION.to_owned(), "true".to_owned());
        }
        let mut taints: Vec<Taint> = self.services.config.register_with_taints.clone();
        if self.external_cloud {
            let ips: Vec<String> = self.services.facts.get().addresses.iter().map(ToString::to_string).collect();
            annotations.insert(ADDRESS_ANNOTATION.to_owned(), ips.join(","));
            taints.push(Taint {
                key: "node.cloudprovider.kubernetes.io/uninitialized".to_owned(),
                value: Some("true".to_owned()),
                effect: "NoSchedule".to_owned(),
                time_added: None,
            });
        }
        let provider = Some(self.services.config.provider_id.clone()).filter(|id| !id.is_empty());
        Node {
            metadata: ObjectMeta {
                name: Some(self.name()),
                labels: Some(labels),
                annotations: Some(annotations),
                ..ObjectMeta::default()
            },
            spec: Some(NodeSpec {
                taints: (!taints.is_empty()).then_some(taints),
                provider_id: provider,
                ..NodeSpec::default()
            }),
            status: Some(self.compute(&NodeStatus::default()).await),
        }
    }

    /// Registers, until that succeeds; answers how that went if the Node is new.
    async fn register(&self) -> Option<ComingUp> {
        let attempted = Timestamp::now();
        let mut delay = REGISTER_BACKOFF.0;
        loop {
            match self.try_register().await {
                Ok(is_new) => {
                    tracing::info!(node = self.name(), "successfully registered node");
                    return is_new.then(|| ComingUp::registered(self.services.started, attempted));
                }
                Err(error) => tracing::warn!(node = self.name(), %error, "unable to register node with API server"),
            }
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(REGISTER_BACKOFF.1);
        }
    }

    /// Answers whether the Node is new.
    async fn try_register(&self) -> Result<bool, CallError> {
        let api: Api<Node> = Api::all(self.client.clone());
        let wanted = self.initial().await;
        match limited(api.create(&PostParams::default(), &wanted)).await {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.code(), Some(403 | 409)) => {
                let Some(existing) = limited(api.get_opt(&self.name())).await? else { return Err(error) };
                self.correct(&api, &existing).await.map(|()| false)
            }
            Err(error) => Err(error),
        }
    }

    /// Default labels and annotations of a Node that was there before; taints and other labels are left alone.
    async fn correct(&self, api: &Api<Node>, existing: &Node) -> Result<(), CallError> {
        self.mirrors.forget_node();
        let have = existing.metadata.labels.clone().unwrap_or_default();
        let labels: BTreeMap<String, String> =
            self.default_labels().into_iter().filter(|(key, value)| have.get(key) != Some(value)).collect();
        let wanted = self.services.config.enable_controller_attach_detach.then_some("true");
        let annotation = existing.metadata.annotations.as_ref().and_then(|map| map.get(ATTACH_ANNOTATION));
        if labels.is_empty() && annotation.map(String::as_str) == wanted {
            return Ok(());
        }
        let patch = json!({ "metadata": { "labels": labels, "annotations": { ATTACH_ANNOTATION: wanted } } });
        limited(api.patch(&self.name(), &PatchParams::default(), &Patch::Strategic(&patch))).await.map(drop)
    }

    /// Writes the status if it changed or is due; answers the Node if it was read.
    async fn update(&self, due: bool) -> Result<Option<Node>, CallError> {
        let api: Api<Node> = Api::all(self.client.clone());
        let Some(node) = limited(api.get_opt(&self.name())).await? else {
            self.mirrors.forget_node();
            if self.services.config.register_node {
                self.try_register().await?;
            }
            return Ok(None);
        };
        self.remember(&node);
        let before = node.status.clone().unwrap_or_default();
        let after = self.compute(&before).await;
        let in_use = after.volumes_in_use.clone().unwrap_or_default();
        self.tell_changes(&node, &before, &after);
        if !status::differs(&before, &after) && !due {
            self.services.csi.in_use_reported(&in_use);
            return Ok(None);
        }
        self.tell_conditions(&before, &after);
        let patch = json!({ "status": difference(&before, &after) });
        let written =
            limited(api.patch_status(&self.name(), &PatchParams::default(), &Patch::Strategic(&patch))).await?;
        self.services.csi.in_use_reported(&in_use);
        Ok(Some(written))
    }

    /// Keeps what Pods are admitted by.
    fn remember(&self, node: &Node) {
        let metadata = ObjectMeta {
            name: node.metadata.name.clone(),
            labels: node.metadata.labels.clone(),
            ..ObjectMeta::default()
        };
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.clone());
        let fresh = Node { metadata, spec: Some(NodeSpec { taints, ..NodeSpec::default() }), status: None };
        if self.services.facts.get().object.as_deref() != Some(&fresh) {
            self.services.facts.update(|facts| facts.object = Some(Arc::new(fresh)));
        }
    }

    /// Tells of a machine that began anew, and of a node that takes Pods again or no longer.
    fn tell_changes(&self, node: &Node, before: &NodeStatus, after: &NodeStatus) {
        if let Some(boot_id) = rebooted(before, after) {
            let text = format!("Node {} has been rebooted, boot id: {boot_id}", self.name());
            self.services.events.node(EventType::Warning, "Rebooted", text);
        }
        let closed = node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false);
        if self.closed.swap(closed, Ordering::Relaxed) != closed {
            let reason = if closed { "NodeNotSchedulable" } else { "NodeSchedulable" };
            let text = format!("Node {} status is now: {reason}", self.name());
            self.services.events.node(EventType::Normal, reason, text);
        }
    }

    fn tell_conditions(&self, before: &NodeStatus, after: &NodeStatus) {
        for condition in after.conditions.iter().flatten() {
            let old = before.conditions.iter().flatten().find(|old| old.type_ == condition.type_);
            if old.is_some_and(|old| old.status == condition.status) {
                continue;
            }
            let reason = match (condition.type_.as_str(), condition.status.as_str()) {
                ("Ready", "True") => "NodeReady",
                ("Ready", _) => "NodeNotReady",
                ("MemoryPressure", "True") => "NodeHasInsufficientMemory",
                ("MemoryPressure", _) => "NodeHasSufficientMemory",
                ("DiskPressure", "True") => "NodeHasDiskPressure",
                ("DiskPressure", _) => "NodeHasNoDiskPressure",
                ("PIDPressure", "True") => "NodeHasInsufficientPID",
                ("PIDPressure", _) => "NodeHasSufficientPID",
                _ => continue,
            };
            let text = format!("Node {} status is now: {reason}", self.name());
            self.services.events.node(EventType::Normal, reason, text);
        }
    }

    async fn tell_pod_cidr(&self, node: &Node, known: &mut String) {
        let spec = node.spec.as_ref();
        let ranges = spec.and_then(|spec| spec.pod_cidrs.clone()).unwrap_or_default();
        let cidr = ranges.join(",");
        if cidr.is_empty() || cidr == *known {
            return;
        }
        match self.services.cri.update_runtime_config(&cidr).await {
            Ok(()) => *known = cidr,
            Err(error) => tracing::warn!(%error, "pod CIDR"),
        }
    }
}

/// The id of this boot, if the Node speaks of another one.
fn rebooted<'a>(before: &NodeStatus, after: &'a NodeStatus) -> Option<&'a str> {
    let id = |status: &'a NodeStatus| status.node_info.as_ref().map(|info| info.boot_id.as_str());
    let old = before.node_info.as_ref().map(|info| info.boot_id.as_str()).filter(|id| !id.is_empty())?;
    id(after).filter(|new| *new != old)
}

/// Fields that changed, with conditions whole: they merge by type.
fn difference(before: &NodeStatus, after: &NodeStatus) -> serde_json::Value {
    let value = |status: &NodeStatus| serde_json::to_value(status).unwrap_or_default();
    let (before, after) = (value(before), value(after));
    let mut patch = serde_json::Map::new();
    for (key, new) in after.as_object().into_iter().flatten() {
        let old = before.get(key);
        if old == Some(new) {
            continue;
        }
        let gone = |old: &serde_json::Value| {
            let list = old.as_array().cloned().unwrap_or_default();
            let still = |item: &serde_json::Value| {
                new.as_array()
                    .is_some_and(|new| new.iter().any(|n| n["type"] == item["type"] && n["address"] == item["address"]))
            };
            list.into_iter().filter(|item| !still(item)).collect::<Vec<_>>()
        };
        if key == "addresses" && old.is_some_and(|old| !gone(old).is_empty()) {
            // Addresses merge by type, which loses entries of equal types: the list is replaced.
            let mut list = vec![json!({ "$patch": "replace" })];
            list.extend(new.as_array().cloned().unwrap_or_default());
            patch.insert(key.clone(), serde_json::Value::Array(list));
        } else {
            patch.insert(key.clone(), new.clone());
        }
    }
    serde_json::Value::Object(patch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_boot_is_told_of_once() {
        let status = |id: &str| -> NodeStatus {
            serde_json::from_value(json!({ "nodeInfo": { "bootID": id, "machineID": "", "systemUUID": "",
                "kernelVersion": "", "osImage": "", "containerRuntimeVersion": "", "kubeletVersion": "",
                "kubeProxyVersion": "", "operatingSystem": "", "architecture": "" } }))
            .unwrap()
        };
        for (before, after, expected) in [("a", "b", Some("b")), ("a", "a", None), ("", "b", None)] {
            assert_eq!(rebooted(&status(before), &status(after)), expected, "{before} {after}");
        }
        assert_eq!(rebooted(&NodeStatus::default(), &status("b")), None);
    }
}
