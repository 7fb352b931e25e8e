//! A storage driver: a volume is a directory below the driver's own, staged and published by bind mounts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use proto::csi as v1;
use proto::csi::node_server::{Node, NodeServer};
use proto::csi::node_service_capability::{Rpc, Type, rpc};
use proto::registration::registration_server::{Registration, RegistrationServer};
use proto::registration::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use tonic::transport::Server;
use tonic::{Request, Response, Status, async_trait};

use crate::{Failure, KUBELET, listen};

type Answer<T> = Result<Response<T>, Status>;

/// Serves until it is ended.
pub(crate) async fn serve(name: &str, directory: &Path) -> Result<(), Failure> {
    let socket = Path::new(KUBELET).join("plugins").join(name).join("csi.sock");
    let driver = NodeServer::new(Driver { directory: directory.to_owned() });
    let serving = Server::builder().add_service(driver).serve_with_incoming(listen(&socket)?);
    let introduction = RegistrationServer::new(Introduction { name: name.to_owned(), socket });
    let registration = Path::new(KUBELET).join("plugins_registry").join(format!("{name}-reg.sock"));
    let registering = Server::builder().add_service(introduction).serve_with_incoming(listen(&registration)?);
    tokio::try_join!(serving, registering)?;
    Ok(())
}

struct Introduction {
    name: String,
    socket: PathBuf,
}

#[async_trait]
impl Registration for Introduction {
    async fn get_info(&self, _: Request<InfoRequest>) -> Answer<PluginInfo> {
        Ok(Response::new(PluginInfo {
            r#type: "CSIPlugin".to_owned(),
            name: self.name.clone(),
            endpoint: self.socket.to_string_lossy().into_owned(),
            supported_versions: vec!["1.0.0".to_owned()],
        }))
    }

    async fn notify_registration_status(
        &self,
        status: Request<RegistrationStatus>,
    ) -> Answer<RegistrationStatusResponse> {
        println!("registered: {:?}", status.into_inner());
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}

struct Driver {
    directory: PathBuf,
}

fn failed(error: impl std::fmt::Display) -> Status {
    Status::internal(error.to_string())
}

/// Binds a directory once, however often it is asked for.
fn bind(source: &Path, target: &Path, readonly: bool) -> io::Result<()> {
    fs::create_dir_all(target)?;
    let (from, to) = (fs::metadata(source)?, fs::metadata(target)?);
    use std::os::unix::fs::MetadataExt;
    if (from.dev(), from.ino()) == (to.dev(), to.ino()) {
        return Ok(());
    }
    let none: Option<&str> = None;
    mount(Some(source), target, none, MsFlags::MS_BIND, none)?;
    if readonly {
        mount(none, target, none, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none)?;
    }
    Ok(())
}

fn unbind(target: &str) -> io::Result<()> {
    match umount2(target, MntFlags::empty()) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[async_trait]
impl Node for Driver {
    async fn node_stage_volume(
        &self,
        request: Request<v1::NodeStageVolumeRequest>,
    ) -> Answer<v1::NodeStageVolumeResponse> {
        let request = request.into_inner();
        println!("stage {}", request.volume_id);
        let volume = self.directory.join(&request.volume_id);
        fs::create_dir_all(&volume).map_err(failed)?;
        bind(&volume, Path::new(&request.staging_target_path), false).map_err(failed)?;
        Ok(Response::new(v1::NodeStageVolumeResponse {}))
    }

    async fn node_unstage_volume(
        &self,
        request: Request<v1::NodeUnstageVolumeRequest>,
    ) -> Answer<v1::NodeUnstageVolumeResponse> {
        let request = request.into_inner();
        println!("unstage {}", request.volume_id);
        unbind(&request.staging_target_path).map_err(failed)?;
        Ok(Response::new(v1::NodeUnstageVolumeResponse {}))
    }

    async fn node_publish_volume(
        &self,
        request: Request<v1::NodePublishVolumeRequest>,
    ) -> Answer<v1::NodePublishVolumeResponse> {
        let request = request.into_inner();
        println!("publish {} {:?}", request.volume_id, request.volume_context);
        let source = match request.staging_target_path.as_str() {
            "" => self.directory.join(&request.volume_id),
            staged => PathBuf::from(staged),
        };
        fs::create_dir_all(&source).map_err(failed)?;
        bind(&source, Path::new(&request.target_path), request.readonly).map_err(failed)?;
        Ok(Response::new(v1::NodePublishVolumeResponse {}))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<v1::NodeUnpublishVolumeRequest>,
    ) -> Answer<v1::NodeUnpublishVolumeResponse> {
        let request = request.into_inner();
        println!("unpublish {}", request.volume_id);
        unbind(&request.target_path).map_err(failed)?;
        match fs::remove_dir(&request.target_path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(Response::new(v1::NodeUnpublishVolumeResponse {})),
        }
    }

    async fn node_get_volume_stats(
        &self,
        _: Request<v1::NodeGetVolumeStatsRequest>,
    ) -> Answer<v1::NodeGetVolumeStatsResponse> {
        let unit = v1::volume_usage::Unit::Bytes as i32;
        let usage = v1::VolumeUsage { available: 600, total: 1000, used: 400, unit };
        Ok(Response::new(v1::NodeGetVolumeStatsResponse { usage: vec![usage], volume_condition: None }))
    }

    async fn node_expand_volume(
        &self,
        request: Request<v1::NodeExpandVolumeRequest>,
    ) -> Answer<v1::NodeExpandVolumeResponse> {
        let capacity_bytes = request.into_inner().capacity_range.map_or(0, |range| range.required_bytes);
        println!("expand {capacity_bytes}");
        Ok(Response::new(v1::NodeExpandVolumeResponse { capacity_bytes }))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<v1::NodeGetCapabilitiesRequest>,
    ) -> Answer<v1::NodeGetCapabilitiesResponse> {
        let all = [rpc::Type::StageUnstageVolume, rpc::Type::GetVolumeStats, rpc::Type::ExpandVolume];
        let capability =
            |one: rpc::Type| v1::NodeServiceCapability { r#type: Some(Type::Rpc(Rpc { r#type: one.into() })) };
        Ok(Response::new(v1::NodeGetCapabilitiesResponse { capabilities: all.map(capability).into() }))
    }

    async fn node_get_info(&self, _: Request<v1::NodeGetInfoRequest>) -> Answer<v1::NodeGetInfoResponse> {
        let segments = [("topology.timonel.test/place".to_owned(), "here".to_owned())].into();
        Ok(Response::new(v1::NodeGetInfoResponse {
            node_id: "this-node".to_owned(),
            max_volumes_per_node: 7,
            accessible_topology: Some(v1::Topology { segments }),
        }))
    }
}
