//! Resources that scoring looks at, and how much of them nodes have.

use std::sync::Arc;

use crate::{
    cluster::{Amounts, Cluster, NodeIx, Symbol},
    devices::{Devices, StandIns},
};

/// A resource with what it counts for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResourceWeight {
    pub(crate) name: Box<str>,
    pub(crate) weight: i64,
}

impl ResourceWeight {
    /// The resources that count unless a file says otherwise.
    pub(crate) fn usual() -> Vec<Self> {
        let one = |name: &str| Self { name: name.into(), weight: 1 };
        vec![one("cpu"), one("memory")]
    }

    fn is_native(&self) -> bool {
        matches!(&*self.name, "cpu" | "memory" | "ephemeral-storage")
    }
}

/// Whether scores by these resources depend on nothing but the node: devices are no part of it.
pub(crate) fn are_local(resources: &[ResourceWeight], devices: Option<&Arc<Devices>>) -> bool {
    devices.is_none() || resources.iter().all(ResourceWeight::is_native)
}

enum Kind {
    Cpu,
    Memory,
    Ephemeral,
    /// Its number, if a node has it; the devices that stand for it where a node does not offer it.
    Extended(Option<Symbol>, Option<StandIns>),
}

/// A resource that one Pod is scored by.
pub(crate) struct Scored {
    kind: Kind,
    /// What the Pod adds.
    pub(crate) added: i64,
    pub(crate) weight: i64,
}

impl Scored {
    /// `None` if the resource does not count: extended resources do for those who want them.
    pub(crate) fn new(
        resource: &ResourceWeight,
        added: i64,
        cluster: &Cluster,
        devices: Option<&Arc<Devices>>,
    ) -> Option<Self> {
        let kind = match &*resource.name {
            "cpu" => Kind::Cpu,
            "memory" => Kind::Memory,
            "ephemeral-storage" => Kind::Ephemeral,
            _ if added == 0 => return None,
            name => Kind::Extended(cluster.symbols.find(name), devices.and_then(|devices| devices.stand_ins(name))),
        };
        Some(Self { kind, added, weight: resource.weight })
    }

    /// What a node has, and what is taken of it. `estimated` counts a little for containers that do not say what they
    /// need.
    pub(crate) fn amounts(&self, cluster: &Cluster, node: NodeIx, estimated: bool) -> (i64, i64) {
        let (nodes, at) = (&cluster.nodes, node.at());
        let of = |amounts: &Amounts| (amounts.allocatable[at], amounts.requested[at]);
        match &self.kind {
            Kind::Cpu if estimated => (nodes.cpu.allocatable[at], nodes.scored_cpu[at]),
            Kind::Memory if estimated => (nodes.memory.allocatable[at], nodes.scored_memory[at]),
            Kind::Cpu => of(&nodes.cpu),
            Kind::Memory => of(&nodes.memory),
            Kind::Ephemeral => of(&nodes.ephemeral),
            Kind::Extended(symbol, stand_ins) => {
                let own = symbol.map_or((0, 0), |symbol| nodes.scalar(node, symbol));
                match stand_ins {
                    Some(stand_ins) if own.0 == 0 => stand_ins.amounts(cluster, node),
                    _ => own,
                }
            }
        }
    }
}
