//! What Pods may know about the node, shared between all parts.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use parking_lot::RwLock;

use crate::pods::quantity;
use crate::pods::resources::Amounts;

/// Facts that change rarely.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeFacts {
    /// Node name.
    pub name: String,
    /// Addresses, primary family first.
    pub addresses: Vec<IpAddr>,
    /// Everything the machine has.
    pub capacity: Amounts,
    /// What Pods may use.
    pub allocatable: Amounts,
    /// The Node as last read: its labels and taints.
    pub object: Option<Arc<Node>>,
}

impl NodeFacts {
    /// Bytes of memory of the machine.
    pub fn memory_capacity(&self) -> i64 {
        self.capacity.get("memory").map_or(0, quantity::value)
    }
}

/// The current facts.
#[derive(Clone, Default)]
pub struct SharedFacts(Arc<RwLock<Arc<NodeFacts>>>);

impl SharedFacts {
    /// Starts with some facts.
    pub fn new(facts: NodeFacts) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(facts))))
    }

    /// The current facts.
    pub fn get(&self) -> Arc<NodeFacts> {
        Arc::clone(&self.0.read())
    }

    /// Changes them.
    pub fn update(&self, change: impl FnOnce(&mut NodeFacts)) {
        let mut guard = self.0.write();
        let mut facts = (**guard).clone();
        change(&mut facts);
        *guard = Arc::new(facts);
    }
}
