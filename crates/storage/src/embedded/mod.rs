//! The embedded store: everything in one directory of one machine.
//!
//! The directory holds a log of segments. All writes go through one thread, which gathers those that wait into a
//! group, appends the group to the last segment, makes it durable with one sync, and only then acknowledges it. The
//! index in memory says where in the log each version of each key lies; values stay on disk. After a crash the log is
//! read from its start, and the torn end of an unacknowledged write is cut off. Compaction forgets old versions; the
//! cleaner gives their space back, segment by segment.
//!
//! Why not a B-tree file: the watch cache already holds every object in memory, so what this store is asked for is
//! appending, and reading back once. A log does one sequential write and one sync per group, its history is the watch
//! history, removals need no free pages, and running out of disk space leaves it as it was.

mod cleaner;
mod feed;
mod index;
mod log;
mod record;
mod replay;
mod segment;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Semaphore, oneshot};

use self::{
    cleaner::Cleaner,
    feed::Feed,
    index::{Index, Located},
    log::Log,
    writer::{Command, Outcome, Write, Writer},
};
use crate::contract::{
    Expect, KeyValue, Range, RangePage, Store, StoreError, StoreWatch, WatchRange, Written, check_size,
};

/// Writes that may wait for the writer.
const WRITE_QUEUE: usize = 4096;
/// Reads of the disk at a time.
const READERS: usize = 16;

/// Settings of an embedded store.
#[derive(Clone, Debug)]
pub struct EmbeddedOptions {
    /// How long old versions are kept for reads at a revision and for watches.
    pub retention: Duration,
    /// Size at which a new segment is started.
    pub segment_bytes: u32,
    /// Disk space set aside so that removals work when there is no other.
    pub reserve_bytes: u64,
    /// Longest time any call takes.
    pub deadline: Duration,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            retention: Duration::from_secs(300),
            segment_bytes: 16 << 20,
            reserve_bytes: 32 << 20,
            deadline: Duration::from_secs(10),
        }
    }
}

/// The embedded store.
pub struct EmbeddedStore {
    index: Arc<RwLock<Index>>,
    feed: Arc<Feed>,
    commands: RwLock<Option<mpsc::SyncSender<Command>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    queue: Arc<Semaphore>,
    readers: Arc<Semaphore>,
    deadline: Duration,
}

impl EmbeddedStore {
    /// Opens the store in `directory`, making it if there is none. Only one process can have it open.
    pub async fn open(directory: impl Into<PathBuf>, options: EmbeddedOptions) -> Result<Self, StoreError> {
        let directory = directory.into();
        tokio::task::spawn_blocking(move || Self::open_blocking(&directory, &options))
            .await
            .map_err(|e| StoreError::Unavailable(e.to_string()))?
    }

    fn open_blocking(directory: &Path, options: &EmbeddedOptions) -> Result<Self, StoreError> {
        let unavailable =
            |what: &str, e: std::io::Error| StoreError::Unavailable(format!("{what} {}: {e}", directory.display()));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|e| unavailable("create", e))?;
        let lock = take_lock(directory).map_err(|e| unavailable("lock", e))?;
        let replayed = replay::replay(directory)?;
        let index = Arc::new(RwLock::new(replayed.index));
        let feed = Arc::new(Feed::default());
        let revision = index.read().revision;
        feed.revision.store(revision, Ordering::Release);
        let writer = Writer {
            index: Arc::clone(&index),
            feed: Arc::clone(&feed),
            log: Log::new(
                directory,
                replayed.active,
                replayed.next_segment,
                replayed.commit,
                options.segment_bytes.max(64 << 10),
                options.reserve_bytes,
            ),
            cleaner: Cleaner::default(),
            revision,
            expiring: replayed.expiring.into_iter().collect(),
            retention: options.retention,
            past: VecDeque::from([(Instant::now(), revision)]),
        };
        let (sender, receiver) = mpsc::sync_channel(WRITE_QUEUE);
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || {
                writer.run(&receiver);
                drop(lock);
            })
            .map_err(|e| StoreError::Unavailable(e.to_string()))?;
        Ok(Self {
            index,
            feed,
            commands: RwLock::new(Some(sender)),
            writer: Mutex::new(Some(thread)),
            queue: Arc::new(Semaphore::new(WRITE_QUEUE)),
            readers: Arc::new(Semaphore::new(READERS)),
            deadline: options.deadline,
        })
    }

    /// Finishes what was asked for, ends all watches and releases the directory.
    pub async fn close(&self) {
        drop(self.commands.write().take());
        let thread = self.writer.lock().take();
        if let Some(thread) = thread
            && !matches!(tokio::task::spawn_blocking(move || thread.join()).await, Ok(Ok(())))
        {
            tracing::error!("the store's writer ended badly");
        }
    }

    /// Hands a command to the writer and waits for its answer. Once handed over, it is carried out even if the caller
    /// does not wait.
    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, StoreError>>, tokio::sync::OwnedSemaphorePermit) -> Command,
    ) -> Result<T, StoreError> {
        let asked = async {
            let permit = Arc::clone(&self.queue).acquire_owned().await.map_err(|_| StoreError::Closed)?;
            let (reply, answer) = oneshot::channel();
            let sent = match &*self.commands.read() {
                Some(commands) => commands.try_send(command(reply, permit)),
                None => return Err(StoreError::Closed),
            };
            sent.map_err(|_| StoreError::Unavailable("the writer is gone".into()))?;
            answer.await.map_err(|_| StoreError::Closed)?
        };
        tokio::time::timeout(self.deadline, asked).await.map_err(|_| StoreError::Timeout)?
    }

    /// Runs a read of index and disk.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&RwLock<Index>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let index = Arc::clone(&self.index);
        let work = async {
            let permit = Arc::clone(&self.readers).acquire_owned().await.map_err(|_| StoreError::Closed)?;
            let work = tokio::task::spawn_blocking(move || {
                let outcome = read(&index);
                drop(permit);
                outcome
            });
            work.await.map_err(|e| StoreError::Unavailable(e.to_string()))?
        };
        tokio::time::timeout(self.deadline, work).await.map_err(|_| StoreError::Timeout)?
    }

    async fn write(&self, write: Write) -> Result<Written, StoreError> {
        match self.ask(|reply, permit| Command::Write(write, reply, permit)).await? {
            Outcome::Done(revision) => Ok(Written::Done { revision }),
            Outcome::Mismatch(None) => Ok(Written::Mismatch { current: None }),
            Outcome::Mismatch(Some(located)) => {
                Ok(Written::Mismatch { current: Some(self.read(move |_| located.read()).await?) })
            }
        }
    }
}

/// Only one process may have a store open. One that is just ending is waited for.
fn take_lock(directory: &Path) -> std::io::Result<File> {
    let path = directory.join("lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    let give_up = Instant::now() + Duration::from_secs(5);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::WouldBlock) if Instant::now() < give_up => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn read_all(items: &[Located]) -> Result<Vec<KeyValue>, StoreError> {
    items.iter().map(Located::read).collect()
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn get(&self, key: &str) -> Result<(Option<KeyValue>, i64), StoreError> {
        let key = key.to_owned();
        self.read(move |index| {
            let (found, revision) = {
                let index = index.read();
                (index.get(&key)?, index.revision)
            };
            Ok((found.map(|located| located.read()).transpose()?, revision))
        })
        .await
    }

    async fn range(&self, range: Range<'_>) -> Result<RangePage, StoreError> {
        let (prefix, start) = (range.prefix.to_owned(), range.start.map(str::to_owned));
        let (limit, revision) = (range.limit, range.revision);
        self.read(move |index| {
            let range = Range { prefix: &prefix, start: start.as_deref(), limit, revision };
            let found = index.read().range(&range)?;
            let more = found.count > found.items.len() as i64;
            let items = read_all(&found.items)?;
            Ok(RangePage { items, more, count: found.count, revision: found.revision })
        })
        .await
    }

    async fn count(&self, prefix: &str) -> Result<i64, StoreError> {
        let range = Range { prefix, limit: 1, ..Range::default() };
        Ok(self.index.read().range(&range)?.count)
    }

    async fn put(&self, key: &str, value: Bytes, expect: Expect, ttl: Option<Duration>) -> Result<Written, StoreError> {
        check_size(key, &value)?;
        self.write(Write { key: Arc::from(key), value: Some(value), expect, ttl }).await
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<Written, StoreError> {
        self.write(Write { key: Arc::from(key), value: None, expect, ttl: None }).await
    }

    async fn watch(&self, range: WatchRange<'_>) -> Result<StoreWatch, StoreError> {
        let (index, feed) = (Arc::clone(&self.index), Arc::clone(&self.feed));
        feed::watch(index, feed, range.prefix, range.from, range.previous)
    }

    async fn compact(&self, revision: i64) -> Result<(), StoreError> {
        self.ask(|reply, permit| Command::Compact(revision, reply, permit)).await
    }

    async fn current_revision(&self) -> Result<i64, StoreError> {
        if self.commands.read().is_none() {
            return Err(StoreError::Closed);
        }
        Ok(self.feed.revision.load(Ordering::Acquire))
    }

    async fn request_progress(&self) -> Result<(), StoreError> {
        self.feed.progress();
        Ok(())
    }

    fn proves_progress(&self) -> bool {
        true
    }

    async fn unchanged_since(&self, prefix: &str, revision: i64, count: i64) -> Result<Option<i64>, StoreError> {
        let range = Range { prefix, ..Range::default() };
        let found = self.index.read().range(&range)?;
        let unchanged = found.count == count && found.items.iter().all(|item| item.version.revision <= revision);
        Ok(unchanged.then_some(found.revision))
    }

    async fn size_bytes(&self) -> Result<i64, StoreError> {
        let total: u64 = self.index.read().segments.values().map(|segment| u64::from(segment.committed())).sum();
        Ok(total as i64)
    }
}
