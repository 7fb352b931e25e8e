//! Watches: live ones are fed by the writer after each commit; one that starts in the past, or falls behind, reads
//! the log until it has caught up.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use parking_lot::{Mutex, RwLock};
use tokio::sync::mpsc;

use super::{
    index::Index,
    record::{Kind, Record},
    segment::{MAGIC, Segment},
};
use crate::contract::{StoreError, StoreEvent, StoreEventKind, StoreWatch, Tide, WatchBatch};

/// Batches that may wait for a live watch.
const LIVE_QUEUE: usize = 128;
/// Bytes of values that may wait for a live watch.
const LIVE_BYTES: usize = 8 << 20;
/// Bytes of events that one step of catching up collects.
const STEP_BYTES: usize = 2 << 20;
/// Bytes of log that one step of catching up reads at most.
const STEP_LOG_BYTES: usize = 16 << 20;

/// The live watches of a store.
#[derive(Debug, Default)]
pub(super) struct Feed {
    state: Mutex<FeedState>,
    /// The store's revision, published after its events have been sent.
    pub(super) revision: Arc<AtomicI64>,
}

#[derive(Debug, Default)]
struct FeedState {
    watches: Vec<Live>,
    closed: bool,
}

#[derive(Debug)]
struct Live {
    prefix: Arc<str>,
    from: i64,
    previous: bool,
    sender: mpsc::Sender<WatchBatch>,
    /// Bytes of values on their way through the channel.
    waiting: Arc<AtomicUsize>,
    tide: Arc<Tide>,
}

impl Feed {
    /// Sends the events of a commit, which ends at `revision`, then publishes the revision. `previous` reads the
    /// value before an event.
    pub(super) fn publish(
        &self,
        events: &[StoreEvent],
        revision: i64,
        mut previous: impl FnMut(&StoreEvent) -> Option<Bytes>,
    ) {
        let mut state = self.state.lock();
        state.watches.retain(|live| {
            let wanted = |event: &&StoreEvent| event.revision >= live.from && event.key.starts_with(&*live.prefix);
            let mut batch: Vec<StoreEvent> = events.iter().filter(wanted).cloned().collect();
            let Some(last) = batch.last() else { return !live.sender.is_closed() };
            live.tide.set_sent(last.revision);
            if live.previous {
                for event in &mut batch {
                    event.previous = previous(event);
                }
            }
            live.send(WatchBatch { events: batch, revision })
        });
        self.revision.store(revision, Ordering::Release);
    }

    /// Sends everyone a batch without events.
    pub(super) fn progress(&self) {
        let mut state = self.state.lock();
        let revision = self.revision.load(Ordering::Acquire);
        // A full queue already holds news.
        state.watches.retain(|live| {
            let batch = WatchBatch { events: Vec::new(), revision };
            !matches!(live.sender.try_send(batch), Err(mpsc::error::TrySendError::Closed(_)))
        });
    }

    /// Ends all watches, and those to come.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        for live in state.watches.drain(..) {
            live.tide.set_sent(i64::MAX);
        }
    }

    /// Goes live if everything up to `next - 1` has been delivered; `None` if there is more in the log.
    fn join(&self, pursuit: &Pursuit) -> Result<Option<LiveEnd>, StoreError> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(StoreError::Closed);
        }
        let revision = self.revision.load(Ordering::Acquire);
        if pursuit.reached < revision {
            return Ok(None);
        }
        let (sender, receiver) = mpsc::channel(LIVE_QUEUE);
        let waiting = Arc::new(AtomicUsize::new(0));
        pursuit.tide.set_sent(revision);
        state.watches.push(Live {
            prefix: Arc::clone(&pursuit.prefix),
            from: pursuit.from,
            previous: pursuit.previous,
            sender,
            waiting: Arc::clone(&waiting),
            tide: Arc::clone(&pursuit.tide),
        });
        Ok(Some(LiveEnd { receiver, waiting }))
    }
}

impl Live {
    /// Whether the watch stays live.
    fn send(&self, batch: WatchBatch) -> bool {
        let bytes = weight(&batch);
        let before = self.waiting.fetch_add(bytes, Ordering::AcqRel);
        // One batch may be larger than the bound; it waits alone.
        let room = before == 0 || before + bytes <= LIVE_BYTES;
        if room && self.sender.try_send(batch).is_ok() {
            return true;
        }
        self.tide.set_sent(i64::MAX);
        false
    }
}

/// The receiving end of a live watch.
struct LiveEnd {
    receiver: mpsc::Receiver<WatchBatch>,
    waiting: Arc<AtomicUsize>,
}

impl LiveEnd {
    async fn recv(&mut self) -> Option<WatchBatch> {
        let batch = self.receiver.recv().await?;
        self.waiting.fetch_sub(weight(&batch), Ordering::AcqRel);
        Some(batch)
    }
}

fn weight(batch: &WatchBatch) -> usize {
    let value = |event: &StoreEvent| event.value.len() + event.previous.as_ref().map_or(0, Bytes::len);
    batch.events.iter().map(value).sum()
}

/// A watch that reads the log.
struct Pursuit {
    index: Arc<RwLock<Index>>,
    feed: Arc<Feed>,
    prefix: Arc<str>,
    from: i64,
    previous: bool,
    tide: Arc<Tide>,
    /// Everything up to here has been delivered.
    reached: i64,
    /// Where to read on: segment and offset.
    place: Option<(u32, u32)>,
}

/// What one step of catching up has read.
struct Step {
    events: Vec<StoreEvent>,
    bytes: usize,
    log_bytes: usize,
}

enum Phase {
    Behind(Pursuit),
    Live(LiveEnd, Pursuit),
    Ended,
}

/// Starts a watch of the keys with `prefix` from revision `from` on.
pub(super) fn watch(
    index: Arc<RwLock<Index>>,
    feed: Arc<Feed>,
    prefix: &str,
    from: i64,
    previous: bool,
) -> Result<StoreWatch, StoreError> {
    let tide = Arc::new(Tide::new(Arc::clone(&feed.revision), i64::MAX));
    let prefix = Arc::from(prefix);
    let reached = from - 1;
    let pursuit = Pursuit { index, feed, prefix, from, previous, tide: Arc::clone(&tide), reached, place: None };
    pursuit.check_held()?;
    // Usually a watch starts at the present and goes live at once.
    let phase = match pursuit.feed.join(&pursuit)? {
        Some(receiver) => Phase::Live(receiver, pursuit),
        None => Phase::Behind(pursuit),
    };
    Ok(StoreWatch { batches: stream::unfold(phase, advance).boxed(), tide: Some(tide) })
}

async fn advance(mut phase: Phase) -> Option<(Result<WatchBatch, StoreError>, Phase)> {
    loop {
        phase = match phase {
            Phase::Ended => return None,
            Phase::Live(mut receiver, mut pursuit) => match receiver.recv().await {
                Some(batch) => {
                    pursuit.reached = pursuit.reached.max(batch.revision);
                    return Some((Ok(batch), Phase::Live(receiver, pursuit)));
                }
                None => {
                    pursuit.place = None;
                    Phase::Behind(pursuit)
                }
            },
            Phase::Behind(pursuit) => match catch_up(pursuit).await {
                Ok((batch, phase)) => return Some((Ok(batch), phase)),
                Err(error) => return Some((Err(error), Phase::Ended)),
            },
        }
    }
}

/// Delivers the next piece of log, or goes live.
async fn catch_up(mut pursuit: Pursuit) -> Result<(WatchBatch, Phase), StoreError> {
    loop {
        if let Some(receiver) = pursuit.feed.join(&pursuit)? {
            let batch = WatchBatch { events: Vec::new(), revision: pursuit.reached };
            return Ok((batch, Phase::Live(receiver, pursuit)));
        }
        let step = tokio::task::spawn_blocking(move || {
            let events = pursuit.step();
            (pursuit, events)
        });
        let (back, events) = step.await.map_err(|e| StoreError::Unavailable(e.to_string()))?;
        pursuit = back;
        let events = events?;
        if !events.is_empty() {
            return Ok((WatchBatch { events, revision: pursuit.reached }, Phase::Behind(pursuit)));
        }
    }
}

impl Pursuit {
    fn check_held(&self) -> Result<(), StoreError> {
        let index = self.index.read();
        if self.reached < index.compact_revision {
            let (compact_revision, current) = (index.compact_revision, index.revision);
            return Err(StoreError::Compacted { compact_revision, current });
        }
        Ok(())
    }

    /// Reads a piece of log.
    fn step(&mut self) -> Result<Vec<StoreEvent>, StoreError> {
        // What is committed is in the index; the end of the log is taken before, so that `reached` never runs ahead.
        let revision = self.feed.revision.load(Ordering::Acquire);
        if self.place.is_none() {
            self.check_held()?;
        }
        let segments: VecDeque<_> = {
            let index = self.index.read();
            let first = self.place.map_or(0, |(segment, _)| segment);
            if self.place.is_some() && !index.segments.contains_key(&first) {
                let (compact_revision, current) = (index.compact_revision, index.revision);
                return Err(StoreError::Compacted { compact_revision, current });
            }
            index.segments.range(first..).map(|(_, segment)| Arc::clone(segment)).collect()
        };
        let mut step = Step { events: Vec::new(), bytes: 0, log_bytes: 0 };
        for segment in segments {
            let resumed = self.place.filter(|(id, _)| *id == segment.id).map(|(_, offset)| offset);
            if resumed.is_none() && segment.last_revision() <= self.reached {
                continue;
            }
            if !self.read_segment(&segment, resumed.unwrap_or(MAGIC.len() as u32), revision, &mut step)? {
                return Ok(step.events);
            }
        }
        // The whole log was read.
        self.reached = self.reached.max(revision);
        Ok(step.events)
    }

    /// Reads a segment from an offset on. False if the step is over before the end of the log.
    fn read_segment(
        &mut self,
        segment: &Segment,
        offset: u32,
        present: i64,
        step: &mut Step,
    ) -> Result<bool, StoreError> {
        let end = segment.committed();
        let mut reached = self.reached;
        let mut stop = None;
        let stopped = segment.walk(offset, end, |record, _, length| {
            if step.bytes >= STEP_BYTES || step.log_bytes >= STEP_LOG_BYTES {
                stop = Some(Ok(false));
            } else if record.revision > present {
                stop = Some(Ok(true));
            } else if record.kind != Kind::Mark && !record.copy && record.revision > reached {
                reached = record.revision;
                if record.revision >= self.from && record.key.starts_with(&*self.prefix) {
                    step.bytes += length as usize;
                    match self.event(&record) {
                        Ok(event) => step.events.push(event),
                        Err(error) => stop = Some(Err(error)),
                    }
                }
            }
            step.log_bytes += length as usize;
            stop.is_none()
        })?;
        self.reached = reached;
        self.place = Some((segment.id, stopped));
        match stop {
            Some(outcome) => {
                if matches!(outcome, Ok(true)) {
                    self.reached = self.reached.max(present);
                }
                outcome.map(|_| false)
            }
            None if stopped < end => Err(StoreError::Corrupt(format!("segment {} at byte {stopped}", segment.id))),
            None => Ok(true),
        }
    }

    fn event(&self, record: &Record<'_>) -> Result<StoreEvent, StoreError> {
        let kind = if record.kind == Kind::Put { StoreEventKind::Put } else { StoreEventKind::Delete };
        let created = kind == StoreEventKind::Put && record.create_revision == record.revision;
        let mut event = StoreEvent {
            revision: record.revision,
            kind,
            key: record.key.to_owned(),
            value: Bytes::copy_from_slice(record.value),
            previous: None,
            created,
        };
        if self.previous && !created {
            event.previous = value_before(&self.index, &event)?;
        }
        Ok(event)
    }
}

/// The value that an event replaced, if it is still held.
pub(super) fn value_before(index: &RwLock<Index>, event: &StoreEvent) -> Result<Option<Bytes>, StoreError> {
    let before = index.read().before(&event.key, event.revision)?;
    Ok(before.map(|located| located.read()).transpose()?.map(|kv| kv.value))
}
