//! Pods as they come from the API: the parts that scheduling looks at.

use k8s_openapi::{
    NamespaceResourceScope,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use serde::Deserialize;

use super::{
    meta::metadata,
    requests::{Protocol, ResourceList},
    spec::Toleration,
    watched,
};

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Resources {
    pub(super) requests: ResourceList,
    pub(super) limits: ResourceList,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ContainerPort {
    pub(super) host_port: Option<u16>,
    #[serde(rename = "hostIP")]
    pub(super) host_ip: Option<Box<str>>,
    pub(super) protocol: Option<Protocol>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ContainerObject {
    pub(super) name: Box<str>,
    pub(super) image: Box<str>,
    pub(super) resources: Resources,
    pub(super) ports: Vec<ContainerPort>,
    pub(super) restart_policy: Option<Box<str>>,
    pub(super) restart_policy_rules: Vec<RestartRule>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RestartRule {
    pub(super) action: Box<str>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ContainerStatus {
    pub(super) name: Box<str>,
    pub(super) resources: Resources,
    pub(super) allocated_resources: ResourceList,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct SpecObject {
    pub(super) node_name: Box<str>,
    pub(super) scheduler_name: Box<str>,
    pub(super) node_selector: std::collections::BTreeMap<Box<str>, Box<str>>,
    pub(super) affinity: Option<serde_json::Value>,
    pub(super) tolerations: Vec<Toleration>,
    pub(super) topology_spread_constraints: Vec<serde_json::Value>,
    pub(super) priority: i32,
    pub(super) preemption_policy: Option<Box<str>>,
    pub(super) containers: Vec<ContainerObject>,
    pub(super) init_containers: Vec<ContainerObject>,
    pub(super) overhead: ResourceList,
    pub(super) resources: Resources,
    pub(super) scheduling_gates: Vec<Gate>,
    pub(super) volumes: Vec<VolumeObject>,
    pub(super) resource_claims: Vec<DeviceClaimObject>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct DeviceClaimObject {
    pub(super) name: Box<str>,
    pub(super) resource_claim_name: Option<Box<str>>,
    pub(super) resource_claim_template_name: Option<serde::de::IgnoredAny>,
}

/// A claim of devices that was made for a Pod, by the Pod's own name for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct MadeClaim {
    pub(super) name: Box<str>,
    pub(super) resource_claim_name: Option<Box<str>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Gate {
    #[serde(default)]
    pub(super) name: Box<str>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct VolumeObject {
    pub(super) name: Box<str>,
    pub(super) image: Option<ImageVolume>,
    pub(super) persistent_volume_claim: Option<ClaimSource>,
    pub(super) ephemeral: Option<serde::de::IgnoredAny>,
    pub(super) gce_persistent_disk: Option<GceDisk>,
    pub(super) aws_elastic_block_store: Option<AwsVolume>,
    pub(super) iscsi: Option<IscsiVolume>,
    pub(super) rbd: Option<RbdVolume>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct GceDisk {
    pub(super) pd_name: Box<str>,
    pub(super) read_only: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct AwsVolume {
    #[serde(rename = "volumeID")]
    pub(super) volume_id: Box<str>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct IscsiVolume {
    pub(super) iqn: Box<str>,
    pub(super) read_only: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RbdVolume {
    pub(super) monitors: Vec<Box<str>>,
    pub(super) pool: Box<str>,
    pub(super) image: Box<str>,
    pub(super) read_only: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ImageVolume {
    pub(super) reference: Box<str>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ClaimSource {
    pub(super) claim_name: Box<str>,
}

/// A condition of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ScheduledCondition {
    #[serde(rename = "type")]
    pub(super) kind: Box<str>,
    pub(crate) status: Box<str>,
    pub(crate) reason: Box<str>,
    pub(crate) message: Box<str>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct StatusObject {
    pub(super) phase: Option<Box<str>>,
    pub(super) nominated_node_name: Box<str>,
    pub(super) start_time: Option<Time>,
    pub(super) conditions: Vec<ScheduledCondition>,
    pub(super) container_statuses: Vec<ContainerStatus>,
    pub(super) init_container_statuses: Vec<ContainerStatus>,
    pub(super) resource_claim_statuses: Vec<MadeClaim>,
    pub(super) extended_resource_claim_status: Option<serde::de::IgnoredAny>,
}

/// A Pod as it comes from the API.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct PodObject {
    #[serde(deserialize_with = "metadata", default)]
    pub(super) metadata: ObjectMeta,
    #[serde(default)]
    pub(super) spec: SpecObject,
    #[serde(default)]
    pub(super) status: StatusObject,
}
watched!(PodObject, "", "v1", "v1", "Pod", "pods", NamespaceResourceScope);
