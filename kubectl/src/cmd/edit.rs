//! `kubectl edit`, and editing before objects are created or remembered as applied.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::Command as Process,
};

use machinery::meta;
use runtime::env;
use serde_json::{Value, json};

use crate::{
    cluster::Call,
    command::Command,
    context::Context,
    error::CommandError,
    flags::Flag,
    last_applied::{self, ANNOTATION},
    print::{self, DryRun, Results, json as json_text, yaml},
    resolve::{self, Info, Query, files},
    three_way,
};

/// The command.
pub(crate) fn command() -> Command {
    Command::new("edit", "Edit a resource on the server")
        .usage("(RESOURCE/NAME | -f FILENAME)")
        .long(
            "Edit a resource on the server.\n\n The resources are opened in the editor that KUBE_EDITOR or EDITOR names, \
             'vi' if neither does. Changes are sent when the file is saved and the editor ends. What the server refuses \
             is opened again with its reasons.",
        )
        .examples(&["kubectl edit svc/registry", "KUBE_EDITOR=\"nano\" kubectl edit svc/registry"])
        .flags(resolve::file_flags("File, directory or URL with the resources to edit."))
        .flags(print::flags())
        .flags([
            print::validate_flag(),
            Flag::text("field-manager", "kubectl-edit", "Name that the changed fields are owned by."),
            Flag::switch("output-patch", "Print the patch if a resource is edited."),
            Flag::switch("save-config", "Keep the configuration in an annotation, for apply."),
            Flag::text("subresource", "", "Edit this subresource: status, scale or resize."),
            line_endings_flag(),
        ])
        .runs(|context| Box::pin(run(context)))
}

/// `--windows-line-endings`.
pub(super) fn line_endings_flag() -> Flag {
    Flag::switch("windows-line-endings", "End the lines of the edited file as Windows does.")
}

/// What is done with edited objects.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Patch,
    Create,
    LastApplied,
}

/// `create --edit`.
pub(super) async fn before_create(context: &Context, query: &Query) -> Result<(), CommandError> {
    let infos = query.infos(context).await?.all()?;
    Session::new(context, Mode::Create)?.run(infos).await
}

/// `apply edit-last-applied`.
pub(super) async fn last_applied(context: &Context) -> Result<(), CommandError> {
    let infos = Query::of(context).latest().infos(context).await?.all()?;
    for info in &infos {
        if last_applied::read(&info.object).is_none() {
            return Err(CommandError::plain(format!(
                "no last-applied-configuration annotation found on resource: {}",
                info.name
            )));
        }
    }
    Session::new(context, Mode::LastApplied)?.run(infos).await
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let mut infos = Query::of(context).latest().infos(context).await?.all()?;
    if infos.is_empty() {
        return Err(CommandError::plain("edit cancelled, no objects found"));
    }
    if !context.flags.bool("show-managed-fields") {
        for info in &mut infos {
            meta::metadata_mut(&mut info.object).remove("managedFields");
        }
    }
    Session::new(context, Mode::Patch)?.run(infos).await
}

/// Why an object was refused, for the head of the file.
struct Reason {
    head: String,
    details: Vec<String>,
}

/// What came of sending the objects of a file.
#[derive(Default)]
struct Outcome {
    refused: Vec<Info>,
    reasons: Vec<Reason>,
    failed: bool,
    not_found: bool,
}

struct Session<'a> {
    context: &'a Context,
    mode: Mode,
    json: bool,
    results: Results,
}

impl<'a> Session<'a> {
    fn new(context: &'a Context, mode: Mode) -> Result<Self, CommandError> {
        let output = context.flags.text("output");
        let results = match (mode, output) {
            (Mode::Patch | Mode::LastApplied, "json" | "yaml") => Results::text(DryRun::None),
            _ => Results::of(context, DryRun::None)?,
        };
        Ok(Self { context, mode, json: output == "json", results })
    }

    /// The text that is edited.
    fn content(&self, infos: &[Info]) -> String {
        let objects: Vec<Value> = infos
            .iter()
            .map(|info| match self.mode {
                Mode::LastApplied => {
                    last_applied::read(&info.object).and_then(|t| serde_json::from_str(t).ok()).unwrap_or_default()
                }
                _ => info.object.clone(),
            })
            .collect();
        let whole = match objects.as_slice() {
            [one] => one.clone(),
            many => json!({"apiVersion": "v1", "items": many, "kind": "List", "metadata": {"resourceVersion": ""}}),
        };
        if self.json { json_text::indented(&whole) } else { yaml::encode(&whole) }
    }

    async fn run(mut self, infos: Vec<Info>) -> Result<(), CommandError> {
        let mut err = self.context.streams.err.clone();
        let mut pending = infos;
        let mut reasons: Vec<Reason> = Vec::new();
        let mut content = self.content(&pending);
        let mut saved: Option<PathBuf> = None;
        let mut retrying = false;
        loop {
            let path = self.edit(&header(&reasons), &content, saved.take())?;
            let text = std::fs::read_to_string(&path)?.replace("\r\n", "\n");
            let edited = without_comments(&text);
            if edited == without_comments(&content) {
                if retrying {
                    return Err(self.preserved(&path));
                }
                // A temporary file that stays is no failure.
                let _kept = std::fs::remove_file(&path).is_err();
                writeln!(err, "Edit cancelled, no changes made.")?;
                return Ok(());
            }
            if edited.trim().is_empty() {
                let _kept = std::fs::remove_file(&path).is_err();
                writeln!(err, "Edit cancelled, saved file was empty.")?;
                return Ok(());
            }
            retrying = true;
            content = text.clone();
            let mut manifests = Vec::new();
            if let Err(error) = files::decode(edited.as_bytes(), "edited-file", &mut manifests) {
                reasons = vec![Reason {
                    head: "The edited file had a syntax error".into(),
                    details: vec![error.to_string()],
                }];
                saved = Some(path);
                continue;
            }
            let outcome = self.send(&pending, manifests).await?;
            if outcome.failed {
                writeln!(err, "You can run `kubectl replace -f {}` to try this update again.", path.display())?;
                return Err(CommandError::Exit(1));
            }
            if outcome.not_found {
                writeln!(
                    err,
                    "The edits you made on deleted resources have been saved to {:?}",
                    path.display().to_string()
                )?;
                return Err(CommandError::Exit(1));
            }
            if outcome.refused.is_empty() {
                let _kept = std::fs::remove_file(&path).is_err();
                return Ok(());
            }
            pending = outcome.refused;
            reasons = outcome.reasons;
            content = without_header(&text);
            saved = Some(path);
        }
    }

    fn preserved(&self, path: &Path) -> CommandError {
        let told = writeln!(
            self.context.streams.err.clone(),
            "A copy of your changes has been stored to {:?}",
            path.display().to_string()
        );
        match told {
            Ok(()) => CommandError::plain("Edit cancelled, no valid changes were saved."),
            Err(error) => error.into(),
        }
    }

    /// Opens the editor on a file; answers its path.
    fn edit(&self, header: &str, content: &str, old: Option<PathBuf>) -> Result<PathBuf, CommandError> {
        let suffix = if self.json { ".json" } else { ".yaml" };
        let mut file = tempfile::Builder::new().prefix("kubectl-edit-").suffix(suffix).tempfile()?;
        let mut text = format!("{}{content}", if self.json { "" } else { header });
        if self.context.flags.bool("windows-line-endings") {
            text = text.replace('\n', "\r\n");
        }
        file.write_all(text.as_bytes())?;
        file.flush()?;
        let (_, path) = file.keep().map_err(|e| CommandError::plain(e.to_string()))?;
        if let Some(old) = old {
            let _kept = std::fs::remove_file(old).is_err();
        }
        let editor = env::non_empty("KUBE_EDITOR").or_else(|| env::non_empty("EDITOR")).unwrap_or_else(|| "vi".into());
        self.context.streams.out.clone().flush()?;
        let status = Process::new("/bin/sh").arg("-c").arg(format!("{editor} \"$1\"")).arg(&editor).arg(&path).status();
        match status {
            Ok(status) if status.success() => Ok(path),
            Ok(status) if status.code() == Some(127) => {
                Err(CommandError::plain(format!("unable to launch the editor {editor:?}")))
            }
            Ok(_) => Err(CommandError::plain(format!("there was a problem with the editor {editor:?}"))),
            Err(_) => Err(CommandError::plain(format!("unable to launch the editor {editor:?}"))),
        }
    }

    async fn send(&mut self, infos: &[Info], manifests: Vec<files::Manifest>) -> Result<Outcome, CommandError> {
        let mut outcome = Outcome::default();
        let mut err = self.context.streams.err.clone();
        for (at, manifest) in manifests.into_iter().enumerate() {
            let same = |info: &&Info| {
                ["apiVersion", "kind"].iter().all(|k| info.object[*k] == manifest.object[*k])
                    && info.name == meta::name(&manifest.object)
            };
            let info = match (self.mode, infos.iter().find(same)) {
                (Mode::Create, _) => infos.get(at).or(infos.first()),
                (_, found) => found,
            };
            let Some(info) = info else {
                return Err(CommandError::plain("At least one of apiVersion, kind and name was changed"));
            };
            let Err(error) = self.send_one(info, manifest.object).await else { continue };
            let title = format!("{} {:?}", info.resource.title(), info.name);
            if error.has_reason("Invalid") {
                let causes =
                    error.status().and_then(|s| s.details.as_ref()).map(|d| d.causes.clone()).unwrap_or_default();
                outcome.reasons.push(Reason {
                    head: format!("{title} was not valid"),
                    details: causes.iter().map(|c| format!("{}: {}", c.field, c.message)).collect(),
                });
                outcome.refused.push(info.clone());
                writeln!(err, "error: {title} is invalid")?;
            } else if error.is_not_found() {
                outcome.not_found = true;
                writeln!(err, "error: {title} could not be found on the server")?;
            } else if let Some(status) = error.status() {
                outcome.failed = true;
                writeln!(err, "error: {title} could not be patched: {}", status.message)?;
            } else {
                return Err(error);
            }
        }
        Ok(outcome)
    }

    async fn send_one(&mut self, info: &Info, edited: Value) -> Result<(), CommandError> {
        let cluster = self.context.cluster().await?;
        let flags = &self.context.flags;
        let mut out = self.context.streams.out.clone();
        let manager = flags.text("field-manager");
        let validation = if flags.has("validate") { print::field_validation(flags)? } else { "" };
        let call = match self.mode {
            Mode::Create => {
                let mut object = edited;
                if info.resource.namespaced && meta::namespace(&object).is_empty() {
                    meta::set_text(&mut object, "namespace", &info.namespace);
                }
                if flags.bool("save-config") {
                    last_applied::write(&mut object);
                }
                Call::post(&info.collection(), &object)
            }
            Mode::LastApplied => {
                let text = json_text::compact(&edited) + "\n";
                let patch = json!({"metadata": {"annotations": {ANNOTATION: text}}});
                Call::patch(&info.path(), three_way::MERGE, &patch)
            }
            Mode::Patch => {
                let mut edited = edited;
                if flags.bool("save-config") {
                    last_applied::write(&mut edited);
                }
                let patch = three_way::two_way(&info.object, &edited);
                if patch.is_empty() {
                    return self.results.print(&info.object, "skipped", &mut out);
                }
                if flags.bool("output-patch") {
                    writeln!(out, "Patch: {}", json_text::compact(&patch.body))?;
                }
                let path = match flags.text("subresource") {
                    "" => info.path(),
                    below => format!("{}/{below}", info.path()),
                };
                Call::patch(&path, patch.media_type, &patch.body)
            }
        };
        let call = call.query("fieldManager", manager).query_if("fieldValidation", validation);
        let answer = cluster.json(&call).await?;
        let operation = if self.mode == Mode::Create { "created" } else { "edited" };
        self.results.print(&answer, operation, &mut out)
    }
}

/// What stands above the objects.
fn header(reasons: &[Reason]) -> String {
    let mut text = String::from(
        "# Please edit the object below. Lines beginning with a '#' will be ignored,\n# and an empty file will abort the \
         edit. If an error occurs while saving this file will be\n# reopened with the relevant failures.\n#\n",
    );
    for reason in reasons {
        if reason.details.is_empty() {
            text.push_str(&format!("# {}\n", reason.head));
        } else {
            text.push_str(&format!("# {}:\n", reason.head));
        }
        for detail in &reason.details {
            text.push_str(&format!("# * {}\n", detail.replace('\n', "\n# ")));
        }
        text.push_str("#\n");
    }
    text
}

fn without_comments(text: &str) -> String {
    text.lines().filter(|l| !l.starts_with('#')).map(|l| format!("{l}\n")).collect()
}

/// Without the comments at the beginning.
fn without_header(text: &str) -> String {
    text.lines().skip_while(|l| l.starts_with('#')).map(|l| format!("{l}\n")).collect()
}
