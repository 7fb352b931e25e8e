//! The set of views that an informer keeps: one writer, many readers, indices, change handlers.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Deref,
    sync::Arc,
};

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::ObjectKey;

/// A view with the identity of its object.
#[derive(Debug)]
pub struct Cached<V> {
    /// Namespace and name.
    pub key: ObjectKey,
    /// UID of the object.
    pub uid: String,
    /// resourceVersion the view was made from.
    pub resource_version: String,
    /// What the component reads.
    pub view: V,
}

impl<V> Deref for Cached<V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.view
    }
}

/// A change that handlers see.
#[derive(Debug)]
pub enum Change<V> {
    /// A new object; `initial` during the first fill.
    Added {
        /// The object.
        new: Arc<Cached<V>>,
        /// Whether it was there when the informer started.
        initial: bool,
    },
    /// Another version. `old` and `new` may be different objects (other UID) of one name if a deletion was missed.
    Updated {
        /// Before.
        old: Arc<Cached<V>>,
        /// Now.
        new: Arc<Cached<V>>,
    },
    /// Gone.
    Deleted {
        /// The last state that is known.
        old: Arc<Cached<V>>,
    },
}

impl<V> Change<V> {
    /// The newest state the change tells of.
    pub fn object(&self) -> &Arc<Cached<V>> {
        match self {
            Self::Added { new, .. } | Self::Updated { new, .. } => new,
            Self::Deleted { old } => old,
        }
    }
}

/// A declared index: each object is found under all the values `keys` gives.
#[derive(Debug)]
pub struct Index<V: 'static> {
    /// Name to ask by.
    pub name: &'static str,
    /// Values of an object.
    pub keys: fn(&Cached<V>) -> Vec<String>,
}

impl<V> Clone for Index<V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Index<V> {}

type Objects<V> = HashMap<ObjectKey, Arc<Cached<V>>>;
type Handler<V> = Arc<dyn Fn(&Change<V>) + Send + Sync>;

struct State<V: 'static> {
    objects: Objects<V>,
    namespaces: HashMap<String, BTreeSet<ObjectKey>>,
    indices: Vec<HashMap<String, BTreeSet<ObjectKey>>>,
}

struct Inner<V: 'static> {
    declared: Vec<Index<V>>,
    state: RwLock<State<V>>,
    /// Held while a change is applied and told, so that handlers see changes in order and none twice.
    handlers: Mutex<Vec<Handler<V>>>,
    synced: watch::Sender<bool>,
    revision: watch::Sender<u64>,
}

/// Reading side of an informer. Cheap to clone.
pub struct Informer<V: 'static>(Arc<Inner<V>>);

impl<V> Clone for Informer<V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<V: Send + Sync + 'static> Informer<V> {
    /// An empty set. Informers make it; so do tests of what reads it.
    pub fn new(indices: &[Index<V>]) -> Self {
        let state = State {
            objects: HashMap::new(),
            namespaces: HashMap::new(),
            indices: indices.iter().map(|_| HashMap::new()).collect(),
        };
        Self(Arc::new(Inner {
            declared: indices.to_vec(),
            state: RwLock::new(state),
            handlers: Mutex::new(Vec::new()),
            synced: watch::Sender::new(false),
            revision: watch::Sender::new(0),
        }))
    }

    /// One object.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<Cached<V>>> {
        self.0.state.read().objects.get(key).cloned()
    }

    /// All objects, in no order.
    pub fn list(&self) -> Vec<Arc<Cached<V>>> {
        self.0.state.read().objects.values().cloned().collect()
    }

    /// Objects of a namespace, ordered by name.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<Cached<V>>> {
        let state = self.0.state.read();
        let keys = state.namespaces.get(namespace).into_iter().flatten();
        keys.filter_map(|k| state.objects.get(k).cloned()).collect()
    }

    /// Objects found under `value` in a declared index, ordered by key. An index that was not declared is empty.
    pub fn by_index(&self, index: &str, value: &str) -> Vec<Arc<Cached<V>>> {
        let state = self.0.state.read();
        let at = self.0.declared.iter().position(|i| i.name == index);
        debug_assert!(at.is_some(), "index {index} is not declared");
        let keys = at.and_then(|at| state.indices.get(at)).and_then(|i| i.get(value)).into_iter().flatten();
        keys.filter_map(|k| state.objects.get(k).cloned()).collect()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.0.state.read().objects.len()
    }

    /// Whether there are no objects.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the set was complete once.
    pub fn synced(&self) -> bool {
        *self.0.synced.borrow()
    }

    /// Waits until the set is complete; `false` if `stop` came first.
    pub async fn wait_synced(&self, stop: &CancellationToken) -> bool {
        let mut synced = self.0.synced.subscribe();
        stop.run_until_cancelled(async { synced.wait_for(|s| *s).await.is_ok() }).await.unwrap_or(false)
    }

    /// The largest revision seen.
    pub fn last_revision(&self) -> u64 {
        *self.0.revision.borrow()
    }

    /// Calls `handler` with every change from now on, and first with an addition of each object that is here. Handlers
    /// run in the informer's task: they enqueue and return, and never add handlers.
    pub fn on_change(&self, handler: impl Fn(&Change<V>) + Send + Sync + 'static) {
        let mut handlers = self.0.handlers.lock();
        for new in self.list() {
            handler(&Change::Added { new, initial: true });
        }
        handlers.push(Arc::new(handler));
    }

    /// Puts one object in. For informers and tests.
    pub fn apply(&self, object: Cached<V>) {
        let new = Arc::new(object);
        let handlers = self.0.handlers.lock();
        let old = {
            let mut state = self.0.state.write();
            let old = state.objects.insert(new.key.clone(), Arc::clone(&new));
            if let Some(old) = &old {
                unlist(&mut state, &self.0.declared, old);
            }
            enlist(&mut state, &self.0.declared, &new);
            old
        };
        self.saw(&new.resource_version);
        let change = match old {
            None => Change::Added { new, initial: !self.synced() },
            Some(old) if old.resource_version == new.resource_version && old.uid == new.uid => return,
            Some(old) => Change::Updated { old, new },
        };
        handlers.iter().for_each(|h| h(&change));
    }

    /// Takes one object out. `revision` is that of the deletion.
    pub fn delete(&self, key: &ObjectKey, revision: &str) {
        let handlers = self.0.handlers.lock();
        let old = {
            let mut state = self.0.state.write();
            let old = state.objects.remove(key);
            if let Some(old) = &old {
                unlist(&mut state, &self.0.declared, old);
            }
            old
        };
        self.saw(revision);
        if let Some(old) = old {
            let change = Change::Deleted { old };
            handlers.iter().for_each(|h| h(&change));
        }
    }

    /// Replaces the whole set at once, then tells what differs.
    pub fn replace(&self, objects: Vec<Cached<V>>) {
        let handlers = self.0.handlers.lock();
        let first = !self.synced();
        let fresh: Objects<V> = objects.into_iter().map(|o| (o.key.clone(), Arc::new(o))).collect();
        let mut next = State {
            objects: HashMap::new(),
            namespaces: HashMap::new(),
            indices: self.0.declared.iter().map(|_| HashMap::new()).collect(),
        };
        for object in fresh.values() {
            self.saw(&object.resource_version);
            enlist(&mut next, &self.0.declared, object);
        }
        next.objects = fresh;
        let current: Vec<_> = next.objects.values().cloned().collect();
        let mut before = std::mem::replace(&mut *self.0.state.write(), next).objects;
        let mut changes = Vec::new();
        for new in current {
            match before.remove(&new.key) {
                None => changes.push(Change::Added { new, initial: first }),
                Some(old) if old.resource_version == new.resource_version && old.uid == new.uid => {}
                Some(old) => changes.push(Change::Updated { old, new }),
            }
        }
        changes.extend(before.into_values().map(|old| Change::Deleted { old }));
        for change in &changes {
            handlers.iter().for_each(|h| h(change));
        }
        drop(handlers);
        self.0.synced.send_replace(true);
    }

    /// Tells every object again, as a change to what it is. What reconciles by it finds what was missed.
    pub fn resync(&self) {
        let handlers = self.0.handlers.lock();
        for object in self.list() {
            let change = Change::Updated { old: Arc::clone(&object), new: object };
            handlers.iter().for_each(|h| h(&change));
        }
    }

    /// Notes a revision that is not of an object.
    pub fn saw(&self, revision: &str) {
        let Ok(revision) = revision.parse::<u64>() else { return };
        self.0.revision.send_if_modified(|seen| {
            let newer = revision > *seen;
            *seen = (*seen).max(revision);
            newer
        });
    }

    /// Waits until the informer has seen `revision`.
    pub async fn wait_revision(&self, revision: u64) {
        let mut seen = self.0.revision.subscribe();
        // The sender lives as long as self.
        let _alive = seen.wait_for(|r| *r >= revision).await.is_ok();
    }
}

fn enlist<V>(state: &mut State<V>, declared: &[Index<V>], object: &Cached<V>) {
    state.namespaces.entry(object.key.namespace.clone()).or_default().insert(object.key.clone());
    for (index, values) in declared.iter().zip(&mut state.indices) {
        for value in (index.keys)(object) {
            values.entry(value).or_default().insert(object.key.clone());
        }
    }
}

fn unlist<V>(state: &mut State<V>, declared: &[Index<V>], object: &Cached<V>) {
    remove_from(&mut state.namespaces, &object.key.namespace, &object.key);
    for (index, values) in declared.iter().zip(&mut state.indices) {
        for value in (index.keys)(object) {
            remove_from(values, &value, &object.key);
        }
    }
}

fn remove_from(sets: &mut HashMap<String, BTreeSet<ObjectKey>>, value: &str, key: &ObjectKey) {
    if let Some(set) = sets.get_mut(value) {
        set.remove(key);
        if set.is_empty() {
            sets.remove(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BY_NODE: Index<String> = Index { name: "node", keys: |o| vec![o.view.clone()] };

    fn object(name: &str, version: u64, node: &str) -> Cached<String> {
        Cached {
            key: ObjectKey::new("ns", name),
            uid: format!("u-{name}"),
            resource_version: version.to_string(),
            view: node.to_owned(),
        }
    }

    fn told(informer: &Informer<String>) -> Arc<Mutex<Vec<String>>> {
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let sink = Arc::clone(&log);
        informer.on_change(move |change| {
            let kind = match change {
                Change::Added { initial: true, .. } => "initial",
                Change::Added { .. } => "added",
                Change::Updated { .. } => "updated",
                Change::Deleted { .. } => "deleted",
            };
            sink.lock().push(format!("{kind} {}", change.object().key));
        });
        log
    }

    #[test]
    fn replace_tells_the_difference_only() {
        let informer = Informer::new(&[BY_NODE]);
        let log = told(&informer);
        informer.replace(vec![object("a", 1, "n1"), object("b", 2, "n1")]);
        assert!(informer.synced());
        log.lock().clear();
        informer.replace(vec![object("b", 2, "n1"), object("c", 5, "n2")]);
        let mut seen = log.lock().clone();
        seen.sort();
        assert_eq!(seen, ["added ns/c", "deleted ns/a"]);
        assert_eq!(informer.last_revision(), 5);
        assert_eq!(informer.by_index("node", "n1").len(), 1);
    }

    #[test]
    fn indices_follow_moves() {
        let informer = Informer::new(&[BY_NODE]);
        informer.apply(object("a", 1, "n1"));
        informer.apply(object("a", 2, "n2"));
        assert!(informer.by_index("node", "n1").is_empty());
        assert_eq!(informer.by_index("node", "n2").len(), 1);
        assert_eq!(informer.in_namespace("ns").len(), 1);
        let late = told(&informer);
        informer.apply(object("a", 2, "n2"));
        informer.delete(&ObjectKey::new("ns", "a"), "9");
        informer.delete(&ObjectKey::new("ns", "a"), "10");
        assert_eq!(*late.lock(), ["initial ns/a", "deleted ns/a"]);
        assert!(informer.is_empty() && informer.in_namespace("ns").is_empty());
        assert_eq!(informer.last_revision(), 10);
    }

    #[test]
    fn everything_is_told_again() {
        let informer = Informer::new(&[BY_NODE]);
        informer.replace(vec![object("a", 1, "n1")]);
        let log = told(&informer);
        informer.resync();
        assert_eq!(*log.lock(), ["initial ns/a", "updated ns/a"]);
    }
}
