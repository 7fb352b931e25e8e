//! `kubectl delete`.

use std::{io::Write, time::Duration};

use machinery::meta;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    cluster::{Call, Cluster},
    command::Command,
    context::Context,
    error::CommandError,
    flags::Flag,
    print::DryRun,
    resolve::{self, Info, Query, files},
};

/// Time to wait when no other was given.
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
/// Time after which a lost watch is begun again.
const PAUSE: Duration = Duration::from_millis(500);

/// The command.
pub(crate) fn command() -> Command {
    Command::new(
        "delete",
        "Delete resources by file names, stdin, resources and names, or by resources and label selector",
    )
    .usage("([-f FILENAME] | [-k DIRECTORY] | TYPE [(NAME | -l label | --all)])")
    .examples(&[
        "kubectl delete -f ./pod.json",
        "kubectl delete pods,services -l name=web",
        "kubectl delete pod foo --now",
        "kubectl delete pod foo --force",
        "kubectl delete pods --all",
    ])
    .flags(resolve::file_flags("File, directory or URL with the resources to delete."))
    .flags(flags())
    .flags([
        resolve::selector_flag(),
        resolve::field_selector_flag(),
        resolve::all_namespaces_flag(),
        DryRun::flag(),
        Flag::switch("all", "All objects of the types in the namespace."),
        Flag::switch("ignore-not-found", "Objects need not exist."),
        Flag::switch("interactive", "Ask before anything is deleted.").short('i'),
        Flag::switch("now", "Shut down at once, the same as --grace-period=1."),
        Flag::text("output", "", "Output format: name.").short('o'),
        Flag::text("raw", "", "DELETE this path of the server."),
        Flag::on("wait", "Wait until the objects are gone."),
    ])
    .runs(|context| Box::pin(run(context)))
}

/// Flags of everything that deletes.
pub(super) fn flags() -> Vec<Flag> {
    vec![
        Flag::text("cascade", "background", "What happens to dependents: background, orphan or foreground.")
            .bare("background"),
        Flag::switch("force", "Delete without waiting for a graceful end. What ran may go on running."),
        Flag::int("grace-period", "-1", "Seconds to end gracefully; negative for the object's own; 0 needs --force."),
        Flag::duration("timeout", "0s", "Time to wait for the end of a deletion; 0 chooses by the object."),
    ]
}

/// The options of a deletion that the flags ask for.
pub(super) fn options(context: &Context) -> Result<Value, CommandError> {
    let flags = &context.flags;
    let value = flags.text("cascade");
    let deprecated = |replacement: &str| {
        writeln!(
            context.streams.err.clone(),
            "warning: --cascade={value} is deprecated (boolean value) and can be replaced with --cascade={replacement}."
        )
    };
    let policy = match value {
        "background" => "Background",
        "foreground" => "Foreground",
        "orphan" => "Orphan",
        "true" => {
            deprecated("background")?;
            "Background"
        }
        "false" => {
            deprecated("orphan")?;
            "Orphan"
        }
        other => {
            return Err(CommandError::plain(format!(
                "invalid cascade value ({other}). Must be \"background\", \"foreground\", or \"orphan\""
            )));
        }
    };
    let mut options = json!({"propagationPolicy": policy});
    let grace = flags.int("grace-period");
    if grace >= 0 {
        options["gracePeriodSeconds"] = json!(grace);
    }
    Ok(options)
}

/// The grace period after `--now` and `--force`; negative for none.
fn grace(context: &Context) -> Result<i64, CommandError> {
    let flags = &context.flags;
    let (mut grace, force) = (flags.int("grace-period"), flags.bool("force"));
    if flags.bool("now") {
        if grace != -1 {
            return Err(CommandError::plain("--now and --grace-period cannot be specified together"));
        }
        grace = 1;
    }
    if grace == 0 && !force {
        // Without --force, nothing is removed before it ended.
        grace = 1;
    }
    if force {
        if grace < 0 {
            grace = 0;
        }
        if grace > 0 {
            return Err(CommandError::plain("--force and --grace-period greater than 0 cannot be specified together"));
        }
    }
    Ok(grace)
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let flags = &context.flags;
    if let Some(path) = flags.non_empty("raw") {
        return raw(context, path).await;
    }
    let query = Query::of(context).unread();
    if query.all && !(query.selector.is_empty() && query.field_selector.is_empty()) {
        return Err(CommandError::plain("setting 'all' parameter but found a non empty selector. "));
    }
    let output = flags.text("output");
    if !matches!(output, "" | "name") {
        return Err(CommandError::plain(format!("unexpected -o output mode: {output}. We only support '-o name'")));
    }
    let dry_run = DryRun::of(context)?;
    let grace = grace(context)?;
    let mut options = options(context)?;
    if grace >= 0 {
        options["gracePeriodSeconds"] = json!(grace);
    }
    let options = dry_run.in_options(options);
    let mut err = context.streams.err.clone();
    if flags.bool("force") && grace == 0 {
        writeln!(
            err,
            "Warning: Immediate deletion does not wait for confirmation that the running resource has been terminated. \
             The resource may continue to run on the cluster indefinitely."
        )?;
    }
    let selecting = query.all || !query.selector.is_empty() || !query.field_selector.is_empty();
    let ignore = flags.bool("ignore-not-found") || selecting;
    let found = query.infos(context).await?;
    let mut errors = found.errors;
    if ignore {
        errors.retain(|e| !e.is_not_found());
    }
    let mut infos = found.infos;
    if infos.iter().any(|i| !i.resource.namespaced) && context.selected()?.enforced {
        writeln!(err, "Warning: deleting cluster-scoped resources, not scoped to the provided namespace")?;
    }
    if flags.bool("interactive") && !confirmed(context, &infos)? {
        return Ok(());
    }
    let any = !infos.is_empty();
    let mut going = Vec::new();
    for mut info in infos.drain(..) {
        match delete(context, &mut info, &options, dry_run).await {
            Ok(()) => {
                report(context, &info, grace == 0, dry_run)?;
                going.push(info);
            }
            Err(error) if error.is_not_found() && ignore => {}
            Err(error) if info.source.is_empty() => errors.push(error),
            Err(error) => errors.push(error.during(format!("error when deleting {:?}", info.source))),
        }
    }
    if !any && errors.is_empty() {
        writeln!(context.streams.out.clone(), "No resources found")?;
        return Ok(());
    }
    CommandError::all(errors)?;
    if flags.bool("wait") && dry_run == DryRun::None && !going.is_empty() {
        context.streams.out.clone().flush()?;
        wait(context, &going).await?;
    }
    Ok(())
}

async fn raw(context: &Context, path: &str) -> Result<(), CommandError> {
    let names = context.flags.list("filename");
    if names.len() > 1 {
        return Err(CommandError::plain("--raw can only use a single local file or stdin"));
    }
    match names.first() {
        Some(file) => files::send_raw(context, http::Method::DELETE, path, file).await,
        None => {
            let body = context.cluster().await?.bytes(&Call::new(http::Method::DELETE, path)).await?;
            context.streams.out.clone().write_all(&body)?;
            Ok(())
        }
    }
}

fn confirmed(context: &Context, infos: &[Info]) -> Result<bool, CommandError> {
    let mut out = context.streams.out.clone();
    writeln!(out, "You are about to delete the following {} resource(s):", infos.len())?;
    for info in infos {
        writeln!(out, "{}/{}", info.resource.kind_title(), info.name)?;
    }
    write!(out, "Do you want to continue? (y/N): ")?;
    out.flush()?;
    let answer = context.streams.stdin.line()?.unwrap_or_default();
    if matches!(answer.trim(), "y" | "Y") {
        return Ok(true);
    }
    writeln!(out, "deletion is cancelled")?;
    Ok(false)
}

/// Sends the deletion; `info.object` remembers the object's UID for the wait.
async fn delete(context: &Context, info: &mut Info, options: &Value, dry_run: DryRun) -> Result<(), CommandError> {
    if dry_run == DryRun::Client {
        return Ok(());
    }
    let answer = context.cluster().await?.json(&Call::delete(&info.path(), options)).await?;
    let uid = match answer["kind"] == "Status" {
        true => answer["details"]["uid"].as_str().unwrap_or(""),
        false => meta::uid(&answer),
    };
    info.object = json!({"metadata": {"uid": uid}});
    Ok(())
}

fn report(context: &Context, info: &Info, forced: bool, dry_run: DryRun) -> Result<(), CommandError> {
    let mut out = context.streams.out.clone();
    if context.flags.has("output") && context.flags.text("output") == "name" {
        writeln!(out, "{}/{}", info.resource.kind_title(), info.name)?;
        return Ok(());
    }
    writeln!(out, "{}{}", deleted(info, forced), dry_run.suffix())?;
    Ok(())
}

/// `pod "x" deleted from default namespace`.
pub(super) fn deleted(info: &Info, forced: bool) -> String {
    let how = if forced { "force deleted" } else { "deleted" };
    let place = match info.namespace.as_str() {
        "" => String::new(),
        namespace => format!(" from {namespace} namespace"),
    };
    format!("{} {:?} {how}{place}", info.resource.kind_title(), info.name)
}

async fn wait(context: &Context, going: &[Info]) -> Result<(), CommandError> {
    let cluster = context.cluster().await?;
    let timeout = context.flags.duration("timeout");
    let end = Instant::now() + if timeout.is_zero() { WEEK } else { timeout };
    for info in going {
        until_gone(&cluster, info, end.saturating_duration_since(Instant::now())).await?;
    }
    Ok(())
}

/// Waits until an object is gone or is another one of the same name.
pub(super) async fn until_gone(cluster: &Cluster, info: &Info, limit: Duration) -> Result<(), CommandError> {
    match tokio::time::timeout(limit, gone(cluster, info)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(CommandError::plain(format!("timed out waiting for the condition on {}", info.plural_title()))),
    }
}

async fn gone(cluster: &Cluster, info: &Info) -> Result<(), CommandError> {
    let uid = meta::uid(&info.object).to_owned();
    let is_other = |object: &Value| !uid.is_empty() && meta::uid(object) != uid;
    loop {
        // Who may delete but not look has nothing to wait for.
        let ignored =
            |e: &CommandError| e.is_not_found() || e.has_reason("Forbidden") || e.has_reason("MethodNotAllowed");
        let object = match cluster.get(&info.path()).await {
            Err(error) if ignored(&error) => return Ok(()),
            Err(error) => return Err(error),
            Ok(object) if is_other(&object) => return Ok(()),
            Ok(object) => object,
        };
        let call = Call::get(&info.collection())
            .query("fieldSelector", format!("metadata.name={}", info.name))
            .query("resourceVersion", meta::resource_version(&object))
            .query("watch", "true");
        match cluster.watch(&call).await {
            Err(error) if ignored(&error) => return Ok(()),
            Err(_) => {}
            Ok(mut watch) => {
                while let Ok(Some(event)) = watch.next().await {
                    if event.kind == "DELETED" || (event.kind != "BOOKMARK" && is_other(&event.object)) {
                        return Ok(());
                    }
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}
