//! Reads of ranges, and of the past.

use super::Subject;
use crate::contract::{Range, RangePage, StoreError};

async fn read(subject: &Subject, start: Option<&str>, limit: usize, revision: Option<i64>) -> RangePage {
    let range = Range { prefix: &subject.prefix, start, limit, revision };
    subject.store.range(range).await.expect("range")
}

fn names<'a>(subject: &Subject, page: &'a RangePage) -> Vec<&'a str> {
    page.items.iter().map(|kv| &kv.key[subject.prefix.len()..]).collect()
}

/// Ranges are in byte order, bounded by prefix, start and limit.
pub async fn ranges_are_ordered_and_bounded(subject: &Subject) {
    let outside = subject.prefix.strip_suffix('/').expect("a prefix with a slash").to_owned() + "0";
    let value = bytes::Bytes::from_static(b"v");
    subject.store.put(&outside, value, crate::contract::Expect::Absent, None).await.unwrap();
    for name in ["b", "a/2", "a-x", "a/1", "é", "c"] {
        subject.create(name, name).await;
    }
    let all = read(subject, None, 0, None).await;
    assert_eq!(names(subject, &all), ["a-x", "a/1", "a/2", "b", "c", "é"]);
    assert!(!all.more && all.count == 6);
    assert!(all.items.iter().all(|kv| kv.value.as_ref() == &kv.key.as_bytes()[subject.prefix.len()..]));

    let first = read(subject, None, 2, None).await;
    assert_eq!((names(subject, &first), first.more, first.count), (vec!["a-x", "a/1"], true, 6));
    let start = format!("{}\0", first.items[1].key);
    let second = read(subject, Some(&start), 2, Some(first.revision)).await;
    assert_eq!((names(subject, &second), second.more, second.count), (vec!["a/2", "b"], true, 4));
    let start = format!("{}\0", second.items[1].key);
    let third = read(subject, Some(&start), 2, Some(first.revision)).await;
    assert_eq!((names(subject, &third), third.more, third.count), (vec!["c", "é"], false, 2));
    assert_eq!(third.revision, first.revision);

    let empty = subject.store.range(Range { prefix: &subject.key("zzz"), ..Range::default() }).await.unwrap();
    assert!(empty.items.is_empty() && !empty.more && empty.revision >= all.revision);
    assert_eq!(subject.store.count(&subject.key("a/")).await.unwrap(), 2);
}

/// A long range comes whole although no single answer holds it.
pub async fn long_ranges_are_whole(subject: &Subject) {
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..1200 {
        let subject = subject.clone();
        tasks.spawn(async move { subject.create(&format!("{n:05}"), "v").await });
    }
    tasks.join_all().await;
    let all = read(subject, None, 0, None).await;
    assert_eq!((all.items.len(), all.count, all.more), (1200, 1200, false));
    assert!(all.items.is_sorted_by(|a, b| a.key < b.key));
    let most = read(subject, None, 1100, None).await;
    assert_eq!((most.items.len(), most.count, most.more), (1100, 1200, true));
}

/// The past is read as it was until it is compacted.
pub async fn the_past_can_be_read(subject: &Subject) {
    let first = subject.create("a", "1").await;
    let second = subject.create("b", "1").await;
    let third = subject.update("a", "2", first).await;
    let fourth = subject.remove("b", second).await;
    let fifth = subject.create("b", "2").await;
    let at = |revision| async move {
        let page = read(subject, None, 0, Some(revision)).await;
        assert_eq!(page.revision, revision);
        page.items
            .iter()
            .map(|kv| format!("{}={}", &kv.key[subject.prefix.len()..], String::from_utf8_lossy(&kv.value)))
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(at(first).await, "a=1");
    assert_eq!(at(second).await, "a=1 b=1");
    assert_eq!(at(third).await, "a=2 b=1");
    assert_eq!(at(fourth).await, "a=2");
    assert_eq!(at(fifth).await, "a=2 b=2");
    let future = subject.store.current_revision().await.unwrap() + 1000;
    let range = Range { prefix: &subject.prefix, revision: Some(future), ..Range::default() };
    let refused = subject.store.range(range).await;
    assert!(matches!(refused, Err(StoreError::FutureRevision { requested, current })
        if requested == future && current < future));

    subject.store.compact(fourth).await.unwrap();
    assert_eq!(at(fourth).await, "a=2");
    assert_eq!(at(fifth).await, "a=2 b=2");
    let range = Range { prefix: &subject.prefix, revision: Some(third), ..Range::default() };
    let refused = subject.store.range(range).await;
    assert!(matches!(refused, Err(StoreError::Compacted { .. })), "{refused:?}");
    let refused = subject.store.compact(third).await;
    assert!(matches!(refused, Err(StoreError::Compacted { .. })), "{refused:?}");
    assert_eq!(subject.value("a").await.as_deref(), Some("2"));
}

/// A store says whether a prefix has changed.
pub async fn changes_are_noticed(subject: &Subject) {
    let first = subject.create("a", "1").await;
    let second = subject.create("b", "1").await;
    let unchanged = |revision, count| subject.store.unchanged_since(&subject.prefix, revision, count);
    assert!(unchanged(second, 2).await.unwrap().is_some_and(|revision| revision >= second));
    assert_eq!(unchanged(first, 1).await.unwrap(), None);
    subject.remove("a", first).await;
    assert_eq!(unchanged(second, 2).await.unwrap(), None);
    subject.create("a", "2").await;
    assert_eq!(unchanged(second, 2).await.unwrap(), None);
}
