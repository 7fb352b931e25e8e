//! `kubectl delete`.

use std::{io::Write, time::Duration};

use machinery::meta;
use serde_json::json;

use crate::{
    cluster::{Call, Cluster},
    command::Command,
    context::Context,
    error::CommandError,
    flags::Flag,
    resolve::{self, Info, Query},
};

/// Time between looks at an object that is going.
const POLL: Duration = Duration::from_millis(250);

/// The command.
pub(crate) fn command() -> Command {
    Command::new(
        "delete",
        "Delete resources by file names, stdin, resources and names, or by resources and label selector",
    )
    .usage("([-f FILENAME] | TYPE [(NAME | -l label | --all)])")
    .examples(&[
        "kubectl delete -f ./pod.json",
        "kubectl delete pods,services -l name=web",
        "kubectl delete pod foo --now",
    ])
    .flags(resolve::file_flags("File, directory or URL with the resources to delete."))
    .flags([
        resolve::selector_flag(),
        resolve::field_selector_flag(),
        resolve::all_namespaces_flag(),
        Flag::switch("all", "All objects of the types in the namespace."),
        Flag::text("cascade", "background", "What happens to dependents: background, orphan or foreground.")
            .bare("background"),
        Flag::int("grace-period", "-1", "Seconds to end gracefully; negative for the object's own."),
        Flag::switch("ignore-not-found", "Objects need not exist."),
        Flag::on("wait", "Wait until the objects are gone."),
    ])
    .runs(|context| Box::pin(run(context)))
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let flags = &context.flags;
    let policy = match flags.text("cascade") {
        "background" | "true" => "Background",
        "foreground" => "Foreground",
        "orphan" | "false" => "Orphan",
        other => {
            return Err(CommandError::plain(format!(
                "invalid cascade value ({other}). Must be \"background\", \"foreground\", or \"orphan\"."
            )));
        }
    };
    let mut options = json!({"propagationPolicy": policy});
    if flags.int("grace-period") >= 0 {
        options["gracePeriodSeconds"] = json!(flags.int("grace-period"));
    }
    let found = Query::of(context).unread().infos(context).await?;
    let mut errors = found.errors;
    let cluster = context.cluster().await?;
    let mut out = context.streams.out.clone();
    let mut going = Vec::new();
    for info in found.infos {
        match cluster.json(&Call::delete(&info.path(), &options)).await {
            Err(error) if error.is_not_found() && flags.bool("ignore-not-found") => {}
            Err(error) => errors.push(error),
            Ok(_) => {
                let place = match info.namespace.as_str() {
                    "" => String::new(),
                    namespace => format!(" from {namespace} namespace"),
                };
                writeln!(out, "{} {:?} deleted{place}", info.resource.kind_title(), info.name)?;
                going.push(info);
            }
        }
    }
    if flags.bool("wait") {
        for info in going {
            until_gone(&cluster, &info).await?;
        }
    }
    CommandError::all(errors)
}

async fn until_gone(cluster: &Cluster, info: &Info) -> Result<(), CommandError> {
    let mut uid: Option<String> = None;
    loop {
        match cluster.get(&info.path()).await {
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
            // An object of the same name that was made since is another one.
            Ok(object) if uid.as_deref().is_some_and(|uid| uid != meta::uid(&object)) => return Ok(()),
            Ok(object) => uid = Some(meta::uid(&object).to_owned()),
        }
        tokio::time::sleep(POLL).await;
    }
}
