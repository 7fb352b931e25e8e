//! A running watch of a cache.

use std::{
    collections::VecDeque,
    future::Future,
    hash::{BuildHasher, RandomState},
    ops::Bound,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::Stream;
use tokio::time::{Instant, Sleep, sleep};

use super::{
    Freshness,
    core::Core,
    event::{Change, EventKind, WatchEvent},
    object::CachedObject,
    snapshot::Snapshot,
    watchers::{Drained, Place, Queue, Scope},
};
use crate::contract::StoreError;

/// Changes taken from the queue at a time.
const DRAIN: usize = 64;

/// Decides whether a watcher wants an object.
pub type Predicate = Arc<dyn Fn(&CachedObject) -> bool + Send + Sync>;

/// Where a watch starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchStart {
    /// The existing objects as `Added`, of a state that is this fresh, then the changes.
    Initial(Freshness),
    /// Changes after this revision.
    After(i64),
    /// Changes after a state that is this fresh.
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

/// What a watcher yields.
#[derive(Clone, Debug)]
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

/// A running watch. The stream ends when the watcher was too slow or the cache lost its place in the history; the
/// client is to watch again then.
pub struct Watcher {
    core: Arc<Core>,
    id: u64,
    place: Place,
    queue: Arc<Queue>,
    wanted: Wanted,
    initial: Option<Initial>,
    /// Changes taken over, oldest first.
    taken: VecDeque<Arc<Change>>,
    /// Changes up to here are of no interest.
    after: i64,
    /// Revision of the last change looked at.
    seen: i64,
    bookmark: Option<(Pin<Box<Sleep>>, Duration)>,
    ended: bool,
}

/// What a watcher wants to see.
struct Wanted {
    prefix: String,
    scope: Scope,
    predicate: Option<Predicate>,
}

/// The existing objects, on their way out.
struct Initial {
    snapshot: Snapshot,
    /// Last key yielded.
    at: Option<Arc<str>>,
    mark_end: bool,
}

impl Wanted {
    fn matches(&self, object: &CachedObject) -> bool {
        self.scope.matches(object) && self.predicate.as_ref().is_none_or(|predicate| predicate(object))
    }

    /// A change as this watcher sees it.
    fn view(&self, change: &Arc<Change>, core: &Core) -> Option<WatchEvent> {
        if !change.key.starts_with(&self.prefix) {
            return None;
        }
        let after = change.kind != EventKind::Deleted && self.matches(&change.object);
        let before = change.previous.as_ref().is_some_and(|previous| self.matches(previous));
        let (kind, object) = match (before, after) {
            (false, false) => return None,
            (false, true) => (EventKind::Added, Arc::clone(&change.object)),
            (true, true) => (EventKind::Modified, Arc::clone(&change.object)),
            (true, false) => (EventKind::Deleted, change.departed(&*core.codec)?),
        };
        Some(WatchEvent::of(Arc::clone(change), kind, object))
    }
}

impl Watcher {
    /// Starts a watch on a state that is as fresh as the request demands.
    pub(super) fn start(core: Arc<Core>, request: WatchRequest) -> Result<Self, StoreError> {
        let period = core.options.bookmark_period;
        // Spread, so that many watchers do not wake in the same instant.
        let spread = f64::from(RandomState::new().hash_one(0_u8) as u32) / f64::from(u32::MAX);
        let period = period.mul_f64(0.9 + spread / 10.0);
        let bookmark = request.bookmarks.then(|| (Box::pin(sleep(period)), period));
        let mut state = core.state.write();
        if !state.ready {
            return Err(StoreError::NotReady);
        }
        let proven = state.proven();
        let mut taken = VecDeque::new();
        let (initial, seen) = match request.start {
            WatchStart::After(revision) => {
                let Some(changes) = state.ring.after(revision) else {
                    return Err(StoreError::Compacted { compact_revision: state.ring.floor(), current: proven });
                };
                taken.extend(changes.filter(|change| change.key.starts_with(&request.prefix)).map(Arc::clone));
                (None, revision)
            }
            WatchStart::Now(_) => (None, proven),
            WatchStart::Initial(_) => {
                let snapshot = Snapshot {
                    revision: proven,
                    beyond: 0,
                    prefix: Arc::from(request.prefix.as_str()),
                    objects: state.objects.clone(),
                    hot: state.hot.clone(),
                };
                (Some(Initial { snapshot, at: None, mark_end: request.initial_events_end }), proven)
            }
        };
        let (id, place, queue) = state.watchers.add(&request.scope);
        drop(state);
        core.metrics.init_events.inc_by(taken.len() as u64);
        let wanted = Wanted { prefix: request.prefix, scope: request.scope, predicate: request.predicate };
        Ok(Self { core, id, place, queue, wanted, initial, taken, after: seen, seen, bookmark, ended: false })
    }

    /// The revision up to which everything that this watcher wants has been yielded: what a bookmark sent now would
    /// say, for instance the last one before a deadline.
    pub fn bookmark_revision(&self) -> i64 {
        let state = self.core.state.read();
        if self.initial.is_some() {
            return self.after;
        }
        // Several changes may have one revision.
        let waiting = self.taken.front().map(|change| change.revision).or_else(|| self.queue.front_revision());
        match waiting {
            Some(revision) => self.seen.min(revision - 1),
            None if state.ready && !self.ended => state.proven().max(self.seen),
            None => self.seen,
        }
    }

    fn next_initial(&mut self) -> Option<WatchItem> {
        let initial = self.initial.as_mut()?;
        let event = initial.next(&self.wanted);
        if let Some(object) = event {
            self.core.metrics.init_events.inc();
            return Some(WatchItem::Event(WatchEvent::initial(object)));
        }
        let (revision, mark_end) = (initial.snapshot.revision, initial.mark_end);
        self.initial = None;
        mark_end.then_some(WatchItem::Bookmark { revision, initial_events_end: true })
    }

    fn next_taken(&mut self) -> Option<WatchItem> {
        while let Some(change) = self.taken.pop_front() {
            if change.revision <= self.after {
                continue;
            }
            self.seen = change.revision;
            if let Some(event) = self.wanted.view(&change, &self.core) {
                return Some(WatchItem::Event(event));
            }
        }
        None
    }
}

impl Initial {
    fn next(&mut self, wanted: &Wanted) -> Option<Arc<CachedObject>> {
        let after = match &self.at {
            Some(key) => Bound::Excluded(&**key),
            None => Bound::Included(wanted.prefix.as_str()),
        };
        if let Some((field, value)) = &wanted.scope.hot_field {
            let start = self.at.as_ref().map(|key| format!("{key}\0"));
            if let Some(mut items) = self.snapshot.by_field(field, value, start.as_deref()) {
                let found = items.find(|(_, object)| wanted.matches(object));
                let (key, object) = found.map(|(key, object)| (Arc::from(key), Arc::clone(object)))?;
                self.at = Some(key);
                return Some(object);
            }
        }
        let (key, object) = self
            .snapshot
            .objects
            .range::<_, str>((after, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(&wanted.prefix))
            .find(|(_, object)| wanted.matches(object))?;
        let found = Arc::clone(object);
        self.at = Some(Arc::clone(key));
        Some(found)
    }
}

impl Stream for Watcher {
    type Item = WatchItem;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<WatchItem>> {
        let this = &mut *self;
        if let Some(item) = this.next_initial() {
            return Poll::Ready(Some(item));
        }
        loop {
            if let Some(item) = this.next_taken() {
                return Poll::Ready(Some(item));
            }
            match this.queue.drain(&mut this.taken, DRAIN, cx.waker()) {
                Drained::Some => {}
                Drained::Empty => break,
                Drained::Closed => {
                    this.ended = true;
                    return Poll::Ready(None);
                }
            }
        }
        if let Some((timer, period)) = &mut this.bookmark
            && timer.as_mut().poll(cx).is_ready()
        {
            timer.as_mut().reset(Instant::now() + *period);
            // Arms the timer again.
            if timer.as_mut().poll(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
            return Poll::Ready(Some(WatchItem::Bookmark {
                revision: this.bookmark_revision(),
                initial_events_end: false,
            }));
        }
        Poll::Pending
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.core.state.write().watchers.remove(self.id, &self.place);
    }
}
