//! Follows definitions and keeps what is served in step with them.

mod endpoints;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use generic::{
    published::Published,
    resource::{Keeping, Resource},
    server::CustomEndpoints,
};
use machinery::ApiResult;
use registry::connect::webhook::Caller;
use storage::{
    cache::{EventKind, Freshness, Scope, WatchItem, WatchRequest, WatchStart, Watcher},
    contract::Store,
};
use tokio_util::sync::CancellationToken;

use self::endpoints::Served;
use crate::{
    definition::{CLEANUP_FINALIZER, Definition, Names},
    finalizer,
    naming::{Taken, Verdict, decide},
    publish, status,
};

/// Definitions that are worked on at a time.
const WORKERS: usize = 16;
/// Pause before a lost watch is started again, and before failed work is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// What definitions are served with.
pub struct Settings {
    /// The definitions themselves.
    pub definitions: Arc<Resource>,
    /// The store of their objects.
    pub store: Arc<dyn Store>,
    /// Key prefix of everything; no trailing slash.
    pub prefix: String,
    /// How resources are kept.
    pub keeping: Keeping,
    /// Where endpoints are put.
    pub endpoints: Arc<CustomEndpoints>,
    /// Where discovery and OpenAPI are told.
    pub published: Arc<Published>,
    /// Calls conversion webhooks.
    pub webhooks: Arc<Caller>,
}

/// A definition as it is known, and what is served of it.
struct Held {
    definition: Arc<Definition>,
    json: Bytes,
    /// The names it has or is about to be given.
    names: Names,
    /// With a worker while that is busy.
    served: Option<Served>,
    is_busy: bool,
    /// Whether it was worked on, with whatever outcome.
    is_tried: bool,
    is_cleaning: bool,
    is_gone: bool,
}

/// What a worker or cleaner came to.
enum Done {
    Worked { name: String, served: Option<Served>, outcome: ApiResult<()> },
    Cleaned { name: String, outcome: ApiResult<()> },
}

/// The definitions of the server.
pub struct Definitions {
    settings: Arc<Settings>,
    held: BTreeMap<String, Held>,
    /// Definitions to be worked on.
    waiting: BTreeSet<String>,
    working: FuturesUnordered<BoxFuture<'static, Done>>,
    workers: usize,
    /// Names seen since the watch began; `None` once it has shown everything.
    seen: Option<BTreeSet<String>>,
    is_complete: bool,
}

impl Definitions {
    /// Nothing is served yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings: Arc::new(settings),
            held: BTreeMap::new(),
            waiting: BTreeSet::new(),
            working: FuturesUnordered::new(),
            workers: 0,
            seen: None,
            is_complete: false,
        }
    }

    /// Serves definitions until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let follow = async {
            loop {
                if let Some(watcher) = self.watch().await {
                    self.follow(watcher).await;
                }
                tokio::time::sleep(RETRY).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = follow => {}
        }
    }

    async fn watch(&mut self) -> Option<Watcher> {
        let definitions = &self.settings.definitions;
        definitions.cache().ready().await;
        let request = WatchRequest {
            prefix: definitions.key_prefix("").ok()?,
            scope: Scope::default(),
            predicate: None,
            start: WatchStart::Initial(Freshness::Any),
            bookmarks: true,
            initial_events_end: true,
        };
        self.seen = Some(BTreeSet::new());
        definitions.cache().watch(request).await.ok()
    }

    async fn follow(&mut self, mut watcher: Watcher) {
        loop {
            self.start_work();
            if !self.is_complete && self.seen.is_none() && self.held.values().all(|held| held.is_tried) {
                self.is_complete = true;
                self.settings.endpoints.complete();
            }
            tokio::select! {
                item = watcher.next() => match item {
                    None => return,
                    Some(WatchItem::Event(event)) => {
                        self.observe(event.object.index.name(), event.object.json.clone(), event.kind);
                    }
                    Some(WatchItem::Bookmark { initial_events_end: true, .. }) => self.forget_unseen(),
                    Some(WatchItem::Bookmark { .. }) => {}
                },
                Some(done) = self.working.next() => self.take(done),
            }
        }
    }

    fn observe(&mut self, name: &str, json: Bytes, kind: EventKind) {
        if let Some(seen) = &mut self.seen {
            seen.insert(name.to_owned());
        }
        if kind == EventKind::Deleted {
            self.forget(name);
            return;
        }
        let definition: Arc<Definition> = match serde_json::from_slice(&json) {
            Ok(definition) => Arc::new(definition),
            Err(error) => {
                tracing::error!(name, %error, "CustomResourceDefinition does not decode");
                return;
            }
        };
        match self.held.get_mut(name) {
            Some(held) => {
                if definition.metadata.uid != held.definition.metadata.uid {
                    held.names = Names::default();
                }
                (held.definition, held.json, held.is_gone) = (definition, json, false);
            }
            None => {
                let names = definition.status.accepted_names.clone();
                let held = Held {
                    definition,
                    json,
                    names,
                    served: None,
                    is_busy: false,
                    is_tried: false,
                    is_cleaning: false,
                    is_gone: false,
                };
                self.held.insert(name.to_owned(), held);
            }
        }
        self.waiting.insert(name.to_owned());
    }

    /// The watch has shown all there is: what it did not show is gone.
    fn forget_unseen(&mut self) {
        let Some(seen) = self.seen.take() else { return };
        let gone: Vec<String> = self.held.keys().filter(|name| !seen.contains(*name)).cloned().collect();
        gone.iter().for_each(|name| self.forget(name));
    }

    fn forget(&mut self, name: &str) {
        self.waiting.remove(name);
        let Some(held) = self.held.get_mut(name) else { return };
        held.is_gone = true;
        if held.is_busy {
            return;
        }
        let group = held.definition.spec.group.clone();
        if let Some(served) = self.held.remove(name).and_then(|held| held.served) {
            served.end(&self.settings);
        }
        self.settings.published.withdraw(&publish::publisher(name));
        self.retry_rivals(&group);
    }

    /// Names have become free: definitions of the group that were refused some are looked at again.
    fn retry_rivals(&mut self, group: &str) {
        let refused = |held: &&Held| held.definition.condition("NamesAccepted").is_some_and(|c| c.status == "False");
        let rivals = self.held.iter().filter(|(_, held)| held.definition.spec.group == group && refused(held));
        let rivals: Vec<String> = rivals.map(|(name, _)| name.clone()).collect();
        self.waiting.extend(rivals);
    }

    fn start_work(&mut self) {
        let ready: Vec<String> = self
            .waiting
            .iter()
            .filter(|name| self.held.get(*name).is_some_and(|held| !held.is_busy))
            .take(WORKERS.saturating_sub(self.workers))
            .cloned()
            .collect();
        for name in ready {
            self.waiting.remove(&name);
            self.start(&name);
        }
    }

    fn start(&mut self, name: &str) {
        let Some(group) = self.held.get(name).map(|held| held.definition.spec.group.clone()) else { return };
        let others = self.held.iter().filter(|(other, held)| *other != name && held.definition.spec.group == group);
        let taken = Taken::by(others.map(|(_, held)| &held.names));
        let Some(held) = self.held.get_mut(name) else { return };
        let verdict = decide(&held.definition, &taken, false);
        let has_changed = held.names != verdict.names;
        held.names = verdict.names.clone();
        held.is_busy = true;
        self.workers += 1;
        let work = Work {
            settings: Arc::clone(&self.settings),
            definition: Arc::clone(&held.definition),
            json: held.json.clone(),
            verdict,
            taken,
        };
        let (name, served) = (name.to_owned(), held.served.take());
        self.working.push(
            async move {
                let (served, outcome) = work.run(served).await;
                Done::Worked { name, served, outcome }
            }
            .boxed(),
        );
        if has_changed {
            self.retry_rivals(&group);
        }
    }

    fn take(&mut self, done: Done) {
        match done {
            Done::Worked { name, served, outcome } => {
                self.workers -= 1;
                if let Err(error) = outcome {
                    tracing::warn!(name, %error, "CustomResourceDefinition is not served as it should be");
                    self.waiting.insert(name.clone());
                }
                let Some(held) = self.held.get_mut(&name) else { return };
                (held.is_busy, held.is_tried) = (false, true);
                held.served = served;
                if held.is_gone {
                    self.forget(&name);
                    return;
                }
                self.start_cleaning(&name);
            }
            Done::Cleaned { name, outcome } => {
                let Some(held) = self.held.get_mut(&name) else { return };
                held.is_cleaning = false;
                if let Err(error) = outcome {
                    tracing::warn!(name, %error, "objects of a CustomResourceDefinition are not deleted yet");
                    self.waiting.insert(name);
                }
            }
        }
    }

    /// A definition that is being deleted, and whose endpoints take no new objects any more, is emptied.
    fn start_cleaning(&mut self, name: &str) {
        let Some(held) = self.held.get_mut(name) else { return };
        let definition = &held.definition;
        let ends = definition.is_deleting() && definition.metadata.finalizers.iter().any(|f| f == CLEANUP_FINALIZER);
        let is_closed = held.served.as_ref().is_none_or(Served::is_terminating);
        if !ends || !is_closed || held.is_cleaning {
            return;
        }
        held.is_cleaning = true;
        let (definitions, uid) = (Arc::clone(&self.settings.definitions), definition.metadata.uid.clone());
        let resource = held.served.as_ref().map(|served| Arc::clone(&served.resource));
        let name = name.to_owned();
        self.working.push(
            async move {
                let outcome = finalizer::clean(&definitions, &name, &uid, resource).await;
                Done::Cleaned { name, outcome }
            }
            .boxed(),
        );
    }
}

/// One definition, worked on once.
struct Work {
    settings: Arc<Settings>,
    definition: Arc<Definition>,
    json: Bytes,
    /// Names decided on.
    verdict: Verdict,
    taken: Taken,
}

impl Work {
    /// Serves the definition, tells of it, and writes its conditions. Answers what is served now.
    async fn run(self, served: Option<Served>) -> (Option<Served>, ApiResult<()>) {
        let is_served = self.verdict.accepts() || self.definition.is_true("Established");
        let mut served = match is_served {
            false => served,
            true => {
                let mut named = Definition::clone(&self.definition);
                named.status.accepted_names = self.verdict.names.clone();
                match endpoints::serve(&self.settings, &Arc::new(named), &self.json, served).await {
                    Ok(served) => Some(served),
                    Err((served, error)) => {
                        tokio::time::sleep(RETRY).await;
                        return (served, Err(error));
                    }
                }
            }
        };
        let verdict = decide(&self.definition, &self.taken, served.is_some());
        let is_established = verdict.conditions.iter().any(|c| c.kind == "Established" && c.status == "True");
        if let Some(served) = served.as_mut().filter(|_| is_established) {
            served.publish(&self.settings);
        }
        if verdict.is_shown_by(&self.definition) {
            return (served, Ok(()));
        }
        let metadata = &self.definition.metadata;
        let written = status::modify(&self.settings.definitions, &metadata.name, &metadata.uid, |object, now| {
            let mut changed = status::set_names(object, &verdict.names);
            for condition in &verdict.conditions {
                changed |= status::set_condition(object, condition, now);
            }
            changed
        })
        .await;
        if written.is_err() {
            tokio::time::sleep(RETRY).await;
        }
        (served, written)
    }
}
