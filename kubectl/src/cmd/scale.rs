//! `kubectl scale`.

use serde_json::json;

use crate::{
    cluster::Call,
    command::Command,
    context::Context,
    error::CommandError,
    flags::Flag,
    print::{self, DryRun, Results},
    resolve::{self, Query},
};

/// The command.
pub(crate) fn command() -> Command {
    Command::new("scale", "Set a new size for a deployment, replica set, or replication controller")
        .usage("[--resource-version=version] [--current-replicas=count] --replicas=COUNT (-f FILENAME | TYPE NAME)")
        .examples(&["kubectl scale --replicas=3 rs/foo", "kubectl scale deployment web --replicas=5"])
        .flags(resolve::file_flags("File, directory or URL with the resource to scale."))
        .flags(print::flags())
        .flags([
            DryRun::flag(),
            resolve::selector_flag(),
            Flag::switch("all", "All objects of the types in the namespace."),
            Flag::int("replicas", "0", "The new size. Required.").required(),
        ])
        .runs(|context| Box::pin(run(context)))
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let replicas = context.flags.int("replicas");
    if replicas < 0 {
        return Err(CommandError::plain(
            "The --replicas=COUNT flag is required, and COUNT must be greater than or equal to 0",
        ));
    }
    let dry_run = DryRun::of(context)?;
    let mut results = Results::of(context, dry_run)?;
    let mut out = context.streams.out.clone();
    let found = Query::of(context).infos(context).await?;
    let mut errors = found.errors;
    if found.infos.is_empty() && errors.is_empty() {
        return Err(CommandError::plain("no objects passed to scale"));
    }
    let cluster = context.cluster().await?;
    for info in found.infos {
        if dry_run != DryRun::Client {
            let patch = json!({"spec": {"replicas": replicas}});
            let call = Call::patch(&format!("{}/scale", info.path()), "application/merge-patch+json", &patch)
                .query_if("dryRun", dry_run.query());
            if let Err(error) = cluster.json(&call).await {
                errors.push(error);
                continue;
            }
        }
        results.print(&info.object, "scaled", &mut out)?;
    }
    CommandError::all(errors)
}
