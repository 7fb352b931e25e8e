//! A plugin behind a real socket.

use std::pin::Pin;

use async_trait::async_trait;
use futures::Stream;
use proto::device::device_plugin_server::{DevicePlugin, DevicePluginServer};
use proto::device::registration_client::RegistrationClient;
use serde_json::json;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::*;
use crate::plugins;

type Answer<T> = Result<Response<T>, Status>;

/// Tells of devices as they come, prefers the last, and refuses `bad`.
struct FakePlugin {
    lists: Mutex<Option<tokio::sync::mpsc::Receiver<Result<v1::ListAndWatchResponse, Status>>>>,
    started: Arc<Mutex<Vec<String>>>,
}

#[async_trait]
impl DevicePlugin for FakePlugin {
    type ListAndWatchStream = Pin<Box<dyn Stream<Item = Result<v1::ListAndWatchResponse, Status>> + Send>>;

    async fn get_device_plugin_options(&self, _: Request<v1::Empty>) -> Answer<v1::DevicePluginOptions> {
        Ok(Response::new(v1::DevicePluginOptions::default()))
    }

    async fn list_and_watch(&self, _: Request<v1::Empty>) -> Answer<Self::ListAndWatchStream> {
        let lists = self.lists.lock().take().ok_or_else(|| Status::internal("one watch only"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(lists))))
    }

    async fn get_preferred_allocation(
        &self,
        request: Request<v1::PreferredAllocationRequest>,
    ) -> Answer<v1::PreferredAllocationResponse> {
        let asked = &request.get_ref().container_requests[0];
        let count = usize::try_from(asked.allocation_size).unwrap();
        let ids = asked.available_device_i_ds.iter().rev().take(count).cloned().collect();
        let one = v1::ContainerPreferredAllocationResponse { device_i_ds: ids };
        Ok(Response::new(v1::PreferredAllocationResponse { container_responses: vec![one] }))
    }

    async fn allocate(&self, request: Request<v1::AllocateRequest>) -> Answer<v1::AllocateResponse> {
        let ids = &request.get_ref().container_requests[0].devices_ids;
        if ids.iter().any(|id| id == "bad") {
            return Err(Status::unknown("refused"));
        }
        let envs = [("DEVICES".to_owned(), ids.join(","))].into();
        let cdi_devices = vec![v1::CdiDevice { name: "x/y=all".into() }];
        let one = v1::ContainerAllocateResponse { envs, cdi_devices, ..Default::default() };
        Ok(Response::new(v1::AllocateResponse { container_responses: vec![one] }))
    }

    async fn pre_start_container(
        &self,
        request: Request<v1::PreStartContainerRequest>,
    ) -> Answer<v1::PreStartContainerResponse> {
        self.started.lock().extend(request.into_inner().devices_ids);
        Ok(Response::new(v1::PreStartContainerResponse {}))
    }
}

fn list(devices: &[(&str, &str)]) -> v1::ListAndWatchResponse {
    let one = |(id, health): &(&str, &str)| v1::Device { id: (*id).into(), health: (*health).into(), topology: None };
    v1::ListAndWatchResponse { devices: devices.iter().map(one).collect() }
}

fn pod(uid: &str, count: usize) -> Pod {
    let resources = json!({ "limits": { "x/y": count.to_string() } });
    let value = json!({ "metadata": { "name": uid, "uid": uid }, "spec": {
        "containers": [{ "name": "c", "resources": resources }],
    } });
    serde_json::from_value(value).unwrap()
}

async fn allocate(devices: &Devices, pod: &Pod) -> Result<(), String> {
    devices.allocate(pod, &pods::containers(pod)[0], None, &mut Reusable::default()).await
}

#[tokio::test]
async fn plugins_register_and_give_devices() {
    let dir = tempfile::tempdir().unwrap();
    let devices = Devices::open(dir.path().to_owned());
    let stop = CancellationToken::new();
    tokio::spawn(DeviceRegistration::new(Arc::clone(&devices)).serve(stop.clone()));
    let (sender, lists) = tokio::sync::mpsc::channel(4);
    let started = Arc::<Mutex<Vec<String>>>::default();
    let plugin = FakePlugin { lists: Mutex::new(Some(lists)), started: Arc::clone(&started) };
    while !dir.path().join("kubelet.sock").exists() {
        tokio::task::yield_now().await;
    }
    let listener = tokio::net::UnixListener::bind(dir.path().join("p.sock")).unwrap();
    let server = tonic::transport::Server::builder().add_service(DevicePluginServer::new(plugin));
    tokio::spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
    let mut client = RegistrationClient::new(plugins::connect(&dir.path().join("kubelet.sock")).unwrap());
    let options = v1::DevicePluginOptions { pre_start_required: true, get_preferred_allocation_available: true };
    let mut request = v1::RegisterRequest {
        version: "v1alpha".into(),
        endpoint: "p.sock".into(),
        resource_name: "x/y".into(),
        options: Some(options),
    };
    assert!(client.register(request.clone()).await.is_err());
    request.version = "v1beta1".into();
    client.register(request).await.unwrap();
    sender.send(Ok(list(&[("a", "Healthy"), ("b", "Healthy"), ("bad", "Healthy"), ("c", "Unhealthy")]))).await.unwrap();
    devices.changed().await;
    assert_eq!(devices.amounts()["x/y"], (4, 3));
    let error = allocate(&devices, &pod("u0", 1)).await.unwrap_err();
    assert!(error.ends_with("desc = refused"), "{error}");
    sender.send(Ok(list(&[("a", "Healthy"), ("b", "Healthy")]))).await.unwrap();
    devices.changed().await;
    allocate(&devices, &pod("u1", 1)).await.unwrap();
    let given = devices.options("u1", "c").await.unwrap();
    assert_eq!((given.env["DEVICES"].as_str(), given.cdi.as_slice()), ("b", ["x/y=all".to_owned()].as_slice()));
    assert_eq!(*started.lock(), ["b"]);
    let error = allocate(&devices, &pod("u2", 2)).await.unwrap_err();
    assert_eq!(error, "requested number of devices unavailable for x/y. Requested: 2, Available: 1");
    let later = Devices::open(dir.path().to_owned());
    assert_eq!(later.options("u1", "c").await.unwrap().env["DEVICES"], "b");
    assert_eq!(later.amounts()["x/y"], (0, 0), "plugins have to come back");
    drop(sender);
    devices.changed().await;
    assert_eq!(devices.amounts()["x/y"], (2, 0));
    devices.retain(|_| false);
    assert!(devices.held("u1", "c").is_empty());
    stop.cancel();
}
