//! The container runtime.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use proto::cri::{
    ImageSpec, ImageStatusRequest, ListPodSandboxRequest, PullImageRequest, RemovePodSandboxRequest, StatusRequest,
    StopPodSandboxRequest, VersionRequest, image_service_client::ImageServiceClient,
    runtime_service_client::RuntimeServiceClient,
};
use tonic::{
    Code, Response, Status,
    transport::{Channel, Endpoint, Uri},
};

use crate::error::{Error, Result, fail};

const CALL: Duration = Duration::from_secs(10);
const REMOVAL: Duration = Duration::from_secs(120);
const PULL: Duration = Duration::from_secs(900);

/// A container runtime.
pub struct Cri {
    endpoint: String,
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

impl Cri {
    /// For an endpoint such as `unix:///run/containerd/containerd.sock`. Nothing is dialled yet.
    pub fn new(endpoint: &str) -> Result<Self> {
        let Some(path) = endpoint.strip_prefix("unix://").filter(|path| path.starts_with('/')) else {
            return fail!("unsupported CRI endpoint {endpoint:?}");
        };
        let path = PathBuf::from(path);
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://runtime.local")
            .connect_timeout(Duration::from_secs(3))
            .connect_with_connector_lazy(connector);
        Ok(Self {
            endpoint: endpoint.to_owned(),
            runtime: RuntimeServiceClient::new(channel.clone()),
            images: ImageServiceClient::new(channel),
        })
    }

    /// Path of the socket.
    pub fn socket(&self) -> Option<&Path> {
        self.endpoint.strip_prefix("unix://").map(Path::new)
    }

    /// The endpoint.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Whether the runtime answers and says it is ready.
    pub async fn check(&self) -> Result<()> {
        let mut client = self.runtime.clone();
        within(CALL, client.version(VersionRequest::default()))
            .await
            .map_err(|cause| Error::new(format!("could not connect to the container runtime: {cause}")))?;
        let status = within(CALL, client.status(StatusRequest { verbose: false }))
            .await
            .map_err(|cause| Error::new(format!("container runtime is not running: {cause}")))?;
        let conditions = status.status.map(|s| s.conditions).unwrap_or_default();
        match conditions.iter().find(|c| c.r#type == "RuntimeReady" && !c.status) {
            Some(bad) => fail!("container runtime is not running: {}: {}", bad.reason, bad.message),
            None => Ok(()),
        }
    }

    /// Name of the runtime, such as `containerd`.
    pub async fn name(&self) -> Result<String> {
        let mut client = self.runtime.clone();
        Ok(within(CALL, client.version(VersionRequest::default())).await.map_err(told)?.runtime_name)
    }

    /// Whether the runtime tells the kubelet which cgroup driver it uses.
    pub async fn tells_configuration(&self) -> bool {
        let mut client = self.runtime.clone();
        within(CALL, client.runtime_config(proto::cri::RuntimeConfigRequest {})).await.is_ok()
    }

    /// The sandbox image the runtime is configured with, if it tells.
    pub async fn sandbox_image(&self) -> Result<Option<String>> {
        let mut client = self.runtime.clone();
        let status = within(CALL, client.status(StatusRequest { verbose: true })).await.map_err(told)?;
        let config = status.info.get("config").and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
        let name = config.as_ref().and_then(|c| c.get("sandboxImage")).and_then(serde_json::Value::as_str);
        Ok(name.filter(|name| !name.is_empty()).map(ToOwned::to_owned))
    }

    /// Id of an image that is there.
    pub async fn image_id(&self, reference: &str) -> Result<Option<String>> {
        let mut client = self.images.clone();
        let request = ImageStatusRequest { image: Some(spec(reference)), verbose: false };
        let answer = within(CALL, client.image_status(request)).await.map_err(told)?;
        Ok(answer.image.map(|image| image.id))
    }

    /// Pulls an image.
    pub async fn pull(&self, reference: &str) -> Result<()> {
        let mut client = self.images.clone();
        let request = PullImageRequest { image: Some(spec(reference)), ..Default::default() };
        within(PULL, client.pull_image(request)).await.map_err(told)?;
        Ok(())
    }

    /// Ids of all sandboxes.
    pub async fn sandboxes(&self) -> Result<Vec<String>> {
        let mut client = self.runtime.clone();
        let answer = within(CALL, client.list_pod_sandbox(ListPodSandboxRequest::default())).await.map_err(told)?;
        Ok(answer.items.into_iter().map(|sandbox| sandbox.id).collect())
    }

    /// Stops and removes a sandbox with its containers.
    pub async fn remove_sandbox(&self, id: &str) -> Result<()> {
        let mut client = self.runtime.clone();
        let stop = StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone_is_fine(within(REMOVAL, client.stop_pod_sandbox(stop)).await)?;
        let remove = RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone_is_fine(within(REMOVAL, client.remove_pod_sandbox(remove)).await)
    }
}

fn spec(reference: &str) -> ImageSpec {
    ImageSpec { image: reference.to_owned(), ..Default::default() }
}

async fn within<T>(
    deadline: Duration,
    call: impl Future<Output = std::result::Result<Response<T>, Status>>,
) -> std::result::Result<T, Status> {
    match tokio::time::timeout(deadline, call).await {
        Ok(answer) => answer.map(Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded("context deadline exceeded")),
    }
}

fn gone_is_fine<T>(answer: std::result::Result<T, Status>) -> Result<()> {
    match answer {
        Err(status) if status.code() != Code::NotFound => Err(told(status)),
        _ => Ok(()),
    }
}

fn told(status: Status) -> Error {
    Error::new(format!("rpc error: code = {:?} desc = {}", status.code(), status.message()))
}
