//! A store in an etcd v3 cluster, in upstream's layout.

mod compaction;
mod error;
mod lease;
#[cfg(test)]
pub(crate) mod tests;
mod watch;

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU8, Ordering},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, Error, GetOptions, GetResponse, Identity, KvClient,
    PutOptions, TlsOptions, Txn, TxnOp, TxnOpResponse, WatchOptions,
};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch as watch_channel};

use self::{
    error::{is_lease_gone, store_error},
    lease::Leases,
    watch::Running,
};
use crate::contract::{
    Expect, KeyValue, Range, RangePage, Store, StoreError, StoreWatch, WatchRange, Written, check_size, prefix_end,
};

/// Items asked for in one request.
const PAGE: usize = 1000;
/// Largest answer taken.
const MAX_MESSAGE: usize = 1 << 30;
/// A key to read for the sake of the answer's revision.
const PROBE_KEY: &str = "compact_rev_key";

/// Settings of an etcd store.
#[derive(Clone, Debug)]
pub struct EtcdOptions {
    /// URLs of the members.
    pub endpoints: Vec<String>,
    /// CA certificates, PEM.
    pub ca_file: Option<PathBuf>,
    /// Client certificate, PEM.
    pub cert_file: Option<PathBuf>,
    /// Client key, PEM.
    pub key_file: Option<PathBuf>,
    /// Put before every key; empty if callers use whole keys (`/registry/...`).
    pub root: String,
    /// Longest time any call takes.
    pub deadline: Duration,
    /// Longest time a lease is shared (`--lease-reuse-duration-seconds`); 60 s if `None`.
    pub lease_reuse: Option<Duration>,
}

impl EtcdOptions {
    /// The usual settings for these members.
    pub fn new(endpoints: Vec<String>) -> Self {
        Self {
            endpoints,
            ca_file: None,
            cert_file: None,
            key_file: None,
            root: String::new(),
            deadline: Duration::from_secs(10),
            lease_reuse: None,
        }
    }
}

/// Whether the cluster's progress answers can be relied on.
const UNKNOWN: u8 = 0;
const RELIABLE: u8 = 1;
const UNRELIABLE: u8 = 2;

/// The store.
pub struct EtcdStore {
    client: Client,
    endpoints: Vec<String>,
    connect: ConnectOptions,
    root: String,
    deadline: Duration,
    leases: Leases,
    progress: watch_channel::Sender<u64>,
    progress_is: AtomicU8,
    /// One reader of the revision at a time; those who come meanwhile share the next one's answer.
    revision_gate: Semaphore,
    last_revision: Mutex<Option<(Instant, i64)>>,
}

impl EtcdStore {
    /// Connects. Members that cannot be reached now are tried again with every call.
    pub async fn connect(options: EtcdOptions) -> Result<Self, StoreError> {
        if options.endpoints.is_empty() {
            return Err(StoreError::Invalid("no etcd endpoints".into()));
        }
        let mut connect = ConnectOptions::new()
            .with_connect_timeout(options.deadline.min(Duration::from_secs(5)))
            .with_keep_alive(Duration::from_secs(30), Duration::from_secs(10))
            .with_keep_alive_while_idle(true)
            .with_require_leader(true);
        if let Some(tls) = tls(&options).await? {
            connect = connect.with_tls(tls);
        }
        let client = Client::connect(&options.endpoints, Some(connect.clone())).await.map_err(store_error)?;
        let store = Self {
            client,
            endpoints: options.endpoints,
            connect,
            root: options.root,
            deadline: options.deadline,
            leases: Leases::new(options.lease_reuse),
            progress: watch_channel::Sender::new(0),
            progress_is: AtomicU8::new(UNKNOWN),
            revision_gate: Semaphore::new(1),
            last_revision: Mutex::new(None),
        };
        store.learn_version().await;
        Ok(store)
    }

    fn kv(&self) -> KvClient {
        self.client.kv_client().max_decoding_message_size(MAX_MESSAGE)
    }

    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.root)
    }

    async fn within<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, StoreError> {
        tokio::time::timeout(self.deadline, call).await.map_err(|_| StoreError::Timeout)?.map_err(store_error)
    }

    /// Finds out whether every member that can be reached reports progress in order with its events.
    async fn learn_version(&self) {
        let mut reliable = None;
        for endpoint in &self.endpoints {
            let status = async {
                let client = Client::connect([endpoint], Some(self.connect.clone())).await?;
                client.maintenance_client().status().await
            };
            match self.within(status).await {
                Ok(status) => {
                    let good = reports_progress_in_order(status.version());
                    reliable = Some(reliable.unwrap_or(true) && good);
                }
                Err(error) => tracing::warn!(endpoint, %error, "etcd does not answer"),
            }
        }
        if let Some(reliable) = reliable {
            self.progress_is.store(if reliable { RELIABLE } else { UNRELIABLE }, Ordering::Release);
        }
    }

    fn key_value(&self, kv: &etcd_client::KeyValue) -> Option<KeyValue> {
        let key = watch::key(&self.root, kv.key());
        if key.is_none() {
            tracing::warn!(revision = kv.mod_revision(), "a key in etcd is not text and is left out");
        }
        Some(KeyValue {
            key: key?,
            value: Bytes::copy_from_slice(kv.value()),
            create_revision: kv.create_revision(),
            mod_revision: kv.mod_revision(),
        })
    }

    /// Runs `then` if the key is as expected, and otherwise reads the key.
    async fn swap(&self, key: &str, expect: Expect, then: TxnOp) -> Result<Written, Error> {
        let expected = match expect {
            Expect::Absent => 0,
            Expect::Revision(revision) => revision,
        };
        let txn = Txn::new()
            .when([Compare::mod_revision(key, CompareOp::Equal, expected)])
            .and_then([then])
            .or_else([TxnOp::get(key, None)]);
        let answer = self.kv().txn(txn).await?;
        if answer.succeeded() {
            return Ok(Written::Done { revision: revision_of(answer.header()) });
        }
        let current = answer.op_responses().into_iter().find_map(|response| match response {
            TxnOpResponse::Get(found) => found.kvs().first().and_then(|kv| self.key_value(kv)),
            _ => None,
        });
        Ok(Written::Mismatch { current })
    }

    async fn get_page(&self, range: &Range<'_>, start: &str, limit: usize) -> Result<GetResponse, StoreError> {
        let mut options = GetOptions::new().with_limit(limit as i64);
        options = match prefix_end(&self.key(range.prefix)) {
            Some(end) => options.with_range(end),
            None => options.with_from_key(),
        };
        if let Some(revision) = range.revision {
            options = options.with_revision(revision);
        }
        let start = self.key(start);
        self.within(async { self.kv().get(start, Some(options)).await }).await
    }

    /// Puts numbers into errors that etcd gives without.
    async fn explain(&self, error: StoreError, requested: i64) -> StoreError {
        let current = match &error {
            StoreError::Compacted { current: 0, .. } | StoreError::FutureRevision { current: 0, .. } => {
                self.current_revision().await.unwrap_or(0)
            }
            _ => return error,
        };
        match error {
            StoreError::Compacted { .. } => StoreError::Compacted { compact_revision: requested + 1, current },
            _ => StoreError::FutureRevision { requested, current },
        }
    }
}

fn revision_of(header: Option<&etcd_client::ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision())
}

/// Before 3.4.25 and 3.5.8 an answer to a progress request may overtake events.
fn reports_progress_in_order(version: &str) -> bool {
    let mut parts = version.split(['.', '-', '+']).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    match version {
        (3, 4, patch) => patch >= 25,
        (3, 5, patch) => patch >= 8,
        _ => version >= (3, 6, 0),
    }
}

/// TLS settings from the files.
async fn tls(options: &EtcdOptions) -> Result<Option<TlsOptions>, StoreError> {
    async fn read(path: &PathBuf) -> Result<Vec<u8>, StoreError> {
        let wrong = |e| StoreError::Invalid(format!("read {}: {e}", path.display()));
        tokio::fs::read(path).await.map_err(wrong)
    }
    if !options.endpoints.iter().any(|endpoint| endpoint.starts_with("https://")) {
        return Ok(None);
    }
    let mut tls = TlsOptions::new();
    if let Some(ca) = &options.ca_file {
        tls = tls.ca_certificate(Certificate::from_pem(read(ca).await?));
    }
    match (&options.cert_file, &options.key_file) {
        (Some(cert), Some(key)) => {
            tls = tls.identity(Identity::from_pem(read(cert).await?, read(key).await?));
        }
        (None, None) => {}
        _ => return Err(StoreError::Invalid("etcd client certificate and key must be given together".into())),
    }
    Ok(Some(tls))
}

#[async_trait]
impl Store for EtcdStore {
    async fn get(&self, key: &str) -> Result<(Option<KeyValue>, i64), StoreError> {
        let key = self.key(key);
        let found = self.within(async { self.kv().get(key, None).await }).await?;
        Ok((found.kvs().first().and_then(|kv| self.key_value(kv)), revision_of(found.header())))
    }

    async fn range(&self, range: Range<'_>) -> Result<RangePage, StoreError> {
        let mut start = range.start.filter(|start| *start > range.prefix).unwrap_or(range.prefix).to_owned();
        let mut page = RangePage::default();
        let mut pinned = range;
        loop {
            let left = if range.limit == 0 { PAGE } else { (range.limit - page.items.len()).min(PAGE) };
            let found = match self.get_page(&pinned, &start, left).await {
                Ok(found) => found,
                Err(error) => return Err(self.explain(error, pinned.revision.unwrap_or(0)).await),
            };
            if pinned.revision.is_none() || page.revision == 0 {
                page.count = found.count();
                page.revision = range.revision.unwrap_or_else(|| revision_of(found.header()));
                pinned.revision = Some(page.revision);
            }
            page.items.extend(found.kvs().iter().filter_map(|kv| self.key_value(kv)));
            page.more = found.more();
            let full = range.limit > 0 && page.items.len() >= range.limit;
            match found.kvs().last().and_then(|kv| watch::key(&self.root, kv.key())) {
                Some(last) if page.more && !full => start = format!("{last}\0"),
                _ => return Ok(page),
            }
        }
    }

    async fn count(&self, prefix: &str) -> Result<i64, StoreError> {
        let key = self.key(prefix);
        let options = GetOptions::new().with_prefix().with_count_only();
        Ok(self.within(async { self.kv().get(key, Some(options)).await }).await?.count())
    }

    async fn put(&self, key: &str, value: Bytes, expect: Expect, ttl: Option<Duration>) -> Result<Written, StoreError> {
        check_size(key, &value)?;
        let key = self.key(key);
        let write = async {
            let Some(ttl) = ttl else {
                return self.swap(&key, expect, TxnOp::put(key.as_str(), value.as_ref(), None)).await;
            };
            loop {
                let lease = self.leases.lease(&self.client, ttl).await?;
                let put = TxnOp::put(key.as_str(), value.as_ref(), Some(PutOptions::new().with_lease(lease)));
                match self.swap(&key, expect, put).await {
                    Err(error) if is_lease_gone(&error) => self.leases.forget(lease),
                    outcome => return outcome,
                }
            }
        };
        self.within(write).await
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<Written, StoreError> {
        if expect == Expect::Absent || expect == Expect::Revision(0) {
            return Ok(Written::Mismatch { current: self.get(key).await?.0 });
        }
        let key = self.key(key);
        let removal = TxnOp::delete(key.as_str(), None);
        self.within(self.swap(&key, expect, removal)).await
    }

    async fn watch(&self, range: WatchRange<'_>) -> Result<StoreWatch, StoreError> {
        if self.progress_is.load(Ordering::Acquire) == UNKNOWN {
            self.learn_version().await;
        }
        let mut options = WatchOptions::new().with_prefix().with_start_revision(range.from).with_progress_notify();
        if range.previous {
            options = options.with_prev_key();
        }
        let key = self.key(range.prefix);
        let start = async {
            let mut client = self.client.watch_client().max_decoding_message_size(MAX_MESSAGE);
            client.watch(key, Some(options)).await
        };
        let (sender, responses) = self.within(start).await?.split();
        let mut progress = self.progress.subscribe();
        progress.mark_unchanged();
        let running = Running { sender, responses, progress, root: self.root.clone(), from: range.from };
        Ok(StoreWatch { batches: watch::batches(running), tide: None })
    }

    async fn compact(&self, revision: i64) -> Result<(), StoreError> {
        let compacted = self.within(async { self.kv().compact(revision, None).await }).await;
        match compacted {
            Ok(_) => Ok(()),
            Err(error) => Err(self.explain(error, revision).await),
        }
    }

    async fn current_revision(&self) -> Result<i64, StoreError> {
        let asked = Instant::now();
        let read = async {
            let permit = self.revision_gate.acquire().await.map_err(|_| StoreError::Closed)?;
            if let Some((started, revision)) = *self.last_revision.lock()
                && started >= asked
            {
                return Ok(revision);
            }
            let started = Instant::now();
            let options = GetOptions::new().with_count_only();
            let found = self.kv().get(PROBE_KEY, Some(options)).await.map_err(store_error)?;
            let revision = revision_of(found.header());
            *self.last_revision.lock() = Some((started, revision));
            drop(permit);
            Ok(revision)
        };
        tokio::time::timeout(self.deadline, read).await.map_err(|_| StoreError::Timeout)?
    }

    async fn request_progress(&self) -> Result<(), StoreError> {
        self.progress.send_modify(|count| *count = count.wrapping_add(1));
        Ok(())
    }

    fn proves_progress(&self) -> bool {
        self.progress_is.load(Ordering::Acquire) == RELIABLE
    }

    async fn unchanged_since(&self, prefix: &str, revision: i64, count: i64) -> Result<Option<i64>, StoreError> {
        let key = self.key(prefix);
        let options =
            GetOptions::new().with_prefix().with_keys_only().with_limit(1).with_min_mod_revision(revision + 1);
        let found = self.within(async { self.kv().get(key, Some(options)).await }).await?;
        // A key written since would be found; a key removed since would be missing in the count.
        Ok((found.kvs().is_empty() && found.count() == count).then(|| revision_of(found.header())))
    }

    async fn size_bytes(&self) -> Result<i64, StoreError> {
        let status = self.within(async { self.client.maintenance_client().status().await }).await?;
        Ok(status.db_size())
    }
}
