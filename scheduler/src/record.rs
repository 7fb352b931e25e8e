//! Events about Pods in the form of events.k8s.io/v1: repeats become a series.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::{StreamExt, stream::FuturesUnordered};
use runtime::{clock::Clock, tasks::TaskGroup};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    api::{Api, CallError},
    objects::PodView,
};

/// Events that wait to be written; more are dropped.
const QUEUE: usize = 1000;
/// Events written at once.
const WRITERS: usize = 16;
/// Attempts to write an event, and the pause between them.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);
/// Series that are remembered at most.
const SERIES: usize = 4096;
/// Silence that ends a series.
const SERIES_ENDS: Duration = Duration::from_secs(6 * 60);
/// How often series are looked at that may have ended.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Longest note, and how a longer one ends.
const MAX_NOTE: usize = 1024;
const CUT: &str = " ...";
/// Time for what is left when the process stops.
const LAST_CALL: Duration = Duration::from_secs(2);

/// An event to record.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) about: Arc<PodView>,
    pub(crate) related: Option<Arc<PodView>>,
    pub(crate) kind: &'static str,
    pub(crate) reason: &'static str,
    pub(crate) action: &'static str,
    pub(crate) note: String,
    /// Name of the scheduler that tells it.
    pub(crate) scheduler: Arc<str>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    uid: Arc<str>,
    related: Option<Arc<str>>,
    reason: &'static str,
    action: &'static str,
    note: String,
}

/// What is known of an event that was written.
struct Series {
    namespace: String,
    name: String,
    /// Occurrences; those after the second are written when the series ends.
    count: u32,
    written: u32,
    last: SystemTime,
}

/// Records events. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Recorder {
    queue: mpsc::Sender<(Told, SystemTime)>,
    clock: Arc<dyn Clock>,
}

impl Recorder {
    pub(crate) fn new(api: Api, host: &str, clock: Arc<dyn Clock>, tasks: &TaskGroup) -> Self {
        let (queue, told) = mpsc::channel(QUEUE);
        let writer = Writer { api, host: host.into(), clock: Arc::clone(&clock), series: HashMap::new() };
        let stop = tasks.token().clone();
        tasks.spawn("event recorder", writer.run(told, stop));
        Self { queue, clock }
    }

    pub(crate) fn record(&self, told: Told) {
        tracing::info!(
            v = 3,
            object = %told.about.full_name(),
            kind = "Pod",
            reason = told.reason,
            action = told.action,
            note = %told.note,
            "Event occurred"
        );
        if self.queue.try_send((told, self.clock.now())).is_err() {
            tracing::warn!("Unable to record event: too many queued events, dropped event");
        }
    }
}

struct Writer {
    api: Api,
    host: Box<str>,
    clock: Arc<dyn Clock>,
    series: HashMap<Key, Series>,
}

impl Writer {
    async fn run(mut self, mut told: mpsc::Receiver<(Told, SystemTime)>, stop: CancellationToken) {
        let mut writing = FuturesUnordered::new();
        let mut look = self.clock.sleep(LOOK_EVERY);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(()) = writing.next(), if !writing.is_empty() => {}
                event = told.recv(), if writing.len() < WRITERS => match event {
                    None => break,
                    Some((event, at)) => {
                        for write in self.writes(event, at) {
                            writing.push(write.run(self.api.clone(), Arc::clone(&self.clock)));
                        }
                    }
                },
                () = &mut look => {
                    look = self.clock.sleep(LOOK_EVERY);
                    for write in self.finished(self.clock.now()) {
                        writing.push(write.run(self.api.clone(), Arc::clone(&self.clock)));
                    }
                }
            }
        }
        let rest = async {
            while let Ok((event, at)) = told.try_recv() {
                for write in self.writes(event, at) {
                    writing.push(write.run(self.api.clone(), Arc::clone(&self.clock)));
                }
            }
            while writing.next().await.is_some() {}
        };
        if tokio::time::timeout(LAST_CALL, rest).await.is_err() {
            tracing::debug!("events were left unwritten at the end");
        }
    }

    /// What is to be written for an occurrence.
    fn writes(&mut self, told: Told, at: SystemTime) -> Vec<Write> {
        let note = cut(told.note.clone());
        let key = Key {
            uid: Arc::clone(&told.about.uid),
            related: told.related.as_ref().map(|p| Arc::clone(&p.uid)),
            reason: told.reason,
            action: told.action,
            note: note.clone(),
        };
        if let Some(series) = self.series.get_mut(&key).filter(|s| age(s.last, at) < SERIES_ENDS) {
            series.count += 1;
            series.last = at;
            if series.count > 2 {
                return Vec::new();
            }
            series.written = series.count;
            return vec![series.patch()];
        }
        let mut writes = if self.series.len() >= SERIES { self.finished(at) } else { Vec::new() };
        if self.series.len() >= SERIES {
            self.series.clear();
        }
        let namespace = told.about.namespace().to_owned();
        let nanos = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let name = format!("{}.{nanos:x}", told.about.name);
        let event = self.event(&told, &note, &name, at);
        let series = Series { namespace: namespace.clone(), name, count: 1, written: 1, last: at };
        // A Pod is assigned only once.
        if told.reason != "Scheduled" {
            self.series.insert(key, series);
        }
        writes.push(Write::Create { namespace, event });
        writes
    }

    /// Ends the series that nothing was added to for a while; what they counted since is written.
    fn finished(&mut self, now: SystemTime) -> Vec<Write> {
        let mut writes = Vec::new();
        self.series.retain(|_, series| {
            let over = age(series.last, now) >= SERIES_ENDS;
            if over && series.count > series.written {
                writes.push(series.patch());
            }
            !over
        });
        writes
    }

    fn event(&self, told: &Told, note: &str, name: &str, at: SystemTime) -> Value {
        let mut event = json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": told.about.namespace()},
            "eventTime": micros(at),
            "reportingController": &*told.scheduler,
            "reportingInstance": format!("{}-{}", told.scheduler, self.host),
            "action": told.action,
            "reason": told.reason,
            "regarding": reference(&told.about),
            "note": note,
            "type": told.kind,
        });
        if let Some(related) = &told.related {
            event["related"] = reference(related);
        }
        event
    }
}

impl Series {
    fn patch(&self) -> Write {
        let patch = json!({"series": {"count": self.count, "lastObservedTime": micros(self.last)}});
        Write::Patch { namespace: self.namespace.clone(), name: self.name.clone(), patch }
    }
}

/// One write.
enum Write {
    Create { namespace: String, event: Value },
    Patch { namespace: String, name: String, patch: Value },
}

impl Write {
    async fn run(self, api: Api, clock: Arc<dyn Clock>) {
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                clock.sleep(PAUSE).await;
            }
            let done = match &self {
                Self::Create { namespace, event } => api.create_event(namespace, event).await,
                Self::Patch { namespace, name, patch } => api.patch_event(namespace, name, patch).await,
            };
            match done {
                Ok(()) => return,
                Err(CallError::Api(error)) if client::ApiErrorExt::status(&*error).is_some() => {
                    tracing::debug!(%error, "Server rejected event (will not retry!)");
                    return;
                }
                Err(error) => tracing::warn!(%error, "Unable to write event (may retry after sleeping)"),
            }
        }
    }
}

fn age(then: SystemTime, now: SystemTime) -> Duration {
    now.duration_since(then).unwrap_or_default()
}

fn micros(at: SystemTime) -> String {
    machinery::time::format_micro(OffsetDateTime::from(at))
}

fn reference(pod: &PodView) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "namespace": pod.namespace(),
        "name": &*pod.name,
        "uid": &*pod.uid,
    })
}

/// A note of legal length.
fn cut(mut note: String) -> String {
    if note.len() > MAX_NOTE {
        let room = MAX_NOTE - CUT.len();
        let end = (0..=room).rev().find(|i| note.is_char_boundary(*i)).unwrap_or(0);
        note.truncate(end);
        note.push_str(CUT);
    }
    note
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer() -> Writer {
        let service = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("not reached"))
        });
        Writer {
            api: Api::new(kube::Client::new(service, "default")),
            host: "host".into(),
            clock: runtime::clock::RealClock::shared(),
            series: HashMap::new(),
        }
    }

    #[tokio::test]
    async fn repeats_become_a_series() {
        let mut writer = writer();
        let told = Told {
            about: crate::plugins::testing::pod_view("p", |p| p),
            related: None,
            kind: "Warning",
            reason: "FailedScheduling",
            action: "Scheduling",
            note: "no room".into(),
            scheduler: "default-scheduler".into(),
        };
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let first = writer.writes(told.clone(), at(1));
        let [Write::Create { event, .. }] = first.as_slice() else { panic!("one event") };
        assert_eq!(event["metadata"]["name"], "p.3b9aca00");
        assert_eq!(
            (&event["regarding"]["uid"], &event["eventTime"]),
            (&"uid-p".into(), &"1970-01-01T00:00:01.000000Z".into())
        );
        let second = writer.writes(told.clone(), at(2));
        let [Write::Patch { patch, .. }] = second.as_slice() else { panic!("one patch") };
        assert_eq!(patch["series"]["count"], 2);
        assert!(writer.writes(told.clone(), at(3)).is_empty(), "counted only");
        assert!(writer.finished(at(10)).is_empty());
        let last = writer.finished(at(1000));
        let [Write::Patch { patch, .. }] = last.as_slice() else { panic!("one patch") };
        assert_eq!((&patch["series"]["count"], writer.series.len()), (&3.into(), 0));
        let other = Told { note: "another".into(), ..told };
        assert!(matches!(writer.writes(other, at(1001)).as_slice(), [Write::Create { .. }]));
    }

    #[test]
    fn long_notes_are_cut() {
        let note = cut("é".repeat(1000));
        assert!(note.len() <= MAX_NOTE && note.ends_with("é ..."));
        assert_eq!(cut("short".into()), "short");
    }
}
