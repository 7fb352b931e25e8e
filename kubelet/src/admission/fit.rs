//! Whether there is room.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::{Refusal, Situation};
use crate::pods;
use crate::pods::resources::{Effective, number};

/// A resource of which there is not enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shortage {
    pub resource: String,
    pub requested: i64,
    pub used: i64,
    pub capacity: i64,
}

impl Shortage {
    /// How much more there would have to be.
    pub(super) fn missing(&self) -> i64 {
        self.requested.saturating_add(self.used).saturating_sub(self.capacity)
    }

    pub(super) fn refusal(&self) -> Refusal {
        let Self { resource, requested, used, capacity } = self;
        let text = format!(
            "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
        );
        Refusal::new(format!("OutOf{resource}"), text)
    }
}

pub(super) fn admit(pod: &Pod, situation: &Situation<'_>) -> Result<Vec<Shortage>, Refusal> {
    let node = &situation.node.name;
    if pods::spec(pod).node_name.as_deref().is_some_and(|name| !name.is_empty() && name != node) {
        let text = "Predicate NodeName failed: node(s) didn't match the requested node name";
        return Err(Refusal::new("NodeName", text));
    }
    let wanted = host_ports(pod);
    let taken =
        |port: &HostPort| situation.others.iter().flat_map(|other| host_ports(other)).any(|other| clash(port, &other));
    if wanted.iter().any(taken) {
        let text = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        return Err(Refusal::new("NodePorts", text));
    }
    Ok(shortages(pod, situation))
}

/// Protocol, address and port.
type HostPort = (String, String, i32);

fn clash(a: &HostPort, b: &HostPort) -> bool {
    let every = |ip: &str| matches!(ip, "" | "0.0.0.0" | "::");
    a.0 == b.0 && a.2 == b.2 && (a.1 == b.1 || every(&a.1) || every(&b.1))
}

/// Every port of the host that a Pod takes.
fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let sidecars = pods::init_containers(pod).iter().filter(|container| pods::is_sidecar(container));
    let ports = pods::containers(pod).iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let taken = ports.filter_map(|port| {
        let number = port.host_port.filter(|port| *port > 0)?;
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        Some((protocol, port.host_ip.clone().unwrap_or_default(), number))
    });
    taken.collect()
}

/// Everything of which there is not enough.
fn shortages(pod: &Pod, situation: &Situation<'_>) -> Vec<Shortage> {
    let allocatable = &situation.node.allocatable;
    let capacity = |name: &str| allocatable.get(name).map(|amount| number(name, amount));
    let mut found = Vec::new();
    let mut short = |name: &str, requested: i64, used: i64, capacity: i64| {
        found.push(Shortage { resource: name.to_owned(), requested, used, capacity });
    };
    let count = i64::try_from(situation.others.len()).unwrap_or(i64::MAX);
    if let Some(most) = capacity("pods").filter(|most| count + 1 > *most) {
        short("pods", 1, count, most);
    }
    let names = ["cpu", "memory", "ephemeral-storage"].map(str::to_owned).into_iter();
    let rest = Effective::of(pod).names().into_iter().filter(|name| name.starts_with("hugepages-"));
    for name in names.chain(rest) {
        let requested = Effective::of(pod).request(&name);
        // Resources that the node does not know are nobody's promise here.
        let Some(most) = capacity(&name).filter(|_| requested > 0) else { continue };
        let used = situation.others.iter().map(|other: &Arc<Pod>| Effective::of(other).request(&name)).sum::<i64>();
        if used.saturating_add(requested) > most {
            short(&name, requested, used, most);
        }
    }
    found
}
