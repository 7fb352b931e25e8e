//! Keeps a store equal to a collection of the API: one list, then a watch from there, for ever.
//!
//! ```text
//!   Listing --complete--> Watching --ended, broken--> Watching (from the last revision)
//!      ^                      |
//!      +----- too old --------+
//! ```
//! The list comes as a watch with initial events where the server does that, and page by page where not. Unlike kube's
//! own watcher this keeps the revisions of lists and bookmarks: they tell how fresh the store is.

use std::{fmt::Debug, time::Duration};

use client::ApiErrorExt;
use futures::{StreamExt, stream::BoxStream};
use kube::{
    Api, Resource,
    api::{ListParams, WatchEvent, WatchParams},
};
use serde::de::DeserializeOwned;
use util::Backoff;

use crate::{Cached, Informer, InformerConfig, informer::key_of};

/// Delay before a broken watch is tried again.
const BACKOFF: Backoff =
    Backoff { base: Duration::from_millis(200), max: Duration::from_secs(30), factor: 2.0, jitter: 1.0 };
/// Seconds after which the server ends a watch: at least, and added at random so that not all end at once.
const WATCH_SECONDS: (u32, u32) = (150, 140);
/// Silence after which a connection counts as dead: the server ends watches long before.
const SILENCE: Duration = Duration::from_secs(300);
/// Time a list by watch has to be complete before a plain list is tried instead.
const LIST_DEADLINE: Duration = Duration::from_secs(60);
/// Objects in a page.
const PAGE: u32 = 500;
/// Marks the bookmark that ends the initial events.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

type Events<K> = BoxStream<'static, kube::Result<WatchEvent<K>>>;

/// Why a step ended.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the revision is too old")]
    Expired,
    #[error("the server does not list by watch")]
    NoStreaming,
    #[error("the connection is dead")]
    Dead,
    #[error(transparent)]
    Api(#[from] kube::Error),
}

impl Broken {
    fn of(error: kube::Error) -> Self {
        if error.is_expired() { Self::Expired } else { Self::Api(error) }
    }
}

pub(crate) struct Reflector<K, V: 'static, F> {
    api: Api<K>,
    config: InformerConfig,
    cached: F,
    store: Informer<V>,
    streaming: bool,
}

impl<K, V, F> Reflector<K, V, F>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    V: Send + Sync + 'static,
    F: Fn(K) -> Cached<V> + Send + Sync,
{
    pub(crate) fn new(api: Api<K>, config: InformerConfig, cached: F, store: Informer<V>) -> Self {
        let streaming = runtime::features::client_gate("WatchListClient");
        Self { api, config, cached, store, streaming }
    }

    pub(crate) async fn run(mut self) {
        let mut failures = 0;
        loop {
            // What listing needs is not kept while watching.
            let listed = match self.streaming {
                true => Box::pin(self.list_by_watch()).await,
                false => Box::pin(self.list_by_page()).await,
            };
            let outcome = match listed {
                Ok((revision, events)) => {
                    failures = 0;
                    self.watch(revision, events).await
                }
                Err(broken) => broken,
            };
            match outcome {
                Broken::NoStreaming => {
                    tracing::info!(v = 2, resource = self.api.resource_url(), "Falling back to LIST and WATCH");
                    self.streaming = false;
                }
                Broken::Expired => tracing::debug!(resource = self.api.resource_url(), "listing again"),
                broken => {
                    self.tell(&broken);
                    tokio::time::sleep(BACKOFF.jittered(failures)).await;
                    failures = failures.saturating_add(1);
                }
            }
        }
    }

    fn tell(&self, broken: &Broken) {
        let resource = self.api.resource_url();
        if self.store.synced() {
            tracing::info!(v = 2, err = broken as &dyn std::error::Error, resource, "Watch ended");
        } else {
            tracing::warn!(err = broken as &dyn std::error::Error, resource, "Failed to list and watch");
        }
    }

    fn watch_params(&self, initial: bool) -> WatchParams {
        use rand::Rng;
        let selector = |text: &String| (!text.is_empty()).then(|| text.clone());
        WatchParams {
            label_selector: selector(&self.config.labels),
            field_selector: selector(&self.config.fields),
            timeout: Some(WATCH_SECONDS.0 + rand::rng().random_range(0..WATCH_SECONDS.1)),
            bookmarks: true,
            send_initial_events: initial,
        }
    }

    async fn open(&self, initial: bool, revision: &str) -> Result<Events<K>, Broken> {
        let events = self.api.watch(&self.watch_params(initial), revision).await.map_err(Broken::of)?;
        Ok(events.boxed())
    }

    /// A watch whose first events are the whole set, up to a marked bookmark; it goes on as the watch from there.
    async fn list_by_watch(&self) -> Result<(String, Option<Events<K>>), Broken> {
        let refused = |error: &Broken| match error {
            Broken::Api(error) => error.status().is_some_and(|s| matches!(s.code, 400 | 405 | 406 | 422)),
            _ => false,
        };
        let mut events = match self.open(true, "").await {
            Ok(events) => events,
            Err(broken) if refused(&broken) => return Err(Broken::NoStreaming),
            Err(broken) => return Err(broken),
        };
        let mut objects = Vec::new();
        let filled = tokio::time::timeout(LIST_DEADLINE, async {
            loop {
                match next(&mut events).await? {
                    None => return Err(Broken::Dead),
                    Some(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                        objects.push((self.cached)(object))
                    }
                    Some(WatchEvent::Deleted(object)) => {
                        let key = key_of(object.meta());
                        objects.retain(|o| o.key != key);
                    }
                    Some(WatchEvent::Bookmark(mark)) if mark.metadata.annotations.contains_key(INITIAL_EVENTS_END) => {
                        return Ok(mark.metadata.resource_version);
                    }
                    Some(WatchEvent::Bookmark(_)) => {}
                    Some(WatchEvent::Error(status)) => return Err(Broken::of(kube::Error::Api(status))),
                }
            }
        })
        .await;
        let revision = match filled {
            Ok(revision) => revision?,
            // An older server takes the parameter for unknown and sends no mark.
            Err(_) => return Err(Broken::NoStreaming),
        };
        self.store.replace(objects);
        self.store.saw(&revision);
        Ok((revision, Some(events)))
    }

    async fn list_by_page(&self) -> Result<(String, Option<Events<K>>), Broken> {
        let selector = |text: &String| (!text.is_empty()).then(|| text.clone());
        let mut params = ListParams {
            label_selector: selector(&self.config.labels),
            field_selector: selector(&self.config.fields),
            limit: Some(PAGE),
            ..ListParams::default()
        };
        let mut objects = Vec::new();
        loop {
            let page = self.api.list(&params).await.map_err(Broken::of)?;
            objects.extend(page.items.into_iter().map(&self.cached));
            let revision = page.metadata.resource_version.unwrap_or_default();
            match page.metadata.continue_.filter(|c| !c.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => {
                    self.store.replace(objects);
                    self.store.saw(&revision);
                    return Ok((revision, None));
                }
            }
        }
    }

    /// Watches from a revision until it cannot go on from there.
    async fn watch(&self, mut revision: String, mut open: Option<Events<K>>) -> Broken {
        let mut failures = 0;
        loop {
            let outcome = match open.take() {
                Some(events) => self.follow(events, &mut revision, &mut failures).await,
                None => match self.open(false, &revision).await {
                    Ok(events) => self.follow(events, &mut revision, &mut failures).await,
                    Err(broken) => Err(broken),
                },
            };
            match outcome {
                // The server ends each watch after a while.
                Ok(()) => {}
                Err(Broken::Expired) => return Broken::Expired,
                Err(broken) => self.tell(&broken),
            }
            // An end right after the start would otherwise be repeated at full speed.
            tokio::time::sleep(BACKOFF.jittered(failures)).await;
            failures = failures.saturating_add(1);
        }
    }

    async fn follow(&self, mut events: Events<K>, revision: &mut String, failures: &mut u32) -> Result<(), Broken> {
        while let Some(event) = next(&mut events).await? {
            *failures = 0;
            let object = match event {
                WatchEvent::Bookmark(mark) => {
                    self.store.saw(&mark.metadata.resource_version);
                    *revision = mark.metadata.resource_version;
                    continue;
                }
                WatchEvent::Error(status) => return Err(Broken::of(kube::Error::Api(status))),
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    let cached = (self.cached)(object);
                    revision.clone_from(&cached.resource_version);
                    self.store.apply(cached);
                    continue;
                }
                WatchEvent::Deleted(object) => object,
            };
            let meta = object.meta();
            let at = meta.resource_version.clone().unwrap_or_default();
            self.store.delete(&key_of(meta), &at);
            *revision = at;
        }
        Ok(())
    }
}

/// The next event that can be decoded; one malformed object is skipped, not a reason to lose the others.
async fn next<K>(events: &mut Events<K>) -> Result<Option<WatchEvent<K>>, Broken> {
    loop {
        match tokio::time::timeout(SILENCE, events.next()).await {
            Err(_) => return Err(Broken::Dead),
            Ok(None) => return Ok(None),
            Ok(Some(Ok(event))) => return Ok(Some(event)),
            Ok(Some(Err(error))) if is_undecodable(&error) => {
                tracing::error!(%error, "an object of a watch cannot be decoded, it is skipped");
            }
            Ok(Some(Err(error))) => return Err(Broken::of(error)),
        }
    }
}

/// Whether an error of a watch is about one object alone. kube takes an event that it cannot decode for a Status, all
/// of whose fields may be absent; errors that the server sends are events and no errors of the stream.
fn is_undecodable(error: &kube::Error) -> bool {
    match error {
        kube::Error::SerdeError(_) => true,
        kube::Error::Api(status) => status.code == 0 && status.reason.is_empty() && status.message.is_empty(),
        _ => false,
    }
}
