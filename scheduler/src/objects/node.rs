//! Nodes.

use std::collections::BTreeMap;

use controller::Viewed;
use k8s_openapi::{ClusterResourceScope, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde::Deserialize;

use super::{
    Labels,
    meta::metadata,
    requests::{Requests, ResourceList},
    watched,
};

/// What a taint does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
pub(crate) enum TaintEffect {
    NoSchedule,
    PreferNoSchedule,
    NoExecute,
}

/// What keeps Pods off a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
pub(crate) struct Taint {
    pub(crate) key: Box<str>,
    #[serde(default)]
    pub(crate) value: Box<str>,
    pub(crate) effect: TaintEffect,
}

impl Taint {
    /// Whether it keeps Pods off for good, not only if there is a better node.
    pub(crate) fn repels(&self) -> bool {
        matches!(self.effect, TaintEffect::NoSchedule | TaintEffect::NoExecute)
    }

    /// The taint that stands for `spec.unschedulable`.
    pub(crate) fn unschedulable() -> Self {
        Self { key: "node.kubernetes.io/unschedulable".into(), value: Box::default(), effect: TaintEffect::NoSchedule }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeSpec {
    unschedulable: bool,
    taints: Vec<Taint>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Image {
    names: Vec<Box<str>>,
    size_bytes: i64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeStatus {
    allocatable: ResourceList,
    images: Vec<Image>,
    declared_features: Vec<Box<str>>,
}

/// A node as it comes from the API.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct NodeObject {
    #[serde(deserialize_with = "metadata", default)]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: NodeSpec,
    #[serde(default)]
    status: NodeStatus,
}
watched!(NodeObject, "", "v1", "v1", "Node", "nodes", ClusterResourceScope);

/// A node as the scheduler knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeView {
    pub(crate) name: Box<str>,
    pub(crate) labels: Labels,
    pub(crate) taints: Vec<Taint>,
    pub(crate) unschedulable: bool,
    /// Without `pods`.
    pub(crate) allocatable: Requests,
    pub(crate) allowed_pods: i64,
    /// Images by name with their sizes.
    pub(crate) images: Vec<(Box<str>, i64)>,
    /// What it declares that it can do.
    pub(crate) features: Vec<Box<str>>,
}

impl Viewed for NodeView {
    type Object = NodeObject;

    fn project(object: NodeObject) -> Self {
        let NodeObject { mut metadata, spec, status } = object;
        let mut allocatable = Requests::of(&status.allocatable);
        let allowed_pods = allocatable.get("pods");
        allocatable.scalars.retain(|(name, _)| &**name != "pods");
        let mut images = BTreeMap::new();
        for image in status.images {
            images.extend(image.names.into_iter().map(|name| (name, image.size_bytes)));
        }
        Self {
            name: metadata.name.take().unwrap_or_default().into(),
            labels: Labels::new(metadata.labels.take()),
            taints: spec.taints,
            unschedulable: spec.unschedulable,
            allocatable,
            allowed_pods,
            images: images.into_iter().collect(),
            features: status.declared_features,
        }
    }
}
