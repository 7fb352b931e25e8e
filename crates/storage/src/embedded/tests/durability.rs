//! What is left after closing and opening, and of the log on the way.

use bytes::Bytes;
use futures::StreamExt;
use proptest::prelude::*;

use super::*;
use crate::contract::{Expect, Range, Store, StoreEventKind, WatchRange, Written};

async fn put(store: &EmbeddedStore, key: &str, value: &[u8], expect: Expect) -> i64 {
    match store.put(key, Bytes::copy_from_slice(value), expect, None).await.expect("put") {
        Written::Done { revision } => revision,
        other => panic!("{other:?}"),
    }
}

async fn dump(store: &EmbeddedStore) -> (i64, Vec<crate::contract::KeyValue>) {
    let page = store.range(Range::default()).await.expect("range");
    (page.revision, page.items)
}

#[tokio::test]
async fn a_reopened_store_is_as_it_was() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory).await;
    assert_eq!(store.current_revision().await.unwrap(), 1);
    let first = put(&store, "/a", b"1", Expect::Absent).await;
    let second = put(&store, "/b", b"1", Expect::Absent).await;
    put(&store, "/a", b"2", Expect::Revision(first)).await;
    store.delete("/b", Expect::Revision(second)).await.unwrap();
    let before = dump(&store).await;
    store.close().await;
    assert_eq!(store.put("/c", Bytes::new(), Expect::Absent, None).await, Err(StoreError::Closed));
    let store = open(&directory).await;
    assert_eq!(dump(&store).await, before);
    let range = WatchRange { prefix: "/", from: first, previous: true };
    let mut watch = store.watch(range).await.unwrap();
    let events = watch.batches.next().await.unwrap().unwrap().events;
    assert_eq!(events.len(), 4);
    assert_eq!(events[3].kind, StoreEventKind::Delete);
    assert_eq!(events[3].previous.as_deref(), Some(&b"1"[..]));
    assert!(put(&store, "/b", b"3", Expect::Absent).await > before.0);
}

#[tokio::test]
async fn only_one_can_have_it_open() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory).await;
    let refused = EmbeddedStore::open(directory.path(), small()).await.map(|_| ());
    assert!(matches!(refused, Err(StoreError::Unavailable(_))));
    store.close().await;
    open(&directory).await;
}

#[tokio::test]
async fn the_torn_end_of_a_write_is_cut_off() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory).await;
    put(&store, "/a", b"1", Expect::Absent).await;
    store.close().await;
    let path = directory.path().join("0000000001.log");
    let whole = fs::read(&path).unwrap();
    let store = open(&directory).await;
    put(&store, "/b", b"2", Expect::Absent).await;
    store.close().await;
    let longer = fs::read(&path).unwrap();
    for cut in whole.len()..longer.len() {
        fs::write(&path, &longer[..cut]).unwrap();
        let store = open(&directory).await;
        let (_, items) = dump(&store).await;
        // The record of /b may be whole although the commit it was part of is not.
        assert!(items[0].key == "/a" && items.len() <= 2, "cut at {cut}");
        put(&store, "/c", b"3", Expect::Absent).await;
        store.close().await;
        assert_eq!(dump(&open(&directory).await).await.1.last().unwrap().key, "/c");
    }
}

#[tokio::test]
async fn damage_is_not_taken_for_a_torn_write() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory).await;
    for n in 0..5 {
        put(&store, &format!("/{n}"), b"value", Expect::Absent).await;
    }
    store.close().await;
    let path = directory.path().join("0000000001.log");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(2).position(|w| w == b"/1").unwrap();
    bytes[at] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let refused = EmbeddedStore::open(directory.path(), small()).await.map(|_| ());
    assert!(matches!(refused, Err(StoreError::Corrupt(_))), "{refused:?}");
}

#[tokio::test]
async fn space_is_given_back() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory).await;
    let value = vec![b'x'; 2000];
    let mut cold = Vec::new();
    for n in 0..20 {
        cold.push(put(&store, &format!("/cold/{n}"), &value, Expect::Absent).await);
    }
    let mut hot = put(&store, "/hot", &value, Expect::Absent).await;
    for round in 0..2000 {
        hot = put(&store, "/hot", &value, Expect::Revision(hot)).await;
        let gone = put(&store, &format!("/gone/{round}"), &value, Expect::Absent).await;
        store.delete(&format!("/gone/{round}"), Expect::Revision(gone)).await.unwrap();
        if round % 50 == 49 {
            store.compact(store.current_revision().await.unwrap()).await.unwrap();
        }
    }
    let size = store.size_bytes().await.unwrap();
    assert!(size < 1 << 20, "8 MB were written, {size} bytes are left");
    let before = dump(&store).await;
    assert_eq!(before.1.len(), 21);
    store.close().await;
    let store = open(&directory).await;
    assert_eq!(dump(&store).await, before);
    let (found, _) = store.get("/cold/7").await.unwrap();
    assert_eq!(found.unwrap().create_revision, cold[7]);
    let early = store.watch(WatchRange { prefix: "/", from: 2, previous: false }).await.map(|_| ());
    assert!(matches!(early, Err(StoreError::Compacted { .. })), "history that is gone must not be told as if whole");
}

#[tokio::test]
async fn expiry_survives_reopening() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory).await;
    let ttl = Some(Duration::from_millis(300));
    store.put("/short", Bytes::from_static(b"v"), Expect::Absent, ttl).await.unwrap();
    let long = Some(Duration::from_secs(3600));
    store.put("/long", Bytes::from_static(b"v"), Expect::Absent, long).await.unwrap();
    store.close().await;
    let store = open(&directory).await;
    let mut watch = store.watch(WatchRange { prefix: "/short", from: 3, previous: false }).await.unwrap();
    let events = loop {
        let batch = watch.batches.next().await.unwrap().unwrap();
        if !batch.events.is_empty() {
            break batch.events;
        }
    };
    assert_eq!((events[0].kind, events[0].key.as_str()), (StoreEventKind::Delete, "/short"));
    assert!(store.get("/long").await.unwrap().0.is_some());
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u16),
    Delete(u8),
    Compact(u8),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0_u8..12, 0_u16..6000).prop_map(|(key, size)| Step::Put(key, size)),
        4 => (0_u8..12).prop_map(Step::Delete),
        1 => (0_u8..30).prop_map(Step::Compact),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..120)
}

/// Plays steps on a store and on a model that remembers every state, and compares them at every revision held.
async fn play(steps: Vec<Step>) {
    let directory = TempDir::new().unwrap();
    let mut store = open(&directory).await;
    let mut model: std::collections::BTreeMap<String, (i64, Vec<u8>)> = Default::default();
    let mut states = std::collections::BTreeMap::from([(1, model.clone())]);
    let mut compacted = 0;
    for step in steps {
        match step {
            Step::Put(key, size) => {
                let key = format!("/k/{key}");
                let value = vec![b'a' + (size % 26) as u8; size as usize];
                let expect = model.get(&key).map_or(Expect::Absent, |(revision, _)| Expect::Revision(*revision));
                let revision = put(&store, &key, &value, expect).await;
                model.insert(key, (revision, value));
                states.insert(revision, model.clone());
            }
            Step::Delete(key) => {
                let key = format!("/k/{key}");
                let Some((revision, _)) = model.remove(&key) else { continue };
                match store.delete(&key, Expect::Revision(revision)).await.unwrap() {
                    Written::Done { revision } => drop(states.insert(revision, model.clone())),
                    other => panic!("{other:?}"),
                }
            }
            Step::Compact(back) => {
                let revision = store.current_revision().await.unwrap() - i64::from(back);
                if revision > compacted {
                    store.compact(revision).await.unwrap();
                    compacted = revision;
                }
            }
            Step::Reopen => {
                store.close().await;
                store = open(&directory).await;
            }
        }
    }
    for (revision, state) in states.range(compacted.max(1)..) {
        let range = Range { prefix: "/k/", revision: Some(*revision), ..Range::default() };
        let page = store.range(range).await.unwrap();
        let found: std::collections::BTreeMap<_, _> =
            page.items.into_iter().map(|kv| (kv.key, (kv.mod_revision, kv.value.to_vec()))).collect();
        assert_eq!(&found, state, "at revision {revision}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn every_state_can_be_read_back(steps in steps()) {
        tokio::runtime::Runtime::new().unwrap().block_on(play(steps));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_record_or_not(bytes in prop::collection::vec(any::<u8>(), 0..200), length in 0_u32..200) {
        prop_assert!(record::decode(&bytes).is_none());
        let mut framed = length.to_le_bytes().to_vec();
        framed.extend_from_slice(&bytes);
        prop_assert!(record::decode(&framed).is_none());
    }

    #[test]
    fn records_are_read_as_written(
        key in ".{0,40}",
        value in prop::collection::vec(any::<u8>(), 0..300),
        (revision, create_revision, commit, expires) in any::<(i64, i64, u64, u64)>(),
        copy in any::<bool>(),
    ) {
        let record = record::Record {
            kind: record::Kind::Put, copy, commit, revision, create_revision, expires, key: &key, value: &value,
        };
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        bytes.extend_from_slice(b"what follows");
        prop_assert_eq!(record::decode(&bytes), Some((record, record.encoded_len())));
        let last = record.encoded_len() - 1;
        bytes[last] ^= 1;
        prop_assert_eq!(record::decode(&bytes), None);
    }
}
