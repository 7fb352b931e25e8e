//! Recording of core/v1 Events: bounded, correlated, never in the way of the caller.

mod correlate;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use client::ApiErrorExt;
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use runtime::{clock::Clock, tasks::TaskGroup};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use correlate::{Correlator, Decision};

/// Events that wait to be written; more are dropped and counted in the log.
const QUEUE: usize = 1000;
/// Attempts to write an event, and the pause between them.
const ATTEMPTS: u32 = 12;
const PAUSE: Duration = Duration::from_secs(10);
/// Time for the events that are left when the process stops.
const LAST_CALL: Duration = Duration::from_secs(2);
/// Longest message the API takes.
const MAX_MESSAGE: usize = 1024;

/// Severity of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// Information.
    Normal,
    /// Something may be wrong.
    Warning,
}

impl EventType {
    fn text(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// One event as a component tells it.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) about: ObjectReference,
    pub(crate) kind: EventType,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) annotations: Option<std::collections::BTreeMap<String, String>>,
    pub(crate) at: SystemTime,
}

/// Records events. Cheap to clone.
#[derive(Clone)]
pub struct EventRecorder {
    queue: mpsc::Sender<Told>,
    clock: Arc<dyn Clock>,
}

impl EventRecorder {
    /// A recorder that writes as `component`, on `host` if that matters to readers (kubelet, proxy).
    pub fn new(client: Client, component: &str, host: &str, clock: Arc<dyn Clock>, tasks: &TaskGroup) -> Self {
        let (queue, told) = mpsc::channel(QUEUE);
        let source =
            EventSource { component: Some(component.to_owned()), host: (!host.is_empty()).then(|| host.to_owned()) };
        let writer = Writer { client, source, clock: Arc::clone(&clock), correlator: Correlator::default() };
        let stop = tasks.token().clone();
        tasks.spawn("event recorder", writer.run(told, stop));
        Self { queue, clock }
    }

    /// A recorder whose events come out of the receiver: for tests of what records.
    pub fn to_channel(clock: Arc<dyn Clock>) -> (Self, EventLog) {
        let (queue, told) = mpsc::channel(QUEUE);
        (Self { queue, clock }, EventLog(told))
    }

    /// Records an event about an object.
    pub fn event(&self, about: &ObjectReference, kind: EventType, reason: &str, message: impl Into<String>) {
        self.annotated(about, kind, reason, message, None);
    }

    /// Records an event with annotations.
    pub fn annotated(
        &self,
        about: &ObjectReference,
        kind: EventType,
        reason: &str,
        message: impl Into<String>,
        annotations: Option<std::collections::BTreeMap<String, String>>,
    ) {
        let mut message = message.into();
        if message.len() > MAX_MESSAGE {
            let end = (0..=MAX_MESSAGE).rev().find(|i| message.is_char_boundary(*i)).unwrap_or(0);
            message.truncate(end);
        }
        tracing::info!(
            v = 3,
            object = %format!("{}/{}", about.namespace.as_deref().unwrap_or_default(), about.name.as_deref().unwrap_or_default()),
            kind = about.kind.as_deref().unwrap_or_default(),
            reason,
            message = %message,
            "Event occurred"
        );
        let told =
            Told { about: about.clone(), kind, reason: reason.to_owned(), message, annotations, at: self.clock.now() };
        if self.queue.try_send(told).is_err() {
            tracing::warn!(reason, "Unable to record event: too many queued events, dropped event");
        }
    }
}

/// Events of a recorder made by [`EventRecorder::to_channel`].
pub struct EventLog(mpsc::Receiver<Told>);

impl EventLog {
    /// Events recorded so far, as `Normal Reason message`.
    pub fn drain(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.0.try_recv().ok())
            .map(|t| format!("{} {} {}", t.kind.text(), t.reason, t.message))
            .collect()
    }
}

/// Reference to an object of a built-in kind.
pub fn reference_to<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

struct Writer {
    client: Client,
    source: EventSource,
    clock: Arc<dyn Clock>,
    correlator: Correlator,
}

impl Writer {
    async fn run(mut self, mut told: mpsc::Receiver<Told>, stop: CancellationToken) {
        while let Some(Some(event)) = stop.run_until_cancelled(told.recv()).await {
            if stop.run_until_cancelled(self.take(&event)).await.is_none() {
                break;
            }
        }
        // What was told before the end, such as the end of leading, is worth one quick attempt.
        let rest = async {
            while let Ok(event) = told.try_recv() {
                self.take(&event).await;
            }
        };
        if tokio::time::timeout(LAST_CALL, rest).await.is_err() {
            tracing::debug!("events were left unwritten at the end");
        }
    }

    async fn take(&mut self, event: &Told) {
        match self.correlator.decide(&self.source, event) {
            Decision::Drop => tracing::debug!(reason = event.reason, "event dropped as spam"),
            Decision::Write(written) => {
                if let Some(name) = self.write(event, &written).await {
                    self.correlator.wrote(&written.key, name);
                }
            }
        }
    }

    /// Writes, with retries while the server is not reachable; the name of the event if it exists now.
    async fn write(&self, told: &Told, written: &correlate::Written) -> Option<String> {
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                self.clock.sleep(PAUSE).await;
            }
            match self.attempt(told, written).await {
                Ok(name) => return Some(name),
                // The server has answered: it will answer the same again.
                Err(error) if error.status().is_some() && !error.is_transient() => {
                    let text = error.text();
                    if error.is_namespace_terminating() || error.is_already_exists() {
                        tracing::debug!(err = %text, "Server rejected event (will not retry!)");
                    } else {
                        tracing::error!(err = %text, "Server rejected event (will not retry!)");
                    }
                    return None;
                }
                Err(error) => tracing::warn!(err = %error.text(), "Unable to write event (may retry after sleeping)"),
            }
        }
        tracing::error!(reason = told.reason, "Unable to write event (retry limit exceeded!)");
        None
    }

    async fn attempt(&self, told: &Told, written: &correlate::Written) -> Result<String, kube::Error> {
        let namespace = told.about.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or("default");
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        if let Some(name) = &written.update {
            let patch = json!({
                "count": written.count,
                "lastTimestamp": time(told.at),
                "message": written.message,
            });
            match api.patch(name, &PatchParams::default(), &Patch::Strategic(&patch)).await {
                Ok(_) => return Ok(name.clone()),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        let event = self.event(told, written, namespace);
        let name = event.name_any();
        api.create(&PostParams::default(), &event).await?;
        Ok(name)
    }

    fn event(&self, told: &Told, written: &correlate::Written, namespace: &str) -> Event {
        let name = told.about.name.as_deref().unwrap_or_default();
        let nanos = told.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{name}.{nanos:x}")),
                namespace: Some(namespace.to_owned()),
                annotations: told.annotations.clone(),
                ..ObjectMeta::default()
            },
            involved_object: told.about.clone(),
            reason: Some(told.reason.clone()),
            message: Some(written.message.clone()),
            type_: Some(told.kind.text().to_owned()),
            source: Some(self.source.clone()),
            reporting_component: self.source.component.clone(),
            reporting_instance: self.source.host.clone(),
            first_timestamp: Some(time(written.first)),
            last_timestamp: Some(time(told.at)),
            count: Some(written.count),
            ..Event::default()
        }
    }
}

fn time(at: SystemTime) -> Time {
    // The API keeps whole seconds.
    let at = Timestamp::try_from(at).unwrap_or(Timestamp::UNIX_EPOCH);
    Time(Timestamp::from_second(at.as_second()).unwrap_or(Timestamp::UNIX_EPOCH))
}

#[cfg(test)]
mod tests;
