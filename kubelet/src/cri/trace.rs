//! Calls as parts of traces: each is a span, and the runtime is told whose part it is.

use http::HeaderMap;
use spans::{Kind, Span};
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

/// Operations with the names of the calls that they are.
const CALLS: [(&str, &str); 32] = [
    ("version", "runtime.v1.RuntimeService/Version"),
    ("status", "runtime.v1.RuntimeService/Status"),
    ("runtime_config", "runtime.v1.RuntimeService/RuntimeConfig"),
    ("update_runtime_config", "runtime.v1.RuntimeService/UpdateRuntimeConfig"),
    ("run_podsandbox", "runtime.v1.RuntimeService/RunPodSandbox"),
    ("stop_podsandbox", "runtime.v1.RuntimeService/StopPodSandbox"),
    ("remove_podsandbox", "runtime.v1.RuntimeService/RemovePodSandbox"),
    ("podsandbox_status", "runtime.v1.RuntimeService/PodSandboxStatus"),
    ("list_podsandbox", "runtime.v1.RuntimeService/ListPodSandbox"),
    ("update_podsandbox", "runtime.v1.RuntimeService/UpdatePodSandboxResources"),
    ("create_container", "runtime.v1.RuntimeService/CreateContainer"),
    ("start_container", "runtime.v1.RuntimeService/StartContainer"),
    ("stop_container", "runtime.v1.RuntimeService/StopContainer"),
    ("remove_container", "runtime.v1.RuntimeService/RemoveContainer"),
    ("list_containers", "runtime.v1.RuntimeService/ListContainers"),
    ("container_status", "runtime.v1.RuntimeService/ContainerStatus"),
    ("update_container", "runtime.v1.RuntimeService/UpdateContainerResources"),
    ("reopen_container_log", "runtime.v1.RuntimeService/ReopenContainerLog"),
    ("exec_sync", "runtime.v1.RuntimeService/ExecSync"),
    ("exec", "runtime.v1.RuntimeService/Exec"),
    ("attach", "runtime.v1.RuntimeService/Attach"),
    ("port_forward", "runtime.v1.RuntimeService/PortForward"),
    ("checkpoint_container", "runtime.v1.RuntimeService/CheckpointContainer"),
    ("container_stats", "runtime.v1.RuntimeService/ContainerStats"),
    ("list_container_stats", "runtime.v1.RuntimeService/ListContainerStats"),
    ("podsandbox_stats", "runtime.v1.RuntimeService/PodSandboxStats"),
    ("list_podsandbox_stats", "runtime.v1.RuntimeService/ListPodSandboxStats"),
    ("list_images", "runtime.v1.ImageService/ListImages"),
    ("image_status", "runtime.v1.ImageService/ImageStatus"),
    ("pull_image", "runtime.v1.ImageService/PullImage"),
    ("remove_image", "runtime.v1.ImageService/RemoveImage"),
    ("image_fs_info", "runtime.v1.ImageService/ImageFsInfo"),
];

/// The span of a call, if it is part of anything.
pub(super) fn span(operation: &'static str) -> Span {
    let name = CALLS.iter().find(|(own, _)| *own == operation).map_or(operation, |(_, name)| *name);
    spans::child(name, Kind::Client)
}

/// Tells the runtime which trace a call is part of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tell;

impl Interceptor for Tell {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let mut headers = HeaderMap::new();
        spans::inject(&mut headers);
        for (name, value) in &headers {
            let name = AsciiMetadataKey::from_bytes(name.as_str().as_bytes());
            if let (Ok(name), Ok(value)) = (name, AsciiMetadataValue::try_from(value.as_bytes())) {
                request.metadata_mut().insert(name, value);
            }
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use spans::{Context, Tracer};

    use super::*;

    #[tokio::test]
    async fn the_runtime_is_told_of_the_trace() {
        let bare = Tell.call(Request::new(())).unwrap();
        assert!(bare.metadata().is_empty());
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = Context::parse(parent).unwrap();
        let config = spans::Config { endpoint: Some("localhost:1".to_owned()), sampling_rate_per_million: None };
        let tasks = runtime::tasks::TaskGroup::new("traces");
        let service = spans::Service { name: "kubelet", instance: String::new(), host: String::new() };
        let tracer = Tracer::start(&config, &service, &tasks).unwrap();
        let work = tracer.span("syncPod", Kind::Internal, Some(&context));
        let told = work.within(async { Tell.call(Request::new(())).unwrap() }).await;
        let said = told.metadata().get("traceparent").unwrap().to_str().unwrap();
        assert!(said.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && said != parent, "{said}");
    }
}
