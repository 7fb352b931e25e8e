//! The commands, a file each.

mod annotate;
mod api_resources;
mod api_versions;
mod apply;
mod attach;
mod auth;
mod autoscale;
mod certificate;
mod cluster_info;
pub(crate) mod completion;
mod config;
mod cp;
mod create;
mod debug;
mod delete;
mod describe;
mod diff;
mod drain;
mod edit;
mod events;
mod exec;
mod explain;
mod expose;
pub(crate) mod get;
pub(crate) mod help;
mod kuberc;
mod kustomize;
mod label;
mod logs;
mod options;
mod patch;
pub(crate) mod plugin;
mod port_forward;
mod proxy;
mod replace;
mod rollout;
mod run;
mod scale;
mod set;
mod taint;
mod top;
mod version;
mod wait;

use crate::command::Command;

/// Commands under a heading of the overview.
pub struct Group {
    /// Heading.
    pub title: &'static str,
    /// Commands in the order in which they are shown.
    pub commands: Vec<Command>,
}

/// The order of commands in their groups.
const ORDER: [&str; 46] = [
    "create",
    "expose",
    "run",
    "set",
    "explain",
    "get",
    "edit",
    "delete",
    "rollout",
    "scale",
    "autoscale",
    "certificate",
    "cluster-info",
    "top",
    "cordon",
    "uncordon",
    "drain",
    "taint",
    "describe",
    "logs",
    "attach",
    "exec",
    "port-forward",
    "proxy",
    "cp",
    "auth",
    "debug",
    "events",
    "diff",
    "apply",
    "patch",
    "replace",
    "wait",
    "kustomize",
    "label",
    "annotate",
    "completion",
    "api-resources",
    "api-versions",
    "config",
    "kuberc",
    "plugin",
    "version",
    "alpha",
    "help",
    "options",
];

/// All commands as the overview shows them.
pub fn groups() -> Vec<Group> {
    let mut groups = unordered();
    for group in &mut groups {
        group.commands.sort_by_key(|c| ORDER.iter().position(|name| *name == c.name));
    }
    groups
}

fn unordered() -> Vec<Group> {
    let group = |title, commands| Group { title, commands };
    vec![
        group(
            "Basic Commands (Beginner)",
            vec![
                run::command(),
                expose::command(),
                set::command(),
                create::command(), //
            ],
        ),
        group(
            "Basic Commands (Intermediate)",
            vec![explain::command(), get::command(), edit::command(), delete::command()],
        ),
        group(
            "Deploy Commands",
            vec![
                autoscale::command(),
                rollout::command(),
                scale::command(), //
            ],
        ),
        group(
            "Cluster Management Commands",
            vec![
                top::command(),
                certificate::command(),
                cluster_info::command(),
                drain::command(),
                drain::uncordon(),
                drain::cordon(),
                taint::command(),
            ],
        ),
        group(
            "Troubleshooting and Debugging Commands",
            vec![
                debug::command(),
                port_forward::command(),
                proxy::command(),
                cp::command(),
                attach::command(),
                exec::command(),
                auth::command(),
                events::command(),
                describe::command(),
                logs::command(),
            ],
        ),
        group(
            "Advanced Commands",
            vec![
                wait::command(),
                apply::command(),
                patch::command(),
                replace::command(),
                diff::command(),
                kustomize::command(),
            ],
        ),
        group("Settings Commands", vec![label::command(), annotate::command(), completion::command()]),
        group(
            "Other Commands",
            vec![
                api_resources::command(),
                api_versions::command(),
                config::command(),
                kuberc::command(),
                plugin::command(),
                help::command(),
                options::command(),
                version::command(),
            ],
        ),
    ]
}

/// All commands.
pub fn commands() -> Vec<Command> {
    groups().into_iter().flat_map(|g| g.commands).collect()
}
