//! Pods: the part that all replicas share, and what is each one's own.

use std::{
    collections::HashSet,
    hash::{Hash, Hasher},
    net::IpAddr,
    sync::{Arc, LazyLock},
};

use controller::{InformerConfig, Viewed};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;
use serde::Deserialize;

use super::{
    Labels, Owner, controller_of,
    meta::seconds,
    pod_object::{
        ContainerObject, ContainerPort, ContainerStatus, DeviceClaimObject, MadeClaim, PodObject, ScheduledCondition,
        SpecObject, StatusObject, VolumeObject,
    },
    requests::{self, Container, HostPort, Protocol, Requests},
    spec::{
        AffinityTerm, NodeAffinity, NodeSelector, NodeSelectorTerm, PodAffinity, Spread, SpreadConstraint, Toleration,
        Weighted,
    },
};
/// Stands among the gates of a Pod whose rules cannot be read.
const UNREADABLE: &str = "unreadable-scheduling-rules";

/// What a node has to declare so that all containers of a Pod can be restarted together.
const RESTARTS_ALL: &str = "RestartAllContainersOnContainerExits";

/// What placing a Pod depends on. Replicas of a workload share one.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Template {
    pub(crate) namespace: Box<str>,
    pub(crate) labels: Labels,
    pub(crate) scheduler_name: Box<str>,
    pub(crate) owner: Option<Owner>,
    pub(crate) priority: i32,
    pub(crate) never_preempts: bool,
    /// Sorted by key.
    pub(crate) node_selector: Vec<(Box<str>, Box<str>)>,
    pub(crate) node_required: Option<NodeSelector>,
    pub(crate) node_preferred: Vec<Weighted<NodeSelectorTerm>>,
    pub(crate) affinity: Vec<AffinityTerm>,
    pub(crate) affinity_preferred: Vec<Weighted<AffinityTerm>>,
    pub(crate) anti_affinity: Vec<AffinityTerm>,
    pub(crate) anti_affinity_preferred: Vec<Weighted<AffinityTerm>>,
    pub(crate) tolerations: Vec<Toleration>,
    pub(crate) spread: Vec<SpreadConstraint>,
    pub(crate) requests: Requests,
    /// Limits; they are told, not looked at.
    pub(crate) limits: Requests,
    /// Requests as scoring counts them.
    pub(crate) scored: Requests,
    pub(crate) host_ports: Vec<HostPort>,
    /// Image of each container, init container and image volume.
    pub(crate) images: Vec<Box<str>>,
    pub(crate) gates: Vec<Box<str>>,
    /// Claims that the Pod names; those of ephemeral volumes are named after the Pod.
    pub(crate) claims: Vec<Box<str>>,
    pub(crate) ephemeral_claims: Vec<Box<str>>,
    /// Disks that Pods of one node cannot share freely.
    pub(crate) disks: Vec<Disk>,
    /// Claims of devices.
    pub(crate) device_claims: Vec<DeviceClaimRef>,
    /// Containers that want extended resources.
    pub(crate) extended: Vec<ExtendedNeed>,
    /// What the node has to declare that it can do.
    pub(crate) features: Vec<&'static str>,
}

/// A disk that a Pod names itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Disk {
    /// By name.
    Gce(Box<str>, Sharing),
    /// By id.
    Aws(Box<str>),
    /// By qualified name.
    Iscsi(Box<str>, Sharing),
    /// By pool and image; clusters that share a monitor are one.
    Rbd { monitors: Vec<Box<str>>, pool: Box<str>, image: Box<str>, sharing: Sharing },
}

/// What others may do with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Sharing {
    /// Read it too, if they only read.
    Readers,
    /// Nothing.
    Nobody,
}

impl Sharing {
    fn of(read_only: bool) -> Self {
        if read_only { Self::Readers } else { Self::Nobody }
    }

    fn excludes(self, other: Self) -> bool {
        (self, other) != (Self::Readers, Self::Readers)
    }
}

impl Disk {
    /// Whether two Pods of one node cannot have both.
    pub(crate) fn conflicts(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Gce(a, s), Self::Gce(b, t)) | (Self::Iscsi(a, s), Self::Iscsi(b, t)) => a == b && s.excludes(*t),
            (Self::Aws(a), Self::Aws(b)) => a == b,
            (
                Self::Rbd { monitors: m, pool: p, image: i, sharing: s },
                Self::Rbd { monitors: n, pool: q, image: j, sharing: t },
            ) => m.iter().any(|monitor| n.contains(monitor)) && (p, i) == (q, j) && s.excludes(*t),
            _ => false,
        }
    }
}

fn disk(volume: &VolumeObject) -> Option<Disk> {
    let gce = volume.gce_persistent_disk.as_ref().map(|d| Disk::Gce(d.pd_name.clone(), Sharing::of(d.read_only)));
    let aws = || volume.aws_elastic_block_store.as_ref().map(|d| Disk::Aws(d.volume_id.clone()));
    let iscsi = || volume.iscsi.as_ref().map(|d| Disk::Iscsi(d.iqn.clone(), Sharing::of(d.read_only)));
    let rbd = || {
        volume.rbd.as_ref().map(|d| Disk::Rbd {
            monitors: d.monitors.clone(),
            pool: d.pool.clone(),
            image: d.image.clone(),
            sharing: Sharing::of(d.read_only),
        })
    };
    gce.or_else(aws).or_else(iscsi).or_else(rbd)
}

/// What a container wants of extended resources.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ExtendedNeed {
    pub(crate) container: Box<str>,
    /// Place among all containers, the init containers first.
    pub(crate) at: usize,
    /// Whether it is an init container that ends.
    pub(crate) passing: bool,
    /// Whether it is an init container that stays.
    pub(crate) sidecar: bool,
    /// By name.
    pub(crate) amounts: Vec<(Box<str>, i64)>,
}

/// Where a claim of devices comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum DeviceClaimSource {
    /// The Pod names it.
    Named(Box<str>),
    /// One is made for the Pod, whose status tells its name.
    Made,
    /// In a way from the future.
    Unknown,
}

/// A claim of devices, by the Pod's own name for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct DeviceClaimRef {
    pub(crate) name: Box<str>,
    pub(crate) source: DeviceClaimSource,
}

impl DeviceClaimRef {
    /// Whether the Pod names this claim.
    pub(crate) fn is_named(&self, claim: &str) -> bool {
        matches!(&self.source, DeviceClaimSource::Named(name) if **name == *claim)
    }
}

/// A Pod as the scheduler knows it.
#[derive(Clone, Debug)]
pub(crate) struct PodView {
    pub(crate) name: Box<str>,
    pub(crate) uid: Arc<str>,
    pub(crate) template: Arc<Template>,
    pub(crate) node_name: Box<str>,
    pub(crate) nominated_node: Box<str>,
    /// Succeeded or Failed.
    pub(crate) finished: bool,
    pub(crate) terminating: bool,
    pub(crate) generation: i64,
    /// Seconds since the epoch.
    pub(crate) started: Option<i64>,
    /// The condition PodScheduled while it is not True.
    pub(crate) scheduled: Option<Box<ScheduledCondition>>,
    /// A condition says that a scheduler preempted it.
    pub(crate) preempted: bool,
    /// Claims of devices that were made for it: its own name, and the claim's unless none is needed.
    pub(crate) made_claims: Box<[MadeClaim]>,
    /// Its status tells of a claim for extended resources.
    pub(crate) has_extended_claim: bool,
}

impl PodView {
    pub(crate) fn namespace(&self) -> &str {
        &self.template.namespace
    }

    pub(crate) fn priority(&self) -> i32 {
        self.template.priority
    }

    /// The claim that was made for one of its own names; the inner `None` if none is needed.
    pub(crate) fn claim_made_for(&self, name: &str) -> Option<Option<&str>> {
        self.made_claims.iter().find(|made| *made.name == *name).map(|made| made.resource_claim_name.as_deref())
    }

    /// `namespace/name`.
    pub(crate) fn full_name(&self) -> String {
        format!("{}/{}", self.namespace(), self.name)
    }
}

/// A Pod in the informer, shared with all who keep it.
#[derive(Debug)]
pub(crate) struct SharedPod(pub(crate) Arc<PodView>);

impl Viewed for SharedPod {
    type Object = PodObject;

    fn project(object: PodObject) -> Self {
        Self(Arc::new(view(object)))
    }

    fn config() -> InformerConfig {
        InformerConfig { fields: "status.phase!=Succeeded,status.phase!=Failed".into(), ..InformerConfig::default() }
    }
}

/// A table entry: equal when the templates are.
struct Shared(Arc<Template>);

impl PartialEq for Shared {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl Eq for Shared {}
impl Hash for Shared {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}
impl std::borrow::Borrow<Template> for Shared {
    fn borrow(&self) -> &Template {
        &self.0
    }
}

#[derive(Default)]
struct Templates {
    known: HashSet<Shared>,
    /// Size at which those that nobody uses any more are dropped.
    sweep_at: usize,
}

static TEMPLATES: LazyLock<Mutex<Templates>> = LazyLock::new(Mutex::default);

/// The one shared template that is equal to `template`.
fn shared(template: Template) -> Arc<Template> {
    let mut all = TEMPLATES.lock();
    if let Some(known) = all.known.get(&template) {
        return Arc::clone(&known.0);
    }
    if all.known.len() >= all.sweep_at {
        all.known.retain(|t| Arc::strong_count(&t.0) > 1);
        all.sweep_at = (all.known.len() * 2).max(256);
    }
    let fresh = Arc::new(template);
    all.known.insert(Shared(Arc::clone(&fresh)));
    fresh
}

pub(super) fn view(object: PodObject) -> PodView {
    let PodObject { mut metadata, mut spec, status } = object;
    let condition = |kind: &str| status.conditions.iter().find(|c| &*c.kind == kind);
    let preempted =
        condition("DisruptionTarget").is_some_and(|c| &*c.status == "True" && &*c.reason == "PreemptionByScheduler");
    let scheduled = condition("PodScheduled").filter(|c| &*c.status != "True").map(|c| Box::new(c.clone()));
    let node_name = std::mem::take(&mut spec.node_name);
    PodView {
        name: metadata.name.take().unwrap_or_default().into(),
        uid: metadata.uid.take().unwrap_or_default().into(),
        node_name,
        nominated_node: status.nominated_node_name.clone(),
        finished: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
        terminating: metadata.deletion_timestamp.is_some(),
        generation: metadata.generation.unwrap_or_default(),
        started: seconds(status.start_time.as_ref()),
        scheduled,
        preempted,
        made_claims: status.resource_claim_statuses.clone().into(),
        has_extended_claim: status.extended_resource_claim_status.is_some(),
        template: shared(template(metadata, spec, &status)),
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Affinity {
    node_affinity: Option<NodeAffinity>,
    pod_affinity: Option<PodAffinity>,
    pod_anti_affinity: Option<PodAffinity>,
}

fn template(mut metadata: ObjectMeta, spec: SpecObject, status: &StatusObject) -> Template {
    let owner = controller_of(&metadata);
    let namespace: Box<str> = metadata.namespace.take().unwrap_or_default().into();
    let mut gates: Vec<Box<str>> = spec.scheduling_gates.into_iter().map(|g| g.name).collect();
    // The API server has validated the rules. A Pod with rules that cannot be read here is held back, not misplaced.
    let mut readable = true;
    let affinity: Affinity = read(spec.affinity.unwrap_or_default(), &mut readable).unwrap_or_default();
    let constraints = spec.topology_spread_constraints.into_iter();
    let spread = constraints.filter_map(|c| read(c, &mut readable)).map(|c: Spread| c.into()).collect();
    if !readable {
        tracing::error!(namespace = &*namespace, name = metadata.name, "The scheduling rules of a Pod cannot be read");
        gates.push(UNREADABLE.into());
    }
    let mut node = affinity.node_affinity.unwrap_or_default();
    let node_preferred = node.preferred();
    let (near, near_preferred) = affinity.pod_affinity.unwrap_or_default().terms(&namespace);
    let (far, far_preferred) = affinity.pod_anti_affinity.unwrap_or_default().terms(&namespace);
    let (requests, scored) = requests::of_pod(
        &counted(&spec.containers, &status.container_statuses),
        &counted(&spec.init_containers, &status.init_container_statuses),
        &spec.resources.requests,
        &spec.overhead,
    );
    let limits = requests::limits_of_pod(
        &limited(&spec.containers),
        &limited(&spec.init_containers),
        &spec.resources.limits,
        &spec.overhead,
    );
    let sidecars = spec.init_containers.iter().filter(|c| is_sidecar(c));
    let host_ports = spec.containers.iter().chain(sidecars).flat_map(|c| &c.ports).filter_map(host_port).collect();
    let containers = spec.containers.iter().chain(&spec.init_containers).map(|c| normalized(&c.image));
    let image_volumes = spec.volumes.iter().filter_map(|v| v.image.as_ref()).map(|i| normalized(&i.reference));
    let claims = spec.volumes.iter().filter_map(|v| v.persistent_volume_claim.as_ref());
    let mut rules = spec.containers.iter().chain(&spec.init_containers).flat_map(|c| &c.restart_policy_rules);
    let features =
        if rules.any(|rule| &*rule.action == "RestartAllContainers") { vec![RESTARTS_ALL] } else { Vec::new() };
    Template {
        labels: Labels::new(metadata.labels.take()),
        scheduler_name: spec.scheduler_name,
        owner,
        priority: spec.priority,
        never_preempts: spec.preemption_policy.as_deref() == Some("Never"),
        node_selector: spec.node_selector.into_iter().collect(),
        node_required: node.required,
        node_preferred,
        affinity: near,
        affinity_preferred: near_preferred,
        anti_affinity: far,
        anti_affinity_preferred: far_preferred,
        tolerations: spec.tolerations,
        spread,
        requests,
        limits,
        scored,
        host_ports,
        images: containers.chain(image_volumes).collect(),
        extended: extended(&spec.init_containers, &spec.containers),
        features,
        gates,
        claims: claims.map(|c| c.claim_name.clone()).collect(),
        ephemeral_claims: spec.volumes.iter().filter(|v| v.ephemeral.is_some()).map(|v| v.name.clone()).collect(),
        disks: spec.volumes.iter().filter_map(disk).collect(),
        device_claims: spec.resource_claims.into_iter().map(device_claim).collect(),
        namespace,
    }
}

/// Before the name of a class of devices: the resource that each of them stands for.
pub(crate) const OF_CLASS: &str = "deviceclass.resource.kubernetes.io/";

/// Whether a resource is none of the API's own.
fn is_extended(name: &str) -> bool {
    let is_native = !name.contains('/') || name.contains("kubernetes.io/") && !name.starts_with(OF_CLASS);
    !is_native && !name.starts_with("requests.")
}

fn extended(init: &[ContainerObject], others: &[ContainerObject]) -> Vec<ExtendedNeed> {
    let mut needs = Vec::new();
    for (at, container) in init.iter().chain(others).enumerate() {
        let all = Requests::of(&container.resources.requests).scalars.into_iter();
        let amounts: Vec<_> = all.filter(|(name, amount)| *amount > 0 && is_extended(name)).collect();
        if !amounts.is_empty() {
            let (is_init, stays) = (at < init.len(), is_sidecar(container));
            needs.push(ExtendedNeed {
                container: container.name.clone(),
                at,
                passing: is_init && !stays,
                sidecar: is_init && stays,
                amounts,
            });
        }
    }
    needs
}

fn device_claim(claim: DeviceClaimObject) -> DeviceClaimRef {
    let source = match (claim.resource_claim_name, claim.resource_claim_template_name) {
        (Some(name), _) => DeviceClaimSource::Named(name),
        (None, Some(_)) => DeviceClaimSource::Made,
        (None, None) => DeviceClaimSource::Unknown,
    };
    DeviceClaimRef { name: claim.name, source }
}

/// Reads a part of a spec; null is an absent one.
fn read<T: serde::de::DeserializeOwned>(value: serde_json::Value, readable: &mut bool) -> Option<T> {
    if value.is_null() {
        return None;
    }
    let part = serde_json::from_value(value).ok();
    *readable &= part.is_some();
    part
}

fn is_sidecar(container: &ContainerObject) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn counted(containers: &[ContainerObject], statuses: &[ContainerStatus]) -> Vec<Container> {
    let one = |container: &ContainerObject| {
        let mut actual = Requests::default();
        if let Some(status) = statuses.iter().find(|s| s.name == container.name) {
            actual.raise(&Requests::of(&status.allocated_resources));
            actual.raise(&Requests::of(&status.resources.requests));
        }
        Container { requests: container.resources.requests.clone(), actual, sidecar: is_sidecar(container) }
    };
    containers.iter().map(one).collect()
}

fn limited(containers: &[ContainerObject]) -> Vec<Container> {
    let one = |container: &ContainerObject| Container {
        requests: container.resources.limits.clone(),
        actual: Requests::default(),
        sidecar: is_sidecar(container),
    };
    containers.iter().map(one).collect()
}

fn host_port(port: &ContainerPort) -> Option<HostPort> {
    let number = port.host_port.filter(|p| *p > 0)?;
    let any = IpAddr::from([0, 0, 0, 0]);
    let address = port.host_ip.as_deref().and_then(|a| a.parse().ok()).unwrap_or(any);
    Some(HostPort { address, protocol: port.protocol.unwrap_or(Protocol::Tcp), port: number })
}

/// An image name with a tag.
pub(super) fn normalized(image: &str) -> Box<str> {
    let name = image.rsplit('/').next().unwrap_or_default();
    if name.contains([':', '@']) || image.is_empty() { image.into() } else { format!("{image}:latest").into() }
}
