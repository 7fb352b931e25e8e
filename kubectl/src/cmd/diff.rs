//! `kubectl diff`.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::Command as Process,
};

use futures::StreamExt;
use machinery::meta;
use runtime::env;
use serde_json::{Value, json};

use super::apply::{CLIENT_MANAGER, SERVER_MANAGER, prune};
use crate::{
    cluster::Call,
    command::Command,
    context::Context,
    error::CommandError,
    flags::Flag,
    last_applied,
    print::yaml,
    resolve::{self, Info, Query},
    three_way,
};

/// Objects that are looked at at once, at most.
const AT_ONCE: usize = 64;
/// Times a conflict is met with another try.
const RETRIES: u32 = 4;

/// The command.
pub(crate) fn command() -> Command {
    Command::new("diff", "Diff the live version against a would-be applied version")
        .usage("-f FILENAME")
        .long(
            "Diff the live version against a would-be applied version.\n\n The program is 'diff -u -N' unless \
             KUBECTL_EXTERNAL_DIFF names another.\n\n Exit code 0: no differences. 1: differences. More than 1: a failure.",
        )
        .examples(&["kubectl diff -f pod.json", "cat service.yaml | kubectl diff -f -"])
        .flags(resolve::file_flags("File, directory or URL with the configuration."))
        .flags([
            resolve::selector_flag(),
            Flag::text("field-manager", CLIENT_MANAGER, "Name that the changed fields would be owned by."),
            Flag::switch("force-conflicts", "Take fields over from other managers (with --server-side)."),
            Flag::switch("server-side", "What an apply on the server would do."),
            Flag::switch("show-managed-fields", "Keep managedFields."),
            Flag::switch("show-secrets", "Show the values of Secrets."),
            Flag::int("concurrency", "1", "Objects that are looked at at once."),
            Flag::switch("prune", "Show what an apply with --prune would delete."),
            prune::allow_flag(),
        ])
        .runs(|context| Box::pin(run(context)))
}

/// Failures have codes above 1, which means differences.
fn raised(error: CommandError) -> CommandError {
    let code = error.code().saturating_add(1);
    error.with_code(code)
}

async fn run(context: &Context) -> Result<(), CommandError> {
    match differ(context).await {
        Ok(false) => Ok(()),
        Ok(true) => Err(CommandError::Exit(1)),
        Err(error) => Err(raised(error)),
    }
}

async fn differ(context: &Context) -> Result<bool, CommandError> {
    if !context.args.is_empty() {
        return Err(context.usage(format!("Unexpected args: [{}]", context.args.join(" "))));
    }
    let query = Query::of(context).arguments(&[]);
    query.sources.require()?;
    let found = query.infos(context).await?;
    let mut errors = found.errors;
    let directory = |prefix: &str| tempfile::Builder::new().prefix(prefix).tempdir();
    let (live, merged) = (directory("LIVE-")?, directory("MERGED-")?);
    let kinds = prune::kinds(context).await?;
    let at_once = usize::try_from(context.flags.int("concurrency")).unwrap_or(1).clamp(1, AT_ONCE);
    let mut looks = futures::stream::iter(found.infos.into_iter().map(async |info| {
        let versions = versions(context, &info).await;
        (info, versions)
    }))
    .buffered(at_once);
    let mut done = Vec::new();
    while let Some((info, versions)) = looks.next().await {
        match versions {
            Ok((old, new)) => {
                let object = old.clone().unwrap_or_default();
                write(context, &info, (old, live.path()), (Some(new), merged.path()))?;
                done.push((info, object));
            }
            Err(error) => errors.push(error),
        }
    }
    CommandError::all(errors)?;
    if context.flags.bool("prune") {
        for info in prune::left_over(context, &kinds, &done).await? {
            let object = info.object.clone();
            write(context, &info, (Some(object), live.path()), (None, merged.path()))?;
        }
    }
    compare(context, live.path(), merged.path())
}

/// The object as it is, if it is, and as it would be.
async fn versions(context: &Context, info: &Info) -> Result<(Option<Value>, Value), CommandError> {
    let cluster = context.cluster().await?;
    let flags = &context.flags;
    let server_side = flags.bool("server-side");
    let manager = match flags.given("field-manager") {
        true => flags.text("field-manager"),
        false if server_side => SERVER_MANAGER,
        false => CLIENT_MANAGER,
    };
    let mut tried = 0;
    loop {
        let live = match cluster.get(&info.path()).await {
            Ok(live) => Some(live),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        let call = if server_side {
            Call::patch(&info.path(), "application/apply-patch+yaml", &info.object)
                .query("force", flags.bool("force-conflicts").to_string())
        } else if let Some(live) = &live {
            let mut manifest = info.object.clone();
            last_applied::write(&mut manifest);
            let original =
                last_applied::read(live).and_then(|text| serde_json::from_str(text).ok()).unwrap_or(Value::Null);
            // Without the annotation, what an apply writes there would always differ.
            if last_applied::read(live).is_none() {
                manifest = info.object.clone();
            }
            let made = three_way::patch(&original, &manifest, live);
            let mut body = made.body;
            if tried < RETRIES {
                body["metadata"]["resourceVersion"] = json!(meta::resource_version(live));
            }
            Call::patch(&info.path(), made.media_type, &body)
        } else {
            let mut manifest = info.object.clone();
            last_applied::strip(&mut manifest);
            Call::post(&info.collection(), &manifest)
        };
        match cluster.json(&call.query("dryRun", "All").query("fieldManager", manager)).await {
            Ok(merged) => return Ok((live, merged)),
            Err(error) if error.has_reason("Conflict") && tried < RETRIES && !server_side => tried += 1,
            Err(error) => return Err(error),
        }
    }
}

fn write(
    context: &Context,
    info: &Info,
    (old, live): (Option<Value>, &Path),
    (new, merged): (Option<Value>, &Path),
) -> Result<(), CommandError> {
    let resource = &info.resource;
    let group = if resource.group.is_empty() { String::new() } else { format!("{}.", resource.group) };
    let name = format!("{group}{}.{}.{}.{}", resource.version, resource.kind, info.namespace, info.name);
    let name = name.replace('/', "_");
    let (mut old, mut new) = (old, new);
    if !context.flags.bool("show-managed-fields") {
        for object in old.iter_mut().chain(&mut new) {
            meta::metadata_mut(object).remove("managedFields");
        }
    }
    if resource.kind == "Secret" && resource.group.is_empty() && !context.flags.bool("show-secrets") {
        mask(old.as_mut(), new.as_mut());
    }
    for (directory, object) in [(live, old), (merged, new)] {
        std::fs::write(directory.join(&name), object.map_or_else(String::new, |object| yaml::encode(&object)))?;
    }
    Ok(())
}

/// Hides the values of Secrets; those that differ stay different.
fn mask(old: Option<&mut Value>, new: Option<&mut Value>) {
    let empty = serde_json::Map::new();
    let data = |object: &Value| object["data"].as_object().unwrap_or(&empty).clone();
    let (before, after) =
        (old.as_ref().map(|o| data(o)).unwrap_or_default(), new.as_ref().map(|o| data(o)).unwrap_or_default());
    let masked = |of: &serde_json::Map<String, Value>, other: &serde_json::Map<String, Value>, suffix: &str| {
        let entries = of.iter().map(|(key, value)| {
            let changed = other.get(key).is_some_and(|o| o != value);
            (key.clone(), json!(if changed { format!("*** ({suffix})") } else { "***".to_owned() }))
        });
        Value::Object(entries.collect())
    };
    if let Some(old) = old.filter(|o| o["data"].is_object()) {
        old["data"] = masked(&before, &after, "before");
    }
    let Some(new) = new else { return };
    if new["data"].is_object() {
        new["data"] = masked(&after, &before, "after");
    }
    meta::metadata_mut(new)
        .get_mut("annotations")
        .and_then(|a| a.as_object_mut())
        .map(|a| a.remove(last_applied::ANNOTATION));
}

/// The program and its arguments.
fn program() -> (String, Vec<String>) {
    let Some(text) = env::non_empty("KUBECTL_EXTERNAL_DIFF") else {
        return ("diff".to_owned(), vec!["-u".to_owned(), "-N".to_owned()]);
    };
    let mut words = text.split(' ');
    let name = words.next().unwrap_or("diff").to_owned();
    // Anything else could be meant for a shell.
    let is_option = |w: &&str| !w.is_empty() && w.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '='));
    (name, words.filter(is_option).map(str::to_owned).collect())
}

fn compare(context: &Context, live: &Path, merged: &Path) -> Result<bool, CommandError> {
    let (name, arguments) = program();
    let paths: [PathBuf; 2] = [live.to_path_buf(), merged.to_path_buf()];
    let output = Process::new(&name)
        .args(&arguments)
        .args(&paths)
        .output()
        .map_err(|e| CommandError::plain(format!("failed to run {name:?}: {e}")))?;
    context.streams.out.clone().write_all(&output.stdout)?;
    context.streams.err.clone().write_all(&output.stderr)?;
    match output.status.code() {
        Some(0) => Ok(false),
        Some(1) => Ok(true),
        Some(code) => Err(CommandError::plain(format!("exit status {code}"))
            .with_code(u8::try_from(code.saturating_sub(1)).unwrap_or(u8::MAX))),
        None => Err(CommandError::plain(format!("{name:?} was ended by a signal"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked() {
        let mut old = json!({"data": {"a": "1", "b": "2"}});
        let mut new = json!({"data": {"a": "1", "b": "3", "c": "4"}});
        mask(Some(&mut old), Some(&mut new));
        assert_eq!(old["data"], json!({"a": "***", "b": "*** (before)"}));
        assert_eq!(new["data"], json!({"a": "***", "b": "*** (after)", "c": "***"}));
    }
}
