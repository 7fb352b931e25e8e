//! gRPC calls to the runtime's socket, each with a deadline and a metric.

use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Response, Status};

use super::slim::{self, SlimContainer, SlimSandbox};
use super::trace::{self, Tell};
use super::v1;
use super::v1::image_service_client::ImageServiceClient;
use super::v1::runtime_service_client::RuntimeServiceClient;
use crate::{metrics, rpc};

const MAX_MESSAGE: usize = 16 * 1024 * 1024;
/// Bytes that may come unasked.
const WINDOW: u32 = 4 * 1024 * 1024;
/// The only version of the runtime API that exists.
const API_VERSION: &str = "0.1.0";

/// A runtime call that did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CriError {
    /// The endpoint is not a unix socket.
    #[error("invalid container runtime endpoint {0:?}: only unix sockets are supported")]
    Endpoint(String),
    /// The runtime speaks another version.
    #[error("runtime api version is not supported")]
    Version,
    /// The runtime answered with an error.
    #[error("rpc error: code = {code:?} desc = {message}")]
    Call {
        /// gRPC code.
        code: Code,
        /// The runtime's text.
        message: String,
    },
    /// The answer lacks a required part.
    #[error("the runtime's answer has no {0}")]
    Incomplete(&'static str),
}

impl CriError {
    /// The runtime's own text without the gRPC frame.
    pub fn message(&self) -> String {
        match self {
            Self::Call { message, .. } => message.clone(),
            other => other.to_string(),
        }
    }

    /// Whether the object is gone.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Call { code: Code::NotFound, .. })
    }

    /// Whether the runtime lacks the call.
    pub fn is_unimplemented(&self) -> bool {
        matches!(self, Self::Call { code: Code::Unimplemented, .. })
    }

    /// Whether what was asked for will not happen after all, as an answer that did not come does not tell.
    pub fn is_final(&self) -> bool {
        use Code::{Aborted, Cancelled, DeadlineExceeded, ResourceExhausted, Unavailable};
        match self {
            Self::Call { code, .. } => {
                !matches!(code, Cancelled | DeadlineExceeded | Unavailable | ResourceExhausted | Aborted)
            }
            Self::Endpoint(_) | Self::Version | Self::Incomplete(_) => true,
        }
    }

    /// Whether the deadline passed.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Call { code: Code::DeadlineExceeded, .. })
    }
}

impl From<Status> for CriError {
    fn from(status: Status) -> Self {
        Self::Call { code: status.code(), message: status.message().to_owned() }
    }
}

/// What the runtime says about itself.
#[derive(Clone, Debug)]
pub struct RuntimeVersion {
    /// `containerd`, the scheme of container ids.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// A connection to the runtime and image services.
#[derive(Clone)]
pub struct Cri {
    channel: Channel,
    runtime: RuntimeServiceClient<InterceptedService<Channel, Tell>>,
    images: ImageServiceClient<InterceptedService<Channel, Tell>>,
    timeout: Duration,
}

impl Cri {
    /// Connects lazily; calls fail while the socket is absent and recover when it returns.
    pub fn connect(runtime: &str, images: &str, timeout: Duration) -> Result<Self, CriError> {
        let channel = channel(runtime)?;
        let runtime = RuntimeServiceClient::with_interceptor(channel.clone(), Tell)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let images = ImageServiceClient::with_interceptor(self::channel(images)?, Tell)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        Ok(Self { channel, runtime, images, timeout })
    }

    /// Checks the API version.
    pub async fn version(&self) -> Result<RuntimeVersion, CriError> {
        let mut client = self.runtime.clone();
        let request = v1::VersionRequest { version: API_VERSION.into() };
        let answer = call("version", self.timeout, Box::pin(client.version(request))).await?;
        if answer.version != API_VERSION {
            return Err(CriError::Version);
        }
        Ok(RuntimeVersion { name: answer.runtime_name, version: answer.runtime_version })
    }

    /// Conditions, handlers and features.
    pub async fn status(&self, verbose: bool) -> Result<v1::StatusResponse, CriError> {
        let mut client = self.runtime.clone();
        call("status", self.timeout, Box::pin(client.status(v1::StatusRequest { verbose }))).await
    }

    /// The image of sandboxes, where the runtime tells it; newer runtimes pin it.
    pub async fn sandbox_image(&self) -> Option<String> {
        let answer = self.status(true).await.ok()?;
        let config: serde_json::Value = serde_json::from_str(answer.info.get("config")?).ok()?;
        config.get("sandboxImage")?.as_str().map(str::to_owned)
    }

    /// The runtime's cgroup driver.
    pub async fn runtime_config(&self) -> Result<v1::RuntimeConfigResponse, CriError> {
        let mut client = self.runtime.clone();
        call("runtime_config", self.timeout, Box::pin(client.runtime_config(v1::RuntimeConfigRequest {}))).await
    }

    /// Tells the runtime the node's Pod address range.
    pub async fn update_runtime_config(&self, pod_cidr: &str) -> Result<(), CriError> {
        let mut client = self.runtime.clone();
        let network_config = Some(v1::NetworkConfig { pod_cidr: pod_cidr.to_owned() });
        let request = v1::UpdateRuntimeConfigRequest { runtime_config: Some(v1::RuntimeConfig { network_config }) };
        call("update_runtime_config", self.timeout, Box::pin(client.update_runtime_config(request))).await.map(drop)
    }

    /// Creates and starts a sandbox.
    pub async fn run_pod_sandbox(&self, config: v1::PodSandboxConfig, handler: &str) -> Result<String, CriError> {
        let mut client = self.runtime.clone();
        let request = v1::RunPodSandboxRequest { config: Some(config), runtime_handler: handler.to_owned() };
        let answer = call("run_podsandbox", self.timeout * 2, Box::pin(client.run_pod_sandbox(request))).await?;
        if answer.pod_sandbox_id.is_empty() {
            return Err(CriError::Incomplete("sandbox id"));
        }
        Ok(answer.pod_sandbox_id)
    }

    /// Stops a sandbox and everything in it; one that is gone counts as stopped.
    pub async fn stop_pod_sandbox(&self, id: &str) -> Result<(), CriError> {
        let mut client = self.runtime.clone();
        let request = v1::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone_is_fine(call("stop_podsandbox", self.timeout, Box::pin(client.stop_pod_sandbox(request))).await)
    }

    /// Removes a sandbox.
    pub async fn remove_pod_sandbox(&self, id: &str) -> Result<(), CriError> {
        let mut client = self.runtime.clone();
        let request = v1::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone_is_fine(call("remove_podsandbox", self.timeout, Box::pin(client.remove_pod_sandbox(request))).await)
    }

    /// One sandbox with its addresses.
    pub async fn pod_sandbox_status(&self, id: &str, verbose: bool) -> Result<v1::PodSandboxStatusResponse, CriError> {
        let mut client = self.runtime.clone();
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose };
        call("podsandbox_status", self.timeout, Box::pin(client.pod_sandbox_status(request))).await
    }

    /// Sandboxes that match.
    pub async fn list_pod_sandbox(
        &self,
        filter: Option<v1::PodSandboxFilter>,
    ) -> Result<Vec<v1::PodSandbox>, CriError> {
        let mut client = self.runtime.clone();
        let request = v1::ListPodSandboxRequest { filter };
        Ok(call("list_podsandbox", self.timeout, Box::pin(client.list_pod_sandbox(request))).await?.items)
    }

    /// All sandboxes, as little of them as tells whether something changed.
    pub async fn all_sandboxes(&self) -> Result<Vec<SlimSandbox>, CriError> {
        let listed = slim::sandboxes(self.channel.clone(), MAX_MESSAGE);
        Ok(call("list_podsandbox", self.timeout, Box::pin(listed)).await?.items)
    }

    /// All containers, in the same way.
    pub async fn all_containers(&self) -> Result<Vec<SlimContainer>, CriError> {
        let listed = slim::containers(self.channel.clone(), MAX_MESSAGE);
        Ok(call("list_containers", self.timeout, Box::pin(listed)).await?.items)
    }

    /// Creates a container.
    pub async fn create_container(&self, request: v1::CreateContainerRequest) -> Result<String, CriError> {
        let mut client = self.runtime.clone();
        let answer = call("create_container", self.timeout, Box::pin(client.create_container(request))).await?;
        if answer.container_id.is_empty() {
            return Err(CriError::Incomplete("container id"));
        }
        Ok(answer.container_id)
    }

    /// Starts a created container.
    pub async fn start_container(&self, id: &str) -> Result<(), CriError> {
        let mut client = self.runtime.clone();
        let request = v1::StartContainerRequest { container_id: id.to_owned() };
        call("start_container", self.timeout, Box::pin(client.start_container(request))).await.map(drop)
    }

    /// Stops a container within `grace` seconds.
    pub async fn stop_container(&self, id: &str, grace: i64) -> Result<(), CriError> {
        let mut client = self.runtime.clone();
        let request = v1::StopContainerRequest { container_id: id.to_owned(), timeout: grace };
        let deadline = self.timeout + Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        gone_is_fine(call("stop_container", deadline, Box::pin(client.stop_container(request))).await)
    }

    /// Removes a container.
    pub async fn remove_container(&self, id: &str) -> Result<(), CriError> {
        let mut client = self.runtime.clone();
        let request = v1::RemoveContainerRequest { container_id: id.to_owned() };
        gone_is_fine(call("remove_container", self.timeout, Box::pin(client.remove_container(request))).await)
    }

    /// Containers that match.
    pub async fn list_containers(&self, filter: Option<v1::ContainerFilter>) -> Result<Vec<v1::Container>, CriError> {
        let mut client = self.runtime.clone();
        let request = v1::ListContainersRequest { filter };
        Ok(call("list_containers", self.timeout, Box::pin(client.list_containers(request))).await?.containers)
    }

    /// One container in full.
    pub async fn container_status(&self, id: &str, verbose: bool) -> Result<v1::ContainerStatusResponse, CriError> {
        let mut client = self.runtime.clone();
        let request = v1::ContainerStatusRequest { container_id: id.to_owned(), verbose };
        call("container_status", self.timeout, Box::pin(client.container_status(request))).await
    }

    /// Changes a running container's limits.
    pub async fn update_container(&self, id: &str, linux: v1::LinuxContainerResources) -> Result<(), CriError> {
        let mut client = self.runtime.clone();
        let request = v1::UpdateContainerResourcesRequest {
            container_id: id.to_owned(),
            linux: Some(linux),
            annotations: Default::default(),
        };
        call("update_container", self.timeout, Box::pin(client.update_container_resources(request))).await.map(drop)
    }

    /// Limits a container to some processors.
    pub async fn update_cpuset(&self, id: &str, cpus: &str) -> Result<(), CriError> {
        let linux = v1::LinuxContainerResources { cpuset_cpus: cpus.to_owned(), ..Default::default() };
        self.update_container(id, linux).await
    }

    /// Tells the runtime the Pod's new sums; runtimes without the call are fine.
    pub async fn update_sandbox(
        &self,
        id: &str,
        overhead: v1::LinuxContainerResources,
        resources: v1::LinuxContainerResources,
    ) -> Result<(), CriError> {
        let mut client = self.runtime.clone();
        let request = v1::UpdatePodSandboxResourcesRequest {
            pod_sandbox_id: id.to_owned(),
            overhead: Some(overhead),
            resources: Some(resources),
        };
        match call("update_podsandbox", self.timeout, Box::pin(client.update_pod_sandbox_resources(request))).await {
            Err(error) if error.is_unimplemented() || error.message().contains("not implemented") => Ok(()),
            other => other.map(drop),
        }
    }

    /// Makes the runtime open a container's log file anew.
    pub async fn reopen_container_log(&self, id: &str) -> Result<(), CriError> {
        let mut client = self.runtime.clone();
        let request = v1::ReopenContainerLogRequest { container_id: id.to_owned() };
        call("reopen_container_log", self.timeout, Box::pin(client.reopen_container_log(request))).await.map(drop)
    }

    /// Runs a command to its end; `timeout` zero means no limit on the runtime's side.
    pub async fn exec_sync(
        &self,
        id: &str,
        cmd: Vec<String>,
        timeout: Duration,
    ) -> Result<v1::ExecSyncResponse, CriError> {
        let mut client = self.runtime.clone();
        let seconds = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX);
        let request = v1::ExecSyncRequest { container_id: id.to_owned(), cmd, timeout: seconds };
        if timeout.is_zero() {
            return unlimited("exec_sync", Box::pin(client.exec_sync(request))).await;
        }
        call("exec_sync", timeout + self.timeout, Box::pin(client.exec_sync(request))).await
    }

    /// Asks for a streaming address for a command.
    pub async fn exec(&self, request: v1::ExecRequest) -> Result<String, CriError> {
        let mut client = self.runtime.clone();
        Ok(call("exec", self.timeout, Box::pin(client.exec(request))).await?.url)
    }

    /// Asks for a streaming address for a container's own streams.
    pub async fn attach(&self, request: v1::AttachRequest) -> Result<String, CriError> {
        let mut client = self.runtime.clone();
        Ok(call("attach", self.timeout, Box::pin(client.attach(request))).await?.url)
    }

    /// Asks for a streaming address for ports of a sandbox.
    pub async fn port_forward(&self, request: v1::PortForwardRequest) -> Result<String, CriError> {
        let mut client = self.runtime.clone();
        Ok(call("port_forward", self.timeout, Box::pin(client.port_forward(request))).await?.url)
    }

    /// Checkpoints a container into an archive.
    pub async fn checkpoint_container(&self, id: &str, location: &str, seconds: i64) -> Result<(), CriError> {
        let mut client = self.runtime.clone();
        let request = v1::CheckpointContainerRequest {
            container_id: id.to_owned(),
            location: location.to_owned(),
            timeout: seconds,
        };
        let deadline = self.timeout + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        call("checkpoint_container", deadline, Box::pin(client.checkpoint_container(request))).await.map(drop)
    }

    /// Usage of all running containers.
    pub async fn list_container_stats(&self) -> Result<Vec<v1::ContainerStats>, CriError> {
        let mut client = self.runtime.clone();
        let request = v1::ListContainerStatsRequest { filter: None };
        Ok(call("list_container_stats", self.timeout, Box::pin(client.list_container_stats(request))).await?.stats)
    }

    /// The stream of container events, where the runtime has one.
    pub async fn container_events(&self) -> Result<tonic::Streaming<v1::ContainerEventResponse>, CriError> {
        let mut client = self.runtime.clone();
        unlimited("get_container_events", Box::pin(client.get_container_events(v1::GetEventsRequest {}))).await
    }

    /// All images.
    pub async fn list_images(&self) -> Result<Vec<v1::Image>, CriError> {
        let mut client = self.images.clone();
        let request = v1::ListImagesRequest { filter: None };
        Ok(call("list_images", self.timeout, Box::pin(client.list_images(request))).await?.images)
    }

    /// One image, if present.
    pub async fn image_status(&self, image: v1::ImageSpec, verbose: bool) -> Result<v1::ImageStatusResponse, CriError> {
        let mut client = self.images.clone();
        let request = v1::ImageStatusRequest { image: Some(image), verbose };
        call("image_status", self.timeout, Box::pin(client.image_status(request))).await
    }

    /// Pulls an image; there is no limit on its time, the caller's cancellation ends it.
    pub async fn pull_image(
        &self,
        image: v1::ImageSpec,
        auth: Option<v1::AuthConfig>,
        sandbox: Option<v1::PodSandboxConfig>,
    ) -> Result<String, CriError> {
        let mut client = self.images.clone();
        let request = v1::PullImageRequest { image: Some(image), auth, sandbox_config: sandbox };
        let answer: v1::PullImageResponse = unlimited("pull_image", Box::pin(client.pull_image(request))).await?;
        if answer.image_ref.is_empty() {
            return Err(CriError::Incomplete("image reference"));
        }
        Ok(answer.image_ref)
    }

    /// Removes an image.
    pub async fn remove_image(&self, image: &str) -> Result<(), CriError> {
        let mut client = self.images.clone();
        let image = Some(v1::ImageSpec { image: image.to_owned(), ..Default::default() });
        gone_is_fine(
            call("remove_image", self.timeout, Box::pin(client.remove_image(v1::RemoveImageRequest { image }))).await,
        )
    }

    /// Usage of the file systems that hold images.
    pub async fn image_fs_info(&self) -> Result<v1::ImageFsInfoResponse, CriError> {
        let mut client = self.images.clone();
        call("image_fs_info", self.timeout, Box::pin(client.image_fs_info(v1::ImageFsInfoRequest {}))).await
    }
}

/// A lazy connection to a unix socket.
pub(crate) fn channel(endpoint: &str) -> Result<Channel, CriError> {
    let path = endpoint.strip_prefix("unix://").or_else(|| endpoint.starts_with('/').then_some(endpoint));
    let path = PathBuf::from(path.ok_or_else(|| CriError::Endpoint(endpoint.to_owned()))?);
    let connector = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
    });
    Ok(Endpoint::from_static("http://runtime.local")
        .connect_timeout(Duration::from_secs(3))
        // Lists come in one piece, without asking for leave in between.
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .connect_with_connector_lazy(connector))
}

async fn call<T>(
    operation: &'static str,
    deadline: Duration,
    future: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, CriError> {
    unlimited(operation, rpc::limited(deadline, future)).await
}

async fn unlimited<T>(
    operation: &'static str,
    future: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, CriError> {
    let start = Instant::now();
    let span = trace::span(operation);
    let result = span.within(future).await;
    if let Err(error) = &result {
        span.fail(error.message());
    }
    metrics::runtime_operation(operation, start.elapsed(), result.is_err());
    Ok(result?.into_inner())
}

fn gone_is_fine<T>(result: Result<T, CriError>) -> Result<(), CriError> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other.map(drop),
    }
}
