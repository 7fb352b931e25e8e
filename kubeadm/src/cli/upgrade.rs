//! `kubeadm upgrade`.

use std::path::PathBuf;

use clap::{ArgAction, Args, Subcommand};

/// `kubeadm upgrade`.
#[derive(Debug, Args)]
pub struct UpgradeCommand {
    /// What to do.
    #[command(subcommand)]
    pub action: Option<UpgradeAction>,
}

/// What to do with a cluster that is there.
#[derive(Debug, Subcommand)]
pub enum UpgradeAction {
    /// Upgrade your Kubernetes cluster to the specified version.
    #[command(args_conflicts_with_subcommands = true)]
    Apply {
        /// The version; that of kubeadm when absent from here and from the configuration.
        #[arg(value_name = "VERSION")]
        version: Option<String>,
        /// The flags.
        #[command(flatten)]
        flags: Box<ApplyFlags>,
        /// A single phase.
        #[command(subcommand)]
        phase: Option<ApplyPhase>,
    },
    /// Upgrade commands for a node in the cluster.
    #[command(args_conflicts_with_subcommands = true)]
    Node {
        /// The flags.
        #[command(flatten)]
        flags: Box<NodeFlags>,
        /// A single phase.
        #[command(subcommand)]
        phase: Option<NodePhase>,
    },
    /// Check which versions are available to upgrade to and validate whether your current cluster is upgradeable.
    Plan {
        /// The version to plan for.
        #[arg(value_name = "VERSION")]
        version: Option<String>,
        /// The flags.
        #[command(flatten)]
        flags: Box<PlanFlags>,
    },
    /// Show what differences would be applied to existing static pod manifests. See also: kubeadm upgrade apply --dry-run
    Diff {
        /// The version.
        #[arg(value_name = "VERSION")]
        version: Option<String>,
        /// The flags.
        #[command(flatten)]
        flags: DiffFlags,
    },
}

/// `kubeadm upgrade apply phase`.
#[derive(Debug, Subcommand)]
pub enum ApplyPhase {
    /// Use this command to invoke single phase of the "apply" workflow.
    Phase {
        /// Name of the phase and of its member.
        #[arg(required = true, num_args = 1..=2, value_name = "PHASE")]
        path: Vec<String>,
        /// The flags.
        #[command(flatten)]
        flags: Box<ApplyFlags>,
    },
}

/// `kubeadm upgrade node phase`.
#[derive(Debug, Subcommand)]
pub enum NodePhase {
    /// Use this command to invoke single phase of the "node" workflow.
    Phase {
        /// Name of the phase and of its member.
        #[arg(required = true, num_args = 1..=2, value_name = "PHASE")]
        path: Vec<String>,
        /// The flags.
        #[command(flatten)]
        flags: Box<NodeFlags>,
    },
}

/// Flags of all commands that change a host.
#[derive(Debug, Default, Args)]
pub struct CommonFlags {
    /// Perform the renewal of certificates used by component changed during upgrades.
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    pub certificate_renewal: bool,
    /// Path to a kubeadm configuration file.
    #[arg(long, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// Do not change any state, just output what actions would be performed.
    #[arg(long)]
    pub dry_run: bool,
    /// Perform the upgrade of etcd.
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    pub etcd_upgrade: bool,
    /// A list of checks whose errors will be shown as warnings.
    #[arg(long, value_delimiter = ',', value_name = "CHECK")]
    pub ignore_preflight_errors: Vec<String>,
    /// The kubeconfig file to use when talking to the cluster.
    #[arg(long, value_name = "PATH")]
    pub kubeconfig: Option<PathBuf>,
    /// Path to a directory that contains patch files.
    #[arg(long, default_value = "", value_name = "PATH")]
    pub patches: String,
    /// List of phases to be skipped.
    #[arg(long, value_delimiter = ',', value_name = "PHASE")]
    pub skip_phases: Vec<String>,
    /// Directory of the programs that images are made from; by default that of kubeadm.
    #[arg(long, value_name = "PATH")]
    pub bin_dir: Option<PathBuf>,
}

/// Versions that are no releases.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct UnstableFlags {
    /// Show unstable versions of Kubernetes as an upgrade alternative and allow upgrading to an alpha/beta/release
    /// candidate versions of Kubernetes.
    #[arg(long)]
    pub allow_experimental_upgrades: bool,
    /// Show release candidate versions of Kubernetes as an upgrade alternative and allow upgrading to a release candidate
    /// versions of Kubernetes.
    #[arg(long)]
    pub allow_release_candidate_upgrades: bool,
}

/// Flags of `upgrade apply`.
#[derive(Debug, Default, Args)]
pub struct ApplyFlags {
    /// Flags of all commands.
    #[command(flatten)]
    pub common: CommonFlags,
    /// Unstable versions.
    #[command(flatten)]
    pub unstable: UnstableFlags,
    /// Force upgrading although some requirements might not be met. This also implies non-interactive mode.
    #[arg(short, long)]
    pub force: bool,
    /// Specifies whether the configuration file that will be used in the upgrade should be printed or not.
    #[arg(long)]
    pub print_config: bool,
    /// Perform the upgrade and do not prompt for confirmation (non-interactive mode).
    #[arg(short, long)]
    pub yes: bool,
}

/// Flags of `upgrade node`.
#[derive(Debug, Default, Args)]
pub struct NodeFlags {
    /// Flags of all commands.
    #[command(flatten)]
    pub common: CommonFlags,
}

/// Flags of `upgrade plan`.
#[derive(Debug, Default, Args)]
pub struct PlanFlags {
    /// Unstable versions.
    #[command(flatten)]
    pub unstable: UnstableFlags,
    /// Path to a kubeadm configuration file.
    #[arg(long, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// A list of checks whose errors will be shown as warnings.
    #[arg(long, value_delimiter = ',', value_name = "CHECK")]
    pub ignore_preflight_errors: Vec<String>,
    /// The kubeconfig file to use when talking to the cluster.
    #[arg(long, value_name = "PATH")]
    pub kubeconfig: Option<PathBuf>,
    /// Specifies whether the configuration file that will be used in the upgrade should be printed or not.
    #[arg(long)]
    pub print_config: bool,
    /// Output format. One of: text|json|yaml.
    #[arg(short = 'o', long = "output", default_value = "text", value_name = "FORMAT")]
    pub output: String,
}

/// Flags of `upgrade diff`.
#[derive(Debug, Default, Args)]
pub struct DiffFlags {
    /// Path to a kubeadm configuration file.
    #[arg(long, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// How many lines of context in the diff.
    #[arg(short = 'c', long, default_value_t = 3, value_name = "N")]
    pub context_lines: i32,
    /// The kubeconfig file to use when talking to the cluster.
    #[arg(long, value_name = "PATH")]
    pub kubeconfig: Option<PathBuf>,
}
