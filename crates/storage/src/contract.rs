//! What a versioned store does, whichever it is.
//!
//! One revision counter counts all writes of the store. Every write of a key makes a new version of it at the next
//! revision; old versions can be read, and watched from, until they are compacted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

/// Largest value a store takes. (Request bodies end at 3 MB; defaults and managed fields may add to them.)
pub const MAX_VALUE_BYTES: usize = 8 * 1024 * 1024;
/// Longest key a store takes.
pub const MAX_KEY_BYTES: usize = 4096;

/// A key with its value at some revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Bytes,
    /// Revision at which the key came into being.
    pub create_revision: i64,
    /// Revision of this value.
    pub mod_revision: i64,
}

/// What a write demands of the present state of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key does not exist.
    Absent,
    /// The key exists and was last written at this revision.
    Revision(i64),
}

/// Outcome of a conditional write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// Written, durably, at `revision`.
    Done {
        /// Revision of the write.
        revision: i64,
    },
    /// The demand was not met and nothing was written.
    Mismatch {
        /// The present state of the key, `None` if it does not exist.
        current: Option<KeyValue>,
    },
}

/// A range to read: the keys that start with `prefix`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Range<'a> {
    /// Prefix of the keys.
    pub prefix: &'a str,
    /// First key of interest, inclusive. Keys before it are neither returned nor counted.
    pub start: Option<&'a str>,
    /// Largest number of items to return; 0 for all.
    pub limit: usize,
    /// Revision to read at; the latest if `None`.
    pub revision: Option<i64>,
}

/// What a range read found, in key order.
#[derive(Clone, Debug, Default)]
pub struct RangePage {
    /// The items.
    pub items: Vec<KeyValue>,
    /// Whether the limit cut the answer.
    pub more: bool,
    /// Number of keys from `start` on, those beyond the limit included.
    pub count: i64,
    /// Revision of the read: the asked one, or the latest.
    pub revision: i64,
}

/// Kind of a store event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreEventKind {
    /// The key was written.
    Put,
    /// The key was removed, or expired.
    Delete,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreEvent {
    /// Revision of the change.
    pub revision: i64,
    /// What happened.
    pub kind: StoreEventKind,
    /// The key.
    pub key: String,
    /// The new value; empty for a removal.
    pub value: Bytes,
    /// The value before, if the watch asked for it and there was one.
    pub previous: Option<Bytes>,
    /// Whether the key did not exist before.
    pub created: bool,
}

/// A step of a watch: changes in revision order, then the news that all changes up to `revision` were delivered.
/// Without events it is mere progress.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchBatch {
    /// The changes. Those of one revision are never split over batches.
    pub events: Vec<StoreEvent>,
    /// Everything up to here has been delivered.
    pub revision: i64,
}

/// What to watch.
#[derive(Clone, Copy, Debug)]
pub struct WatchRange<'a> {
    /// Prefix of the keys.
    pub prefix: &'a str,
    /// First revision of interest, inclusive.
    pub from: i64,
    /// Whether events carry the value before.
    pub previous: bool,
}

/// A running watch. Dropping it ends it. After an error item the stream ends.
pub struct StoreWatch {
    /// The batches.
    pub batches: BoxStream<'static, Result<WatchBatch, StoreError>>,
    /// How far the store is ahead, where that can be known without asking anybody.
    pub tide: Option<Arc<Tide>>,
}

/// Shared counters of a store in this process and one of its watches. They prove a reader of the watch up to date
/// without a round trip.
#[derive(Debug)]
pub struct Tide {
    store: Arc<AtomicI64>,
    sent: AtomicI64,
}

impl Tide {
    /// Counters of a watch that has been sent everything up to `sent`, of a store that publishes its revision in
    /// `store` after it has sent the revision's events.
    pub fn new(store: Arc<AtomicI64>, sent: i64) -> Self {
        Self { store, sent: AtomicI64::new(sent) }
    }

    /// Records the revision of the last event sent. `i64::MAX` means that events are owed.
    pub fn set_sent(&self, revision: i64) {
        self.sent.store(revision, Ordering::Release);
    }

    /// The latest revision of the store.
    pub fn store_revision(&self) -> i64 {
        self.store.load(Ordering::Acquire)
    }

    /// The revision up to which a reader that applied all events up to `applied` is complete.
    pub fn proven(&self, applied: i64) -> i64 {
        let revision = self.store.load(Ordering::Acquire);
        if self.sent.load(Ordering::Acquire) <= applied { revision.max(applied) } else { applied }
    }
}

/// Why a store operation failed.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum StoreError {
    /// The revision is no longer held.
    #[error("required revision has been compacted: oldest is {compact_revision}")]
    Compacted {
        /// Oldest revision that can still be read.
        compact_revision: i64,
        /// Latest revision.
        current: i64,
    },
    /// The revision does not exist yet.
    #[error("Too large resource version: {requested}, current: {current}")]
    FutureRevision {
        /// What was asked.
        requested: i64,
        /// What there is.
        current: i64,
    },
    /// The watch cache has not been filled yet.
    #[error("storage is (re)initializing")]
    NotReady,
    /// The store cannot be reached, or cannot work now.
    #[error("storage is unavailable: {0}")]
    Unavailable(String),
    /// The deadline passed. A write may or may not have happened.
    #[error("storage did not answer in time")]
    Timeout,
    /// No space is left. Reads and removals still work.
    #[error("storage is out of space")]
    Full,
    /// Stored data is damaged.
    #[error("stored data is damaged: {0}")]
    Corrupt(String),
    /// The key or value is larger than the store takes.
    #[error("{what} of {size} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// `key`, `value` or `request`.
        what: &'static str,
        /// Its size.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The store refused the request as wrong.
    #[error("storage refused the request: {0}")]
    Invalid(String),
    /// The store has been closed.
    #[error("storage is closed")]
    Closed,
}

impl StoreError {
    /// Whether the same request may succeed later without anybody changing it.
    pub fn retryable(&self) -> bool {
        matches!(self, Self::FutureRevision { .. } | Self::NotReady | Self::Unavailable(_) | Self::Timeout | Self::Full)
    }
}

/// A versioned key-value store. Every call returns within a deadline of the store's own.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The latest value of a key, and the revision of the read.
    async fn get(&self, key: &str) -> Result<(Option<KeyValue>, i64), StoreError>;

    /// The keys with a prefix, at a revision.
    async fn range(&self, range: Range<'_>) -> Result<RangePage, StoreError>;

    /// Number of keys with a prefix, at the latest revision.
    async fn count(&self, prefix: &str) -> Result<i64, StoreError>;

    /// Writes a key if it is as expected. With `ttl`, the key is removed that long after its last write (or a little
    /// later).
    async fn put(&self, key: &str, value: Bytes, expect: Expect, ttl: Option<Duration>) -> Result<Written, StoreError>;

    /// Removes a key if it is as expected. `Expect::Absent` never removes anything.
    async fn delete(&self, key: &str, expect: Expect) -> Result<Written, StoreError>;

    /// Changes from a revision on.
    async fn watch(&self, range: WatchRange<'_>) -> Result<StoreWatch, StoreError>;

    /// Forgets versions that were superseded at or before `revision`.
    async fn compact(&self, revision: i64) -> Result<(), StoreError>;

    /// The latest revision, linearizable: no write acknowledged before the call is newer.
    async fn current_revision(&self) -> Result<i64, StoreError>;

    /// Asks for a progress batch on every running watch.
    async fn request_progress(&self) -> Result<(), StoreError>;

    /// Whether progress batches can be relied on as proof of completeness.
    fn proves_progress(&self) -> bool;

    /// For stores that do not prove progress: the latest revision, if no key with the prefix has changed after
    /// `revision`, when there were `count` of them. `None` if that cannot be said.
    async fn unchanged_since(&self, prefix: &str, revision: i64, count: i64) -> Result<Option<i64>, StoreError>;

    /// Bytes that the store takes on disk.
    async fn size_bytes(&self) -> Result<i64, StoreError>;

    /// Whether the value of a key would be stored in another form now (another encryption key), so that it is worth
    /// writing although it does not change.
    async fn is_stale(&self, _key: &str) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// Proves that the store answers, for health checks.
    async fn ping(&self) -> Result<(), StoreError> {
        self.current_revision().await.map(|_| ())
    }
}

/// The first key after all keys that start with `prefix`, or `None` if there is no such key.
pub(crate) fn prefix_end(prefix: &str) -> Option<Vec<u8>> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

/// Checks the sizes of a write.
pub(crate) fn check_size(key: &str, value: &Bytes) -> Result<(), StoreError> {
    let over = |what, size, limit| Err(StoreError::TooLarge { what, size, limit });
    match (key.len(), value.len()) {
        (size, _) if size > MAX_KEY_BYTES => over("key", size, MAX_KEY_BYTES),
        (_, size) if size > MAX_VALUE_BYTES => over("value", size, MAX_VALUE_BYTES),
        (0, _) => Err(StoreError::Invalid("key is empty".into())),
        _ => Ok(()),
    }
}
