//! Priority levels and flow schemas as they work, and the tickets of requests that they let through.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use http::HeaderValue;
use parking_lot::Mutex;
use runtime::clock::Clock;

use super::{
    estimate::MOST_SEATS,
    metrics::SchemaMetrics,
    queues::{Queues, Refusal},
    schema::FlowSchema,
    shares::Bounds,
};

/// Part of the seats of a level that one request may take.
const MOST_OF_LEVEL: f64 = 0.15;
/// Longest `Retry-After`, seconds.
const LONGEST_RETRY: u32 = 32;

/// A priority level.
pub(super) struct Level {
    pub(super) name: String,
    pub(super) is_exempt: bool,
    pub(super) queues: Mutex<Queues>,
    pub(super) allotment: Mutex<Allotment>,
    /// Seats of one request at most.
    most_seats: AtomicU32,
    /// Whether the level is not configured any more, and ends with its last request.
    pub(super) is_quiescing: AtomicBool,
    drops: Mutex<Drops>,
}

/// Seats that a level has, and what it is taken to want.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allotment {
    pub(super) bounds: Bounds,
    pub(super) wanted: f64,
}

impl Level {
    pub(super) fn new(name: &str, is_exempt: bool, bounds: Bounds, now: Duration) -> Self {
        let limit = (!is_exempt).then_some(bounds.nominal);
        Self {
            name: name.to_owned(),
            is_exempt,
            queues: Mutex::new(Queues::new(now, limit, super::queues::Queuing::default())),
            allotment: Mutex::new(Allotment { bounds, wanted: 0.0 }),
            most_seats: AtomicU32::new(most_seats(is_exempt, bounds)),
            is_quiescing: AtomicBool::new(false),
            drops: Mutex::default(),
        }
    }

    /// Other bounds. The level begins with its nominal seats again.
    pub(super) fn set_bounds(&self, bounds: Bounds, now: Duration) {
        let mut allotment = self.allotment.lock();
        if allotment.bounds == bounds {
            return;
        }
        allotment.bounds = bounds;
        drop(allotment);
        self.most_seats.store(most_seats(self.is_exempt, bounds), Ordering::Relaxed);
        if !self.is_exempt {
            self.queues.lock().set_limit(now, Some(bounds.nominal));
        }
    }

    /// Seats of one request at most.
    pub(super) fn most_seats(&self) -> u32 {
        self.most_seats.load(Ordering::Relaxed)
    }

    /// Notes a refused request; answers after how many seconds its client shall try again.
    pub(super) fn refused(&self, now: Duration) -> u32 {
        self.drops.lock().add(now.as_secs())
    }
}

fn most_seats(is_exempt: bool, bounds: Bounds) -> u32 {
    match is_exempt {
        true => MOST_SEATS,
        false => ((f64::from(bounds.nominal) * MOST_OF_LEVEL) as u32).clamp(1, MOST_SEATS),
    }
}

/// Refused requests of the last seconds: the more there are, the longer clients are sent away.
#[derive(Debug, Default)]
struct Drops {
    since: u64,
    count: u32,
    retry_after: u32,
}

impl Drops {
    fn add(&mut self, second: u64) -> u32 {
        let current = self.retry_after.max(1);
        if second >= self.since + u64::from(current) {
            self.retry_after = match self.count {
                _ if second >= self.since + 2 * u64::from(current) => 1,
                many if many >= 3 * current => (current + 1).min(LONGEST_RETRY),
                few if few < current => (current - 1).max(1),
                _ => current,
            };
            (self.since, self.count) = (second, 0);
        }
        self.count = self.count.saturating_add(1);
        self.retry_after.max(1)
    }
}

/// A flow schema.
pub(super) struct Schema {
    pub(super) view: Arc<FlowSchema>,
    pub(super) level: Arc<Level>,
    pub(super) uid: HeaderValue,
    pub(super) level_uid: HeaderValue,
    pub(super) metrics: SchemaMetrics,
}

/// What let a request through; its seats are given back when it is dropped.
pub struct Ticket {
    pub(super) schema: Arc<Schema>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) slot: usize,
    pub(super) seats: u32,
    pub(super) is_watch: bool,
    /// Whether the request waits still.
    pub(super) waits: bool,
}

impl Ticket {
    pub(super) fn begins(&mut self) {
        let metrics = &self.schema.metrics;
        if std::mem::take(&mut self.waits) {
            self.stops_waiting();
        }
        metrics.dispatched.inc();
        metrics.running.inc();
        metrics.running_seats.add(i64::from(self.seats));
    }

    fn stops_waiting(&self) {
        self.schema.metrics.waiting.dec();
        self.schema.metrics.waiting_seats.sub(i64::from(self.seats));
    }

    /// Stops waiting because it took too long. False if the request was just let through.
    pub(super) fn times_out(&mut self) -> bool {
        let now = self.clock.elapsed();
        let withdrawn = self.schema.level.queues.lock().withdraw(self.slot, now, Some(Refusal::TimeOut));
        if withdrawn {
            self.waits = false;
            self.stops_waiting();
            self.slot = usize::MAX;
        }
        withdrawn
    }

    fn ends(&mut self) {
        let now = self.clock.elapsed();
        let level = &self.schema.level;
        let finished = level.queues.lock().finish(self.slot, now);
        let metrics = &self.schema.metrics;
        metrics.running.dec();
        let histogram = if self.is_watch { &metrics.watches_begin } else { &metrics.runs };
        histogram.observe(finished.ran.as_secs_f64());
        let runtime = tokio::runtime::Handle::try_current();
        match (finished.lingers, runtime) {
            (None, _) => metrics.running_seats.sub(i64::from(self.seats)),
            (Some(time), Ok(runtime)) => {
                let (schema, clock, slot) = (Arc::clone(&self.schema), Arc::clone(&self.clock), self.slot);
                let seats = self.seats;
                runtime.spawn(async move {
                    clock.sleep(time).await;
                    release(&schema, slot, seats, clock.elapsed());
                });
            }
            (Some(_), Err(_)) => release(&self.schema, self.slot, self.seats, now),
        }
    }
}

fn release(schema: &Schema, slot: usize, seats: u32, now: Duration) {
    schema.level.queues.lock().release(slot, now);
    schema.metrics.running_seats.sub(i64::from(seats));
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.slot == usize::MAX {
            return;
        }
        if self.waits {
            let now = self.clock.elapsed();
            let withdrawn = self.schema.level.queues.lock().withdraw(self.slot, now, None);
            if withdrawn {
                self.stops_waiting();
                return;
            }
            // It was let through after its client had gone.
            self.begins();
        }
        self.ends();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_sent_away_for_longer_when_many_are() {
        let mut drops = Drops::default();
        assert!((0..10).all(|_| drops.add(10) == 1), "the first second");
        assert_eq!(drops.add(11), 2);
        assert!((0..10).all(|_| drops.add(12) == 2));
        assert_eq!(drops.add(13), 3);
        assert_eq!(drops.add(100), 1, "a long time after");
    }
}
