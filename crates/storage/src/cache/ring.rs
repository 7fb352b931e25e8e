//! The recent changes of a resource, for watches that start in the past.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use super::event::Change;

/// Changes always kept.
const MIN_EVENTS: usize = 100;

/// Bounds of a ring.
#[derive(Clone, Copy, Debug)]
pub(super) struct RingBounds {
    /// Changes kept at most.
    pub(super) events: usize,
    /// Memory kept at most.
    pub(super) bytes: usize,
    /// Age after which changes are let go.
    pub(super) age: Duration,
}

/// The ring.
#[derive(Debug)]
pub(super) struct Ring {
    changes: VecDeque<Arc<Change>>,
    bytes: usize,
    bounds: RingBounds,
    /// All changes after this revision are held.
    floor: i64,
}

impl Ring {
    /// An empty ring: nothing is known of changes up to `floor`.
    pub(super) fn new(bounds: RingBounds, floor: i64) -> Self {
        Self { changes: VecDeque::new(), bytes: 0, bounds, floor }
    }

    /// Revision after which all changes are held.
    pub(super) fn floor(&self) -> i64 {
        self.floor
    }

    /// Adds the newest change.
    pub(super) fn push(&mut self, change: Arc<Change>) {
        self.bytes += change.cost();
        self.trim(change.at);
        self.changes.push_back(change);
    }

    /// Lets go of what is too old or too much.
    pub(super) fn trim(&mut self, now: Instant) {
        while let Some(oldest) = self.changes.front() {
            let count = self.changes.len();
            let much = count >= self.bounds.events || self.bytes > self.bounds.bytes;
            let old = count >= MIN_EVENTS && now.saturating_duration_since(oldest.at) > self.bounds.age;
            if !much && !old {
                break;
            }
            self.floor = oldest.revision;
            self.bytes -= oldest.cost();
            self.changes.pop_front();
        }
        if self.changes.capacity() > 1024 && self.changes.len() * 4 < self.changes.capacity() {
            self.changes.shrink_to(self.changes.len() * 2);
        }
    }

    /// Changes after `revision`, oldest first. `None` if some of them are no longer held.
    pub(super) fn after(&self, revision: i64) -> Option<impl Iterator<Item = &Arc<Change>>> {
        if revision < self.floor {
            return None;
        }
        let start = self.changes.partition_point(|change| change.revision <= revision);
        Some(self.changes.range(start..))
    }

    /// Room for changes, as a power of two.
    pub(super) fn capacity(&self) -> usize {
        self.changes.len().next_power_of_two().max(128)
    }
}
