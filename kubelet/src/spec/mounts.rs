//! Mounts of a container.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, VolumeDevice, VolumeMount};

use super::SpecError;
use crate::cri::v1;
use crate::env::expand;
use crate::pods;
use crate::volumes::subpath::{SubPath, SubPathStep};
use crate::volumes::{Mounted, Ready, Volumes};

/// What mounts are made from.
pub(super) struct MountInputs<'a> {
    /// Ready volumes.
    pub mounted: &'a Mounted,
    /// For parts of volumes.
    pub volumes: &'a Volumes,
    /// The container's environment, for expressions.
    pub env: &'a BTreeMap<String, String>,
    /// Images of image volumes by volume name.
    pub images: &'a BTreeMap<String, v1::ImageSpec>,
    /// Whether the runtime can make mounts read-only with everything below.
    pub recursive_read_only: bool,
}

/// Mounts in the order of the spec.
pub(super) async fn volume_mounts(
    pod: &Pod,
    container: &Container,
    inputs: &MountInputs<'_>,
) -> Result<Vec<v1::Mount>, SpecError> {
    let mut out = Vec::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        out.push(one(pod, container, (index, mount), inputs).await?);
    }
    Ok(out)
}

async fn one(
    pod: &Pod,
    container: &Container,
    (index, mount): (usize, &VolumeMount),
    inputs: &MountInputs<'_>,
) -> Result<v1::Mount, SpecError> {
    let missing =
        || SpecError::new(format!("cannot find volume {:?} to mount into container {:?}", mount.name, container.name));
    let ready = inputs.mounted.get(&mount.name).ok_or_else(missing)?;
    let sub_path = sub_path(mount, inputs.env)?;
    let container_path = absolute(&mount.mount_path);
    let read_only = mount.read_only == Some(true);
    let recursive = recursive_read_only(mount, inputs.recursive_read_only)?;
    let (root, always_read_only) = match ready {
        Ready::Image => {
            let image = inputs.images.get(&mount.name).cloned().ok_or_else(missing)?;
            return Ok(v1::Mount {
                container_path,
                readonly: true,
                image: Some(image),
                image_sub_path: sub_path,
                ..v1::Mount::default()
            });
        }
        Ready::Path { path, read_only } => (path, *read_only),
        Ready::Device { .. } => return Err(missing()),
    };
    let host_path = if sub_path.is_empty() {
        root.clone()
    } else {
        let uid = pods::uid(pod);
        let wanted = SubPath { uid, volume: &mount.name, container: &container.name, index, root, path: &sub_path };
        bind(inputs.volumes, wanted, mount, container).await?
    };
    Ok(v1::Mount {
        container_path,
        host_path: host_path.display().to_string(),
        readonly: read_only || always_read_only,
        selinux_relabel: selinux_relabel(pod, container),
        propagation: propagation(mount) as i32,
        recursive_read_only: recursive,
        ..v1::Mount::default()
    })
}

/// Devices in the order of the spec.
pub(super) fn volume_devices(container: &Container, mounted: &Mounted) -> Result<Vec<v1::Device>, SpecError> {
    let devices = container.volume_devices.iter().flatten();
    let one = |device: &VolumeDevice| match mounted.get(&device.name) {
        Some(Ready::Device { path, read_only }) => Ok(v1::Device {
            container_path: device.device_path.clone(),
            host_path: path.display().to_string(),
            permissions: if *read_only { "r" } else { "mrw" }.to_owned(),
        }),
        _ => Err(SpecError::new(format!(
            "cannot find volume {:?} to pass into container {:?}",
            device.name, container.name
        ))),
    };
    devices.map(one).collect()
}

async fn bind(
    volumes: &Volumes,
    wanted: SubPath<'_>,
    mount: &VolumeMount,
    container: &Container,
) -> Result<PathBuf, SpecError> {
    volumes.bind_subpath(wanted).await.map_err(|step| {
        let what = match step {
            SubPathStep::Create => "create subPath directory",
            SubPathStep::Prepare => "prepare subPath",
        };
        SpecError::new(format!("failed to {what} for volumeMount {:?} of container {:?}", mount.name, container.name))
    })
}

/// The part of the volume that is wanted; empty for all of it.
fn sub_path(mount: &VolumeMount, env: &BTreeMap<String, String>) -> Result<String, SpecError> {
    let plain = mount.sub_path.clone().unwrap_or_default();
    let Some(expression) = mount.sub_path_expr.as_deref().filter(|text| !text.is_empty()) else {
        return check_sub_path(plain);
    };
    let missing = std::cell::RefCell::new(None);
    let expanded = expand(expression, |name| match env.get(name).filter(|value| !value.is_empty()) {
        Some(value) => Some(value.clone()),
        None => {
            missing.borrow_mut().get_or_insert_with(|| name.to_owned());
            None
        }
    });
    if let Some(name) = missing.into_inner() {
        return Err(SpecError::new(format!("missing value for {name}")));
    }
    check_sub_path(expanded)
}

fn check_sub_path(path: String) -> Result<String, SpecError> {
    if path.starts_with('/') {
        return Err(SpecError::new(format!("error SubPath `{path}` must not be an absolute path")));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(SpecError::new(format!("unable to provision SubPath `{path}`: must not contain '..'")));
    }
    Ok(path)
}

fn absolute(path: &str) -> String {
    if Path::new(path).is_absolute() { path.to_owned() } else { format!("/{path}") }
}

fn propagation(mount: &VolumeMount) -> v1::MountPropagation {
    match mount.mount_propagation.as_deref() {
        Some("HostToContainer") => v1::MountPropagation::PropagationHostToContainer,
        Some("Bidirectional") => v1::MountPropagation::PropagationBidirectional,
        _ => v1::MountPropagation::PropagationPrivate,
    }
}

fn recursive_read_only(mount: &VolumeMount, supported: bool) -> Result<bool, SpecError> {
    match mount.recursive_read_only.as_deref() {
        None | Some("" | "Disabled") => Ok(false),
        Some(mode @ ("Enabled" | "IfPossible")) => {
            if mount.read_only != Some(true) {
                return Err(SpecError::new(format!(
                    "volume {:?} requested recursive read-only mode, but it is not read-only",
                    mount.name
                )));
            }
            if propagation(mount) != v1::MountPropagation::PropagationPrivate {
                return Err(SpecError::new(format!(
                    "volume {:?} requested recursive read-only mode, but it is not compatible with propagation",
                    mount.name
                )));
            }
            match (supported, mode) {
                (true, _) => Ok(true),
                (false, "IfPossible") => Ok(false),
                _ => Err(SpecError::new(format!(
                    "volume {:?} requested recursive read-only mode, but it is not supported by the runtime",
                    mount.name
                ))),
            }
        }
        Some(other) => Err(SpecError::new(format!("unknown recursive read-only mode {other:?}"))),
    }
}

fn selinux_relabel(pod: &Pod, container: &Container) -> bool {
    let own = container.security_context.as_ref().and_then(|context| context.se_linux_options.as_ref());
    let shared = pods::spec(pod).security_context.as_ref().and_then(|context| context.se_linux_options.as_ref());
    own.or(shared).is_some()
}
