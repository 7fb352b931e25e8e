//! From what metrics ask for to what the target gets: stabilization over time, rate limits, and the bounds.

use std::time::Duration;

use k8s_openapi::{
    api::autoscaling::v2::{HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscalerBehavior},
    jiff::{SignedDuration, Timestamp},
};

use super::calculator::ceiling;

/// Window of rules that name none, when the flag does not say otherwise.
const HOUR: i32 = 3600;

/// A condition without its type: whether it holds, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) holds: bool,
    pub(super) reason: &'static str,
    pub(super) message: &'static str,
}

const fn yes(reason: &'static str, message: &'static str) -> Finding {
    Finding { holds: true, reason, message }
}

const READY: Finding = yes("ReadyForNewScale", "recommended size matches current size");
const STABLE_DOWN: Finding = yes(
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
);
const STABLE_UP: Finding = yes(
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
);
const WITHIN: Finding =
    Finding { holds: false, reason: "DesiredWithinRange", message: "the desired count is within the acceptable range" };
const TOO_MANY: Finding = yes("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const TOO_FEW: Finding = yes("TooFewReplicas", "the desired replica count is less than the minimum replica count");
const UP_LIMIT: Finding =
    yes("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const DOWN_LIMIT: Finding =
    yes("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate");

/// What limits the replicas.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds<'a> {
    pub(super) min: i32,
    pub(super) max: i32,
    pub(super) behavior: Option<&'a HorizontalPodAutoscalerBehavior>,
    /// `--horizontal-pod-autoscaler-downscale-stabilization`.
    pub(super) stabilization: Duration,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) replicas: i32,
    pub(super) able: Finding,
    pub(super) limited: Finding,
}

/// What is remembered of one autoscaler; it starts anew with the process.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    recommendations: Vec<(Timestamp, i32)>,
    ups: Vec<(Timestamp, i32)>,
    downs: Vec<(Timestamp, i32)>,
}

impl History {
    /// The size at first sight is the first recommendation.
    pub(super) fn begin(&mut self, replicas: i32, now: Timestamp) {
        if self.recommendations.is_empty() {
            self.recommendations.push((now, replicas));
        }
    }

    /// The size to have, by what is wanted now and was wanted before.
    pub(super) fn decide(&mut self, current: i32, wanted: i32, bounds: Bounds<'_>, now: Timestamp) -> Decision {
        let rules = bounds.behavior.map(|behavior| {
            let seconds = i32::try_from(bounds.stabilization.as_secs()).unwrap_or(HOUR);
            (Rules::of(behavior.scale_up.as_ref(), 0), Rules::of(behavior.scale_down.as_ref(), seconds))
        });
        let windows = match &rules {
            Some((up, down)) => Windows { up: up.window, down: down.window },
            None => Windows { up: Duration::ZERO, down: bounds.stabilization },
        };
        let stable = match rules {
            Some(_) => self.stabilized(current, wanted, windows, now),
            None => self.highest(wanted, windows.down, now),
        };
        self.remember(wanted, windows, now);
        let able = match stable == wanted {
            true => READY,
            false if rules.is_some() && wanted >= current => STABLE_UP,
            false => STABLE_DOWN,
        };
        let (replicas, limited) = match &rules {
            Some((up, down)) => self.by_rules(current, stable, bounds, (up, down), now),
            None => by_default_rate(current, stable, bounds),
        };
        Decision { replicas, able, limited }
    }

    /// Remembers that the target was scaled, for the policies.
    pub(super) fn scaled(&mut self, from: i32, to: i32, behavior: &HorizontalPodAutoscalerBehavior, now: Timestamp) {
        let (events, rules, change) = if to > from {
            (&mut self.ups, behavior.scale_up.as_ref(), to.saturating_sub(from))
        } else {
            (&mut self.downs, behavior.scale_down.as_ref(), from.saturating_sub(to))
        };
        let policies = rules.and_then(|rules| rules.policies.as_deref()).unwrap_or_default();
        let longest = policies.iter().map(|policy| policy.period_seconds).max().unwrap_or(0);
        let kept = before(now, seconds(longest));
        events.retain(|(at, _)| *at > kept);
        events.push((now, change));
    }

    /// The most that was wanted within the window.
    fn highest(&self, wanted: i32, window: Duration, now: Timestamp) -> i32 {
        let cutoff = before(now, window);
        self.recommendations.iter().filter(|(at, _)| *at >= cutoff).map(|(_, n)| *n).fold(wanted, i32::max)
    }

    /// As close to the current size as what was wanted within the windows allows.
    fn stabilized(&self, current: i32, wanted: i32, windows: Windows, now: Timestamp) -> i32 {
        let within = |window| {
            let cutoff = before(now, window);
            self.recommendations.iter().filter(move |(at, _)| *at > cutoff).map(|(_, n)| *n)
        };
        let up = within(windows.up).fold(wanted, i32::min);
        let down = within(windows.down).fold(wanted, i32::max);
        current.max(up).min(down)
    }

    fn remember(&mut self, wanted: i32, windows: Windows, now: Timestamp) {
        let cutoff = before(now, windows.up.max(windows.down));
        self.recommendations.retain(|(at, _)| *at >= cutoff);
        self.recommendations.push((now, wanted));
    }

    fn by_rules(
        &self,
        current: i32,
        wanted: i32,
        bounds: Bounds<'_>,
        (up, down): (&Rules<'_>, &Rules<'_>),
        now: Timestamp,
    ) -> (i32, Finding) {
        if wanted > current {
            let limit = self.limit_up(current, up, now).max(current);
            let (most, finding) = if bounds.max > limit { (limit, UP_LIMIT) } else { (bounds.max, TOO_MANY) };
            if wanted > most {
                return (most, finding);
            }
        } else if wanted < current {
            let limit = self.limit_down(current, down, now).min(current);
            let (least, finding) = if bounds.min < limit { (limit, DOWN_LIMIT) } else { (bounds.min, TOO_FEW) };
            if wanted < least {
                return (least, finding);
            }
        }
        (wanted, WITHIN)
    }

    fn limit_up(&self, current: i32, rules: &Rules<'_>, now: Timestamp) -> i32 {
        let limits = rules.policies.iter().map(|policy| {
            let start = self.at_start(current, policy, now);
            match policy.type_.as_str() {
                "Percent" => ceiling(f64::from(start) * (1.0 + f64::from(policy.value) / 100.0)),
                _ => start.saturating_add(policy.value),
            }
        });
        match rules.select {
            Select::Disabled => current,
            Select::Least => limits.min().unwrap_or(current),
            Select::Most => limits.max().unwrap_or(current),
        }
    }

    fn limit_down(&self, current: i32, rules: &Rules<'_>, now: Timestamp) -> i32 {
        let limits = rules.policies.iter().map(|policy| {
            let start = self.at_start(current, policy, now);
            match policy.type_.as_str() {
                "Percent" => truncated(f64::from(start) * (1.0 - f64::from(policy.value) / 100.0)),
                _ => start.saturating_sub(policy.value),
            }
        });
        match rules.select {
            Select::Disabled => current,
            Select::Least => limits.max().unwrap_or(current),
            Select::Most => limits.min().unwrap_or(current),
        }
    }

    /// The size when the period of a policy began.
    fn at_start(&self, current: i32, policy: &HPAScalingPolicy, now: Timestamp) -> i32 {
        let cutoff = before(now, seconds(policy.period_seconds));
        let sum = |events: &[(Timestamp, i32)]| {
            events.iter().filter(|(at, _)| *at > cutoff).fold(0i32, |sum, (_, n)| sum.saturating_add(*n))
        };
        current.saturating_sub(sum(&self.ups)).saturating_add(sum(&self.downs))
    }
}

#[derive(Clone, Copy)]
struct Windows {
    up: Duration,
    down: Duration,
}

/// Which of several policies counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Select {
    Most,
    Least,
    Disabled,
}

/// The rules of one direction.
struct Rules<'a> {
    window: Duration,
    select: Select,
    policies: &'a [HPAScalingPolicy],
}

impl<'a> Rules<'a> {
    fn of(rules: Option<&'a HPAScalingRules>, window: i32) -> Self {
        let select = match rules.and_then(|rules| rules.select_policy.as_deref()) {
            Some("Disabled") => Select::Disabled,
            Some("Min") => Select::Least,
            _ => Select::Most,
        };
        Self {
            window: seconds(rules.and_then(|rules| rules.stabilization_window_seconds).unwrap_or(window)),
            select,
            policies: rules.and_then(|rules| rules.policies.as_deref()).unwrap_or_default(),
        }
    }
}

/// Without rules: at most doubled, or four, at once.
fn by_default_rate(current: i32, wanted: i32, bounds: Bounds<'_>) -> (i32, Finding) {
    let limit = current.saturating_mul(2).max(4);
    let (most, finding) = if bounds.max > limit { (limit, UP_LIMIT) } else { (bounds.max, TOO_MANY) };
    if wanted < bounds.min {
        (bounds.min, TOO_FEW)
    } else if wanted > most {
        (most, finding)
    } else {
        (wanted, WITHIN)
    }
}

fn seconds(count: i32) -> Duration {
    Duration::from_secs(u64::try_from(count).unwrap_or(0))
}

fn before(at: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    at.saturating_sub(by).unwrap_or(Timestamp::MIN)
}

#[allow(clippy::cast_possible_truncation)]
fn truncated(number: f64) -> i32 {
    number as i32
}

#[cfg(test)]
mod tests;
