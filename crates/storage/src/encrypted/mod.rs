//! Encryption at rest: a store whose values are sealed before another store gets them.
//!
//! Sealed values begin `k8s:enc:<provider>:v1:<key name>:`, as upstream writes them, so that clusters can move here and
//! back with the same keys. A value that no provider of its resource can open is passed on as it is: whoever decodes it
//! finds that it is no object.

mod provider;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;

pub use provider::{Algorithm, KeyError, Provider};

use crate::contract::{Expect, KeyValue, Range, RangePage, Store, StoreError, StoreWatch, WatchRange, Written};

/// What every sealed value begins with.
pub const SEALED: &[u8] = b"k8s:enc:";

/// Seals values with keys that something else keeps.
#[async_trait]
pub trait Envelope: fmt::Debug + Send + Sync {
    /// What all values begin with that it has sealed.
    fn prefix(&self) -> &[u8];

    /// The stored form of a value, with the key at hand.
    fn seal(&self, key: &str, value: &[u8]) -> Result<Bytes, String>;

    /// The plain value of what it has sealed; may ask for the key.
    async fn open(&self, key: &str, sealed: &[u8]) -> Result<Bytes, String>;

    /// Whether it would seal with the same key now.
    fn is_current(&self, sealed: &[u8]) -> bool;
}

/// One way to seal and open values.
#[derive(Clone, Debug)]
pub enum Sealer {
    /// A key that is known.
    Key(Provider),
    /// Keys that something else keeps.
    Envelope(Arc<dyn Envelope>),
}

impl From<Provider> for Sealer {
    fn from(provider: Provider) -> Self {
        Self::Key(provider)
    }
}

/// How the values under some prefixes are sealed.
#[derive(Debug, Default)]
pub struct Rules(Vec<(String, Vec<Sealer>)>);

impl Rules {
    /// `rules`: key prefixes and their sealers, of which the first seals. For a key, the first rule with its prefix
    /// counts.
    pub fn new(rules: Vec<(String, Vec<Sealer>)>) -> Self {
        Self(rules)
    }

    fn of(&self, key: &str) -> &[Sealer] {
        self.0.iter().find(|(prefix, _)| key.starts_with(prefix.as_str())).map_or(&[], |(_, sealers)| sealers)
    }

    fn seal(&self, key: &str, value: Bytes) -> Result<Bytes, StoreError> {
        match self.of(key).first() {
            None => Ok(value),
            Some(Sealer::Key(provider)) => {
                provider.seal(key, &value).ok_or_else(|| StoreError::Invalid("the value cannot be encrypted".into()))
            }
            Some(Sealer::Envelope(envelope)) => envelope.seal(key, &value).map_err(StoreError::Unavailable),
        }
    }

    async fn open(&self, key: &str, value: Bytes) -> Result<Bytes, StoreError> {
        if !value.starts_with(SEALED) {
            return Ok(value);
        }
        for sealer in self.of(key) {
            match sealer {
                Sealer::Key(provider) => {
                    if let Some(plain) = provider.open(key, &value) {
                        return Ok(plain);
                    }
                }
                Sealer::Envelope(envelope) if value.starts_with(envelope.prefix()) => {
                    return envelope.open(key, &value).await.map_err(StoreError::Unavailable);
                }
                Sealer::Envelope(_) => {}
            }
        }
        Ok(value)
    }

    /// Whether a stored value is not as it would be written now.
    fn is_stale(&self, key: &str, value: &[u8]) -> bool {
        self.of(key).first().is_some_and(|sealer| match sealer {
            Sealer::Key(provider) => !provider.has_sealed(value),
            Sealer::Envelope(envelope) => !value.starts_with(envelope.prefix()) || !envelope.is_current(value),
        })
    }
}

/// Rules that can be replaced while the store is in use.
#[derive(Clone, Debug, Default)]
pub struct SharedRules(Arc<ArcSwap<Rules>>);

impl SharedRules {
    /// With rules to begin with.
    pub fn new(rules: Rules) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(rules)))
    }

    /// Other rules from now on.
    pub fn replace(&self, rules: Rules) {
        self.0.store(Arc::new(rules));
    }

    fn now(&self) -> Arc<Rules> {
        self.0.load_full()
    }
}

/// A store with sealed values.
pub struct EncryptedStore {
    inner: Arc<dyn Store>,
    rules: SharedRules,
}

impl EncryptedStore {
    /// Seals what goes into `inner`.
    pub fn new(inner: Arc<dyn Store>, rules: SharedRules) -> Self {
        Self { inner, rules }
    }

    async fn opened(&self, mut found: KeyValue) -> Result<KeyValue, StoreError> {
        found.value = self.rules.now().open(&found.key, found.value).await?;
        Ok(found)
    }

    async fn written(&self, written: Written) -> Result<Written, StoreError> {
        match written {
            Written::Mismatch { current: Some(found) } => {
                Ok(Written::Mismatch { current: Some(self.opened(found).await?) })
            }
            other => Ok(other),
        }
    }
}

#[async_trait]
impl Store for EncryptedStore {
    async fn get(&self, key: &str) -> Result<(Option<KeyValue>, i64), StoreError> {
        let (found, revision) = self.inner.get(key).await?;
        let found = match found {
            Some(found) => Some(self.opened(found).await?),
            None => None,
        };
        Ok((found, revision))
    }

    async fn range(&self, range: Range<'_>) -> Result<RangePage, StoreError> {
        let mut page = self.inner.range(range).await?;
        let rules = self.rules.now();
        for found in &mut page.items {
            found.value = rules.open(&found.key, std::mem::take(&mut found.value)).await?;
        }
        Ok(page)
    }

    async fn count(&self, prefix: &str) -> Result<i64, StoreError> {
        self.inner.count(prefix).await
    }

    async fn put(&self, key: &str, value: Bytes, expect: Expect, ttl: Option<Duration>) -> Result<Written, StoreError> {
        let sealed = self.rules.now().seal(key, value)?;
        self.written(self.inner.put(key, sealed, expect, ttl).await?).await
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<Written, StoreError> {
        self.written(self.inner.delete(key, expect).await?).await
    }

    async fn watch(&self, range: WatchRange<'_>) -> Result<StoreWatch, StoreError> {
        let StoreWatch { batches, tide } = self.inner.watch(range).await?;
        let rules = self.rules.clone();
        let batches = batches.then(move |batch| {
            let rules = rules.now();
            async move {
                let mut batch = batch?;
                for event in &mut batch.events {
                    event.value = rules.open(&event.key, std::mem::take(&mut event.value)).await?;
                    if let Some(previous) = event.previous.take() {
                        event.previous = Some(rules.open(&event.key, previous).await?);
                    }
                }
                Ok(batch)
            }
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
        let rules = self.rules.now();
        if rules.of(key).is_empty() {
            return Ok(false);
        }
        let (found, _) = self.inner.get(key).await?;
        Ok(found.is_some_and(|found| rules.is_stale(key, &found.value)))
    }
}
