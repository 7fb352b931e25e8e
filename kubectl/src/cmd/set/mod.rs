//! `kubectl set`.

mod container;
mod env;
mod image;
mod resources;
mod selector;
mod subject;

use machinery::meta;
use serde_json::{Value, json};

use crate::{
    cluster::Call,
    command::Command,
    context::Context,
    error::CommandError,
    flags::Flag,
    print::{self, DryRun, Results},
    resolve::{self, Info, Query},
};

/// The group.
pub(crate) fn command() -> Command {
    Command::new("set", "Set specific features on objects")
        .long("Configure application resources.\n\n These commands help you make changes to existing application resources.")
        .commands(vec![
            env::command(),
            image::command(),
            resources::command(),
            selector::command(),
            selector::service_account(),
            subject::command(),
        ])
}

/// What `--filename` is for.
const FILES: &str = "File, directory or URL with the resource to update.";

/// Flags of those that change Pod templates.
fn flags() -> Vec<Flag> {
    let mut flags = resolve::file_flags(FILES);
    flags.extend(common_flags());
    flags
}

/// Flags of all of them but those of files.
fn common_flags() -> Vec<Flag> {
    let mut flags = print::write_flags("kubectl-set");
    flags.extend([Flag::switch("all", "All objects of the types in the namespace."), resolve::local_flag()]);
    flags
}

/// Splits arguments into the resources and the changes behind them.
fn split(arguments: &[String], is_change: impl Fn(&str) -> bool) -> (Vec<String>, Vec<String>) {
    let at = arguments.iter().position(|a| is_change(a)).unwrap_or(arguments.len());
    (arguments[..at].to_vec(), arguments[at..].to_vec())
}

/// What a change made of an object.
enum Change {
    /// A new object, and the patch that makes it.
    To { object: Value, patch: Value },
    /// Nothing to do.
    None,
}

/// Applies a change to all objects that a command names.
async fn apply(
    context: &Context,
    resources: &[String],
    operation: &str,
    failed: &str,
    mut change: impl FnMut(&Info) -> Result<Change, CommandError>,
) -> Result<(), CommandError> {
    let dry_run = DryRun::of(context)?;
    let mut results = Results::of(context, dry_run)?;
    let mut out = context.streams.out.clone();
    let local = context.flags.bool("local");
    let (infos, mut errors) = objects(context, resources, local).await?;
    for info in infos {
        let (object, patch) = match change(&info) {
            Ok(Change::To { object, patch }) => (object, patch),
            Ok(Change::None) => continue,
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
        if local || dry_run == DryRun::Client {
            results.print(&object, operation, &mut out)?;
            continue;
        }
        let call = Call::patch(&info.path(), "application/strategic-merge-patch+json", &patch)
            .query_if("dryRun", dry_run.query())
            .query("fieldManager", context.flags.text("field-manager"));
        match context.cluster().await?.json(&call).await {
            Ok(object) => results.print(&object, operation, &mut out)?,
            Err(error) => errors.push(refused(failed, error)),
        }
    }
    CommandError::all(errors)
}

async fn objects(
    context: &Context,
    resources: &[String],
    local: bool,
) -> Result<(Vec<Info>, Vec<CommandError>), CommandError> {
    let mut query = Query::of(context).arguments(resources);
    if local && query.sources.is_empty() {
        return Err(CommandError::plain(
            "you must specify resources by --filename when --local is set.\nExample resource specifications \
             include:\n   '-f rsrc.yaml'\n   '--filename=rsrc.json'",
        ));
    }
    if !local {
        query = query.latest();
    }
    let found = query.infos(context).await?;
    Ok((found.infos, found.errors))
}

/// A refusal with what was attempted before it.
fn refused(doing: &str, error: CommandError) -> CommandError {
    let Some(status) = error.status() else { return error };
    CommandError::plain(format!("{doing}: {}", status.message))
}

/// Where the Pod specification of an object is.
fn pod_spec_path(object: &Value) -> Option<&'static [&'static str]> {
    let path: &[&str] = match object["kind"].as_str()? {
        "Pod" => &["spec"],
        "CronJob" => &["spec", "jobTemplate", "spec", "template", "spec"],
        "PodTemplate" => &["template", "spec"],
        "Deployment" | "DaemonSet" | "ReplicaSet" | "ReplicationController" | "StatefulSet" | "Job" => {
            &["spec", "template", "spec"]
        }
        _ => return None,
    };
    Some(path)
}

/// The Pod specification of an object.
fn pod_spec(info: &Info) -> Result<(&'static [&'static str], &Value), CommandError> {
    let object = &info.object;
    let path = pod_spec_path(object).ok_or_else(|| {
        let version = object["apiVersion"].as_str().unwrap_or("").rsplit('/').next().unwrap_or("");
        CommandError::plain(format!(
            "{}/{} the object is not a pod or does not have a pod template: *{version}.{}",
            info.resource.plural,
            info.name,
            object["kind"].as_str().unwrap_or("")
        ))
    })?;
    Ok((path, path.iter().fold(object, |value, key| &value[*key])))
}

/// A value below a path.
fn nested(path: &[&str], value: Value) -> Value {
    path.iter().rev().fold(value, |inner, key| json!({*key: inner}))
}

/// The object with another Pod specification.
fn with_pod_spec(object: &Value, path: &[&str], spec: Value) -> Value {
    let mut object = object.clone();
    let place = path.iter().fold(&mut object, |value, key| &mut value[*key]);
    *place = spec;
    object
}

/// Whether a name fits a pattern in which `*` stands for anything.
fn fits(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or("");
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// The command line as `--record` keeps it.
fn cause(context: &Context) -> String {
    let mut words = vec![context.path.clone()];
    words.extend(context.args.iter().cloned());
    words.push("--record=true".to_owned());
    words.join(" ")
}

/// `Deployment web`.
fn kind_and_name(info: &Info) -> (String, String) {
    (info.object["kind"].as_str().unwrap_or("").to_owned(), meta::name(&info.object).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_names() {
        for (pattern, name, expected) in [
            ("*", "web", true),
            ("w*b", "web", true),
            ("w*", "web", true),
            ("web", "web", true),
            ("we", "web", false),
            ("*x*", "web", false),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn specifications_are_found_and_replaced() {
        let object = json!({"kind": "CronJob", "spec": {"jobTemplate": {"spec": {"template": {"spec": {"a": 1}}}}}});
        let path = pod_spec_path(&object).expect("a path");
        let changed = with_pod_spec(&object, path, json!({"a": 2}));
        assert_eq!(changed["spec"]["jobTemplate"]["spec"]["template"]["spec"]["a"], 2);
        assert_eq!(nested(&["spec", "x"], json!(1)), json!({"spec": {"x": 1}}));
    }
}
