//! The plugins.

pub(crate) mod balanced_allocation;
pub(crate) mod default_preemption;
pub(crate) mod dynamic_resources;
pub(crate) mod image_locality;
pub(crate) mod inter_pod_affinity;
pub(crate) mod node_affinity;
pub(crate) mod node_declared_features;
pub(crate) mod node_name;
pub(crate) mod node_ports;
pub(crate) mod node_resources_fit;
pub(crate) mod node_unschedulable;
pub(crate) mod scheduling_gates;
pub(crate) mod scored;
pub(crate) mod taint_toleration;
pub(crate) mod topology_spread;
pub(crate) mod volumes;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
