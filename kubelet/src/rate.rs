//! Limits on how often something is done.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Tokens that refill over time; a rate of zero never limits.
pub(crate) struct Rate {
    per_second: f64,
    burst: f64,
    state: Mutex<(f64, Instant)>,
}

impl Rate {
    /// A full bucket.
    pub(crate) fn new(per_second: i32, burst: i32) -> Self {
        let burst = f64::from(burst.max(1));
        Self { per_second: f64::from(per_second.max(0)), burst, state: Mutex::new((burst, Instant::now())) }
    }

    /// Takes a token, if there is one.
    pub(crate) fn take(&self) -> bool {
        if self.per_second <= 0.0 {
            return true;
        }
        let mut state = self.state.lock();
        let now = Instant::now();
        let refilled = state.0 + now.duration_since(state.1).as_secs_f64() * self.per_second;
        let tokens = refilled.min(self.burst);
        let taken = tokens >= 1.0;
        *state = (if taken { tokens - 1.0 } else { tokens }, now);
        taken
    }

    /// Takes a token, waiting for it.
    pub(crate) async fn wait(&self) {
        while !self.take() {
            tokio::time::sleep(Duration::from_secs_f64(1.0 / self.per_second.max(1.0))).await;
        }
    }
}
