//! The status of a Deployment: pure.

use std::time::Duration;

use k8s_openapi::{
    api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet},
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::plan::{self, Set, actual, available, size, sum};

pub(super) const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const REPLICA_FAILURE: &str = "ReplicaFailure";
pub(super) const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const NEW_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
const PAUSED: &str = "DeploymentPaused";

/// A condition that holds since now.
pub(super) fn condition(kind: &str, status: &str, reason: &str, message: String, now: &Time) -> DeploymentCondition {
    DeploymentCondition {
        type_: kind.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message),
        last_update_time: Some(now.clone()),
        last_transition_time: Some(now.clone()),
    }
}

pub(super) fn find<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == kind)
}

/// Sets a condition, unless it is there with the same status and reason.
pub(super) fn set(status: &mut DeploymentStatus, mut new: DeploymentCondition) {
    if let Some(present) = find(status, &new.type_) {
        if present.status == new.status && present.reason == new.reason {
            return;
        }
        if present.status == new.status {
            new.last_transition_time = present.last_transition_time.clone();
        }
    }
    remove(status, &new.type_);
    status.conditions.get_or_insert_default().push(new);
}

fn remove(status: &mut DeploymentStatus, kind: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|c| c.type_ != kind);
        if conditions.is_empty() {
            status.conditions = None;
        }
    }
}

/// The deadline of progress, if there is one.
pub(super) fn deadline(deployment: &Deployment) -> Option<Duration> {
    let seconds = deployment.spec.as_ref().and_then(|s| s.progress_deadline_seconds)?;
    if seconds == i32::MAX { None } else { u64::try_from(seconds).ok().map(Duration::from_secs) }
}

pub(super) fn present(deployment: &Deployment) -> DeploymentStatus {
    deployment.status.clone().unwrap_or_default()
}

fn n(value: Option<i32>) -> i32 {
    value.unwrap_or(0)
}

/// Counters and the condition `Available`.
pub(super) fn counted(deployment: &Deployment, all: &[Set], new: Option<&Set>, now: &Time) -> DeploymentStatus {
    let some = |n: i32| (n != 0).then_some(n);
    let up = sum(all, available);
    let ready = |s: &ReplicaSet| s.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0);
    let present = present(deployment);
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: some(sum(all, actual)),
        updated_replicas: some(new.map_or(0, |s| actual(s))),
        ready_replicas: some(sum(all, ready)),
        available_replicas: some(up),
        unavailable_replicas: some((sum(all, size) - up).max(0)),
        terminating_replicas: terminating(all),
        collision_count: present.collision_count,
        conditions: present.conditions,
    };
    let enough = up >= plan::wanted(deployment) - plan::max_unavailable(deployment);
    let available = if enough {
        let text = "Deployment has minimum availability.".to_owned();
        condition(AVAILABLE, "True", "MinimumReplicasAvailable", text, now)
    } else {
        let text = "Deployment does not have minimum availability.".to_owned();
        condition(AVAILABLE, "False", "MinimumReplicasUnavailable", text, now)
    };
    set(&mut status, available);
    status
}

/// `None` if a ReplicaSet does not tell.
fn terminating(all: &[Set]) -> Option<i32> {
    let mut total = 0;
    for status in all.iter().filter_map(|s| s.status.as_ref()) {
        match status.terminating_replicas {
            Some(count) => total += count,
            // Nobody has looked at it yet.
            None if status.observed_generation.unwrap_or(0) == 0 => {}
            None => return None,
        }
    }
    Some(total)
}

/// Whether all Pods are of the new template, and up.
pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let replicas = plan::wanted(deployment);
    [status.updated_replicas, status.replicas, status.available_replicas].iter().all(|c| n(*c) == replicas)
        && status.observed_generation >= deployment.metadata.generation
}

fn is_progressing(before: &DeploymentStatus, status: &DeploymentStatus) -> bool {
    let old = |s: &DeploymentStatus| n(s.replicas) - n(s.updated_replicas);
    n(status.updated_replicas) > n(before.updated_replicas)
        || old(status) < old(before)
        || n(status.ready_replicas) > n(before.ready_replicas)
        || n(status.available_replicas) > n(before.available_replicas)
}

fn is_timed_out(deployment: &Deployment, status: &DeploymentStatus, now: &Time) -> bool {
    let (Some(deadline), Some(progress)) = (deadline(deployment), find(status, PROGRESSING)) else { return false };
    match progress.reason.as_deref() {
        Some(NEW_SET_AVAILABLE) => false,
        Some(TIMED_OUT) => true,
        _ => progress.last_update_time.as_ref().is_some_and(|from| {
            now.0.as_second() - from.0.as_second() > i64::try_from(deadline.as_secs()).unwrap_or(i64::MAX)
        }),
    }
}

/// The status during and after a rollout.
pub(super) fn rollout(deployment: &Deployment, all: &[Set], new: Option<&Set>, now: &Time) -> DeploymentStatus {
    let mut status = counted(deployment, all, new, now);
    let before = present(deployment);
    if deadline(deployment).is_none() {
        remove(&mut status, PROGRESSING);
    } else {
        let current = find(&before, PROGRESSING).cloned();
        let reason = current.as_ref().and_then(|c| c.reason.as_deref());
        let done = n(status.replicas) == n(status.updated_replicas) && reason == Some(NEW_SET_AVAILABLE);
        if !done {
            progress(deployment, &before, &mut status, new, current.as_ref(), now);
        }
    }
    match failure(all, new) {
        Some(failure) => set(&mut status, failure),
        None => remove(&mut status, REPLICA_FAILURE),
    }
    status
}

fn progress(
    deployment: &Deployment,
    before: &DeploymentStatus,
    status: &mut DeploymentStatus,
    new: Option<&Set>,
    current: Option<&DeploymentCondition>,
    now: &Time,
) {
    let subject = match new {
        Some(set) => format!("ReplicaSet {:?}", plan::name(set)),
        None => format!("Deployment {:?}", deployment.metadata.name.as_deref().unwrap_or_default()),
    };
    if is_complete(deployment, status) {
        let text = format!("{subject} has successfully progressed.");
        set(status, condition(PROGRESSING, "True", NEW_SET_AVAILABLE, text, now));
    } else if is_progressing(before, status) {
        let text = format!("{subject} is progressing.");
        let mut fresh = condition(PROGRESSING, "True", "ReplicaSetUpdated", text, now);
        if let Some(current) = current.filter(|c| c.status == "True") {
            fresh.last_transition_time = current.last_transition_time.clone();
        }
        // Its time of update starts anew even if nothing else differs.
        remove(status, PROGRESSING);
        set(status, fresh);
    } else if is_timed_out(deployment, status, now) {
        let text = format!("{subject} has timed out progressing.");
        set(status, condition(PROGRESSING, "False", TIMED_OUT, text, now));
    }
}

/// The failure of the new ReplicaSet, or else of any old one.
fn failure(all: &[Set], new: Option<&Set>) -> Option<DeploymentCondition> {
    let of = |set: &Set| {
        let conditions = set.status.as_ref().and_then(|s| s.conditions.as_ref());
        let found = conditions?.iter().find(|c| c.type_ == REPLICA_FAILURE)?;
        Some(DeploymentCondition {
            type_: REPLICA_FAILURE.into(),
            status: found.status.clone(),
            reason: found.reason.clone(),
            message: found.message.clone(),
            last_update_time: found.last_transition_time.clone(),
            last_transition_time: found.last_transition_time.clone(),
        })
    };
    new.and_then(of).or_else(|| all.iter().find_map(of))
}

/// The condition that pausing or resuming asks for, if it is not there.
pub(super) fn pausing(deployment: &Deployment, now: &Time) -> Option<DeploymentCondition> {
    deadline(deployment)?;
    let present = present(deployment);
    let reason = find(&present, PROGRESSING).and_then(|c| c.reason.as_deref());
    if reason == Some(TIMED_OUT) {
        return None;
    }
    let text = |t: &str| t.to_owned();
    match (plan::is_paused(deployment), reason == Some(PAUSED)) {
        (true, false) => Some(condition(PROGRESSING, "Unknown", PAUSED, text("Deployment is paused"), now)),
        (false, true) => {
            Some(condition(PROGRESSING, "Unknown", "DeploymentResumed", text("Deployment is resumed"), now))
        }
        _ => None,
    }
}

/// When to look again at a rollout that may be stuck.
pub(super) fn look_again(deployment: &Deployment, status: &DeploymentStatus, now: &Time) -> Option<Duration> {
    let (deadline, before) = (deadline(deployment)?, present(deployment));
    let progress = find(&before, PROGRESSING)?;
    if is_complete(deployment, status) || progress.reason.as_deref() == Some(TIMED_OUT) {
        return None;
    }
    let from = progress.last_update_time.as_ref()?.0.as_second();
    let due = from.saturating_add(i64::try_from(deadline.as_secs()).unwrap_or(i64::MAX)).saturating_add(1);
    Some(Duration::from_secs(u64::try_from(due - now.0.as_second()).unwrap_or(0).max(1)))
}

#[cfg(test)]
mod tests;
