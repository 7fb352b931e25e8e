//! `kubectl replace`.

use std::{io::Write, time::Duration};

use machinery::meta;
use serde_json::json;

use super::delete;
use crate::{
    cluster::{Call, Cluster},
    command::Command,
    context::Context,
    error::CommandError,
    flags::Flag,
    last_applied,
    print::{self, DryRun, Results},
    resolve::{self, Info, Query, files},
};

/// Time to wait for the end of what `--force` deletes.
const DELETION: Duration = Duration::from_secs(5 * 60);

/// The command.
pub(crate) fn command() -> Command {
    Command::new("replace", "Replace a resource by file name or stdin")
        .usage("-f FILENAME")
        .examples(&[
            "kubectl replace -f ./pod.json",
            "cat pod.json | kubectl replace -f -",
            "kubectl replace --force -f ./pod.json",
        ])
        .flags(resolve::file_flags("File, directory or URL with the resources to replace."))
        .flags(print::write_flags("kubectl-replace"))
        .flags(delete::flags())
        .flags([
            print::validate_flag(),
            Flag::text("raw", "", "PUT the file to this path of the server."),
            Flag::switch("save-config", "Keep the configuration in an annotation, for apply."),
            Flag::switch("wait", "Wait until what --force deletes is gone, which it always does."),
            Flag::text("subresource", "", "Replace this subresource: status, scale or resize."),
        ])
        .runs(|context| Box::pin(run(context)))
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let flags = &context.flags;
    let query = Query::of(context).arguments(&[]);
    let force = flags.bool("force");
    if flags.int("grace-period") >= 0 && !force {
        return Err(CommandError::plain("--grace-period must have --force specified"));
    }
    if !flags.duration("timeout").is_zero() && !force {
        return Err(CommandError::plain("--timeout must have --force specified"));
    }
    query.sources.require()?;
    if let Some(path) = flags.non_empty("raw") {
        let [file] = query.sources.filenames.as_slice() else {
            return Err(CommandError::plain("--raw can only use a single local file or stdin"));
        };
        return files::send_raw(context, http::Method::PUT, path, file).await;
    }
    let dry_run = DryRun::of(context)?;
    if force && dry_run != DryRun::None {
        return Err(CommandError::plain("--dry-run can not be used when --force is set"));
    }
    let validation = print::field_validation(flags)?;
    let mut results = Results::of(context, dry_run)?;
    let mut out = context.streams.out.clone();
    let found = query.infos(context).await?;
    let mut errors = found.errors;
    if found.infos.is_empty() && errors.is_empty() {
        return Err(CommandError::plain("no objects passed to replace"));
    }
    let cluster = context.cluster().await?;
    if force {
        remove(context, &cluster, &found.infos).await?;
    }
    for mut info in found.infos {
        if flags.bool("save-config") {
            last_applied::write(&mut info.object);
        }
        if dry_run == DryRun::Client {
            results.print(&info.object, "replaced", &mut out)?;
            continue;
        }
        let outcome = match force {
            true => {
                let call = Call::post(&info.collection(), &info.object);
                cluster.json(&written(context, call, dry_run, validation)).await
            }
            false => replace(context, &cluster, &mut info, dry_run, validation).await,
        };
        match outcome {
            Ok(object) => results.print(&object, "replaced", &mut out)?,
            Err(error) => errors.push(error.during(format!("error when replacing {:?}", info.source))),
        }
    }
    CommandError::all(errors)
}

fn written(context: &Context, call: Call, dry_run: DryRun, validation: &str) -> Call {
    call.query_if("dryRun", dry_run.query())
        .query("fieldManager", context.flags.text("field-manager"))
        .query("fieldValidation", validation)
}

/// PUTs an object; it gets the live version if it has none.
async fn replace(
    context: &Context,
    cluster: &Cluster,
    info: &mut Info,
    dry_run: DryRun,
    validation: &str,
) -> Result<serde_json::Value, CommandError> {
    let path = match context.flags.text("subresource") {
        "" => info.path(),
        below => format!("{}/{below}", info.path()),
    };
    if meta::resource_version(&info.object).is_empty() {
        let live = cluster.get(&path).await?;
        meta::set_text(&mut info.object, "resourceVersion", meta::resource_version(&live));
    }
    cluster.json(&written(context, Call::put(&path, &info.object), dry_run, validation)).await
}

/// Deletes what there is of the objects and waits until it is gone.
async fn remove(context: &Context, cluster: &Cluster, infos: &[Info]) -> Result<(), CommandError> {
    let mut options = delete::options(context)?;
    // Zero would skip the graceful end.
    if options["gracePeriodSeconds"] == json!(0) {
        options["gracePeriodSeconds"] = json!(1);
    }
    let timeout = context.flags.duration("timeout");
    let limit = if timeout.is_zero() { DELETION } else { timeout };
    let mut going = Vec::new();
    for info in infos {
        let mut live = info.clone();
        match live.fetch(cluster).await {
            Err(error) if error.is_not_found() => continue,
            answer => answer?,
        }
        match cluster.json(&Call::delete(&info.path(), &options)).await {
            Err(error) if error.is_not_found() => continue,
            answer => answer?,
        };
        writeln!(context.streams.out.clone(), "{}", delete::deleted(&live, false))?;
        going.push(live);
    }
    for live in &going {
        delete::until_gone(cluster, live, limit).await?;
    }
    Ok(())
}
