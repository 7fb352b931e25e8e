//! The order in which a StatefulSet's Pods come and go: pure.

use std::{collections::BTreeMap, sync::Arc};

use ::controller::Cached;
use k8s_openapi::{
    api::apps::v1::{StatefulSet, StatefulSetStatus},
    jiff::Timestamp,
};

use super::identity::{self, REVISION};
use crate::views::{Phase, PodView};

pub(super) type StatefulPod = Arc<Cached<PodView>>;

/// What is observed.
pub(super) struct World<'a> {
    pub(super) set: &'a StatefulSet,
    /// The set's Pods by ordinal.
    pub(super) pods: BTreeMap<i32, StatefulPod>,
    /// Names of the current and of the updated revision.
    pub(super) current: &'a str,
    pub(super) update: &'a str,
    pub(super) now: Timestamp,
}

/// Something to do. The shell stops at the first failure.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    /// A Pod, of the current template or of the updated one.
    Create {
        /// Its ordinal.
        ordinal: i32,
        /// Whether it is of the updated template.
        updated: bool,
    },
    /// A Pod goes.
    Delete(String),
    /// The claims of a Pod that waits.
    Claims(i32),
    /// A Pod gets its labels, storage and the owners of its claims back.
    Repair(i32),
}

/// All that is done in one reconciliation: steps in order.
pub(super) type Plan = Vec<Action>;

impl World<'_> {
    fn min_ready_seconds(&self) -> i32 {
        self.set.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0)
    }

    fn is_ready(pod: &PodView) -> bool {
        pod.phase == Phase::Running && pod.is_ready()
    }

    fn is_available(&self, pod: &PodView) -> bool {
        Self::is_ready(pod) && pod.is_available(self.min_ready_seconds(), self.now)
    }

    fn is_healthy(&self, pod: &PodView) -> bool {
        self.is_available(pod) && pod.deletion.is_none()
    }

    fn is_ordered(&self) -> bool {
        self.set.spec.as_ref().and_then(|s| s.pod_management_policy.as_deref()) != Some("Parallel")
    }

    /// The partition of a rolling update; the inner `None` if the set does not say, the outer if it does not roll.
    fn partition(&self) -> Option<Option<i32>> {
        let strategy = self.set.spec.as_ref().and_then(|s| s.update_strategy.as_ref());
        if strategy.and_then(|s| s.type_.as_deref()) == Some("OnDelete") {
            return None;
        }
        Some(strategy.and_then(|s| s.rolling_update.as_ref()).map(|r| r.partition.unwrap_or(0)))
    }

    /// Whether a missing Pod is of the updated template.
    fn is_updated(&self, ordinal: i32) -> bool {
        let (start, _) = identity::range(self.set);
        let kept = match self.partition() {
            None => return true,
            Some(Some(partition)) => partition,
            Some(None) => self.set.status.as_ref().and_then(|s| s.current_replicas).unwrap_or(0),
        };
        ordinal >= start.saturating_add(kept)
    }

    /// Ordinals that should not be, highest first.
    fn condemned(&self) -> Vec<i32> {
        let (start, end) = identity::range(self.set);
        self.pods.keys().rev().copied().filter(|o| !(start..end).contains(o)).collect()
    }

    /// What to do now. `retained` tells whether the claims of a Pod have the owners they should have.
    pub(super) fn plan(&self, retained: impl Fn(i32) -> bool) -> Plan {
        let mut plan = Plan::new();
        if self.set.metadata.deletion_timestamp.is_some() {
            return plan;
        }
        let (start, end) = identity::range(self.set);
        for ordinal in start..end {
            if self.tend(ordinal, &retained, &mut plan) && self.is_ordered() {
                return plan;
            }
        }
        let condemned = self.condemned();
        plan.extend(condemned.iter().copied().filter(|o| !retained(*o)).map(Action::Repair));
        if self.shrink(&condemned, &mut plan) {
            return plan;
        }
        // In parallel mode the Pods above are made at once; an update takes its turn when all are there.
        let complete = (start..end).all(|o| self.pods.contains_key(&o));
        if complete {
            self.roll(start, end, &mut plan);
        }
        plan
    }

    /// One wanted Pod; whether the ones after it have to wait.
    fn tend(&self, ordinal: i32, retained: &impl Fn(i32) -> bool, plan: &mut Plan) -> bool {
        let Some(pod) = self.pods.get(&ordinal) else {
            plan.push(Action::Create { ordinal, updated: self.is_updated(ordinal) });
            return true;
        };
        if pod.phase.is_terminal() {
            // Made again under its name once it is gone.
            if pod.deletion.is_none() {
                plan.push(Action::Delete(pod.key.name.clone()));
            }
            return true;
        }
        if pod.phase == Phase::Pending {
            plan.push(Action::Claims(ordinal));
        }
        if self.is_ordered() && !self.is_healthy(pod) {
            return true;
        }
        let name = &pod.key.name;
        let right = identity::is_labelled(&pod.labels, name, ordinal)
            && identity::has_storage(self.set, pod, name)
            && retained(ordinal);
        if !right && pod.deletion.is_none() {
            plan.push(Action::Repair(ordinal));
        }
        false
    }

    /// Pods that should not be go from the highest ordinal down; whether an update has to wait.
    fn shrink(&self, condemned: &[i32], plan: &mut Plan) -> bool {
        let (start, end) = identity::range(self.set);
        let wanted = (start..end).filter_map(|o| Some((o, self.pods.get(&o)?)));
        let others = condemned.iter().rev().filter_map(|o| Some((*o, self.pods.get(o)?)));
        let first_unhealthy = wanted.chain(others).find(|(_, p)| !self.is_healthy(p)).map(|(o, _)| o);
        for ordinal in condemned {
            let Some(pod) = self.pods.get(ordinal) else { continue };
            if pod.deletion.is_some() {
                if self.is_ordered() {
                    return true;
                }
                continue;
            }
            if self.is_ordered() && !self.is_available(pod) && first_unhealthy != Some(*ordinal) {
                return true;
            }
            plan.push(Action::Delete(pod.key.name.clone()));
            if self.is_ordered() {
                return true;
            }
        }
        false
    }

    /// The next Pod of the old template goes, from the highest ordinal down to the partition.
    fn roll(&self, start: i32, end: i32, plan: &mut Plan) {
        let Some(partition) = self.partition() else { return };
        let least = start.saturating_add(partition.unwrap_or(0));
        for ordinal in (least..end).rev() {
            let Some(pod) = self.pods.get(&ordinal) else { return };
            let updated = pod.labels.get(REVISION).map(String::as_str) == Some(self.update);
            if !updated && pod.deletion.is_none() {
                let delete = Action::Delete(pod.key.name.clone());
                if !plan.contains(&delete) {
                    plan.push(delete);
                }
                return;
            }
            if !self.is_healthy(pod) {
                return;
            }
        }
    }

    /// The status, which is written from scratch.
    pub(super) fn status(&self, collisions: i32) -> StatefulSetStatus {
        let present = self.set.status.clone().unwrap_or_default();
        let count = |test: &dyn Fn(&PodView) -> bool| {
            i32::try_from(self.pods.values().filter(|p| test(p)).count()).unwrap_or(i32::MAX)
        };
        let of = |revision: &str| {
            count(&|p| p.deletion.is_none() && p.labels.get(REVISION).map(String::as_str) == Some(revision))
        };
        let (replicas, ready) = (count(&|_| true), count(&Self::is_ready));
        let (mut current, updated) = (of(self.current), of(self.update));
        let mut revision = self.current;
        let (start, end) = identity::range(self.set);
        let wanted = end - start;
        if self.partition().is_some() && [updated, ready, replicas].iter().all(|n| *n == wanted) {
            (current, revision) = (updated, self.update);
        }
        let some = |n: i32| (n != 0).then_some(n);
        StatefulSetStatus {
            observed_generation: self.set.metadata.generation.or(present.observed_generation),
            replicas,
            ready_replicas: some(ready),
            available_replicas: Some(count(&|p| self.is_available(p))),
            current_replicas: some(current),
            updated_replicas: some(updated),
            current_revision: Some(revision.to_owned()),
            update_revision: Some(self.update.to_owned()),
            collision_count: Some(collisions),
            conditions: None,
        }
    }

    /// Seconds until the next Pod becomes available, if one will.
    pub(super) fn next_available(&self) -> Option<u64> {
        let left = self.pods.values().filter_map(|p| p.available_in(self.min_ready_seconds(), self.now));
        left.filter(|s| *s > 0).min().and_then(|s| u64::try_from(s).ok())
    }
}

/// Whether a written status says the same, conditions of others aside.
pub(super) fn is_same(present: Option<&StatefulSetStatus>, next: &StatefulSetStatus) -> bool {
    present.is_some_and(|p| StatefulSetStatus { conditions: None, ..p.clone() } == *next)
}

#[cfg(test)]
mod tests;
