//! Pods that the API has bound to this node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

use super::follow;
use crate::pods;
use crate::sources::{Deliveries, Snapshot, SourceName};

/// Changes that arrive together are delivered together.
const COALESCE: Duration = Duration::from_millis(10);

/// Watches the node's Pods.
pub struct ApiSource {
    /// Client.
    pub client: Client,
    /// Node name.
    pub node: String,
}

impl ApiSource {
    /// Delivers the whole set whenever it changes, from the first complete list on.
    pub async fn run(self, deliveries: Deliveries, stop: CancellationToken) {
        let config = watcher::Config::default().fields(&format!("spec.nodeName={}", self.node));
        let mut stream = std::pin::pin!(follow(Api::<Pod>::all(self.client), config));
        let mut known: BTreeMap<String, Arc<Pod>> = BTreeMap::new();
        let mut listed: BTreeMap<String, Arc<Pod>> = BTreeMap::new();
        let mut complete = false;
        let mut dirty = false;
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return,
                event = stream.next() => event,
                () = tokio::time::sleep(COALESCE), if dirty && complete => {
                    dirty = false;
                    let snapshot = Snapshot { source: SourceName::Api, pods: known.clone() };
                    if deliveries.send(snapshot).await.is_err() {
                        return;
                    }
                    continue;
                }
            };
            match event {
                Some(Ok(Event::Init)) => listed.clear(),
                Some(Ok(Event::InitApply(pod))) => drop(insert(&mut listed, pod)),
                Some(Ok(Event::InitDone)) => {
                    known = std::mem::take(&mut listed);
                    (complete, dirty) = (true, true);
                }
                Some(Ok(Event::Apply(pod))) => dirty |= insert(&mut known, pod),
                Some(Ok(Event::Delete(pod))) => dirty |= known.remove(pods::uid(&pod)).is_some(),
                Some(Err(error)) => tracing::warn!(%error, "watch of this node's pods"),
                None => return,
            }
        }
    }
}

/// Notes where the Pod came from; answers whether it is news.
fn insert(known: &mut BTreeMap<String, Arc<Pod>>, mut pod: Pod) -> bool {
    pod.metadata.managed_fields = None;
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(pods::CONFIG_SOURCE.to_owned(), SourceName::Api.as_str().to_owned());
    known.insert(pods::uid(&pod).to_owned(), Arc::new(pod));
    true
}
