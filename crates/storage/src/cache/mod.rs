//! The watch cache: one per resource, fed by one store watch, serving every GET, LIST and WATCH of it.

mod intern;
mod object;

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::Stream;

pub use object::{CachedObject, Codec, CodecError, IndexRecord};

use crate::contract::{Store, StoreError};

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

/// Decides whether a watcher wants an object.
pub type Predicate = Arc<dyn Fn(&CachedObject) -> bool + Send + Sync>;

/// Narrows a watch to what the dispatcher can look up. It does not replace the predicate: a watcher sees an event
/// when scope and predicate match.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Only objects of this namespace.
    pub namespace: Option<String>,
    /// Only the object of this name.
    pub name: Option<String>,
    /// Only objects with this value of a hot field (one that [`CacheOptions::hot_fields`] names).
    pub hot_field: Option<(&'static str, String)>,
}

/// Where a watch starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchStart {
    /// The existing objects as `Added`, of a state that is this fresh, then the changes.
    Initial(Freshness),
    /// Changes after this revision.
    After(i64),
    /// Changes after now.
    Now(Freshness),
}

/// A watch to start.
#[derive(Clone)]
pub struct WatchRequest {
    /// Key prefix of the objects wanted: the resource's or a namespace's.
    pub prefix: String,
    /// Narrows the watch.
    pub scope: Scope,
    /// Which objects are wanted; all if `None`.
    pub predicate: Option<Predicate>,
    /// Where to start.
    pub start: WatchStart,
    /// Whether to send bookmarks.
    pub bookmarks: bool,
    /// Whether to mark the end of the initial objects with a bookmark (`sendInitialEvents`).
    pub initial_events_end: bool,
}

/// Type of a watch event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// The object came into being, or into view.
    Added,
    /// The object changed.
    Modified,
    /// The object went, or went out of view.
    Deleted,
}

/// An event of a watcher.
#[derive(Clone)]
pub struct WatchEvent {
    /// Its type, as this watcher sees it.
    pub kind: EventKind,
    /// The object as it is shown: for `Deleted` the last state at the revision of the event.
    pub object: Arc<CachedObject>,
    /// The object before, if there was one.
    pub previous: Option<Arc<CachedObject>>,
    /// Revision of the event.
    pub revision: i64,
}

impl WatchEvent {
    /// The JSON frame, `{"type":..,"object":..}` and a newline, shared between watchers.
    pub fn frame(&self) -> Bytes {
        todo!()
    }
}

/// What a watcher yields.
#[derive(Clone)]
pub enum WatchItem {
    /// A change.
    Event(WatchEvent),
    /// All changes up to `revision` have been yielded.
    Bookmark {
        /// That revision.
        revision: i64,
        /// Whether this is the end of the initial objects.
        initial_events_end: bool,
    },
}

/// A running watch. The stream ends when the watcher was too slow or the cache lost its place; the client watches
/// again then.
pub struct Watcher {}

impl Watcher {
    /// A bookmark as of now: the revision up to which everything this watcher wants has been yielded. For the last
    /// bookmark before a deadline.
    pub fn bookmark_revision(&self) -> i64 {
        todo!()
    }
}

impl Stream for Watcher {
    type Item = WatchItem;

    fn poll_next(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<WatchItem>> {
        todo!()
    }
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
        }
    }
}

/// Metrics of all caches of a process.
#[derive(Clone)]
pub struct CacheMetrics {}

impl CacheMetrics {
    /// Registers the metrics.
    pub fn register(_registry: &prometheus::Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {})
    }
}

/// A consistent state of the cache; taking one costs nothing and holding one delays nobody.
#[derive(Clone)]
pub struct Snapshot {
    /// Its revision.
    pub revision: i64,
    /// Objects of the range that are not in this snapshot, because a limited read of the store made it.
    pub beyond: i64,
}

impl Snapshot {
    /// The objects under the prefix it was asked for, from key `start` on, in key order.
    pub fn range<'a>(&'a self, _start: Option<&str>) -> Box<dyn Iterator<Item = (&'a str, &'a Arc<CachedObject>)> + 'a> {
        todo!()
    }

    /// Like [`Self::range`], but only the objects with this value of a hot field, found without scanning. `None` if
    /// the field is not hot.
    pub fn by_field<'a>(
        &'a self,
        _field: &str,
        _value: &str,
        _start: Option<&str>,
    ) -> Option<Box<dyn Iterator<Item = (&'a str, &'a Arc<CachedObject>)> + 'a>> {
        todo!()
    }

    /// The object of a key.
    pub fn get(&self, _key: &str) -> Option<&Arc<CachedObject>> {
        todo!()
    }

    /// Number of objects under the prefix it was asked for, from `start` on.
    pub fn count(&self, start: Option<&str>) -> usize {
        self.range(start).count()
    }
}

/// The cache of one resource. Cheap to clone; the feeding task ends with the last clone.
#[derive(Clone)]
pub struct Cache {}

impl Cache {
    /// Starts a cache. Must be called within a tokio runtime.
    pub fn new(_options: CacheOptions, _store: Arc<dyn Store>, _codec: Arc<dyn Codec>, _metrics: CacheMetrics) -> Self {
        Self {}
    }

    /// Whether the cache has been filled and follows the store.
    pub fn is_ready(&self) -> bool {
        todo!()
    }

    /// Waits until the cache has been filled.
    pub async fn ready(&self) {
        todo!()
    }

    /// The revision up to which the cache is known to be complete.
    pub fn revision(&self) -> i64 {
        todo!()
    }

    /// The object of a key, and the revision of the answer.
    pub async fn get(
        &self,
        _key: &str,
        _freshness: Freshness,
    ) -> Result<(Option<Arc<CachedObject>>, i64), StoreError> {
        todo!()
    }

    /// A state of the objects under `prefix`.
    pub async fn list(&self, _prefix: &str, _freshness: Freshness) -> Result<Snapshot, StoreError> {
        todo!()
    }

    /// The state at exactly `revision`. Where the cache no longer holds it the store is read, from key `start` on and
    /// at most `limit` objects (0 for all): the snapshot holds at least those.
    pub async fn exact(
        &self,
        _prefix: &str,
        _revision: i64,
        _start: Option<&str>,
        _limit: usize,
    ) -> Result<Snapshot, StoreError> {
        todo!()
    }

    /// Starts a watch.
    pub async fn watch(&self, _request: WatchRequest) -> Result<Watcher, StoreError> {
        todo!()
    }

    /// Waits until the cache shows revision `revision`, for a writer that wants to see its own write.
    pub async fn observe_hint(&self, _revision: i64) -> Result<(), StoreError> {
        todo!()
    }
}
