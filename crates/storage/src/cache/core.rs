//! The state of a cache and how it changes.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Waker,
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::{Notify, watch};

use super::{
    CacheOptions,
    event::{Change, EventKind, last_state},
    intern::intern,
    metrics::ResourceMetrics,
    object::{CachedObject, Codec},
    ring::{Ring, RingBounds},
    snapshot::{ByField, Objects, Snapshot},
    watchers::Watchers,
};
use crate::contract::{KeyValue, Store, StoreError, StoreEvent, StoreEventKind, Tide, WatchBatch};

/// How long a read waits for the cache to become fresh enough.
pub(super) const FRESH_WAIT: Duration = Duration::from_secs(3);
/// Time between attempts to prove a cache up to date whose store cannot report progress.
const PROVE_PERIOD: Duration = Duration::from_millis(50);

/// What all handles, watchers and the feeding task of a cache share.
pub(super) struct Core {
    pub(super) options: CacheOptions,
    pub(super) store: Arc<dyn Store>,
    pub(super) codec: Arc<dyn Codec>,
    pub(super) metrics: ResourceMetrics,
    pub(super) state: RwLock<State>,
    /// Counts changes of the state, for those who wait.
    pub(super) moved: watch::Sender<u64>,
    /// Readers that wait for freshness.
    waiting: AtomicUsize,
    /// Tells the feeding task that somebody has begun to wait.
    pub(super) hurry: Notify,
}

/// The state.
pub(super) struct State {
    pub(super) ready: bool,
    /// All changes up to here have been applied.
    pub(super) revision: i64,
    pub(super) tide: Option<Arc<Tide>>,
    pub(super) objects: Objects,
    pub(super) hot: Vec<(&'static str, ByField)>,
    /// Keys whose values could not be decoded.
    unreadable: HashSet<Arc<str>>,
    /// Bytes of the objects.
    pub(super) bytes: usize,
    pub(super) ring: Ring,
    pub(super) watchers: Watchers,
}

impl State {
    /// The revision up to which the state is known to be complete.
    pub(super) fn proven(&self) -> i64 {
        self.tide.as_ref().map_or(self.revision, |tide| tide.proven(self.revision))
    }

    fn insert(&mut self, key: &Arc<str>, object: Arc<CachedObject>) -> Option<Arc<CachedObject>> {
        for (field, map) in &mut self.hot {
            if let Some(value) = object.index.shared_field(field) {
                map.insert((Arc::clone(value), Arc::clone(key)), Arc::clone(&object));
            }
        }
        self.bytes += object.json.len();
        let value_of = |object: &CachedObject, field| object.index.shared_field(field).map(Arc::clone);
        let previous = self.objects.insert(Arc::clone(key), Arc::clone(&object));
        if let Some(previous) = &previous {
            self.bytes -= previous.json.len();
            for (field, map) in &mut self.hot {
                let old = value_of(previous, field);
                if let Some(old) = old
                    && Some(&old) != value_of(&object, field).as_ref()
                {
                    map.remove(&(old, Arc::clone(key)));
                }
            }
        }
        previous
    }

    fn remove(&mut self, key: &Arc<str>) -> Option<Arc<CachedObject>> {
        let previous = self.objects.remove(key)?;
        self.bytes -= previous.json.len();
        for (field, map) in &mut self.hot {
            if let Some(value) = previous.index.shared_field(field) {
                map.remove(&(Arc::clone(value), Arc::clone(key)));
            }
        }
        Some(previous)
    }

    fn key(&self, key: &str) -> Arc<str> {
        self.objects.get_key_value(key).map_or_else(|| Arc::from(key), |(key, _)| Arc::clone(key))
    }
}

/// A store event, decoded.
struct Decoded {
    event: StoreEvent,
    /// `None` for a removal, and for a value that cannot be decoded.
    object: Option<Arc<CachedObject>>,
}

impl Core {
    pub(super) fn new(
        options: CacheOptions,
        store: Arc<dyn Store>,
        codec: Arc<dyn Codec>,
        metrics: ResourceMetrics,
    ) -> Self {
        let bounds = bounds(&options);
        let state = State {
            ready: false,
            revision: 0,
            tide: None,
            objects: Objects::new(),
            hot: options.hot_fields.iter().map(|field| (*field, ByField::new())).collect(),
            unreadable: HashSet::new(),
            bytes: 0,
            ring: Ring::new(bounds, 0),
            watchers: Watchers::new(options.hot_fields),
        };
        Self {
            options,
            store,
            codec,
            metrics,
            state: RwLock::new(state),
            moved: watch::Sender::new(0),
            waiting: AtomicUsize::new(0),
            hurry: Notify::new(),
        }
    }

    /// Decodes a stored value; what cannot be decoded is logged and counted.
    pub(super) fn ingest(&self, key: &str, value: &Bytes, revision: i64) -> Option<Arc<CachedObject>> {
        match self.codec.ingest(key, value, revision) {
            Ok(object) => Some(Arc::new(object)),
            Err(error) => {
                self.metrics.decode_errors.inc();
                tracing::error!(key, revision, %error, "a stored object cannot be decoded and is left out");
                None
            }
        }
    }

    /// Replaces everything by what the store held at `revision`. Watchers are closed: they cannot be told how the
    /// old state became the new one.
    pub(super) fn install(&self, items: Vec<(Arc<str>, Option<Arc<CachedObject>>)>, revision: i64) {
        let mut wake = Vec::new();
        let mut state = self.state.write();
        let old = std::mem::take(&mut state.objects);
        state.hot.iter_mut().for_each(|(_, map)| *map = ByField::new());
        state.unreadable.clear();
        state.bytes = 0;
        for (key, object) in items {
            match object {
                Some(object) => drop(state.insert(&key, object)),
                None => drop(state.unreadable.insert(key)),
            }
        }
        state.ring = Ring::new(bounds(&self.options), revision);
        state.revision = revision;
        state.ready = true;
        state.watchers.close_all(&mut wake);
        drop(state);
        drop(old);
        self.metrics.initializations.inc();
        wake.into_iter().for_each(Waker::wake);
        self.tell_readers();
    }

    /// Applies a batch of the store's watch. Returns the watchers to wake.
    pub(super) fn apply(&self, batch: WatchBatch) -> Vec<Waker> {
        let received = batch.events.len() as u64;
        let decoded: Vec<Decoded> = batch.events.into_iter().map(|event| self.decode(event)).collect();
        let now = Instant::now();
        let mut wake = Vec::new();
        let (mut given, mut closed) = (0, 0);
        let mut state = self.state.write();
        let known = state.revision;
        for decoded in decoded.into_iter().filter(|decoded| decoded.event.revision > known) {
            let Some(change) = self.change(&mut state, decoded, now) else { continue };
            let change = Arc::new(change);
            state.ring.push(Arc::clone(&change));
            let floor = state.ring.floor();
            let (to, slow) = state.watchers.dispatch(&change, floor, &mut wake);
            given += to;
            closed += slow;
        }
        state.revision = state.revision.max(batch.revision);
        drop(state);
        self.metrics.events_received.inc_by(received);
        self.metrics.store_events.inc_by(received);
        self.metrics.events_dispatched.inc_by(given as u64);
        self.metrics.terminated_watchers.inc_by(closed as u64);
        self.tell_readers();
        wake
    }

    fn decode(&self, event: StoreEvent) -> Decoded {
        let object = match event.kind {
            StoreEventKind::Put => self.ingest(&event.key, &event.value, event.revision),
            StoreEventKind::Delete => None,
        };
        Decoded { event, object }
    }

    /// Changes the state; the change to tell, if there is any.
    fn change(&self, state: &mut State, decoded: Decoded, now: Instant) -> Option<Change> {
        let key = state.key(&decoded.event.key);
        let revision = decoded.event.revision;
        if let Some(object) = decoded.object {
            state.unreadable.remove(&key);
            let previous = state.insert(&key, Arc::clone(&object));
            let kind = if previous.is_some() { EventKind::Modified } else { EventKind::Added };
            return Some(Change::new(kind, key, object, previous, revision, now));
        }
        // A value that cannot be decoded takes the object out of sight as a removal does.
        let previous = state.remove(&key);
        match decoded.event.kind {
            StoreEventKind::Put => drop(state.unreadable.insert(Arc::clone(&key))),
            StoreEventKind::Delete => drop(state.unreadable.remove(&key)),
        }
        let previous = previous?;
        let object = Arc::new(last_state(&previous, revision, &*self.codec));
        Some(Change::new(EventKind::Deleted, key, object, Some(previous), revision, now))
    }

    /// Tells those who wait for freshness that the cache has moved.
    fn tell_readers(&self) {
        self.moved.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// The revision up to which the cache is known to be complete.
    pub(super) fn proven(&self) -> i64 {
        self.state.read().proven()
    }

    /// Whether somebody waits for freshness.
    pub(super) fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    /// Waits until the cache is complete up to `target`.
    pub(super) async fn reach(&self, target: i64) -> Result<(), StoreError> {
        if self.proven() >= target {
            return Ok(());
        }
        let start = Instant::now();
        let waited = tokio::time::timeout(FRESH_WAIT, self.wait_for(target)).await;
        self.metrics.read_wait.observe(start.elapsed().as_secs_f64());
        match waited {
            Ok(outcome) => outcome,
            Err(_) => Err(StoreError::FutureRevision { requested: target, current: self.proven() }),
        }
    }

    async fn wait_for(&self, target: i64) -> Result<(), StoreError> {
        let mut moved = self.moved.subscribe();
        let _waiting = Waiting::new(self);
        loop {
            moved.mark_unchanged();
            if self.proven() >= target {
                return Ok(());
            }
            if self.store.proves_progress() {
                moved.changed().await.map_err(|_| StoreError::Closed)?;
            } else if !self.prove().await? {
                // Changes are on their way, or the store is behind the asked revision.
                drop(tokio::time::timeout(PROVE_PERIOD, moved.changed()).await);
            }
        }
    }

    /// Asks a store that cannot report progress whether the cache is up to date. False if it cannot be said.
    pub(super) async fn prove(&self) -> Result<bool, StoreError> {
        let (revision, count) = {
            let state = self.state.read();
            (state.revision, (state.objects.len() + state.unreadable.len()) as i64)
        };
        let Some(latest) = self.store.unchanged_since(&self.options.prefix, revision, count).await? else {
            return Ok(false);
        };
        let mut state = self.state.write();
        // What was compared is the state at `revision`; if it has moved on, it is proven only if nothing was applied.
        let moved = state.revision != revision;
        if !moved {
            state.revision = state.revision.max(latest);
        }
        drop(state);
        Ok(!moved && latest > revision)
    }

    /// Everything, as of now.
    pub(super) fn snapshot(&self, prefix: &str) -> Snapshot {
        let state = self.state.read();
        Snapshot {
            revision: state.proven(),
            beyond: 0,
            prefix: Arc::from(prefix),
            objects: state.objects.clone(),
            hot: state.hot.clone(),
        }
    }

    /// A snapshot of what was read from the store.
    pub(super) fn snapshot_of(&self, prefix: &str, items: &[KeyValue], revision: i64, beyond: i64) -> Snapshot {
        let objects = items
            .iter()
            .filter_map(|kv| Some((Arc::from(kv.key.as_str()), self.ingest(&kv.key, &kv.value, kv.mod_revision)?)))
            .collect();
        Snapshot { revision, beyond, prefix: intern(prefix), objects, hot: Vec::new() }
    }

    /// Tells the metrics how many objects there are, and how large they are.
    pub(super) fn count(&self) {
        let (objects, bytes) = {
            let state = self.state.read();
            (state.objects.len(), state.bytes)
        };
        self.metrics.count(objects as i64, bytes as i64);
    }

    /// Lets go of what is not needed any more and brings the gauges up to date.
    pub(super) fn housekeeping(&self) {
        let mut wake = Vec::new();
        let mut state = self.state.write();
        state.ring.trim(Instant::now());
        let floor = state.ring.floor();
        let closed = state.watchers.close_behind(floor, &mut wake);
        let capacity = state.ring.capacity();
        let revision = state.revision;
        drop(state);
        wake.into_iter().for_each(Waker::wake);
        self.metrics.terminated_watchers.inc_by(closed as u64);
        self.metrics.resource_version.set(revision);
        self.metrics.set_capacity(capacity);
    }

    /// Drops encodings that nobody has asked for since the last call.
    pub(super) fn release_alternates(&self) {
        let objects = self.state.read().objects.clone();
        objects.values().for_each(|object| object.release_unused_alternates());
    }

    /// Ends all watches; the cache is not fed any more.
    pub(super) fn close_watches(&self) {
        let mut wake = Vec::new();
        self.state.write().watchers.finish_all(&mut wake);
        wake.into_iter().for_each(Waker::wake);
    }

    pub(super) fn close(&self) {
        let mut wake = Vec::new();
        let mut state = self.state.write();
        state.ready = false;
        state.tide = None;
        state.watchers.close_all(&mut wake);
        drop(state);
        wake.into_iter().for_each(Waker::wake);
    }
}

fn bounds(options: &CacheOptions) -> RingBounds {
    RingBounds { events: options.ring_events, bytes: options.ring_bytes, age: options.ring_age }
}

/// Counts a waiting reader.
struct Waiting<'a>(&'a Core);

impl<'a> Waiting<'a> {
    fn new(core: &'a Core) -> Self {
        core.waiting.fetch_add(1, Ordering::AcqRel);
        core.hurry.notify_one();
        Self(core)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}
