//! `GET /containerLogs/{namespace}/{pod}/{container}`.

use std::path::PathBuf;

use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt;
use http::{Response, StatusCode};
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{Server, is_log_path, query_pairs, text};
use crate::cri::{ContainerRecord, PodView, RecordState, v1};
use crate::logs::{LogOptions, stream};
use crate::pods;

const CHUNKS: usize = 64;

impl Server {
    pub(super) async fn logs(&self, namespace: &str, pod: &str, container: &str, query: &str) -> Response<Body> {
        let Some((options, previous)) = options(query) else {
            return text(StatusCode::UNPROCESSABLE_ENTITY, "{\"message\": \"Invalid request.\"}");
        };
        let Some(found) = self.workers.find(namespace, pod) else {
            return text(StatusCode::NOT_FOUND, format!("pod {pod:?} does not exist\n"));
        };
        if pods::find_container(&found.pod, container).is_none() {
            return text(StatusCode::NOT_FOUND, format!("container {container:?} not found in pod {pod:?}\n"));
        }
        let view = match PodView::read(&self.services.cri, pods::uid(&found.pod)).await {
            Ok(view) => view,
            Err(error) => return text(StatusCode::BAD_REQUEST, error.to_string()),
        };
        let record = match choose(&view, container, previous) {
            Some(record) => record.clone(),
            None => return text(StatusCode::BAD_REQUEST, self.absent(&found.pod, container, previous)),
        };
        let path = PathBuf::from(&record.log_path);
        if !is_log_path(&self.services.paths, &path) || !path.exists() {
            let message =
                format!("failed to try resolving symlinks in path {:?}: no such file or directory", path.display());
            return text(StatusCode::INTERNAL_SERVER_ERROR, message);
        }
        let (sender, receiver) = mpsc::channel::<Bytes>(CHUNKS);
        let cri = self.services.cri.clone();
        tokio::spawn(async move {
            let running = v1::ContainerState::ContainerRunning as i32;
            let alive = || async {
                // A runtime that does not answer says nothing about the container.
                match cri.container_status(&record.id, false).await {
                    Ok(answer) => answer.status.is_some_and(|status| status.state == running),
                    Err(error) => !error.is_not_found(),
                }
            };
            if let Err(error) = stream(&path, &options, &sender, alive).await {
                tracing::warn!(path = %path.display(), %error, "log of a container");
            }
        });
        let body = Body::from_stream(ReceiverStream::new(receiver).map(Ok::<_, std::convert::Infallible>));
        let mut response = Response::new(body);
        let kind = http::HeaderValue::from_static("text/plain");
        response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
        response
    }

    /// Why there is no log.
    fn absent(&self, pod: &k8s_openapi::api::core::v1::Pod, container: &str, previous: bool) -> String {
        let name = pods::name(pod);
        if previous {
            return format!("previous terminated container {container:?} in pod {name:?} not found");
        }
        let status = self.services.statuses.get(pods::uid(pod));
        let lists = status.iter().flat_map(|status| {
            [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses]
        });
        let found = lists.flatten().flatten().find(|status| status.name == container);
        let state = found.and_then(|found| found.state.as_ref());
        let waiting = state.and_then(|state| state.waiting.as_ref());
        match waiting.and_then(|waiting| waiting.reason.as_deref()) {
            Some("ErrImagePull") => {
                format!("container {container:?} in pod {name:?} is waiting to start: image can't be pulled")
            }
            Some("ImagePullBackOff") => {
                format!("container {container:?} in pod {name:?} is waiting to start: trying and failing to pull image")
            }
            Some(reason) => format!("container {container:?} in pod {name:?} is waiting to start: {reason}"),
            None if state.is_some_and(|state| state.terminated.is_some()) => {
                format!("container {container:?} in pod {name:?} is terminated")
            }
            None => format!("container {container:?} in pod {name:?} is not available"),
        }
    }
}

/// The running instance, else the newest that ended; with `previous` the one before the newest.
fn choose<'a>(view: &'a PodView, container: &'a str, previous: bool) -> Option<&'a ContainerRecord> {
    let mut records = view.records(container).filter(|record| record.state != RecordState::Created);
    if previous {
        return records.nth(1);
    }
    records.next()
}

/// Reads the query; `None` if it makes no sense.
fn options(query: &str) -> Option<(LogOptions, bool)> {
    let mut options = LogOptions::default();
    let mut previous = false;
    let mut since_seconds = None;
    for (key, value) in query_pairs(query) {
        let flag = || matches!(value.as_str(), "true" | "1");
        match key.as_str() {
            "follow" => options.follow = flag(),
            "previous" => previous = flag(),
            "timestamps" => options.timestamps = flag(),
            "tailLines" | "tail" if value == "all" => {}
            "tailLines" | "tail" => options.tail = Some(value.parse().ok()?),
            "limitBytes" => options.limit_bytes = Some(value.parse().ok().filter(|limit| *limit > 0)?),
            "sinceSeconds" => since_seconds = Some(value.parse::<i64>().ok().filter(|seconds| *seconds > 0)?),
            "sinceTime" => options.since = Some(value.parse::<Timestamp>().ok()?),
            "stream" => match value.as_str() {
                "Stdout" => options.stderr_only = Some(false),
                "Stderr" => options.stderr_only = Some(true),
                "All" | "" => {}
                _ => return None,
            },
            _ => {}
        }
    }
    if let Some(seconds) = since_seconds {
        if options.since.is_some() {
            return None;
        }
        let now = Timestamp::now();
        options.since = now.checked_sub(jiff::SignedDuration::from_secs(seconds)).ok();
    }
    Some((options, previous))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let (read, previous) = options("follow=true&tailLines=5&previous=true&timestamps=true").unwrap();
        assert!(read.follow && read.timestamps && previous);
        assert_eq!(read.tail, Some(5));
        assert!(options("tailLines=-1").is_none());
        assert!(options("sinceSeconds=5&sinceTime=2026-01-01T00:00:00Z").is_none());
        assert!(options("limitBytes=0").is_none());
    }
}
