//! Leases of keys that expire. One lease serves many keys written about the same time, since leases are dear.

use std::time::{Duration, Instant};

use etcd_client::{Client, Error};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

/// Longest time that a lease is handed out.
const REUSE: Duration = Duration::from_secs(60);
/// Part of the life asked for that a key may live longer, in percent.
const REUSE_PERCENT: u32 = 5;
/// Keys of one lease.
const MAX_KEYS: usize = 1000;

/// The leases being handed out, one for each life.
#[derive(Debug)]
pub(super) struct Leases {
    reuse: Duration,
    current: Mutex<Vec<Shared>>,
    granting: Semaphore,
}

#[derive(Debug)]
struct Shared {
    id: i64,
    ttl: Duration,
    until: Instant,
    keys: usize,
}

impl Leases {
    pub(super) fn new(reuse: Option<Duration>) -> Self {
        Self { reuse: reuse.unwrap_or(REUSE), current: Mutex::new(Vec::new()), granting: Semaphore::new(1) }
    }

    /// A lease for one more key that is to live for `ttl`.
    pub(super) async fn lease(&self, client: &Client, ttl: Duration) -> Result<i64, Error> {
        if let Some(id) = self.reusable(ttl) {
            return Ok(id);
        }
        let permit = self.granting.acquire().await.map_err(|e| Error::Internal(e.to_string()))?;
        if let Some(id) = self.reusable(ttl) {
            return Ok(id);
        }
        let reuse = self.reuse.min(ttl * REUSE_PERCENT / 100);
        let seconds = (ttl + reuse).as_secs_f64().ceil().max(1.0) as i64;
        let granted = client.lease_client().grant(seconds, None).await?;
        let lease = Shared { id: granted.id(), ttl, until: Instant::now() + reuse, keys: 1 };
        let mut current = self.current.lock();
        current.retain(|old| old.ttl != ttl && old.until > Instant::now());
        current.push(lease);
        drop(permit);
        Ok(granted.id())
    }

    fn reusable(&self, ttl: Duration) -> Option<i64> {
        let now = Instant::now();
        let mut current = self.current.lock();
        let lease = current.iter_mut().find(|lease| lease.ttl == ttl && lease.until > now && lease.keys < MAX_KEYS)?;
        lease.keys += 1;
        Some(lease.id)
    }

    /// Hands a lease out no more.
    pub(super) fn forget(&self, id: i64) {
        self.current.lock().retain(|lease| lease.id != id);
    }
}
