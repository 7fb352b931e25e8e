//! One stored resource: its key layout, codec, store and watch cache, and the compare-and-swap operations on it.

use std::{
    collections::BTreeMap,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use machinery::{ApiError, ApiResult, GroupResource, GroupVersionKind, meta};
use rules::strategy::Strategy;
use serde_json::Value;
use storage::{
    cache::{Cache, CacheMetrics, CacheOptions, CachedObject, Codec, Freshness},
    contract::{Expect, KeyValue, Store, StoreError, Written},
};

use crate::{
    codec::{self, KindCodec},
    verbs::list::HOT_FIELD,
};

/// A strategy that lives as long as the process or as its definition.
#[derive(Clone)]
pub enum StrategyRef {
    /// Of a built-in kind.
    Static(&'static dyn Strategy),
    /// Of a custom resource.
    Shared(Arc<dyn Strategy>),
}

impl Deref for StrategyRef {
    type Target = dyn Strategy;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Static(strategy) => *strategy,
            Self::Shared(strategy) => &**strategy,
        }
    }
}

/// The form in which objects are written to the store. What is there may have any of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoredMedia {
    /// JSON, which is also what is served from.
    #[default]
    Json,
    /// YAML.
    Yaml,
    /// Protobuf, where the kind has a message; else JSON.
    Protobuf,
}

/// How a server keeps its resources.
#[derive(Clone)]
pub struct Keeping {
    /// Metrics of the watch caches.
    pub metrics: CacheMetrics,
    /// Whether reads may be served from the watch cache as it is. Otherwise every read shows the present state.
    pub watch_cache: bool,
    /// Resources whose watch cache is on or off by name.
    pub watch_caches: BTreeMap<GroupResource, bool>,
    /// Whether the others have one.
    pub unnamed_watch_caches: bool,
    /// Whether somebody collects garbage, so that deletes may leave dependents to them.
    pub collects_garbage: bool,
    /// The form of stored objects.
    pub media: StoredMedia,
    /// How often objects are counted for the metrics; zero for never.
    pub count_period: Duration,
}

impl Keeping {
    /// As a server without any flags.
    pub fn new(metrics: CacheMetrics) -> Self {
        Self {
            metrics,
            watch_cache: true,
            watch_caches: BTreeMap::new(),
            unnamed_watch_caches: true,
            collects_garbage: true,
            media: StoredMedia::Json,
            count_period: Duration::from_secs(60),
        }
    }

    fn caches(&self, resource: &GroupResource) -> bool {
        self.watch_cache && self.watch_caches.get(resource).copied().unwrap_or(self.unnamed_watch_caches)
    }
}

/// Time for which changes are kept for watches of resources without a watch cache: a store keeps them until it is
/// compacted.
const UNCACHED_HISTORY: Duration = Duration::from_secs(600);

/// A stored resource, shared by all versions it is served in.
pub struct Resource {
    /// Kind of the stored form.
    pub gvk: GroupVersionKind,
    /// Group and plural.
    pub group_resource: GroupResource,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Behaviour of the kind.
    pub strategy: StrategyRef,
    /// Life of stored objects (Events), or for ever.
    pub ttl: Option<Duration>,
    /// Whether deletes leave dependents to the garbage collector.
    pub collects_garbage: bool,
    watch_cache: bool,
    media: StoredMedia,
    prefix: String,
    codec: Arc<KindCodec>,
    store: Arc<dyn Store>,
    cache: Cache,
    /// Revision of the last change that this server made.
    written: AtomicI64,
}

/// An object as it stands in the store, decoded, with its resourceVersion.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The object, `metadata.resourceVersion` set.
    pub object: Value,
    /// Revision of its last write.
    pub revision: i64,
}

/// What became of a compare-and-swap.
#[derive(Debug)]
pub enum Swap {
    /// Done; the object as served now.
    Done(Bytes),
    /// Somebody else was first; the present state, `None` if it is gone.
    Lost(Option<Stored>),
}

impl Resource {
    /// Wires a resource. `prefix` is its key prefix with a trailing slash.
    pub fn new(
        gvk: GroupVersionKind,
        group_resource: GroupResource,
        namespaced: bool,
        strategy: StrategyRef,
        prefix: String,
        store: Arc<dyn Store>,
        keeping: &Keeping,
    ) -> Self {
        let codec = Arc::new(KindCodec::new(&gvk.api_version(), &gvk.kind, strategy.clone()));
        let mut options = CacheOptions::new(&group_resource.group, &group_resource.resource, &prefix);
        if strategy.selectable_fields().iter().any(|f| f.label == HOT_FIELD) {
            options.hot_fields = &[HOT_FIELD];
        }
        options.count_period = keeping.count_period;
        let watch_cache = keeping.caches(&group_resource);
        if !watch_cache {
            options.ring_age = UNCACHED_HISTORY;
        }
        let cache = Cache::new(options, Arc::clone(&store), Arc::clone(&codec) as Arc<dyn Codec>, &keeping.metrics);
        let media = match keeping.media {
            StoredMedia::Protobuf if !api::encode::is_registered(&gvk) => StoredMedia::Json,
            media => media,
        };
        Self {
            gvk,
            group_resource,
            namespaced,
            strategy,
            ttl: None,
            collects_garbage: keeping.collects_garbage,
            watch_cache,
            media,
            prefix,
            codec,
            store,
            cache,
            written: AtomicI64::new(0),
        }
    }

    /// Whether a client finds states here that are not the present one.
    pub fn has_watch_cache(&self) -> bool {
        self.watch_cache
    }

    /// What a client gets that wishes for this freshness.
    pub fn freshness(&self, wished: Freshness) -> Freshness {
        match wished {
            Freshness::Any if !self.watch_cache => Freshness::Latest,
            other => other,
        }
    }

    /// The watch cache.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The codec.
    pub fn codec(&self) -> &KindCodec {
        &self.codec
    }

    /// Key prefix of a namespace, or of the whole resource when `namespace` is empty. Ends in `/`.
    pub fn key_prefix(&self, namespace: &str) -> ApiResult<String> {
        if namespace.is_empty() || !self.namespaced {
            return Ok(self.prefix.clone());
        }
        check_segment(namespace)?;
        Ok(format!("{}{namespace}/", self.prefix))
    }

    /// Key of one object. Names that could leave their place in the key space are refused.
    pub fn key(&self, namespace: &str, name: &str) -> ApiResult<String> {
        check_segment(name)?;
        if self.namespaced && namespace.is_empty() {
            return Err(ApiError::bad_request("namespace is required"));
        }
        Ok(format!("{}{name}", self.key_prefix(namespace)?))
    }

    /// The object in the cache at the given freshness. 404 when there is none.
    pub async fn get(&self, namespace: &str, name: &str, freshness: Freshness) -> ApiResult<Arc<CachedObject>> {
        let key = self.key(namespace, name)?;
        let (object, _) = self.cache.get(&key, freshness).await.map_err(|e| self.store_error(e))?;
        object.ok_or_else(|| ApiError::not_found(&self.group_resource, name))
    }

    /// The object as decisions about access need it: with every change that this server has acknowledged, so that what
    /// was revoked here is revoked at once. An object that the cache lacks is looked for in the present state.
    pub async fn get_settled(&self, namespace: &str, name: &str) -> ApiResult<Arc<CachedObject>> {
        let written = Freshness::AtLeast(self.written.load(Ordering::Acquire));
        match self.get(namespace, name, written).await {
            Ok(found) => Ok(found),
            Err(error) if error.is_not_found() => self.get(namespace, name, Freshness::Latest).await,
            Err(_) => self.get(namespace, name, Freshness::Any).await,
        }
    }

    /// The object decoded, from the cache as it is: a starting point for compare-and-swap. Falls back to the store
    /// when the cache does not have it.
    pub async fn starting_point(&self, namespace: &str, name: &str) -> ApiResult<Option<Stored>> {
        let key = self.key(namespace, name)?;
        match self.cache.get(&key, Freshness::Any).await {
            Ok((Some(cached), _)) => decode_cached(&cached).map(Some),
            _ => self.current(namespace, name).await,
        }
    }

    /// The object decoded, read from the store itself.
    pub async fn current(&self, namespace: &str, name: &str) -> ApiResult<Option<Stored>> {
        let key = self.key(namespace, name)?;
        let (found, _) = self.store.get(&key).await.map_err(|e| self.store_error(e))?;
        found.map(|kv| self.decode(&kv)).transpose()
    }

    /// Stores a new object; `Swap::Lost` with the present one if the key is taken.
    pub async fn insert(&self, object: &Value) -> ApiResult<Swap> {
        self.swap(object, Expect::Absent).await
    }

    /// Stores an object over revision `expected`.
    pub async fn replace(&self, object: &Value, expected: i64) -> ApiResult<Swap> {
        self.swap(object, Expect::Revision(expected)).await
    }

    async fn swap(&self, object: &Value, expect: Expect) -> ApiResult<Swap> {
        let key = self.key(meta::namespace(object), meta::name(object))?;
        let value = Bytes::from(self.codec.encode(object).map_err(ApiError::internal)?);
        let stored = match self.media {
            StoredMedia::Json => value.clone(),
            StoredMedia::Yaml => codec::yaml(&value).map_err(ApiError::internal)?,
            StoredMedia::Protobuf => codec::protobuf(&value).map_err(ApiError::internal)?,
        };
        match self.store.put(&key, stored, expect, self.ttl).await.map_err(|e| self.store_error(e))? {
            Written::Done { revision } => {
                self.written.fetch_max(revision, Ordering::AcqRel);
                let served = self.codec.with_revision(&value, revision);
                served.map(Swap::Done).ok_or_else(|| ApiError::internal("object lost its stored form"))
            }
            Written::Mismatch { current } => Ok(Swap::Lost(current.map(|kv| self.decode(&kv)).transpose()?)),
        }
    }

    /// Stores what `correct` makes of the present object, anew if somebody else writes in between, until there is nothing
    /// to correct (`None`) or no object.
    pub async fn amend(
        &self,
        mut present: Option<Stored>,
        mut correct: impl FnMut(&Value) -> Option<Value>,
    ) -> ApiResult<()> {
        while let Some(stored) = present.take() {
            let Some(new) = correct(&stored.object) else { break };
            if let Swap::Lost(current) = self.replace(&new, stored.revision).await? {
                present = current;
            }
        }
        Ok(())
    }

    /// Removes the object at revision `expected`. `Ok(Ok(revision))` is the revision of the removal.
    pub async fn remove(&self, namespace: &str, name: &str, expected: i64) -> ApiResult<Result<i64, Option<Stored>>> {
        let key = self.key(namespace, name)?;
        match self.store.delete(&key, Expect::Revision(expected)).await.map_err(|e| self.store_error(e))? {
            Written::Done { revision } => {
                self.written.fetch_max(revision, Ordering::AcqRel);
                Ok(Ok(revision))
            }
            Written::Mismatch { current } => Ok(Err(current.map(|kv| self.decode(&kv)).transpose()?)),
        }
    }

    /// Whether the stored form of an object is not the present one, so that it is written although it does not change.
    pub async fn is_stale(&self, namespace: &str, name: &str) -> ApiResult<bool> {
        self.store.is_stale(&self.key(namespace, name)?).await.map_err(|e| self.store_error(e))
    }

    fn decode(&self, kv: &KeyValue) -> ApiResult<Stored> {
        let cached = self.codec.ingest(&kv.key, &kv.value, kv.mod_revision).map_err(ApiError::internal)?;
        decode_cached(&cached)
    }

    /// Whether `spec.nodeName` is looked up without scanning.
    pub fn has_hot_field(&self) -> bool {
        self.strategy.selectable_fields().iter().any(|f| f.label == HOT_FIELD)
    }

    /// A store failure as the client sees it.
    pub fn store_error(&self, error: StoreError) -> ApiError {
        match error {
            StoreError::Compacted { .. } => ApiError::expired("The resourceVersion for the provided list is too old."),
            StoreError::FutureRevision { requested, current } => {
                ApiError::too_large_resource_version(requested, current)
            }
            StoreError::NotReady => ApiError::too_many_requests("storage is (re)initializing", 1),
            StoreError::Timeout => ApiError::timeout("storage did not answer in time", 0),
            StoreError::TooLarge { .. } => ApiError::too_large(format!("Request entity too large: {error}")),
            StoreError::Full => ApiError::internal("etcdserver: mvcc: database space exceeded"),
            StoreError::Unavailable(_) | StoreError::Closed => {
                tracing::warn!(%error, "store unavailable");
                ApiError::new(500, machinery::Reason::ServerTimeout, "the store is unavailable").retry_after(1)
            }
            StoreError::Corrupt(_) | StoreError::Invalid(_) => {
                tracing::error!(%error, resource = %self.group_resource, "store failed");
                ApiError::internal("the store failed")
            }
        }
    }

    /// As [`Self::store_error`] for a watch that starts after `wanted`.
    pub fn watch_error(&self, error: StoreError, wanted: &str) -> ApiError {
        match error {
            StoreError::Compacted { compact_revision, .. } => {
                ApiError::expired(format!("too old resource version: {wanted} ({compact_revision})"))
            }
            other => self.store_error(other),
        }
    }
}

/// Decodes a cached object.
pub fn decode_cached(cached: &CachedObject) -> ApiResult<Stored> {
    let object = serde_json::from_slice(&cached.json).map_err(ApiError::internal)?;
    Ok(Stored { object, revision: cached.revision })
}

/// Refuses path segments that could cross key prefixes.
fn check_segment(segment: &str) -> ApiResult<()> {
    let bad = segment.is_empty()
        || segment == "."
        || segment == ".."
        || segment.bytes().any(|b| b == b'/' || b == b'%' || b == 0);
    if bad { Err(ApiError::bad_request(format!("invalid path segment {segment:?}"))) } else { Ok(()) }
}
