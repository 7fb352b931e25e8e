//! One driver: its calls, each with a deadline and a metric.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use proto::csi::node_client::NodeClient;
use proto::csi::node_service_capability::{self, rpc};
use proto::csi::{self as v1, VolumeCapability};
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::cri::CriError;
use crate::metrics::METRICS;
use crate::plugins;

/// Time for one call.
const DEADLINE: Duration = Duration::from_secs(120);
const MAX_MESSAGE: usize = 4 * 1024 * 1024;

/// What a driver can do on the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Abilities {
    pub stage: bool,
    pub stats: bool,
    pub expand: bool,
    pub single_node_multi_writer: bool,
    pub mount_group: bool,
}

impl Abilities {
    fn of(capabilities: &[v1::NodeServiceCapability]) -> Self {
        let has = |wanted: rpc::Type| {
            capabilities.iter().any(|one| {
                matches!(&one.r#type, Some(node_service_capability::Type::Rpc(rpc)) if rpc.r#type == wanted as i32)
            })
        };
        Self {
            stage: has(rpc::Type::StageUnstageVolume),
            stats: has(rpc::Type::GetVolumeStats),
            expand: has(rpc::Type::ExpandVolume),
            single_node_multi_writer: has(rpc::Type::SingleNodeMultiWriter),
            mount_group: has(rpc::Type::VolumeMountGroup),
        }
    }
}

/// A driver that is registered.
#[derive(Clone, Debug)]
pub(super) struct Driver {
    pub name: String,
    pub abilities: Abilities,
    client: NodeClient<Channel>,
}

/// Strings as requests carry them; the order does not matter there.
fn map(strings: &BTreeMap<String, String>) -> std::collections::HashMap<String, String> {
    strings.clone().into_iter().collect()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

impl Driver {
    /// Connects and asks what the driver can do and which node it is on.
    pub(super) async fn open(name: &str, endpoint: &Path) -> Result<(Self, v1::NodeGetInfoResponse), CriError> {
        let client = NodeClient::new(plugins::connect(endpoint)?)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let mut driver = Self { name: name.to_owned(), abilities: Abilities::default(), client };
        let mut client = driver.client.clone();
        let info = driver.call("NodeGetInfo", client.node_get_info(v1::NodeGetInfoRequest {})).await?;
        let call = client.node_get_capabilities(v1::NodeGetCapabilitiesRequest {});
        driver.abilities = Abilities::of(&driver.call("NodeGetCapabilities", call).await?.capabilities);
        Ok((driver, info))
    }

    async fn call<T>(
        &self,
        method: &str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, CriError> {
        let start = Instant::now();
        let result = crate::rpc::limited(DEADLINE, call).await;
        let labels = [&self.name, &format!("/csi.v1.Node/{method}"), &crate::rpc::code_name(&result), "false"];
        METRICS.csi_operations.with_label_values(&labels).observe(start.elapsed().as_secs_f64());
        Ok(result?.into_inner())
    }

    pub(super) async fn stage(&self, request: Request<'_>) -> Result<(), CriError> {
        let request = v1::NodeStageVolumeRequest {
            volume_id: request.handle.to_owned(),
            publish_context: map(request.publish_context),
            staging_target_path: request.staging.map(text).unwrap_or_default(),
            volume_capability: Some(request.capability),
            secrets: map(request.secrets),
            volume_context: map(request.context),
        };
        let mut client = self.client.clone();
        self.call("NodeStageVolume", client.node_stage_volume(request)).await.map(drop)
    }

    pub(super) async fn publish(&self, request: Request<'_>, target: &Path, readonly: bool) -> Result<(), CriError> {
        let request = v1::NodePublishVolumeRequest {
            volume_id: request.handle.to_owned(),
            publish_context: map(request.publish_context),
            staging_target_path: request.staging.map(text).unwrap_or_default(),
            target_path: text(target),
            volume_capability: Some(request.capability),
            readonly,
            secrets: map(request.secrets),
            volume_context: map(request.context),
        };
        let mut client = self.client.clone();
        self.call("NodePublishVolume", client.node_publish_volume(request)).await.map(drop)
    }

    pub(super) async fn unpublish(&self, handle: &str, target: &Path) -> Result<(), CriError> {
        let request = v1::NodeUnpublishVolumeRequest { volume_id: handle.to_owned(), target_path: text(target) };
        let mut client = self.client.clone();
        self.call("NodeUnpublishVolume", client.node_unpublish_volume(request)).await.map(drop)
    }

    pub(super) async fn unstage(&self, handle: &str, staging: &Path) -> Result<(), CriError> {
        let request = v1::NodeUnstageVolumeRequest { volume_id: handle.to_owned(), staging_target_path: text(staging) };
        let mut client = self.client.clone();
        self.call("NodeUnstageVolume", client.node_unstage_volume(request)).await.map(drop)
    }

    pub(super) async fn expand(&self, request: Request<'_>, path: &Path, bytes: i64) -> Result<(), CriError> {
        let request = v1::NodeExpandVolumeRequest {
            volume_id: request.handle.to_owned(),
            volume_path: text(path),
            capacity_range: Some(v1::CapacityRange { required_bytes: bytes, limit_bytes: 0 }),
            staging_target_path: request.staging.map(text).unwrap_or_default(),
            volume_capability: Some(request.capability),
            secrets: map(request.secrets),
        };
        let mut client = self.client.clone();
        self.call("NodeExpandVolume", client.node_expand_volume(request)).await.map(drop)
    }

    pub(super) async fn stats(
        &self,
        handle: &str,
        path: &Path,
        staging: Option<&Path>,
    ) -> Result<v1::NodeGetVolumeStatsResponse, CriError> {
        let request = v1::NodeGetVolumeStatsRequest {
            volume_id: handle.to_owned(),
            volume_path: text(path),
            staging_target_path: staging.map(text).unwrap_or_default(),
        };
        let mut client = self.client.clone();
        self.call("NodeGetVolumeStats", client.node_get_volume_stats(request)).await
    }
}

/// What the calls about a volume have in common.
pub(super) struct Request<'a> {
    pub handle: &'a str,
    pub publish_context: &'a BTreeMap<String, String>,
    pub context: &'a BTreeMap<String, String>,
    pub secrets: &'a BTreeMap<String, String>,
    pub staging: Option<&'a Path>,
    pub capability: VolumeCapability,
}
