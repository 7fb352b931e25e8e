//! Giving Pods what they want instead of what they have, and containers what their Pod was given.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio_util::sync::CancellationToken;

use super::actor::{Actor, RoundError};
use super::inbox::Inbox;
use super::registry::{Stage, Workers};
use crate::cri::{PodView, v1};
use crate::events::EventType;
use crate::metrics::METRICS;
use crate::platform::CgroupLimits;
use crate::pods::{self, resources};
use crate::resize::{self, Changes, Given, INFEASIBLE, RESIZABLE, Trigger, with_resource};
use crate::services::Services;
use crate::spec::{container_resources, pod_amounts, pod_cgroup, pod_limits};

/// The first regular look at what had to wait, and the time between later ones.
const LOOKS: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(180));

/// Gives what can be given, whenever there may be room.
pub async fn resize_loop(workers: Arc<Workers>, services: Arc<Services>, stop: CancellationToken) {
    let mut looks = tokio::time::interval_at(tokio::time::Instant::now() + LOOKS.0, LOOKS.1);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = services.resizes.woken() => {}
            _ = looks.tick() => {}
        }
        let given = workers.give(services.resizes.trigger());
        // Nobody acts on what is not written down.
        services.resizes.flush().await;
        for (inbox, pod) in given {
            inbox.update(pod, true);
        }
    }
}

impl Workers {
    /// Decides about every Pod that wants something else than it has; answers those that get it.
    fn give(&self, trigger: Trigger) -> Vec<(Arc<Inbox>, Arc<Pod>)> {
        let services = &self.services;
        let now = Timestamp::now();
        let mut inner = self.inner.lock();
        let mut waiting = Vec::new();
        for (uid, worker) in &inner.workers {
            let is_settled = worker.removed
                || *worker.stage.borrow() != Stage::Syncing
                || pods::is_deleting(&worker.wanted)
                || pods::is_static(&worker.wanted)
                || Given::of(&worker.wanted).is_same(&Given::of(&worker.pod));
            if !is_settled {
                let since = services.resizes.waiting_since(uid, now).as_second();
                waiting.push((resize::precedence(&worker.wanted, &worker.pod, since), uid.clone()));
            } else if services.resizes.content(uid) {
                worker.inbox.nudge();
            }
        }
        waiting.sort();
        let mut given = Vec::new();
        for (_, uid) in waiting {
            let others = inner.present(|other| other != uid);
            let Some(worker) = inner.workers.get_mut(&uid) else { continue };
            if services.decide_resize(&worker.wanted, &worker.pod, &others, (trigger, now)) {
                worker.pod = Arc::clone(&worker.wanted);
                given.push((Arc::clone(&worker.inbox), Arc::clone(&worker.pod)));
            } else {
                worker.inbox.nudge();
            }
        }
        given
    }
}

impl Services {
    /// Decides about one Pod, and tells.
    fn decide_resize(
        &self,
        wanted: &Pod,
        has: &Pod,
        others: &[Arc<Pod>],
        (trigger, now): (Trigger, Timestamp),
    ) -> bool {
        let node = self.facts.get();
        match resize::decide(wanted, has, &self.config, &self.settings, &self.situation(&node, others)) {
            Ok(()) => {
                for labels in resize::requested(wanted, has) {
                    METRICS.requested_resizes.with_label_values(&labels).inc();
                }
                if self.resizes.give(wanted, now) {
                    METRICS.pods.accepted_resizes.with_label_values(&[trigger.label()]).inc();
                }
                let text = format!("Pod resize started: {}", resize::details(wanted, ""));
                self.events.pod(wanted, EventType::Normal, "ResizeStarted", text);
                true
            }
            Err(refusal) => {
                if self.resizes.refuse(wanted, &refusal, now) {
                    let infeasible = refusal.reason == INFEASIBLE;
                    let reason = if infeasible { "ResizeInfeasible" } else { "ResizeDeferred" };
                    let details = resize::details(wanted, &refusal.message);
                    let text = format!("Pod resize {}: {details}", refusal.reason);
                    self.events.pod(wanted, EventType::Warning, reason, text);
                }
                false
            }
        }
    }
}

impl Actor {
    /// Limits of the Pod's group; processors of its own need no quota.
    pub(super) fn group_limits(&self, pod: &Pod) -> CgroupLimits {
        let mut limits = pod_limits(pod, &self.services.settings);
        let mut containers = pods::containers(pod).iter();
        if containers.any(|one| self.services.allot.cpus.exclusive(self.uid(), &one.name).is_some()) {
            limits.cpu_quota = Some(-1);
        }
        limits
    }

    /// Makes running containers have what they were given.
    pub(super) async fn resize(&self, changes: &Changes, sandbox: &str) -> Result<(), RoundError> {
        if changes.update.is_empty() && changes.restart.is_empty() && !changes.pod {
            return Ok(());
        }
        let start = Instant::now();
        let done = self.try_resize(changes, sandbox).await;
        let success = if done.is_ok() { "true" } else { "false" };
        METRICS.pods.resize_duration.with_label_values(&[success]).observe(start.elapsed().as_secs_f64() * 1000.0);
        self.services.resizes.flush().await;
        let Err(message) = done else { return Ok(()) };
        if self.services.resizes.failed(&self.pod, &message, Timestamp::now()) {
            let text = format!("Pod resize error: {}", resize::details(&self.pod, &message));
            self.services.events.pod(&self.pod, EventType::Warning, "ResizeError", text);
        }
        Err(RoundError::Other(message))
    }

    async fn try_resize(&self, changes: &Changes, sandbox: &str) -> Result<(), String> {
        self.leaves_room(changes).await?;
        let (before, after) = (self.group_limits(&changes.before), self.group_limits(&self.pod));
        for resource in RESIZABLE {
            let group = Group { actor: self, sandbox, resource, before: &before, after: &after };
            group.grow().await?;
            self.resize_containers(changes, resource).await?;
            group.shrink().await?;
        }
        let level = pods::spec(&self.pod).resources.clone();
        self.services.resizes.told_pod(self.uid(), level);
        Ok(())
    }

    /// The containers whose amount of one resource differs, those that get less first.
    async fn resize_containers(&self, changes: &Changes, resource: &str) -> Result<(), String> {
        let node = self.services.facts.get();
        let mut concerned: Vec<_> = changes.update.iter().filter(|change| change.concerns(resource)).collect();
        concerned.sort_by_key(|change| change.growth(resource));
        for change in concerned {
            let name = &change.container.name;
            let known = self.services.resizes.actuated(self.uid()).containers.remove(name);
            let target = with_resource(known.as_ref(), change.container.resources.as_ref(), resource);
            let mut container = change.container.clone();
            container.resources = Some(target.clone());
            let mut linux = container_resources(&self.pod, &container, &node, &self.services.settings);
            if self.services.allot.cpus.exclusive(self.uid(), name).is_some() {
                linux.cpu_quota = -1;
            }
            let told = self.services.cri.update_container(&change.record.id, linux).await;
            told.map_err(|error| format!("failed to update resources of container {name:?}: {}", error.message()))?;
            self.services.resizes.told(self.uid(), name, target);
        }
        Ok(())
    }

    /// A memory limit below what is in use would only kill.
    async fn leaves_room(&self, changes: &Changes) -> Result<(), String> {
        let limit = |pod: &Pod| resources::Effective::of(pod).limit("memory").unwrap_or(i64::MAX);
        let mut lowered = Vec::new();
        let group = pod_cgroup(&self.pod, &self.services.settings);
        if limit(&self.pod) < limit(&changes.before) {
            let path = self.services.platform.cgroup_path(&group);
            lowered.push(("attempting to set pod memory limit".to_owned(), path, limit(&self.pod)));
        }
        for change in changes.update.iter().filter(|change| change.concerns("memory") && change.growth("memory") < 0) {
            let Some(limit) = resources::limit(change.container.resources.as_ref(), "memory") else { continue };
            let what = format!("attempting to set container {:?} memory limit", change.container.name);
            lowered.push((what, self.services.platform.container_cgroup(&group, &change.record.id), limit));
        }
        if lowered.is_empty() {
            return Ok(());
        }
        let platform = Arc::clone(&self.services.platform);
        let work = tokio::task::spawn_blocking(move || {
            let over = lowered.into_iter().filter_map(|(what, path, limit)| {
                let usage = match platform.cgroup_usage(&path) {
                    Ok(usage) => usage.memory,
                    Err(error) => return Some(format!("{what} ({limit}): memory in use is unknown: {error}")),
                };
                (usage >= u64::try_from(limit).unwrap_or(0))
                    .then(|| format!("{what} ({limit}) below current usage ({usage})"))
            });
            over.collect::<Vec<String>>()
        });
        let over = work.await.map_err(|error| error.to_string())?;
        match over.as_slice() {
            [] => Ok(()),
            [one] => Err(format!("cannot decrease memory limits: {one}")),
            all => Err(format!("cannot decrease memory limits: [{}]", all.join(", "))),
        }
    }

    /// Tells that containers have what they were given, once they do.
    pub(super) async fn settle_resize(&mut self, changes: &Changes, view: &Arc<PodView>) {
        if !changes.is_empty() || !self.services.resizes.is_in_progress(self.uid()) {
            return;
        }
        if self.services.resizes.completed(self.uid()) {
            let text = format!("Pod resize completed: {}", resize::details(&self.pod, ""));
            self.services.events.pod(&self.pod, EventType::Normal, "ResizeCompleted", text);
            self.publish(view, false).await;
        }
    }
}

/// One resource of the Pod's own group.
struct Group<'a> {
    actor: &'a Actor,
    sandbox: &'a str,
    resource: &'a str,
    before: &'a CgroupLimits,
    after: &'a CgroupLimits,
}

impl Group<'_> {
    /// The limit, where none is the largest.
    fn limit(&self, of: &CgroupLimits) -> i64 {
        let limit = if self.resource == "memory" { of.memory } else { of.cpu_quota };
        limit.filter(|limit| *limit > 0).unwrap_or(i64::MAX)
    }

    fn shares(&self, of: &CgroupLimits) -> Option<i64> {
        of.cpu_shares.filter(|_| self.resource == "cpu")
    }

    fn only_limit(&self) -> CgroupLimits {
        if self.resource == "memory" {
            return CgroupLimits { memory: self.after.memory, ..CgroupLimits::default() };
        }
        let CgroupLimits { cpu_quota, cpu_period, .. } = *self.after;
        CgroupLimits { cpu_quota, cpu_period, ..CgroupLimits::default() }
    }

    fn only_shares(&self) -> CgroupLimits {
        CgroupLimits { cpu_shares: self.after.cpu_shares, ..CgroupLimits::default() }
    }

    /// What gets more does so before the containers.
    async fn grow(&self) -> Result<(), String> {
        if self.limit(self.after) > self.limit(self.before) {
            self.write(self.only_limit()).await?;
        }
        if self.shares(self.after) > self.shares(self.before) {
            self.write(self.only_shares()).await?;
        }
        Ok(())
    }

    /// What gets less does so after them.
    async fn shrink(&self) -> Result<(), String> {
        if self.shares(self.after) < self.shares(self.before) {
            self.write(self.only_shares()).await?;
        }
        if self.limit(self.after) < self.limit(self.before) {
            self.write(self.only_limit()).await?;
        }
        Ok(())
    }

    async fn write(&self, limits: CgroupLimits) -> Result<(), String> {
        let services = &self.actor.services;
        let (overhead, amounts): (Option<v1::LinuxContainerResources>, _) =
            pod_amounts(&self.actor.pod, &services.settings);
        let told = services.cri.update_sandbox(self.sandbox, overhead.unwrap_or_default(), amounts).await;
        told.map_err(|error| format!("failed to update resources of the sandbox: {}", error.message()))?;
        if !services.settings.cgroups_per_qos {
            return Ok(());
        }
        let (platform, group) = (Arc::clone(&services.platform), pod_cgroup(&self.actor.pod, &services.settings));
        let start = Instant::now();
        let work = tokio::task::spawn_blocking(move || platform.apply_cgroup(&group, &limits));
        let written = work.await.map_err(|error| error.to_string())?;
        METRICS.cgroup_duration.with_label_values(&["update"]).observe(start.elapsed().as_secs_f64());
        written.map_err(|error| format!("failed to set {} of the pod's cgroup: {error}", self.resource))
    }
}
