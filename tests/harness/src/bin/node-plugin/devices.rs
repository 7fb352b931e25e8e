//! A device plugin: devices are names, which containers find in their environment.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use proto::device as v1;
use proto::device::device_plugin_server::{DevicePlugin, DevicePluginServer};
use proto::device::registration_client::RegistrationClient;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status, async_trait};

use crate::{Failure, KUBELET, listen};

const SOCKET: &str = "names.sock";
const LOOK: Duration = Duration::from_millis(100);

type Answer<T> = Result<Response<T>, Status>;

/// Serves until it is ended, and registers with every kubelet that comes.
pub(crate) async fn serve(resource: &str, count: usize) -> Result<(), Failure> {
    let directory = Path::new(KUBELET).join("device-plugins");
    let kubelet = directory.join("kubelet.sock");
    let mut known = None;
    let mut serving = None;
    loop {
        let present = std::fs::metadata(&kubelet).ok().map(|meta| (meta.ino(), meta.ctime(), meta.ctime_nsec()));
        if present.is_some() && present != known {
            // A new kubelet has removed all sockets.
            let service = DevicePluginServer::new(Names { count });
            let server = Server::builder().add_service(service);
            serving = Some(tokio::spawn(server.serve_with_incoming(listen(&directory.join(SOCKET))?)));
            if register(&kubelet, resource).await.is_ok() {
                known = present;
            }
        }
        if serving.as_ref().is_some_and(tokio::task::JoinHandle::is_finished) {
            known = None;
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn register(kubelet: &Path, resource: &str) -> Result<(), Failure> {
    let path: PathBuf = kubelet.to_owned();
    let channel = Endpoint::try_from(format!("unix://{}", path.display()))?.connect().await?;
    let request = v1::RegisterRequest {
        version: "v1beta1".to_owned(),
        endpoint: SOCKET.to_owned(),
        resource_name: resource.to_owned(),
        options: Some(v1::DevicePluginOptions::default()),
    };
    RegistrationClient::new(channel).register(request).await?;
    Ok(())
}

struct Names {
    count: usize,
}

#[async_trait]
impl DevicePlugin for Names {
    type ListAndWatchStream = Pin<Box<dyn Stream<Item = Result<v1::ListAndWatchResponse, Status>> + Send>>;

    async fn get_device_plugin_options(&self, _: Request<v1::Empty>) -> Answer<v1::DevicePluginOptions> {
        Ok(Response::new(v1::DevicePluginOptions::default()))
    }

    async fn list_and_watch(&self, _: Request<v1::Empty>) -> Answer<Self::ListAndWatchStream> {
        let device =
            |number: usize| v1::Device { id: format!("name{number}"), health: "Healthy".to_owned(), topology: None };
        let list = v1::ListAndWatchResponse { devices: (0..self.count).map(device).collect() };
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(list)).chain(tokio_stream::pending()))))
    }

    async fn get_preferred_allocation(
        &self,
        _: Request<v1::PreferredAllocationRequest>,
    ) -> Answer<v1::PreferredAllocationResponse> {
        Err(Status::unimplemented("nothing is preferred"))
    }

    async fn allocate(&self, request: Request<v1::AllocateRequest>) -> Answer<v1::AllocateResponse> {
        let one = |asked: v1::ContainerAllocateRequest| v1::ContainerAllocateResponse {
            envs: [("NAMES".to_owned(), asked.devices_ids.join(","))].into(),
            ..v1::ContainerAllocateResponse::default()
        };
        let container_responses = request.into_inner().container_requests.into_iter().map(one).collect();
        Ok(Response::new(v1::AllocateResponse { container_responses }))
    }

    async fn pre_start_container(
        &self,
        _: Request<v1::PreStartContainerRequest>,
    ) -> Answer<v1::PreStartContainerResponse> {
        Ok(Response::new(v1::PreStartContainerResponse {}))
    }
}
