//! Following Services, EndpointSlices and the own Node.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{Stream, StreamExt};
use k8s_openapi::api::{
    core::v1::{Node as NodeObject, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::model::{Node, State};

/// The state as watched; `None` until Services and EndpointSlices have been listed once.
pub(crate) type States = watch::Receiver<Option<Arc<(State, Node)>>>;

#[derive(Default)]
struct Inner {
    state: State,
    node: Node,
    services_listed: bool,
    slices_listed: bool,
}

#[derive(Clone)]
struct Shared {
    inner: Arc<Mutex<Inner>>,
    states: watch::Sender<Option<Arc<(State, Node)>>>,
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut Inner)) {
        let mut inner = self.inner.lock();
        change(&mut inner);
        if inner.services_listed && inner.slices_listed {
            self.states.send_replace(Some(Arc::new((inner.state.clone(), inner.node.clone()))));
        }
    }
}

fn key<K: Resource>(object: &K) -> String {
    format!("{}/{}", object.meta().namespace.as_deref().unwrap_or(""), object.name_any())
}

/// Feeds events of one kind into its map; a relist replaces the map as a whole when it is complete.
async fn feed<K>(
    events: impl Stream<Item = Result<Event<K>, watcher::Error>>,
    shared: Shared,
    place: impl Fn(&mut Inner) -> (&mut BTreeMap<String, K>, &mut bool),
) where
    K: Resource + Clone,
{
    let mut events = std::pin::pin!(events.default_backoff());
    let mut fresh = BTreeMap::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => fresh.clear(),
            Ok(Event::InitApply(object)) => {
                fresh.insert(key(&object), object);
            }
            Ok(Event::InitDone) => {
                let complete = std::mem::take(&mut fresh);
                shared.change(|inner| {
                    let (map, listed) = place(inner);
                    *map = complete;
                    *listed = true;
                });
            }
            Ok(Event::Apply(object)) => shared.change(|inner| {
                place(inner).0.insert(key(&object), object);
            }),
            Ok(Event::Delete(object)) => shared.change(|inner| {
                place(inner).0.remove(&key(&object));
            }),
            Err(error) => tracing::warn!(%error, "watch failed, starting again"),
        }
    }
}

/// Pause between looks at a Node that does not exist yet.
const NODE_RETRY: Duration = Duration::from_secs(1);

async fn feed_node(nodes: Api<NodeObject>, name: String, shared: Shared) {
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = std::pin::pin!(watcher(nodes, config).default_backoff().applied_objects());
    loop {
        match events.next().await {
            Some(Ok(node)) => {
                let zone = node.labels().get("topology.kubernetes.io/zone").cloned().unwrap_or_default();
                shared.change(|inner| inner.node.zone = zone);
            }
            Some(Err(error)) => tracing::warn!(%error, "watch of the node failed, starting again"),
            None => tokio::time::sleep(NODE_RETRY).await,
        }
    }
}

/// Follows what the proxy needs until `stop`.
pub(crate) fn follow(client: Client, node: &str, stop: &CancellationToken) -> States {
    let (states, receiver) = watch::channel(None);
    let inner = Inner { node: Node { name: node.to_owned(), zone: String::new() }, ..Inner::default() };
    let shared = Shared { inner: Arc::new(Mutex::new(inner)), states };
    let services =
        watcher::Config::default().labels("!service.kubernetes.io/service-proxy-name").fields("spec.clusterIP!=None");
    let slices = watcher::Config::default().labels("!service.kubernetes.io/headless");
    let work = {
        let (a, b, c) = (shared.clone(), shared.clone(), shared);
        let (client, name) = (client, node.to_owned());
        async move {
            tokio::join!(
                feed(watcher(Api::<Service>::all(client.clone()), services), a, |i| {
                    (&mut i.state.services, &mut i.services_listed)
                }),
                feed(watcher(Api::<EndpointSlice>::all(client.clone()), slices), b, |i| {
                    (&mut i.state.slices, &mut i.slices_listed)
                }),
                feed_node(Api::all(client), name, c),
            );
        }
    };
    let stop = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
    });
    receiver
}
