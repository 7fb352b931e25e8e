//! The work queue: keys once each, never two workers on one key, delays and rate limits.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet, VecDeque},
    fmt::Debug,
    hash::Hash,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use prometheus::{
    Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use runtime::{
    clock::Clock,
    metrics::{self, Stability},
};
use tokio::sync::Notify;
use util::{Backoff, TokenBucket};

/// What a queue can hold.
pub trait Key: Clone + Eq + Hash + Ord + Debug + Send + Sync + 'static {}
impl<T: Clone + Eq + Hash + Ord + Debug + Send + Sync + 'static> Key for T {}

/// Delays of [`Queue::add_rate_limited`].
#[derive(Clone, Copy, Debug)]
pub struct RateLimiting {
    /// Per key, by its failures.
    pub per_key: Backoff,
    /// Over all keys: tokens a second and at most; `None` for no such limit.
    pub overall: Option<(f64, f64)>,
}

impl RateLimiting {
    /// 5 ms doubling to 1000 s per key, 10 a second with bursts of 100 over all.
    pub const DEFAULT: Self = Self {
        per_key: Backoff::doubling(Duration::from_millis(5), Duration::from_secs(1000)),
        overall: Some((10.0, 100.0)),
    };

    /// Per key only.
    pub const fn per_key(base: Duration, max: Duration) -> Self {
        Self { per_key: Backoff::doubling(base, max), overall: None }
    }
}

/// How a queue is made.
#[derive(Clone)]
pub struct QueueConfig {
    /// Label of its metrics.
    pub name: &'static str,
    /// Delays after failures.
    pub limiting: RateLimiting,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where its metrics are; `None` exports nothing.
    pub metrics: Option<QueueMetrics>,
}

struct State<K> {
    ready: VecDeque<K>,
    /// Keys to process; those of `ready` and those that were added while in `processing`.
    dirty: HashMap<K, Duration>,
    processing: HashMap<K, Duration>,
    delayed: BinaryHeap<Reverse<(Duration, K)>>,
    /// The time each delayed key is due; older entries of the heap are void.
    due: HashMap<K, Duration>,
    failures: HashMap<K, u32>,
    bucket: Option<TokenBucket>,
    closed: bool,
}

struct Inner<K> {
    limiting: RateLimiting,
    clock: Arc<dyn Clock>,
    state: Mutex<State<K>>,
    wake: Notify,
    metrics: Option<OfQueue>,
}

/// A de-duplicating work queue. Cheap to clone.
pub struct Queue<K>(Arc<Inner<K>>);

impl<K> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Key> Queue<K> {
    /// An empty queue.
    pub fn new(config: QueueConfig) -> Self {
        let now = config.clock.elapsed();
        let state = State {
            ready: VecDeque::new(),
            dirty: HashMap::new(),
            processing: HashMap::new(),
            delayed: BinaryHeap::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
            bucket: config.limiting.overall.map(|(rate, burst)| TokenBucket::full(rate, burst, now)),
            closed: false,
        };
        let metrics = config.metrics.as_ref().map(|m| m.of(config.name));
        let inner = Arc::new(Inner {
            limiting: config.limiting,
            clock: config.clock,
            state: Mutex::new(state),
            wake: Notify::new(),
            metrics,
        });
        if let Some(all) = &config.metrics {
            let weak: Weak<dyn Probe> = Arc::downgrade(&inner) as Weak<dyn Probe>;
            all.probes.lock().push((config.name, weak));
        }
        Self(inner)
    }

    /// Queues a key unless it waits already.
    pub fn add(&self, key: K) {
        let mut state = self.0.state.lock();
        if self.0.put(&mut state, key) {
            drop(state);
            self.0.wake.notify_one();
        }
    }

    /// Queues a key after a while; the earliest time wins if it is asked for more than once.
    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let at = self.0.clock.elapsed() + delay;
        let mut state = self.0.state.lock();
        if state.closed || state.due.get(&key).is_some_and(|known| *known <= at) {
            return;
        }
        state.due.insert(key.clone(), at);
        state.delayed.push(Reverse((at, key)));
        drop(state);
        self.0.wake.notify_one();
    }

    /// Queues a key after a delay that grows with its failures.
    pub fn add_rate_limited(&self, key: K) {
        let delay = {
            let mut state = self.0.state.lock();
            let failures = state.failures.entry(key.clone()).or_insert(0);
            let own = self.0.limiting.per_key.delay(*failures);
            *failures = failures.saturating_add(1);
            let now = self.0.clock.elapsed();
            // A token of the overall bucket: how long until it is there.
            own.max(state.bucket.as_mut().map_or(Duration::ZERO, |bucket| bucket.reserve(now)))
        };
        if let Some(metrics) = &self.0.metrics {
            metrics.retries.inc();
        }
        self.add_after(key, delay);
    }

    /// Forgets the failures of a key.
    pub fn forget(&self, key: &K) {
        self.0.state.lock().failures.remove(key);
    }

    /// How often a key failed since it was forgotten.
    pub fn failures(&self, key: &K) -> u32 {
        self.0.state.lock().failures.get(key).copied().unwrap_or(0)
    }

    /// How many keys wait, delayed ones not counted.
    pub fn len(&self) -> usize {
        self.0.state.lock().ready.len()
    }

    /// Whether no key waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next key; `None` once the queue is closed and empty. [`Queue::done`] has to follow.
    pub async fn get(&self) -> Option<K> {
        loop {
            let woken = self.0.wake.notified();
            let (key, wait, more) = self.0.next();
            if more {
                self.0.wake.notify_one();
            }
            match (key, wait) {
                (Next::Key(key), _) => return Some(key),
                (Next::Closed, _) => {
                    self.0.wake.notify_one();
                    return None;
                }
                (Next::Nothing, None) => woken.await,
                (Next::Nothing, Some(wait)) => {
                    tokio::select! {
                        () = woken => {}
                        () = self.0.clock.sleep(wait) => {}
                    }
                }
            }
        }
    }

    /// Ends the work on a key; if it was added meanwhile, it waits again.
    pub fn done(&self, key: &K) {
        let mut state = self.0.state.lock();
        let started = state.processing.remove(key);
        if let (Some(metrics), Some(started)) = (&self.0.metrics, started) {
            metrics.work.observe(self.0.clock.elapsed().saturating_sub(started).as_secs_f64());
        }
        if state.dirty.contains_key(key) {
            state.ready.push_back(key.clone());
            self.0.depth(&state);
        }
        drop(state);
        self.0.wake.notify_one();
    }

    /// Takes no more keys; workers get what waits, then `None`.
    pub fn close(&self) {
        let mut state = self.0.state.lock();
        state.closed = true;
        state.delayed.clear();
        state.due.clear();
        drop(state);
        self.0.wake.notify_waiters();
        self.0.wake.notify_one();
    }
}

enum Next<K> {
    Key(K),
    Nothing,
    Closed,
}

impl<K: Key> Inner<K> {
    /// Whether a worker has something new to do.
    fn put(&self, state: &mut State<K>, key: K) -> bool {
        if state.closed || state.dirty.contains_key(&key) {
            return false;
        }
        if let Some(metrics) = &self.metrics {
            metrics.adds.inc();
        }
        state.dirty.insert(key.clone(), self.clock.elapsed());
        if state.processing.contains_key(&key) {
            return false;
        }
        state.ready.push_back(key);
        self.depth(state);
        true
    }

    /// The next key, or the time until one is due; and whether more keys wait.
    fn next(&self) -> (Next<K>, Option<Duration>, bool) {
        let now = self.clock.elapsed();
        let mut state = self.state.lock();
        while let Some(Reverse((at, _))) = state.delayed.peek()
            && *at <= now
        {
            let Some(Reverse((at, key))) = state.delayed.pop() else { break };
            if state.due.get(&key) == Some(&at) {
                state.due.remove(&key);
                self.put(&mut state, key);
            }
        }
        let wait = state.delayed.peek().map(|Reverse((at, _))| *at - now);
        let Some(key) = state.ready.pop_front() else {
            return (if state.closed { Next::Closed } else { Next::Nothing }, wait, false);
        };
        let queued = state.dirty.remove(&key).unwrap_or(now);
        state.processing.insert(key.clone(), now);
        self.depth(&state);
        if let Some(metrics) = &self.metrics {
            metrics.waited.observe(now.saturating_sub(queued).as_secs_f64());
        }
        (Next::Key(key), wait, !state.ready.is_empty() || wait.is_some())
    }

    fn depth(&self, state: &State<K>) {
        if let Some(metrics) = &self.metrics {
            metrics.depth.set(i64::try_from(state.ready.len()).unwrap_or(i64::MAX));
        }
    }
}

/// What is measured when metrics are read.
trait Probe: Send + Sync {
    /// Sum and maximum of the times that keys in processing have taken so far, seconds.
    fn unfinished(&self) -> (f64, f64);
}

impl<K: Key> Probe for Inner<K> {
    fn unfinished(&self) -> (f64, f64) {
        let now = self.clock.elapsed();
        let state = self.state.lock();
        state
            .processing
            .values()
            .map(|s| now.saturating_sub(*s).as_secs_f64())
            .fold((0.0, 0.0), |(sum, max), t| (sum + t, f64::max(max, t)))
    }
}

struct OfQueue {
    adds: IntCounter,
    depth: IntGauge,
    retries: IntCounter,
    waited: Histogram,
    work: Histogram,
}

type Probes = Arc<Mutex<Vec<(&'static str, Weak<dyn Probe>)>>>;

/// `workqueue_*` of all queues of a process. Cheap to clone; made once per registry.
#[derive(Clone)]
pub struct QueueMetrics {
    adds: IntCounterVec,
    depth: IntGaugeVec,
    retries: IntCounterVec,
    waited: HistogramVec,
    work: HistogramVec,
    probes: Probes,
}

impl QueueMetrics {
    /// Registers the metrics.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let (beta, name) = (Stability::Beta, &["name"]);
        let buckets = metrics::exponential_buckets(1e-8, 10.0, 10);
        let probes = Probes::default();
        registry.register(Box::new(Unfinished::new(Arc::clone(&probes))?))?;
        Ok(Self {
            adds: metrics::counter_vec(
                registry,
                beta,
                "workqueue_adds_total",
                "Total number of adds handled by workqueue",
                name,
            )?,
            depth: metrics::gauge_vec(registry, beta, "workqueue_depth", "Current depth of workqueue", name)?,
            retries: metrics::counter_vec(
                registry,
                beta,
                "workqueue_retries_total",
                "Total number of retries handled by workqueue",
                name,
            )?,
            waited: metrics::histogram_vec(
                registry,
                beta,
                "workqueue_queue_duration_seconds",
                "How long in seconds an item stays in workqueue before being requested.",
                name,
                &buckets,
            )?,
            work: metrics::histogram_vec(
                registry,
                beta,
                "workqueue_work_duration_seconds",
                "How long in seconds processing an item from workqueue takes.",
                name,
                &buckets,
            )?,
            probes,
        })
    }

    fn of(&self, name: &str) -> OfQueue {
        OfQueue {
            adds: self.adds.with_label_values(&[name]),
            depth: self.depth.with_label_values(&[name]),
            retries: self.retries.with_label_values(&[name]),
            waited: self.waited.with_label_values(&[name]),
            work: self.work.with_label_values(&[name]),
        }
    }
}

struct Unfinished {
    probes: Probes,
    sum: prometheus::GaugeVec,
    longest: prometheus::GaugeVec,
}

impl Unfinished {
    fn new(probes: Probes) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| prometheus::GaugeVec::new(prometheus::Opts::new(name, help), &["name"]);
        Ok(Self {
            probes,
            sum: gauge(
                "workqueue_unfinished_work_seconds",
                "[BETA] How many seconds of work has done that is in progress and hasn't been observed by \
                 work_duration. Large values indicate stuck threads. One can deduce the number of stuck threads by \
                 observing the rate at which this increases.",
            )?,
            longest: gauge(
                "workqueue_longest_running_processor_seconds",
                "[BETA] How many seconds has the longest running processor for workqueue been running.",
            )?,
        })
    }
}

impl Collector for Unfinished {
    fn desc(&self) -> Vec<&Desc> {
        self.sum.desc().into_iter().chain(self.longest.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut probes = self.probes.lock();
        probes.retain(|(_, p)| p.strong_count() > 0);
        let mut seen = HashSet::new();
        for (name, probe) in probes.iter() {
            let Some(probe) = probe.upgrade() else { continue };
            let (sum, longest) = probe.unfinished();
            // Queues of one name share their series.
            if seen.insert(*name) {
                self.sum.with_label_values(&[name]).set(0.0);
                self.longest.with_label_values(&[name]).set(0.0);
            }
            self.sum.with_label_values(&[name]).add(sum);
            let shown = self.longest.with_label_values(&[name]);
            shown.set(shown.get().max(longest));
        }
        let mut families = self.sum.collect();
        families.extend(self.longest.collect());
        families
    }
}

#[cfg(test)]
mod tests;
