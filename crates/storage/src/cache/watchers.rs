//! The running watches of a cache, found by what they are interested in.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    task::Waker,
};

use parking_lot::Mutex;

use super::{event::Change, object::CachedObject};

/// Narrows a watch to what the dispatcher can look up. A watcher sees an event when scope and predicate match.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Only objects of this namespace.
    pub namespace: Option<String>,
    /// Only objects of this name.
    pub name: Option<String>,
    /// Only objects with this value of a hot field, one that [`super::CacheOptions::hot_fields`] names.
    pub hot_field: Option<(&'static str, String)>,
}

impl Scope {
    /// Whether an object is in it.
    pub(super) fn matches(&self, object: &CachedObject) -> bool {
        let index = &object.index;
        self.namespace.as_ref().is_none_or(|namespace| index.namespace() == namespace)
            && self.name.as_ref().is_none_or(|name| index.name() == name)
            && self.hot_field.as_ref().is_none_or(|(field, value)| index.field(field) == Some(value.as_str()))
    }
}

/// Changes that wait for one watcher.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<QueueState>,
}

#[derive(Debug, Default)]
struct QueueState {
    changes: VecDeque<Arc<Change>>,
    closed: bool,
    /// Nothing more will come.
    finished: bool,
    waker: Option<Waker>,
}

/// What a queue had.
pub(super) enum Drained {
    Some,
    /// Nothing; the waker will be called.
    Empty,
    Closed,
}

impl Queue {
    /// Adds a change. False if the watcher is now closed, because what it has not taken is older than `floor`.
    fn push(&self, change: &Arc<Change>, floor: i64, wake: &mut Vec<Waker>) -> bool {
        let mut state = self.state.lock();
        if state.changes.front().is_some_and(|oldest| oldest.revision <= floor) {
            drop(state);
            self.close(wake);
            return false;
        }
        state.changes.push_back(Arc::clone(change));
        wake.extend(state.waker.take());
        true
    }

    /// Ends the watch; what it has not taken is dropped.
    pub(super) fn close(&self, wake: &mut Vec<Waker>) {
        let mut state = self.state.lock();
        state.closed = true;
        let dropped = std::mem::take(&mut state.changes);
        wake.extend(state.waker.take());
        drop(state);
        drop(dropped);
    }

    /// Ends the watch once what waits is taken.
    fn finish(&self, wake: &mut Vec<Waker>) {
        let mut state = self.state.lock();
        state.finished = true;
        wake.extend(state.waker.take());
    }

    fn is_behind(&self, floor: i64) -> bool {
        self.front_revision().is_some_and(|oldest| oldest <= floor)
    }

    /// Revision of the oldest change that waits.
    pub(super) fn front_revision(&self) -> Option<i64> {
        self.state.lock().changes.front().map(|change| change.revision)
    }

    /// Moves up to `limit` changes to `into`.
    pub(super) fn drain(&self, into: &mut VecDeque<Arc<Change>>, limit: usize, waker: &Waker) -> Drained {
        let mut state = self.state.lock();
        if state.closed {
            return Drained::Closed;
        }
        if state.changes.is_empty() && state.finished {
            return Drained::Closed;
        }
        if state.changes.is_empty() {
            state.changes.shrink_to(64);
            if !state.waker.as_ref().is_some_and(|old| old.will_wake(waker)) {
                state.waker = Some(waker.clone());
            }
            return Drained::Empty;
        }
        let count = state.changes.len().min(limit);
        into.extend(state.changes.drain(..count));
        Drained::Some
    }
}

type Bucket = Vec<(u64, Arc<Queue>)>;

/// Where a watcher is registered.
#[derive(Clone, Debug)]
pub(super) enum Place {
    All,
    Namespace(Arc<str>),
    Name(Arc<str>),
    Field(usize, Arc<str>),
}

/// The watchers.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    next_id: u64,
    count: usize,
    all: Bucket,
    namespaces: HashMap<Arc<str>, Bucket>,
    names: HashMap<Arc<str>, Bucket>,
    fields: Vec<(&'static str, HashMap<Arc<str>, Bucket>)>,
}

impl Watchers {
    pub(super) fn new(hot_fields: &[&'static str]) -> Self {
        Self { fields: hot_fields.iter().map(|field| (*field, HashMap::new())).collect(), ..Self::default() }
    }

    /// Number of watchers.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Number of watchers that look at changes of an object. Those that look for values of fields are left out.
    pub(super) fn interested(&self, namespace: &str, name: &str) -> usize {
        let of = |map: &HashMap<Arc<str>, Bucket>, key: &str| map.get(key).map_or(0, Vec::len);
        self.all.len() + of(&self.namespaces, namespace) + of(&self.names, name)
    }

    /// Registers a watcher where the fewest changes find it.
    pub(super) fn add(&mut self, scope: &Scope) -> (u64, Place, Arc<Queue>) {
        let hot = scope.hot_field.as_ref().and_then(|(field, value)| {
            Some(Place::Field(self.fields.iter().position(|(name, _)| name == field)?, Arc::from(value.as_str())))
        });
        let place = hot
            .or_else(|| scope.name.as_deref().map(|name| Place::Name(Arc::from(name))))
            .or_else(|| scope.namespace.as_deref().map(|namespace| Place::Namespace(Arc::from(namespace))))
            .unwrap_or(Place::All);
        let (id, queue) = (self.next_id, Arc::new(Queue::default()));
        self.next_id += 1;
        self.count += 1;
        let bucket = match &place {
            Place::All => &mut self.all,
            Place::Namespace(namespace) => self.namespaces.entry(Arc::clone(namespace)).or_default(),
            Place::Name(name) => self.names.entry(Arc::clone(name)).or_default(),
            Place::Field(field, value) => self.fields[*field].1.entry(Arc::clone(value)).or_default(),
        };
        bucket.push((id, Arc::clone(&queue)));
        (id, place, queue)
    }

    /// Removes a watcher, if it is still there.
    pub(super) fn remove(&mut self, id: u64, place: &Place) {
        let before = |bucket: &mut Bucket| {
            let found = bucket.iter().position(|(other, _)| *other == id);
            found.map(|at| bucket.swap_remove(at)).is_some()
        };
        let in_map = |map: &mut HashMap<Arc<str>, Bucket>, key: &Arc<str>| {
            let removed = map.get_mut(key).is_some_and(before);
            if map.get(key).is_some_and(Vec::is_empty) {
                map.remove(key);
            }
            removed
        };
        let removed = match place {
            Place::All => before(&mut self.all),
            Place::Namespace(namespace) => in_map(&mut self.namespaces, namespace),
            Place::Name(name) => in_map(&mut self.names, name),
            Place::Field(field, value) => in_map(&mut self.fields[*field].1, value),
        };
        self.count -= usize::from(removed);
    }

    /// Gives a change to those who may want it. Returns how many got it, and how many were closed.
    pub(super) fn dispatch(&mut self, change: &Arc<Change>, floor: i64, wake: &mut Vec<Waker>) -> (usize, usize) {
        let (mut given, mut closed) = (0, 0);
        let mut give = |bucket: &mut Bucket| {
            bucket.retain(|(_, queue)| {
                let alive = queue.push(change, floor, wake);
                given += usize::from(alive);
                closed += usize::from(!alive);
                alive
            });
        };
        give(&mut self.all);
        let (now, before) = (&change.object.index, change.previous.as_ref().map(|object| &object.index));
        if let Some(bucket) = self.namespaces.get_mut(now.namespace()) {
            give(bucket);
        }
        if let Some(bucket) = self.names.get_mut(now.name()) {
            give(bucket);
        }
        for (field, map) in &mut self.fields {
            let value = now.field(field);
            let old = before.and_then(|index| index.field(field)).filter(|old| Some(*old) != value);
            for value in value.into_iter().chain(old) {
                if let Some(bucket) = map.get_mut(value) {
                    give(bucket);
                }
            }
        }
        self.count -= closed;
        (given, closed)
    }

    fn buckets(&mut self) -> impl Iterator<Item = &mut Bucket> {
        let fields = self.fields.iter_mut().flat_map(|(_, map)| map.values_mut());
        std::iter::once(&mut self.all).chain(self.namespaces.values_mut()).chain(self.names.values_mut()).chain(fields)
    }

    /// Closes those whose oldest waiting change is not after `floor`. Returns how many.
    pub(super) fn close_behind(&mut self, floor: i64, wake: &mut Vec<Waker>) -> usize {
        let mut closed = 0;
        for bucket in self.buckets() {
            bucket.retain(|(_, queue)| {
                let behind = queue.is_behind(floor);
                if behind {
                    queue.close(wake);
                    closed += 1;
                }
                !behind
            });
        }
        self.count -= closed;
        closed
    }

    /// Closes all.
    pub(super) fn close_all(&mut self, wake: &mut Vec<Waker>) -> usize {
        self.end_all(|queue| queue.close(wake))
    }

    /// Ends all watches once they have taken what waits for them.
    pub(super) fn finish_all(&mut self, wake: &mut Vec<Waker>) -> usize {
        self.end_all(|queue| queue.finish(wake))
    }

    fn end_all(&mut self, mut end: impl FnMut(&Queue)) -> usize {
        let mut closed = 0;
        for bucket in self.buckets() {
            for (_, queue) in bucket.drain(..) {
                end(&queue);
                closed += 1;
            }
        }
        self.namespaces.clear();
        self.names.clear();
        self.fields.iter_mut().for_each(|(_, map)| map.clear());
        self.count = 0;
        closed
    }
}
