//! Limits on how often something is done.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use util::TokenBucket;

/// Tokens that refill over time; a rate of zero never limits.
pub(crate) struct Rate {
    per_second: f64,
    start: Instant,
    bucket: Mutex<TokenBucket>,
}

impl Rate {
    /// A full bucket.
    pub(crate) fn new(per_second: i32, burst: i32) -> Self {
        let per_second = f64::from(per_second.max(0));
        let bucket = TokenBucket::full(per_second, f64::from(burst.max(1)), Duration::ZERO);
        Self { per_second, start: Instant::now(), bucket: Mutex::new(bucket) }
    }

    /// Takes a token, if there is one.
    pub(crate) fn take(&self) -> bool {
        self.per_second <= 0.0 || self.bucket.lock().take(self.start.elapsed())
    }

    /// Takes a token, waiting for it.
    pub(crate) async fn wait(&self) {
        while !self.take() {
            tokio::time::sleep(Duration::from_secs_f64(1.0 / self.per_second.max(1.0))).await;
        }
    }
}
