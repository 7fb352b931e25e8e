//! What all sources together want.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::{Snapshot, SourceName};
use crate::metrics::METRICS;
use crate::pods;
use crate::workers::Workers;

/// The desired Pods of all sources.
pub struct Desired {
    expected: BTreeSet<SourceName>,
    sources: HashMap<SourceName, BTreeMap<String, Arc<Pod>>>,
}

impl Desired {
    /// Nothing yet; `expected` are the sources that will deliver.
    pub fn new(expected: BTreeSet<SourceName>) -> Self {
        Self { expected, sources: HashMap::new() }
    }

    /// Every source has delivered once.
    pub fn is_complete(&self) -> bool {
        self.expected.iter().all(|source| self.sources.contains_key(source))
    }

    /// Pods that are not the API's.
    pub fn static_pods(&self) -> Vec<Arc<Pod>> {
        self.sources.values().flat_map(BTreeMap::values).filter(|pod| pods::is_static(pod)).cloned().collect()
    }

    /// Whether some source has this Pod.
    pub fn contains(&self, uid: &str) -> bool {
        self.sources.values().any(|pods| pods.contains_key(uid))
    }

    /// The Pods of one source.
    pub fn of(&self, source: SourceName) -> BTreeMap<String, Arc<Pod>> {
        self.sources.get(&source).cloned().unwrap_or_default()
    }

    /// Takes a delivery and tells the workers what changed.
    pub fn apply(&mut self, snapshot: Snapshot, workers: &Workers) {
        let old = self.sources.insert(snapshot.source, snapshot.pods.clone()).unwrap_or_default();
        for uid in old.keys().filter(|uid| !snapshot.pods.contains_key(*uid)) {
            workers.remove(uid);
        }
        // Mirrors are shown in the API and never run.
        let real = snapshot.pods.values().filter(|pod| !pods::is_mirror(pod));
        let mut changed: Vec<Arc<Pod>> = real.filter(|pod| old.get(pods::uid(pod)) != Some(*pod)).cloned().collect();
        changed.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
        for pod in changed {
            workers.update(pod);
        }
        let mirrors = self.sources.values().flat_map(BTreeMap::values).filter(|pod| pods::is_mirror(pod)).count();
        METRICS.mirror_pods.set(i64::try_from(mirrors).unwrap_or(i64::MAX));
        let (stat, other): (Vec<_>, Vec<_>) =
            self.sources.values().flat_map(BTreeMap::values).partition(|pod| pods::is_static(pod));
        METRICS.desired_pods.with_label_values(&["true"]).set(i64::try_from(stat.len()).unwrap_or(i64::MAX));
        METRICS.desired_pods.with_label_values(&[""]).set(i64::try_from(other.len()).unwrap_or(i64::MAX));
    }
}
