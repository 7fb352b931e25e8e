//! The one thread that writes: it gathers waiting writes into a group, appends them to the log, makes them durable
//! with one sync, then tells index, watches and callers, in this order.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    sync::{Arc, mpsc},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    cleaner::Cleaner,
    feed::{Feed, value_before},
    index::{Index, Located},
    log::{Log, LogError},
    record::{Kind, Record},
};
use crate::contract::{Expect, StoreError, StoreEvent, StoreEventKind};

/// Writes in one group.
const GROUP_WRITES: usize = 1024;
/// Bytes after which a group is closed.
const GROUP_BYTES: usize = 4 << 20;
/// How often housekeeping looks around.
const TICK: Duration = Duration::from_secs(1);
/// Keys pruned under one hold of the index lock.
const PRUNE_CHUNK: usize = 1024;

/// A conditional write.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) key: Arc<str>,
    /// The value, or `None` to remove the key.
    pub(super) value: Option<Bytes>,
    pub(super) expect: Expect,
    pub(super) ttl: Option<Duration>,
}

/// Outcome of a write.
#[derive(Debug)]
pub(super) enum Outcome {
    Done(i64),
    Mismatch(Option<Located>),
}

pub(super) type Reply = oneshot::Sender<Result<Outcome, StoreError>>;

/// What the writer is asked for. The permit bounds the queue.
#[derive(Debug)]
pub(super) enum Command {
    Write(Write, Reply, OwnedSemaphorePermit),
    Compact(i64, oneshot::Sender<Result<(), StoreError>>, OwnedSemaphorePermit),
}

/// State of the writer thread.
pub(super) struct Writer {
    pub(super) index: Arc<RwLock<Index>>,
    pub(super) feed: Arc<Feed>,
    pub(super) log: Log,
    pub(super) cleaner: Cleaner,
    pub(super) revision: i64,
    /// Keys that expire: unix milliseconds, revision of the write, key.
    pub(super) expiring: BTreeSet<(u64, i64, Arc<str>)>,
    pub(super) retention: Duration,
    /// Revisions of the past: when, and which.
    pub(super) past: VecDeque<(Instant, i64)>,
}

/// A write that found its expectation met, as a group holds it.
struct Staged {
    event: StoreEvent,
    key: Arc<str>,
    create_revision: i64,
    expires: u64,
    reply: Option<Reply>,
}

/// A group of writes being made.
#[derive(Default)]
struct Group {
    staged: Vec<Staged>,
    /// The newest staged write of each key, by its place in `staged`.
    touched: HashMap<Arc<str>, usize>,
    bytes: usize,
    /// Replies that need no write, sent once the group is durable: they may tell of writes in it.
    mismatches: Vec<(Reply, Arc<str>)>,
}

impl Writer {
    /// Runs until told to close or until nobody can ask any more.
    pub(super) fn run(mut self, commands: &mpsc::Receiver<Command>) {
        let mut tick = Instant::now() + TICK;
        loop {
            let wait = if self.cleaner.is_due(&self.log, &self.index) {
                Duration::ZERO
            } else {
                tick.saturating_duration_since(Instant::now()).min(self.until_expiry())
            };
            match commands.recv_timeout(wait) {
                Ok(command) => self.take(command, commands),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
            self.clean();
            self.expire();
            if Instant::now() >= tick {
                tick = Instant::now() + TICK;
                self.housekeeping();
            }
        }
        self.feed.close();
    }

    /// Carries out a command and the writes that wait behind it.
    fn take(&mut self, command: Command, commands: &mpsc::Receiver<Command>) {
        let mut writes = Vec::new();
        let mut bytes = 0;
        let mut next = Some(command);
        let mut compact = None;
        while let Some(command) = next.take() {
            match command {
                Command::Write(write, reply, permit) => {
                    bytes += write.value.as_ref().map_or(0, Bytes::len);
                    writes.push((write, Some(reply)));
                    drop(permit);
                }
                Command::Compact(revision, reply, permit) => {
                    compact = Some((revision, reply));
                    drop(permit);
                    break;
                }
            }
            if writes.len() < GROUP_WRITES && bytes < GROUP_BYTES {
                next = commands.try_recv().ok();
            }
        }
        self.commit(writes);
        if let Some((revision, reply)) = compact
            && reply.send(self.compact(revision)).is_err()
        {
            tracing::trace!("nobody waits for a compaction");
        }
    }

    /// Makes a group of writes. Every reply is sent before this returns.
    fn commit(&mut self, writes: Vec<(Write, Option<Reply>)>) {
        let mut group = Group::default();
        for (write, reply) in writes {
            if self.log.is_full() && write.value.is_some() {
                answer(reply, Err(StoreError::Full));
            } else {
                self.stage(&mut group, write, reply);
            }
        }
        if group.staged.is_empty() && group.mismatches.is_empty() {
            return;
        }
        match self.append(&group) {
            Ok(()) => self.finish(group),
            Err(LogError::Full) => self.commit_removals(group),
            Err(LogError::Failed(reason)) => group.refuse(&StoreError::Unavailable(reason)),
        }
    }

    /// The disk is full: refuses the writes of values, and makes the removals, which the reserve has room for.
    fn commit_removals(&mut self, group: Group) {
        let mut removals = Group::default();
        for (reply, _) in group.mismatches {
            answer(Some(reply), Err(StoreError::Full));
        }
        let mut refused = HashSet::new();
        for staged in group.staged {
            // A removal may have expected a write of this group, which is refused now.
            if staged.event.kind == StoreEventKind::Put || refused.contains(&staged.key) {
                refused.insert(staged.key);
                answer(staged.reply, Err(StoreError::Full));
                continue;
            }
            let revision = self.revision + 1 + removals.staged.len() as i64;
            removals.push(Staged { event: StoreEvent { revision, ..staged.event }, ..staged });
        }
        if removals.staged.is_empty() {
            return;
        }
        match self.append(&removals) {
            Ok(()) => self.finish(removals),
            Err(LogError::Full) => removals.refuse(&StoreError::Full),
            Err(LogError::Failed(reason)) => removals.refuse(&StoreError::Unavailable(reason)),
        }
    }

    /// Checks what a write expects against the index and the group so far.
    fn stage(&mut self, group: &mut Group, write: Write, reply: Option<Reply>) {
        let present = self.present(group, &write.key);
        let met = match (write.expect, present) {
            (Expect::Absent, None) => write.value.is_some(),
            (Expect::Revision(expected), Some((revision, _))) => expected == revision,
            _ => false,
        };
        if !met {
            if let Some(reply) = reply {
                group.mismatches.push((reply, write.key));
            }
            return;
        }
        let revision = self.revision + 1 + group.staged.len() as i64;
        let create_revision = present.map_or(revision, |(_, created)| created);
        let kind = if write.value.is_some() { StoreEventKind::Put } else { StoreEventKind::Delete };
        let event = StoreEvent {
            revision,
            kind,
            key: write.key.to_string(),
            value: write.value.unwrap_or_default(),
            previous: None,
            created: present.is_none(),
        };
        let expires = write.ttl.map_or(0, |ttl| now_ms() + ttl.as_millis() as u64);
        group.push(Staged { event, key: write.key, create_revision, expires, reply });
    }

    /// Revision and creation of the present value of a key.
    fn present(&self, group: &Group, key: &str) -> Option<(i64, i64)> {
        if let Some(at) = group.touched.get(key) {
            let staged = &group.staged[*at];
            return (staged.event.kind == StoreEventKind::Put)
                .then_some((staged.event.revision, staged.create_revision));
        }
        let index = self.index.read();
        let (_, entry) = index.entry(key)?;
        (!entry.latest.deleted).then_some((entry.latest.revision, entry.create_revision))
    }

    /// Appends a group to the log, durably.
    fn append(&mut self, group: &Group) -> Result<(), LogError> {
        if group.staged.is_empty() {
            return Ok(());
        }
        let compact_revision = self.index.read().compact_revision;
        self.log.begin(self.revision, compact_revision, group.bytes, &self.index)?;
        for staged in &group.staged {
            self.log.add(staged.record());
        }
        let revision = self.revision + group.staged.len() as i64;
        self.log.end(revision, compact_revision)
    }

    /// Shows a durable group to everybody.
    fn finish(&mut self, group: Group) {
        let Group { staged, mismatches, .. } = group;
        if !staged.is_empty() {
            let places = self.log.take_places();
            let mut index = self.index.write();
            for (staged, (segment, offset)) in staged.iter().zip(places) {
                index.apply(Arc::clone(&staged.key), &staged.record(), segment, offset);
            }
            drop(index);
        }
        let mut events = Vec::with_capacity(staged.len());
        let mut replies = Vec::with_capacity(staged.len());
        for staged in staged {
            if staged.expires > 0 {
                self.expiring.insert((staged.expires, staged.event.revision, staged.key));
            }
            self.revision = staged.event.revision;
            replies.push((staged.reply, staged.event.revision));
            events.push(staged.event);
        }
        if !events.is_empty() {
            self.feed.publish(&events, self.revision, |event| {
                value_before(&self.index, event).unwrap_or_else(|error| {
                    tracing::error!(%error, "reading a replaced value");
                    None
                })
            });
        }
        for (reply, revision) in replies {
            answer(reply, Ok(Outcome::Done(revision)));
        }
        for (reply, key) in mismatches {
            let present = self.index.read().get(&key);
            answer(Some(reply), present.map(Outcome::Mismatch));
        }
    }

    fn until_expiry(&self) -> Duration {
        self.expiring.first().map_or(TICK, |(at, _, _)| Duration::from_millis(at.saturating_sub(now_ms())))
    }

    /// Removes what has expired.
    fn expire(&mut self) {
        let now = now_ms();
        let mut writes = Vec::new();
        while writes.len() < GROUP_WRITES {
            let Some(first) = self.expiring.first().filter(|(at, _, _)| *at <= now) else { break };
            let (at, revision, key) = first.clone();
            self.expiring.remove(&(at, revision, Arc::clone(&key)));
            writes.push((Write { key, value: None, expect: Expect::Revision(revision), ttl: None }, None));
        }
        if writes.is_empty() {
            return;
        }
        let keys: Vec<_> = writes.iter().map(|(write, _)| (Arc::clone(&write.key), write.expect)).collect();
        self.commit(writes);
        // Those that could not be removed now (no disk) are tried again later.
        for (key, expect) in keys {
            let index = self.index.read();
            let left = index.entry(&key).filter(|(_, entry)| !entry.latest.deleted).map(|(_, e)| e.latest.revision);
            if let (Some(revision), Expect::Revision(expected)) = (left, expect)
                && revision == expected
            {
                self.expiring.insert((now + TICK.as_millis() as u64, revision, key));
            }
        }
    }

    fn housekeeping(&mut self) {
        if self.log.is_full() {
            self.log.try_recover();
        }
        let now = Instant::now();
        if self
            .past
            .back()
            .is_none_or(|(at, revision)| *revision < self.revision && now.duration_since(*at) >= self.retention / 10)
        {
            self.past.push_back((now, self.revision));
        }
        let mut target = None;
        while let Some((_, revision)) =
            self.past.front().filter(|(at, _)| self.log.is_full() || now.duration_since(*at) >= self.retention)
        {
            target = Some(*revision);
            self.past.pop_front();
        }
        if let Some(revision) = target
            && let Err(error) = self.compact(revision)
        {
            tracing::warn!(%error, "compaction failed");
        }
    }

    /// Forgets versions superseded at or before `revision`.
    fn compact(&mut self, revision: i64) -> Result<(), StoreError> {
        let keys = {
            let mut index = self.index.write();
            if revision > index.revision {
                return Err(StoreError::FutureRevision { requested: revision, current: index.revision });
            }
            if revision <= index.compact_revision {
                let (compact_revision, current) = (index.compact_revision, index.revision);
                return Err(StoreError::Compacted { compact_revision, current });
            }
            // The next group's mark writes this down. Should it be lost, history merely reaches further back.
            index.compact_revision = revision;
            index.prunable()
        };
        for chunk in keys.chunks(PRUNE_CHUNK) {
            self.index.write().prune(chunk);
        }
        self.cleaner.retry();
        Ok(())
    }

    /// One step of cleaning.
    fn clean(&mut self) {
        if self.cleaner.is_due(&self.log, &self.index) {
            self.cleaner.step(&mut self.log, &self.index, self.revision);
        }
    }
}

impl Group {
    fn push(&mut self, staged: Staged) {
        self.bytes += staged.record().encoded_len();
        self.touched.insert(Arc::clone(&staged.key), self.staged.len());
        self.staged.push(staged);
    }

    fn refuse(self, error: &StoreError) {
        let replies = self.staged.into_iter().map(|staged| staged.reply);
        for reply in replies.chain(self.mismatches.into_iter().map(|(reply, _)| Some(reply))) {
            answer(reply, Err(error.clone()));
        }
    }
}

impl Staged {
    fn record(&self) -> Record<'_> {
        Record {
            kind: if self.event.kind == StoreEventKind::Put { Kind::Put } else { Kind::Delete },
            copy: false,
            commit: 0,
            revision: self.event.revision,
            create_revision: self.create_revision,
            expires: self.expires,
            key: &self.key,
            value: &self.event.value,
        }
    }
}

fn answer(reply: Option<Reply>, outcome: Result<Outcome, StoreError>) {
    if let Some(reply) = reply
        && reply.send(outcome).is_err()
    {
        tracing::trace!("a writer left before its write was done");
    }
}

/// Unix time in milliseconds.
pub(super) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
