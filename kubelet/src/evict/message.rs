//! What an evicted Pod is told.

use std::fmt::Write;

use super::observe::Observations;
use super::rank::Candidate;
use super::threshold::{Signal, Threshold, shown};
use crate::pods;
use crate::pods::quantity;
use crate::pods::resources::amount;

/// Why the node ended a Pod.
pub(super) fn message(threshold: &Threshold, observations: &Observations, candidate: &Candidate) -> String {
    let resource = threshold.signal.resource();
    let mut out = format!("The node was low on resource: {resource}. ");
    if let Some(seen) = observations.get(&threshold.signal) {
        let wanted = shown(threshold.signal, threshold.value.of(seen.capacity));
        let available = shown(threshold.signal, seen.available);
        // Writing to a string cannot fail.
        let _written = write!(out, "Threshold quantity: {wanted}, available: {available}. ").is_ok();
    }
    for container in candidate.stats.iter().flat_map(|stats| &stats.containers) {
        let used = match threshold.signal {
            Signal::Memory | Signal::AllocatableMemory => container.group.map(|group| group.usage.working_set()),
            signal if resource == "ephemeral-storage" && !signal.counts_inodes() => {
                let sum = container.rootfs.unwrap_or_default() + container.logs.unwrap_or_default();
                Some(sum.bytes)
            }
            _ => None,
        };
        let Some(used) = used.and_then(|used| i64::try_from(used).ok()) else { continue };
        let Some((spec, _)) = pods::find_container(&candidate.pod, &container.name) else { continue };
        let asked = amount(spec.resources.as_ref().and_then(|all| all.requests.as_ref()), resource);
        if used > asked.map_or(0, quantity::value) {
            let used = quantity::bytes(used);
            let asked = asked.map_or("0", |asked| asked.0.as_str());
            let _written = write!(
                out,
                "Container {} was using {used}, request is {asked}, has larger consumption of {resource}. ",
                container.name
            )
            .is_ok();
        }
    }
    out
}
