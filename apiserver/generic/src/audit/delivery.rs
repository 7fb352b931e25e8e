//! How events reach a log or a webhook: at once or in batches, whole or cut down.

use std::{io, sync::Arc, time::Duration};

use parking_lot::Mutex;
use prometheus::IntCounterVec;
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::Instant,
};
use util::TokenBucket;

use super::{log::LogFile, webhook::AuditWebhook};

/// Time that what waits has at the end.
const CLOSING: Duration = Duration::from_secs(10);
/// Annotation of events that were cut down.
const TRUNCATED: &str = "audit.k8s.io/truncated";

/// Where events go.
#[derive(Clone)]
pub enum Backend {
    /// Lines of a file.
    Log(Arc<LogFile>),
    /// Lists posted to a server.
    Webhook(Arc<AuditWebhook>),
}

impl Backend {
    fn name(&self) -> &'static str {
        match self {
            Self::Log(_) => "log",
            Self::Webhook(_) => "webhook",
        }
    }

    async fn deliver(&self, events: &[String]) -> Result<(), String> {
        match self {
            Self::Log(file) => file.write_all(events).map_err(|error| error.to_string()),
            Self::Webhook(webhook) => webhook.post(events).await.map_err(|error| error.to_string()),
        }
    }
}

/// Events that are delivered together.
#[derive(Clone, Copy, Debug)]
pub struct Batching {
    /// Events that wait at most; more are lost.
    pub buffer: usize,
    /// Events of a batch.
    pub size: usize,
    /// How long the first waits for others.
    pub wait: Duration,
    /// Batches a second and at once; no bound if `None`.
    pub throttle: Option<(f64, usize)>,
}

/// When a request goes on.
#[derive(Clone, Copy, Debug)]
pub enum Mode {
    /// At once; events are delivered later.
    Batch(Batching),
    /// When its events have been delivered, or could not be.
    Blocking,
    /// The same, but not at all if the first could not be.
    Strict,
}

/// Sizes beyond which events are cut down.
#[derive(Clone, Copy, Debug)]
pub struct Truncation {
    /// Bytes of a batch.
    pub batch: usize,
    /// Bytes of an event.
    pub event: usize,
}

/// Something that takes events.
pub struct Sink {
    backend: Backend,
    is_strict: bool,
    queue: Mutex<Option<mpsc::Sender<String>>>,
    worker: Mutex<Option<JoinHandle<()>>>,
    truncation: Option<Truncation>,
    errors: IntCounterVec,
}

/// Whether an event has been delivered: now, or told later.
pub(crate) enum Kept {
    Now { is_strict: bool, delivered: bool },
    Later { is_strict: bool, told: oneshot::Receiver<bool> },
}

/// Waits for events. False if one that must be kept was not.
pub(crate) async fn delivered(all: Vec<Kept>) -> bool {
    let mut well = true;
    for kept in all {
        let (is_strict, delivered) = match kept {
            Kept::Now { is_strict, delivered } => (is_strict, delivered),
            Kept::Later { is_strict, told } => (is_strict, told.await.unwrap_or(false)),
        };
        well &= delivered || !is_strict;
    }
    well
}

impl Sink {
    /// Delivers to `backend`. `errors` counts what is lost.
    pub fn new(backend: Backend, mode: Mode, truncation: Option<Truncation>, errors: IntCounterVec) -> Self {
        let (mut queue, mut worker) = (None, None);
        if let Mode::Batch(batching) = mode {
            let (sender, receiver) = mpsc::channel(batching.buffer.max(1));
            let most = truncation.map_or(usize::MAX, |truncation| truncation.batch);
            let batches = Batches { backend: backend.clone(), batching, most, errors: errors.clone() };
            worker = Some(tokio::spawn(batches.run(receiver)));
            queue = Some(sender);
        }
        let is_strict = matches!(mode, Mode::Strict);
        Self { backend, is_strict, queue: Mutex::new(queue), worker: Mutex::new(worker), truncation, errors }
    }

    fn lost(&self, plugin: &str, why: &str) {
        self.errors.with_label_values(&[plugin]).inc();
        tracing::error!(plugin, err = why, "Error in audit plugin");
    }

    /// Takes an event.
    pub(super) fn keep(&self, event: &Value) -> Option<Kept> {
        let mut text = event.to_string();
        if let Some(truncation) = self.truncation.filter(|truncation| text.len() > truncation.event) {
            text = truncated(event).to_string();
            if text.len() > truncation.event {
                self.lost("truncate", "event is too large even after truncating");
                return None;
            }
        }
        let queue = self.queue.lock().clone();
        if let Some(queue) = queue {
            if queue.try_send(text).is_err() {
                self.lost("buffered", "audit buffer queue is full");
            }
            return None;
        }
        let is_strict = self.is_strict;
        match &self.backend {
            Backend::Log(file) => {
                let written = file.write_all(&[text]);
                if let Err(error) = &written {
                    self.lost("log", &error.to_string());
                }
                Some(Kept::Now { is_strict, delivered: written.is_ok() })
            }
            Backend::Webhook(_) => {
                let (tell, told) = oneshot::channel();
                let (backend, errors) = (self.backend.clone(), self.errors.clone());
                let runtime = tokio::runtime::Handle::try_current().ok()?;
                runtime.spawn(async move {
                    let delivered = deliver(&backend, &[text], &errors).await;
                    // Nobody may wait for the end of a stream.
                    let _gone = tell.send(delivered).is_err();
                });
                Some(Kept::Later { is_strict, told })
            }
        }
    }

    /// Takes no more events, and waits until those that wait have been delivered.
    pub(super) async fn close(&self) {
        drop(self.queue.lock().take());
        let worker = self.worker.lock().take();
        if let Some(worker) = worker
            && tokio::time::timeout(CLOSING, worker).await.is_err()
        {
            self.lost("buffered", "events were not delivered in time");
        }
    }
}

async fn deliver(backend: &Backend, events: &[String], errors: &IntCounterVec) -> bool {
    let outcome = backend.deliver(events).await;
    if let Err(why) = &outcome {
        errors.with_label_values(&[backend.name()]).inc_by(events.len() as u64);
        tracing::error!(plugin = backend.name(), err = why, "Error in audit plugin");
    }
    outcome.is_ok()
}

/// An event without the objects that make it large.
fn truncated(event: &Value) -> Value {
    let mut event = event.clone();
    if let Some(fields) = event.as_object_mut() {
        fields.remove("requestObject");
        fields.remove("responseObject");
        let annotations = fields.entry("annotations").or_insert_with(|| json!({}));
        annotations[TRUNCATED] = json!("true");
    }
    event
}

/// Delivers what waits, a batch after the other.
struct Batches {
    backend: Backend,
    batching: Batching,
    /// Bytes of a batch.
    most: usize,
    errors: IntCounterVec,
}

impl Batches {
    async fn run(self, mut queue: mpsc::Receiver<String>) {
        let mut throttle = self.batching.throttle.map(Throttle::new);
        let mut left: Option<String> = None;
        loop {
            let first = match left.take() {
                Some(event) => event,
                None => match queue.recv().await {
                    Some(event) => event,
                    None => return,
                },
            };
            let mut bytes = first.len();
            let mut batch = vec![first];
            let end = Instant::now() + self.batching.wait;
            while batch.len() < self.batching.size.max(1) {
                let Ok(Some(event)) = tokio::time::timeout_at(end, queue.recv()).await else { break };
                if bytes + event.len() > self.most {
                    left = Some(event);
                    break;
                }
                bytes += event.len();
                batch.push(event);
            }
            if let Some(throttle) = &mut throttle {
                throttle.wait().await;
            }
            deliver(&self.backend, &batch, &self.errors).await;
        }
    }
}

/// Keeps deliveries apart.
struct Throttle {
    start: Instant,
    bucket: TokenBucket,
}

impl Throttle {
    fn new((rate, burst): (f64, usize)) -> Self {
        let bucket = TokenBucket::full(rate, burst.max(1) as f64, Duration::ZERO);
        Self { start: Instant::now(), bucket }
    }

    async fn wait(&mut self) {
        let wait = self.bucket.reserve(self.start.elapsed());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

/// A kept line of the old format of the log.
pub fn legacy(event: &Value) -> String {
    let text = |pointer: &str, otherwise: &str| -> String {
        let found = event.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
        found.unwrap_or(otherwise).to_owned()
    };
    let list = |pointer: &str, otherwise: &str| -> String {
        let Some(list) = event.pointer(pointer).and_then(Value::as_array).filter(|list| !list.is_empty()) else {
            return otherwise.to_owned();
        };
        list.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    };
    let code = event.pointer("/responseStatus/code").map_or("<deferred>".to_owned(), ToString::to_string);
    format!(
        "{} AUDIT: id={:?} stage={:?} ip={:?} method={:?} user={:?} groups={:?} as={:?} asgroups={:?} user-agent={:?} \
         namespace={:?} uri={:?} response=\"{code}\"",
        text("/requestReceivedTimestamp", ""),
        text("/auditID", ""),
        text("/stage", ""),
        text("/sourceIPs/0", "<unknown>"),
        text("/verb", ""),
        text("/user/username", "<none>"),
        list("/user/groups", "<none>"),
        text("/impersonatedUser/username", "<self>"),
        list("/impersonatedUser/groups", "<lookup>"),
        text("/userAgent", ""),
        text("/objectRef/namespace", "<none>"),
        text("/requestURI", ""),
    )
}

/// What a log says of an event that it was given as JSON.
pub(super) fn legacy_line(event: &str) -> io::Result<String> {
    Ok(legacy(&serde_json::from_str(event)?))
}

#[cfg(test)]
mod tests {
    use prometheus::Opts;

    use super::*;
    use crate::audit::log::LogSettings;

    fn log(path: &std::path::Path) -> Backend {
        let settings = LogSettings { path: path.to_owned(), ..LogSettings::default() };
        Backend::Log(Arc::new(LogFile::open(settings).expect("a log")))
    }

    fn errors() -> IntCounterVec {
        IntCounterVec::new(Opts::new("errors", "errors"), &["plugin"]).expect("a metric")
    }

    fn lines(path: &std::path::Path) -> Vec<Value> {
        let text = std::fs::read_to_string(path).expect("the log");
        text.lines().map(|line| serde_json::from_str(line).expect("an event")).collect()
    }

    #[tokio::test]
    async fn batches_are_bounded_and_end_well() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        let batching = Batching { buffer: 3, size: 2, wait: Duration::from_secs(30), throttle: Some((10.0, 1)) };
        let errors = errors();
        let sink = Sink::new(log(&path), Mode::Batch(batching), None, errors.clone());
        for n in 0..5 {
            assert!(sink.keep(&json!({"n": n})).is_none(), "nobody waits");
        }
        assert_eq!(errors.with_label_values(&["buffered"]).get(), 2, "the queue is full");
        sink.close().await;
        assert_eq!(lines(&path).len(), 3);
    }

    #[tokio::test]
    async fn what_is_too_large_is_cut_down() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        let (errors, truncation) = (errors(), Some(Truncation { batch: 1000, event: 100 }));
        let sink = Sink::new(log(&path), Mode::Blocking, truncation, errors.clone());
        let large = "x".repeat(100);
        for event in [json!({"id": 1, "requestObject": {"data": large}}), json!({"id": 2}), json!({"uri": large})] {
            let kept: Vec<Kept> = sink.keep(&event).into_iter().collect();
            assert!(delivered(kept).await);
        }
        let kept = lines(&path);
        assert_eq!(kept[0], json!({"id": 1, "annotations": {"audit.k8s.io/truncated": "true"}}));
        assert_eq!((&kept[1], kept.len()), (&json!({"id": 2}), 2));
        assert_eq!(errors.with_label_values(&["truncate"]).get(), 1);
    }

    #[test]
    fn the_old_format() {
        let event = json!({"requestReceivedTimestamp": "T", "auditID": "i", "stage": "ResponseComplete",
            "sourceIPs": ["::1"], "verb": "get", "user": {"username": "u", "groups": ["a", "b"]},
            "requestURI": "/x", "responseStatus": {"code": 200}});
        assert_eq!(
            legacy(&event),
            "T AUDIT: id=\"i\" stage=\"ResponseComplete\" ip=\"::1\" method=\"get\" user=\"u\" \
             groups=\"\\\"a\\\",\\\"b\\\"\" as=\"<self>\" asgroups=\"<lookup>\" user-agent=\"\" namespace=\"<none>\" \
             uri=\"/x\" response=\"200\""
        );
    }
}
