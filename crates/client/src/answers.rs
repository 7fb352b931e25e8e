//! Answers that hold for a while.

use std::{collections::HashMap, hash::Hash, time::Duration};

use parking_lot::Mutex;

/// Answers kept at most.
const CAPACITY: usize = 4096;

/// Answers by question. Their number is bounded.
pub struct Answers<K, V>(Mutex<HashMap<K, (Duration, V)>>);

impl<K: Hash + Eq, V: Clone> Default for Answers<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Hash + Eq, V: Clone> Answers<K, V> {
    /// None yet.
    pub fn new() -> Self {
        Self(Mutex::new(HashMap::new()))
    }

    /// The answer to a question, if it still holds.
    pub fn get(&self, key: &K, now: Duration) -> Option<V> {
        self.0.lock().get(key).filter(|(until, _)| *until > now).map(|(_, value)| value.clone())
    }

    /// An answer that holds for `ttl`.
    pub fn put(&self, key: K, value: V, now: Duration, ttl: Duration) {
        if ttl.is_zero() {
            return;
        }
        let mut entries = self.0.lock();
        if entries.len() >= CAPACITY {
            entries.retain(|_, (until, _)| *until > now);
        }
        if entries.len() >= CAPACITY {
            entries.clear();
        }
        entries.insert(key, (now + ttl, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_end_and_do_not_pile_up() {
        let cache = Answers::new();
        let second = Duration::from_secs(1);
        cache.put(1, "a", Duration::ZERO, second);
        assert_eq!(cache.get(&1, second / 2), Some("a"));
        assert_eq!(cache.get(&1, second), None);
        for key in 0..2 * CAPACITY {
            cache.put(key, "b", Duration::ZERO, second);
        }
        assert!(cache.0.lock().len() <= CAPACITY);
    }
}
