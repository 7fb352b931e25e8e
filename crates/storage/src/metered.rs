//! A store whose requests are counted and timed for one resource. The metrics carry etcd's name whichever store it is:
//! dashboards know them so.

use std::{sync::Arc, time::Duration, time::Instant};

use async_trait::async_trait;
use bytes::Bytes;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

use crate::contract::{Expect, KeyValue, Range, RangePage, Store, StoreError, StoreWatch, WatchRange, Written};

const DURATION_BUCKETS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];

/// Metrics of all stores of a process.
#[derive(Clone)]
pub struct StoreMetrics {
    duration: HistogramVec,
    requests: IntCounterVec,
    errors: IntCounterVec,
    list_total: IntCounterVec,
    list_fetched: IntCounterVec,
    list_evaluated: IntCounterVec,
    list_returned: IntCounterVec,
    size: IntGaugeVec,
}

impl StoreMetrics {
    /// Registers the metrics.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let operation = &["operation", "group", "resource"];
        let resource = &["group", "resource"];
        let duration = HistogramVec::new(
            HistogramOpts::new("etcd_request_duration_seconds", "[ALPHA] Storage request latency in seconds.")
                .buckets(DURATION_BUCKETS.to_vec()),
            operation,
        )?;
        registry.register(Box::new(duration.clone()))?;
        let size = IntGaugeVec::new(
            Opts::new("apiserver_storage_size_bytes", "[STABLE] Size of the storage database in bytes."),
            &["storage_cluster_id"],
        )?;
        registry.register(Box::new(size.clone()))?;
        Ok(Self {
            duration,
            requests: counter("etcd_requests_total", "[ALPHA] Storage requests.", operation)?,
            errors: counter("etcd_request_errors_total", "[ALPHA] Storage requests that failed.", operation)?,
            list_total: counter("apiserver_storage_list_total", "[ALPHA] Lists served from storage.", resource)?,
            list_fetched: counter(
                "apiserver_storage_list_fetched_objects_total",
                "[ALPHA] Objects read from storage for lists.",
                resource,
            )?,
            list_evaluated: counter(
                "apiserver_storage_list_evaluated_objects_total",
                "[ALPHA] Objects tested for lists from storage.",
                resource,
            )?,
            list_returned: counter(
                "apiserver_storage_list_returned_objects_total",
                "[ALPHA] Objects returned by lists from storage.",
                resource,
            )?,
            size,
        })
    }

    /// Sets the size of a store's database.
    pub fn set_size(&self, cluster: &str, bytes: i64) {
        self.size.with_label_values(&[cluster]).set(bytes);
    }
}

/// A store as one resource uses it.
pub struct MeteredStore {
    inner: Arc<dyn Store>,
    metrics: StoreMetrics,
    group: String,
    resource: String,
}

impl MeteredStore {
    /// Counts what `group` and `resource` ask of `inner`.
    pub fn new(
        inner: Arc<dyn Store>,
        metrics: StoreMetrics,
        group: impl Into<String>,
        resource: impl Into<String>,
    ) -> Self {
        Self { inner, metrics, group: group.into(), resource: resource.into() }
    }

    async fn timed<T>(
        &self,
        operation: &str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let start = Instant::now();
        let span = spans::child(work(operation), spans::Kind::Client);
        let outcome = span.within(call).await;
        if span.is_sent() {
            span.set("group", self.group.clone());
            span.set("resource", self.resource.clone());
            if let Err(error) = &outcome {
                span.fail(error.to_string());
            }
        }
        drop(span);
        let labels = &[operation, self.group.as_str(), self.resource.as_str()];
        self.metrics.duration.with_label_values(labels).observe(start.elapsed().as_secs_f64());
        self.metrics.requests.with_label_values(labels).inc();
        if outcome.is_err() {
            self.metrics.errors.with_label_values(labels).inc();
        }
        outcome
    }
}

/// What a request is called in traces.
fn work(operation: &str) -> &'static str {
    match operation {
        "create" => "Create etcd3",
        "update" => "GuaranteedUpdate etcd3",
        "delete" => "Delete etcd3",
        "get" => "Get etcd3",
        _ => "List(recursive=true) etcd3",
    }
}

#[async_trait]
impl Store for MeteredStore {
    async fn get(&self, key: &str) -> Result<(Option<KeyValue>, i64), StoreError> {
        self.timed("get", self.inner.get(key)).await
    }

    async fn range(&self, range: Range<'_>) -> Result<RangePage, StoreError> {
        let page = self.timed("list", self.inner.range(range)).await?;
        let labels = &[self.group.as_str(), self.resource.as_str()];
        let count = page.items.len() as u64;
        self.metrics.list_total.with_label_values(labels).inc();
        for counter in [&self.metrics.list_fetched, &self.metrics.list_evaluated, &self.metrics.list_returned] {
            counter.with_label_values(labels).inc_by(count);
        }
        Ok(page)
    }

    async fn count(&self, prefix: &str) -> Result<i64, StoreError> {
        self.timed("listWithCount", self.inner.count(prefix)).await
    }

    async fn put(&self, key: &str, value: Bytes, expect: Expect, ttl: Option<Duration>) -> Result<Written, StoreError> {
        let operation = if expect == Expect::Absent { "create" } else { "update" };
        self.timed(operation, self.inner.put(key, value, expect, ttl)).await
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<Written, StoreError> {
        self.timed("delete", self.inner.delete(key, expect)).await
    }

    async fn watch(&self, range: WatchRange<'_>) -> Result<StoreWatch, StoreError> {
        self.inner.watch(range).await
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
        self.timed("listOnlyKeys", self.inner.unchanged_since(prefix, revision, count)).await
    }

    async fn size_bytes(&self) -> Result<i64, StoreError> {
        self.inner.size_bytes().await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.inner.ping().await
    }

    async fn is_stale(&self, key: &str) -> Result<bool, StoreError> {
        self.inner.is_stale(key).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{embedded::EmbeddedStore, suite::Subject};

    async fn subject(name: &str) -> (Subject, (tempfile::TempDir, Registry)) {
        let directory = tempfile::TempDir::new().unwrap();
        let registry = Registry::new();
        let metrics = StoreMetrics::register(&registry).unwrap();
        let inner = Arc::new(EmbeddedStore::open(directory.path(), Default::default()).await.unwrap());
        let store = Arc::new(MeteredStore::new(inner, metrics, "apps", "deployments"));
        (Subject::new(store, format!("/registry/{name}/")), (directory, registry))
    }

    #[tokio::test]
    async fn requests_are_counted_by_operation() {
        let (subject, (_directory, registry)) = subject("deployments").await;
        crate::suite::writes_are_conditional(&subject).await;
        let refused = subject.store.range(Range { revision: Some(1000), ..Range::default() }).await;
        assert!(refused.is_err());
        let families = registry.gather();
        let count = |name: &str, operation: &str| {
            let family = families.iter().find(|family| family.name() == name)?;
            let metric = family.get_metric().iter().find(|m| m.get_label().iter().any(|l| l.value() == operation))?;
            Some(metric.get_counter().get_value() as i64)
        };
        assert_eq!(count("etcd_requests_total", "create"), Some(3));
        assert_eq!(count("etcd_requests_total", "update"), Some(3));
        assert_eq!(count("etcd_requests_total", "delete"), Some(4));
        assert_eq!(count("etcd_request_errors_total", "list"), Some(1));
        assert_eq!(count("etcd_request_errors_total", "get"), None);
    }
}
