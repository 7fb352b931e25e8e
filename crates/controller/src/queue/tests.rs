use std::time::SystemTime;

use futures::FutureExt;
use runtime::clock::FakeClock;

use super::*;

fn queue(limiting: RateLimiting) -> (Queue<u32>, Arc<FakeClock>) {
    let clock = FakeClock::new(SystemTime::UNIX_EPOCH);
    (Queue::new(QueueConfig { name: "q", limiting, clock: clock.clone(), metrics: None }), clock)
}

fn now(queue: &Queue<u32>) -> Option<u32> {
    queue.get().now_or_never().flatten()
}

#[tokio::test]
async fn one_worker_per_key() {
    let (queue, _) = queue(RateLimiting::DEFAULT);
    queue.add(1);
    queue.add(1);
    queue.add(2);
    assert_eq!(queue.len(), 2);
    assert_eq!(now(&queue), Some(1));
    queue.add(1);
    assert_eq!(now(&queue), Some(2));
    assert_eq!(now(&queue), None);
    queue.done(&1);
    assert_eq!(now(&queue), Some(1));
    queue.done(&1);
    queue.done(&2);
    assert_eq!(now(&queue), None);
}

#[tokio::test]
async fn delays_keep_the_earliest_time() {
    let (queue, clock) = queue(RateLimiting::DEFAULT);
    queue.add_after(1, Duration::from_secs(10));
    queue.add_after(1, Duration::from_secs(5));
    queue.add_after(1, Duration::from_secs(20));
    clock.advance(Duration::from_secs(4));
    assert_eq!(now(&queue), None);
    clock.advance(Duration::from_secs(1));
    assert_eq!(now(&queue), Some(1));
    queue.done(&1);
    clock.advance(Duration::from_secs(60));
    assert_eq!(now(&queue), None);
}

#[tokio::test]
async fn failures_back_off_until_forgotten() {
    let (queue, clock) = queue(RateLimiting::per_key(Duration::from_millis(5), Duration::from_secs(1000)));
    for expected in [5, 10, 20, 40] {
        queue.add_rate_limited(7);
        clock.advance(Duration::from_millis(expected - 1));
        assert_eq!(now(&queue), None);
        clock.advance(Duration::from_millis(1));
        assert_eq!(now(&queue), Some(7));
        queue.done(&7);
    }
    assert_eq!(queue.failures(&7), 4);
    queue.forget(&7);
    assert_eq!(queue.failures(&7), 0);
}

#[tokio::test]
async fn the_overall_bucket_limits_all_keys() {
    let limiting = RateLimiting { overall: Some((10.0, 2.0)), ..RateLimiting::DEFAULT };
    let (queue, clock) = queue(limiting);
    (0..4).for_each(|k| queue.add_rate_limited(k));
    clock.advance(Duration::from_millis(5));
    assert_eq!((now(&queue), now(&queue), now(&queue)), (Some(0), Some(1), None));
    clock.advance(Duration::from_millis(195));
    assert_eq!((now(&queue), now(&queue)), (Some(2), Some(3)));
}

#[tokio::test]
async fn closing_drains_and_wakes_everybody() {
    let (queue, _) = queue(RateLimiting::DEFAULT);
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let queue = queue.clone();
            tokio::spawn(async move {
                while let Some(key) = queue.get().await {
                    queue.done(&key);
                }
            })
        })
        .collect();
    queue.add(1);
    queue.add_after(2, Duration::from_secs(1));
    queue.close();
    queue.add(3);
    for worker in waiting {
        worker.await.unwrap();
    }
    assert!(queue.is_empty());
}

#[tokio::test]
async fn metrics_have_upstreams_names() {
    let registry = Registry::new();
    let clock = FakeClock::new(SystemTime::UNIX_EPOCH);
    let metrics = QueueMetrics::new(&registry).unwrap();
    let config = QueueConfig {
        name: "deployment",
        limiting: RateLimiting::DEFAULT,
        clock: clock.clone(),
        metrics: Some(metrics),
    };
    let queue: Queue<u32> = Queue::new(config);
    queue.add(1);
    assert_eq!(now(&queue), Some(1));
    clock.advance(Duration::from_secs(3));
    let text = runtime::metrics::expose(&registry);
    for line in [
        "workqueue_adds_total{name=\"deployment\"} 1",
        "workqueue_depth{name=\"deployment\"} 0",
        "workqueue_unfinished_work_seconds{name=\"deployment\"} 3",
        "workqueue_longest_running_processor_seconds{name=\"deployment\"} 3",
        "workqueue_queue_duration_seconds_count{name=\"deployment\"} 1",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in {text}");
    }
}
