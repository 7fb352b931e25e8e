//! Claims, volumes and classes of storage.

use std::collections::BTreeMap;

use controller::{Cached, Index, Viewed};
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use machinery::{quantity::Quantity, selector::LabelSelector};
use serde::Deserialize;

use super::{
    Labels,
    meta::annotated,
    requests::ResourceList,
    spec::{NodeSelector, selector},
    watched,
};

/// Says that a claim and its volume have found each other for good.
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// Names the node for which a volume is to be made.
pub(crate) const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// Class of claims and volumes before there was a field for it.
const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Amounts {
    requests: ResourceList,
}

fn storage(list: &ResourceList) -> i64 {
    list.get("storage").and_then(|text| Quantity::parse(text).ok()).map_or(0, |q| q.value())
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClaimSpec {
    volume_name: Box<str>,
    storage_class_name: Option<Box<str>>,
    access_modes: Vec<Box<str>>,
    volume_mode: Option<Box<str>>,
    resources: Amounts,
    #[serde(deserialize_with = "selector")]
    selector: Option<LabelSelector>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PhaseOnly {
    phase: Option<Box<str>>,
}

/// A PersistentVolumeClaim from the API.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct ClaimObject {
    #[serde(deserialize_with = "annotated", default)]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: ClaimSpec,
    #[serde(default)]
    status: PhaseOnly,
}
watched!(ClaimObject, "", "v1", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", NamespaceResourceScope);

/// A claim to storage.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClaimView {
    /// Name of its volume; empty as long as it has none.
    pub(crate) volume: Box<str>,
    /// Claim and volume have found each other for good.
    pub(crate) bound: bool,
    pub(crate) class: Box<str>,
    pub(crate) modes: Vec<Box<str>>,
    pub(crate) block: bool,
    pub(crate) size: i64,
    pub(crate) selector: Option<LabelSelector>,
    pub(crate) selected_node: Option<Box<str>>,
    pub(crate) terminating: bool,
    /// Its volume is gone for good.
    pub(crate) lost: bool,
    /// Who controls it, by UID: ephemeral volumes belong to their Pod.
    pub(crate) owner: Option<Box<str>>,
}

impl Viewed for ClaimView {
    type Object = ClaimObject;

    fn project(object: ClaimObject) -> Self {
        let ClaimObject { metadata, spec, status } = object;
        let annotations = metadata.annotations.unwrap_or_default();
        let owners = metadata.owner_references.unwrap_or_default();
        let old_class = annotations.get(OLD_CLASS).map(|c| c.as_str().into());
        Self {
            bound: !spec.volume_name.is_empty() && annotations.contains_key(BIND_COMPLETED),
            volume: spec.volume_name,
            class: old_class.or(spec.storage_class_name).unwrap_or_default(),
            modes: spec.access_modes,
            block: spec.volume_mode.as_deref() == Some("Block"),
            size: storage(&spec.resources.requests),
            selector: spec.selector,
            selected_node: annotations.get(SELECTED_NODE).map(|n| n.as_str().into()),
            terminating: metadata.deletion_timestamp.is_some(),
            lost: status.phase.as_deref() == Some("Lost"),
            owner: owners.into_iter().find(|o| o.controller == Some(true)).map(|o| o.uid.into()),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct ClaimRef {
    pub(crate) namespace: Box<str>,
    pub(crate) name: Box<str>,
    pub(crate) uid: Box<str>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct VolumeAffinity {
    required: Option<NodeSelector>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Csi {
    driver: Box<str>,
    volume_handle: Box<str>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct VolumeSpec {
    capacity: ResourceList,
    claim_ref: Option<ClaimRef>,
    node_affinity: VolumeAffinity,
    storage_class_name: Box<str>,
    access_modes: Vec<Box<str>>,
    volume_mode: Option<Box<str>>,
    csi: Option<Csi>,
}

/// A PersistentVolume from the API.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct VolumeObject {
    #[serde(deserialize_with = "annotated", default)]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: VolumeSpec,
    #[serde(default)]
    status: PhaseOnly,
}
watched!(VolumeObject, "", "v1", "v1", "PersistentVolume", "persistentvolumes", ClusterResourceScope);

/// A volume.
#[derive(Clone, Debug, Default)]
pub(crate) struct VolumeView {
    pub(crate) labels: Labels,
    pub(crate) size: i64,
    pub(crate) claim: Option<ClaimRef>,
    pub(crate) nodes: Option<NodeSelector>,
    pub(crate) class: Box<str>,
    pub(crate) modes: Vec<Box<str>>,
    pub(crate) block: bool,
    pub(crate) terminating: bool,
    /// Its phase says that claims may have it.
    pub(crate) available: bool,
    /// Driver and handle of a CSI volume.
    pub(crate) csi: Option<(Box<str>, Box<str>)>,
}

impl Viewed for VolumeView {
    type Object = VolumeObject;

    fn project(object: VolumeObject) -> Self {
        let VolumeObject { mut metadata, spec, status } = object;
        let old_class = metadata.annotations.take().and_then(|mut a| a.remove(OLD_CLASS)).map(String::into_boxed_str);
        Self {
            labels: Labels::new(metadata.labels.take()),
            size: storage(&spec.capacity),
            claim: spec.claim_ref,
            nodes: spec.node_affinity.required,
            class: old_class.unwrap_or(spec.storage_class_name),
            modes: spec.access_modes,
            block: spec.volume_mode.as_deref() == Some("Block"),
            terminating: metadata.deletion_timestamp.is_some(),
            available: status.phase.as_deref() == Some("Available"),
            csi: spec.csi.map(|c| (c.driver, c.volume_handle)),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct TopologyLabel {
    pub(crate) key: Box<str>,
    pub(crate) values: Vec<Box<str>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct TopologyTerm {
    pub(crate) match_label_expressions: Vec<TopologyLabel>,
}

/// A StorageClass from the API.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClassObject {
    #[serde(deserialize_with = "annotated", default)]
    metadata: ObjectMeta,
    #[serde(default)]
    provisioner: Box<str>,
    #[serde(default)]
    volume_binding_mode: Option<Box<str>>,
    #[serde(default)]
    allowed_topologies: Vec<TopologyTerm>,
}
watched!(
    ClassObject,
    "storage.k8s.io",
    "v1",
    "storage.k8s.io/v1",
    "StorageClass",
    "storageclasses",
    ClusterResourceScope
);

/// A class of storage.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClassView {
    /// Who makes volumes; `None` if nobody does.
    pub(crate) provisioner: Option<Box<str>>,
    /// Volumes are found only when a Pod wants them.
    pub(crate) waits: bool,
    /// Where volumes can be made; empty for anywhere.
    pub(crate) topologies: Vec<TopologyTerm>,
}

impl Viewed for ClassView {
    type Object = ClassObject;

    fn project(object: ClassObject) -> Self {
        let made = !matches!(&*object.provisioner, "" | "kubernetes.io/no-provisioner");
        Self {
            provisioner: made.then_some(object.provisioner),
            waits: object.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"),
            topologies: object.allowed_topologies,
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct DriverLimit {
    count: Option<i64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Driver {
    name: Box<str>,
    allocatable: DriverLimit,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct CsiNodeSpec {
    drivers: Vec<Driver>,
}

/// A CSINode from the API.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct CsiNodeObject {
    #[serde(deserialize_with = "annotated", default)]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: CsiNodeSpec,
}
watched!(CsiNodeObject, "storage.k8s.io", "v1", "storage.k8s.io/v1", "CSINode", "csinodes", ClusterResourceScope);

/// How many volumes of each driver a node can have.
#[derive(Clone, Debug, Default)]
pub(crate) struct CsiNodeView {
    pub(crate) limits: BTreeMap<Box<str>, i64>,
}

impl Viewed for CsiNodeView {
    type Object = CsiNodeObject;

    fn project(object: CsiNodeObject) -> Self {
        let drivers = object.spec.drivers.into_iter();
        Self { limits: drivers.filter_map(|d| Some((d.name, d.allocatable.count?))).collect() }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AttachmentSource {
    persistent_volume_name: Box<str>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AttachmentSpec {
    node_name: Box<str>,
    source: AttachmentSource,
}

/// A VolumeAttachment from the API.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct AttachmentObject {
    #[serde(deserialize_with = "annotated", default)]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: AttachmentSpec,
}
watched!(
    AttachmentObject,
    "storage.k8s.io",
    "v1",
    "storage.k8s.io/v1",
    "VolumeAttachment",
    "volumeattachments",
    ClusterResourceScope
);

/// A volume that is attached to a node, or is going to be.
#[derive(Clone, Debug, Default)]
pub(crate) struct AttachmentView {
    pub(crate) node: Box<str>,
    pub(crate) volume: Box<str>,
}

impl AttachmentView {
    /// Index by node.
    pub(crate) const BY_NODE: &'static str = "node";
}

impl Viewed for AttachmentView {
    type Object = AttachmentObject;

    const INDICES: &'static [Index<Self>] =
        &[Index { name: Self::BY_NODE, keys: |attachment: &Cached<Self>| vec![attachment.node.to_string()] }];

    fn project(object: AttachmentObject) -> Self {
        Self { node: object.spec.node_name, volume: object.spec.source.persistent_volume_name }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DriverSpec {
    storage_capacity: bool,
}

/// A CSIDriver from the API.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct CsiDriverObject {
    #[serde(deserialize_with = "annotated", default)]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: DriverSpec,
}
watched!(CsiDriverObject, "storage.k8s.io", "v1", "storage.k8s.io/v1", "CSIDriver", "csidrivers", ClusterResourceScope);

/// Whether a driver tells how much room it has.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CsiDriverView {
    pub(crate) tells_capacity: bool,
}

impl Viewed for CsiDriverView {
    type Object = CsiDriverObject;

    fn project(object: CsiDriverObject) -> Self {
        Self { tells_capacity: object.spec.storage_capacity }
    }
}

/// A CSIStorageCapacity from the API.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CapacityObject {
    #[serde(deserialize_with = "annotated", default)]
    metadata: ObjectMeta,
    #[serde(default)]
    storage_class_name: Box<str>,
    #[serde(default, deserialize_with = "selector")]
    node_topology: Option<LabelSelector>,
    #[serde(default)]
    capacity: Option<Box<str>>,
    #[serde(default)]
    maximum_volume_size: Option<Box<str>>,
}
watched!(
    CapacityObject,
    "storage.k8s.io",
    "v1",
    "storage.k8s.io/v1",
    "CSIStorageCapacity",
    "csistoragecapacities",
    NamespaceResourceScope
);

/// Room for volumes of a class, somewhere.
#[derive(Clone, Debug, Default)]
pub(crate) struct CapacityView {
    pub(crate) class: Box<str>,
    /// Labels of the nodes that can reach it; `None` for no node.
    pub(crate) nodes: Option<LabelSelector>,
    /// The largest volume there is room for; `None` if that is not known.
    pub(crate) largest: Option<i64>,
}

impl Viewed for CapacityView {
    type Object = CapacityObject;

    fn project(object: CapacityObject) -> Self {
        let amount = |text: Option<Box<str>>| text.and_then(|t| Quantity::parse(&t).ok()).map(|q| q.value());
        Self {
            class: object.storage_class_name,
            nodes: object.node_topology,
            largest: amount(object.maximum_volume_size).or_else(|| amount(object.capacity)),
        }
    }
}
