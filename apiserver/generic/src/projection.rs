//! Decoded views of one resource, kept current by following its watch cache: what authorizers and admission look at.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use futures::StreamExt;
use imbl::OrdMap;
use serde::de::DeserializeOwned;
use storage::cache::{CachedObject, EventKind, Freshness, Scope, WatchItem, WatchRequest, WatchStart};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::resource::Resource;

/// Pause before a lost watch is started again.
const RETRY: Duration = Duration::from_millis(100);

/// Objects of one resource by `namespace/name` (or `/name` at cluster scope), decoded as `T`. Objects that do not
/// decode are left out with a warning.
pub struct Projection<T> {
    map: ArcSwap<OrdMap<String, Arc<T>>>,
    synced: watch::Sender<bool>,
    changes: watch::Sender<u64>,
    observer: Option<Observer>,
}

/// Told how long each change took to be followed.
pub type Observer = Box<dyn Fn(EventKind, Duration) + Send + Sync>;

impl<T: DeserializeOwned + Send + Sync + 'static> Projection<T> {
    /// Follows a resource until `stop`.
    pub fn follow(resource: &Arc<Resource>, stop: &CancellationToken) -> Arc<Self> {
        Self::follow_observed(resource, None, stop)
    }

    /// The same, with somebody who wants to know how long changes take.
    pub fn follow_observed(
        resource: &Arc<Resource>,
        observer: Option<Observer>,
        stop: &CancellationToken,
    ) -> Arc<Self> {
        let projection = Arc::new(Self {
            map: ArcSwap::default(),
            synced: watch::Sender::new(false),
            changes: watch::Sender::new(0),
            observer,
        });
        let (this, resource, stop) = (Arc::clone(&projection), Arc::clone(resource), stop.clone());
        tokio::spawn(async move {
            let follow = async {
                loop {
                    this.run(&resource).await;
                    tokio::time::sleep(RETRY).await;
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = follow => {}
            }
        });
        projection
    }

    async fn run(&self, resource: &Resource) {
        resource.cache().ready().await;
        let Ok(prefix) = resource.key_prefix("") else { return };
        let request = WatchRequest {
            prefix,
            scope: Scope::default(),
            predicate: None,
            start: WatchStart::Initial(Freshness::Any),
            bookmarks: true,
            initial_events_end: true,
        };
        let Ok(mut watcher) = resource.cache().watch(request).await else { return };
        // The old map stays in use until the new one is complete.
        let mut map = OrdMap::new();
        let mut complete = false;
        while let Some(item) = watcher.next().await {
            match item {
                WatchItem::Event(event) => {
                    let start = Instant::now();
                    apply::<T>(&mut map, &event.object, event.kind, resource);
                    if let Some(observer) = &self.observer {
                        observer(event.kind, start.elapsed());
                    }
                }
                WatchItem::Bookmark { initial_events_end: true, .. } => complete = true,
                WatchItem::Bookmark { .. } => continue,
            }
            if complete {
                self.map.store(Arc::new(map.clone()));
                self.synced.send_replace(true);
                self.changes.send_modify(|n| *n += 1);
            }
        }
    }
}

fn apply<T: DeserializeOwned>(
    map: &mut OrdMap<String, Arc<T>>,
    object: &CachedObject,
    kind: EventKind,
    resource: &Resource,
) {
    let key = format!("{}/{}", object.index.namespace(), object.index.name());
    if kind == EventKind::Deleted {
        map.remove(&key);
        return;
    }
    match serde_json::from_slice(&object.json) {
        Ok(view) => {
            map.insert(key, Arc::new(view));
        }
        Err(error) => {
            tracing::warn!(resource = %resource.group_resource, key, %error, "object does not decode");
            map.remove(&key);
        }
    }
}

impl<T> Projection<T> {
    /// Waits until the projection holds the state of some moment.
    pub async fn synced(&self) {
        let mut synced = self.synced.subscribe();
        // The sender lives in self.
        let _unreachable_error = synced.wait_for(|s| *s).await.is_err();
    }

    /// Whether the projection holds the state of some moment.
    pub fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// Notified of each change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// One object.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<T>> {
        self.map.load().get(&format!("{namespace}/{name}")).cloned()
    }

    /// All objects.
    pub fn all(&self) -> Vec<Arc<T>> {
        self.map.load().values().cloned().collect()
    }

    /// The present map, by `namespace/name`.
    pub fn snapshot(&self) -> Arc<OrdMap<String, Arc<T>>> {
        self.map.load_full()
    }

    /// The objects of one namespace (`""`: cluster-scoped ones), until `visit` says stop. True if it did.
    pub fn any_in(&self, namespace: &str, mut visit: impl FnMut(&T) -> bool) -> bool {
        let map = self.map.load();
        let from = format!("{namespace}/");
        map.range(from.clone()..).take_while(|(key, _)| key.starts_with(&from)).any(|(_, object)| visit(object))
    }
}
