//! Whom to end first.

use std::cmp::{Ordering, Reverse};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::threshold::Signal;
use crate::platform::DiskUse;
use crate::pods;
use crate::pods::resources::Effective;
use crate::stats::{ContainerStats, PodStats};

/// A Pod with what it uses, if that is known.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The Pod.
    pub pod: Arc<Pod>,
    /// Its use.
    pub stats: Option<PodStats>,
}

/// How file systems are divided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Images are on a file system of their own.
    pub image_fs: bool,
    /// Layers of containers are on another one than images.
    pub split: bool,
}

/// What counts against a Pod for a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counted {
    layers: bool,
    logs_and_volumes: bool,
}

fn counted(signal: Signal, layout: Layout) -> Counted {
    let all = Counted { layers: true, logs_and_volumes: true };
    match signal {
        _ if !layout.image_fs => all,
        Signal::NodeFs | Signal::NodeFsInodes if layout.split => all,
        Signal::NodeFs | Signal::NodeFsInodes => Counted { layers: false, logs_and_volumes: true },
        Signal::ImageFs | Signal::ImageFsInodes if layout.split => Counted { layers: false, logs_and_volumes: false },
        Signal::ImageFs | Signal::ImageFsInodes => Counted { layers: true, logs_and_volumes: false },
        _ => all,
    }
}

fn of_container(container: &ContainerStats, counted: Counted) -> DiskUse {
    let layer = container.rootfs.filter(|_| counted.layers).unwrap_or_default();
    layer + container.logs.filter(|_| counted.logs_and_volumes).unwrap_or_default()
}

/// Sorts, the first to be ended first.
pub(super) fn rank(candidates: &mut [Candidate], signal: Signal, layout: Layout) {
    candidates.sort_by(|a, b| compare(a, b, signal, layout));
}

fn compare(a: &Candidate, b: &Candidate, signal: Signal, layout: Layout) -> Ordering {
    let by_priority = pods::priority(&a.pod).cmp(&pods::priority(&b.pod));
    if signal == Signal::Pid {
        let tasks = |one: &Candidate| Reverse(one.stats.as_ref().map_or(0, PodStats::processes));
        return by_priority.then_with(|| tasks(a).cmp(&tasks(b)));
    }
    // Those without statistics come first: nothing is known in their favour.
    let unknown = |one: &Candidate| Reverse(one.stats.is_none());
    let over = |one: &Candidate| over_request(one, signal, layout);
    unknown(a)
        .cmp(&unknown(b))
        .then_with(|| Reverse(over(a) > 0).cmp(&Reverse(over(b) > 0)))
        .then(by_priority)
        .then_with(|| Reverse(over(a)).cmp(&Reverse(over(b))))
}

/// Use beyond what was asked for; negative if there is room left.
fn over_request(candidate: &Candidate, signal: Signal, layout: Layout) -> i128 {
    let Some(stats) = &candidate.stats else { return 0 };
    let (used, resource) = match signal {
        Signal::Memory | Signal::AllocatableMemory => (stats.working_set(), "memory"),
        _ => {
            let counted = counted(signal, layout);
            let containers = stats.containers.iter().map(|container| of_container(container, counted));
            let volumes = stats.volumes.iter().filter(|volume| volume.ephemeral && counted.logs_and_volumes);
            let sum =
                containers.chain(volumes.map(|volume| volume.used)).fold(DiskUse::default(), |sum, one| sum + one);
            if signal.counts_inodes() {
                return i128::from(sum.inodes);
            }
            (sum.bytes, "ephemeral-storage")
        }
    };
    i128::from(used) - i128::from(Effective::of(&candidate.pod).request(resource))
}
