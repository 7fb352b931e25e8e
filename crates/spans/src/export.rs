//! Sends traces to a collector: OTLP over gRPC, in batches, from a queue that drops what does not fit.

use std::{
    borrow::Cow,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use proto::otlp::{
    AnyValue, ExportTraceServiceRequest, InstrumentationScope, KeyValue, Resource, ResourceSpans, ScopeSpans,
    Span as Wire, Status, any_value,
    span::{Event, Link, SpanKind},
    status::StatusCode,
    trace_service_client::TraceServiceClient,
};
use runtime::tasks::TaskGroup;
use tokio::sync::mpsc;
use tonic::transport::Channel;

use crate::{
    config::{Config, TracingError},
    context::Context,
    span::{Attribute, Attributes, Course, Item, Kind, Node, Sent, Span},
};

/// Spans that wait to be sent.
const QUEUE: usize = 2048;
/// Spans that are sent at once.
const BATCH: usize = 512;
/// Time that spans wait for others.
const WAIT: Duration = Duration::from_secs(5);
/// Time that a batch may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// The same of what is left when the component stops.
const LAST: Duration = Duration::from_secs(5);
const MILLION: u64 = 1_000_000;

/// Who does the work.
#[derive(Clone, Debug)]
pub struct Service {
    /// `service.name`.
    pub name: &'static str,
    /// `service.instance.id`; empty if there is none.
    pub instance: String,
    /// `host.name`; empty if it is not told.
    pub host: String,
}

/// Begins traces. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Tracer(Option<Arc<Exporter>>);

/// Where spans go.
pub(crate) struct Exporter {
    queue: mpsc::Sender<Wire>,
    dropped: AtomicU64,
    /// Traces that begin here are sent if their number is smaller.
    bound: u64,
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter").finish_non_exhaustive()
    }
}

/// An identifier that is not zero.
pub(crate) fn id<const N: usize>() -> [u8; N] {
    let mut id = [0; N];
    while id == [0; N] {
        rand::fill(&mut id[..]);
    }
    id
}

impl Tracer {
    /// Sends nothing.
    pub fn off() -> Self {
        Self::default()
    }

    /// Sends what is configured, as a task of `tasks`.
    pub fn start(config: &Config, service: &Service, tasks: &TaskGroup) -> Result<Self, TracingError> {
        let client = TraceServiceClient::new(config.channel()?);
        let (queue, spans) = mpsc::channel(QUEUE);
        // Of 2^63 numbers, which is how many the last eight bytes of a trace stand for.
        let bound = u64::try_from(u128::from(config.rate()) * (1 << 63) / u128::from(MILLION)).unwrap_or(u64::MAX);
        let exporter = Arc::new(Exporter { queue, dropped: AtomicU64::new(0), bound });
        let sender = Sender { client, resource: resource(service), exporter: Arc::downgrade(&exporter) };
        let stop = tasks.token().clone();
        tasks.spawn("traces", async move { sender.run(spans, stop).await });
        Ok(Self(Some(exporter)))
    }

    /// Whether traces are sent at all.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Begins a piece of work. `parent` is who asked for it, if its word is taken for the choice of traces.
    pub fn span(&self, name: impl Into<Cow<'static, str>>, kind: Kind, parent: Option<&Context>) -> Span {
        self.begin(name.into(), kind, parent, None)
    }

    /// Begins a piece of work, and a trace, that points to who asked for it.
    pub fn linked(&self, name: impl Into<Cow<'static, str>>, kind: Kind, link: Option<Context>) -> Span {
        self.begin(name.into(), kind, None, link)
    }

    fn begin(&self, name: Cow<'static, str>, kind: Kind, parent: Option<&Context>, link: Option<Context>) -> Span {
        let Some(exporter) = &self.0 else { return Span::begin(name, None, None) };
        let context = match parent {
            Some(parent) => Context { span: id(), ..parent.clone() },
            None => {
                let trace: [u8; 16] = id();
                let number = trace[8..].iter().fold(0, |number: u64, byte| number << 8 | u64::from(*byte)) >> 1;
                Context { trace, span: id(), sampled: number < exporter.bound, state: String::new() }
            }
        };
        let sent = context.sampled.then(|| Sent {
            exporter: Arc::clone(exporter),
            kind,
            parent: parent.map(|parent| parent.span),
            link,
        });
        Span::begin(name, Some(context), sent)
    }
}

impl Exporter {
    /// Takes a piece of work that has ended, if there is room.
    pub(crate) fn offer(&self, node: &Node, sent: &Sent) {
        let Some(context) = &node.context else { return };
        if self.queue.try_send(wire(node, sent, context)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn nanos(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, any_value::Value::StringValue(value.to_owned()))
}

fn attributes(all: &Attributes) -> Vec<KeyValue> {
    let one = |(name, value): &(&'static str, Attribute)| match value {
        Attribute::Text(value) => text(name, value),
        Attribute::Number(number) => attribute(name, any_value::Value::IntValue(*number)),
        Attribute::Truth(truth) => attribute(name, any_value::Value::BoolValue(*truth)),
    };
    all.iter().map(one).collect()
}

fn wire(node: &Node, sent: &Sent, context: &Context) -> Wire {
    let course = node.course.lock();
    let Course { attributes: own, items, dropped, error } = &*course;
    let events = items.iter().filter_map(|item| match item {
        Item::Step { at, text, attributes: of_step } => Some(Event {
            time_unix_nano: nanos(node.wall(*at)),
            name: (*text).to_owned(),
            attributes: attributes(of_step),
            dropped_attributes_count: 0,
        }),
        Item::Child(_) => None,
    });
    let links = sent.link.iter().map(|link| Link {
        trace_id: link.trace.to_vec(),
        span_id: link.span.to_vec(),
        trace_state: link.state.clone(),
        flags: u32::from(link.sampled),
        ..Link::default()
    });
    let kind = match sent.kind {
        Kind::Internal => SpanKind::Internal,
        Kind::Server => SpanKind::Server,
        Kind::Client => SpanKind::Client,
    };
    Wire {
        trace_id: context.trace.to_vec(),
        span_id: context.span.to_vec(),
        trace_state: context.state.clone(),
        parent_span_id: sent.parent.map(|parent| parent.to_vec()).unwrap_or_default(),
        name: node.name.to_string(),
        kind: kind.into(),
        start_time_unix_nano: nanos(node.began),
        end_time_unix_nano: nanos(node.wall(node.ended())),
        attributes: attributes(own),
        dropped_attributes_count: 0,
        events: events.collect(),
        dropped_events_count: u32::try_from(*dropped).unwrap_or(u32::MAX),
        links: links.collect(),
        dropped_links_count: 0,
        status: error.as_ref().map(|why| Status { message: why.clone(), code: StatusCode::Error.into() }),
        flags: u32::from(context.sampled),
    }
}

fn resource(service: &Service) -> Resource {
    let told = [
        ("service.name", service.name),
        ("service.version", runtime::version::git_version()),
        ("service.instance.id", service.instance.as_str()),
        ("host.name", service.host.as_str()),
        ("telemetry.sdk.language", "rust"),
        ("telemetry.sdk.name", "timonel"),
        ("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
    ];
    let told = told.into_iter().filter(|(_, value)| !value.is_empty()).map(|(key, value)| text(key, value));
    Resource { attributes: told.collect() }
}

/// Who sends.
struct Sender {
    client: TraceServiceClient<Channel>,
    resource: Resource,
    exporter: std::sync::Weak<Exporter>,
}

impl Sender {
    async fn run(mut self, mut spans: mpsc::Receiver<Wire>, stop: runtime::CancellationToken) {
        loop {
            let mut batch = Vec::with_capacity(BATCH);
            let stopped = stop.run_until_cancelled(gather(&mut spans, &mut batch)).await.is_none();
            if stopped || spans.is_closed() {
                while let Ok(span) = spans.try_recv() {
                    batch.push(span);
                }
                return self.send(batch, LAST).await;
            }
            self.send(batch, DEADLINE).await;
        }
    }

    async fn send(&mut self, batch: Vec<Wire>, within: Duration) {
        if batch.is_empty() {
            return;
        }
        let count = batch.len();
        let scope = InstrumentationScope { name: "timonel".into(), version: String::new() };
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans: vec![ScopeSpans { scope: Some(scope), spans: batch }],
                schema_url: String::new(),
            }],
        };
        let why = match tokio::time::timeout(within, self.client.export(request)).await {
            Ok(Ok(answer)) => match answer.into_inner().partial_success {
                Some(part) if part.rejected_spans > 0 => part.error_message,
                _ => String::new(),
            },
            Ok(Err(status)) => format!("rpc error: code = {:?} desc = {}", status.code(), status.message()),
            Err(_) => "context deadline exceeded".into(),
        };
        if !why.is_empty() {
            tracing::warn!(spans = count, err = why, "traces export");
        }
        let dropped = self.exporter.upgrade().map_or(0, |exporter| exporter.dropped.swap(0, Ordering::Relaxed));
        if dropped > 0 {
            tracing::warn!(spans = dropped, "Traces were dropped, because too many wait to be sent");
        }
    }
}

/// Waits for a span, and then for others until there are many or the first has waited long.
async fn gather(spans: &mut mpsc::Receiver<Wire>, batch: &mut Vec<Wire>) {
    if spans.recv_many(batch, BATCH).await == 0 {
        return;
    }
    let more = async {
        while batch.len() < BATCH {
            let room = BATCH - batch.len();
            if spans.recv_many(batch, room).await == 0 {
                return;
            }
        }
    };
    // Full or not, the batch is sent.
    tokio::time::timeout(WAIT, more).await.unwrap_or_default();
}
