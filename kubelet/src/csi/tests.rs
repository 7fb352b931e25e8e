//! A driver that keeps volumes in memory, behind a real socket.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use k8s_openapi::api::authentication::v1::{TokenRequestSpec, TokenRequestStatus};
use k8s_openapi::api::core::v1::{ConfigMap, Node, PersistentVolume, PersistentVolumeClaim, Pod, Secret, Service};
use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use proto::csi::node_server::{Node as NodeService, NodeServer};
use proto::csi::node_service_capability::{Rpc, Type, rpc};
use proto::csi::{self as v1, volume_capability};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

use super::*;
use crate::events::LogSink;
use crate::objects::ObjectError;
use crate::platform::Recorder;
use crate::plugins::{Handler, Plugin};
use crate::pods;
use crate::volumes::Tokens;

/// What the driver was asked, in words.
type Calls = Arc<Mutex<Vec<String>>>;

struct FakeDriver {
    calls: Calls,
    fail_publish: Arc<AtomicBool>,
    last_context: Arc<Mutex<HashMap<String, String>>>,
}

impl FakeDriver {
    fn note(&self, text: String) {
        self.calls.lock().push(text);
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[async_trait]
impl NodeService for FakeDriver {
    async fn node_stage_volume(
        &self,
        request: Request<v1::NodeStageVolumeRequest>,
    ) -> Answer<v1::NodeStageVolumeResponse> {
        let request = request.into_inner();
        assert!(Path::new(&request.staging_target_path).is_dir());
        self.note(format!("stage {} {:?}", request.volume_id, request.publish_context.get("device")));
        Ok(Response::new(Default::default()))
    }

    async fn node_unstage_volume(
        &self,
        request: Request<v1::NodeUnstageVolumeRequest>,
    ) -> Answer<v1::NodeUnstageVolumeResponse> {
        self.note(format!("unstage {}", request.into_inner().volume_id));
        Ok(Response::new(Default::default()))
    }

    async fn node_publish_volume(
        &self,
        request: Request<v1::NodePublishVolumeRequest>,
    ) -> Answer<v1::NodePublishVolumeResponse> {
        let request = request.into_inner();
        self.note(format!("publish {} {}", request.volume_id, request.readonly));
        if self.fail_publish.load(Ordering::Relaxed) {
            return Err(Status::internal("no"));
        }
        *self.last_context.lock() = request.volume_context;
        let block = matches!(
            request.volume_capability.and_then(|capability| capability.access_type),
            Some(volume_capability::AccessType::Block(_))
        );
        match block {
            true => std::fs::write(&request.target_path, "")?,
            false if Path::new(&request.target_path).is_dir() => {}
            false => std::fs::create_dir(&request.target_path)?,
        }
        Ok(Response::new(Default::default()))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<v1::NodeUnpublishVolumeRequest>,
    ) -> Answer<v1::NodeUnpublishVolumeResponse> {
        self.note(format!("unpublish {}", request.into_inner().volume_id));
        Ok(Response::new(Default::default()))
    }

    async fn node_get_volume_stats(
        &self,
        _: Request<v1::NodeGetVolumeStatsRequest>,
    ) -> Answer<v1::NodeGetVolumeStatsResponse> {
        let usage = v1::VolumeUsage { available: 60, total: 100, used: 40, unit: v1::volume_usage::Unit::Bytes as i32 };
        Ok(Response::new(v1::NodeGetVolumeStatsResponse { usage: vec![usage], volume_condition: None }))
    }

    async fn node_expand_volume(
        &self,
        request: Request<v1::NodeExpandVolumeRequest>,
    ) -> Answer<v1::NodeExpandVolumeResponse> {
        let bytes = request.into_inner().capacity_range.map_or(0, |range| range.required_bytes);
        self.note(format!("expand {bytes}"));
        Ok(Response::new(v1::NodeExpandVolumeResponse { capacity_bytes: bytes }))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<v1::NodeGetCapabilitiesRequest>,
    ) -> Answer<v1::NodeGetCapabilitiesResponse> {
        let all = [rpc::Type::StageUnstageVolume, rpc::Type::GetVolumeStats, rpc::Type::ExpandVolume];
        let capabilities =
            all.map(|one| v1::NodeServiceCapability { r#type: Some(Type::Rpc(Rpc { r#type: one as i32 })) });
        Ok(Response::new(v1::NodeGetCapabilitiesResponse { capabilities: capabilities.into() }))
    }

    async fn node_get_info(&self, _: Request<v1::NodeGetInfoRequest>) -> Answer<v1::NodeGetInfoResponse> {
        Ok(Response::new(v1::NodeGetInfoResponse { node_id: "n1".into(), ..Default::default() }))
    }
}

/// An API with one driver, one attachment and one node.
#[derive(Default)]
struct FakeApi {
    driver: Mutex<Option<CSIDriver>>,
    attached: AtomicBool,
    full: AtomicBool,
    resized: Mutex<Vec<String>>,
}

#[async_trait]
impl Objects for FakeApi {
    async fn config_map(&self, _: &str, name: &str) -> Result<Arc<ConfigMap>, ObjectError> {
        Err(ObjectError::NotFound { resource: "configmap", name: name.to_owned() })
    }

    async fn secret(&self, _: &str, name: &str) -> Result<Arc<Secret>, ObjectError> {
        Err(ObjectError::NotFound { resource: "secret", name: name.to_owned() })
    }

    fn services(&self) -> Result<Vec<Arc<Service>>, ObjectError> {
        Ok(Vec::new())
    }

    async fn token(&self, _: &str, _: &str, spec: TokenRequestSpec) -> Result<TokenRequestStatus, ObjectError> {
        let value =
            json!({ "token": format!("t-{:?}", spec.audiences), "expirationTimestamp": "2100-01-01T00:00:00Z" });
        serde_json::from_value(value).map_err(|error| ObjectError::Other(error.to_string()))
    }

    async fn runtime_handler(&self, _: &str) -> Result<String, ObjectError> {
        Ok(String::new())
    }

    async fn claim(&self, _: &str, name: &str) -> Result<PersistentVolumeClaim, ObjectError> {
        Err(ObjectError::NotFound { resource: "persistentvolumeclaims", name: name.to_owned() })
    }

    async fn volume(&self, name: &str) -> Result<PersistentVolume, ObjectError> {
        Err(ObjectError::NotFound { resource: "persistentvolumes", name: name.to_owned() })
    }

    async fn node(&self, _: &str) -> Result<Node, ObjectError> {
        let attached =
            json!({ "status": { "volumesAttached": [{ "name": unique_name("d", "h"), "devicePath": "" }] } });
        let value = if self.attached.load(Ordering::Relaxed) { attached } else { json!({}) };
        serde_json::from_value(value).map_err(|error| ObjectError::Other(error.to_string()))
    }

    async fn resource_claim(
        &self,
        _: &str,
        name: &str,
    ) -> Result<k8s_openapi::api::resource::v1::ResourceClaim, ObjectError> {
        Err(ObjectError::NotFound { resource: "resourceclaims.resource.k8s.io", name: name.to_owned() })
    }

    async fn csi_driver(&self, _: &str) -> Result<Option<CSIDriver>, ObjectError> {
        Ok(self.driver.lock().clone())
    }

    async fn attachment(&self, name: &str) -> Result<Option<VolumeAttachment>, ObjectError> {
        assert_eq!(name, layout::attachment_name("h", "d", "node"));
        if self.full.load(Ordering::Relaxed) {
            let error = json!({ "message": "no room", "errorCode": 8 });
            let value = json!({ "spec": {}, "status": { "attached": false, "attachError": error } });
            return serde_json::from_value(value).map(Some).map_err(|error| ObjectError::Other(error.to_string()));
        }
        if !self.attached.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let value = json!({ "spec": {}, "status": { "attached": true, "attachmentMetadata": { "device": "/dev/x" } } });
        serde_json::from_value(value).map(Some).map_err(|error| ObjectError::Other(error.to_string()))
    }

    async fn claim_resized(&self, _: &PersistentVolumeClaim, size: &Quantity) -> Result<(), ObjectError> {
        self.resized.lock().push(size.0.clone());
        Ok(())
    }

    async fn claim_not_resized(&self, _: &PersistentVolumeClaim, _: bool) -> Result<(), ObjectError> {
        Ok(())
    }

    fn register(&self, _: &Pod) {}

    fn unregister(&self, _: &str) {}
}

struct World {
    root: TempDir,
    api: Arc<FakeApi>,
    calls: Calls,
    fail_publish: Arc<AtomicBool>,
    context: Arc<Mutex<HashMap<String, String>>>,
    socket: PathBuf,
    tokens: Tokens,
}

impl World {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let (calls, fail_publish, context) = (Calls::default(), Arc::<AtomicBool>::default(), Arc::default());
        let socket = root.path().join("d.sock");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let driver = FakeDriver {
            calls: Arc::clone(&calls),
            fail_publish: Arc::clone(&fail_publish),
            last_context: Arc::clone(&context),
        };
        let server = tonic::transport::Server::builder().add_service(NodeServer::new(driver));
        tokio::spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
        Self { root, api: Arc::default(), calls, fail_publish, context, socket, tokens: Tokens::default() }
    }

    /// A kubelet that begins with what is on disk.
    async fn csi(&self) -> Arc<Csi> {
        self.csi_of(true).await
    }

    async fn csi_of(&self, attached_elsewhere: bool) -> Arc<Csi> {
        let root = self.root.path();
        let paths = Paths::new(root, root.join("logs"), root.join("links"));
        let objects: Arc<dyn Objects> = Arc::clone(&self.api) as _;
        let events = Events::new(Arc::new(LogSink), "node");
        let csi = Csi::new(&paths, Arc::new(Recorder::default()), objects, events, "node", attached_elsewhere);
        let nodes = CsiNodes::new(Arc::clone(&csi), None, "node");
        let plugin = Plugin { name: "d".into(), endpoint: self.socket.clone(), versions: vec!["1.0.0".into()] };
        nodes.register(&plugin).await.unwrap();
        csi
    }

    fn attach(&self, csi: &Csi) {
        csi.in_use_reported(&csi.in_use());
        self.api.attached.store(true, Ordering::Relaxed);
    }

    async fn set_up(&self, csi: &Csi, uid: &str, wanted: &Wanted) -> Result<PathBuf, CsiError> {
        self.set_up_claim(csi, uid, wanted, None).await
    }

    async fn set_up_claim(
        &self,
        csi: &Csi,
        uid: &str,
        wanted: &Wanted,
        claim: Option<(&PersistentVolumeClaim, Option<Quantity>)>,
    ) -> Result<PathBuf, CsiError> {
        csi.set_up(wanted, &Context { pod: &pod(uid), tokens: &self.tokens, group: None, claim }).await
    }

    fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut self.calls.lock())
    }

    fn declare(&self, spec: Value) {
        let driver = json!({ "metadata": { "name": "d" }, "spec": spec });
        *self.api.driver.lock() = Some(serde_json::from_value(driver).unwrap());
    }
}

fn pod(uid: &str) -> Pod {
    let value = json!({ "metadata": { "name": "p", "namespace": "ns", "uid": uid }, "spec": { "containers": [] } });
    serde_json::from_value(value).unwrap()
}

fn wanted(block: bool) -> Wanted {
    let mode = if block { "Block" } else { "Filesystem" };
    let spec = serde_json::from_value(json!({
        "volumeMode": mode, "accessModes": ["ReadWriteOnce"], "csi": { "driver": "d", "volumeHandle": "h" },
    }));
    let spec: k8s_openapi::api::core::v1::PersistentVolumeSpec = spec.unwrap();
    Wanted::persistent("pv", &spec, spec.csi.as_ref().unwrap(), false)
}

#[tokio::test]
async fn others_on_the_node_are_known() {
    let world = World::new();
    let csi = world.csi().await;
    world.declare(json!({ "attachRequired": false }));
    let wanted = wanted(false);
    world.set_up(&csi, "u", &wanted).await.unwrap();
    assert!(!csi.is_used_by_other("u", &wanted).await);
    assert!(csi.is_used_by_other("v", &wanted).await);
}

#[tokio::test]
async fn a_full_node_is_no_reason_to_wait() {
    let world = World::new();
    let csi = world.csi().await;
    assert!(matches!(world.set_up(&csi, "u", &wanted(false)).await, Err(CsiError::Waiting(_))), "not told yet");
    csi.in_use_reported(&csi.in_use());
    assert!(matches!(world.set_up(&csi, "u", &wanted(false)).await, Err(CsiError::Waiting(_))));
    world.api.full.store(true, Ordering::Relaxed);
    let full = world.set_up(&csi, "u", &wanted(false)).await;
    assert_eq!(full, Err(CsiError::Limit("no room".to_owned())));
}

#[tokio::test]
async fn nothing_is_attached_without_the_controller() {
    let world = World::new();
    let csi = world.csi_of(false).await;
    let message = "attaching volumes from the kubelet is not supported".to_owned();
    let refused = Err(CsiError::Step { operation: "AttachVolume.Attach", message });
    assert_eq!(world.set_up(&csi, "u", &wanted(false)).await, refused);
    assert!(csi.in_use().is_empty() && world.take_calls().is_empty());
    world.declare(json!({ "attachRequired": false }));
    assert!(world.set_up(&csi, "u", &wanted(false)).await.is_ok(), "nobody has to");
}

#[tokio::test]
async fn nothing_is_staged_before_it_is_attached() {
    let world = World::new();
    let csi = world.csi().await;
    let wanted = wanted(false);
    assert!(matches!(world.set_up(&csi, "u", &wanted).await, Err(CsiError::Waiting(_))));
    assert_eq!(csi.in_use(), ["kubernetes.io/csi/d^h"], "told before anything is done");
    csi.in_use_reported(&csi.in_use());
    assert!(matches!(world.set_up(&csi, "u", &wanted).await, Err(CsiError::Waiting(_))));
    assert!(world.take_calls().is_empty());
    world.attach(&csi);
    let path = world.set_up(&csi, "u", &wanted).await.unwrap();
    assert!(path.ends_with("pods/u/volumes/kubernetes.io~csi/pv/mount"));
    assert_eq!(world.take_calls(), ["stage h Some(\"/dev/x\")", "publish h false"]);
    world.set_up(&csi, "u", &wanted).await.unwrap();
    assert!(world.take_calls().is_empty(), "once is enough");
    assert_eq!(csi.stats("u", "d", "h", "pv").await.unwrap().bytes, Some((100, 60, 40)));
}

#[tokio::test]
async fn the_last_pod_unstages_whatever_kubelet_published() {
    let world = World::new();
    let csi = world.csi().await;
    let wanted = wanted(false);
    drop(world.set_up(&csi, "u1", &wanted).await);
    world.attach(&csi);
    world.set_up(&csi, "u1", &wanted).await.unwrap();
    world.set_up(&csi, "u2", &wanted).await.unwrap();
    assert_eq!(world.take_calls().len(), 3, "staged once");
    let later = world.csi().await;
    assert_eq!(later.in_use(), ["kubernetes.io/csi/d^h"], "found on disk");
    later.tear_down("u1").await.unwrap();
    assert_eq!(world.take_calls(), ["unpublish h"]);
    assert!(!later.has("u1") && later.has("u2"));
    later.tear_down("u2").await.unwrap();
    assert_eq!(world.take_calls(), ["unpublish h", "unstage h"]);
    assert!(later.in_use().is_empty());
    let left = world.root.path().join("plugins/kubernetes.io/csi/d");
    assert_eq!(std::fs::read_dir(left).unwrap().count(), 0);
    later.tear_down("u2").await.unwrap();
    assert!(world.take_calls().is_empty(), "nothing is left to be done");
}

#[tokio::test]
async fn devices_are_linked_into_the_pod() {
    let world = World::new();
    world.declare(json!({ "attachRequired": false }));
    let csi = world.csi().await;
    let link = world.set_up(&csi, "u", &wanted(true)).await.unwrap();
    assert!(link.ends_with("pods/u/volumeDevices/kubernetes.io~csi/pv"));
    assert!(std::fs::read_link(&link).unwrap().ends_with("volumeDevices/publish/pv/u"));
    assert!(csi.in_use().is_empty(), "nobody attaches it");
    world.take_calls();
    csi.tear_down("u").await.unwrap();
    assert_eq!(world.take_calls(), ["unpublish h", "unstage h"]);
    assert!(std::fs::symlink_metadata(&link).is_err());
}

#[tokio::test]
async fn a_failing_repetition_leaves_the_volume() {
    let world = World::new();
    let requests = json!([{ "audience": "a" }]);
    world.declare(json!({ "attachRequired": false, "requiresRepublish": true, "tokenRequests": requests }));
    let csi = world.csi().await;
    let wanted = wanted(false);
    let path = world.set_up(&csi, "u", &wanted).await.unwrap();
    let tokens: Value =
        serde_json::from_str(&world.context.lock()["csi.storage.k8s.io/serviceAccount.tokens"]).unwrap();
    assert_eq!(tokens["a"]["expirationTimestamp"], "2100-01-01T00:00:00Z");
    world.take_calls();
    world.fail_publish.store(true, Ordering::Relaxed);
    assert_eq!(world.set_up(&csi, "u", &wanted).await.unwrap(), path);
    assert_eq!(world.take_calls(), ["publish h false"]);
    assert!(path.is_dir());
    let error = world.set_up(&csi, "other", &wanted).await.unwrap_err();
    let message = "rpc error: code = Internal desc = no".to_owned();
    assert_eq!(error, CsiError::Step { operation: "MountVolume.SetUp", message });
    csi.tear_down("other").await.unwrap();
    assert!(csi.has("u"));
}

#[tokio::test]
async fn a_volume_that_grew_is_expanded_and_told() {
    let world = World::new();
    world.declare(json!({ "attachRequired": false }));
    let csi = world.csi().await;
    let claim = json!({ "metadata": { "name": "c" }, "status": { "capacity": { "storage": "1Gi" } } });
    let claim: PersistentVolumeClaim = serde_json::from_value(claim).unwrap();
    let of_size = |size: &str| Some((&claim, Some(Quantity(size.to_owned()))));
    world.set_up_claim(&csi, "u", &wanted(false), of_size("1Gi")).await.unwrap();
    assert!(!world.take_calls().iter().any(|call| call.starts_with("expand")));
    world.set_up_claim(&csi, "u", &wanted(false), of_size("2Gi")).await.unwrap();
    assert_eq!(world.take_calls(), ["expand 2147483648"]);
    assert_eq!(*world.api.resized.lock(), ["2Gi"]);
}

#[tokio::test]
async fn unknown_drivers_are_named() {
    let world = World::new();
    let csi = world.csi().await;
    let other = Wanted { driver: "x".into(), ..wanted(false) };
    let message = "kubernetes.io/csi: attacher.MountDevice failed to create newCsiDriverClient: driver name x not found in the list of registered CSI drivers";
    let error = CsiError::Step { operation: "MountVolume.MountDevice", message: message.to_owned() };
    assert_eq!(world.set_up(&csi, "u", &other).await, Err(error));
    assert_eq!(pods::uid(&pod("u")), "u");
}
