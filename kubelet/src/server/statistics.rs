//! Statistics in their three forms.

use std::sync::Arc;

use axum::body::Body;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use jiff::Timestamp;

use super::{Server, json_response, query_pairs, text};
use crate::platform::{DeviceIo, OpenFiles, Platform};
use crate::stats::summary::{Detail, summary};
use crate::stats::{cadvisor, resource};

/// Groups as the machine has them.
struct OfPlatform(Arc<dyn Platform>);

impl cadvisor::Groups for OfPlatform {
    fn open(&self, path: &str) -> OpenFiles {
        self.0.open_files(path)
    }

    fn io(&self, path: &str) -> Vec<DeviceIo> {
        self.0.cgroup_io(path)
    }
}

impl Server {
    /// `/stats/summary[?only_cpu_and_memory=true]`
    pub(super) async fn summary(&self, query: Option<&str>) -> Response<Body> {
        let wanted = query_pairs(query.unwrap_or_default());
        let only = wanted.iter().any(|(key, value)| key == "only_cpu_and_memory" && value == "true");
        let detail = if only { Detail::CpuAndMemory } else { Detail::All };
        let (node, pods) = tokio::join!(self.stats.node(), self.stats.pods());
        let name = self.services.facts.get().name.clone();
        match pods {
            Ok(pods) => json_response(&summary(&name, &node, &pods, Timestamp::now(), detail)),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }

    /// `/metrics/cadvisor`
    pub(super) async fn cadvisor(&self) -> Response<Body> {
        let (node, pods) = tokio::join!(self.stats.node(), self.stats.pods());
        let pods = pods.inspect_err(|error| tracing::error!(%error, "statistics of pods")).ok();
        let groups = OfPlatform(Arc::clone(&self.services.platform));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let made = tokio::task::spawn_blocking(move || cadvisor::exposition(&node, pods.as_deref(), cores, &groups));
        match made.await {
            Ok(made) => exposition(made),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }

    /// `/metrics/resource`
    pub(super) async fn resource_metrics(&self) -> Response<Body> {
        let (node, pods) = tokio::join!(self.stats.node(), self.stats.pods());
        exposition(resource::exposition(&node, pods.as_deref().ok()))
    }
}

fn exposition(made: String) -> Response<Body> {
    let mut response = Response::new(Body::from(made));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
