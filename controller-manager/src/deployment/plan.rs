//! Sizes of a Deployment's ReplicaSets: pure.

use std::{cmp::Ordering, sync::Arc};

use k8s_openapi::{
    api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet},
    apimachinery::pkg::util::intstr::IntOrString,
};
use machinery::intstr::{self, Round};

use super::revision::{self, DESIRED, MAX};
use crate::template;

/// Label that tells the Pods of one template from those of another.
pub(super) const HASH_LABEL: &str = "pod-template-hash";

/// A ReplicaSet, shared with the cache or fresh from the server.
pub(super) type Set = Arc<ReplicaSet>;

/// A new size of a ReplicaSet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resize {
    pub(super) name: String,
    pub(super) to: i32,
}

pub(super) fn spec(deployment: &Deployment) -> DeploymentSpec {
    deployment.spec.clone().unwrap_or_default()
}

/// `spec.replicas` of the Deployment.
pub(super) fn wanted(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

pub(super) fn is_paused(deployment: &Deployment) -> bool {
    deployment.spec.as_ref().and_then(|s| s.paused) == Some(true)
}

pub(super) fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|s| s.strategy.as_ref());
    strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate")
}

pub(super) fn name(set: &ReplicaSet) -> &str {
    set.metadata.name.as_deref().unwrap_or_default()
}

pub(super) fn uid(set: &ReplicaSet) -> &str {
    set.metadata.uid.as_deref().unwrap_or_default()
}

pub(super) fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

pub(super) fn actual(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |s| s.replicas)
}

pub(super) fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0)
}

pub(super) fn sum(sets: &[Set], of: impl Fn(&ReplicaSet) -> i32) -> i32 {
    sets.iter().fold(0, |total: i32, s| total.saturating_add(of(s)))
}

pub(super) fn active(sets: &[Set]) -> Vec<Set> {
    sets.iter().filter(|s| size(s) > 0).cloned().collect()
}

/// Oldest first.
pub(super) fn by_age(a: &ReplicaSet, b: &ReplicaSet) -> Ordering {
    let created = |s: &ReplicaSet| s.metadata.creation_timestamp.as_ref().map(|t| t.0);
    created(a).cmp(&created(b)).then_with(|| name(a).cmp(name(b)))
}

/// The ReplicaSet with the Deployment's template, the oldest if there are several; and all the others.
pub(super) fn split(deployment: &Deployment, sets: &[Set]) -> (Option<Set>, Vec<Set>) {
    let template = spec(deployment).template;
    let mut sorted = sets.to_vec();
    sorted.sort_by(|a, b| by_age(a, b));
    let same = |s: &Set| {
        let theirs = s.spec.as_ref().and_then(|s| s.template.as_ref());
        theirs.is_some_and(|t| template::same_but_for(HASH_LABEL, t, &template))
    };
    let new = sorted.iter().find(|s| same(s)).cloned();
    let old = sorted.into_iter().filter(|s| new.as_ref().is_none_or(|n| uid(n) != uid(s))).collect();
    (new, old)
}

fn resolved(value: Option<&IntOrString>, total: i32, round: Round) -> i32 {
    let value = match value {
        None => return 0,
        Some(IntOrString::Int(n)) => intstr::IntOrString::Int(*n),
        Some(IntOrString::String(text)) => intstr::IntOrString::Text(text.clone()),
    };
    value.scaled(total, round).unwrap_or(0)
}

/// `maxSurge` and `maxUnavailable` in Pods.
fn fenceposts(deployment: &Deployment) -> (i32, i32) {
    let replicas = wanted(deployment);
    let strategy = deployment.spec.as_ref().and_then(|s| s.strategy.as_ref());
    let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
    let surge = resolved(rolling.and_then(|r| r.max_surge.as_ref()), replicas, Round::Up);
    let unavailable = resolved(rolling.and_then(|r| r.max_unavailable.as_ref()), replicas, Round::Down);
    // Neither would leave nothing to do.
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

pub(super) fn max_surge(deployment: &Deployment) -> i32 {
    if is_recreate(deployment) { 0 } else { fenceposts(deployment).0 }
}

pub(super) fn max_unavailable(deployment: &Deployment) -> i32 {
    let replicas = wanted(deployment);
    if is_recreate(deployment) || replicas == 0 { 0 } else { fenceposts(deployment).1.min(replicas) }
}

/// Most Pods there may be.
pub(super) fn ceiling(deployment: &Deployment) -> i32 {
    wanted(deployment).saturating_add(max_surge(deployment))
}

/// The size of the new ReplicaSet; `present` is its size now, 0 if there is none.
pub(super) fn new_size(deployment: &Deployment, all: &[Set], present: i32) -> i32 {
    let replicas = wanted(deployment);
    if present >= replicas || is_recreate(deployment) {
        return replicas;
    }
    let room = ceiling(deployment).saturating_sub(sum(all, size));
    if room <= 0 { present } else { present + room.min(replicas - present) }
}

/// How old ReplicaSets shrink during a rolling update: what is unhealthy first, then the oldest.
pub(super) fn shrink_old(deployment: &Deployment, new: Option<&Set>, old: &[Set]) -> Vec<Resize> {
    let mut old = active(old);
    if old.is_empty() {
        return Vec::new();
    }
    old.sort_by(|a, b| by_age(a, b));
    let least = wanted(deployment) - max_unavailable(deployment);
    let (new_size, new_available) = new.map_or((0, 0), |n| (size(n), available(n)));
    let removable = sum(&old, size) + new_size - least - (new_size - new_available);
    if removable <= 0 {
        return Vec::new();
    }
    let mut sizes: Vec<i32> = old.iter().map(|s| size(s)).collect();
    let mut steps = Vec::new();
    let mut shrink = |at: usize, sizes: &mut Vec<i32>, by: i32| {
        sizes[at] -= by;
        steps.push(Resize { name: name(&old[at]).to_owned(), to: sizes[at] });
    };
    let mut left = removable;
    for at in 0..old.len() {
        let unhealthy = (sizes[at] - available(&old[at])).clamp(0, left);
        if unhealthy > 0 {
            shrink(at, &mut sizes, unhealthy);
            left -= unhealthy;
        }
    }
    let mut surplus = sum(&old, available) + new_available - least;
    for at in 0..old.len() {
        let by = sizes[at].min(surplus);
        if by > 0 {
            shrink(at, &mut sizes, by);
            surplus -= by;
        }
    }
    steps
}

/// Whether somebody changed `spec.replicas`.
pub(super) fn is_scaling(deployment: &Deployment, all: &[Set]) -> bool {
    let replicas = wanted(deployment);
    active(all).iter().any(|s| revision::number(s, DESIRED).is_some_and(|n| n != i64::from(replicas)))
}

/// What scaling does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scaling {
    /// Sizes; what has its size already is left alone.
    Sizes(Vec<Resize>),
    /// Sizes by proportion; annotations are refreshed even where the size stays.
    Proportional(Vec<Resize>),
}

/// Sizes after `spec.replicas` was changed, or while the Deployment is paused.
pub(super) fn scale(deployment: &Deployment, new: Option<&Set>, old: &[Set]) -> Scaling {
    let replicas = wanted(deployment);
    let mut running = active(old);
    running.extend(new.filter(|n| size(n) > 0).cloned());
    if running.len() <= 1 {
        let latest = || old.iter().max_by(|a, b| by_age(a, b));
        let one = running.first().or(new).or_else(latest);
        let sizes = one.map(|s| Resize { name: name(s).to_owned(), to: replicas });
        return Scaling::Sizes(sizes.into_iter().collect());
    }
    if new.is_some_and(|n| is_saturated(deployment, n)) {
        let sizes = active(old).iter().map(|s| Resize { name: name(s).to_owned(), to: 0 }).collect();
        return Scaling::Sizes(sizes);
    }
    if is_recreate(deployment) { Scaling::Sizes(Vec::new()) } else { proportional(deployment, running) }
}

fn is_saturated(deployment: &Deployment, new: &ReplicaSet) -> bool {
    let replicas = wanted(deployment);
    size(new) == replicas && revision::number(new, DESIRED) == Some(i64::from(replicas)) && available(new) == replicas
}

fn proportional(deployment: &Deployment, mut running: Vec<Set>) -> Scaling {
    let allowed = if wanted(deployment) > 0 { ceiling(deployment) } else { 0 };
    let to_add = allowed - sum(&running, size);
    running.sort_by(|a, b| {
        let age = if to_add > 0 { by_age(b, a) } else { by_age(a, b) };
        size(b).cmp(&size(a)).then(age)
    });
    let mut added = 0;
    let mut sizes: Vec<Resize> = running
        .iter()
        .map(|set| {
            let share = share(deployment, set, to_add, added);
            added += share;
            Resize { name: name(set).to_owned(), to: size(set) + share }
        })
        .collect();
    if let Some(largest) = sizes.first_mut() {
        largest.to = (largest.to + to_add - added).max(0);
    }
    Scaling::Proportional(sizes)
}

fn share(deployment: &Deployment, set: &ReplicaSet, to_add: i32, added: i32) -> i32 {
    let left = to_add - added;
    if size(set) == 0 || to_add == 0 || left == 0 {
        return 0;
    }
    let fraction = fraction(deployment, set);
    if to_add > 0 { fraction.min(left) } else { fraction.max(left) }
}

fn fraction(deployment: &Deployment, set: &ReplicaSet) -> i32 {
    let size = size(set);
    if wanted(deployment) == 0 {
        return -size;
    }
    let annotated = revision::number(set, MAX).filter(|n| *n != 0);
    let status = || deployment.status.as_ref().and_then(|s| s.replicas).map(i64::from).filter(|n| *n != 0);
    let Some(before) = annotated.or_else(status) else { return 0 };
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
    let scaled = (f64::from(size) * f64::from(ceiling(deployment)) / before as f64).round() as i32;
    scaled - size
}

/// Old ReplicaSets beyond the limit of history, lowest revisions first.
pub(super) fn outdated(deployment: &Deployment, old: &[Set]) -> Vec<Set> {
    let limit = deployment.spec.as_ref().and_then(|s| s.revision_history_limit).filter(|l| *l != i32::MAX);
    let Some(limit) = limit.and_then(|l| usize::try_from(l).ok()) else { return Vec::new() };
    let mut alive: Vec<Set> = old.iter().filter(|s| s.metadata.deletion_timestamp.is_none()).cloned().collect();
    let surplus = alive.len().saturating_sub(limit);
    alive.sort_by_key(|s| revision::of(&s.metadata).unwrap_or(0));
    alive.truncate(surplus);
    alive.retain(|s| {
        let observed = s.status.as_ref().and_then(|s| s.observed_generation).unwrap_or(0);
        actual(s) == 0 && size(s) == 0 && s.metadata.generation.unwrap_or(0) <= observed
    });
    alive
}

#[cfg(test)]
mod tests;
