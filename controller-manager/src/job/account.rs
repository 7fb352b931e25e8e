//! Counting of Pods that ended, such that none is counted twice or forgotten, whatever happens in between: pure.
//!
//! UIDs go into `status.uncountedTerminatedPods` first, then the Pods lose their finalizer, then the UIDs become
//! numbers.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::{
    api::batch::v1::{JobCondition, JobStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::{
    indexes::Indexes,
    plan::{Ending, World, completions, condition},
    pods::{self, JobPod},
};
use crate::views::Phase;

/// UIDs that may wait to be counted.
const MOST: usize = 500;

/// What to write before Pods lose their finalizers.
pub(super) struct Account {
    pub(super) status: JobStatus,
    /// Pods to take the finalizer off, after the status is written.
    pub(super) release: Vec<JobPod>,
    /// Whether there is more than fits in one write.
    pub(super) more: bool,
}

/// Notes what ended. `status` has the other fields as they should be.
pub(super) fn account(world: &World<'_>, ending: Option<&Ending>, mut status: JobStatus) -> Account {
    let spec = &world.spec;
    let indexed = pods::is_indexed(spec);
    let deleting = world.job.metadata.deletion_timestamp.is_some();
    let tracked: BTreeSet<&str> = world.pods.iter().filter(|p| pods::is_tracked(p)).map(|p| p.uid.as_str()).collect();
    settle(&mut status, |uid| !tracked.contains(uid));
    let kept = if ending.is_some() || deleting { BTreeSet::new() } else { world.kept_for_count() };
    let all_fail = ending.is_some_and(|e| !e.success);
    let (mut release, mut more) = (Vec::new(), false);
    let mut indexes = Indexes::parse(status.completed_indexes.as_deref().unwrap_or_default(), completions(spec));
    for pod in world.pods.iter().filter(|p| pods::is_tracked(p)) {
        let lists = status.uncounted_terminated_pods.get_or_insert_default();
        let (good, bad) = (lists.succeeded.get_or_insert_default(), lists.failed.get_or_insert_default());
        let known = good.contains(&pod.uid) || bad.contains(&pod.uid);
        if !known && good.len() + bad.len() >= MOST {
            more = true;
            break;
        }
        let index = pods::index(pod, spec);
        let failed = pods::is_failed(pod, spec) || (all_fail && pod.phase != Phase::Succeeded);
        if pod.phase == Phase::Succeeded {
            match index {
                Some(index) if indexed => indexes.insert(index),
                None if indexed => {}
                _ if known => {}
                _ => good.push(pod.uid.clone()),
            }
        } else if failed {
            let in_range = !indexed || index.is_some();
            if !known && in_range && world.counts(pod) {
                bad.push(pod.uid.clone());
            }
        } else if !(ending.is_some() || deleting) {
            continue;
        }
        if !kept.contains(pod.uid.as_str()) {
            release.push(Arc::clone(pod));
        }
    }
    if indexed {
        status.succeeded = Some(indexes.len()).filter(|n| *n > 0);
        status.completed_indexes = Some(indexes.to_string()).filter(|t| !t.is_empty());
        if spec.backoff_limit_per_index.is_some() {
            status.failed_indexes = Some(world.failed_indexes.to_string());
        }
    }
    trim(&mut status);
    Account { status, release, more }
}

/// Turns UIDs into numbers; whether there were any.
pub(super) fn settle(status: &mut JobStatus, released: impl Fn(&str) -> bool) -> bool {
    let lists = status.uncounted_terminated_pods.get_or_insert_default();
    let take = |list: &mut Option<Vec<String>>| {
        let uids = list.get_or_insert_default();
        let before = uids.len();
        uids.retain(|uid| !released(uid));
        i32::try_from(before - uids.len()).unwrap_or(i32::MAX)
    };
    let (good, bad) = (take(&mut lists.succeeded), take(&mut lists.failed));
    let add = |number: &mut Option<i32>, more: i32| {
        if more > 0 {
            *number = Some(number.unwrap_or(0).saturating_add(more));
        }
    };
    add(&mut status.succeeded, good);
    add(&mut status.failed, bad);
    trim(status);
    good + bad > 0
}

/// Empty lists are absent; the object that holds them stays.
fn trim(status: &mut JobStatus) {
    let lists = status.uncounted_terminated_pods.get_or_insert_default();
    for list in [&mut lists.succeeded, &mut lists.failed] {
        if list.as_ref().is_some_and(Vec::is_empty) {
            *list = None;
        }
    }
}

fn is_settled(status: &JobStatus) -> bool {
    let lists = status.uncounted_terminated_pods.as_ref();
    lists.is_none_or(|l| l.succeeded.is_none() && l.failed.is_none())
}

/// Sets a condition; whether its status changed.
pub(super) fn set(status: &mut JobStatus, kind: &str, on: bool, reason: &str, message: &str, now: &Time) -> bool {
    let text = if on { "True" } else { "False" };
    let fresh = JobCondition {
        type_: kind.into(),
        status: text.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_probe_time: Some(now.clone()),
        last_transition_time: Some(now.clone()),
    };
    let conditions = status.conditions.get_or_insert_default();
    match conditions.iter_mut().find(|c| c.type_ == kind) {
        Some(known) if known.status == text => return false,
        Some(known) => *known = fresh,
        None => conditions.push(fresh),
    }
    true
}

/// Announces the end.
pub(super) fn announce(status: &mut JobStatus, ending: &Ending, now: &Time) {
    let kind = if ending.success { "SuccessCriteriaMet" } else { "FailureTarget" };
    set(status, kind, true, &ending.reason, &ending.message, now);
}

/// Ends the Job if nothing is left to wait for; whether it did.
pub(super) fn finish(status: &mut JobStatus, ending: &Ending, now: &Time) -> bool {
    let left = status.active.unwrap_or(0) + status.terminating.unwrap_or(0);
    if left > 0 || !is_settled(status) {
        return false;
    }
    let kind = if ending.success { "Complete" } else { "Failed" };
    if condition(status, kind).is_some() {
        return false;
    }
    set(status, kind, true, &ending.reason, &ending.message, now);
    if ending.success {
        status.completion_time = Some(now.clone());
    }
    status.ready = Some(0);
    true
}
