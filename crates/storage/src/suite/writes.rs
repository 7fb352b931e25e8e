//! Writes and what they expect.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{Subject, done, events};
use crate::contract::{Expect, MAX_VALUE_BYTES, StoreError, StoreEventKind, Written};

/// Creation, update and removal happen only when the key is as expected.
pub async fn writes_are_conditional(subject: &Subject) {
    let first = subject.create("a", "1").await;
    let Written::Mismatch { current: Some(current) } = subject.put("a", "x", Expect::Absent).await else {
        panic!("created twice");
    };
    assert_eq!((current.mod_revision, current.create_revision), (first, first));
    assert_eq!(current.key, subject.key("a"));
    assert_eq!(&current.value[..], b"1");
    let second = subject.update("a", "2", first).await;
    assert!(second > first);
    let stale = subject.put("a", "x", Expect::Revision(first)).await;
    assert!(
        matches!(stale, Written::Mismatch { current: Some(kv) } if kv.mod_revision == second && kv.create_revision == first)
    );
    assert_eq!(subject.value("a").await.as_deref(), Some("2"));
    let missing = subject.put("nothing", "x", Expect::Revision(first)).await;
    assert_eq!(missing, Written::Mismatch { current: None });

    let key = subject.key("a");
    let stale = subject.store.delete(&key, Expect::Revision(first)).await.unwrap();
    assert!(matches!(stale, Written::Mismatch { current: Some(kv) } if kv.mod_revision == second));
    let never = subject.store.delete(&key, Expect::Absent).await.unwrap();
    assert!(matches!(never, Written::Mismatch { current: Some(_) }));
    let third = subject.remove("a", second).await;
    assert!(third > second);
    let gone = subject.store.delete(&key, Expect::Revision(second)).await.unwrap();
    assert_eq!(gone, Written::Mismatch { current: None });
    assert_eq!(subject.value("a").await, None);
    let fourth = subject.create("a", "4").await;
    let (found, revision) = subject.store.get(&key).await.unwrap();
    let found = found.unwrap();
    assert_eq!((found.create_revision, found.mod_revision), (fourth, fourth));
    assert!(revision >= fourth && subject.store.current_revision().await.unwrap() >= revision);
}

/// Of many writers that expect the same, one wins; all revisions differ.
pub async fn one_of_many_writers_wins(subject: &Subject) {
    let start = subject.create("counter", "0").await;
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..16 {
        let subject = subject.clone();
        tasks.spawn(async move {
            let mut won = Vec::new();
            let mut revision = start;
            while won.len() < 5 {
                let value = format!("{writer}");
                match subject.put("counter", &value, Expect::Revision(revision)).await {
                    Written::Done { revision: new } => {
                        won.push(new);
                        revision = new;
                    }
                    Written::Mismatch { current } => revision = current.unwrap().mod_revision,
                }
            }
            won
        });
    }
    let mut revisions = tasks.join_all().await.concat();
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), 80);
    let (last, _) = subject.store.get(&subject.key("counter")).await.unwrap();
    assert_eq!(last.unwrap().mod_revision, revisions[79]);
}

/// Many writes at once are all made, each at its own revision.
pub async fn concurrent_writes_all_land(subject: &Subject) {
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..200 {
        let subject = subject.clone();
        tasks.spawn(async move { (n, subject.create(&format!("many/{n:03}"), &n.to_string()).await) });
    }
    let written = tasks.join_all().await;
    for (n, revision) in written {
        let (found, _) = subject.store.get(&subject.key(&format!("many/{n:03}"))).await.unwrap();
        let found = found.unwrap();
        assert_eq!((found.mod_revision, &found.value[..]), (revision, n.to_string().as_bytes()));
    }
    assert_eq!(subject.store.count(&subject.key("many/")).await.unwrap(), 200);
}

/// Keys written with a life expire and are told as removed; a later write without one stops that.
pub async fn keys_expire(subject: &Subject) {
    let ttl = Some(Duration::from_secs(1));
    let put = |name: &str, expect| {
        let key = subject.key(name);
        let store = Arc::clone(&subject.store);
        async move { done(store.put(&key, Bytes::from_static(b"v"), expect, ttl).await.unwrap()) }
    };
    let kept = put("kept", Expect::Absent).await;
    let gone = put("gone", Expect::Absent).await;
    let kept = subject.update("kept", "stays", kept).await;
    let mut watch = subject.watch(kept + 1, true).await;
    let expired = events(&mut watch, 1).await.remove(0);
    assert_eq!((expired.kind, expired.key), (StoreEventKind::Delete, subject.key("gone")));
    assert!(expired.revision > gone);
    assert_eq!(expired.previous.as_deref(), Some(&b"v"[..]));
    assert_eq!(subject.value("gone").await, None);
    assert_eq!(subject.value("kept").await.as_deref(), Some("stays"));
}

/// What is too large is refused and changes nothing.
pub async fn sizes_are_limited(subject: &Subject) {
    let value = Bytes::from(vec![b'x'; MAX_VALUE_BYTES + 1]);
    let refused = subject.store.put(&subject.key("big"), value, Expect::Absent, None).await;
    assert!(matches!(refused, Err(StoreError::TooLarge { .. })), "{refused:?}");
    let key = subject.key(&"k".repeat(10_000));
    let refused = subject.store.put(&key, Bytes::from_static(b"v"), Expect::Absent, None).await;
    assert!(matches!(refused, Err(StoreError::TooLarge { .. })), "{refused:?}");
    let value = "y".repeat(1 << 20);
    subject.create("large", &value).await;
    assert_eq!(subject.value("large").await, Some(value));
    subject.create("empty", "").await;
    assert_eq!(subject.value("empty").await.as_deref(), Some(""));
}
