use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use proto::otlp::{
    ExportTraceServiceRequest, ExportTraceServiceResponse, Span as Wire,
    span::SpanKind,
    trace_service_server::{TraceService, TraceServiceServer},
};
use runtime::tasks::TaskGroup;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response};

use super::*;

/// A collector that keeps what it is sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[async_trait::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, tonic::Status> {
        self.0.lock().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    fn spans(&self) -> Vec<Wire> {
        let all = self.0.lock();
        let of = |request: &ExportTraceServiceRequest| request.resource_spans[0].scope_spans[0].spans.clone();
        all.iter().flat_map(of).collect()
    }
}

struct Traced {
    collector: Collector,
    tasks: TaskGroup,
    tracer: Tracer,
    _dir: tempfile::TempDir,
}

impl Traced {
    fn with(rate: i32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("c.sock");
        let collector = Collector::default();
        let listener = UnixListenerStream::new(UnixListener::bind(&socket).unwrap());
        let service = TraceServiceServer::new(collector.clone());
        tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(listener));
        let config =
            Config { endpoint: Some(format!("unix://{}", socket.display())), sampling_rate_per_million: Some(rate) };
        let tasks = TaskGroup::new("test");
        let service = Service { name: "apiserver", instance: "id".into(), host: String::new() };
        let tracer = Tracer::start(&config, &service, &tasks).unwrap();
        Self { collector, tasks, tracer, _dir: dir }
    }

    /// Stops, which sends what waits.
    async fn sent(self) -> Vec<Wire> {
        assert!(self.tasks.stop(Duration::from_secs(60)).await.is_empty());
        self.collector.spans()
    }
}

#[tokio::test]
async fn spans_are_sent_with_their_steps() {
    let traced = Traced::with(1_000_000);
    let root = traced.tracer.span("GET /api", Kind::Server, None);
    root.set("http.method", "GET");
    let trace = root.context().unwrap().trace.to_vec();
    let taken_along = root
        .within(async {
            step("read", [("len", 7_usize.into())]);
            let inner = child("etcd", Kind::Client);
            inner.fail("gone");
            let mut headers = http::HeaderMap::new();
            inner.within(async { inject(&mut headers) }).await;
            assert_eq!(Context::of_headers(&headers).as_ref(), inner.context());
            current()
        })
        .await;
    tokio::spawn(enter(taken_along, async { drop(child("elsewhere", Kind::Internal)) })).await.unwrap();
    drop(root);
    step("outside", []);
    let spans = traced.sent().await;
    let named = |name: &str| spans.iter().find(|span| span.name == name).unwrap();
    let root = named("GET /api");
    assert_eq!((spans.len(), root.kind()), (3, SpanKind::Server));
    assert!(spans.iter().all(|span| span.trace_id == trace && span.end_time_unix_nano >= span.start_time_unix_nano));
    assert_eq!(root.events.iter().map(|event| event.name.as_str()).collect::<Vec<_>>(), ["read"]);
    assert_eq!(root.attributes[0].key, "http.method");
    for name in ["etcd", "elsewhere"] {
        assert_eq!(named(name).parent_span_id, root.span_id, "{name}");
    }
    assert_eq!(named("etcd").status.as_ref().unwrap().message, "gone");
}

#[tokio::test]
async fn the_choice_of_a_trusted_parent_holds() {
    let traced = Traced::with(0);
    let mut parent = Context::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
    drop(traced.tracer.span("chosen", Kind::Server, Some(&parent)));
    drop(traced.tracer.linked("not chosen", Kind::Server, Some(parent.clone())));
    drop(traced.tracer.span("begun here", Kind::Server, None));
    parent.sampled = false;
    let unsent = traced.tracer.span("not sent", Kind::Server, Some(&parent));
    assert_eq!(unsent.context().unwrap().trace, parent.trace);
    assert!(!unsent.is_sent());
    drop(unsent);
    let spans = traced.sent().await;
    assert_eq!(spans.iter().map(|span| span.name.as_str()).collect::<Vec<_>>(), ["chosen"]);
    assert_eq!(spans[0].trace_id, parent.trace);
    assert_eq!(spans[0].parent_span_id, parent.span);
}

#[tokio::test]
async fn links_point_to_who_asked() {
    let traced = Traced::with(1_000_000);
    let asked = Context::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00").unwrap();
    drop(traced.tracer.linked("own", Kind::Server, Some(asked.clone())));
    let spans = traced.sent().await;
    assert_ne!(spans[0].trace_id, asked.trace);
    assert_eq!(spans[0].links[0].span_id, asked.span);
}

#[tokio::test]
async fn what_does_not_fit_is_dropped() {
    let config = Config { endpoint: Some("unix:///nowhere/c.sock".into()), sampling_rate_per_million: Some(1_000_000) };
    let tasks = TaskGroup::new("test");
    let service = Service { name: "kubelet", instance: String::new(), host: "n".into() };
    let tracer = Tracer::start(&config, &service, &tasks).unwrap();
    for _ in 0..10_000 {
        drop(tracer.span("work", Kind::Internal, None));
    }
    assert!(tasks.stop(Duration::from_secs(60)).await.is_empty());
    assert!(!Tracer::off().span("work", Kind::Internal, None).is_sent());
}

#[tokio::test]
async fn parts_of_a_work_may_be_told_of_alone() {
    let root = Tracer::off().span("request", Kind::Server, None);
    root.within(async {
        let part = child("Create", Kind::Internal);
        assert!(!part.is_told());
        let part = part.log_if_long(Duration::ZERO);
        assert!(part.is_told() && !part.log_if_long(Duration::from_secs(3600)).is_sent());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn slow_work_is_told_step_by_step() {
    let root = Tracer::off().span("Create", Kind::Internal, None).log_if_long(Duration::ZERO);
    root.set("resource", "pods");
    root.within(async {
        step("limitedReadBody succeeded", [("len", 12_usize.into())]);
        let inner = child("Create etcd3", Kind::Internal);
        inner.step("Txn call completed");
    })
    .await;
    let text = super::log::text(root.node().unwrap(), Duration::ZERO);
    let lines: Vec<&str> = text.lines().collect();
    let head = lines[0].split("]: ").nth(1).unwrap();
    assert!(head.starts_with("\"Create\" resource:pods (") && head.ends_with("ms):"), "{text}");
    let trace = lines[0].split(": ").next().unwrap();
    assert!(lines[1].starts_with(&format!("{trace}: ---\"limitedReadBody succeeded\" len:12 0ms (")), "{text}");
    assert!(lines[2].starts_with(&format!("{trace}: [\"Create etcd3\" ")), "{text}");
    assert!(lines[3].starts_with(&format!("{trace}:  ---\"Txn call completed\" ")), "{text}");
    assert!(lines[3].ends_with(")]") && lines[4].ends_with("] END"), "{text}");
    // Steps that took less than their share are not told.
    let short = super::log::text(root.node().unwrap(), Duration::from_secs(3600));
    assert!(!short.contains("---"), "{short}");
}
