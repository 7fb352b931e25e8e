//! Texts that many objects share (namespaces, labels, node names), held once.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    sync::{Arc, LazyLock},
};

use parking_lot::Mutex;

const SHARDS: usize = 16;

struct Interner {
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Default)]
struct Shard {
    texts: HashSet<Arc<str>>,
    sweep_at: usize,
}

static INTERNER: LazyLock<Interner> =
    LazyLock::new(|| Interner { hasher: RandomState::new(), shards: Default::default() });

/// The shared copy of a text. Texts that nobody holds any more are swept out as the table grows.
pub(crate) fn intern(text: &str) -> Arc<str> {
    let shard = (INTERNER.hasher.hash_one(text) as usize) % SHARDS;
    let mut shard = INTERNER.shards[shard].lock();
    if let Some(shared) = shard.texts.get(text) {
        return Arc::clone(shared);
    }
    if shard.texts.len() >= shard.sweep_at.max(256) {
        shard.texts.retain(|text| Arc::strong_count(text) > 1);
        let left = shard.texts.len();
        shard.texts.shrink_to(left * 2);
        shard.sweep_at = left * 2;
    }
    let shared: Arc<str> = Arc::from(text);
    shard.texts.insert(Arc::clone(&shared));
    shared
}
