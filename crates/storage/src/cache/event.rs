//! Events of the cache, and what a watcher sees of them.

use std::{
    sync::{Arc, OnceLock},
    time::Instant,
};

use bytes::Bytes;

use super::object::{CachedObject, Codec};

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

impl EventKind {
    /// The `type` of the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// A change of an object, shared by the ring and all watchers.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) kind: EventKind,
    pub(super) key: Arc<str>,
    /// The object after the change; for `Deleted` its last state at the revision of the removal.
    pub(super) object: Arc<CachedObject>,
    pub(super) previous: Option<Arc<CachedObject>>,
    pub(super) revision: i64,
    pub(super) at: Instant,
    frames: [OnceLock<Bytes>; 3],
    departed: OnceLock<Arc<CachedObject>>,
}

impl Change {
    pub(super) fn new(
        kind: EventKind,
        key: Arc<str>,
        object: Arc<CachedObject>,
        previous: Option<Arc<CachedObject>>,
        revision: i64,
        at: Instant,
    ) -> Self {
        Self { kind, key, object, previous, revision, at, frames: Default::default(), departed: OnceLock::new() }
    }

    /// Memory that the change holds beside the present objects, about.
    pub(super) fn cost(&self) -> usize {
        let own = if self.kind == EventKind::Deleted { self.object.json.len() } else { 0 };
        256 + own + self.previous.as_ref().map_or(0, |previous| previous.json.len())
    }

    /// The object before, as it is shown to those who lose sight of it: at the revision of the change.
    pub(super) fn departed(&self, codec: &dyn Codec) -> Option<Arc<CachedObject>> {
        if self.kind == EventKind::Deleted {
            return Some(Arc::clone(&self.object));
        }
        let previous = self.previous.as_ref()?;
        Some(Arc::clone(self.departed.get_or_init(|| Arc::new(last_state(previous, self.revision, codec)))))
    }
}

/// An object's last state, at the revision at which it went.
pub(super) fn last_state(object: &CachedObject, revision: i64, codec: &dyn Codec) -> CachedObject {
    CachedObject::new(codec.restamp(object, revision), revision, object.index.clone())
}

/// An event of a watcher.
#[derive(Clone, Debug)]
pub struct WatchEvent {
    /// Its type, as this watcher sees it.
    pub kind: EventKind,
    /// The object as it is shown: for `Deleted` the last state at the revision of the event.
    pub object: Arc<CachedObject>,
    /// The object before, if there was one.
    pub previous: Option<Arc<CachedObject>>,
    /// Revision of the event.
    pub revision: i64,
    change: Option<Arc<Change>>,
}

impl WatchEvent {
    /// An object that existed when the watch started.
    pub(super) fn initial(object: Arc<CachedObject>) -> Self {
        let revision = object.revision;
        Self { kind: EventKind::Added, object, previous: None, revision, change: None }
    }

    /// A change as `kind`, showing `object`.
    pub(super) fn of(change: Arc<Change>, kind: EventKind, object: Arc<CachedObject>) -> Self {
        let (previous, revision) = (change.previous.clone(), change.revision);
        Self { kind, object, previous, revision, change: Some(change) }
    }

    /// The JSON frame, `{"type":..,"object":..}` and a newline. That of a change is built once for all watchers.
    pub fn frame(&self) -> Bytes {
        match &self.change {
            Some(change) => {
                change.frames[self.kind as usize].get_or_init(|| frame(self.kind, &self.object.json)).clone()
            }
            None => frame(self.kind, &self.object.json),
        }
    }
}

/// Builds a frame.
fn frame(kind: EventKind, json: &[u8]) -> Bytes {
    let head = match kind {
        EventKind::Added => &b"{\"type\":\"ADDED\",\"object\":"[..],
        EventKind::Modified => b"{\"type\":\"MODIFIED\",\"object\":",
        EventKind::Deleted => b"{\"type\":\"DELETED\",\"object\":",
    };
    let mut out = Vec::with_capacity(head.len() + json.len() + 2);
    out.extend_from_slice(head);
    out.extend_from_slice(json.strip_suffix(b"\n").unwrap_or(json));
    out.extend_from_slice(b"}\n");
    Bytes::from(out)
}
