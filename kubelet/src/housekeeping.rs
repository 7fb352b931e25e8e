//! Ending and removing what nobody wants, and keeping the control groups above all Pods.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::cri::PodView;
use crate::events::EventType;
use crate::metrics::METRICS;
use crate::node::machine;
use crate::platform::{CgroupLimits, CgroupName};
use crate::pleg::{Pleg, RuntimePods};
use crate::pods;
use crate::pods::resources::Qos;
use crate::services::Services;
use crate::sources::Desired;
use crate::spec::qos_limits;
use crate::workers::{LostPod, PodSummary, Stage, Workers};

const QOS_PERIOD: Duration = Duration::from_secs(60);

/// Looks between two at all that Pods may have left.
const QUIET: u32 = 10;

/// When all that Pods may have left is looked through: after Pods went for a while each time, else now and then.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    count: u32,
    busy_until: u32,
}

impl Rounds {
    /// Whether this round is one; `gone`: Pods were forgotten in it.
    fn next(&mut self, gone: bool) -> bool {
        if gone {
            self.busy_until = self.count.saturating_add(QUIET);
        }
        let due = self.count < self.busy_until || self.count.is_multiple_of(QUIET);
        self.count = self.count.wrapping_add(1);
        due
    }
}

/// Ends what nobody wants any more and removes what it left.
pub(crate) async fn housekeep(
    desired: &Desired,
    services: &Services,
    workers: &Workers,
    pleg: &Pleg,
    rounds: &mut Rounds,
) {
    let gone = !workers.prune().is_empty();
    count(desired, services, workers);
    if !desired.is_complete() {
        return;
    }
    workers.complete();
    let is_known = |uid: &str| desired.contains(uid) || workers.get(uid).is_some();
    services.allot.retain(is_known);
    services.resizes.retain(is_known);
    services.user_namespaces.retain(is_known);
    for uid in services.claims.users().iter().filter(|uid| !is_known(uid)) {
        if let Err(error) = services.claims.unprepare(uid).await {
            tracing::warn!(uid, error, "claims of a pod that is gone");
        }
    }
    for (uid, pod) in pleg.pods().iter() {
        if !pod.running || desired.contains(uid) || workers.get(uid).is_some() {
            continue;
        }
        // The list may be older than the Pod's end: what counts is what runs now.
        let view = PodView::read(&services.cri, uid).await;
        if let Some(view) = view.ok().filter(|view| view.running().next().is_some() || view.active_sandbox().is_some())
        {
            METRICS.orphaned_pods.inc();
            tracing::info!(uid, pod = pod.name, namespace = pod.namespace, "stopping a pod that nobody wants");
            let lost = LostPod::restore(uid, &pod.name, &pod.namespace, &view);
            workers.stop_lost(Arc::new(lost));
        }
    }
    if rounds.next(gone) {
        remove_orphans(desired, services, workers, &pleg.pods()).await;
    }
}

/// Tells what Pods there are.
fn count(desired: &Desired, services: &Services, workers: &Workers) {
    let series = &METRICS.pods;
    let (mut active, mut working) = (BTreeMap::from([("", 0), ("true", 0)]), BTreeMap::new());
    for lifecycle in ["sync", "terminating", "terminated"] {
        for config in ["desired", "orphan"] {
            working.extend([("", 0), ("true", 0)].map(|(own, none)| ((config, lifecycle, own), none)));
        }
        working.insert(("runtime_only", lifecycle, "unknown"), 0);
    }
    let mut ephemeral = 0;
    let all = workers.all();
    services.volumes.count(all.iter().filter(|one| one.stage == Stage::Syncing).map(|one| &*one.pod));
    for PodSummary { pod, stage, removed } in all {
        let lifecycle = match stage {
            Stage::Syncing => "sync",
            Stage::Terminating => "terminating",
            Stage::Terminated => "terminated",
            // Nothing is left of it, and it takes no room.
            Stage::Finished => continue,
        };
        let own = if pods::is_static(&pod) { "true" } else { "" };
        let key = match (desired.contains(pods::uid(&pod)), LostPod::is(&pod)) {
            (true, _) => ("desired", lifecycle, own),
            (false, false) => ("orphan", lifecycle, own),
            (false, true) => ("runtime_only", lifecycle, "unknown"),
        };
        *working.entry(key).or_default() += 1;
        if !removed {
            *active.entry(own).or_default() += 1;
        }
        ephemeral += i64::try_from(pods::ephemeral_containers(&pod).len()).unwrap_or(0);
    }
    for (own, count) in active {
        series.active.with_label_values(&[own]).set(count);
    }
    for ((config, lifecycle, own), count) in working {
        series.working.with_label_values(&[config, lifecycle, own]).set(count);
    }
    series.ephemeral.set(ephemeral);
}

/// Directories and control groups of Pods that are over.
async fn remove_orphans(desired: &Desired, services: &Services, workers: &Workers, running: &RuntimePods) {
    let is_over = |uid: &str| {
        !desired.contains(uid) && workers.get(uid).is_none() && !running.get(uid).is_some_and(|pod| pod.running)
    };
    let entries = std::fs::read_dir(services.paths.pods()).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let (mut cleaned, mut busy) = (0, 0);
    for uid in names.filter(|uid| is_over(uid)) {
        if let Err(error) = services.volumes.tear_down(&uid).await {
            busy += 1;
            tracing::error!(uid, %error, "orphaned pod found, but its volumes are still mounted");
            continue;
        }
        if services.volumes.is_clean(&uid)
            && let Err(error) = std::fs::remove_dir_all(services.paths.pod(&uid))
        {
            tracing::error!(uid, %error, "directory of an orphaned pod");
        }
        cleaned += 1;
    }
    METRICS.pods.orphan_volumes.set(f64::from(cleaned));
    METRICS.pods.orphan_volume_errors.set(f64::from(busy));
    if services.settings.cgroups_per_qos {
        for (name, uid) in services.platform.pod_cgroups(&services.settings.pods_root) {
            if is_over(&uid)
                && let Err(error) = services.platform.remove_cgroup(&name)
            {
                tracing::warn!(uid, %error, "control group of an orphaned pod");
            }
        }
    }
}

/// Keeps the groups of all Pods and of the classes.
pub(crate) async fn qos_loop(services: Arc<Services>, workers: Arc<Workers>, stop: CancellationToken) {
    if !services.settings.cgroups_per_qos {
        return;
    }
    let mut ticks = tokio::time::interval(QOS_PERIOD);
    let mut told = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let (parts, workers) = (Arc::clone(&services), Arc::clone(&workers));
        let enforced = tokio::task::spawn_blocking(move || {
            let enforced = enforce(&parts);
            // The groups of the classes are below that of all Pods.
            if let Err(error) = write_classes(&parts, &workers) {
                tracing::error!(%error, "control groups of the classes");
            }
            enforced
        });
        match enforced.await {
            Ok(Ok(enforced)) => {
                for text in enforced.into_iter().filter(|_| !told) {
                    services.events.node(EventType::Normal, "NodeAllocatableEnforced", text);
                }
                told = true;
            }
            Ok(Err(text)) => services.events.node(EventType::Warning, "FailedNodeAllocatableEnforcement", text),
            Err(error) => tracing::error!(%error, "control groups of the node"),
        }
    }
}

/// Keeps the kubelet, and what else belongs to the system, in the groups that they shall be in.
pub(crate) async fn system_loop(services: Arc<Services>, stop: CancellationToken) {
    let config = Arc::clone(&services.config);
    if config.system_cgroups.is_empty() && config.kubelet_cgroups.is_empty() {
        return;
    }
    let mut ticks = tokio::time::interval(QOS_PERIOD);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let (platform, config) = (Arc::clone(&services.platform), Arc::clone(&config));
        let kept = tokio::task::spawn_blocking(move || {
            if !config.kubelet_cgroups.is_empty() {
                platform.join_cgroup(&config.kubelet_cgroups)?;
            }
            match config.system_cgroups.as_str() {
                "" => Ok(0),
                path => platform.gather_system(path),
            }
        });
        match kept.await {
            Ok(Ok(0)) => {}
            Ok(Ok(moved)) => tracing::info!(v = 3, moved, "moved non-kernel processes to the system cgroup"),
            Ok(Err(error)) => tracing::error!(%error, "failed to ensure state of system containers"),
            Err(error) => tracing::error!(%error, "system containers"),
        }
    }
}

/// Limits all Pods together, and what is reserved; answers what was done.
fn enforce(services: &Services) -> Result<Vec<String>, String> {
    let root = &services.settings.pods_root;
    let limited = services.config.enforce_node_allocatable.iter().any(|what| what == "pods");
    let limits = match limited {
        true => machine::pods_group_limits(&services.config, &services.facts.get()),
        false => CgroupLimits::default(),
    };
    let apply = |name: &CgroupName, limits: &CgroupLimits, what: &str| {
        let path = services.platform.cgroup_path(name);
        let written = services.platform.apply_cgroup(name, limits);
        written.map_err(|error| format!("Failed to {what} {path:?}: {error}"))
    };
    apply(root, &limits, "update Node Allocatable Limits")?;
    let mut done: Vec<String> =
        limited.then(|| "Updated Node Allocatable limit across pods".to_owned()).into_iter().collect();
    for (what, title, name, reserved) in [
        ("system-reserved", "System", &services.config.system_reserved_cgroup, &services.config.system_reserved),
        ("kube-reserved", "Kube", &services.config.kube_reserved_cgroup, &services.config.kube_reserved),
    ] {
        if services.config.enforce_node_allocatable.iter().any(|one| one == what) {
            let limits = machine::reserved_limits(reserved);
            apply(&CgroupName::parse(name), &limits, &format!("enforce {title} Reserved Cgroup Limits on"))?;
            done.push(format!("Updated limits on {} reserved cgroup {name}", title.to_lowercase()));
        }
    }
    Ok(done)
}

/// Keeps the groups of the classes.
fn write_classes(services: &Services, workers: &Workers) -> std::io::Result<()> {
    let root = &services.settings.pods_root;
    let all = workers.all();
    for (qos, name) in [(Qos::Burstable, "burstable"), (Qos::BestEffort, "besteffort")] {
        let limits = qos_limits(qos, all.iter().map(|summary| &*summary.pod));
        services.platform.apply_cgroup(&root.child(name), &limits)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pods_left_is_looked_for_after_they_went() {
        let mut rounds = Rounds::default();
        let mut take = |count: usize, gone: bool| (0..count).filter(|_| rounds.next(gone)).count();
        assert_eq!(take(1, false), 1);
        assert_eq!(take(9, false), 0);
        assert_eq!(take(10, false), 1);
        assert_eq!(take(1, true), 1);
        assert_eq!(take(9, false), 9);
        assert_eq!(take(9, false), 1);
    }
}
