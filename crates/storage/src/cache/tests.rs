use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use prometheus::Registry;
use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::{
    contract::{Expect, Written},
    embedded::{EmbeddedOptions, EmbeddedStore},
};

mod freshness;
mod model;
mod watching;

/// Longest time a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(20);
const PREFIX: &str = "/registry/pods/";

/// Values are `{"metadata":{..}}`; a value that is not JSON cannot be decoded.
struct TestCodec;

impl Codec for TestCodec {
    fn ingest(&self, _key: &str, value: &Bytes, revision: i64) -> Result<CachedObject, CodecError> {
        let object: Value = serde_json::from_slice(value).map_err(|e| CodecError(e.to_string()))?;
        let meta = &object["metadata"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let labels = meta["labels"].as_object().into_iter().flatten();
        let labels = labels.map(|(key, value)| (key.clone(), text(value))).collect();
        let node = Arc::from(text(&object["node"]));
        let index =
            IndexRecord::new(text(&meta["namespace"]), text(&meta["name"]), "", labels, vec![("spec.nodeName", node)]);
        let stored = std::str::from_utf8(value).map_err(|e| CodecError(e.to_string()))?;
        let json =
            stored.replacen("{\"metadata\":{", &format!("{{\"metadata\":{{\"resourceVersion\":\"{revision}\","), 1);
        Ok(CachedObject::new(json.into(), revision, index))
    }
}

struct World {
    store: Arc<EmbeddedStore>,
    cache: Cache,
    _directory: TempDir,
}

fn options() -> CacheOptions {
    CacheOptions { hot_fields: &["spec.nodeName"], ..CacheOptions::new("", "pods", PREFIX) }
}

async fn embedded() -> (Arc<EmbeddedStore>, TempDir) {
    let directory = TempDir::new().unwrap();
    let settings = EmbeddedOptions { reserve_bytes: 0, ..EmbeddedOptions::default() };
    (Arc::new(EmbeddedStore::open(directory.path(), settings).await.unwrap()), directory)
}

fn cache(options: CacheOptions, store: Arc<dyn Store>) -> Cache {
    Cache::new(options, store, Arc::new(TestCodec), &CacheMetrics::register(&Registry::new()).unwrap())
}

async fn world_with(options: CacheOptions) -> World {
    let (store, directory) = embedded().await;
    let cache = cache(options, Arc::clone(&store) as Arc<dyn Store>);
    cache.ready().await;
    World { store, cache, _directory: directory }
}

async fn world() -> World {
    world_with(options()).await
}

fn key(name: &str) -> String {
    format!("{PREFIX}{name}")
}

/// A pod `namespace/name` with a label `app` and a node.
fn pod(name: &str, app: &str, node: &str) -> Bytes {
    let (namespace, short) = name.split_once('/').unwrap();
    let json = format!(
        r#"{{"metadata":{{"namespace":"{namespace}","name":"{short}","labels":{{"app":"{app}"}}}},"node":"{node}"}}"#
    );
    Bytes::from(json)
}

async fn write(store: &dyn Store, name: &str, value: Bytes) -> i64 {
    let (found, _) = store.get(&key(name)).await.unwrap();
    let expect = found.map_or(Expect::Absent, |kv| Expect::Revision(kv.mod_revision));
    match store.put(&key(name), value, expect, None).await.unwrap() {
        Written::Done { revision } => revision,
        other => panic!("{other:?}"),
    }
}

async fn remove(store: &dyn Store, name: &str) -> i64 {
    let (found, _) = store.get(&key(name)).await.unwrap();
    match store.delete(&key(name), Expect::Revision(found.unwrap().mod_revision)).await.unwrap() {
        Written::Done { revision } => revision,
        other => panic!("{other:?}"),
    }
}

fn request(start: WatchStart) -> WatchRequest {
    WatchRequest {
        prefix: PREFIX.into(),
        scope: Scope::default(),
        predicate: None,
        start,
        bookmarks: false,
        initial_events_end: false,
    }
}

async fn next(watcher: &mut Watcher) -> Option<WatchItem> {
    tokio::time::timeout(PATIENCE, watcher.next()).await.expect("a watcher should yield something")
}

/// An item as `+ns/name@revision`, with `~` for a change, `-` for a removal and `=` for a bookmark.
fn told(item: &WatchItem) -> String {
    match item {
        WatchItem::Event(event) => {
            let sign = match event.kind {
                EventKind::Added => '+',
                EventKind::Modified => '~',
                EventKind::Deleted => '-',
            };
            assert_eq!(event.object.revision, event.revision);
            let frame: Value = serde_json::from_slice(&event.frame()).unwrap();
            assert_eq!(frame["type"], event.kind.as_str());
            assert_eq!(frame["object"]["metadata"]["resourceVersion"], event.revision.to_string());
            assert!(event.frame().ends_with(b"}\n"));
            let index = &event.object.index;
            format!("{sign}{}/{}@{}", index.namespace(), index.name(), event.revision)
        }
        WatchItem::Bookmark { revision, initial_events_end } => {
            format!("={revision}{}", if *initial_events_end { " initial" } else { "" })
        }
    }
}

async fn expect(watcher: &mut Watcher, expected: &[String]) {
    for expected in expected {
        assert_eq!(told(&next(watcher).await.expect("the watch should go on")), *expected);
    }
}

fn names(snapshot: &Snapshot) -> Vec<String> {
    snapshot.range(None).map(|(key, _)| key[PREFIX.len()..].to_owned()).collect()
}
