//! Events to the API: bounded, counted together when they repeat.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event as ApiEvent, EventSource};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Ready, limited};
use crate::events::{Event, EventSink};
use crate::rate::Rate;

const QUEUE: usize = 1000;
const REMEMBERED: usize = 4096;

/// Takes events without waiting; what does not fit is counted and dropped.
pub struct ApiSink {
    queue: mpsc::Sender<Event>,
    dropped: AtomicU64,
}

impl EventSink for ApiSink {
    fn emit(&self, event: Event) {
        tracing::debug!(reason = event.reason, name = event.object.name, message = event.message, "event");
        if self.queue.try_send(event).is_err() {
            let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            tracing::warn!(dropped, "event queue is full");
        }
    }
}

impl ApiSink {
    /// A sink whose events are written, from `ready` on, by a task that ends with `stop`. `limits`: events a second on
    /// average, zero for no limit, and at once.
    pub fn start(client: Client, node: &str, limits: (i32, i32), mut ready: Ready, stop: CancellationToken) -> Self {
        let (queue, events) = mpsc::channel(QUEUE);
        let source = EventSource { component: Some("kubelet".to_owned()), host: Some(node.to_owned()) };
        let writer = Writer { client, source, known: HashMap::new(), rate: Rate::new(limits.0, limits.1) };
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => return,
                () = ready.wait() => {}
            }
            writer.run(events, stop).await;
        });
        Self { queue, dropped: AtomicU64::new(0) }
    }
}

struct Known {
    name: String,
    count: i32,
}

struct Writer {
    client: Client,
    source: EventSource,
    known: HashMap<String, Known>,
    rate: Rate,
}

impl Writer {
    async fn run(mut self, mut events: mpsc::Receiver<Event>, stop: CancellationToken) {
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return,
                event = events.recv() => event,
            };
            let Some(event) = event else { return };
            self.rate.wait().await;
            self.write(event).await;
        }
    }

    async fn write(&mut self, event: Event) {
        let namespace =
            event.object.namespace.clone().filter(|ns| !ns.is_empty()).unwrap_or_else(|| "default".to_owned());
        let api: Api<ApiEvent> = Api::namespaced(self.client.clone(), &namespace);
        let key = key(&event);
        let now = Time(Timestamp::now());
        if let Some(known) = self.known.get_mut(&key) {
            known.count += 1;
            let patch = json!({ "count": known.count, "lastTimestamp": now, "message": event.message });
            match limited(api.patch(&known.name, &PatchParams::default(), &Patch::Strategic(&patch))).await {
                Ok(_) => return,
                Err(error) if error.is_not_found() => drop(self.known.remove(&key)),
                Err(error) => return tracing::debug!(%error, "event"),
            }
        }
        let about = event.object.name.clone().unwrap_or_default();
        let name = format!("{about}.{:x}", Timestamp::now().as_nanosecond());
        let made = ApiEvent {
            metadata: ObjectMeta { name: Some(name.clone()), namespace: Some(namespace), ..ObjectMeta::default() },
            involved_object: event.object,
            reason: Some(event.reason),
            message: Some(event.message),
            type_: Some(event.type_.as_str().to_owned()),
            count: Some(1),
            first_timestamp: Some(now.clone()),
            last_timestamp: Some(now),
            reporting_component: Some("kubelet".to_owned()),
            reporting_instance: self.source.host.clone(),
            source: Some(self.source.clone()),
            ..ApiEvent::default()
        };
        match limited(api.create(&PostParams::default(), &made)).await {
            Ok(_) => {
                if self.known.len() >= REMEMBERED {
                    self.known.clear();
                }
                self.known.insert(key, Known { name, count: 1 });
            }
            Err(error) => tracing::debug!(%error, "event"),
        }
    }
}

fn key(event: &Event) -> String {
    let object = &event.object;
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    [
        part(&object.kind),
        part(&object.namespace),
        part(&object.name),
        part(&object.uid),
        part(&object.field_path),
        event.type_.as_str().to_owned(),
        event.reason.clone(),
        event.message.clone(),
    ]
    .join("\u{0}")
}
