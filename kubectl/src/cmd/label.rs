//! `kubectl label`.

use std::io::Write;

use machinery::{meta, names};
use serde_json::{Map, Value, json};

use crate::{
    cluster::Call,
    command::Command,
    context::Context,
    error::CommandError,
    flags::Flag,
    print::{self, DryRun, Results},
    resolve::{self, Info, Query},
};

/// The command.
pub(crate) fn command() -> Command {
    Command::new("label", "Update the labels on a resource")
        .usage("[--overwrite] (-f FILENAME | TYPE NAME) KEY_1=VAL_1 ... KEY_N=VAL_N [--resource-version=version]")
        .examples(&[
            "kubectl label pods foo unhealthy=true",
            "kubectl label --overwrite pods foo status=unhealthy",
            "kubectl label pods foo bar-",
        ])
        .flags(flags("kubectl-label"))
        .flags([Flag::switch("list", "Print the labels.")])
        .runs(|context| Box::pin(run(context)))
}

/// Flags that label and annotate share.
pub(super) fn flags(manager: &'static str) -> Vec<Flag> {
    let mut all = resolve::file_flags("File, directory or URL with the resource to update.");
    all.extend(print::write_flags(manager));
    all.extend([
        resolve::selector_flag(),
        resolve::field_selector_flag(),
        resolve::all_namespaces_flag(),
        Flag::switch("all", "All objects of the types in the namespace."),
        resolve::local_flag(),
        Flag::switch("overwrite", "Present values may be replaced."),
        Flag::text("resource-version", "", "Update only if the object has this version."),
    ]);
    all
}

/// Changes to a map of texts.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) set: Vec<(String, String)>,
    pub(super) removed: Vec<String>,
}

impl Changes {
    /// Splits arguments into those before the first change and the changes.
    pub(super) fn split(arguments: &[String]) -> (&[String], &[String]) {
        let is_change = |a: &String| a.contains('=') || a.ends_with('-');
        let at = arguments.iter().position(is_change).unwrap_or(arguments.len());
        arguments.split_at(at)
    }

    /// The merge patch of an object's metadata.
    pub(super) fn patch(&self, field: &str, resource_version: &str) -> Value {
        let mut map: Map<String, Value> = Map::new();
        map.extend(self.set.iter().map(|(k, v)| (k.clone(), json!(v))));
        map.extend(self.removed.iter().map(|k| (k.clone(), Value::Null)));
        let mut patch = json!({"metadata": {field: map}});
        if !resource_version.is_empty() {
            patch["metadata"]["resourceVersion"] = json!(resource_version);
        }
        patch
    }
}

fn parse(arguments: &[String]) -> Result<Changes, CommandError> {
    let mut changes = Changes::default();
    for argument in arguments {
        if let Some((key, value)) = argument.split_once('=') {
            if let Some(problem) = names::label_value(value).into_iter().next() {
                return Err(CommandError::plain(format!("invalid label value: {argument:?}: {problem}")));
            }
            changes.set.push((key.to_owned(), value.to_owned()));
        } else if let Some(key) = argument.strip_suffix('-') {
            changes.removed.push(key.to_owned());
        } else {
            return Err(CommandError::plain(format!(
                "all resources must be specified before label changes: {argument}"
            )));
        }
    }
    for (key, _) in &changes.set {
        if changes.removed.contains(key) {
            return Err(CommandError::plain("can not both modify and remove a label in the same command"));
        }
    }
    Ok(changes)
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let flags = &context.flags;
    let (resources, changes) = Changes::split(&context.args);
    let changes = parse(changes)?;
    let listing = flags.bool("list");
    if changes.set.is_empty() && changes.removed.is_empty() && !listing {
        return Err(CommandError::plain("at least one label update is required"));
    }
    let dry_run = DryRun::of(context)?;
    let mut results = Results::of(context, dry_run)?;
    let query = Query::of(context).arguments(resources).latest();
    check_local(&query, "pod")?;
    let found = query.infos(context).await?;
    let (mut errors, single) = (found.errors, found.single);
    for info in found.infos {
        let outcome = if listing {
            list(context, &info, "labels", single)
        } else {
            label(context, &info, &changes, dry_run, &mut results).await
        };
        errors.extend(outcome.err());
    }
    CommandError::all(errors)
}

/// `--local` needs files.
pub(super) fn check_local(query: &Query, example: &str) -> Result<(), CommandError> {
    if query.local && (query.sources.is_empty() || !query.arguments.is_empty()) {
        return Err(CommandError::plain(format!(
            "can only use local files by -f {example}.yaml or --filename={example}.json when --local=true is set"
        )));
    }
    Ok(())
}

/// Prints a map of metadata.
pub(super) fn list(context: &Context, info: &Info, field: &str, single: bool) -> Result<(), CommandError> {
    let mut out = context.streams.out.clone();
    let indent = if single { "" } else { " " };
    if !single {
        writeln!(out, "Listing {field} for {}.{}/{}:", info.resource.kind, info.resource.group, info.name)?;
    }
    let mut labels: Vec<(&str, &str)> = meta::text_map(&info.object, field).collect();
    labels.sort_unstable();
    for (key, value) in labels {
        writeln!(out, "{indent}{key}={value}")?;
    }
    Ok(())
}

async fn label(
    context: &Context,
    info: &Info,
    changes: &Changes,
    dry_run: DryRun,
    results: &mut Results,
) -> Result<(), CommandError> {
    let mut out = context.streams.out.clone();
    let present: Vec<(&str, &str)> = meta::text_map(&info.object, "labels").collect();
    let old = |key: &str| present.iter().find(|(k, _)| *k == key).map(|(_, v)| *v);
    if !context.flags.bool("overwrite") {
        let clash = changes.set.iter().find(|(k, v)| old(k).is_some_and(|o| o != v));
        if let Some((key, _)) = clash {
            return Err(CommandError::plain(format!(
                "'{key}' already has a value ({}), and --overwrite is false",
                old(key).unwrap_or_default()
            )));
        }
    }
    for key in changes.removed.iter().filter(|k| old(k).is_none()) {
        writeln!(out, "label {key:?} not found.")?;
    }
    let added = changes.set.iter().any(|(k, v)| old(k) != Some(v));
    let removed = changes.removed.iter().any(|k| old(k).is_some());
    let operation = match (added, removed) {
        (false, false) => "not labeled",
        (true, false) => "labeled",
        (false, true) => "unlabeled",
        (true, true) => "modified",
    };
    let mut object = info.object.clone();
    let patch = changes.patch("labels", context.flags.text("resource-version"));
    if added || removed {
        object = match context.flags.bool("local") || dry_run == DryRun::Client {
            true => machinery::patch::merge::apply(&object, &patch).unwrap_or(object),
            false => {
                let cluster = context.cluster().await?;
                let call = Call::patch(&info.path(), "application/merge-patch+json", &patch)
                    .query_if("dryRun", dry_run.query())
                    .query("fieldManager", context.flags.text("field-manager"));
                cluster.json(&call).await?
            }
        };
    }
    results.print(&object, operation, &mut out)
}
