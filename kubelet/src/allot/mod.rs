//! What containers get for themselves when their Pod is taken: processors, devices, claims. All of it comes from near
//! each other, as far as the policy demands.

mod mask;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::core::v1::{Container, Pod};

pub use mask::{Distances, Hints, Mask, Policy, agree};

use crate::admission::Refusal;
use crate::config::KubeletConfiguration;
use crate::cpus::{CpuError, CpuLayout, CpuSet, Cpus};
use crate::devices::{Devices, Reusable};
use crate::memory::Memory;
use crate::metrics::METRICS;
use crate::pods;

const CLOSEST_NODES: &str = "prefer-closest-numa-nodes";
const MOST_NODES: &str = "max-allowable-numa-nodes";

/// What is wrong with an option of the policy, if anything.
pub(crate) fn check_option(name: &str, value: &str) -> Option<String> {
    let option = format!("topologyManagerPolicyOptions (--topology-manager-policy-options) {name}={value}");
    match name {
        CLOSEST_NODES if matches!(value, "true" | "false") => None,
        MOST_NODES => {
            let range = mask::MAX_NODES..=mask::MOST_NODES;
            let ok = value.parse().is_ok_and(|nodes: usize| range.contains(&nodes));
            (!ok).then(|| format!("{option} must be between {} and {}", range.start(), range.end()))
        }
        _ => Some(format!("{option} is not supported")),
    }
}

/// Whether containers are placed one by one or the Pod as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Container,
    Pod,
}

/// Gives and takes back.
pub struct Allotter {
    /// Devices of plugins.
    pub devices: Arc<Devices>,
    /// Processors.
    pub cpus: Arc<Cpus>,
    /// Memory.
    pub memory: Arc<Memory>,
    policy: Policy,
    scope: Scope,
    nodes: Mask,
    near: Option<Distances>,
}

impl Allotter {
    /// As configured.
    pub fn new(
        config: &KubeletConfiguration,
        devices: Arc<Devices>,
        cpus: Arc<Cpus>,
        memory: Arc<Memory>,
        layout: &CpuLayout,
    ) -> Result<Self, String> {
        let policy = match config.topology_manager_policy.as_str() {
            "best-effort" => Policy::BestEffort,
            "restricted" => Policy::Restricted,
            "single-numa-node" => Policy::SingleNode,
            _ => Policy::None,
        };
        let scope = if config.topology_manager_scope == "pod" { Scope::Pod } else { Scope::Container };
        let nodes = layout.nodes();
        let options = &config.topology_manager_policy_options;
        let most = options.get(MOST_NODES).and_then(|value| value.parse().ok()).unwrap_or(mask::MAX_NODES);
        if policy != Policy::None && nodes.len() > most {
            return Err(format!("unsupported on machines with more than {most} NUMA Nodes"));
        }
        let is_near = options.get(CLOSEST_NODES).is_some_and(|value| value == "true");
        let near = is_near.then(|| Distances::read(Path::new("/sys/devices/system"), &nodes));
        Ok(Self { devices, cpus, memory, policy, scope, nodes: Mask::of(nodes), near })
    }

    /// Gives a Pod's containers what they ask for, or says why the node does not take the Pod.
    pub async fn admit(&self, pod: &Pod) -> Result<(), Refusal> {
        let start = Instant::now();
        let result = self.give(pod).await;
        METRICS.allot.topology_duration.observe(start.elapsed().as_secs_f64() * 1000.0);
        if result.is_err() {
            self.release(pods::uid(pod));
        }
        result
    }

    async fn give(&self, pod: &Pod) -> Result<(), Refusal> {
        let mut devices = Reusable::default();
        let mut cpus = CpuSet::default();
        let everything: Vec<&Container> = pods::init_containers(pod).iter().chain(pods::containers(pod)).collect();
        let whole = match self.scope {
            Scope::Pod => Some(self.place(pod, &peak(pod), &cpus, &devices)?),
            Scope::Container => None,
        };
        for container in everything {
            let mask = match whole {
                Some(mask) => mask,
                None => self.place(pod, &[container], &cpus, &devices)?,
            };
            self.cpus.allocate(pod, container, mask, &cpus).map_err(|error| refusal_of_cpus(&error))?;
            self.memory.allocate(pod, container, mask).map_err(|error| unexpected(&error))?;
            self.devices.allocate(pod, container, mask, &mut devices).await.map_err(|error| unexpected(&error))?;
            let held = self.cpus.exclusive(pods::uid(pod), &container.name).unwrap_or_default();
            cpus = if pods::ends_before_others(pod, container) { cpus.union(&held) } else { cpus.difference(&held) };
        }
        Ok(())
    }

    /// The nodes from which containers get everything; `None` if it does not matter.
    fn place(
        &self,
        pod: &Pod,
        containers: &[&Container],
        cpus: &CpuSet,
        devices: &Reusable,
    ) -> Result<Option<Mask>, Refusal> {
        if self.policy == Policy::None {
            return Ok(None);
        }
        METRICS.allot.topology_requests.inc();
        let mut wishes: Vec<Hints> = vec![self.cpus.hints(pod, containers, cpus)];
        wishes.push(self.memory.hints(pod, containers));
        wishes.extend(self.devices.hints(pod, containers, self.nodes, devices));
        let agreed = agree(self.policy, self.nodes, &wishes, self.near.as_ref());
        if self.policy == Policy::SingleNode {
            let scope = if self.scope == Scope::Pod { "pod" } else { "container" };
            count_alignment(scope, "numa_node", agreed.is_ok());
        }
        agreed.map_err(|_| {
            METRICS.allot.topology_errors.inc();
            Refusal::new("TopologyAffinityError", "Resources cannot be allocated with Topology locality")
        })
    }

    /// Takes everything back from a Pod that is over.
    pub fn release(&self, uid: &str) {
        self.devices.release(uid);
        self.cpus.release(uid);
        self.memory.release(uid);
    }

    /// Takes everything back from Pods that are not among these.
    pub fn retain(&self, is_known: impl Fn(&str) -> bool + Copy) {
        self.devices.retain(is_known);
        self.cpus.retain(is_known);
        self.memory.retain(is_known);
    }

    /// Extended resources of the node: all and usable.
    pub fn amounts(&self) -> BTreeMap<String, (usize, usize)> {
        self.devices.amounts()
    }
}

/// Counts whether what is given stays within a boundary of the machine.
pub(crate) fn count_alignment(scope: &str, boundary: &str, stays: bool) {
    let counter = if stays { &METRICS.allot.aligned } else { &METRICS.allot.misaligned };
    counter.with_label_values(&[scope, boundary]).inc();
}

/// The containers that together want the most: the regular ones with the sidecars, unless an init container alone wants
/// more, which is then given what the others leave it.
fn peak(pod: &Pod) -> Vec<&Container> {
    let sidecars = pods::init_containers(pod).iter().filter(|container| pods::is_sidecar(container));
    sidecars.chain(pods::containers(pod)).collect()
}

fn refusal_of_cpus(error: &CpuError) -> Refusal {
    match error {
        CpuError::Alignment { .. } => Refusal::new("SMTAlignmentError", error.to_string()),
        CpuError::TooFew { .. } => unexpected(&error.to_string()),
    }
}

fn unexpected(error: &str) -> Refusal {
    Refusal::new("UnexpectedAdmissionError", format!("Allocate failed due to {error}, which is unexpected"))
}
