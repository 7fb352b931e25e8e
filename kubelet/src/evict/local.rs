//! Pods that use more local storage than they may.

use k8s_openapi::api::core::v1::Pod;

use crate::platform::DiskUse;
use crate::pods;
use crate::pods::quantity;
use crate::pods::resources::{Effective, limit};
use crate::stats::PodStats;

/// A limit that is exceeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Excess {
    /// What the metric calls it.
    pub signal: &'static str,
    /// What the Pod is told.
    pub message: String,
}

/// Whether a Pod could exceed anything here.
pub(crate) fn is_limited(pod: &Pod) -> bool {
    let sized = |volume: &k8s_openapi::api::core::v1::Volume| {
        volume.empty_dir.as_ref().is_some_and(|source| source.size_limit.is_some())
    };
    let spec = pods::spec(pod);
    spec.volumes.iter().flatten().any(sized)
        || Effective::of(pod).limit("ephemeral-storage").is_some()
        || pods::all_containers(pod)
            .any(|(container, _)| limit(container.resources.as_ref(), "ephemeral-storage").is_some())
}

/// The first limit a Pod exceeds.
pub(super) fn excess(pod: &Pod, stats: &PodStats) -> Option<Excess> {
    empty_dir(pod, stats).or_else(|| whole(pod, stats)).or_else(|| container(pod, stats))
}

fn empty_dir(pod: &Pod, stats: &PodStats) -> Option<Excess> {
    pods::spec(pod).volumes.iter().flatten().find_map(|volume| {
        let limit = volume.empty_dir.as_ref()?.size_limit.as_ref()?;
        let used = stats.volumes.iter().find(|stats| stats.name == volume.name)?.used.bytes;
        let most = u64::try_from(quantity::value(limit)).ok().filter(|most| *most > 0)?;
        (used > most).then(|| Excess {
            signal: "emptydirfs.limit",
            message: format!("Usage of EmptyDir volume {:?} exceeds the limit {:?}. ", volume.name, limit.0),
        })
    })
}

/// Everything together against the sum of the limits, if every container has one.
fn whole(pod: &Pod, stats: &PodStats) -> Option<Excess> {
    let most = u64::try_from(Effective::of(pod).limit("ephemeral-storage")?).ok()?;
    (stats.ephemeral_storage().bytes > most).then(|| Excess {
        signal: "ephemeralpodfs.limit",
        message: format!(
            "Pod ephemeral local storage usage exceeds the total limit of containers {}. ",
            quantity::bytes(i64::try_from(most).unwrap_or(i64::MAX))
        ),
    })
}

fn container(pod: &Pod, stats: &PodStats) -> Option<Excess> {
    stats.containers.iter().find_map(|stats| {
        let (container, _) = pods::find_container(pod, &stats.name)?;
        let most = u64::try_from(limit(container.resources.as_ref(), "ephemeral-storage")?).ok()?;
        let used: DiskUse = stats.rootfs.unwrap_or_default() + stats.logs.unwrap_or_default();
        (used.bytes > most).then(|| {
            let text = quantity::bytes(i64::try_from(most).unwrap_or(i64::MAX));
            Excess {
                signal: "ephemeralcontainerfs.limit",
                message: format!("Container {} exceeded its local ephemeral storage limit {text:?}. ", stats.name),
            }
        })
    })
}
