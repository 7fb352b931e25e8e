//! Against the in-process server: the cases need real list and watch exchanges.

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use runtime::tasks::TaskGroup;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    Change,
    testing::{Server, Shared, server},
};

struct NodeOf(String);

impl Viewed for NodeOf {
    type Object = Pod;

    const INDICES: &'static [Index<Self>] = &[Index { name: "node", keys: |pod| vec![pod.view.0.clone()] }];

    fn project(object: Pod) -> Self {
        Self(object.spec.and_then(|s| s.node_name).unwrap_or_default())
    }
}

fn pod(name: &str, node: &str) -> Value {
    json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name, "namespace": "ns", "uid": format!("u-{name}")},
        "spec": {"nodeName": node, "containers": []}})
}

fn path(name: &str) -> String {
    format!("/api/v1/namespaces/ns/pods/{name}")
}

fn put(server: &Shared, name: &str, node: &str) -> u64 {
    let mut server = server.lock();
    server.put(&path(name), pod(name, node));
    server.revision
}

async fn started(server: &Shared, client: kube::Client) -> (TaskGroup, Informer<NodeOf>) {
    put(server, "a", "n1");
    let tasks = TaskGroup::new("test");
    let set = InformerSet::new(client, &tasks);
    let informer = set.get::<NodeOf>();
    assert!(informer.wait_synced(&CancellationToken::new()).await);
    assert!(set.unsynced().is_empty());
    assert_eq!(set.get::<NodeOf>().len(), 1);
    (tasks, informer)
}

#[tokio::test]
async fn follows_a_streaming_list() {
    let (server, client) = server();
    let (tasks, informer) = started(&server, client).await;
    informer.wait_revision(put(&server, "b", "n2")).await;
    informer.wait_revision(put(&server, "a", "n2")).await;
    assert_eq!(informer.by_index("node", "n2").len(), 2);
    let revision = {
        let mut server = server.lock();
        server.remove(&path("a"));
        server.revision
    };
    informer.wait_revision(revision).await;
    assert_eq!(informer.list().iter().map(|p| p.key.to_string()).collect::<Vec<_>>(), ["ns/b"]);
    let requests = server.lock().requests.clone();
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert!(tasks.stop(std::time::Duration::from_secs(5)).await.is_empty());
}

#[tokio::test]
async fn falls_back_to_pages() {
    let (server, client) = server();
    server.lock().no_streaming = true;
    let (_tasks, informer) = started(&server, client).await;
    // The watch may open after this write: its revision then comes with the first event after.
    let mut told = wait_for_request(&server, "watch=true&timeoutSeconds", 2);
    told.recv().await;
    informer.wait_revision(put(&server, "b", "n2")).await;
    assert_eq!(informer.len(), 2);
    let requests = server.lock().requests.clone();
    assert!(requests[1].starts_with("GET /api/v1/pods?") && requests[1].contains("limit=500"), "{requests:?}");
}

/// Tells when `count` requests with `text` were served.
fn wait_for_request(server: &Shared, text: &'static str, count: usize) -> tokio::sync::mpsc::UnboundedReceiver<()> {
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    let mut server = server.lock();
    let mut seen = server.requests.iter().filter(|r| r.contains(text)).count();
    if seen >= count {
        assert!(sender.send(()).is_ok());
    }
    server.on_request = Some(Box::new(move |line| {
        seen += usize::from(line.contains(text));
        if seen >= count {
            let _done = sender.send(()).is_err();
        }
    }));
    receiver
}

#[tokio::test]
async fn an_expired_watch_lists_again_and_tells_the_difference() {
    let (server, client) = server();
    let (_tasks, informer) = started(&server, client).await;
    let (sender, mut changes) = tokio::sync::mpsc::unbounded_channel();
    informer.on_change(move |change| {
        let text = match change {
            Change::Added { .. } => "added",
            Change::Updated { .. } => "updated",
            Change::Deleted { .. } => "deleted",
        };
        assert!(sender.send(format!("{text} {}", change.object().key.name)).is_ok());
    });
    assert_eq!(changes.recv().await.as_deref(), Some("added a"));
    {
        let mut server = server.lock();
        server.end_watches(Some(Server::expired()));
        // Nobody watches now: these two are seen by the list only.
        server.remove(&path("a"));
        server.put(&path("c"), pod("c", "n3"));
    }
    let mut seen = [changes.recv().await.unwrap(), changes.recv().await.unwrap()];
    seen.sort();
    assert_eq!(seen, ["added c", "deleted a"]);
}

#[tokio::test]
async fn a_cut_watch_goes_on_where_it_was() {
    let (server, client) = server();
    let (_tasks, informer) = started(&server, client).await;
    let revision = put(&server, "b", "n1");
    informer.wait_revision(revision).await;
    let mut again = wait_for_request(&server, "watch=true", 2);
    server.lock().end_watches(None);
    again.recv().await;
    informer.wait_revision(put(&server, "d", "n1")).await;
    let requests = server.lock().requests.clone();
    assert!(requests[1].contains(&format!("resourceVersion={revision}")), "{requests:?}");
    assert_eq!(informer.len(), 3);
}

#[tokio::test]
async fn whole_objects_lose_their_managed_fields() {
    let mut object = ConfigMap::default();
    object.metadata.managed_fields = Some(Vec::new());
    assert!(Whole::project(object).metadata.managed_fields.is_none());
}

#[tokio::test]
async fn an_object_that_cannot_be_decoded_is_skipped() {
    let (server, client) = server();
    let (tasks, informer) = started(&server, client).await;
    server.lock().put(&path("bad"), json!({"metadata": {"name": "bad"}, "spec": {"containers": 7}}));
    informer.wait_revision(put(&server, "b", "n2")).await;
    assert_eq!(informer.by_index("node", "n2").len(), 1);
    let watches = server.lock().requests.iter().filter(|r| r.contains("watch=true")).count();
    assert_eq!(watches, 1, "the watch goes on");
    assert!(tasks.stop(std::time::Duration::from_secs(5)).await.is_empty());
}
