//! `kubeadm reset`: takes back what `init` and `join` did to this host. What fails late only warns.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::workflow::Phase;
use crate::{
    client::Cluster,
    config::{ClusterConfiguration, ResetConfiguration},
    constants::{
        ADMIN_CONF, BOOTSTRAP_KUBELET_CONF, CONTROLLER_MANAGER_CONF, EMBEDDED_STORE_DIR, KUBELET_CONF, KUBELET_DIR,
        MANIFESTS_DIR, SCHEDULER_CONF, SUPER_ADMIN_CONF, TMP_DIR,
    },
    cri::Cri,
    error::{Context, Error, Result, fail},
    etcd::{Etcd, local::Local},
    fetch,
    host::Host,
    kubelet,
    preflight::{self, checks},
};

/// Attempts for each sandbox.
const ATTEMPTS: u32 = 5;

/// What the phases of `reset` share.
pub struct Reset {
    /// This host.
    pub host: Arc<dyn Host>,
    /// The configuration.
    pub config: ResetConfiguration,
    /// Checks that only warn, in lower case.
    pub ignored: Vec<String>,
    /// Kubeconfig of the administrator.
    pub kubeconfig: PathBuf,
    /// The cluster's configuration, when it can still be read.
    pub cluster: Option<ClusterConfiguration>,
    /// Endpoint of the container runtime.
    pub cri_socket: String,
}

/// The phases of `reset` in order.
pub static PHASES: &[Phase<Reset>] = &[
    Phase::leaf("preflight", "Run reset pre-flight checks", |c| Box::pin(preflight(c))),
    Phase::leaf("remove-etcd-member", "Remove a local etcd member.", |c| Box::pin(remove_etcd_member(c))),
    Phase::leaf("cleanup-node", "Run cleanup node.", |c| Box::pin(cleanup_node(c))),
];

/// Reads the cluster's configuration; without it the rest still runs.
pub async fn read_cluster(host: &dyn Host, kubeconfig: &Path) -> Option<ClusterConfiguration> {
    let read = async {
        let api = Cluster::load(host, kubeconfig, None, Duration::from_secs(5)).await?;
        fetch::announce(host, "reset");
        fetch::cluster(host, &api).await
    };
    match read.await {
        Ok(cluster) => Some(cluster),
        Err(cause) => {
            host.warn(&format!("[reset] Unable to fetch the kubeadm-config ConfigMap from cluster: {cause}\n"));
            None
        }
    }
}

async fn preflight(reset: &mut Reset) -> Result<()> {
    let host = &*reset.host;
    if !reset.config.force && !reset.config.dry_run {
        host.line("[reset] WARNING: Changes made to this host by 'kubeadm init' or 'kubeadm join' will be reverted.");
        host.say("[reset] Are you sure you want to proceed? [y/N]: ");
        let answer = host.ask().context("couldn't read the answer")?;
        if !["y", "yes"].contains(&answer.trim().to_lowercase().as_str()) {
            return fail!("won't proceed; the user didn't answer (Y|y) in order to continue");
        }
    }
    host.line("[preflight] Running pre-flight checks");
    preflight::report(host, &[checks::privileged(host)], &reset.ignored)
}

async fn remove_etcd_member(reset: &mut Reset) -> Result<()> {
    let host = reset.host.clone();
    let Ok(Local { data, peer_url, .. }) = Local::read(&*host) else {
        let embedded = host.exists(Path::new(EMBEDDED_STORE_DIR));
        if embedded {
            return empty_store(reset);
        }
        host.line("[reset] No etcd config found. Assuming external etcd");
        host.line("[reset] Please, manually reset etcd to prevent further issues");
        return Ok(());
    };
    if reset.config.dry_run {
        host.line("[dryrun] Would remove the etcd member on this node");
        host.line(&format!("[dryrun] Would delete contents of the etcd data directory: {}", data.display()));
        return Ok(());
    }
    if let Some(cluster) = &reset.cluster
        && let Err(cause) = leave(&*host, cluster, &reset.kubeconfig, &peer_url).await
    {
        host.warn(&format!(
            "[reset] Failed to remove etcd member: {cause}, please manually remove this etcd member using etcdctl\n"
        ));
    }
    match host.empty(&data) {
        Ok(()) => host.line(&format!("[reset] Deleted contents of the etcd data directory: {}", data.display())),
        Err(cause) => {
            host.warn(&format!("[reset] Failed to delete contents of the etcd directory: {data:?}, error: {cause}\n"))
        }
    }
    Ok(())
}

/// The data of an API server without etcd. The Pod may still run: its data goes when the node is cleaned up.
fn empty_store(reset: &Reset) -> Result<()> {
    if reset.config.dry_run {
        reset.host.line(&format!("[dryrun] Would delete contents of the embedded store: {EMBEDDED_STORE_DIR}"));
    }
    Ok(())
}

async fn leave(host: &dyn Host, cluster: &ClusterConfiguration, kubeconfig: &Path, peer_url: &str) -> Result<()> {
    let api = Cluster::load(host, kubeconfig, None, Duration::from_secs(10)).await?;
    let etcd = Etcd::of_cluster(host, &api, cluster).await?;
    let members = etcd.members().await?;
    if members.len() <= 1 {
        return Ok(());
    }
    match members.iter().find(|m| m.peer_urls.iter().any(|url| url == peer_url)) {
        Some(own) => etcd.remove(own.id).await,
        None => Ok(()),
    }
}

async fn cleanup_node(reset: &mut Reset) -> Result<()> {
    let host = reset.host.clone();
    let dry = reset.config.dry_run;
    if dry {
        host.line("[dryrun] Would stop the kubelet service");
        host.line(&format!("[dryrun] Would unmount mounted directories in {KUBELET_DIR:?}"));
        host.line("[dryrun] Would remove Kubernetes-managed containers");
    } else {
        host.line("[reset] Stopping the kubelet service");
        if let Err(cause) = tokio::task::block_in_place(|| kubelet::stop(&*host)) {
            host.warn(&format!("[reset] The kubelet service could not be stopped by kubeadm: [{cause}]\n"));
            host.warn("[reset] Please ensure kubelet is stopped manually\n");
        }
        host.line(&format!("[reset] Unmounting mounted directories in {KUBELET_DIR:?}"));
        unmount(&*host, &reset.config.unmount_flags)?;
        if let Err(cause) = remove_sandboxes(&reset.cri_socket).await {
            host.warn(&format!("[reset] Failed to remove containers: {cause}\n"));
        }
    }
    delete(reset, &*host);
    Ok(())
}

fn unmount(host: &dyn Host, flags: &[String]) -> Result<()> {
    let real = host.real_path(Path::new(KUBELET_DIR)).unwrap_or_else(|_| KUBELET_DIR.into());
    let mounts = host.mounts_below(&real).context("failed to read the mounts")?;
    let mut failures = Vec::new();
    for mount in mounts {
        match host.unmount(&mount, flags) {
            Err(error) if error.raw_os_error() != Some(libc::EINVAL) => {
                failures.push(format!("failed to unmount {:?}: {error}", mount.display().to_string()));
            }
            _ => {}
        }
    }
    match failures.as_slice() {
        [] => Ok(()),
        all => Err(Error::new(format!("[{}]", all.join(", ")))),
    }
}

async fn remove_sandboxes(socket: &str) -> Result<()> {
    let cri = Cri::new(socket)?;
    let mut failures = Vec::new();
    for id in cri.sandboxes().await? {
        let mut last = Ok(());
        for _ in 0..ATTEMPTS {
            last = cri.remove_sandbox(&id).await;
            if last.is_ok() {
                break;
            }
        }
        failures.extend(last.err().map(|error| error.to_string()));
    }
    if failures.is_empty() { Ok(()) } else { fail!("[{}]", failures.join(", ")) }
}

fn delete(reset: &Reset, host: &dyn Host) {
    let dry = reset.config.dry_run;
    let mut directories = vec![MANIFESTS_DIR.to_owned(), KUBELET_DIR.to_owned(), reset.config.certificates_dir.clone()];
    if reset.config.cleanup_tmp_dir {
        directories.push(TMP_DIR.to_owned());
    }
    if host.exists(Path::new(EMBEDDED_STORE_DIR)) {
        directories.push(EMBEDDED_STORE_DIR.to_owned());
    }
    let files =
        [ADMIN_CONF, SUPER_ADMIN_CONF, KUBELET_CONF, BOOTSTRAP_KUBELET_CONF, CONTROLLER_MANAGER_CONF, SCHEDULER_CONF];
    let deleting = if dry { "[dryrun] Would delete" } else { "[reset] Deleting" };
    host.line(&format!("{deleting} contents of directories: [{}]", directories.join(" ")));
    if !dry {
        for directory in &directories {
            if let Err(cause) = host.empty(Path::new(directory)) {
                host.warn(&format!("[reset] Failed to delete contents of {directory:?} directory: {cause}\n"));
            }
        }
    }
    host.line(&format!("{deleting} files: [{}]", files.join(" ")));
    if !dry {
        for file in files {
            if let Err(cause) = host.remove(Path::new(file)) {
                host.warn(&format!("[reset] Failed to remove file: {file:?} [{cause}]\n"));
            }
        }
    }
}

/// The words at the end.
pub const FAREWELL: &str = "
The reset process does not perform cleanup of CNI plugin configuration,
network filtering rules and kubeconfig files.

For information on how to perform this cleanup manually, please see:
    https://k8s.io/docs/reference/setup-tools/kubeadm/kubeadm-reset/

";
