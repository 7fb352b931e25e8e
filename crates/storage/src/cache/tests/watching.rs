//! What watchers see.

use super::*;

fn with_app(app: &'static str) -> Predicate {
    Arc::new(move |object: &CachedObject| object.index.label("app") == Some(app))
}

#[tokio::test]
async fn a_watch_starts_with_what_exists() {
    let World { store, cache, .. } = &world().await;
    let a = write(&**store, "x/a", pod("x/a", "web", "n1")).await;
    let b = write(&**store, "y/b", pod("y/b", "web", "n1")).await;
    let fresh = WatchStart::Initial(Freshness::Latest);
    let wanted = WatchRequest { initial_events_end: true, bookmarks: true, ..request(fresh) };
    let mut watcher = cache.watch(wanted).await.unwrap();
    assert_eq!(watcher.bookmark_revision(), b);
    expect(&mut watcher, &[format!("+x/a@{a}"), format!("+y/b@{b}"), format!("={b} initial")]).await;
    let c = write(&**store, "x/a", pod("x/a", "db", "n1")).await;
    let d = remove(&**store, "y/b").await;
    expect(&mut watcher, &[format!("~x/a@{c}"), format!("-y/b@{d}")]).await;
    assert_eq!(watcher.bookmark_revision(), d);
    let elsewhere = store.put("/registry/other", Bytes::new(), Expect::Absent, None).await.unwrap();
    let Written::Done { revision } = elsewhere else { panic!() };
    assert_eq!(watcher.bookmark_revision(), revision, "a bookmark moves although nothing of the resource changes");
}

#[tokio::test]
async fn a_watch_resumes_where_it_was() {
    let World { store, cache, .. } = &world().await;
    let start = cache.revision();
    let mut expected = Vec::new();
    for round in 0..20 {
        let revision = write(&**store, "x/a", pod("x/a", &round.to_string(), "n1")).await;
        expected.push((revision, format!("{}x/a@{revision}", if round == 0 { '+' } else { '~' })));
    }
    cache.observe_hint(expected[19].0).await.unwrap();
    let mut frames = None;
    for _ in 0..2 {
        let mut watcher = cache.watch(request(WatchStart::After(start))).await.unwrap();
        let mut seen = Vec::new();
        for (_, expected) in &expected {
            let item = next(&mut watcher).await.unwrap();
            assert_eq!(&told(&item), expected);
            let WatchItem::Event(event) = item else { panic!() };
            seen.push(event.frame());
        }
        let first = frames.get_or_insert_with(|| seen.clone());
        assert!(first.iter().zip(&seen).all(|(a, b)| a.as_ptr() == b.as_ptr()), "frames are built once");
    }
    let mut watcher = cache.watch(request(WatchStart::After(expected[9].0))).await.unwrap();
    expect(&mut watcher, &[expected[10].1.clone()]).await;
}

#[tokio::test]
async fn a_selector_makes_objects_come_and_go() {
    let World { store, cache, .. } = &world().await;
    let wanted = WatchRequest { predicate: Some(with_app("web")), ..request(WatchStart::Now(Freshness::Latest)) };
    let mut watcher = cache.watch(wanted).await.unwrap();
    write(&**store, "x/a", pod("x/a", "db", "n1")).await;
    let comes = write(&**store, "x/a", pod("x/a", "web", "n1")).await;
    let changes = write(&**store, "x/a", pod("x/a", "web", "n2")).await;
    let goes = write(&**store, "x/a", pod("x/a", "db", "n3")).await;
    remove(&**store, "x/a").await;
    let added = write(&**store, "x/b", pod("x/b", "web", "n1")).await;
    let removed = remove(&**store, "x/b").await;
    expect(&mut watcher, &[format!("+x/a@{comes}"), format!("~x/a@{changes}")]).await;
    let WatchItem::Event(gone) = next(&mut watcher).await.unwrap() else { panic!() };
    assert_eq!((gone.kind, gone.revision), (EventKind::Deleted, goes));
    let shown: Value = serde_json::from_slice(&gone.object.json).unwrap();
    assert_eq!(shown["node"], "n2", "the content is the previous one");
    assert_eq!(shown["metadata"]["resourceVersion"], goes.to_string(), "the revision is that of the change");
    expect(&mut watcher, &[format!("+x/b@{added}"), format!("-x/b@{removed}")]).await;
}

#[tokio::test]
async fn scopes_show_what_predicates_would() {
    let World { store, cache, .. } = &world().await;
    let scopes = [
        Scope { namespace: Some("x".into()), ..Scope::default() },
        Scope { name: Some("a".into()), ..Scope::default() },
        Scope { hot_field: Some(("spec.nodeName", "n1".into())), ..Scope::default() },
        Scope { namespace: Some("x".into()), hot_field: Some(("spec.nodeName", "n1".into())), ..Scope::default() },
        Scope { namespace: Some("x".into()), name: Some("a".into()), hot_field: None },
    ];
    let mut pairs = Vec::new();
    for scope in scopes {
        let same = scope.clone();
        let predicate: Predicate = Arc::new(move |object| same.matches(object));
        let start = request(WatchStart::Now(Freshness::Latest));
        let scoped = cache.watch(WatchRequest { scope, ..start.clone() }).await.unwrap();
        let plain = cache.watch(WatchRequest { predicate: Some(predicate), ..start }).await.unwrap();
        pairs.push((scoped, plain));
    }
    for round in 0..40 {
        let name = ["x/a", "x/b", "y/a", "y/b"][round % 4];
        if round % 11 == 10 {
            if store.get(&key(name)).await.unwrap().0.is_some() {
                remove(&**store, name).await;
            }
        } else {
            write(&**store, name, pod(name, "web", ["n1", "n2", "n3"][round % 3])).await;
        }
    }
    // The last one is seen by all.
    let last = write(&**store, "x/a", pod("x/a", "end", "n1")).await;
    for (scoped, plain) in &mut pairs {
        let mut count = 0;
        loop {
            let (a, b) = (told(&next(scoped).await.unwrap()), told(&next(plain).await.unwrap()));
            assert_eq!(a, b);
            count += 1;
            if a.ends_with(&format!("@{last}")) {
                break;
            }
        }
        assert!(count > 3);
    }
}

#[tokio::test]
async fn a_slow_watcher_is_closed_and_delays_nobody() {
    let small = CacheOptions { ring_events: 200, ..options() };
    let World { store, cache, .. } = &world_with(small).await;
    let start = request(WatchStart::Now(Freshness::Latest));
    let mut slow = cache.watch(start.clone()).await.unwrap();
    let mut quick = cache.watch(start).await.unwrap();
    for round in 0..500 {
        let revision = write(&**store, "x/a", pod("x/a", &round.to_string(), "n1")).await;
        let item = next(&mut quick).await.expect("the quick one goes on");
        assert!(told(&item).ends_with(&format!("@{revision}")));
    }
    assert!(next(&mut slow).await.is_none(), "nothing is skipped: the watch ends");
    assert_eq!(cache.core().metrics.terminated_watchers.get(), 1);
    assert_eq!(cache.core().state.read().watchers.len(), 1);
    let lost = cache.watch(request(WatchStart::After(2))).await.map(|_| ());
    assert!(matches!(lost, Err(StoreError::Compacted { compact_revision, .. }) if compact_revision > 2), "{lost:?}");
}

#[tokio::test(start_paused = true)]
async fn bookmarks_come_from_time_to_time() {
    let World { store, cache, .. } = &world().await;
    let start = WatchRequest { bookmarks: true, ..request(WatchStart::Now(Freshness::Any)) };
    let mut watcher = cache.watch(start).await.unwrap();
    let before = tokio::time::Instant::now();
    for _ in 0..3 {
        assert_eq!(told(&watcher.next().await.unwrap()), format!("={}", cache.revision()));
    }
    let period = before.elapsed() / 3;
    assert!((Duration::from_secs(50)..=Duration::from_secs(61)).contains(&period), "{period:?}");
    drop(watcher);
    assert_eq!(cache.core().state.read().watchers.len(), 0);
    store.close().await;
}

#[tokio::test]
async fn what_cannot_be_decoded_is_left_out() {
    let World { store, cache, .. } = &world().await;
    let mut watcher = cache.watch(request(WatchStart::Now(Freshness::Latest))).await.unwrap();
    let good = write(&**store, "x/a", pod("x/a", "web", "n1")).await;
    write(&**store, "x/bad", Bytes::from_static(b"\xff no object")).await;
    let broken = write(&**store, "x/a", Bytes::from_static(b"{")).await;
    let healed = write(&**store, "x/a", pod("x/a", "web", "n1")).await;
    let expected = [format!("+x/a@{good}"), format!("-x/a@{broken}"), format!("+x/a@{healed}")];
    expect(&mut watcher, &expected).await;
    let list = cache.list(PREFIX, Freshness::Latest).await.unwrap();
    assert_eq!(names(&list), ["x/a"]);
    assert_eq!(cache.core().metrics.decode_errors.get(), 2);
    assert!(cache.check_consistency().await.unwrap().is_consistent());
    let other = super::cache(options(), Arc::clone(store) as Arc<dyn Store>);
    assert_eq!(names(&other.list(PREFIX, Freshness::Latest).await.unwrap()), ["x/a"]);
}

#[tokio::test]
async fn other_encodings_are_made_once() {
    let World { store, cache, .. } = &world().await;
    write(&**store, "x/a", pod("x/a", "web", "n1")).await;
    let (object, _) = cache.get(&key("x/a"), Freshness::Latest).await.unwrap();
    let object = object.unwrap();
    let mut made = 0;
    for _ in 0..3 {
        let bytes = object.alternate(7, |_| {
            made += 1;
            Ok::<_, ()>(Bytes::from_static(b"row"))
        });
        assert_eq!(bytes.unwrap(), "row");
    }
    assert_eq!(object.alternate(8, |_| Err("no")), Err("no"));
    cache.core().release_alternates();
    assert!(object.alternate(7, |_| Err(())).is_ok(), "in use since the release before");
    cache.core().release_alternates();
    cache.core().release_alternates();
    assert_eq!(object.alternate(7, |_| Err("made anew")), Err("made anew"));
    assert_eq!(made, 1);
}
