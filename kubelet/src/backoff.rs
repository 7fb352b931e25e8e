//! Growing delays per key.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;

struct Entry {
    delay: Duration,
    changed: Timestamp,
}

/// Delays that double from `initial` to `max` and start over after `2 * max` of quiet.
pub struct BackOff<K> {
    initial: Duration,
    max: Duration,
    entries: Mutex<HashMap<K, Entry>>,
}

impl<K: Eq + Hash> BackOff<K> {
    /// An `initial` above `max` is cut to it.
    pub fn new(initial: Duration, max: Duration) -> Self {
        Self { initial: initial.min(max), max, entries: Mutex::default() }
    }

    /// Time left until another try is due, counting the delay from `since`.
    pub fn left(&self, key: &K, since: Timestamp, now: Timestamp) -> Option<(Duration, Duration)> {
        let entries = self.entries.lock();
        let entry = entries.get(key)?;
        if expired(entry, since, self.max) {
            return None;
        }
        let due = since.checked_add(entry.delay).ok()?;
        let left = Duration::try_from(due.duration_since(now)).ok()?;
        (!left.is_zero()).then_some((left, entry.delay))
    }

    /// Notes a try: the next delay is `initial`, or twice the last.
    pub fn next(&self, key: K, since: Timestamp, now: Timestamp) {
        let mut entries = self.entries.lock();
        let delay = match entries.get(&key) {
            Some(entry) if !expired(entry, since, self.max) => (entry.delay * 2).min(self.max),
            _ => self.initial,
        };
        entries.insert(key, Entry { delay, changed: now });
    }

    /// Forgets entries.
    pub fn forget(&self, drop_key: impl Fn(&K) -> bool) {
        self.entries.lock().retain(|key, _| !drop_key(key));
    }
}

fn expired(entry: &Entry, since: Timestamp, max: Duration) -> bool {
    since.duration_since(entry.changed) > jiff::SignedDuration::try_from(max * 2).unwrap_or(jiff::SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_then_starts_over() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let backoff = BackOff::new(Duration::from_secs(10), Duration::from_secs(300));
        assert!(backoff.left(&"k", at(0), at(0)).is_none(), "the first try is immediate");
        backoff.next("k", at(0), at(0));
        assert_eq!(backoff.left(&"k", at(1), at(2)), Some((Duration::from_secs(9), Duration::from_secs(10))));
        assert!(backoff.left(&"k", at(1), at(11)).is_none());
        backoff.next("k", at(1), at(11));
        assert_eq!(backoff.left(&"k", at(12), at(12)).unwrap().1, Duration::from_secs(20));
        for n in 0..10 {
            backoff.next("k", at(12), at(12 + n));
        }
        assert_eq!(backoff.left(&"k", at(30), at(30)).unwrap().1, Duration::from_secs(300));
        assert!(backoff.left(&"k", at(1000), at(1000)).is_none(), "quiet for more than 600 s");
    }
}
