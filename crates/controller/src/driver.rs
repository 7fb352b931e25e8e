//! The controller driver: workers that take keys from a queue and reconcile them.

use std::{error::Error, sync::Arc, time::Duration};

use client::ApiErrorExt;
use runtime::tasks::TaskGroup;
use tracing::Instrument;

use crate::{Queue, queue::Key};

/// What to do with a key after it was reconciled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing until something changes.
    Done,
    /// Come again after a while.
    After(Duration),
    /// Come again as after a failure, without there being one to report (caches lag behind, for example).
    Backoff,
}

/// An error of reconciling.
pub type ReconcileError = Box<dyn Error + Send + Sync>;

/// A reconciler: brings the world one step closer to what the object of the key asks for.
pub trait Reconcile: Send + Sync + 'static {
    /// Usually an [`crate::ObjectKey`].
    type Key: Key;

    /// Reads, decides, acts. Runs to its end even when the process stops.
    fn reconcile(&self, key: &Self::Key) -> impl Future<Output = Result<Outcome, ReconcileError>> + Send;
}

/// How often a failing key is retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retries {
    /// For ever, with back-off.
    Unlimited,
    /// So often, then it is dropped until something changes.
    Limited(u32),
}

/// Runs a reconciler.
pub struct Driver<R: Reconcile> {
    /// Name of the controller, for logs and tasks.
    pub name: &'static str,
    /// Keys to reconcile.
    pub queue: Queue<R::Key>,
    /// How many at once.
    pub workers: usize,
    /// What happens to failing keys.
    pub retries: Retries,
    /// The reconciler.
    pub reconciler: Arc<R>,
}

impl<R: Reconcile> Driver<R> {
    /// Starts the workers in a group; they end when the group stops, after the keys they are at.
    pub fn start(self, tasks: &TaskGroup) {
        let driver = Arc::new(self);
        let (queue, token) = (driver.queue.clone(), tasks.token().clone());
        tasks.spawn(format!("{} close", driver.name), async move {
            token.cancelled().await;
            queue.close();
        });
        for worker in 0..driver.workers.max(1) {
            let driver = Arc::clone(&driver);
            let token = tasks.token().clone();
            tasks.spawn(format!("{} worker {worker}", driver.name), async move {
                while let Some(key) = driver.queue.get().await {
                    // What still waits at the end is done by the successor.
                    if !token.is_cancelled() {
                        driver.one(&key).await;
                    }
                    driver.queue.done(&key);
                }
            });
        }
    }

    async fn one(&self, key: &R::Key) {
        let span = tracing::debug_span!("reconcile", controller = self.name, key = ?key);
        let outcome = self.reconciler.reconcile(key).instrument(span).await;
        match outcome {
            Ok(Outcome::Done) => self.queue.forget(key),
            Ok(Outcome::After(delay)) => {
                self.queue.forget(key);
                self.queue.add_after(key.clone(), delay);
            }
            Ok(Outcome::Backoff) => self.queue.add_rate_limited(key.clone()),
            Err(error) => self.failed(key, error.as_ref()),
        }
    }

    fn failed(&self, key: &R::Key, error: &(dyn Error + Send + Sync + 'static)) {
        let text = util::chain(error);
        let controller = self.name;
        match self.retries {
            Retries::Limited(most) if self.queue.failures(key) >= most => {
                tracing::error!(err = %text, logger = controller, key = ?key, "Dropping key out of the queue");
                self.queue.forget(key);
                return;
            }
            // Losing a race is daily business.
            _ if lost_race(error) => tracing::debug!(err = %text, logger = controller, key = ?key, "retrying"),
            _ => tracing::error!(err = %text, logger = controller, key = ?key, "Error syncing"),
        }
        self.queue.add_rate_limited(key.clone());
    }
}

fn lost_race(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let conflict = error.downcast_ref::<kube::Error>().is_some_and(ApiErrorExt::is_conflict)
            || error.downcast_ref::<client::CallError>().is_some_and(ApiErrorExt::is_conflict);
        if conflict {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, time::SystemTime};

    use parking_lot::Mutex;
    use runtime::clock::{FakeClock, RealClock};

    use super::*;
    use crate::{QueueConfig, RateLimiting};

    struct Script {
        runs: Mutex<HashMap<u32, u32>>,
        told: tokio::sync::mpsc::UnboundedSender<(u32, u32)>,
    }

    impl Reconcile for Script {
        type Key = u32;

        async fn reconcile(&self, key: &u32) -> Result<Outcome, ReconcileError> {
            let run = {
                let mut runs = self.runs.lock();
                let run = runs.entry(*key).or_default();
                *run += 1;
                *run
            };
            let sent = self.told.send((*key, run));
            assert!(sent.is_ok());
            match (key, run) {
                (1, 1..=2) => Err("not yet".into()),
                (2, _) => Err("never".into()),
                (3, 1) => Ok(Outcome::After(Duration::from_millis(1))),
                _ => Ok(Outcome::Done),
            }
        }
    }

    #[tokio::test]
    async fn keys_are_retried_and_dropped() {
        let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let limiting = RateLimiting::per_key(Duration::from_micros(1), Duration::from_millis(1));
        let queue = Queue::new(QueueConfig { name: "q", limiting, clock: RealClock::shared(), metrics: None });
        let tasks = TaskGroup::new("test");
        let reconciler = Arc::new(Script { runs: Mutex::default(), told });
        Driver {
            name: "test",
            queue: queue.clone(),
            workers: 2,
            retries: Retries::Limited(3),
            reconciler: reconciler.clone(),
        }
        .start(&tasks);
        (1..=3).for_each(|k| queue.add(k));
        // 3 runs of key 1, 4 of key 2 (one and three retries), 2 of key 3.
        for _ in 0..9 {
            heard.recv().await.unwrap();
        }
        assert_eq!(tasks.stop(Duration::from_secs(10)).await, Vec::<String>::new());
        assert_eq!(*reconciler.runs.lock(), HashMap::from([(1, 3), (2, 4), (3, 2)]));
        assert_eq!(queue.failures(&2), 0);
    }

    #[tokio::test]
    async fn the_key_at_hand_is_finished() {
        struct Slow(tokio::sync::Notify, tokio::sync::Notify, Mutex<bool>);
        impl Reconcile for Slow {
            type Key = u32;
            async fn reconcile(&self, _key: &u32) -> Result<Outcome, ReconcileError> {
                self.0.notify_one();
                self.1.notified().await;
                *self.2.lock() = true;
                Ok(Outcome::Done)
            }
        }
        let slow = Arc::new(Slow(tokio::sync::Notify::new(), tokio::sync::Notify::new(), Mutex::new(false)));
        let clock = FakeClock::new(SystemTime::UNIX_EPOCH);
        let queue = Queue::new(QueueConfig { name: "q", limiting: RateLimiting::DEFAULT, clock, metrics: None });
        let tasks = TaskGroup::new("test");
        Driver {
            name: "slow",
            queue: queue.clone(),
            workers: 1,
            retries: Retries::Unlimited,
            reconciler: slow.clone(),
        }
        .start(&tasks);
        queue.add(1);
        slow.0.notified().await;
        tasks.token().cancel();
        slow.1.notify_one();
        assert!(tasks.stop(Duration::from_secs(10)).await.is_empty());
        assert!(*slow.2.lock());
    }
}
