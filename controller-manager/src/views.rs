//! What controllers keep of Pods and Nodes, the kinds of which there are many.

use std::collections::BTreeMap;

use ::controller::{Cached, Index, ObjectKey, Viewed};
use k8s_openapi::{
    api::{
        batch::v1::Job,
        core::v1::{
            Affinity, Container, ContainerStatus, Node, PersistentVolumeClaim, PersistentVolumeClaimTemplate, Pod,
            PodSpec, PodStatus, ResourceRequirements, Toleration,
        },
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
    jiff::Timestamp,
};

use machinery::quantity::Quantity;

use crate::volumes;

/// Phase of a Pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Not all containers have started.
    #[default]
    Pending,
    /// The node does not tell.
    Unknown,
    /// On a node.
    Running,
    /// All containers ended well.
    Succeeded,
    /// A container failed for good.
    Failed,
}

impl Phase {
    fn of(text: Option<&str>) -> Self {
        match text {
            Some("Running") => Self::Running,
            Some("Succeeded") => Self::Succeeded,
            Some("Failed") => Self::Failed,
            Some("Unknown") => Self::Unknown,
            _ => Self::Pending,
        }
    }

    /// Whether no container runs or will run.
    pub(crate) fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// A condition of a Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) kind: String,
    pub(crate) status: String,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) since: Option<Timestamp>,
}

/// A port a container names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PortView {
    pub(crate) name: String,
    pub(crate) port: i32,
    pub(crate) protocol: String,
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExitView {
    pub(crate) container: String,
    pub(crate) code: i32,
    pub(crate) finished: Option<Timestamp>,
}

/// What controllers read of a Pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PodView {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) owners: Vec<OwnerReference>,
    pub(crate) finalizers: Vec<String>,
    pub(crate) created: Option<Timestamp>,
    pub(crate) deletion: Option<Timestamp>,
    pub(crate) generate_name: String,
    pub(crate) node: String,
    /// The one Node its affinity leaves it.
    pub(crate) pinned_to: String,
    pub(crate) hostname: String,
    pub(crate) subdomain: String,
    pub(crate) phase: Phase,
    pub(crate) reason: String,
    pub(crate) started: Option<Timestamp>,
    /// Addresses, the primary first.
    pub(crate) ips: Vec<String>,
    pub(crate) conditions: Vec<Condition>,
    /// Named ports of containers and of init containers that keep running.
    pub(crate) ports: Vec<PortView>,
    /// Containers that ended, then init containers that did.
    pub(crate) exits: Vec<ExitView>,
    /// Restarts of all containers.
    pub(crate) all_restarts: i32,
    /// The most restarts of a container, and of a sidecar.
    pub(crate) restarts: (i32, i32),
    /// Volume names and the claims they use.
    pub(crate) claims: Vec<(String, String)>,
    /// Generic ephemeral volumes: name and what their claims are made from.
    pub(crate) ephemeral: Vec<(String, PersistentVolumeClaimTemplate)>,
    pub(crate) tolerations: Vec<Toleration>,
    pub(crate) restart_policy: String,
    pub(crate) requests: Requests,
    /// What it has to do with resource claims; few Pods have.
    pub(crate) devices: Option<Box<PodDevices>>,
}

/// How a Pod comes to a resource claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PodClaimSource {
    /// It names one.
    Named(String),
    /// One is made for it.
    Template(String),
}

/// The resource claims of a Pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PodDevices {
    /// Names within the Pod, and where the claims come from.
    pub(crate) claims: Vec<(String, PodClaimSource)>,
    /// Names within the Pod, and the claims that were made for them; `None` if none is needed.
    pub(crate) made: Vec<(String, Option<String>)>,
    /// The claim that the scheduler made for extended resources.
    pub(crate) extended: Option<String>,
}

impl PodDevices {
    fn of(spec: &PodSpec, status: &PodStatus) -> Option<Box<Self>> {
        let claims = spec.resource_claims.iter().flatten().filter_map(|claim| {
            let named = claim.resource_claim_name.clone().map(PodClaimSource::Named);
            let source = named.or_else(|| claim.resource_claim_template_name.clone().map(PodClaimSource::Template));
            source.map(|source| (claim.name.clone(), source))
        });
        let made = status.resource_claim_statuses.iter().flatten();
        let devices = Self {
            claims: claims.collect(),
            made: made.map(|made| (made.name.clone(), made.resource_claim_name.clone())).collect(),
            extended: status.extended_resource_claim_status.as_ref().map(|s| s.resource_claim_name.clone()),
        };
        (devices != Self::default()).then(|| Box::new(devices))
    }

    /// The name of the claim that was made for one of the Pod's own names; the inner `None` if none is needed.
    pub(crate) fn made_for(&self, name: &str) -> Option<Option<&str>> {
        self.made.iter().find(|(own, _)| own == name).map(|(_, claim)| claim.as_deref())
    }

    /// Names of all claims that are known.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let own = self.claims.iter().filter_map(|(name, source)| match source {
            PodClaimSource::Named(claim) => Some(claim.as_str()),
            PodClaimSource::Template(_) => self.made_for(name).flatten(),
        });
        own.chain(self.extended.as_deref())
    }
}

/// What a Pod requests of CPU and memory, in thousandths; other resources have no usage that is measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Requests {
    pod: Amounts,
    containers: Box<[(Box<str>, Amounts)]>,
}

/// One amount for each of [`MEASURED`].
type Amounts = [Option<i64>; MEASURED.len()];

/// Resources whose usage is measured.
const MEASURED: [&str; 2] = ["cpu", "memory"];

impl Requests {
    /// Of the Pod as a whole and of the containers that run all the time.
    fn of(spec: &PodSpec) -> Self {
        let lasting = spec.containers.iter().chain(spec.init_containers.iter().flatten().filter(|c| keeps_running(c)));
        let containers = lasting.map(|c| (c.name.as_str().into(), measured(c.resources.as_ref())));
        Self { pod: measured(spec.resources.as_ref()), containers: containers.collect() }
    }

    /// The request of the Pod itself.
    pub(crate) fn of_pod(&self, resource: &str) -> Option<i64> {
        self.pod[index(resource)?]
    }

    /// Containers and their requests.
    pub(crate) fn of_containers(&self, resource: &str) -> impl Iterator<Item = (&str, Option<i64>)> {
        let at = index(resource);
        self.containers.iter().map(move |(name, all)| (&**name, at.and_then(|at| all[at])))
    }
}

fn index(resource: &str) -> Option<usize> {
    MEASURED.iter().position(|name| *name == resource)
}

fn measured(resources: Option<&ResourceRequirements>) -> Amounts {
    let requests = resources.and_then(|r| r.requests.as_ref());
    MEASURED.map(|name| Quantity::parse(&requests?.get(name)?.0).ok().map(|quantity| quantity.milli_value()))
}

impl PodView {
    /// A condition.
    pub(crate) fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|c| c.kind == kind)
    }

    /// Since when the Pod is ready; the inner `None` if its status does not say.
    pub(crate) fn ready_since(&self) -> Option<Option<Timestamp>> {
        self.condition("Ready").filter(|c| c.status == "True").map(|c| c.since)
    }

    /// Whether it is ready.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready_since().is_some()
    }

    /// Whether it has been ready for long enough.
    pub(crate) fn is_available(&self, min_ready_seconds: i32, now: Timestamp) -> bool {
        self.available_in(min_ready_seconds, now) == Some(0)
    }

    /// Seconds until it is available if it stays ready; `None` while it is not ready.
    pub(crate) fn available_in(&self, min_ready_seconds: i32, now: Timestamp) -> Option<i64> {
        let since = self.ready_since()?;
        if min_ready_seconds <= 0 {
            return Some(0);
        }
        let least = i64::from(min_ready_seconds);
        since.map(|since| (since.as_second() + least - now.as_second()).max(0))
    }

    /// Neither ended nor being deleted.
    pub(crate) fn is_active(&self) -> bool {
        !self.phase.is_terminal() && self.deletion.is_none()
    }

    /// Being deleted while containers may still run.
    pub(crate) fn is_terminating(&self) -> bool {
        !self.phase.is_terminal() && self.deletion.is_some()
    }

    /// The controlling owner.
    pub(crate) fn controller(&self) -> Option<&OwnerReference> {
        ::controller::claim::controller_of(Some(&self.owners))
    }
}

/// Index of Pods by the UID of their controller; those without one are under `/<namespace>`.
pub(crate) const BY_CONTROLLER: &str = "controller";

/// Value of [`BY_CONTROLLER`] for the Pods of a namespace that have no controller.
pub(crate) fn orphans_of(namespace: &str) -> String {
    format!("/{namespace}")
}

/// Index of Pods by node.
pub(crate) const BY_NODE: &str = "node";

/// Index of Pods by the resource claims they use, as `namespace/name`.
pub(crate) const BY_DEVICE_CLAIM: &str = "device claim";

fn by_device_claim(pod: &Cached<PodView>) -> Vec<String> {
    let names = pod.devices.iter().flat_map(|devices| devices.names());
    names.map(|name| ObjectKey::new(&pod.key.namespace, name).to_string()).collect()
}

fn by_controller(pod: &Cached<PodView>) -> Vec<String> {
    vec![pod.controller().map_or_else(|| orphans_of(&pod.key.namespace), |o| o.uid.clone())]
}

fn by_node(pod: &Cached<PodView>) -> Vec<String> {
    if pod.node.is_empty() { Vec::new() } else { vec![pod.node.clone()] }
}

impl Viewed for PodView {
    type Object = Pod;

    const INDICES: &'static [Index<Self>] = &[
        Index { name: BY_CONTROLLER, keys: by_controller },
        Index { name: BY_NODE, keys: by_node },
        Index { name: BY_DEVICE_CLAIM, keys: by_device_claim },
    ];

    fn project(pod: Pod) -> Self {
        let (meta, spec, status) = (pod.metadata, pod.spec.unwrap_or_default(), pod.status.unwrap_or_default());
        let requests = Requests::of(&spec);
        let devices = PodDevices::of(&spec, &status);
        let sidecars: Vec<&Container> = spec.init_containers.iter().flatten().filter(|c| keeps_running(c)).collect();
        let statuses = |list: &Option<Vec<ContainerStatus>>| list.clone().unwrap_or_default();
        let (init, main) = (statuses(&status.init_container_statuses), statuses(&status.container_statuses));
        let most = |list: &mut dyn Iterator<Item = &ContainerStatus>| list.map(|s| s.restart_count).max().unwrap_or(0);
        let restarts =
            (most(&mut main.iter()), most(&mut init.iter().filter(|s| sidecars.iter().any(|c| c.name == s.name))));
        let ports = spec.containers.iter().chain(sidecars.iter().copied()).flat_map(named_ports).collect();
        let exits = main.iter().chain(&init).filter_map(exit).collect();
        let mut ips: Vec<String> = status.pod_ips.into_iter().flatten().map(|ip| ip.ip).collect();
        if ips.is_empty() {
            ips.extend(status.pod_ip);
        }
        let mut claims = Vec::new();
        let mut ephemeral = Vec::new();
        for volume in spec.volumes.into_iter().flatten() {
            if let Some(source) = volume.persistent_volume_claim {
                claims.push((volume.name, source.claim_name));
            } else if let Some(template) = volume.ephemeral.and_then(|source| source.volume_claim_template) {
                claims.push((
                    volume.name.clone(),
                    format!("{}-{}", meta.name.as_deref().unwrap_or_default(), volume.name),
                ));
                ephemeral.push((volume.name, template));
            }
        }
        let conditions = status.conditions.into_iter().flatten().map(|c| Condition {
            kind: c.type_,
            status: c.status,
            reason: c.reason.unwrap_or_default(),
            message: c.message.unwrap_or_default(),
            since: c.last_transition_time.map(|t| t.0),
        });
        Self {
            labels: meta.labels.unwrap_or_default(),
            annotations: meta.annotations.unwrap_or_default(),
            owners: meta.owner_references.unwrap_or_default(),
            finalizers: meta.finalizers.unwrap_or_default(),
            created: meta.creation_timestamp.map(|t| t.0),
            deletion: meta.deletion_timestamp.map(|t| t.0),
            generate_name: meta.generate_name.unwrap_or_default(),
            pinned_to: pinned(spec.affinity.as_ref()),
            node: spec.node_name.unwrap_or_default(),
            hostname: spec.hostname.unwrap_or_default(),
            subdomain: spec.subdomain.unwrap_or_default(),
            phase: Phase::of(status.phase.as_deref()),
            reason: status.reason.unwrap_or_default(),
            started: status.start_time.map(|t| t.0),
            ips,
            conditions: conditions.collect(),
            ports,
            exits,
            restarts,
            all_restarts: init.iter().chain(&main).map(|s| s.restart_count).fold(0, i32::saturating_add),
            claims,
            ephemeral,
            requests,
            devices,
            tolerations: spec.tolerations.unwrap_or_default(),
            restart_policy: spec.restart_policy.unwrap_or_default(),
        }
    }
}

/// A PersistentVolumeClaim.
#[derive(Clone, Debug)]
pub(crate) struct ClaimView(pub(crate) PersistentVolumeClaim);

impl ClaimView {
    /// Index of the claims whose binding is not complete, by their class.
    pub(crate) const UNBOUND_OF_CLASS: &'static str = "unbound";
}

impl std::ops::Deref for ClaimView {
    type Target = PersistentVolumeClaim;

    fn deref(&self) -> &PersistentVolumeClaim {
        &self.0
    }
}

impl Viewed for ClaimView {
    type Object = PersistentVolumeClaim;

    const INDICES: &'static [Index<Self>] =
        &[Index { name: Self::UNBOUND_OF_CLASS, keys: |claim| volumes::unbound_class(claim) }];

    fn project(mut claim: PersistentVolumeClaim) -> Self {
        claim.metadata.managed_fields = None;
        Self(claim)
    }
}

/// The Node that a required affinity names.
fn pinned(affinity: Option<&Affinity>) -> String {
    let required = affinity
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|n| n.required_during_scheduling_ignored_during_execution.as_ref());
    let fields =
        required.into_iter().flat_map(|r| &r.node_selector_terms).flat_map(|t| t.match_fields.iter().flatten());
    let named = fields.filter(|f| f.key == "metadata.name" && f.operator == "In");
    named.filter_map(|f| f.values.as_ref()?.first().cloned()).next().unwrap_or_default()
}

fn keeps_running(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn named_ports(container: &Container) -> Vec<PortView> {
    let ports = container.ports.iter().flatten().filter(|p| p.name.as_ref().is_some_and(|n| !n.is_empty()));
    ports
        .map(|p| PortView {
            name: p.name.clone().unwrap_or_default(),
            port: p.container_port,
            protocol: p.protocol.clone().unwrap_or_else(|| "TCP".into()),
        })
        .collect()
}

fn exit(status: &ContainerStatus) -> Option<ExitView> {
    let ended = status.state.as_ref()?.terminated.as_ref()?;
    let finished = ended.finished_at.as_ref().map(|t| t.0);
    Some(ExitView { container: status.name.clone(), code: ended.exit_code, finished })
}

/// A Node without its list of images.
#[derive(Clone, Debug)]
pub(crate) struct NodeView(pub(crate) Node);

impl std::ops::Deref for NodeView {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.0
    }
}

impl Viewed for NodeView {
    type Object = Node;

    fn project(mut node: Node) -> Self {
        node.metadata.managed_fields = None;
        if let Some(status) = &mut node.status {
            status.images = None;
        }
        Self(node)
    }
}

/// A whole Job, found by its controller.
#[derive(Clone, Debug)]
pub(crate) struct JobView(pub(crate) Job);

impl std::ops::Deref for JobView {
    type Target = Job;

    fn deref(&self) -> &Job {
        &self.0
    }
}

fn job_by_controller(job: &Cached<JobView>) -> Vec<String> {
    meta_by_controller(&job.metadata)
}

impl Viewed for JobView {
    type Object = Job;

    const INDICES: &'static [Index<Self>] = &[Index { name: BY_CONTROLLER, keys: job_by_controller }];

    fn project(mut job: Job) -> Self {
        job.metadata.managed_fields = None;
        Self(job)
    }
}

/// Index of whole objects by the UID of their controller, as [`BY_CONTROLLER`].
pub(crate) fn meta_by_controller(meta: &ObjectMeta) -> Vec<String> {
    let controller = ::controller::claim::controller_of(meta.owner_references.as_deref());
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    vec![controller.map_or_else(|| orphans_of(namespace), |o| o.uid.clone())]
}
