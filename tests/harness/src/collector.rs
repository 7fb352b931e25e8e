//! A collector of traces, which keeps what it is sent.

use std::{path::PathBuf, sync::Arc};

use parking_lot::Mutex;
use proto::otlp::{
    ExportTraceServiceRequest, ExportTraceServiceResponse, Span,
    trace_service_server::{TraceService, TraceServiceServer},
};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status};

#[derive(Clone, Default)]
struct Service(Arc<Mutex<Vec<Span>>>);

/// A running collector. It ends with this.
pub struct Collector {
    spans: Service,
    directory: TempDir,
    _stop: DropGuard,
}

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let scopes = request.into_inner().resource_spans.into_iter().flat_map(|spans| spans.scope_spans);
        self.0.lock().extend(scopes.flat_map(|scope| scope.spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Starts a collector.
    pub fn start() -> Self {
        let directory = TempDir::new().expect("a directory");
        let listener = UnixListener::bind(directory.path().join("collector.sock")).expect("a socket");
        let (spans, stop) = (Service::default(), CancellationToken::new());
        let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(spans.clone()));
        let incoming = UnixListenerStream::new(listener);
        tokio::spawn(server.serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned()));
        Self { spans, directory, _stop: stop.drop_guard() }
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("collector.sock")
    }

    /// The name of each span of a trace, with that of its parent; the parent of the first is empty.
    pub fn trace(&self, id: &[u8]) -> Vec<(String, String)> {
        let spans = self.spans.0.lock();
        let of: Vec<&Span> = spans.iter().filter(|span| span.trace_id == id).collect();
        let parent = |span: &Span| of.iter().find(|other| other.span_id == span.parent_span_id);
        let pair = |span: &&Span| (span.name.clone(), parent(span).map(|found| found.name.clone()).unwrap_or_default());
        of.iter().map(pair).collect()
    }
}
