//! The kubelet's configuration and credentials. Its program is the user's to upgrade.

use std::path::Path;

use serde_json::Value;

use super::{Upgrade, static_pods::stamp};
use crate::{
    constants::{KUBELET_CONF, KUBELET_CONFIG, KUBELET_ENV, KUBELET_INSTANCE_CONFIG, TMP_DIR},
    error::{Context, Result},
    kubeconfig::Kubeconfig,
    kubelet::{self, Taints},
    yaml,
};

/// Points a control plane's kubelet at the API server beside it.
pub(super) async fn kubeconfig(upgrade: &mut Upgrade) -> Result<()> {
    if !upgrade.is_control_plane {
        upgrade.init.host.line("[upgrade/kubeconfig] Skipping phase. Not a control plane node.");
        return Ok(());
    }
    let init = &upgrade.init;
    let host = &*init.host;
    let endpoint = &init.config.init.local_api_endpoint;
    let (shared, local) = (init.cluster().endpoint(endpoint), endpoint.url());
    let mut file = Kubeconfig::load(host, Path::new(KUBELET_CONF))?;
    if shared != local && file.server() == Some(shared.as_str()) {
        file.set("clusters", "cluster", |cluster| {
            cluster.insert("server".into(), Value::from(local));
        });
        host.put(Path::new(KUBELET_CONF), 0o600, yaml::to_yaml(&file.0)?.as_bytes())
            .with_context(|| format!("failed to write {KUBELET_CONF:?}"))?;
        if !init.dry_run {
            tokio::task::block_in_place(|| kubelet::restart(host, &init.programs))?;
        }
    }
    host.line("[upgrade/kubeconfig] The kubeconfig files for this node were successfully upgraded!");
    Ok(())
}

/// Writes the kubelet's configuration anew and keeps the old one.
pub(super) async fn config(upgrade: &mut Upgrade) -> Result<()> {
    upgrade.init.patches()?;
    let init = &upgrade.init;
    let host = &*init.host;
    let backup = Path::new(TMP_DIR).join(format!("kubeadm-kubelet-config-{}", stamp(upgrade)));
    let present = host.read(Path::new(KUBELET_CONFIG)).with_context(|| format!("cannot read {KUBELET_CONFIG}"))?;
    host.line(&format!("[upgrade/kubelet-config] Backing up kubelet config file to {}/config.yaml", backup.display()));
    host.create_directory(&backup, 0o700).context("cannot make a directory for a backup")?;
    host.write(&backup.join("config.yaml"), 0o644, &present).context("cannot back up the kubelet's configuration")?;
    let node = &init.config.init.node_registration;
    if host.kind(Path::new(KUBELET_INSTANCE_CONFIG)).is_none() {
        // What the endpoint was told by moves to a file of its own.
        kubelet::write_environment(host, node, Taints::ByKubeadm)
            .with_context(|| format!("cannot rewrite {KUBELET_ENV}"))?;
    }
    kubelet::write_config(host, node, &init.config.kubelet, init.patches.as_ref())?;
    host.line("[upgrade/kubelet-config] The kubelet configuration for this node was successfully upgraded!");
    Ok(())
}
