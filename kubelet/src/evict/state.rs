//! Which thresholds are met, for how long, and what follows: the pure part.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::observe::Observations;
use super::threshold::{Condition, Signal, Threshold};

/// What is remembered from one look to the next.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Since when a threshold is met; `true`: a hard one.
    first_met: BTreeMap<(Signal, bool), Timestamp>,
    /// When a condition was last seen.
    last_seen: BTreeMap<Condition, Timestamp>,
    /// Thresholds that are being acted upon.
    met: Vec<Threshold>,
    /// The last look.
    last: Observations,
}

/// What follows from a look.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Decision {
    /// What the node says of itself.
    pub conditions: BTreeSet<Condition>,
    /// What must be acted upon, the most urgent first.
    pub act: Vec<Threshold>,
}

/// Whether a threshold is met: less is there than it wants, or than it wants back once it was met.
pub(super) fn is_met(threshold: &Threshold, observations: &Observations, reclaiming: bool) -> bool {
    let Some(seen) = observations.get(&threshold.signal) else { return false };
    let extra = threshold.min_reclaim.filter(|_| reclaiming).map_or(0, |amount| amount.of(seen.capacity));
    let wanted = threshold.value.of(seen.capacity).saturating_add(extra);
    seen.available < wanted
}

fn key(threshold: &Threshold) -> (Signal, bool) {
    (threshold.signal, threshold.grace.is_none())
}

fn longer_than(since: Timestamp, now: Timestamp, period: Duration) -> bool {
    let elapsed = now.duration_since(since);
    SignedDuration::try_from(period).is_ok_and(|period| elapsed >= period)
}

impl State {
    /// Takes a look. Pressure is told for `transition` after it was last seen.
    pub(super) fn step(
        &mut self,
        thresholds: &[Threshold],
        observations: Observations,
        now: Timestamp,
        transition: Duration,
    ) -> Decision {
        let mut met: Vec<Threshold> =
            thresholds.iter().filter(|one| is_met(one, &observations, false)).copied().collect();
        // What is acted upon stays until enough is free.
        for unresolved in self.met.iter().filter(|one| is_met(one, &observations, true)) {
            if met.iter().all(|one| key(one) != key(unresolved)) {
                met.push(*unresolved);
            }
        }
        self.first_met =
            met.iter().map(|one| (key(one), self.first_met.get(&key(one)).copied().unwrap_or(now))).collect();
        self.last_seen.extend(met.iter().map(|one| (one.signal.condition(), now)));
        let recent = |since: Timestamp| !longer_than(since, now, transition) || since == now;
        let conditions = self.last_seen.iter().filter(|(_, at)| recent(**at)).map(|(one, _)| *one).collect();
        met.retain(|one| {
            let since = self.first_met.get(&key(one)).copied().unwrap_or(now);
            longer_than(since, now, one.grace.unwrap_or_default())
        });
        self.met.clone_from(&met);
        // Acting twice upon one look would be too much.
        met.retain(|one| {
            let at = observations.get(&one.signal).map(|seen| seen.at);
            self.last.get(&one.signal).is_none_or(|last| at.is_some_and(|at| at > last.at))
        });
        met.sort_by_key(|one| one.signal.order());
        self.last = observations;
        Decision { conditions, act: met }
    }

    /// Whether, after something was freed, none of what is acted upon is short any more.
    pub(super) fn is_resolved(&self, observations: &Observations) -> bool {
        !self.met.iter().any(|one| is_met(one, observations, true))
    }
}
