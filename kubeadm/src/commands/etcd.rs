//! `kubeadm etcd`.

use std::path::Path;

use super::{no_subcommand, programs};
use crate::{
    cli::{EtcdAction, SnapshotAction},
    error::{Context, Result, fail},
    etcd::{local::Local, restore::Restore, snapshot},
    host::Host,
};

pub(super) async fn run(host: &dyn Host, action: EtcdAction, command: &mut clap::Command) -> Result<()> {
    match action {
        EtcdAction::Snapshot { action: None } => no_subcommand(host, command, &["etcd", "snapshot"]),
        EtcdAction::Snapshot { action: Some(SnapshotAction::Save { file }) } => save(host, &file).await,
        EtcdAction::Snapshot { action: Some(SnapshotAction::Restore { file, force, bin_dir }) } => {
            restore(host, &file, force, &programs(host, bin_dir)?).await
        }
    }
}

async fn save(host: &dyn Host, file: &Path) -> Result<()> {
    let etcd = Local::read(host)?.client(host).await?;
    let bytes = snapshot::save(host, &etcd, file).await?;
    host.line(&format!("[snapshot] Saved {bytes} bytes to {:?}", file.display().to_string()));
    Ok(())
}

async fn restore(host: &dyn Host, file: &Path, force: bool, programs: &Path) -> Result<()> {
    let restore = Restore::prepare(host, file, programs)?;
    if !force {
        host.line("[restore] WARNING: All that happened in the cluster after the snapshot will be lost.");
        host.say("[restore] Are you sure you want to proceed? [y/N]: ");
        let answer = host.ask().context("couldn't read the answer")?;
        if !["y", "yes"].contains(&answer.trim().to_lowercase().as_str()) {
            return fail!("won't proceed; the user didn't answer (Y|y) in order to continue");
        }
    }
    restore.run().await?;
    host.say(
        "
The cluster has the data of the snapshot, and the member of etcd on this host is the only one.

On every other control plane run 'kubeadm reset' and 'kubeadm join --control-plane' again.
On every other node restart the kubelet, so that it reads the cluster anew.

",
    );
    Ok(())
}
