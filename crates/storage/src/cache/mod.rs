//! The watch cache: one per resource, fed by one store watch, serving every GET, LIST and WATCH of it.
//!
//! Objects are decoded once, when they enter, and their bytes are shared from then on. The state is an ordered map
//! whose snapshots cost nothing. Changes go into a ring, for watches that start a little in the past, and into the
//! queues of the watchers that may want them; a watcher that still has not taken a change when it falls off the ring is
//! closed, and nobody else notices.
//!
//! A consistent read asks the store for its revision and waits until the cache is known to be complete up to there: by
//! the store's shared counters if it is in this process, by a progress notice otherwise.

mod consistency;
mod core;
mod event;
mod feed;
mod intern;
mod metrics;
mod object;
mod pace;
mod ring;
mod snapshot;
#[cfg(test)]
mod tests;
mod watcher;
mod watchers;

use std::{sync::Arc, time::Duration};

use tokio::task::JoinHandle;

pub use self::{
    consistency::Consistency,
    event::{EventKind, WatchEvent},
    metrics::CacheMetrics,
    object::{CachedObject, Codec, CodecError, IndexRecord},
    snapshot::{Items, Snapshot},
    watcher::{Predicate, WatchItem, WatchRequest, WatchStart, Watcher},
    watchers::Scope,
};
use self::{
    core::{Core, FRESH_WAIT},
    event::{Change, EventKind as Kind},
};
use crate::contract::{Range, Store, StoreError};

/// Changes undone at most to show an older state; beyond, the store is read.
const MAX_UNDO: usize = 20_000;

/// How new an answer must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// As the cache has it.
    Any,
    /// At least this revision; waits for it up to three seconds.
    AtLeast(i64),
    /// Everything acknowledged before the question.
    Latest,
}

/// Settings of a cache.
#[derive(Clone, Debug)]
pub struct CacheOptions {
    /// API group, for metrics.
    pub group: String,
    /// Resource, for metrics.
    pub resource: String,
    /// Key prefix of the resource, with the trailing slash.
    pub prefix: String,
    /// Fields that watchers and lists are looked up by (`spec.nodeName`).
    pub hot_fields: &'static [&'static str],
    /// Time between bookmarks of a watcher.
    pub bookmark_period: Duration,
    /// Changes kept at most for watches that start in the past.
    pub ring_events: usize,
    /// Memory that changes may take at most.
    pub ring_bytes: usize,
    /// Age after which changes are let go.
    pub ring_age: Duration,
    /// How often the metrics are told how many objects there are; zero for never.
    pub count_period: Duration,
}

impl CacheOptions {
    /// The usual settings.
    pub fn new(group: impl Into<String>, resource: impl Into<String>, prefix: impl Into<String>) -> Self {
        Self {
            group: group.into(),
            resource: resource.into(),
            prefix: prefix.into(),
            hot_fields: &[],
            bookmark_period: Duration::from_secs(60),
            ring_events: 100 * 1024,
            ring_bytes: 16 << 20,
            ring_age: Duration::from_secs(75),
            count_period: Duration::from_secs(60),
        }
    }
}

/// The cache of one resource. Cheap to clone; the feeding task ends with the last clone.
#[derive(Clone)]
pub struct Cache {
    handle: Arc<Handle>,
}

struct Handle {
    core: Arc<Core>,
    task: JoinHandle<()>,
    counting: Option<JoinHandle<()>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(counting) = &self.counting {
            counting.abort();
        }
        self.core.close();
    }
}

/// Tells the metrics again and again how many objects there are.
async fn count(core: Arc<Core>, period: Duration) {
    let mut moved = core.moved.subscribe();
    loop {
        while !core.state.read().ready {
            if moved.changed().await.is_err() {
                return;
            }
        }
        core.count();
        tokio::time::sleep(period).await;
        if !core.state.read().ready {
            core.metrics.count_unknown();
        }
    }
}

impl Cache {
    /// Starts a cache. Must be called within a tokio runtime.
    pub fn new(options: CacheOptions, store: Arc<dyn Store>, codec: Arc<dyn Codec>, metrics: &CacheMetrics) -> Self {
        let metrics = metrics.of(&options.group, &options.resource);
        let period = options.count_period;
        let core = Arc::new(Core::new(options, store, codec, metrics));
        let task = tokio::spawn(feed::run(Arc::clone(&core)));
        let counting = (!period.is_zero()).then(|| tokio::spawn(count(Arc::clone(&core), period)));
        Self { handle: Arc::new(Handle { core, task, counting }) }
    }

    fn core(&self) -> &Core {
        &self.handle.core
    }

    /// Whether the cache has been filled.
    pub fn is_ready(&self) -> bool {
        self.core().state.read().ready
    }

    /// Waits until the cache has been filled.
    pub async fn ready(&self) {
        let mut moved = self.core().moved.subscribe();
        while !self.is_ready() {
            if moved.changed().await.is_err() {
                return;
            }
        }
    }

    /// The revision up to which the cache is known to be complete.
    pub fn revision(&self) -> i64 {
        self.core().proven()
    }

    /// Number of objects.
    pub fn len(&self) -> usize {
        self.core().state.read().objects.len()
    }

    /// Number of watches that a change of an object is given to, about.
    pub fn watches_of(&self, namespace: &str, name: &str) -> usize {
        self.core().state.read().watchers.interested(namespace, name)
    }

    /// Whether there are no objects.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The object of a key, and the revision of the answer.
    pub async fn get(&self, key: &str, freshness: Freshness) -> Result<(Option<Arc<CachedObject>>, i64), StoreError> {
        let core = self.core();
        let direct = !self.is_ready() || (freshness == Freshness::Latest && !core.store.proves_progress());
        if direct || !self.freshen(freshness).await? {
            return self.get_stored(key, freshness).await;
        }
        let state = core.state.read();
        Ok((state.objects.get(key).map(Arc::clone), state.proven()))
    }

    async fn get_stored(
        &self,
        key: &str,
        freshness: Freshness,
    ) -> Result<(Option<Arc<CachedObject>>, i64), StoreError> {
        let core = self.core();
        let (found, revision) = core.store.get(key).await?;
        if let Freshness::AtLeast(requested) = freshness
            && requested > revision
        {
            return Err(StoreError::FutureRevision { requested, current: revision });
        }
        let object = match found {
            Some(kv) => {
                let damaged = |e: CodecError| StoreError::Corrupt(format!("{key}: {e}"));
                Some(Arc::new(core.codec.ingest(&kv.key, &kv.value, kv.mod_revision).map_err(damaged)?))
            }
            None => None,
        };
        Ok((object, revision))
    }

    /// A state of the objects under `prefix`. A cache that has not been filled yet is waited for.
    pub async fn list(&self, prefix: &str, freshness: Freshness) -> Result<Snapshot, StoreError> {
        self.wait_ready().await?;
        if self.freshen(freshness).await? {
            return Ok(self.core().snapshot(prefix));
        }
        let page = self.core().store.range(Range { prefix, ..Range::default() }).await?;
        Ok(self.core().snapshot_of(prefix, &page.items, page.revision, 0))
    }

    /// The state at exactly `revision`. Where the cache no longer holds it the store is read, from key `start` on and
    /// at most `limit` objects (0 for all): the snapshot holds at least those.
    pub async fn exact(
        &self,
        prefix: &str,
        revision: i64,
        start: Option<&str>,
        limit: usize,
    ) -> Result<Snapshot, StoreError> {
        if self.is_ready() {
            self.core().reach(revision).await?;
            if let Some(snapshot) = self.undo(prefix, revision) {
                return Ok(snapshot);
            }
        }
        let range = Range { prefix, start, limit, revision: Some(revision) };
        let page = self.core().store.range(range).await?;
        let beyond = page.count - page.items.len() as i64;
        Ok(self.core().snapshot_of(prefix, &page.items, revision, beyond))
    }

    /// The state at `revision`, made from the present one by undoing the changes since. `None` if they are not held.
    fn undo(&self, prefix: &str, revision: i64) -> Option<Snapshot> {
        let (mut snapshot, changes) = {
            let state = self.core().state.read();
            let changes: Vec<Arc<Change>> = state.ring.after(revision)?.take(MAX_UNDO + 1).map(Arc::clone).collect();
            let hot = if changes.is_empty() { state.hot.clone() } else { Vec::new() };
            let objects = state.objects.clone();
            (Snapshot { revision, beyond: 0, prefix: Arc::from(prefix), objects, hot }, changes)
        };
        if changes.len() > MAX_UNDO {
            return None;
        }
        for change in changes.iter().rev() {
            match (&change.previous, change.kind) {
                (Some(previous), _) => {
                    snapshot.objects.insert(Arc::clone(&change.key), Arc::clone(previous));
                }
                (None, Kind::Deleted) => {}
                (None, _) => {
                    snapshot.objects.remove(&change.key);
                }
            }
        }
        Some(snapshot)
    }

    /// Starts a watch. Refused with `NotReady` while the cache is being filled.
    pub async fn watch(&self, request: WatchRequest) -> Result<Watcher, StoreError> {
        if !self.is_ready() {
            return Err(StoreError::NotReady);
        }
        if let WatchStart::Initial(freshness) | WatchStart::Now(freshness) = request.start
            && !self.freshen(freshness).await?
        {
            let (requested, current) = (self.core().store.current_revision().await?, self.revision());
            return Err(StoreError::FutureRevision { requested, current });
        }
        Watcher::start(Arc::clone(&self.handle.core), request)
    }

    /// Ends all watches once they have shown what happened so far, because what they show is no longer served. Objects
    /// can still be read.
    pub fn close_watches(&self) {
        self.core().close_watches();
    }

    /// Waits until the cache shows `revision`: for a writer that wants to see its own write.
    pub async fn observe_hint(&self, revision: i64) -> Result<(), StoreError> {
        self.wait_ready().await?;
        self.core().reach(revision).await
    }

    /// Counts a list that was served from a snapshot: by which index (empty for none), how many objects were looked at,
    /// and how many returned.
    pub fn count_list(&self, index: &str, fetched: usize, returned: usize) {
        self.core().metrics.list(index, fetched as u64, returned as u64);
    }

    /// Makes the cache as fresh as demanded. False if it could not be proven fresh, and the store must be read.
    async fn freshen(&self, freshness: Freshness) -> Result<bool, StoreError> {
        let core = self.core();
        match freshness {
            Freshness::Any => Ok(true),
            Freshness::AtLeast(revision) => core.reach(revision).await.map(|()| true),
            Freshness::Latest => {
                let tide = core.state.read().tide.as_ref().map(|tide| tide.store_revision());
                let target = match tide {
                    Some(revision) => revision,
                    None => core.store.current_revision().await?,
                };
                let reached = core.reach(target).await;
                core.metrics.consistent_read(reached.is_ok(), reached.is_err());
                match reached {
                    Ok(()) => Ok(true),
                    Err(StoreError::FutureRevision { .. }) => Ok(false),
                    Err(error) => Err(error),
                }
            }
        }
    }

    async fn wait_ready(&self) -> Result<(), StoreError> {
        if self.is_ready() {
            return Ok(());
        }
        tokio::time::timeout(FRESH_WAIT, self.ready()).await.map_err(|_| StoreError::NotReady)
    }
}
