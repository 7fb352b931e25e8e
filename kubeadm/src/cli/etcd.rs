//! `kubeadm etcd`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `kubeadm etcd`.
#[derive(Debug, Args)]
pub struct EtcdCommand {
    /// What to do.
    #[command(subcommand)]
    pub action: Option<EtcdAction>,
}

/// What to do with etcd.
#[derive(Debug, Subcommand)]
pub enum EtcdAction {
    /// Save the data of a cluster to a file, or bring it back from one.
    Snapshot {
        /// Which of them.
        #[command(subcommand)]
        action: Option<SnapshotAction>,
    },
}

/// What to do with a snapshot.
#[derive(Debug, Subcommand)]
pub enum SnapshotAction {
    /// Save the data that the etcd member of this host has to a file.
    Save {
        /// The file.
        file: PathBuf,
    },
    /// Replace the data of the cluster by that of a file. The member of this host is then the only one.
    Restore {
        /// The file.
        file: PathBuf,
        /// Do it without prompting for confirmation.
        #[arg(short = 'f', long)]
        force: bool,
        /// Directory of the installed programs; that of kubeadm if empty.
        #[arg(long, value_name = "PATH")]
        bin_dir: Option<PathBuf>,
    },
}
