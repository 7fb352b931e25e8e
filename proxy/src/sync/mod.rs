//! The loop that keeps the rules of one family equal to the watched state.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use controller::{Informer, ObjectKey};
use runtime::clock::Clock;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    backend::{Applied, Backend, BackendError, Work},
    conntrack,
    family::Family,
    health::Health,
    healthcheck::HealthPorts,
    metrics::FamilyMetrics,
    model::{Changed, Model, Topology},
    node::{IPVS_INTERFACE, NodePorts, NodeView, local_addresses},
    track::{Pending, Tracker, Watched, since},
    view::Policy,
};

/// How often rules are written.
#[derive(Clone, Copy)]
pub(crate) struct Periods {
    /// Time after which a failed sync is tried again, and rules are looked after.
    pub(crate) sync: Duration,
    /// Least time between the end of a sync and the next one.
    pub(crate) least: Duration,
}

/// All that keeps one family's rules.
pub(crate) struct Proxier {
    pub(crate) family: Family,
    pub(crate) backend: Box<dyn Backend>,
    pub(crate) tracker: Tracker,
    pub(crate) watched: Watched,
    pub(crate) nodes: Informer<NodeView>,
    pub(crate) node: ObjectKey,
    pub(crate) node_ports: NodePorts,
    pub(crate) health_ports: HealthPorts,
    pub(crate) periods: Periods,
    pub(crate) metrics: FamilyMetrics,
    pub(crate) health: Health,
    pub(crate) clock: Arc<dyn Clock>,
}

/// What a run leaves for the next.
struct Course {
    model: Model,
    topology: Topology,
    /// Nothing is known of the kernel's state.
    full: bool,
    /// A change of UDP endpoints whose flows are not cleaned up.
    udp: bool,
    next_full: Instant,
    next_look: Instant,
    retry: Option<Instant>,
}

impl Proxier {
    /// Writes rules whenever the state changes, until `stop`. The rules stay when it ends.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let synced = self.watched.services.wait_synced(&stop).await && self.watched.slices.wait_synced(&stop).await;
        if !synced {
            return;
        }
        let now = Instant::now();
        let mut course = Course {
            model: Model::default(),
            topology: Topology::default(),
            full: true,
            udp: true,
            next_full: now + self.backend.full_period(),
            next_look: now + self.periods.sync,
            retry: None,
        };
        loop {
            self.step(&mut course).await;
            if stop.run_until_cancelled(tokio::time::sleep(self.periods.least)).await.is_none() {
                return;
            }
            let mut until = course.next_look.min(course.next_full);
            if let Some(retry) = course.retry {
                until = until.min(retry);
            }
            if let Some(later) = self.backend.unfinished() {
                until = until.min(Instant::now() + later);
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.tracker.changed() => {}
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    async fn step(&mut self, course: &mut Course) {
        let now = Instant::now();
        if now >= course.next_look {
            course.next_look = now + self.periods.sync;
            if !self.backend.intact().await {
                tracing::warn!(family = %self.family, "rules were removed by somebody; writing all of them again");
                course.full = true;
            }
        }
        if now >= course.next_full {
            course.full = true;
        }
        let taken = self.clock.now();
        let started = Instant::now();
        let mut pending = self.tracker.take();
        let zone = self.nodes.get(&self.node).map(|node| node.zone.clone()).unwrap_or_default();
        if zone != course.topology.zone {
            course.topology = Topology { zone };
            pending.all = true;
        }
        pending.all |= course.full;
        let changed = self.watched.fold(&mut course.model, &mut pending, self.family, &course.topology);
        course.udp |= pending.udp;
        self.note(&pending);
        let idle = changed.is_empty() && self.backend.unfinished().is_none();
        if idle && !course.full {
            self.health.updated(self.family, taken, self.clock.now());
            return;
        }
        self.health.queued(self.family, taken);
        let full = course.full;
        let work = Work { model: &course.model, changed: &changed, full };
        match self.backend.sync(&work).await {
            Ok(applied) => {
                course.full = false;
                course.retry = None;
                if full {
                    course.next_full = Instant::now() + self.backend.full_period();
                }
                self.done(course, &pending, (taken, started), applied, full).await;
            }
            Err(error) => self.failed(course, &error, &changed),
        }
    }

    /// Counts changes.
    fn note(&self, pending: &Pending) {
        self.metrics.service_changes.inc_by(pending.service_changes);
        self.metrics.endpoint_changes.inc_by(pending.endpoint_changes);
        self.metrics.service_pending.set(0);
        self.metrics.endpoint_pending.set(0);
    }

    fn failed(&self, course: &mut Course, error: &BackendError, changed: &[Changed]) {
        // All rules are written next time: which of these changes took effect is not known.
        course.full = true;
        course.retry = Some(Instant::now() + self.periods.sync);
        tracing::error!(error = util::chain(error), family = %self.family, services = changed.len(), "Failed to sync rules");
    }

    async fn done(
        &mut self,
        course: &mut Course,
        pending: &Pending,
        (taken, started): (SystemTime, Instant),
        applied: Applied,
        full: bool,
    ) {
        let took = started.elapsed();
        self.metrics.sync.observe(took.as_secs_f64());
        self.metrics.outside.observe(applied.outside.as_secs_f64());
        if full { &self.metrics.full } else { &self.metrics.partial }.observe(took.as_secs_f64());
        let now = self.clock.now();
        for trigger in &pending.triggers {
            self.metrics.programming.observe(since(*trigger, now).as_secs_f64());
        }
        self.metrics.last.set(seconds(now));
        self.count_localless(&course.model);
        self.health.updated(self.family, taken, now);
        let addresses = if self.node_ports.all() { Default::default() } else { local_addresses(IPVS_INTERFACE) };
        self.health_ports.update(&course.model.health_ports(), &self.node_ports.listening(&addresses));
        if course.udp {
            course.udp = false;
            let began = Instant::now();
            match conntrack::forget_stale(&course.model, self.family).await {
                Ok(deleted) => self.metrics.conntrack_deleted.inc_by(deleted),
                Err(error) => {
                    course.udp = true;
                    tracing::error!(error = util::chain(&error), "stale UDP flows stay");
                }
            }
            self.metrics.conntrack_duration.observe(began.elapsed().as_secs_f64());
        }
        tracing::info!(v = 2, family = %self.family, seconds = took.as_secs_f64(), full, "SyncProxyRules complete");
    }

    /// Counts service ports whose traffic has to stay here but has no endpoint here.
    fn count_localless(&self, model: &Model) {
        let without = || model.ports().filter(|p| p.uses_local() && p.has_endpoints && p.local_endpoints.is_empty());
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.metrics.no_local_internal.set(count(without().filter(|p| p.internal == Policy::Local).count()));
        let external = without().filter(|p| p.external == Policy::Local && p.is_external()).count();
        self.metrics.no_local_external.set(count(external));
    }
}

/// Seconds since 1970.
pub(crate) fn seconds(at: SystemTime) -> f64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests;
