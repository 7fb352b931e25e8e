//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use runtime::flags::{
    ClientArgs, CompatibilityArgs, DelegatedAuthArgs, LeaderElectionArgs, MetricsArgs, ProfilingArgs,
    SecureServingArgs, duration,
};

/// Flags of kube-scheduler.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Misc flags")]
pub struct Options {
    /// The path to the configuration file.
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// If set, write the effective configuration to this file and exit.
    #[arg(long)]
    pub write_config_to: Option<PathBuf>,
    /// DEPRECATED: the maximum time a pod can stay in unschedulablePods; then it is tried again. Zero means the default
    /// of five minutes. Will be removed in a future version.
    #[arg(long, default_value = "5m0s", value_parser = duration)]
    pub pod_max_in_unschedulable_pods_duration: Duration,
    /// Pairs of Feature=bool that turn alpha, beta or experimental features on or off.
    #[arg(long)]
    pub feature_gates: Vec<String>,
    /// Versions.
    #[command(flatten)]
    pub compatibility: CompatibilityArgs,
    /// TLS.
    #[command(flatten)]
    pub serving: SecureServingArgs,
    /// The API server.
    #[command(flatten)]
    pub client: ClientArgs,
    /// Requests to this process.
    #[command(flatten)]
    pub auth: DelegatedAuthArgs,
    /// Leader election.
    #[command(flatten)]
    pub election: LeaderElectionArgs,
    /// Metrics.
    #[command(flatten)]
    pub metrics: MetricsArgs,
    /// Profiling.
    #[command(flatten)]
    pub profiling: ProfilingArgs,
}
