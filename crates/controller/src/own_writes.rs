//! Own writes: a controller that wrote an object does not act on a cache that has not seen the write yet.

use std::{collections::HashMap, hash::Hash};

use parking_lot::Mutex;

/// The newest revision written per key and resource.
pub struct OwnWrites<K> {
    written: Mutex<HashMap<K, HashMap<&'static str, u64>>>,
}

impl<K> Default for OwnWrites<K> {
    fn default() -> Self {
        Self { written: Mutex::default() }
    }
}

impl<K: Eq + Hash + Clone> OwnWrites<K> {
    /// A write for `key` to an object of `resource` gave `resource_version`. A version that is no number is not
    /// comparable and not noted.
    pub fn wrote(&self, key: &K, resource: &'static str, resource_version: &str) {
        let Ok(revision) = resource_version.parse::<u64>() else { return };
        let mut written = self.written.lock();
        let newest = written.entry(key.clone()).or_default().entry(resource).or_default();
        *newest = (*newest).max(revision);
    }

    /// Resources whose caches lag behind the writes for `key`; `seen` tells the newest revision a cache has.
    pub fn lagging(&self, key: &K, seen: impl Fn(&str) -> u64) -> Vec<&'static str> {
        let mut written = self.written.lock();
        let Some(of_key) = written.get_mut(key) else { return Vec::new() };
        of_key.retain(|resource, revision| seen(resource) < *revision);
        let mut lagging: Vec<&'static str> = of_key.keys().copied().collect();
        if lagging.is_empty() {
            written.remove(key);
        }
        lagging.sort_unstable();
        lagging
    }

    /// The parent is gone.
    pub fn forget(&self, key: &K) {
        self.written.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lags_until_seen() {
        let writes = OwnWrites::default();
        writes.wrote(&"a", "pods", "10");
        writes.wrote(&"a", "pods", "7");
        writes.wrote(&"a", "replicasets", "3");
        writes.wrote(&"a", "replicasets", "opaque");
        assert_eq!(writes.lagging(&"a", |r| if r == "pods" { 9 } else { 3 }), ["pods"]);
        assert!(writes.lagging(&"a", |_| 10).is_empty());
        assert!(writes.lagging(&"a", |_| 0).is_empty());
    }
}
