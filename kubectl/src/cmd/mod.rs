//! The commands, a file each.

mod annotate;
mod api_resources;
mod api_versions;
mod apply;
mod attach;
mod create;
mod delete;
mod describe;
mod drain;
mod edit;
mod exec;
pub(crate) mod get;
pub(crate) mod help;
mod label;
mod logs;
mod options;
mod patch;
mod rollout;
mod scale;
mod set;
mod taint;
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

/// All commands as the overview shows them.
pub fn groups() -> Vec<Group> {
    let group = |title, commands| Group { title, commands };
    vec![
        group(
            "Basic Commands (Beginner)",
            vec![
                set::command(),
                create::command(), //
            ],
        ),
        group("Basic Commands (Intermediate)", vec![get::command(), edit::command(), delete::command()]),
        group(
            "Deploy Commands",
            vec![
                rollout::command(),
                scale::command(), //
            ],
        ),
        group(
            "Cluster Management Commands",
            vec![drain::command(), drain::uncordon(), drain::cordon(), taint::command()],
        ),
        group(
            "Troubleshooting and Debugging Commands",
            vec![exec::command(), attach::command(), describe::command(), logs::command()],
        ),
        group("Advanced Commands", vec![wait::command(), apply::command(), patch::command()]),
        group("Settings Commands", vec![label::command(), annotate::command()]),
        group(
            "Other Commands",
            vec![
                api_resources::command(),
                api_versions::command(),
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
