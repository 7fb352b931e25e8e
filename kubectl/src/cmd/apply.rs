//! `kubectl apply`.

use machinery::meta;

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
    Command::new("apply", "Apply a configuration to a resource by file name or stdin")
        .usage("(-f FILENAME | -k DIRECTORY)")
        .examples(&["kubectl apply -f ./pod.json", "cat pod.json | kubectl apply -f -"])
        .flags(resolve::file_flags("File, directory or URL with the configuration."))
        .flags(print::write_flags("kubectl-client-side-apply"))
        .flags([
            resolve::selector_flag(),
            print::validate_flag(),
            Flag::switch("server-side", "Apply on the server."),
            Flag::switch("force-conflicts", "Take fields over from other managers (with --server-side)."),
        ])
        .runs(|context| Box::pin(run(context)))
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let query = Query::of(context).arguments(&[]);
    query.sources.require().map_err(|e| context.usage(e.to_string()))?;
    if !context.flags.bool("server-side") {
        return Err(CommandError::plain("client-side apply is not built in; give --server-side"));
    }
    let dry_run = DryRun::of(context)?;
    let validation = print::field_validation(&context.flags)?;
    let manager = if context.flags.given("field-manager") { context.flags.text("field-manager") } else { "kubectl" };
    let mut results = Results::of(context, dry_run)?;
    let mut out = context.streams.out.clone();
    let found = query.infos(context).await?;
    let mut errors = found.errors;
    if found.infos.is_empty() && errors.is_empty() {
        return Err(CommandError::plain("no objects passed to apply"));
    }
    let cluster = context.cluster().await?;
    for info in found.infos {
        if info.name.is_empty() {
            let prefix = meta::text(&info.object, "generateName");
            errors.push(CommandError::plain(format!("from {prefix}: cannot use generate name with apply")));
            continue;
        }
        let call = Call::patch(&info.path(), "application/apply-patch+yaml", &info.object)
            .query_if("dryRun", dry_run.query())
            .query("fieldManager", manager)
            .query("fieldValidation", validation)
            .query("force", context.flags.bool("force-conflicts").to_string());
        match cluster.json(&call).await {
            Ok(applied) => results.print(&applied, "serverside-applied", &mut out)?,
            Err(error) => errors.push(error),
        }
    }
    CommandError::all(errors)
}
