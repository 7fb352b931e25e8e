//! Comparison of a cache with its store.

use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;

use super::{Cache, Freshness, StoreError};
use crate::contract::Range;

const PAGE: usize = 500;

/// Outcome of a comparison at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consistency {
    /// The revision.
    pub revision: i64,
    /// Digest of the cache's keys, revisions and bytes.
    pub cache: u64,
    /// Digest of the store's.
    pub store: u64,
    /// The first key at which they differ.
    pub differs_at: Option<String>,
}

impl Consistency {
    /// Whether they are the same.
    pub fn is_consistent(&self) -> bool {
        self.cache == self.store && self.differs_at.is_none()
    }
}

impl Cache {
    /// Compares the cache with the store at the cache's revision.
    pub async fn check_consistency(&self) -> Result<Consistency, StoreError> {
        let core = self.core();
        let outcome = self.compare().await;
        core.metrics.consistency_check(match &outcome {
            Ok(consistency) if consistency.is_consistent() => "success",
            Ok(_) => "failure",
            Err(_) => "error",
        });
        outcome
    }

    async fn compare(&self) -> Result<Consistency, StoreError> {
        let core = self.core();
        let prefix = core.options.prefix.as_str();
        let snapshot = self.list(prefix, Freshness::Any).await?;
        let mut cached = snapshot.range(None);
        let (mut ours, mut theirs) = (DefaultHasher::new(), DefaultHasher::new());
        let mut differs_at = None;
        let mut start: Option<String> = None;
        loop {
            let range = Range { prefix, start: start.as_deref(), limit: PAGE, revision: Some(snapshot.revision) };
            let page = core.store.range(range).await?;
            for kv in &page.items {
                let Ok(object) = core.codec.ingest(&kv.key, &kv.value, kv.mod_revision) else { continue };
                digest(&mut theirs, &kv.key, kv.mod_revision, &object.json);
                let found = cached.next();
                if let Some((key, object)) = found {
                    digest(&mut ours, key, object.revision, &object.json);
                }
                let same = found.is_some_and(|(key, cached)| key == kv.key && cached.json == object.json);
                if !same && differs_at.is_none() {
                    differs_at = Some(kv.key.clone());
                }
            }
            start = page.items.last().map(|last| format!("{}\0", last.key));
            if !page.more || start.is_none() {
                break;
            }
        }
        for (key, object) in cached {
            digest(&mut ours, key, object.revision, &object.json);
            differs_at.get_or_insert_with(|| key.to_owned());
        }
        Ok(Consistency { revision: snapshot.revision, cache: ours.finish(), store: theirs.finish(), differs_at })
    }
}

fn digest(hasher: &mut DefaultHasher, key: &str, revision: i64, json: &[u8]) {
    hasher.write(key.as_bytes());
    hasher.write_i64(revision);
    hasher.write(json);
}
