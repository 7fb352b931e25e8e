//! After any writes the cache is what the store is, and watchers that follow it are too.

use std::collections::BTreeMap;

use futures::FutureExt;
use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Put {
        name: u8,
        app: u8,
        node: u8,
    },
    Remove {
        name: u8,
    },
    /// The store's history goes; the cache must not mind.
    Compact,
    /// Another watcher starts at a revision some steps back.
    Watch {
        back: u8,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0_u8..10, 0_u8..3, 0_u8..3).prop_map(|(name, app, node)| Step::Put { name, app, node }),
        3 => (0_u8..10).prop_map(|name| Step::Remove { name }),
        1 => Just(Step::Compact),
        1 => (0_u8..20).prop_map(|back| Step::Watch { back }),
    ];
    prop::collection::vec(step, 1..80)
}

fn name_of(name: u8) -> String {
    format!("{}/p{name}", ["x", "y"][usize::from(name % 2)])
}

/// A client that follows a watch, and what it has seen.
struct Follower {
    watcher: Watcher,
    objects: BTreeMap<String, i64>,
    last: i64,
}

impl Follower {
    /// Takes what has been dispatched.
    fn follow(&mut self) {
        while let Some(item) = self.watcher.next().now_or_never() {
            match item.expect("nobody is slow here") {
                WatchItem::Event(event) => {
                    assert!(event.revision > self.last || self.last == 0, "in order and once");
                    let name = format!("{}/{}", event.object.index.namespace(), event.object.index.name());
                    let known = self.objects.contains_key(&name);
                    assert_eq!(known, event.kind != EventKind::Added, "{}", told(&WatchItem::Event(event.clone())));
                    match event.kind {
                        EventKind::Deleted => drop(self.objects.remove(&name)),
                        _ => drop(self.objects.insert(name, event.revision)),
                    }
                    self.last = event.revision;
                }
                WatchItem::Bookmark { .. } => self.last = 0,
            }
        }
    }
}

fn of_web(object: &CachedObject) -> bool {
    object.index.label("app") == Some("0")
}

fn matching(list: &Snapshot, node: Option<&str>) -> BTreeMap<String, i64> {
    let wanted = |object: &CachedObject| match node {
        Some(node) => object.index.field("spec.nodeName") == Some(node),
        None => of_web(object),
    };
    let items = list.range(None).filter(|(_, object)| wanted(object));
    items.map(|(key, object)| (key[PREFIX.len()..].to_owned(), object.revision)).collect()
}

async fn play(steps: Vec<Step>) {
    let World { store, cache, .. } = &world().await;
    let mut followers: Vec<(Option<&str>, Follower)> = Vec::new();
    let mut history = vec![cache.list(PREFIX, Freshness::Latest).await.unwrap()];
    for step in steps {
        match step {
            Step::Put { name, app, node } => {
                let name = name_of(name);
                write(&**store, &name, pod(&name, &app.to_string(), &format!("n{node}"))).await;
            }
            Step::Remove { name } => {
                if store.get(&key(&name_of(name))).await.unwrap().0.is_some() {
                    remove(&**store, &name_of(name)).await;
                }
            }
            Step::Compact => drop(store.compact(store.current_revision().await.unwrap()).await),
            Step::Watch { back } => {
                let then = &history[history.len().saturating_sub(1 + usize::from(back))];
                let node = (back % 2 == 0).then_some("n1");
                let start = request(WatchStart::After(then.revision));
                let request = match node {
                    Some(node) => {
                        let hot_field = Some(("spec.nodeName", node.to_owned()));
                        WatchRequest { scope: Scope { hot_field, ..Scope::default() }, ..start }
                    }
                    None => WatchRequest { predicate: Some(Arc::new(of_web)), ..start },
                };
                let watcher = cache.watch(request).await.unwrap();
                followers.push((node, Follower { watcher, objects: matching(then, node), last: 0 }));
            }
        }
        history.push(cache.list(PREFIX, Freshness::Latest).await.unwrap());
    }
    let end = history.last().unwrap();
    for (node, follower) in &mut followers {
        follower.follow();
        assert!(follower.watcher.bookmark_revision() >= end.revision);
        assert_eq!(follower.objects, matching(end, *node));
    }
    let consistency = cache.check_consistency().await.unwrap();
    assert!(consistency.is_consistent(), "{consistency:?}");
    for then in &history {
        let again = cache.exact(PREFIX, then.revision, None, 0).await.unwrap();
        assert_eq!(matching(&again, None), matching(then, None));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn the_cache_is_what_the_store_is(steps in steps()) {
        tokio::runtime::Runtime::new().unwrap().block_on(play(steps));
    }
}
