//! The remote servers: one task looks after each, requests find them by group version.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use axum::body::Body;
use generic::{
    authn::Peer, delegate::Delegate, projection::Projection, published::Published, resource::Resource, user::User,
};
use http::{Request, Response};
use registry::connect::egress::Dialer;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    backend::Backend,
    condition::Availability,
    identity::ProxyIdentity,
    place::Places,
    proxy, register,
    view::View,
    watch::{self, Remote, Report},
};

/// A server and what ends its task.
struct Running {
    remote: Arc<Remote>,
    _end: DropGuard,
}

/// Servers by group and version.
type Table = HashMap<(String, String), Arc<Remote>>;

/// All remote servers.
pub(crate) struct Remotes {
    places: Places,
    api_services: Arc<Resource>,
    published: Arc<Published>,
    identity: Option<Arc<ProxyIdentity>>,
    dialer: Dialer,
    rejects_redirects: bool,
    report: Report,
    table: ArcSwap<Table>,
    followed: Arc<AtomicBool>,
}

impl Remotes {
    pub(crate) fn new(
        places: Places,
        api_services: Arc<Resource>,
        published: Arc<Published>,
        (identity, dialer): (Option<Arc<ProxyIdentity>>, Dialer),
        rejects_redirects: bool,
        report: Report,
    ) -> Self {
        Self {
            places,
            api_services,
            published,
            identity,
            dialer,
            rejects_redirects,
            report,
            table: ArcSwap::default(),
            followed: Arc::default(),
        }
    }

    /// Set when what the APIServices say has been taken over once.
    pub(crate) fn followed(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.followed)
    }

    /// Follows the APIServices for ever.
    pub(crate) async fn follow(self: Arc<Self>, views: Arc<Projection<View>>) {
        let mut changes = views.changes();
        views.synced().await;
        let mut running: HashMap<String, Running> = HashMap::new();
        loop {
            let wanted = remote_of(&views);
            running.retain(|name, task| {
                let kept = wanted.get(name).is_some_and(|new| is_same(&task.remote, new));
                if !kept {
                    self.published.withdraw(&publisher(name));
                    self.report.forget(name);
                }
                kept
            });
            for (name, remote) in wanted {
                running.entry(name).or_insert_with(|| self.start(remote));
            }
            let by_version = |task: &Running| {
                let remote = Arc::clone(&task.remote);
                ((remote.spec.group.clone(), remote.spec.version.clone()), remote)
            };
            self.table.store(Arc::new(running.values().map(by_version).collect()));
            self.followed.store(true, Ordering::Release);
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn start(self: &Arc<Self>, remote: Arc<Remote>) -> Running {
        let stop = CancellationToken::new();
        let (this, looked_after) = (Arc::clone(self), Arc::clone(&remote));
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move { this.look_after(&looked_after).await }));
        Running { remote, _end: stop.drop_guard() }
    }

    async fn look_after(&self, remote: &Remote) {
        let mut failures = 0;
        let mut generation = None;
        let mut told = None;
        loop {
            // Before the look, so that nothing that happens during it is missed.
            let changes = self.places.changes(&remote.service).await;
            let now = self.identity.as_ref().map_or(0, |identity| identity.generation());
            let outcome = match generation == Some(now) {
                true => Ok(()),
                false => self.equip(remote),
            };
            let availability = match outcome {
                Ok(()) => {
                    generation = Some(now);
                    remote.check(&self.places, &self.report).await
                }
                Err(failed) => {
                    remote.available.store(false, Ordering::Release);
                    failed
                }
            };
            let offered = remote.offered();
            if told.as_ref() != Some(&offered) {
                self.published.publish(&publisher(&remote.name), vec![remote.offer()]);
                told = Some(offered);
            }
            let marked = register::mark(&self.api_services, &remote.name, Some(&remote.uid), &availability).await;
            if let Err(error) = marked {
                tracing::warn!(%error, name = remote.name, "the condition of an APIService is not written");
            }
            failures = if availability.is_available() { 0 } else { failures + 1 };
            watch::pause(changes, failures).await;
        }
    }

    /// Makes the client of a server.
    fn equip(&self, remote: &Remote) -> Result<(), Availability> {
        let made = Backend::new(&remote.spec, &remote.service.host(), self.identity.as_deref(), self.dialer.clone());
        let backend = made.map_err(|error| Availability::failed("FailedDiscoveryCheck", error.to_string()))?;
        remote.backend.store(Some(Arc::new(backend)));
        Ok(())
    }
}

/// Name of the publisher of an APIService.
fn publisher(name: &str) -> String {
    format!("apiservice/{name}")
}

/// The servers that the APIServices name; the core group is never elsewhere.
fn remote_of(views: &Projection<View>) -> HashMap<String, Arc<Remote>> {
    let remote = |view: &View| {
        let (name, service) = (&view.metadata.name, view.spec.service.as_ref()?);
        let named = !view.spec.group.is_empty() && !view.spec.version.is_empty();
        named.then(|| (name.clone(), Arc::new(Remote::new(name, &view.metadata.uid, &view.spec, service))))
    };
    views.all().iter().filter_map(|view| remote(view)).collect()
}

fn is_same(running: &Remote, new: &Remote) -> bool {
    running.uid == new.uid && running.spec == new.spec
}

#[async_trait]
impl Delegate for Remotes {
    fn claims(&self, group: &str, version: &str) -> bool {
        self.table.load().contains_key(&(group.to_owned(), version.to_owned()))
    }

    async fn pass_on(
        &self,
        (group, version): (&str, &str),
        request: Request<Body>,
        user: &User,
        peer: &Peer,
    ) -> Response<Body> {
        let remote = self.table.load().get(&(group.to_owned(), version.to_owned())).cloned();
        let Some(remote) = remote.filter(|remote| remote.is_available()) else { return proxy::unavailable() };
        let Some(backend) = remote.backend.load_full() else { return proxy::unavailable() };
        match self.places.find(&remote.service).await {
            Ok(place) => {
                let answer = proxy::pass_on(&backend, &place, &remote.host(), request, user, peer).await;
                if self.rejects_redirects { proxy::without_redirect(answer) } else { answer }
            }
            Err(_) => proxy::unavailable(),
        }
    }
}
