//! Numbers of a PodDisruptionBudget from what is observed.

use std::{collections::BTreeMap, sync::Arc};

use ::controller::Cached;
use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus},
    apimachinery::pkg::{
        apis::meta::v1::{Condition, Time},
        util::intstr::IntOrString,
    },
    jiff::{SignedDuration, Timestamp},
};
use machinery::intstr::{self, IntOrStringError, Round};

use crate::views::PodView;

/// How long a Pod that was evicted, or is said to be disrupted, has until that is taken for a mistake.
pub(super) const PATIENCE: SignedDuration = SignedDuration::from_secs(120);
const CONDITION: &str = "DisruptionAllowed";
const TARGET: &str = "DisruptionTarget";

/// Pods that should be there and Pods that must be healthy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Need {
    pub(super) expected: i32,
    pub(super) healthy: i32,
}

/// Whether the scale of the Pods' controllers has to be known, not just how many Pods there are.
pub(super) fn needs_scale(spec: &PodDisruptionBudgetSpec) -> bool {
    spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
}

/// What a budget asks for. `count` is the sum of scales if [`needs_scale`], else the number of Pods.
pub(super) fn need(spec: &PodDisruptionBudgetSpec, count: i32) -> Result<Need, IntOrStringError> {
    let healthy = match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => count.saturating_sub(scaled(most, count)?).max(0),
        (None, Some(least)) => scaled(least, count)?,
        (None, None) => return Ok(Need::default()),
    };
    Ok(Need { expected: count, healthy })
}

fn scaled(value: &IntOrString, total: i32) -> Result<i32, IntOrStringError> {
    let value = match value {
        IntOrString::Int(number) => intstr::IntOrString::Int(*number),
        IntOrString::String(text) => intstr::IntOrString::Text(text.clone()),
    };
    value.scaled(total, Round::Up)
}

/// The entries of `status.disruptedPods`, looked at.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Disrupted {
    /// Those that stay.
    pub(super) kept: BTreeMap<String, Time>,
    /// Pods that should have been deleted by now.
    pub(super) overdue: Vec<String>,
    /// When the first of those that stay is overdue.
    pub(super) next: Option<Timestamp>,
}

/// Which entries still hold: those of Pods that are not terminating yet, for a while.
pub(super) fn disrupted(
    entries: Option<&BTreeMap<String, Time>>,
    pods: &[Arc<Cached<PodView>>],
    now: Timestamp,
) -> Disrupted {
    let mut found = Disrupted::default();
    let Some(entries) = entries else { return found };
    for pod in pods.iter().filter(|pod| pod.deletion.is_none()) {
        let Some(since) = entries.get(&pod.key.name) else { continue };
        let until = end_of(since.0);
        if until < now {
            found.overdue.push(pod.key.name.clone());
            continue;
        }
        found.next = Some(found.next.map_or(until, |next| next.min(until)));
        found.kept.insert(pod.key.name.clone(), since.clone());
    }
    found
}

fn end_of(since: Timestamp) -> Timestamp {
    since.saturating_add(PATIENCE).unwrap_or(since)
}

/// Pods that are ready and about to stay.
fn healthy(pods: &[Arc<Cached<PodView>>], disrupted: &BTreeMap<String, Time>) -> i32 {
    let healthy =
        pods.iter().filter(|p| p.deletion.is_none() && p.is_ready() && !disrupted.contains_key(&p.key.name)).count();
    i32::try_from(healthy).unwrap_or(i32::MAX)
}

/// The status of a budget whose need is known.
pub(super) fn status(
    budget: &PodDisruptionBudget,
    need: Need,
    pods: &[Arc<Cached<PodView>>],
    disrupted: &BTreeMap<String, Time>,
    now: &Time,
) -> PodDisruptionBudgetStatus {
    let old = budget.status.clone().unwrap_or_default();
    let current = healthy(pods, disrupted);
    let allowed = if need.expected <= 0 { 0 } else { current.saturating_sub(need.healthy).max(0) };
    let (value, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    PodDisruptionBudgetStatus {
        current_healthy: Some(current),
        desired_healthy: Some(need.healthy),
        expected_pods: Some(need.expected),
        disruptions_allowed: Some(allowed),
        disrupted_pods: (!disrupted.is_empty()).then(|| disrupted.clone()),
        observed_generation: budget.metadata.generation,
        conditions: conditions(old.conditions, value, reason, "", budget.metadata.generation, now),
    }
}

/// The status of a budget that cannot be worked out: nothing may be disrupted.
pub(super) fn failed(budget: &PodDisruptionBudget, error: &str, now: &Time) -> PodDisruptionBudgetStatus {
    let old = budget.status.clone().unwrap_or_default();
    let observed = old.observed_generation;
    PodDisruptionBudgetStatus {
        disruptions_allowed: Some(0),
        conditions: conditions(old.conditions, "False", "SyncFailed", error, observed, now),
        // The numbers are there even if they have never been known.
        current_healthy: Some(old.current_healthy.unwrap_or(0)),
        desired_healthy: Some(old.desired_healthy.unwrap_or(0)),
        expected_pods: Some(old.expected_pods.unwrap_or(0)),
        disrupted_pods: old.disrupted_pods,
        observed_generation: observed,
    }
}

fn conditions(
    old: Option<Vec<Condition>>,
    value: &str,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: &Time,
) -> Option<Vec<Condition>> {
    let mut all = old.unwrap_or_default();
    let present = all.iter().position(|c| c.type_ == CONDITION);
    let since =
        present.and_then(|at| all.get(at)).filter(|c| c.status == value).map(|c| c.last_transition_time.clone());
    let condition = Condition {
        type_: CONDITION.into(),
        status: value.into(),
        reason: reason.into(),
        message: message.into(),
        observed_generation: generation,
        last_transition_time: since.unwrap_or_else(|| now.clone()),
    };
    match present.and_then(|at| all.get_mut(at)) {
        Some(place) => *place = condition,
        None => all.push(condition),
    }
    Some(all)
}

/// When a Pod that was to be disrupted and goes on running is no longer taken for one; `None` if it is none.
pub(super) fn stale_at(pod: &PodView) -> Option<Timestamp> {
    let target = pod.condition(TARGET).filter(|c| c.status == "True" && c.reason != "TerminationByKubelet")?;
    let running = !pod.phase.is_terminal() && pod.deletion.is_none();
    running.then(|| target.since.map_or(Timestamp::UNIX_EPOCH, end_of))
}

#[cfg(test)]
mod tests;
