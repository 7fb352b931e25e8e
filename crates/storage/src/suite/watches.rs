//! Watches.

use super::{PATIENCE, Subject, batch, events};
use crate::contract::{StoreError, StoreEvent, StoreEventKind, WatchRange};

fn told(subject: &Subject, events: &[StoreEvent]) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let one = |event: &StoreEvent| {
        let sign = match (event.kind, event.created) {
            (StoreEventKind::Put, true) => '+',
            (StoreEventKind::Put, false) => '~',
            (StoreEventKind::Delete, _) => '-',
        };
        let previous = event.previous.as_ref().map(|bytes| format!(" was {}", text(bytes))).unwrap_or_default();
        format!("{sign}{}={}{previous}", &event.key[subject.prefix.len()..], text(&event.value))
    };
    events.iter().map(one).collect()
}

/// A watch tells the past and then the present, in order, once.
pub async fn watches_tell_past_and_present(subject: &Subject) {
    let start = subject.store.current_revision().await.unwrap();
    let first = subject.create("a", "1").await;
    let second = subject.update("a", "2", first).await;
    subject.remove("a", second).await;
    let mut all = subject.watch(start + 1, true).await;
    let mut some = subject.watch(second, false).await;
    let expected = ["+a=1", "~a=2 was 1", "-a= was 2", "+b=1"];
    assert_eq!(told(subject, &events(&mut all, 3).await), expected[..3]);
    assert_eq!(told(subject, &events(&mut some, 2).await), ["~a=2", "-a="]);
    let last = subject.create("b", "1").await;
    let present = events(&mut all, 1).await;
    assert_eq!(told(subject, &present), expected[3..]);
    assert_eq!(present[0].revision, last);
    assert_eq!(told(subject, &events(&mut some, 1).await), ["+b=1"]);
}

/// Watchers of the same place see the same, however much was written and however late they come.
pub async fn watchers_agree(subject: &Subject) {
    let start = subject.store.current_revision().await.unwrap();
    let early = subject.watch(start + 1, false).await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..300 {
        let subject = subject.clone();
        tasks.spawn(async move { subject.create(&format!("{n}"), "v").await });
    }
    let mut revisions = tasks.join_all().await;
    revisions.sort_unstable();
    let late = subject.watch(start + 1, false).await;
    for mut watch in [early, late] {
        let seen: Vec<i64> = events(&mut watch, 300).await.iter().map(|event| event.revision).collect();
        assert_eq!(seen, revisions);
    }
}

/// A watch that nobody reads for long loses nothing and stops nobody.
pub async fn slow_readers_lose_nothing(subject: &Subject) {
    let start = subject.store.current_revision().await.unwrap();
    let mut slow = subject.watch(start + 1, false).await;
    let mut revision = subject.create("a", "0").await;
    for n in 1..600 {
        revision = subject.update("a", &n.to_string(), revision).await;
    }
    let seen = events(&mut slow, 600).await;
    assert!(seen.is_sorted_by(|a, b| a.revision < b.revision));
    assert_eq!(seen[599].revision, revision);
    let next = subject.update("a", "end", revision).await;
    assert_eq!(events(&mut slow, 1).await[0].revision, next);
}

/// Batches tell how far everything has been delivered, on request also without events.
pub async fn progress_is_told(subject: &Subject) {
    let revision = subject.create("a", "1").await;
    let mut watch = subject.watch(revision, false).await;
    events(&mut watch, 1).await;
    let elsewhere =
        Subject { prefix: format!("{}-elsewhere/", subject.prefix.trim_end_matches('/')), ..subject.clone() };
    let later = elsewhere.create("b", "1").await;
    if !subject.store.proves_progress() {
        return;
    }
    let told = tokio::time::timeout(PATIENCE, async {
        loop {
            subject.store.request_progress().await.unwrap();
            let batch = batch(&mut watch).await.unwrap();
            assert!(batch.events.is_empty());
            if batch.revision >= later {
                break batch.revision;
            }
        }
    })
    .await
    .expect("progress should be told");
    // Counters in common tell the same without asking, and do not when an event is on its way.
    let Some(tide) = &watch.tide else { return };
    let last = elsewhere.create("c", "1").await;
    assert!(tide.store_revision() >= last);
    assert!(tide.proven(told) >= last);
    subject.create("c", "1").await;
    assert_eq!(tide.proven(told), told);
}

/// A watch of what has been compacted is refused, at once or as its only item.
pub async fn compacted_watches_are_refused(subject: &Subject) {
    let first = subject.create("a", "1").await;
    let second = subject.update("a", "2", first).await;
    let third = subject.update("a", "3", second).await;
    subject.store.compact(third).await.unwrap();
    let range = WatchRange { prefix: &subject.prefix, from: first, previous: false };
    let refused = match subject.store.watch(range).await {
        Ok(mut watch) => batch(&mut watch).await.map(|_| ()),
        Err(error) => Err(error),
    };
    assert!(matches!(refused, Err(StoreError::Compacted { .. })), "{refused:?}");
    let mut watch = subject.watch(third + 1, false).await;
    subject.update("a", "4", third).await;
    assert_eq!(told(subject, &events(&mut watch, 1).await), ["~a=4"]);
}
