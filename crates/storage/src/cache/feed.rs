//! The task that fills a cache and keeps it following its store.

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use super::{core::Core, pace::Pace};
use crate::contract::{Range, StoreError, StoreWatch, WatchRange};

/// Objects read at a time when the cache is filled.
const FILL_PAGE: usize = 500;
/// Time between requests for progress while readers wait.
const HURRY_PERIOD: Duration = Duration::from_millis(100);
const HOUSEKEEPING_PERIOD: Duration = Duration::from_secs(5);
/// Time between requests for progress for the sake of bookmarks, and between releases of unused encodings.
const SLOW_PERIOD: Duration = Duration::from_secs(30);
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LAST_DELAY: Duration = Duration::from_secs(5);

/// Feeds a cache until the store is closed.
pub(super) async fn run(core: Arc<Core>) {
    let mut delay = FIRST_DELAY;
    let mut filled = false;
    loop {
        let outcome = if filled { follow(&core, &mut delay).await } else { fill(&core).await };
        match outcome {
            Ok(()) => filled = true,
            Err(StoreError::Closed) => break,
            Err(error) => {
                core.state.write().tide = None;
                // The place in the history is lost only with these two; otherwise the watch is resumed.
                let lost = matches!(error, StoreError::Compacted { .. } | StoreError::FutureRevision { .. });
                filled &= !lost;
                tracing::warn!(prefix = core.options.prefix, %error, refill = !filled, "the watch cache lost its store");
                sleep(jittered(delay)).await;
                delay = (delay * 2).min(LAST_DELAY);
            }
        }
    }
    core.close();
}

/// Between half of and the whole delay.
fn jittered(delay: Duration) -> Duration {
    let random = RandomState::new().hash_one(0_u8) as u32;
    delay / 2 + (delay / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// Reads everything, at one revision.
async fn fill(core: &Core) -> Result<(), StoreError> {
    let prefix = core.options.prefix.as_str();
    let mut items = Vec::new();
    let mut revision = None;
    let mut start: Option<String> = None;
    loop {
        let range = Range { prefix, start: start.as_deref(), limit: FILL_PAGE, revision };
        let page = core.store.range(range).await?;
        revision = Some(page.revision);
        start = page.items.last().map(|last| format!("{}\0", last.key));
        for kv in &page.items {
            items.push((Arc::from(kv.key.as_str()), core.ingest(&kv.key, &kv.value, kv.mod_revision)));
        }
        if !page.more || page.items.is_empty() {
            core.install(items, page.revision);
            return Ok(());
        }
    }
}

/// Applies what the store's watch brings, until it fails.
async fn follow(core: &Core, delay: &mut Duration) -> Result<(), StoreError> {
    let from = core.state.read().revision + 1;
    let range = WatchRange { prefix: &core.options.prefix, from, previous: false };
    let StoreWatch { mut batches, tide } = core.store.watch(range).await?;
    let asks = tide.is_none() && core.store.proves_progress();
    core.state.write().tide = tide;
    let mut hurry = interval(HURRY_PERIOD);
    hurry.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut housekeeping = interval(HOUSEKEEPING_PERIOD);
    housekeeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut slow = tokio::time::interval_at(Instant::now() + SLOW_PERIOD, SLOW_PERIOD);
    let mut pace = Pace::default();
    let ended = loop {
        tokio::select! {
            batch = batches.next() => match batch {
                Some(Ok(batch)) => {
                    pace.add(core.apply(batch), Instant::now());
                    *delay = FIRST_DELAY;
                }
                Some(Err(error)) => break error,
                None => break StoreError::Unavailable("the watch ended".into()),
            },
            () = sleep_until(pace.due()), if pace.waits() => pace.wake(Instant::now()),
            _ = housekeeping.tick() => core.housekeeping(),
            _ = slow.tick() => {
                core.release_alternates();
                if core.state.read().watchers.len() > 0
                    && let Err(error) = refresh(core, asks).await
                {
                    tracing::debug!(%error, "asking for progress");
                }
            }
            () = core.hurry.notified(), if asks => {}
            _ = hurry.tick(), if asks && core.is_waited_for() => {
                if let Err(error) = core.store.request_progress().await {
                    tracing::debug!(%error, "asking for progress");
                }
            }
        }
    };
    // Before the watch goes: its tide no longer tells what is owed.
    core.state.write().tide = None;
    drop(batches);
    Err(ended)
}

/// Brings the revision up to date so that bookmarks move although nothing changes.
async fn refresh(core: &Core, asks: bool) -> Result<(), StoreError> {
    if asks {
        core.store.request_progress().await
    } else if !core.store.proves_progress() {
        core.prove().await.map(|_| ())
    } else {
        Ok(())
    }
}
