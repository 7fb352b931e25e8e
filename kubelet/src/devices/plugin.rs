//! One plugin: its calls, and following what it says of its devices.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::device as v1;
use proto::device::device_plugin_client::DevicePluginClient;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::Devices;
use super::state::{Device, Resource};
use crate::cri::CriError;
use crate::plugins;
use crate::rpc;

const HEALTHY: &str = "Healthy";
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// A plugin that is there.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    client: DevicePluginClient<Channel>,
    pub options: v1::DevicePluginOptions,
    /// Cancelled when another takes its place.
    pub replaced: CancellationToken,
}

impl Endpoint {
    pub(super) fn connect(socket: &Path, options: v1::DevicePluginOptions) -> Result<Self, CriError> {
        let client = DevicePluginClient::new(plugins::connect(socket)?).max_decoding_message_size(MAX_MESSAGE);
        Ok(Self { client, options, replaced: CancellationToken::new() })
    }

    pub(super) async fn ask_options(&mut self, deadline: Duration) -> Result<(), CriError> {
        let mut client = self.client.clone();
        self.options = limited(deadline, client.get_device_plugin_options(v1::Empty {})).await?;
        Ok(())
    }

    pub(super) async fn allocate(
        &self,
        request: v1::AllocateRequest,
        deadline: Duration,
    ) -> Result<v1::AllocateResponse, CriError> {
        let mut client = self.client.clone();
        limited(deadline, client.allocate(request)).await
    }

    pub(super) async fn preferred(
        &self,
        request: v1::PreferredAllocationRequest,
        deadline: Duration,
    ) -> Result<v1::PreferredAllocationResponse, CriError> {
        let mut client = self.client.clone();
        limited(deadline, client.get_preferred_allocation(request)).await
    }

    pub(super) async fn pre_start(
        &self,
        request: v1::PreStartContainerRequest,
        deadline: Duration,
    ) -> Result<(), CriError> {
        let mut client = self.client.clone();
        limited(deadline, client.pre_start_container(request)).await.map(drop)
    }
}

async fn limited<T>(
    deadline: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, CriError> {
    Ok(rpc::limited(deadline, call).await?.into_inner())
}

impl Devices {
    /// Follows a plugin until it ends or another takes its place.
    pub(super) async fn follow(self: Arc<Self>, resource: String, endpoint: Endpoint) {
        let replaced = endpoint.replaced.clone();
        let before = self.endpoints.lock().insert(resource.clone(), endpoint.clone());
        if let Some(before) = before {
            before.replaced.cancel();
        }
        let result = tokio::select! {
            // Whoever takes the place tells of its own devices.
            () = replaced.cancelled() => return,
            result = self.listen(&resource, endpoint) => result,
        };
        tracing::info!(resource, error = ?result.err(), "device plugin is gone");
        {
            let mut endpoints = self.endpoints.lock();
            if replaced.is_cancelled() {
                return;
            }
            endpoints.remove(&resource);
        }
        if let Some(known) = self.state.lock().resources.get_mut(&resource) {
            known.absent_since = Some(Instant::now());
        }
        self.changed.notify_one();
    }

    async fn listen(&self, resource: &str, mut endpoint: Endpoint) -> Result<(), Status> {
        let mut lists = endpoint.client.list_and_watch(v1::Empty {}).await?.into_inner();
        while let Some(list) = lists.message().await? {
            let devices = list.devices.into_iter().map(|device| {
                let nodes = device.topology.into_iter().flat_map(|topology| topology.nodes).map(|node| node.id);
                (device.id, Device { healthy: device.health == HEALTHY, nodes: nodes.collect() })
            });
            let fresh = Resource { devices: devices.collect(), absent_since: None };
            self.state.lock().resources.insert(resource.to_owned(), fresh);
            self.save();
            self.changed.notify_one();
        }
        Ok(())
    }
}
