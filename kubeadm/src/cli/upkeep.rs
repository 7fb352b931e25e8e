//! `kubeadm upkeep`.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;

use crate::config::Period;

/// `kubeadm upkeep`.
#[derive(Debug, Args)]
pub struct UpkeepCommand {
    /// Name of the node; that of the machine if empty.
    #[arg(long, default_value = "", value_name = "NAME")]
    pub node_name: String,
    /// Time between rounds.
    #[arg(long, default_value = "1h", value_parser = super::period, value_name = "DURATION")]
    pub interval: Period,
    /// Do one round and end.
    #[arg(long)]
    pub once: bool,
    /// Renew certificates when this part of their life is left, in percent.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(0..=100), value_name = "PERCENT")]
    pub renew_at: u32,
    /// Directory of snapshots of etcd.
    #[arg(long, default_value = "/var/lib/etcd-snapshots", value_name = "PATH")]
    pub snapshot_dir: PathBuf,
    /// Time between snapshots; 0 for none.
    #[arg(long, default_value = "24h", value_parser = super::period, value_name = "DURATION")]
    pub snapshot_interval: Period,
    /// How many snapshots are kept.
    #[arg(long, default_value_t = 7, value_name = "N")]
    pub snapshots_kept: usize,
    /// Address of the metrics server; empty for none.
    #[arg(long, value_name = "ADDRESS")]
    pub metrics_bind_address: Option<SocketAddr>,
}
