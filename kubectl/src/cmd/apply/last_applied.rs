//! `apply view-last-applied`, `set-last-applied` and `edit-last-applied`.

use std::io::Write;

use serde_json::{Value, json};

use crate::{
    cluster::Call,
    command::Command,
    context::Context,
    error::CommandError,
    flags::Flag,
    last_applied,
    print::{self, DryRun, Results, json as json_text, yaml},
    resolve::{self, Query},
    three_way,
};

pub(super) fn view() -> Command {
    Command::new("view-last-applied", "View the latest last-applied-configuration annotations of a resource/object")
        .usage("(TYPE [NAME | -l label] | TYPE/NAME | -f FILENAME)")
        .flags(resolve::file_flags("File, directory or URL with the resources."))
        .flags([
            resolve::selector_flag(),
            Flag::switch("all", "All objects of the types in the namespace."),
            Flag::text("output", "yaml", "Output format: yaml or json.").short('o'),
        ])
        .runs(|context| Box::pin(run_view(context)))
}

pub(super) fn set() -> Command {
    Command::new(
        "set-last-applied",
        "Set the last-applied-configuration annotation on a live object to match the contents of a file",
    )
    .usage("-f FILENAME")
    .flags(
        resolve::file_flags("File, directory or URL with the configuration.")
            .into_iter()
            .filter(|f| f.name == "filename"),
    )
    .flags(print::flags())
    .flags([DryRun::flag(), Flag::switch("create-annotation", "Create the annotation where it is missing.")])
    .runs(|context| Box::pin(run_set(context)))
}

pub(super) fn edit() -> Command {
    Command::new("edit-last-applied", "Edit latest last-applied-configuration annotations of a resource/object")
        .usage("(RESOURCE/NAME | -f FILENAME)")
        .flags(resolve::file_flags("File, directory or URL with the resources."))
        .flags(print::flags())
        .flags([
            Flag::text("field-manager", super::CLIENT_MANAGER, "Name that the annotation is owned by."),
            print::validate_flag(),
            super::super::edit::line_endings_flag(),
        ])
        .runs(|context| Box::pin(super::super::edit::last_applied(context)))
}

fn missing(name: &str) -> CommandError {
    CommandError::plain(format!("no last-applied-configuration annotation found on resource: {name}"))
}

async fn run_view(context: &Context) -> Result<(), CommandError> {
    let format = context.flags.text("output").to_owned();
    if !matches!(format.as_str(), "yaml" | "json") {
        return Err(
            context.usage(format!("Unexpected -o output mode: {format}, the flag 'output' must be one of yaml|json"))
        );
    }
    let found = Query::of(context).latest().infos(context).await?;
    let mut out = context.streams.out.clone();
    for info in found.all()? {
        let Some(text) = last_applied::read(&info.object) else { continue };
        let value: Value = serde_json::from_str(text).map_err(|e| CommandError::plain(e.to_string()))?;
        match format.as_str() {
            "json" => writeln!(out, "{}", json_text::pretty(&value))?,
            _ => writeln!(out, "{}", yaml::encode(&value).trim_end_matches('\n'))?,
        }
    }
    Ok(())
}

async fn run_set(context: &Context) -> Result<(), CommandError> {
    let query = Query::of(context).arguments(&[]);
    query.sources.require()?;
    let dry_run = DryRun::of(context)?;
    let mut results = Results::of(context, dry_run)?;
    let mut out = context.streams.out.clone();
    let infos = query.infos(context).await?.all()?;
    if infos.is_empty() {
        return Err(CommandError::plain("no objects passed to set-last-applied"));
    }
    let cluster = context.cluster().await?;
    for info in infos {
        let live = cluster.get(&info.path()).await?;
        if last_applied::read(&live).is_none() && !context.flags.bool("create-annotation") {
            return Err(CommandError::plain(format!(
                "{}, to create the annotation, run the command with --create-annotation",
                missing(&info.name)
            )));
        }
        let text = last_applied::plain_text(&info.object);
        let mut object = live.clone();
        if last_applied::read(&live) != Some(text.as_str()) && dry_run != DryRun::Client {
            let patch = json!({"metadata": {"annotations": {last_applied::ANNOTATION: text}}});
            let call = Call::patch(&info.path(), three_way::MERGE, &patch).query_if("dryRun", dry_run.query());
            object = cluster.json(&call).await?;
        }
        results.print(&object, "configured", &mut out)?;
    }
    Ok(())
}
