//! What containers hold, told on a socket of the node.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Container, Pod};
use proto::podresources as v1;
use proto::podresources::pod_resources_lister_server::{PodResourcesLister, PodResourcesListerServer};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::devices::Held;
use crate::memory::HeldMemory;
use crate::metrics::METRICS;
use crate::pods;
use crate::services::Services;
use crate::workers::{Stage, Workers};

/// Serves the list.
pub(crate) struct PodResources {
    pub services: Arc<Services>,
    pub workers: Arc<Workers>,
}

impl PodResources {
    /// Runs until stopped.
    pub(crate) async fn serve(self, socket: PathBuf, stop: CancellationToken) {
        // A socket of an earlier kubelet is nobody's.
        drop(std::fs::remove_file(&socket));
        let listener = match UnixListener::bind(&socket) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, socket = %socket.display(), "pod resources"),
        };
        let server = tonic::transport::Server::builder().add_service(PodResourcesListerServer::new(self));
        let incoming = UnixListenerStream::new(listener);
        if let Err(error) = server.serve_with_incoming_shutdown(incoming, stop.cancelled()).await {
            tracing::error!(%error, "pod resources");
        }
    }

    /// Counts an answer of one of the endpoints, by number.
    fn count<T>(endpoint: usize, answer: Result<T, Status>) -> Result<T, Status> {
        let series = &METRICS.node.pod_resources;
        let mut counters = vec![&series.all, &series.requests[endpoint]];
        counters.extend(answer.is_err().then_some(&series.errors[endpoint]));
        counters.iter().for_each(|counter| counter.with_label_values(&["v1"]).inc());
        answer
    }

    fn pod(&self, pod: &Pod) -> v1::PodResources {
        let sidecars = pods::init_containers(pod).iter().filter(|container| pods::is_sidecar(container));
        v1::PodResources {
            name: pods::name(pod).to_owned(),
            namespace: pods::namespace(pod).to_owned(),
            containers: sidecars.chain(pods::containers(pod)).map(|one| self.container(pod, one)).collect(),
        }
    }

    fn container(&self, pod: &Pod, container: &Container) -> v1::ContainerResources {
        let allot = &self.services.allot;
        let cpus = allot.cpus.exclusive(pods::uid(pod), &container.name).unwrap_or_default();
        let claims = self.services.claims.devices(pod, container).into_iter().map(|(claim, devices)| {
            let device = |(driver_name, device): (String, crate::claims::ClaimDevice)| v1::ClaimResource {
                cdi_devices: device.cdi.into_iter().map(|name| v1::CdiDevice { name }).collect(),
                driver_name,
                pool_name: device.pool,
                device_name: device.device,
            };
            v1::DynamicResource {
                claim_name: claim.name,
                claim_namespace: claim.namespace,
                claim_resources: devices.into_iter().map(device).collect(),
            }
        });
        v1::ContainerResources {
            name: container.name.clone(),
            devices: allot.devices.held(pods::uid(pod), &container.name).into_iter().flat_map(devices).collect(),
            cpu_ids: cpus.iter().map(i64::from).collect(),
            memory: allot.memory.held(pods::uid(pod), &container.name).into_iter().map(memory).collect(),
            dynamic_resources: claims.collect(),
        }
    }

    fn live(&self) -> Vec<Arc<Pod>> {
        let live = self.workers.all().into_iter().filter(|summary| summary.stage < Stage::Terminated);
        live.map(|summary| summary.pod).collect()
    }
}

fn memory(held: HeldMemory) -> v1::ContainerMemory {
    let nodes = held.nodes.into_iter().map(|node| v1::NumaNode { id: i64::from(node) }).collect();
    v1::ContainerMemory { memory_type: held.kind, size: held.size, topology: Some(v1::TopologyInfo { nodes }) }
}

/// One entry for each NUMA node.
fn devices(held: Held) -> Vec<v1::ContainerDevices> {
    let entry = |(node, device_ids): (i64, Vec<String>)| v1::ContainerDevices {
        resource_name: held.resource.clone(),
        device_ids,
        topology: (node >= 0).then(|| v1::TopologyInfo { nodes: vec![v1::NumaNode { id: node }] }),
    };
    held.places.into_iter().map(entry).collect()
}

#[async_trait]
impl PodResourcesLister for PodResources {
    async fn list(
        &self,
        _: Request<v1::ListPodResourcesRequest>,
    ) -> Result<Response<v1::ListPodResourcesResponse>, Status> {
        let pod_resources = self.live().iter().map(|pod| self.pod(pod)).collect();
        Self::count(0, Ok(Response::new(v1::ListPodResourcesResponse { pod_resources })))
    }

    async fn get_allocatable_resources(
        &self,
        _: Request<v1::AllocatableResourcesRequest>,
    ) -> Result<Response<v1::AllocatableResourcesResponse>, Status> {
        let allot = &self.services.allot;
        let answer = v1::AllocatableResourcesResponse {
            devices: allot.devices.usable().into_iter().flat_map(devices).collect(),
            cpu_ids: allot.cpus.allocatable().iter().map(i64::from).collect(),
            memory: allot.memory.allocatable().into_iter().map(memory).collect(),
        };
        Self::count(1, Ok(Response::new(answer)))
    }

    async fn get(
        &self,
        request: Request<v1::GetPodResourcesRequest>,
    ) -> Result<Response<v1::GetPodResourcesResponse>, Status> {
        let wanted = request.into_inner();
        let is_meant =
            |pod: &&Arc<Pod>| pods::name(pod) == wanted.pod_name && pods::namespace(pod) == wanted.pod_namespace;
        let answer = match self.live().iter().find(is_meant) {
            Some(pod) => Ok(Response::new(v1::GetPodResourcesResponse { pod_resources: Some(self.pod(pod)) })),
            None => {
                let text = format!("pod {} in namespace {} not found", wanted.pod_name, wanted.pod_namespace);
                Err(Status::not_found(text))
            }
        };
        Self::count(2, answer)
    }
}
