//! How new answers are.

use super::*;
use crate::etcd::tests::Etcd;

/// Every acknowledged write is in every answer to a later question, whatever else is being written.
async fn consistent_reads(store: Arc<dyn Store>) {
    let cache = cache(options(), Arc::clone(&store));
    cache.ready().await;
    for round in 0..60 {
        let revision = write(&*store, "x/a", pod("x/a", &round.to_string(), "n1")).await;
        let other = store.put(&format!("/registry/other/{round}"), Bytes::new(), Expect::Absent, None).await.unwrap();
        let Written::Done { revision: latest } = other else { panic!() };
        let (object, at) = cache.get(&key("x/a"), Freshness::Latest).await.unwrap();
        assert_eq!(object.unwrap().revision, revision);
        assert!(at >= latest);
        if round % 10 == 0 {
            let list = cache.list(PREFIX, Freshness::Latest).await.unwrap();
            assert_eq!(list.get(&key("x/a")).unwrap().revision, revision);
            assert!(list.revision >= latest);
            let at_least = cache.list(PREFIX, Freshness::AtLeast(latest)).await.unwrap();
            assert!(at_least.revision >= latest);
        }
    }
    assert!(cache.check_consistency().await.unwrap().is_consistent());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_are_consistent_on_the_embedded_store() {
    let (store, _directory) = embedded().await;
    consistent_reads(store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_are_consistent_on_etcd() {
    let etcd = Etcd::start(&[]);
    consistent_reads(Arc::new(etcd.store().await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_are_consistent_by_progress_requests() {
    let etcd = Etcd::start(&[]);
    let store = etcd.store().await;
    store.assume_progress_in_order();
    consistent_reads(Arc::new(store)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_outlives_its_etcd() {
    let mut etcd = Etcd::start(&[]);
    let store = Arc::new(etcd.store().await);
    let cache = cache(options(), Arc::clone(&store) as Arc<dyn Store>);
    cache.ready().await;
    let before = write(&*store, "x/a", pod("x/a", "web", "n1")).await;
    cache.observe_hint(before).await.unwrap();
    let mut watcher = cache.watch(request(WatchStart::After(before))).await.unwrap();
    etcd.kill();
    let (stale, _) = cache.get(&key("x/a"), Freshness::Any).await.unwrap();
    assert_eq!(stale.unwrap().revision, before, "what need not be fresh is still served");
    etcd.restart();
    let after = loop {
        let value = pod("x/a", "web", "n2");
        match store.put(&key("x/a"), value, Expect::Revision(before), None).await {
            Ok(Written::Done { revision }) => break revision,
            Ok(Written::Mismatch { current }) => break current.unwrap().mod_revision,
            Err(error) => assert!(error.retryable(), "{error:?}"),
        }
    };
    expect(&mut watcher, &[format!("~x/a@{after}")]).await;
}

#[tokio::test(start_paused = true)]
async fn the_future_is_waited_for_and_then_refused() {
    let World { store, cache, .. } = &world().await;
    let current = cache.revision();
    let started = tokio::time::Instant::now();
    let refused = cache.list(PREFIX, Freshness::AtLeast(current + 50)).await.map(|_| ());
    assert_eq!(refused, Err(StoreError::FutureRevision { requested: current + 50, current }));
    assert_eq!(
        refused.unwrap_err().to_string(),
        format!("Too large resource version: {}, current: {current}", current + 50)
    );
    assert!((3000..3100).contains(&(started.elapsed().as_millis() as u64)));
    let initial = WatchStart::Initial(Freshness::AtLeast(current + 50));
    assert!(matches!(cache.watch(request(initial)).await.map(|_| ()), Err(StoreError::FutureRevision { .. })));
    store.close().await;
}

#[tokio::test]
async fn the_past_is_shown_as_it_was() {
    let small = CacheOptions { ring_events: 120, ..options() };
    let World { store, cache, .. } = &world_with(small).await;
    let mut states = Vec::new();
    for round in 0..300 {
        let name = format!("x/{}", round % 7);
        if round % 5 == 4 && store.get(&key(&name)).await.unwrap().0.is_some() {
            remove(&**store, &name).await;
        } else {
            write(&**store, &name, pod(&name, &round.to_string(), "n1")).await;
        }
        let list = cache.list(PREFIX, Freshness::Latest).await.unwrap();
        let state: Vec<_> = list.range(None).map(|(key, object)| (key.to_owned(), object.json.clone())).collect();
        states.push((list.revision, state));
    }
    for (revision, state) in states {
        let then = cache.exact(PREFIX, revision, None, 0).await.unwrap();
        let found: Vec<_> = then.range(None).map(|(key, object)| (key.to_owned(), object.json.clone())).collect();
        assert_eq!((then.revision, then.count(None)), (revision, state.len()));
        assert_eq!(found, state, "at {revision}");
    }
    let page = cache.exact(PREFIX, 3, None, 1).await.unwrap();
    assert_eq!((names(&page), page.beyond, page.count(None)), (vec!["x/0".to_owned()], 1, 2));
    store.compact(100).await.unwrap();
    assert!(matches!(cache.exact(PREFIX, 50, None, 0).await.map(|_| ()), Err(StoreError::Compacted { .. })));
}

#[tokio::test]
async fn lists_are_found_by_hot_fields() {
    let World { store, cache, .. } = &world().await;
    for (name, node) in [("x/a", "n1"), ("x/b", "n2"), ("y/a", "n1"), ("y/b", "")] {
        write(&**store, name, pod(name, "web", node)).await;
    }
    write(&**store, "x/b", pod("x/b", "web", "n1")).await;
    write(&**store, "x/a", pod("x/a", "web", "n2")).await;
    remove(&**store, "y/b").await;
    let by = |snapshot: &Snapshot, value: &str| -> Vec<String> {
        let items = snapshot.by_field("spec.nodeName", value, None).unwrap();
        items.map(|(key, _)| key[PREFIX.len()..].to_owned()).collect()
    };
    let all = cache.list(PREFIX, Freshness::Latest).await.unwrap();
    assert_eq!(by(&all, "n1"), ["x/b", "y/a"]);
    assert_eq!(by(&all, "n2"), ["x/a"]);
    assert!(by(&all, "").is_empty());
    assert!(all.by_field("status.phase", "Running", None).is_none());
    let one = cache.list(&key("y/"), Freshness::Latest).await.unwrap();
    assert_eq!(by(&one, "n1"), ["y/a"]);
    assert_eq!(names(&one), ["y/a"]);
    assert_eq!(names(&all), ["x/a", "x/b", "y/a"]);
    let start = key("x/a\0");
    assert_eq!(all.range(Some(&start)).count(), 2);
}
