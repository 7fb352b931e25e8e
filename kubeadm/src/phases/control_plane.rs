//! Static Pods and the kubelet that runs them.

use std::path::Path;

use serde_json::Value;

use super::init::Init;
use crate::{
    audit,
    constants::{EMBEDDED_STORE_DIR, KUBELET_CONF, MANIFESTS_DIR},
    error::{Context, Result},
    host::Host,
    kubeconfig::Kubeconfig,
    kubelet::{self, Taints},
    manifests::{self, StaticPod, control_plane, etcd as etcd_manifest},
    patches::Patches,
    yaml,
};

/// Writes a static Pod with the user's patches.
pub(crate) fn write_manifest(host: &dyn Host, pod: &StaticPod, patches: Option<&Patches>) -> Result<()> {
    let mut value: Value = pod.to_value();
    if let Some(patches) = patches {
        value = patches.apply(host, pod.name, value)?;
    }
    manifests::write(host, pod.name, &yaml::to_yaml(&value)?)
}

pub(super) async fn etcd(init: &mut Init) -> Result<()> {
    if !init.cluster().has_local_etcd() {
        let host = &*init.host;
        match init.cluster().embedded_store() {
            Some(directory) => {
                host.line(&format!("[etcd] No etcd: the API server keeps its data in {directory:?}"));
                host.create_directory(Path::new(EMBEDDED_STORE_DIR), 0o700)
                    .with_context(|| format!("failed to create the directory {EMBEDDED_STORE_DIR:?}"))?;
            }
            None => host.line("[etcd] External etcd mode. Skipping the creation of a manifest for local etcd"),
        }
        return Ok(());
    }
    init.patches()?;
    let host = &*init.host;
    host.line(&format!("[etcd] Creating static Pod manifest for local etcd in {MANIFESTS_DIR:?}"));
    let data = init.cluster().local_etcd().data_dir;
    host.create_directory(Path::new(&data), 0o700)
        .with_context(|| format!("failed to create etcd directory {data:?}"))?;
    let inputs = etcd_manifest::Inputs {
        host,
        cluster: init.cluster(),
        endpoint: &init.config.init.local_api_endpoint,
        node: init.node(),
        members: &[],
        timeouts: init.timeouts(),
    };
    write_manifest(host, &inputs.static_pod(), init.patches.as_ref())
}

pub(super) async fn announce(init: &mut Init) -> Result<()> {
    init.host.line(&format!("[control-plane] Using manifest folder {MANIFESTS_DIR:?}"));
    Ok(())
}

pub(super) async fn component(init: &mut Init, name: &'static str) -> Result<()> {
    init.patches()?;
    let host = &*init.host;
    host.line(&format!("[control-plane] Creating static Pod manifest for {name:?}"));
    if name == "kube-apiserver" {
        audit::ensure(host, &init.pki())?;
    }
    let inputs = control_plane::Inputs {
        host,
        cluster: init.cluster(),
        endpoint: &init.config.init.local_api_endpoint,
        timeouts: init.timeouts(),
    };
    write_manifest(host, &inputs.component(name)?, init.patches.as_ref())
}

pub(super) async fn kubelet_start(init: &mut Init) -> Result<()> {
    init.patches()?;
    let host = &*init.host;
    let node = &init.config.init.node_registration;
    if !init.dry_run {
        tokio::task::block_in_place(|| kubelet::stop(host))?;
    }
    kubelet::write_environment(host, node, Taints::ByKubeadm)?;
    kubelet::write_config(host, node, &init.config.kubelet, init.patches.as_ref())?;
    if init.dry_run {
        return Ok(());
    }
    tokio::task::block_in_place(|| kubelet::start(host, &init.programs))
}

/// Points kubelet.conf at the certificate that the kubelet rotates.
pub(super) async fn kubelet_finalize(init: &mut Init) -> Result<()> {
    let certificate = kubelet::rotated_certificate(&init.config.init.node_registration);
    let host = &*init.host;
    if !host.exists(&certificate) {
        return Ok(());
    }
    host.line(&format!(
        "[kubelet-finalize] Updating {KUBELET_CONF:?} to point to a rotatable kubelet client certificate and key"
    ));
    let path = init.kubeconfig_dir.join("kubelet.conf");
    let mut file = Kubeconfig::load(host, &path)?;
    let pem = Value::from(certificate.to_string_lossy());
    file.set("users", "user", |user| {
        user.remove("client-certificate-data");
        user.remove("client-key-data");
        user.insert("client-certificate".into(), pem.clone());
        user.insert("client-key".into(), pem);
    });
    host.put(&path, 0o600, yaml::to_yaml(&file.0)?.as_bytes())
        .with_context(|| format!("failed to serialize {:?}", path.display().to_string()))?;
    if init.dry_run {
        return Ok(());
    }
    tokio::task::block_in_place(|| kubelet::restart(host, &init.programs))
}
