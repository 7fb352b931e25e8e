//! Expectations: what a controller did and has not seen yet. While some are open, its caches are stale for that key.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use runtime::clock::Clock;

/// Time after which expectations are given up: the events were missed, or never came to be.
const TIMEOUT: Duration = Duration::from_secs(5 * 60);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Open {
    creations: i64,
    deletions: i64,
    since: Duration,
}

/// Counts of creations and deletions per key.
pub struct Expectations<K> {
    clock: Arc<dyn Clock>,
    open: Mutex<HashMap<K, Open>>,
}

impl<K: Eq + Hash + Clone> Expectations<K> {
    /// No expectations.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, open: Mutex::default() }
    }

    /// Whether the caches show all that was done for a key (or never will).
    pub fn satisfied(&self, key: &K) -> bool {
        match self.open.lock().get(key) {
            None => true,
            Some(open) => {
                (open.creations <= 0 && open.deletions <= 0)
                    || self.clock.elapsed().saturating_sub(open.since) > TIMEOUT
            }
        }
    }

    /// Sets expectations anew.
    pub fn set(&self, key: &K, creations: usize, deletions: usize) {
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let open = Open { creations: count(creations), deletions: count(deletions), since: self.clock.elapsed() };
        self.open.lock().insert(key.clone(), open);
    }

    /// Expects creations only.
    pub fn expect_creations(&self, key: &K, count: usize) {
        self.set(key, count, 0);
    }

    /// Expects deletions only.
    pub fn expect_deletions(&self, key: &K, count: usize) {
        self.set(key, 0, count);
    }

    /// Adds to open expectations.
    pub fn raise(&self, key: &K, creations: usize, deletions: usize) {
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        if let Some(open) = self.open.lock().get_mut(key) {
            open.creations += count(creations);
            open.deletions += count(deletions);
        }
    }

    /// A creation was seen, or failed.
    pub fn creation_observed(&self, key: &K) {
        if let Some(open) = self.open.lock().get_mut(key) {
            open.creations -= 1;
        }
    }

    /// A deletion was seen, or failed.
    pub fn deletion_observed(&self, key: &K) {
        if let Some(open) = self.open.lock().get_mut(key) {
            open.deletions -= 1;
        }
    }

    /// The parent is gone: its successor of the same name starts clean.
    pub fn forget(&self, key: &K) {
        self.open.lock().remove(key);
    }
}

/// Deletions by UID, for controllers that may see a deletion twice (as deletion timestamp, then as removal).
pub struct UidExpectations<K> {
    counts: Expectations<K>,
    uids: Mutex<HashMap<K, HashSet<String>>>,
}

impl<K: Eq + Hash + Clone> UidExpectations<K> {
    /// No expectations.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { counts: Expectations::new(clock), uids: Mutex::default() }
    }

    /// Whether the caches show all that was done for a key.
    pub fn satisfied(&self, key: &K) -> bool {
        self.counts.satisfied(key)
    }

    /// Expects creations, and the deletion of these.
    pub fn set(&self, key: &K, creations: usize, uids: impl IntoIterator<Item = String>) {
        let uids: HashSet<String> = uids.into_iter().collect();
        self.counts.set(key, creations, uids.len());
        self.uids.lock().insert(key.clone(), uids);
    }

    /// Expects creations only.
    pub fn expect_creations(&self, key: &K, count: usize) {
        self.uids.lock().remove(key);
        self.counts.expect_creations(key, count);
    }

    /// Expects the deletion of these.
    pub fn expect_deletions(&self, key: &K, uids: impl IntoIterator<Item = String>) {
        let uids: HashSet<String> = uids.into_iter().collect();
        self.counts.expect_deletions(key, uids.len());
        self.uids.lock().insert(key.clone(), uids);
    }

    /// A creation was seen, or failed.
    pub fn creation_observed(&self, key: &K) {
        self.counts.creation_observed(key);
    }

    /// A deletion was seen, or failed; counts once per UID.
    pub fn deletion_observed(&self, key: &K, uid: &str) {
        let expected = self.uids.lock().get_mut(key).is_some_and(|set| set.remove(uid));
        if expected {
            self.counts.deletion_observed(key);
        }
    }

    /// The parent is gone.
    pub fn forget(&self, key: &K) {
        self.uids.lock().remove(key);
        self.counts.forget(key);
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use runtime::clock::FakeClock;

    use super::*;

    #[test]
    fn counts_down_and_times_out() {
        let clock = FakeClock::new(SystemTime::UNIX_EPOCH);
        let expectations = Expectations::new(clock.clone());
        assert!(expectations.satisfied(&"a"));
        expectations.set(&"a", 2, 1);
        expectations.creation_observed(&"a");
        expectations.creation_observed(&"a");
        assert!(!expectations.satisfied(&"a"));
        expectations.deletion_observed(&"a");
        assert!(expectations.satisfied(&"a"));
        expectations.expect_creations(&"a", 1);
        clock.advance(TIMEOUT);
        assert!(!expectations.satisfied(&"a"));
        clock.advance(Duration::from_secs(1));
        assert!(expectations.satisfied(&"a"));
    }

    #[test]
    fn a_uid_counts_once() {
        let expectations = UidExpectations::new(FakeClock::new(SystemTime::UNIX_EPOCH));
        expectations.expect_deletions(&1, ["x".to_owned(), "y".to_owned()]);
        expectations.deletion_observed(&1, "x");
        expectations.deletion_observed(&1, "x");
        expectations.deletion_observed(&1, "z");
        assert!(!expectations.satisfied(&1));
        expectations.deletion_observed(&1, "y");
        assert!(expectations.satisfied(&1));
        expectations.set(&1, 1, ["x".to_owned()]);
        expectations.creation_observed(&1);
        assert!(!expectations.satisfied(&1));
        expectations.deletion_observed(&1, "x");
        assert!(expectations.satisfied(&1));
        expectations.expect_creations(&1, 1);
        expectations.forget(&1);
        assert!(expectations.satisfied(&1));
    }
}
