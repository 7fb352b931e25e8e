//! What a Job is at and what it does next: pure.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::{
    api::batch::v1::{Job, JobCondition, JobSpec, JobStatus},
    jiff::Timestamp,
};
use util::Backoff;

use super::{
    indexes::Indexes,
    pods::{self, JobPod},
    policy::{self, Verdict},
};
use crate::views::Phase;

/// Pods that one reconciliation creates or deletes at most.
const BURST: usize = 500;
/// Delays before failed Pods are replaced.
const BACKOFF: Backoff = Backoff::doubling(Duration::from_secs(10), Duration::from_secs(10 * 60));

/// How a Job ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ending {
    pub(super) success: bool,
    pub(super) reason: String,
    pub(super) message: String,
}

impl Ending {
    fn failed(reason: &str, message: impl Into<String>) -> Self {
        Self { success: false, reason: reason.into(), message: message.into() }
    }
}

/// Failures since the last success.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Streak {
    pub(super) failures: u32,
    pub(super) last: Option<Timestamp>,
}

/// What is observed of a Job.
pub(super) struct World<'a> {
    pub(super) job: &'a Job,
    pub(super) spec: JobSpec,
    pub(super) status: JobStatus,
    pub(super) pods: &'a [JobPod],
    pub(super) now: Timestamp,
    /// Indexes that succeeded, with those not counted yet.
    pub(super) succeeded_indexes: Indexes,
    pub(super) failed_indexes: Indexes,
    pub(super) streak: Streak,
}

/// A Pod to make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Creation {
    /// Its index, in an indexed Job.
    pub(super) index: Option<i32>,
    /// Earlier failures of the index, counted and ignored ones, if the Job limits them by index.
    pub(super) before: Option<(i32, i32)>,
}

/// What to do about Pods.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub(super) create: Vec<Creation>,
    pub(super) delete: Vec<JobPod>,
    /// When to come again, if nothing else happens.
    pub(super) again: Option<Duration>,
}

pub(super) fn condition<'a>(status: &'a JobStatus, kind: &str) -> Option<&'a JobCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == kind && c.status == "True")
}

/// Whether a Job has ended.
pub(crate) fn is_finished(job: &Job) -> bool {
    job.status.as_ref().is_some_and(|s| condition(s, "Complete").or_else(|| condition(s, "Failed")).is_some())
}

pub(super) fn completions(spec: &JobSpec) -> i32 {
    spec.completions.unwrap_or(0)
}

impl<'a> World<'a> {
    pub(super) fn new(job: &'a Job, pods: &'a [JobPod], now: Timestamp, before: Streak) -> Self {
        let spec = pods::spec(job);
        let status = job.status.clone().unwrap_or_default();
        let total = completions(&spec);
        let text = |t: &Option<String>| Indexes::parse(t.as_deref().unwrap_or_default(), total);
        let (succeeded_indexes, failed_indexes) = (text(&status.completed_indexes), text(&status.failed_indexes));
        let mut world = Self { job, spec, status, pods, now, succeeded_indexes, failed_indexes, streak: before };
        if pods::is_indexed(&world.spec) {
            world.count_indexes();
        }
        world.streak = world.extended(before);
        world
    }

    fn count_indexes(&mut self) {
        for pod in self.pods.iter().filter(|p| pods::is_tracked(p)) {
            let Some(index) = pods::index(pod, &self.spec) else { continue };
            if pod.phase == Phase::Succeeded {
                self.succeeded_indexes.insert(index);
            } else if self.spec.backoff_limit_per_index.is_some() && self.index_fails_with(pod) {
                self.failed_indexes.insert(index);
            }
        }
    }

    fn index_fails_with(&self, pod: &JobPod) -> bool {
        if !pods::is_failed(pod, &self.spec) {
            return false;
        }
        match policy::judge(&self.spec, pod) {
            Verdict::FailIndex => true,
            Verdict::Ignore => false,
            _ => pods::failures(pod).0 >= self.spec.backoff_limit_per_index.unwrap_or(i32::MAX),
        }
    }

    pub(super) fn active(&self) -> Vec<&JobPod> {
        self.pods.iter().filter(|p| p.is_active()).collect()
    }

    pub(super) fn terminating(&self) -> usize {
        self.pods.iter().filter(|p| p.is_terminating()).count()
    }

    pub(super) fn is_suspended(&self) -> bool {
        self.spec.suspend == Some(true)
    }

    fn uncounted(&self, failed: bool) -> BTreeSet<&str> {
        let lists = self.status.uncounted_terminated_pods.as_ref();
        let list = lists.and_then(|u| if failed { u.failed.as_ref() } else { u.succeeded.as_ref() });
        list.into_iter().flatten().map(String::as_str).collect()
    }

    /// Tracked Pods that ended and are in none of the lists.
    pub(super) fn fresh(&self, failed: bool) -> Vec<&'a JobPod> {
        let known = self.uncounted(failed);
        let ended = |p: &JobPod| {
            if failed { pods::is_failed(p, &self.spec) } else { p.phase == Phase::Succeeded }
        };
        self.pods.iter().filter(|p| pods::is_tracked(p) && ended(p) && !known.contains(p.uid.as_str())).collect()
    }

    /// Whether a failure counts.
    pub(super) fn counts(&self, pod: &JobPod) -> bool {
        policy::judge(&self.spec, pod) != Verdict::Ignore
    }

    fn len(n: usize) -> i32 {
        i32::try_from(n).unwrap_or(i32::MAX)
    }

    pub(super) fn succeeded(&self) -> i32 {
        if pods::is_indexed(&self.spec) {
            return self.succeeded_indexes.len();
        }
        self.status.succeeded.unwrap_or(0) + Self::len(self.fresh(false).len()) + Self::len(self.uncounted(false).len())
    }

    fn failed(&self) -> i32 {
        let fresh = self.fresh(true).into_iter().filter(|p| self.counts(p)).count();
        self.status.failed.unwrap_or(0) + Self::len(fresh) + Self::len(self.uncounted(true).len())
    }

    /// The streak of failures with what ended since.
    fn extended(&self, before: Streak) -> Streak {
        let mut ended: Vec<(Option<Timestamp>, bool)> = Vec::new();
        ended.extend(self.fresh(false).into_iter().map(|p| (pods::finished(p), false)));
        ended.extend(self.fresh(true).into_iter().filter(|p| self.counts(p)).map(|p| (pods::finished(p), true)));
        ended.sort_unstable();
        ended.into_iter().fold(before, |streak, (at, failed)| {
            if failed { Streak { failures: streak.failures + 1, last: at } } else { Streak::default() }
        })
    }

    fn past_limit_by_restarts(&self) -> bool {
        let template = self.spec.template.spec.as_ref();
        if template.and_then(|s| s.restart_policy.as_deref()) != Some("OnFailure") {
            return false;
        }
        let running = self.pods.iter().filter(|p| matches!(p.phase, Phase::Running | Phase::Pending));
        let restarts = running.fold(0_i32, |sum, p| sum.saturating_add(p.all_restarts));
        let limit = self.spec.backoff_limit.unwrap_or(6);
        if limit == 0 { restarts > 0 } else { restarts >= limit }
    }

    /// Seconds until the deadline; 0 once it is over.
    fn deadline_in(&self) -> Option<u64> {
        let deadline = self.spec.active_deadline_seconds.filter(|_| !self.is_suspended())?;
        let start = self.status.start_time.as_ref()?.0.as_second();
        Some(u64::try_from(start + deadline - self.now.as_second()).unwrap_or(0))
    }

    /// How the Job ends, if its end has come before its work is complete.
    pub(super) fn ending(&self) -> Option<Ending> {
        let known = |kind: &str, success| {
            condition(&self.status, kind).map(|c| Ending {
                success,
                reason: c.reason.clone().unwrap_or_default(),
                message: c.message.clone().unwrap_or_default(),
            })
        };
        if let Some(ending) = known("FailureTarget", false) {
            return Some(ending);
        }
        if let Some(ending) = known("SuccessCriteriaMet", true) {
            return Some(ending);
        }
        let failed = self.pods.iter().filter(|p| pods::is_failed(p, &self.spec));
        let by_policy = failed.filter_map(|p| match policy::judge(&self.spec, p) {
            Verdict::FailJob(text) => Some(text),
            _ => None,
        });
        if let Some(text) = by_policy.into_iter().next() {
            return Some(Ending::failed("PodFailurePolicy", text));
        }
        if self.failed() > self.spec.backoff_limit.unwrap_or(6) || self.past_limit_by_restarts() {
            return Some(Ending::failed("BackoffLimitExceeded", "Job has reached the specified backoff limit"));
        }
        if self.deadline_in() == Some(0) {
            return Some(Ending::failed("DeadlineExceeded", "Job was active longer than specified deadline"));
        }
        if !pods::is_indexed(&self.spec) {
            return None;
        }
        self.ending_by_index()
    }

    fn ending_by_index(&self) -> Option<Ending> {
        let total = completions(&self.spec);
        if self.spec.backoff_limit_per_index.is_some() {
            let failed = self.failed_indexes.len();
            if self.spec.max_failed_indexes.is_some_and(|most| failed > most) {
                let text = "Job has exceeded the specified maximal number of failed indexes";
                return Some(Ending::failed("MaxFailedIndexesExceeded", text));
            }
            if failed > 0 && failed + self.succeeded_indexes.len() >= total {
                return Some(Ending::failed("FailedIndexes", "Job has failed indexes"));
            }
        }
        let rules = &self.spec.success_policy.as_ref()?.rules;
        let message = policy::success(rules, &self.succeeded_indexes, total)?;
        Some(Ending { success: true, reason: "SuccessPolicy".into(), message })
    }

    /// Whether the work is done when `active` Pods are left.
    pub(super) fn complete(&self, active: usize) -> Option<Ending> {
        let done = match self.spec.completions {
            None => self.succeeded() > 0 && active == 0 && self.terminating() == 0,
            Some(wanted) => self.succeeded() >= wanted,
        };
        done.then(|| Ending {
            success: true,
            reason: "CompletionsReached".into(),
            message: "Reached expected number of succeeded pods".into(),
        })
    }

    /// Pods to create or delete while the Job runs.
    pub(super) fn step(&self) -> Step {
        let active = self.active();
        let mut step = Step { again: self.deadline_in().map(Duration::from_secs), ..Step::default() };
        if self.is_suspended() {
            step.delete = self.removable(&active, active.len());
            return step;
        }
        let succeeded = self.succeeded();
        let parallelism = usize::try_from(self.spec.parallelism.unwrap_or(1)).unwrap_or(0);
        let wanted = match self.spec.completions {
            None if succeeded > 0 => active.len(),
            None => parallelism,
            Some(total) => parallelism.min(usize::try_from(total - succeeded).unwrap_or(0)),
        };
        step.delete = self.removable(&active, active.len().saturating_sub(wanted));
        if !step.delete.is_empty() {
            return step;
        }
        let leaving = if pods::waits_for_end(&self.spec) { self.terminating() } else { 0 };
        let missing = wanted.saturating_sub(active.len() + leaving).min(BURST);
        if missing == 0 {
            return step;
        }
        if self.spec.backoff_limit_per_index.is_none()
            && let Some(wait) = remaining(self.streak.failures, self.streak.last, self.now)
        {
            step.again = Some(step.again.map_or(wait, |a| a.min(wait)));
            return step;
        }
        if pods::is_indexed(&self.spec) {
            self.fill_indexes(&active, missing, &mut step);
        } else {
            step.create = vec![Creation::default(); missing];
        }
        step
    }

    /// The lowest indexes that nobody works on.
    fn fill_indexes(&self, active: &[&JobPod], missing: usize, step: &mut Step) {
        let mut taken: BTreeSet<i32> = active.iter().filter_map(|p| pods::index(p, &self.spec)).collect();
        if pods::waits_for_end(&self.spec) {
            let leaving = self.pods.iter().filter(|p| p.is_terminating());
            taken.extend(leaving.filter_map(|p| pods::index(p, &self.spec)));
        }
        let last = self.last_failures();
        let per_index = self.spec.backoff_limit_per_index.is_some();
        for index in 0..completions(&self.spec) {
            if step.create.len() == missing {
                break;
            }
            let done = self.succeeded_indexes.has(index) || (per_index && self.failed_indexes.has(index));
            if done || taken.contains(&index) {
                continue;
            }
            if !per_index {
                step.create.push(Creation { index: Some(index), before: None });
                continue;
            }
            let before = last.get(&index).map(|p| self.failures_after(p)).unwrap_or_default();
            let at = last.get(&index).and_then(|p| pods::finished(p));
            let count = u32::try_from(before.0.saturating_add(before.1)).unwrap_or(0);
            match remaining(count, at, self.now) {
                Some(wait) => step.again = Some(step.again.map_or(wait, |a| a.min(wait))),
                None => step.create.push(Creation { index: Some(index), before: Some(before) }),
            }
        }
    }

    fn failures_after(&self, pod: &JobPod) -> (i32, i32) {
        let (counted, ignored) = pods::failures(pod);
        if self.counts(pod) { (counted + 1, ignored) } else { (counted, ignored + 1) }
    }

    /// By index, the failed Pod that knows of the most failures.
    fn last_failures(&self) -> BTreeMap<i32, &JobPod> {
        let mut last: BTreeMap<i32, &JobPod> = BTreeMap::new();
        let total = |p: &JobPod| {
            let (counted, ignored) = pods::failures(p);
            counted + ignored
        };
        for pod in self.pods.iter().filter(|p| pods::is_tracked(p) && pods::is_failed(p, &self.spec)) {
            let Some(index) = pods::index(pod, &self.spec) else { continue };
            if last.get(&index).is_none_or(|known| total(pod) > total(known)) {
                last.insert(index, pod);
            }
        }
        last
    }

    /// UIDs of failed Pods that have to stay until their index has a new Pod: nobody else knows the count.
    pub(super) fn kept_for_count(&self) -> BTreeSet<&str> {
        if self.spec.backoff_limit_per_index.is_none() {
            return BTreeSet::new();
        }
        let replaced: BTreeMap<i32, i32> = self
            .active()
            .into_iter()
            .filter_map(|p| {
                let (counted, ignored) = pods::failures(p);
                Some((pods::index(p, &self.spec)?, counted + ignored))
            })
            .collect();
        let open = |index: &i32| !self.succeeded_indexes.has(*index) && !self.failed_indexes.has(*index);
        let last = self.last_failures().into_iter().filter(|(index, pod)| {
            let (counted, ignored) = pods::failures(pod);
            open(index) && replaced.get(index).is_none_or(|next| *next <= counted + ignored)
        });
        last.map(|(_, pod)| pod.uid.as_str()).collect()
    }

    /// Active Pods to delete, `least` of them: first those that should not be, then the least advanced.
    fn removable(&self, active: &[&JobPod], least: usize) -> Vec<JobPod> {
        let (mut gone, mut rest) = (Vec::new(), Vec::new());
        if pods::is_indexed(&self.spec) {
            let mut sorted = active.to_vec();
            sorted.sort_by(|a, b| removed_first(b, a));
            let mut seen = BTreeSet::new();
            for pod in sorted {
                let keep = pods::index(pod, &self.spec).is_some_and(|i| seen.insert(i));
                if keep { rest.push(pod) } else { gone.push(Arc::clone(pod)) }
            }
        } else {
            rest = active.to_vec();
        }
        rest.sort_by(|a, b| removed_first(a, b));
        let more = least.saturating_sub(gone.len());
        gone.extend(rest.into_iter().take(more).cloned());
        gone.truncate(BURST);
        gone
    }
}

/// Which of two active Pods is deleted first.
fn removed_first(a: &JobPod, b: &JobPod) -> Ordering {
    let phase = |p: &JobPod| match p.phase {
        Phase::Pending => 0,
        Phase::Unknown => 1,
        _ => 2,
    };
    b.node
        .is_empty()
        .cmp(&a.node.is_empty())
        .then_with(|| phase(a).cmp(&phase(b)))
        .then_with(|| a.is_ready().cmp(&b.is_ready()))
        .then_with(|| b.ready_since().flatten().cmp(&a.ready_since().flatten()))
        .then_with(|| b.restarts.cmp(&a.restarts))
        .then_with(|| b.created.cmp(&a.created))
}

/// How long a replacement has to wait after so many failures.
fn remaining(failures: u32, last: Option<Timestamp>, now: Timestamp) -> Option<Duration> {
    if failures == 0 {
        return None;
    }
    let passed = now.as_second() - last?.as_second();
    let passed = Duration::from_secs(u64::try_from(passed).unwrap_or(0));
    BACKOFF.delay(failures - 1).checked_sub(passed).filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests;
