//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// kubectl controls the Kubernetes cluster manager.
#[derive(Debug, Parser)]
#[command(name = "kubectl", disable_version_flag = true)]
pub struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Clone, Debug, Default, Args)]
pub struct Global {
    /// Path of the kubeconfig file.
    #[arg(long, global = true)]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig to use.
    #[arg(long, global = true)]
    pub context: Option<String>,
    /// Cluster of the kubeconfig to use.
    #[arg(long, global = true)]
    pub cluster: Option<String>,
    /// User of the kubeconfig to use.
    #[arg(long, global = true)]
    pub user: Option<String>,
    /// Address of the server.
    #[arg(short, long, global = true)]
    pub server: Option<String>,
    /// Bearer token.
    #[arg(long, global = true)]
    pub token: Option<String>,
    /// User to impersonate.
    #[arg(long, global = true)]
    pub r#as: Option<String>,
    /// Namespace of this request.
    #[arg(short, long, global = true)]
    pub namespace: Option<String>,
}

/// A command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Display one or many resources.
    Get(Get),
    /// Create resources from files or standard input.
    Create(Files),
    /// Apply a configuration by server-side apply.
    Apply(Apply),
    /// Delete resources by file, name or selector.
    Delete(Delete),
    /// Update fields of a resource.
    Patch(Patch),
    /// Set a new size of a workload.
    Scale(Scale),
    /// Update the labels on a resource.
    Label(Metadata),
    /// Update the annotations on a resource.
    Annotate(Metadata),
    /// Print the supported API resources.
    #[command(name = "api-resources")]
    ApiResources(ApiResources),
    /// Print the supported API versions.
    #[command(name = "api-versions")]
    ApiVersions,
    /// Print the client and server version.
    Version(Version),
    /// Print the logs of a container in a Pod.
    Logs(Logs),
}

/// Which objects a command is about.
#[derive(Clone, Debug, Default, Args)]
pub struct Selection {
    /// Selector (label query).
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// Selector (field query).
    #[arg(long)]
    pub field_selector: Option<String>,
    /// All namespaces.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
}

/// Flags of `get`.
#[derive(Debug, Args)]
pub struct Get {
    /// Types and names: `TYPE[,TYPE] [NAME...]` or `TYPE/NAME...`.
    pub arguments: Vec<String>,
    /// Which objects.
    #[command(flatten)]
    pub selection: Selection,
    /// Output format: json, yaml, name, wide, jsonpath=, jsonpath-file= or custom-columns=.
    #[arg(short, long)]
    pub output: Option<String>,
    /// Leave the headers out.
    #[arg(long)]
    pub no_headers: bool,
    /// Do not fail if a named object does not exist.
    #[arg(long)]
    pub ignore_not_found: bool,
    /// Show all labels as the last column.
    #[arg(long)]
    pub show_labels: bool,
    /// Raw URI to get from the server.
    #[arg(long)]
    pub raw: Option<String>,
}

/// Manifests.
#[derive(Clone, Debug, Default, Args)]
pub struct Files {
    /// Files or directories; `-` for standard input.
    #[arg(short = 'f', long = "filename", required = true)]
    pub filename: Vec<PathBuf>,
    /// Must be none or server.
    #[arg(long, default_value = "none", value_parser = ["none", "server"])]
    pub dry_run: String,
    /// What happens to unknown fields: strict, warn or ignore.
    #[arg(long, default_value = "strict", value_parser = ["strict", "warn", "ignore"])]
    pub validate: String,
}

/// Flags of `apply`.
#[derive(Debug, Args)]
pub struct Apply {
    /// What to apply.
    #[command(flatten)]
    pub files: Files,
    /// Take over fields of other managers.
    #[arg(long)]
    pub force_conflicts: bool,
    /// Name of the manager that owns the fields.
    #[arg(long, default_value = "kubectl")]
    pub field_manager: String,
    /// Apply on the server. Required: there is no client-side apply yet.
    #[arg(long)]
    pub server_side: bool,
}

/// Flags of `delete`.
#[derive(Debug, Args)]
pub struct Delete {
    /// Types and names.
    pub arguments: Vec<String>,
    /// Files or directories; `-` for standard input.
    #[arg(short = 'f', long = "filename")]
    pub filename: Vec<PathBuf>,
    /// Selector (label query).
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// All objects of the type in the namespace.
    #[arg(long)]
    pub all: bool,
    /// Seconds to end gracefully.
    #[arg(long)]
    pub grace_period: Option<i64>,
    /// background, foreground or orphan.
    #[arg(long, default_value = "background", value_parser = ["background", "foreground", "orphan"])]
    pub cascade: String,
    /// Do not fail if an object does not exist.
    #[arg(long)]
    pub ignore_not_found: bool,
    /// Wait until the objects are gone.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub wait: bool,
}

/// Flags of `patch`.
#[derive(Debug, Args)]
pub struct Patch {
    /// Type and name.
    pub arguments: Vec<String>,
    /// The patch, JSON or YAML.
    #[arg(short, long)]
    pub patch: String,
    /// strategic, merge or json.
    #[arg(long, default_value = "strategic", value_parser = ["strategic", "merge", "json"])]
    pub r#type: String,
}

/// Flags of `scale`.
#[derive(Debug, Args)]
pub struct Scale {
    /// Type and name.
    pub arguments: Vec<String>,
    /// The new size.
    #[arg(long)]
    pub replicas: u32,
}

/// Flags of `label` and `annotate`.
#[derive(Debug, Args)]
pub struct Metadata {
    /// Type, names, then `key=value` or `key-`.
    pub arguments: Vec<String>,
    /// Replace present values.
    #[arg(long)]
    pub overwrite: bool,
}

/// Flags of `api-resources`.
#[derive(Debug, Args)]
pub struct ApiResources {
    /// Only resources of this group.
    #[arg(long)]
    pub api_group: Option<String>,
    /// Leave the headers out.
    #[arg(long)]
    pub no_headers: bool,
}

/// Flags of `version`.
#[derive(Debug, Args)]
pub struct Version {
    /// Only the client's version.
    #[arg(long)]
    pub client: bool,
}

/// Flags of `logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// The Pod, `NAME` or `pod/NAME`.
    pub pod: String,
    /// Container.
    #[arg(short, long)]
    pub container: Option<String>,
    /// Lines of recent log.
    #[arg(long)]
    pub tail: Option<i64>,
    /// The logs of the instance before.
    #[arg(short, long)]
    pub previous: bool,
}
