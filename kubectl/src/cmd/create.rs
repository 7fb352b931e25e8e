//! `kubectl create`.

use crate::{
    cluster::Call,
    command::Command,
    context::Context,
    error::CommandError,
    print::{self, DryRun, Results},
    resolve::{self, Query},
};

/// The command.
pub(crate) fn command() -> Command {
    Command::new("create", "Create a resource from a file or from stdin")
        .usage("-f FILENAME")
        .examples(&["kubectl create -f ./pod.json", "cat pod.json | kubectl create -f -"])
        .flags(resolve::file_flags("File, directory or URL with the resources to create."))
        .flags(print::write_flags("kubectl-create"))
        .flags([resolve::selector_flag(), print::validate_flag()])
        .runs(|context| Box::pin(run(context)))
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let query = Query::of(context).arguments(&[]);
    query.sources.require().map_err(|e| context.usage(e.to_string()))?;
    if !context.args.is_empty() {
        return Err(context.usage(format!("Unexpected args: [{}]", context.args.join(" "))));
    }
    let dry_run = DryRun::of(context)?;
    let validation = print::field_validation(&context.flags)?;
    let mut results = Results::of(context, dry_run)?;
    let mut out = context.streams.out.clone();
    let found = query.infos(context).await?;
    let mut errors = found.errors;
    if found.infos.is_empty() && errors.is_empty() {
        return Err(CommandError::plain("no objects passed to create"));
    }
    let cluster = context.cluster().await?;
    for info in found.infos {
        if dry_run == DryRun::Client {
            results.print(&info.object, "created", &mut out)?;
            continue;
        }
        let call = Call::post(&info.collection(), &info.object)
            .query_if("dryRun", dry_run.query())
            .query("fieldManager", context.flags.text("field-manager"))
            .query("fieldValidation", validation);
        match cluster.json(&call).await {
            Ok(created) => results.print(&created, "created", &mut out)?,
            Err(error) => errors.push(error.during(format!("error when creating {:?}", info.source))),
        }
    }
    CommandError::all(errors)
}
