//! The task of one probe.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rand::Rng;
use tokio::sync::{Notify, watch};
use tokio::time::MissedTickBehavior;

use super::runner::Outcome;
use super::{Key, Kind, PodState, Probes};
use crate::cri::RecordState;
use crate::pods;
use crate::workers::plan::Verdict;

/// An extra probe for a Pod that waits for readiness may not come sooner than this after the last.
const TRIGGER_SPACING: Duration = Duration::from_secs(1);

/// Probes with the same period run together, in as many groups as such slots fit into a second.
const SLOT: Duration = Duration::from_millis(250);

/// How long ago a slot began.
fn phase() -> Duration {
    let now = Timestamp::now().as_millisecond().rem_euclid(SLOT.as_millis().try_into().unwrap_or(250));
    Duration::from_millis(now.unsigned_abs())
}

pub(super) struct Worker {
    probes: std::sync::Weak<Probes>,
    key: Key,
    trigger: Arc<Notify>,
    state: watch::Receiver<Option<PodState>>,
    container: String,
    on_hold: bool,
    last: Verdict,
    run: i32,
}

impl Worker {
    pub(super) fn new(
        probes: &Arc<Probes>,
        key: Key,
        trigger: Arc<Notify>,
        state: watch::Receiver<Option<PodState>>,
    ) -> Self {
        Self {
            probes: Arc::downgrade(probes),
            last: key.2.initial(),
            key,
            trigger,
            state,
            container: String::new(),
            on_hold: false,
            run: 0,
        }
    }

    pub(super) async fn run(mut self) {
        let Some(period) = self.period() else { return };
        let Some(started) = self.probes.upgrade().map(|probes| probes.started) else { return };
        let age = Timestamp::now().duration_since(started);
        if Duration::try_from(age).unwrap_or_default() < period {
            let spread = rand::rng().random_range(0.0..1.0);
            tokio::time::sleep(period.mul_f64(spread)).await;
        }
        let mut last_run = tokio::time::Instant::now() - TRIGGER_SPACING;
        let mut asked = true;
        let mut ticks = tokio::time::interval_at(last_run + TRIGGER_SPACING + period.saturating_sub(phase()), period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.trigger.notified(), if !asked => {
                    // Whatever comes sooner than the extra probe takes its place.
                    asked = true;
                    continue;
                }
                () = tokio::time::sleep_until(last_run + TRIGGER_SPACING.min(period)), if asked => {}
                changed = self.state.changed() => {
                    // A new container instance is probed at once, like a new Pod.
                    if changed.is_err() {
                        return;
                    }
                    if !self.is_new_instance() {
                        continue;
                    }
                }
            }
            asked = false;
            last_run = tokio::time::Instant::now();
            if !self.step().await {
                return;
            }
        }
    }

    fn period(&self) -> Option<Duration> {
        let state = self.state.borrow().clone()?;
        let (container, _) = pods::find_container(&state.pod, &self.key.1)?;
        let seconds = self.key.2.of(&container)?.period_seconds.unwrap_or(10).max(1);
        Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(10)))
    }

    fn is_new_instance(&self) -> bool {
        let state = self.state.borrow();
        let newest = state.as_ref().and_then(|state| state.view.newest(&self.key.1));
        newest.is_some_and(|record| record.state == RecordState::Running && record.id != self.container)
    }

    /// One probe; `false` ends the task.
    async fn step(&mut self) -> bool {
        let Some(probes) = self.probes.upgrade() else { return false };
        let Some(state) = self.state.borrow().clone() else { return true };
        let (uid, name, kind) = (self.key.0.clone(), self.key.1.clone(), self.key.2);
        let Some((container, _)) = pods::find_container(&state.pod, &name) else { return false };
        let Some(probe) = kind.of(&container) else { return false };
        let Some(record) = state.view.newest(&name) else { return true };
        if record.id != self.container {
            probes.forget_result(&self.container);
            self.container.clone_from(&record.id);
            self.on_hold = false;
            self.last = kind.initial();
            self.run = 0;
            if record.state == RecordState::Running
                && probes.result(&record.id, kind).is_none()
                && !self.is_old(&probes, record.started_at)
            {
                probes.set(&uid, &record.id, kind, kind.initial());
            }
        }
        if self.on_hold {
            return true;
        }
        if record.state != RecordState::Running {
            if kind == Kind::Readiness {
                probes.set(&uid, &record.id, kind, Verdict::Failure);
            }
            return true;
        }
        if pods::is_deleting(&state.pod) && kind != Kind::Readiness {
            probes.set(&uid, &record.id, kind, Verdict::Success);
            return kind != Kind::Startup;
        }
        let age = Timestamp::now().as_second() - record.started_at / 1_000_000_000;
        if age < i64::from(probe.initial_delay_seconds.unwrap_or(0)) {
            return true;
        }
        let started = container.startup_probe.is_none() || probes.of(&state.pod, &state.view).is_started(&record.id);
        if started == (kind == Kind::Startup) {
            return true;
        }
        let outcome = probes.runner.run(kind, &state, &container, &record.id, probe).await;
        self.judge(&probes, &uid, &record.id, probe, outcome);
        true
    }

    fn is_old(&self, probes: &Probes, started_at: i64) -> bool {
        i128::from(started_at) < probes.started.as_nanosecond() - 10_000_000_000
    }

    fn judge(
        &mut self,
        probes: &Probes,
        uid: &str,
        id: &str,
        probe: &k8s_openapi::api::core::v1::Probe,
        outcome: Outcome,
    ) {
        let verdict = match outcome {
            Outcome::Success => Verdict::Success,
            Outcome::Failure => Verdict::Failure,
            Outcome::Discard => return,
        };
        if self.last == verdict {
            self.run += 1;
        } else {
            self.last = verdict;
            self.run = 1;
        }
        let threshold = match verdict {
            Verdict::Failure => probe.failure_threshold.unwrap_or(3),
            _ => probe.success_threshold.unwrap_or(1),
        };
        if self.run < threshold {
            return;
        }
        let kind = self.key.2;
        probes.set(uid, id, kind, verdict);
        if verdict == Verdict::Failure && kind != Kind::Readiness {
            self.on_hold = true;
            self.run = 0;
        }
    }
}
