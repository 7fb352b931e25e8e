//! `kubectl patch`.

use crate::{
    cluster::Call,
    command::Command,
    context::Context,
    error::CommandError,
    flags::Flag,
    print::{self, DryRun, Results},
    resolve::{self, Query},
};
use machinery::decode::decode_yaml;
use serde_json::Value;

/// The command.
pub(crate) fn command() -> Command {
    Command::new("patch", "Update fields of a resource")
        .usage("(-f FILENAME | TYPE NAME) [-p PATCH|--patch-file FILE]")
        .examples(&[
            "kubectl patch node k8s-node-1 -p '{\"spec\":{\"unschedulable\":true}}'",
            "kubectl patch pod web --type=json -p '[{\"op\":\"remove\",\"path\":\"/metadata/labels/a\"}]'",
            "kubectl patch deployment web --subresource=scale --type=merge -p '{\"spec\":{\"replicas\":2}}'",
        ])
        .flags(resolve::file_flags("File, directory or URL with the resource to patch."))
        .flags(print::write_flags("kubectl-patch"))
        .flags([
            resolve::local_flag(),
            Flag::text("patch", "", "The patch, JSON or YAML.").short('p'),
            Flag::text("patch-file", "", "File with the patch."),
            Flag::text("subresource", "", "Patch this subresource: status, scale or resize."),
            Flag::text("type", "strategic", "Kind of patch: json, merge or strategic."),
        ])
        .runs(|context| Box::pin(run(context)))
}

/// The media type of a kind of patch.
fn media_type(kind: &str) -> Option<&'static str> {
    match kind {
        "json" => Some("application/json-patch+json"),
        "merge" => Some("application/merge-patch+json"),
        "strategic" => Some("application/strategic-merge-patch+json"),
        _ => None,
    }
}

/// The patch as it is sent: JSON as it was written, YAML as JSON.
fn read_patch(context: &Context) -> Result<Vec<u8>, CommandError> {
    let flags = &context.flags;
    let text = match (flags.non_empty("patch"), flags.non_empty("patch-file")) {
        (Some(_), Some(_)) => return Err(CommandError::plain("cannot specify --patch and --patch-file together")),
        (Some(text), None) => text.as_bytes().to_vec(),
        (None, Some(path)) => std::fs::read(path).map_err(|e| {
            let text = crate::kubeconfig::files::go_io_text(&e);
            CommandError::plain(format!("unable to read patch file: open {path}: {text}"))
        })?,
        (None, None) => {
            return Err(CommandError::plain(
                "must specify --patch or --patch-file containing the contents of the patch",
            ));
        }
    };
    if text.iter().find(|b| !b.is_ascii_whitespace()).is_some_and(|b| matches!(b, b'{' | b'[')) {
        return Ok(text);
    }
    let (patch, _) = decode_yaml(&text)
        .map_err(|e| CommandError::plain(format!("unable to parse {:?}: {e}", String::from_utf8_lossy(&text))))?;
    Ok(patch.to_string().into_bytes())
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let kind = context.flags.text("type").to_lowercase();
    let media_type = media_type(&kind).ok_or_else(|| {
        CommandError::plain(format!(
            "--type must be one of [json merge strategic], not {:?}",
            context.flags.text("type")
        ))
    })?;
    let patch = read_patch(context)?;
    let dry_run = DryRun::of(context)?;
    // Reports of patches do not tell a dry run.
    let mut results = Results::of(context, DryRun::None)?;
    let mut out = context.streams.out.clone();
    let query = Query::of(context).latest();
    if query.local {
        return locally(context, query, &kind, &patch, &mut results).await;
    }
    let cluster = context.cluster().await?;
    let subresource = context.flags.text("subresource").to_owned();
    let found = query.infos(context).await?;
    let mut errors = found.errors;
    for info in found.infos {
        let path = if subresource.is_empty() { info.path() } else { format!("{}/{subresource}", info.path()) };
        let call = Call::new(http::Method::PATCH, &path)
            .with_body(media_type, patch.clone())
            .query_if("dryRun", dry_run.query())
            .query("fieldManager", context.flags.text("field-manager"));
        match cluster.json(&call).await {
            Ok(patched) => {
                let operation = if patched == info.object { "patched (no change)" } else { "patched" };
                results.print(&patched, operation, &mut out)?;
            }
            Err(error) => errors.push(error),
        }
    }
    CommandError::all(errors)
}

/// `--local`: patches objects of files.
async fn locally(
    context: &Context,
    query: Query,
    kind: &str,
    patch: &[u8],
    results: &mut Results,
) -> Result<(), CommandError> {
    if !query.arguments.is_empty() {
        return Err(CommandError::plain("cannot specify --local and server resources"));
    }
    let patch: Value = serde_json::from_slice(patch).map_err(|e| CommandError::plain(e.to_string()))?;
    let found = query.infos(context).await?;
    let mut errors = found.errors;
    for info in found.infos {
        let patched = match (kind, print::declared::schema(&info.object)) {
            ("json", _) => machinery::patch::json::apply(&info.object, &patch),
            ("strategic", Some(schema)) => machinery::patch::strategic::apply(&info.object, &patch, schema),
            ("strategic", None) => {
                let version = info.resource.api_version();
                errors.push(CommandError::plain(format!(
                    "application/strategic-merge-patch+json is not supported by {version}, Kind={}: try --type merge",
                    info.resource.kind
                )));
                continue;
            }
            _ => machinery::patch::merge::apply(&info.object, &patch),
        };
        match patched {
            Ok(patched) => {
                let operation = if patched == info.object { "patched (no change)" } else { "patched" };
                results.print(&patched, operation, &mut context.streams.out.clone())?;
            }
            Err(error) => errors.push(CommandError::plain(error.to_string())),
        }
    }
    CommandError::all(errors)
}
