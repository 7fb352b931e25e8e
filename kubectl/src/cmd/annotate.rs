//! `kubectl annotate`.

use machinery::meta;

use super::label::{self, Changes};
use crate::{
    cluster::Call,
    command::Command,
    context::Context,
    error::CommandError,
    flags::Flag,
    print::{DryRun, Results},
    resolve::{Info, Query},
};

/// The command.
pub(crate) fn command() -> Command {
    Command::new("annotate", "Update the annotations on a resource")
        .usage("[--overwrite] (-f FILENAME | TYPE NAME) KEY_1=VAL_1 ... KEY_N=VAL_N [--resource-version=version]")
        .examples(&["kubectl annotate pods foo description='my frontend'", "kubectl annotate pods foo description-"])
        .flags(label::flags("kubectl-annotate"))
        .flags([Flag::switch("list", "Print the annotations.")])
        .runs(|context| Box::pin(run(context)))
}

fn parse(arguments: &[String]) -> Result<Changes, CommandError> {
    let mut changes = Changes::default();
    for argument in arguments {
        match (argument.split_once('='), argument.strip_suffix('-')) {
            (Some((key, value)), _) => changes.set.push((key.to_owned(), value.to_owned())),
            (None, Some(key)) => changes.removed.push(key.to_owned()),
            (None, None) => {
                return Err(CommandError::plain(format!(
                    "all resources must be specified before annotation changes: {argument}"
                )));
            }
        }
    }
    let both: Vec<&str> = changes
        .set
        .iter()
        .map(|(key, _)| key.as_str())
        .filter(|key| changes.removed.iter().any(|r| r == key))
        .collect();
    if !both.is_empty() {
        return Err(CommandError::plain(format!(
            "can not both modify and remove the following annotation(s) in the same command: {}",
            both.join(", ")
        )));
    }
    Ok(changes)
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let (resources, changes) = Changes::split(&context.args);
    let changes = parse(changes)?;
    if changes.set.is_empty() && changes.removed.is_empty() && !context.flags.bool("list") {
        return Err(CommandError::plain("at least one annotation update is required"));
    }
    let dry_run = DryRun::of(context)?;
    let mut results = Results::of(context, dry_run)?;
    let query = Query::of(context).arguments(resources).latest();
    label::check_local(&query, "rsrc")?;
    let found = query.infos(context).await?;
    let (mut errors, single) = (found.errors, found.single);
    for info in found.infos {
        let outcome = if context.flags.bool("list") {
            label::list(context, &info, "annotations", single)
        } else {
            annotate(context, &info, &changes, dry_run, &mut results).await
        };
        errors.extend(outcome.err());
    }
    CommandError::all(errors)
}

async fn annotate(
    context: &Context,
    info: &Info,
    changes: &Changes,
    dry_run: DryRun,
    results: &mut Results,
) -> Result<(), CommandError> {
    let present: Vec<(&str, &str)> = meta::text_map(&info.object, "annotations").collect();
    let old = |key: &str| present.iter().find(|(k, _)| *k == key).map(|(_, v)| *v);
    if !context.flags.bool("overwrite") {
        let clashes = changes.set.iter().filter(|(k, v)| old(k).is_some_and(|o| o != v));
        let clashes: Vec<String> =
            clashes.map(|(k, _)| format!("'{k}' already has a value ({})", old(k).unwrap_or_default())).collect();
        if !clashes.is_empty() {
            return Err(CommandError::plain(format!(
                "--overwrite is false but found the following declared annotation(s): {}",
                clashes.join("; ")
            )));
        }
    }
    let patch = changes.patch("annotations", context.flags.text("resource-version"));
    let here = context.flags.bool("local") || dry_run == DryRun::Client;
    let object = match here {
        true => machinery::patch::merge::apply(&info.object, &patch).unwrap_or_else(|_| info.object.clone()),
        false => {
            let call = Call::patch(&info.path(), "application/merge-patch+json", &patch)
                .query_if("dryRun", dry_run.query())
                .query("fieldManager", context.flags.text("field-manager"));
            context.cluster().await?.json(&call).await?
        }
    };
    results.print(&object, "annotated", &mut context.streams.out.clone())
}
