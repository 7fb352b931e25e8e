//! What a ReplicaSet needs: pure.

use std::cmp::Ordering;

use ::controller::Cached;
use k8s_openapi::jiff::Timestamp;

use super::kind::{Failure, SetStatus};
use crate::views::{Phase, PodView};

/// Pods that one reconciliation creates or deletes at most.
const BURST: usize = 500;
/// What deleting a Pod costs its application, as the application says.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// What to do about the number of Pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Create(usize),
    Delete(usize),
    Rest,
}

/// The step towards `replicas` when there are `active` Pods.
pub(super) fn step(replicas: i32, active: usize) -> Step {
    let wanted = usize::try_from(replicas).unwrap_or(0);
    match wanted.cmp(&active) {
        Ordering::Greater => Step::Create((wanted - active).min(BURST)),
        Ordering::Less => Step::Delete((active - wanted).min(BURST)),
        Ordering::Equal => Step::Rest,
    }
}

/// A Pod in the order of deletion.
struct Ranked<'a> {
    pod: &'a Cached<PodView>,
    cost: i32,
    /// Active Pods of the same owner on the same node.
    siblings: usize,
}

/// The Pods to delete, `count` of them. `related` are all active Pods of the same owner's ReplicaSets.
pub(super) fn victims<'a, P>(pods: &'a [P], related: &[P], count: usize, now: Timestamp) -> Vec<&'a Cached<PodView>>
where
    P: AsRef<Cached<PodView>>,
{
    if count >= pods.len() {
        return pods.iter().map(AsRef::as_ref).collect();
    }
    let on_node = |node: &str| related.iter().filter(|p| p.as_ref().is_active() && p.as_ref().node == node).count();
    let mut ranked: Vec<Ranked<'a>> = pods
        .iter()
        .map(|pod| {
            let pod = pod.as_ref();
            Ranked { pod, cost: deletion_cost(pod), siblings: on_node(&pod.node) }
        })
        .collect();
    ranked.sort_by(|a, b| order(a, b, now));
    ranked.into_iter().take(count).map(|r| r.pod).collect()
}

fn deletion_cost(pod: &PodView) -> i32 {
    let Some(text) = pod.annotations.get(DELETION_COST) else { return 0 };
    let plain = text.strip_prefix('-').unwrap_or(text);
    // `+5` and `05` are no costs.
    let canonical = plain == "0" || plain.starts_with(|c: char| ('1'..='9').contains(&c));
    if canonical { text.parse().unwrap_or(0) } else { 0 }
}

fn order(a: &Ranked<'_>, b: &Ranked<'_>, now: Timestamp) -> Ordering {
    let (x, y) = (a.pod, b.pod);
    let phase = |pod: &PodView| match pod.phase {
        Phase::Pending => 0,
        Phase::Unknown => 1,
        _ => 2,
    };
    let sure = y
        .node
        .is_empty()
        .cmp(&x.node.is_empty())
        .then_with(|| phase(x).cmp(&phase(y)))
        .then_with(|| x.is_ready().cmp(&y.is_ready()))
        .then_with(|| a.cost.cmp(&b.cost))
        .then_with(|| b.siblings.cmp(&a.siblings));
    if sure != Ordering::Equal {
        return sure;
    }
    if let (Some(first), Some(second)) = (x.ready_since(), y.ready_since())
        && first != second
    {
        return younger_first(first, second, now).then_with(|| x.uid.cmp(&y.uid));
    }
    let restarts = y.restarts.0.cmp(&x.restarts.0).then_with(|| y.restarts.1.cmp(&x.restarts.1));
    if restarts != Ordering::Equal {
        return restarts;
    }
    if x.created != y.created {
        return younger_first(x.created, y.created, now).then_with(|| x.uid.cmp(&y.uid));
    }
    Ordering::Equal
}

/// Compares ages by their order of magnitude; no time is the youngest.
fn younger_first(a: Option<Timestamp>, b: Option<Timestamp>, now: Timestamp) -> Ordering {
    match (a, b) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
        (Some(a), Some(b)) => magnitude(a, now).cmp(&magnitude(b, now)),
    }
}

/// Logarithm of the age in nanoseconds, rounded down; below all of them for the future.
fn magnitude(at: Timestamp, now: Timestamp) -> i64 {
    let age = now.as_nanosecond() - at.as_nanosecond();
    if age <= 0 { -1 } else { i64::from(age.ilog2()) }
}

/// What the status is computed of.
pub(super) struct Observed<'a> {
    /// Active Pods that belong to the set.
    pub(super) active: &'a [&'a PodView],
    /// Pods of the set that are being deleted and may still run; `None` if the kind does not tell.
    pub(super) terminating: Option<usize>,
    pub(super) replicas: i32,
    pub(super) min_ready_seconds: i32,
    pub(super) generation: i64,
    pub(super) template_labels: &'a std::collections::BTreeMap<String, String>,
    /// What went wrong while Pods were created or deleted.
    pub(super) error: Option<&'a str>,
    pub(super) now: Timestamp,
}

/// The status as it should be, given the present one.
pub(super) fn status(observed: &Observed<'_>, present: &SetStatus) -> SetStatus {
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    let number = |test: &dyn Fn(&PodView) -> bool| count(observed.active.iter().filter(|p| test(p)).count());
    let labels = observed.template_labels;
    let mut next = SetStatus {
        replicas: count(observed.active.len()),
        fully_labeled: number(&|p| labels.iter().all(|(k, v)| p.labels.get(k) == Some(v))),
        ready: number(&PodView::is_ready),
        available: number(&|p| p.is_available(observed.min_ready_seconds, observed.now)),
        terminating: observed.terminating.map(count),
        observed_generation: observed.generation,
        failure: present.failure.clone(),
    };
    next.failure = match (observed.error, &present.failure) {
        (Some(_), Some(known)) => Some(known.clone()),
        (Some(error), None) => {
            let reason = if observed.replicas > next.replicas { "FailedCreate" } else { "FailedDelete" };
            Some(Failure { reason: reason.into(), message: error.to_owned(), since: Some(observed.now) })
        }
        (None, _) => None,
    };
    next
}

/// Seconds until the next Pod becomes available, if one will.
pub(super) fn next_available(active: &[&PodView], min_ready_seconds: i32, now: Timestamp) -> Option<u64> {
    let left = active.iter().filter_map(|p| p.available_in(min_ready_seconds, now)).filter(|s| *s > 0);
    left.min().and_then(|s| u64::try_from(s).ok())
}

#[cfg(test)]
mod tests;
