//! The one way to wait in tests.

use std::time::{Duration, Instant};

/// Time after which a condition counts as never coming true.
const DEADLINE: Duration = Duration::from_secs(60);
/// Time between looks.
const INTERVAL: Duration = Duration::from_millis(20);

/// Waits until `look` answers `Ok`. Panics at the deadline with what was waited for and what was last seen.
pub async fn wait_until<T, F>(what: &str, look: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    wait_within(DEADLINE, what, look).await
}

/// [`wait_until`] for what takes long by nature, such as a machine that boots.
pub async fn wait_within<T, F>(deadline: Duration, what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let start = Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) if start.elapsed() > deadline => panic!("waited {deadline:?} for {what}; last seen: {seen}"),
            Err(_) => tokio::time::sleep(INTERVAL).await,
        }
    }
}
