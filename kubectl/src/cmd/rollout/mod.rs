//! `kubectl rollout`.

mod change;
mod history;
mod revisions;
mod status;
mod undo;

use std::io::Write;

use crate::{
    command::Command,
    context::Context,
    error::CommandError,
    flags::Flag,
    resolve::{self, Info, Query},
};

/// The group.
pub(crate) fn command() -> Command {
    let mut group = Command::new("rollout", "Manage the rollout of a resource")
        .long("Manage the rollout of one or many resources: deployments, daemonsets and statefulsets.")
        .examples(&["kubectl rollout undo deployment/abc", "kubectl rollout status daemonset/foo"])
        .commands(vec![
            history::command(),
            change::pause(),
            change::restart(),
            change::resume(),
            status::command(),
            undo::command(),
        ]);
    group.bare_to_out = true;
    group
}

/// Flags of all of them.
fn flags(usage: &'static str) -> Vec<Flag> {
    let mut flags = resolve::file_flags(usage);
    flags.push(resolve::selector_flag());
    flags
}

/// What the command is about. That there is nothing is told, and is no failure.
async fn objects(context: &Context) -> Result<(Vec<Info>, Vec<CommandError>), CommandError> {
    let query = Query::of(context).all().latest();
    if context.args.is_empty() && query.sources.is_empty() {
        return Err(CommandError::plain("required resource not specified"));
    }
    let found = query.infos(context).await?;
    if found.infos.is_empty() && found.errors.is_empty() {
        let cluster = context.cluster().await?;
        writeln!(context.streams.err.clone(), "No resources found in {} namespace.", cluster.namespace)?;
    }
    Ok((found.infos, found.errors))
}

/// Kind with its group as failures name it: `ReplicaSet.apps`.
fn group_kind(info: &Info) -> String {
    match info.resource.group.as_str() {
        "" => info.resource.kind.clone(),
        group => format!("{}.{group}", info.resource.kind),
    }
}

/// No visitor knows the kind.
fn unknown(info: &Info, what: &str) -> CommandError {
    let (group, kind) = (&info.resource.group, &info.resource.kind);
    CommandError::plain(format!(
        "error retrieving {what} for {:?}, no visitor method exists for {{{group} {kind}}}",
        group_kind(info)
    ))
}
