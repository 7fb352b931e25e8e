//! The command line.

mod certs;
mod etcd;
pub mod upgrade;
mod upkeep;

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};

pub use certs::{CertsAction, CertsCommand, CertsFlags};
pub use etcd::{EtcdAction, EtcdCommand, SnapshotAction};
pub use upkeep::UpkeepCommand;

use crate::config::Period;

fn period(text: &str) -> Result<Period, String> {
    Period::parse(text)
}

/// `kubeadm`.
#[derive(Debug, Parser)]
#[command(name = "kubeadm", about = "Easily bootstrap a secure Kubernetes cluster", disable_version_flag = true)]
pub struct Cli {
    /// The path to the 'real' host root filesystem. This will cause kubeadm to chroot into the provided path.
    #[arg(long, global = true, value_name = "PATH")]
    pub rootfs: Option<PathBuf>,
    /// Number for the log level verbosity.
    #[arg(short = 'v', long = "v", global = true, default_value_t = 0, value_name = "N")]
    pub verbosity: u32,
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Debug, Subcommand)]
#[allow(missing_docs, reason = "the attributes document the commands")]
pub enum Command {
    /// Run this command in order to set up the Kubernetes control plane.
    Init(Box<InitCommand>),
    /// Run this on any machine you wish to join an existing cluster.
    Join(Box<JoinCommand>),
    /// Performs a best effort revert of changes made to this host by 'kubeadm init' or 'kubeadm join'.
    Reset(Box<ResetCommand>),
    /// Upgrade your cluster smoothly to a newer version with this command.
    Upgrade(upgrade::UpgradeCommand),
    /// Manage bootstrap tokens.
    Token(TokenCommand),
    /// Manage configuration for a kubeadm cluster persisted in a ConfigMap in the cluster.
    Config(ConfigCommand),
    /// Commands related to handling Kubernetes certificates.
    #[command(alias = "certificates")]
    Certs(CertsCommand),
    /// Commands related to the data of a cluster with a local etcd.
    Etcd(EtcdCommand),
    /// Renew certificates of this control plane before they end, save etcd's data, keep its file small.
    Upkeep(UpkeepCommand),
    /// Kubeconfig file utilities.
    Kubeconfig(KubeconfigCommand),
    /// Print the version of kubeadm.
    Version(VersionCommand),
    /// Start the kubelet of this host, unless it runs.
    StartKubelet(KubeletCommand),
    /// Stop the kubelet of this host. Its containers go on.
    StopKubelet,
    /// Keep a kubelet running where no init system does.
    #[command(name = crate::supervisor::COMMAND, hide = true)]
    SuperviseKubelet {
        /// The kubelet.
        program: PathBuf,
    },
}

/// `kubeadm start-kubelet`.
#[derive(Debug, Args)]
pub struct KubeletCommand {
    /// Directory of the installed programs; that of kubeadm if empty.
    #[arg(long, value_name = "PATH")]
    pub bin_dir: Option<PathBuf>,
}

/// `kubeadm init`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct InitCommand {
    /// The flags.
    #[command(flatten)]
    pub flags: InitFlags,
    /// A single phase.
    #[command(subcommand)]
    pub phase: Option<InitPhase>,
}

/// `kubeadm init phase`.
#[derive(Debug, Subcommand)]
pub enum InitPhase {
    /// Use this command to invoke single phase of the "init" workflow.
    Phase {
        /// Name of the phase and of its member.
        #[arg(required = true, num_args = 1..=2, value_name = "PHASE")]
        path: Vec<String>,
        /// The flags.
        #[command(flatten)]
        flags: Box<InitFlags>,
        /// Flags of phases alone.
        #[command(flatten)]
        alone: Box<PhaseFlags>,
    },
}

/// Flags that only single phases of `init` have.
#[derive(Debug, Default, Args)]
pub struct PhaseFlags {
    /// The kubeconfig file to use when talking to the cluster.
    #[arg(long, value_name = "PATH")]
    pub kubeconfig: Option<PathBuf>,
    /// The path where to save the kubeconfig file.
    #[arg(long, value_name = "PATH")]
    pub kubeconfig_dir: Option<PathBuf>,
    /// A set of extra flags to pass to the API Server.
    #[arg(long, value_delimiter = ',', value_name = "NAME=VALUE")]
    pub apiserver_extra_args: Vec<String>,
    /// A set of extra flags to pass to the Controller Manager.
    #[arg(long, value_delimiter = ',', value_name = "NAME=VALUE")]
    pub controller_manager_extra_args: Vec<String>,
    /// A set of extra flags to pass to the Scheduler.
    #[arg(long, value_delimiter = ',', value_name = "NAME=VALUE")]
    pub scheduler_extra_args: Vec<String>,
    /// Print the addon manifests to STDOUT instead of installing them.
    #[arg(long)]
    pub print_manifest: bool,
}

/// Flags of `init`.
#[derive(Debug, Default, Args)]
pub struct InitFlags {
    /// The IP address the API Server will advertise it's listening on.
    #[arg(long, default_value = "", value_name = "IP")]
    pub apiserver_advertise_address: String,
    /// Port for the API Server to bind to.
    #[arg(long, default_value_t = 6443, value_name = "PORT")]
    pub apiserver_bind_port: i32,
    /// Optional extra Subject Alternative Names (SANs) to use for the API Server serving certificate.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub apiserver_cert_extra_sans: Vec<String>,
    /// The path where to save and store the certificates.
    #[arg(long, default_value = "/etc/kubernetes/pki", value_name = "PATH")]
    pub cert_dir: String,
    /// Key used to encrypt the control-plane certificates in the kubeadm-certs Secret.
    #[arg(long, default_value = "", value_name = "KEY")]
    pub certificate_key: String,
    /// Path to a kubeadm configuration file.
    #[arg(long, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// Specify a stable IP address or DNS name for the control plane.
    #[arg(long, default_value = "", value_name = "ENDPOINT")]
    pub control_plane_endpoint: String,
    /// Path to the CRI socket to connect.
    #[arg(long, default_value = "", value_name = "PATH")]
    pub cri_socket: String,
    /// Don't apply any changes; just output what would be done.
    #[arg(long)]
    pub dry_run: bool,
    /// A set of key=value pairs that describe feature gates for various features.
    #[arg(long, value_delimiter = ',', value_name = "NAME=BOOL")]
    pub feature_gates: Vec<String>,
    /// A list of checks whose errors will be shown as warnings.
    #[arg(long, value_delimiter = ',', value_name = "CHECK")]
    pub ignore_preflight_errors: Vec<String>,
    /// Choose a container registry to pull control plane images from; with the default one images are made from the
    /// installed programs.
    #[arg(long, default_value = "registry.k8s.io", value_name = "REPOSITORY")]
    pub image_repository: String,
    /// Choose a specific Kubernetes version for the control plane.
    #[arg(long, default_value = "stable-1", value_name = "VERSION")]
    pub kubernetes_version: String,
    /// Specify the node name.
    #[arg(long, default_value = "", value_name = "NAME")]
    pub node_name: String,
    /// Path to a directory that contains patch files.
    #[arg(long, default_value = "", value_name = "PATH")]
    pub patches: String,
    /// Specify range of IP addresses for the pod network.
    #[arg(long, default_value = "", value_name = "CIDR")]
    pub pod_network_cidr: String,
    /// Use alternative range of IP address for service VIPs.
    #[arg(long, default_value = "10.96.0.0/12", value_name = "CIDR")]
    pub service_cidr: String,
    /// Use alternative domain for services.
    #[arg(long, default_value = "cluster.local", value_name = "DOMAIN")]
    pub service_dns_domain: String,
    /// Don't print the key used to encrypt the control-plane certificates.
    #[arg(long)]
    pub skip_certificate_key_print: bool,
    /// List of phases to be skipped.
    #[arg(long, value_delimiter = ',', value_name = "PHASE")]
    pub skip_phases: Vec<String>,
    /// Skip printing of the default bootstrap token generated by 'kubeadm init'.
    #[arg(long)]
    pub skip_token_print: bool,
    /// The token to use for establishing bidirectional trust between nodes and control-plane nodes.
    #[arg(long, default_value = "", value_name = "TOKEN")]
    pub token: String,
    /// The duration before the token is automatically deleted.
    #[arg(long, default_value = "24h0m0s", value_parser = period, value_name = "DURATION")]
    pub token_ttl: Option<Period>,
    /// Upload control-plane certificates to the kubeadm-certs Secret.
    #[arg(long)]
    pub upload_certs: bool,
    /// Run without etcd: the API server keeps its data in /var/lib/timonel.
    #[arg(long)]
    pub embedded_store: bool,
    /// Directory of the programs that images are made from; by default that of kubeadm.
    #[arg(long, value_name = "PATH")]
    pub bin_dir: Option<PathBuf>,
}

/// `kubeadm join`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct JoinCommand {
    /// Address of an API server, `host:port`.
    #[arg(value_name = "API-SERVER-ENDPOINT")]
    pub endpoint: Option<String>,
    /// The flags.
    #[command(flatten)]
    pub flags: JoinFlags,
    /// A single phase.
    #[command(subcommand)]
    pub phase: Option<JoinPhase>,
}

/// `kubeadm join phase`.
#[derive(Debug, Subcommand)]
pub enum JoinPhase {
    /// Use this command to invoke single phase of the "join" workflow.
    Phase {
        /// Name of the phase, of its member, and the address of an API server.
        #[arg(required = true, num_args = 1..=3, value_name = "PHASE")]
        path: Vec<String>,
        /// The flags.
        #[command(flatten)]
        flags: Box<JoinFlags>,
    },
}

/// Flags of `join`.
#[derive(Debug, Default, Args)]
pub struct JoinFlags {
    /// If the node should host a new control plane instance, the IP address the API Server will advertise.
    #[arg(long, default_value = "", value_name = "IP")]
    pub apiserver_advertise_address: String,
    /// If the node should host a new control plane instance, the port for the API Server to bind to.
    #[arg(long, default_value_t = 6443, value_name = "PORT")]
    pub apiserver_bind_port: i32,
    /// Use this key to decrypt the certificate secrets uploaded by init.
    #[arg(long, default_value = "", value_name = "KEY")]
    pub certificate_key: String,
    /// Path to a kubeadm configuration file.
    #[arg(long, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// Create a new control plane instance on this node.
    #[arg(long)]
    pub control_plane: bool,
    /// Path to the CRI socket to connect.
    #[arg(long, default_value = "", value_name = "PATH")]
    pub cri_socket: String,
    /// For file-based discovery, a file or URL from which to load cluster information.
    #[arg(long, default_value = "", value_name = "PATH")]
    pub discovery_file: String,
    /// For token-based discovery, the token used to validate cluster information fetched from the API server.
    #[arg(long, default_value = "", value_name = "TOKEN")]
    pub discovery_token: String,
    /// For token-based discovery, validate that the root CA public key matches this hash.
    #[arg(long, value_delimiter = ',', value_name = "TYPE:HASH")]
    pub discovery_token_ca_cert_hash: Vec<String>,
    /// For token-based discovery, allow joining without --discovery-token-ca-cert-hash pinning.
    #[arg(long)]
    pub discovery_token_unsafe_skip_ca_verification: bool,
    /// Don't apply any changes; just output what would be done.
    #[arg(long)]
    pub dry_run: bool,
    /// A list of checks whose errors will be shown as warnings.
    #[arg(long, value_delimiter = ',', value_name = "CHECK")]
    pub ignore_preflight_errors: Vec<String>,
    /// Specify the node name.
    #[arg(long, default_value = "", value_name = "NAME")]
    pub node_name: String,
    /// Path to a directory that contains patch files.
    #[arg(long, default_value = "", value_name = "PATH")]
    pub patches: String,
    /// List of phases to be skipped.
    #[arg(long, value_delimiter = ',', value_name = "PHASE")]
    pub skip_phases: Vec<String>,
    /// Specify the token used to temporarily authenticate with the Kubernetes Control Plane while joining the node.
    #[arg(long, default_value = "", value_name = "TOKEN")]
    pub tls_bootstrap_token: String,
    /// Use this token for both discovery-token and tls-bootstrap-token when those values are not provided.
    #[arg(long, default_value = "", value_name = "TOKEN")]
    pub token: String,
    /// Directory of the programs that images are made from; by default that of kubeadm.
    #[arg(long, value_name = "PATH")]
    pub bin_dir: Option<PathBuf>,
}

/// `kubeadm reset`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ResetCommand {
    /// The flags.
    #[command(flatten)]
    pub flags: ResetFlags,
    /// A single phase.
    #[command(subcommand)]
    pub phase: Option<ResetPhase>,
}

/// `kubeadm reset phase`.
#[derive(Debug, Subcommand)]
pub enum ResetPhase {
    /// Use this command to invoke single phase of the "reset" workflow.
    Phase {
        /// Name of the phase.
        #[arg(required = true, num_args = 1, value_name = "PHASE")]
        path: Vec<String>,
        /// The flags.
        #[command(flatten)]
        flags: Box<ResetFlags>,
    },
}

/// Flags of `reset`.
#[derive(Debug, Default, Args)]
pub struct ResetFlags {
    /// The path to the directory where the certificates are stored.
    #[arg(long, default_value = "/etc/kubernetes/pki", value_name = "PATH")]
    pub cert_dir: String,
    /// Cleanup the "/etc/kubernetes/tmp" directory.
    #[arg(long)]
    pub cleanup_tmp_dir: bool,
    /// Path to a kubeadm configuration file.
    #[arg(long, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// Path to the CRI socket to connect.
    #[arg(long, default_value = "", value_name = "PATH")]
    pub cri_socket: String,
    /// Don't apply any changes; just output what would be done.
    #[arg(long)]
    pub dry_run: bool,
    /// Reset the node without prompting for confirmation.
    #[arg(short, long)]
    pub force: bool,
    /// A list of checks whose errors will be shown as warnings.
    #[arg(long, value_delimiter = ',', value_name = "CHECK")]
    pub ignore_preflight_errors: Vec<String>,
    /// The kubeconfig file to use when talking to the cluster.
    #[arg(long, value_name = "PATH")]
    pub kubeconfig: Option<PathBuf>,
    /// List of phases to be skipped.
    #[arg(long, value_delimiter = ',', value_name = "PHASE")]
    pub skip_phases: Vec<String>,
}

/// `kubeadm token`.
#[derive(Debug, Args)]
pub struct TokenCommand {
    /// Whether to enable dry-run mode or not.
    #[arg(long, global = true)]
    pub dry_run: bool,
    /// The kubeconfig file to use when talking to the cluster.
    #[arg(long, global = true, value_name = "PATH")]
    pub kubeconfig: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub action: Option<TokenAction>,
}

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenAction {
    /// Create bootstrap tokens on the server.
    Create {
        /// The token; a random one when absent.
        token: Option<String>,
        /// When used together with '--print-join-command', print the full 'kubeadm join' flag needed to join the
        /// cluster as a control-plane.
        #[arg(long, default_value = "", value_name = "KEY")]
        certificate_key: String,
        /// Path to a kubeadm configuration file.
        #[arg(long, value_name = "PATH")]
        config: Option<PathBuf>,
        /// A human friendly description of how this token is used.
        #[arg(long, default_value = "", value_name = "TEXT")]
        description: String,
        /// Extra groups that this token will authenticate as when used for authentication.
        #[arg(
            long,
            value_delimiter = ',',
            default_value = "system:bootstrappers:kubeadm:default-node-token",
            value_name = "GROUP"
        )]
        groups: Vec<String>,
        /// Instead of printing only the token, print the full 'kubeadm join' flag needed to join the cluster.
        #[arg(long)]
        print_join_command: bool,
        /// The duration before the token is automatically deleted. '0' never expires.
        #[arg(long, default_value = "24h0m0s", value_parser = period, value_name = "DURATION")]
        ttl: Period,
        /// Describes the ways in which this token can be used.
        #[arg(long, value_delimiter = ',', default_value = "signing,authentication", value_name = "USAGE")]
        usages: Vec<String>,
    },
    /// List bootstrap tokens on the server.
    List {
        /// Output format. One of: text|json|yaml.
        #[arg(short = 'o', long = "output", default_value = "text", value_name = "FORMAT")]
        output: String,
    },
    /// Delete bootstrap tokens on the server.
    Delete {
        /// Ids or full tokens.
        #[arg(required = true, num_args = 1.., value_name = "TOKEN")]
        tokens: Vec<String>,
    },
    /// Generate and print a bootstrap token, but do not create it on the server.
    Generate,
}

/// `kubeadm config`.
#[derive(Debug, Args)]
pub struct ConfigCommand {
    /// The kubeconfig file to use when talking to the cluster.
    #[arg(long, global = true, value_name = "PATH")]
    pub kubeconfig: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub action: Option<ConfigAction>,
}

/// What to do with configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigAction {
    /// Print configuration.
    Print {
        /// Which one.
        #[command(subcommand)]
        what: Option<PrintAction>,
    },
    /// Read an older version of the kubeadm configuration API types from a file, and output the similar config object
    /// for the newer version.
    Migrate {
        /// Path to the kubeadm config file that is using an old API version and should be converted.
        #[arg(long, default_value = "", value_name = "PATH")]
        old_config: String,
        /// Path to the resulting equivalent kubeadm config file using the new API version.
        #[arg(long, default_value = "", value_name = "PATH")]
        new_config: String,
        /// Allow migration to experimental, unreleased APIs.
        #[arg(long)]
        allow_experimental_api: bool,
    },
    /// Read a file containing the kubeadm configuration API and report any validation errors.
    Validate {
        /// Path to a kubeadm configuration file.
        #[arg(long, default_value = "", value_name = "PATH")]
        config: String,
        /// Allow validation of deprecated APIs.
        #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
        allow_deprecated_api: bool,
        /// Allow validation of experimental, unreleased APIs.
        #[arg(long)]
        allow_experimental_api: bool,
    },
    /// Interact with container images used by kubeadm.
    Images {
        /// What to do.
        #[command(subcommand)]
        action: Option<ImagesAction>,
    },
}

/// Which defaults to print.
#[derive(Debug, Subcommand)]
pub enum PrintAction {
    /// Print default init configuration, that can be used for 'kubeadm init'.
    InitDefaults(ComponentFlags),
    /// Print default join configuration, that can be used for 'kubeadm join'.
    JoinDefaults,
    /// Print default reset configuration, that can be used for 'kubeadm reset'.
    ResetDefaults,
    /// Print default upgrade configuration, that can be used for 'kubeadm upgrade'.
    UpgradeDefaults,
}

/// Components whose defaults are printed too.
#[derive(Debug, Args)]
pub struct ComponentFlags {
    /// A comma-separated list for component config API objects to print the default values for.
    #[arg(long, value_delimiter = ',', value_name = "KIND")]
    pub component_configs: Vec<String>,
}

/// What to do with images.
#[derive(Debug, Subcommand)]
pub enum ImagesAction {
    /// Print a list of images kubeadm will use.
    List {
        /// Which cluster.
        #[command(flatten)]
        of: ImagesFlags,
        /// Output format. One of: text|json|yaml.
        #[arg(short = 'o', long = "output", default_value = "text", value_name = "FORMAT")]
        output: String,
    },
    /// Pull images used by kubeadm.
    Pull {
        /// Which cluster.
        #[command(flatten)]
        of: ImagesFlags,
        /// Path to the CRI socket to connect.
        #[arg(long, default_value = "", value_name = "PATH")]
        cri_socket: String,
        /// Directory of the programs that images are made from; by default that of kubeadm.
        #[arg(long, value_name = "PATH")]
        bin_dir: Option<PathBuf>,
    },
}

/// What images depend on.
#[derive(Debug, Args)]
pub struct ImagesFlags {
    /// Path to a kubeadm configuration file.
    #[arg(long, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// A set of key=value pairs that describe feature gates for various features.
    #[arg(long, value_delimiter = ',', value_name = "NAME=BOOL")]
    pub feature_gates: Vec<String>,
    /// Choose a container registry to pull control plane images from.
    #[arg(long, default_value = "registry.k8s.io", value_name = "REPOSITORY")]
    pub image_repository: String,
    /// Choose a specific Kubernetes version for the control plane.
    #[arg(long, default_value = "stable-1", value_name = "VERSION")]
    pub kubernetes_version: String,
}

/// `kubeadm kubeconfig`.
#[derive(Debug, Args)]
pub struct KubeconfigCommand {
    /// What to do.
    #[command(subcommand)]
    pub action: Option<KubeconfigAction>,
}

/// What to do with kubeconfig files.
#[derive(Debug, Subcommand)]
pub enum KubeconfigAction {
    /// Output a kubeconfig file for an additional user.
    User {
        /// The name of user.
        #[arg(long, required = true, value_name = "NAME")]
        client_name: String,
        /// Path to a kubeadm configuration file.
        #[arg(long, value_name = "PATH")]
        config: Option<PathBuf>,
        /// The organizations of the client certificate.
        #[arg(long, value_delimiter = ',', value_name = "GROUP")]
        org: Vec<String>,
        /// The token that should be used as the authentication mechanism for this kubeconfig.
        #[arg(long, default_value = "", value_name = "TOKEN")]
        token: String,
        /// The validity period of the client certificate.
        #[arg(long, default_value = "8760h0m0s", value_parser = period, value_name = "DURATION")]
        validity_period: Period,
    },
}

/// `kubeadm version`.
#[derive(Debug, Args)]
pub struct VersionCommand {
    /// Output format; available options are 'yaml', 'json' and 'short'.
    #[arg(short = 'o', long = "output", default_value = "", value_name = "FORMAT", action = ArgAction::Set)]
    pub output: String,
}
