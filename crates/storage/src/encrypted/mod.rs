//! Encryption at rest: a store whose values are sealed before another store gets them.
//!
//! Sealed values begin `k8s:enc:<provider>:v1:<key name>:`, as upstream writes them, so that clusters can move here and
//! back with the same keys. A value that no provider of its resource can open is passed on as it is: whoever decodes it
//! finds that it is no object.

mod provider;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;

pub use provider::{Algorithm, KeyError, Provider};

use crate::contract::{Expect, KeyValue, Range, RangePage, Store, StoreError, StoreWatch, WatchRange, Written};

/// What every sealed value begins with.
pub const SEALED: &[u8] = b"k8s:enc:";

/// How the values under some prefixes are sealed.
#[derive(Debug, Default)]
pub struct Rules(Vec<(String, Vec<Provider>)>);

impl Rules {
    /// `rules`: key prefixes and their providers, of which the first seals. For a key, the first rule with its prefix
    /// counts.
    pub fn new(rules: Vec<(String, Vec<Provider>)>) -> Self {
        Self(rules)
    }

    fn of(&self, key: &str) -> &[Provider] {
        self.0.iter().find(|(prefix, _)| key.starts_with(prefix.as_str())).map_or(&[], |(_, providers)| providers)
    }

    fn seal(&self, key: &str, value: Bytes) -> Result<Bytes, StoreError> {
        match self.of(key).first() {
            None => Ok(value),
            Some(provider) => {
                provider.seal(key, &value).ok_or_else(|| StoreError::Invalid("the value cannot be encrypted".into()))
            }
        }
    }

    fn open(&self, key: &str, value: Bytes) -> Bytes {
        if !value.starts_with(SEALED) {
            return value;
        }
        self.of(key).iter().find_map(|provider| provider.open(key, &value)).unwrap_or(value)
    }

    /// Whether a stored value is not as it would be written now.
    fn is_stale(&self, key: &str, value: &[u8]) -> bool {
        self.of(key).first().is_some_and(|provider| !provider.has_sealed(value))
    }
}

/// A store with sealed values.
pub struct EncryptedStore {
    inner: Arc<dyn Store>,
    rules: Arc<Rules>,
}

impl EncryptedStore {
    /// Seals what goes into `inner`.
    pub fn new(inner: Arc<dyn Store>, rules: Rules) -> Self {
        Self { inner, rules: Arc::new(rules) }
    }

    fn opened(&self, mut found: KeyValue) -> KeyValue {
        found.value = self.rules.open(&found.key, found.value);
        found
    }

    fn written(&self, written: Written) -> Written {
        match written {
            Written::Mismatch { current } => Written::Mismatch { current: current.map(|found| self.opened(found)) },
            done => done,
        }
    }
}

#[async_trait]
impl Store for EncryptedStore {
    async fn get(&self, key: &str) -> Result<(Option<KeyValue>, i64), StoreError> {
        let (found, revision) = self.inner.get(key).await?;
        Ok((found.map(|found| self.opened(found)), revision))
    }

    async fn range(&self, range: Range<'_>) -> Result<RangePage, StoreError> {
        let mut page = self.inner.range(range).await?;
        page.items = page.items.into_iter().map(|found| self.opened(found)).collect();
        Ok(page)
    }

    async fn count(&self, prefix: &str) -> Result<i64, StoreError> {
        self.inner.count(prefix).await
    }

    async fn put(&self, key: &str, value: Bytes, expect: Expect, ttl: Option<Duration>) -> Result<Written, StoreError> {
        let sealed = self.rules.seal(key, value)?;
        Ok(self.written(self.inner.put(key, sealed, expect, ttl).await?))
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<Written, StoreError> {
        Ok(self.written(self.inner.delete(key, expect).await?))
    }

    async fn watch(&self, range: WatchRange<'_>) -> Result<StoreWatch, StoreError> {
        let StoreWatch { batches, tide } = self.inner.watch(range).await?;
        let rules = Arc::clone(&self.rules);
        let batches = batches.map(move |batch| {
            let mut batch = batch?;
            for event in &mut batch.events {
                event.value = rules.open(&event.key, std::mem::take(&mut event.value));
                event.previous = event.previous.take().map(|previous| rules.open(&event.key, previous));
            }
            Ok(batch)
        });
        Ok(StoreWatch { batches: batches.boxed(), tide })
    }

    async fn compact(&self, revision: i64) -> Result<(), StoreError> {
        self.inner.compact(revision).await
    }

    async fn current_revision(&self) -> Result<i64, StoreError> {
        self.inner.current_revision().await
    }

    async fn request_progress(&self) -> Result<(), StoreError> {
        self.inner.request_progress().await
    }

    fn proves_progress(&self) -> bool {
        self.inner.proves_progress()
    }

    async fn unchanged_since(&self, prefix: &str, revision: i64, count: i64) -> Result<Option<i64>, StoreError> {
        self.inner.unchanged_since(prefix, revision, count).await
    }

    async fn size_bytes(&self) -> Result<i64, StoreError> {
        self.inner.size_bytes().await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.inner.ping().await
    }

    async fn is_stale(&self, key: &str) -> Result<bool, StoreError> {
        if self.rules.of(key).is_empty() {
            return Ok(false);
        }
        let (found, _) = self.inner.get(key).await?;
        Ok(found.is_some_and(|found| self.rules.is_stale(key, &found.value)))
    }
}
