//! `kubectl apply`.

mod applyset;
mod client;
mod last_applied;
pub(super) mod prune;
mod server;

use serde_json::{Value, json};

use self::applyset::ApplySet;
use crate::{
    command::Command,
    context::Context,
    error::CommandError,
    flags::Flag,
    print::{self, DryRun, Results},
    resolve::{self, Info, Query},
};

/// The manager of fields that are applied by the client.
pub(super) const CLIENT_MANAGER: &str = "kubectl-client-side-apply";
/// The manager of fields that are applied on the server.
pub(super) const SERVER_MANAGER: &str = "kubectl";

/// The command.
pub(crate) fn command() -> Command {
    Command::new("apply", "Apply a configuration to a resource by file name or stdin")
        .usage("(-f FILENAME | -k DIRECTORY)")
        .examples(&[
            "kubectl apply -f ./pod.json",
            "cat pod.json | kubectl apply -f -",
            "kubectl apply --server-side -f manifest.yaml",
            "kubectl apply --prune -f manifest.yaml -l app=nginx",
        ])
        .commands(vec![last_applied::edit(), last_applied::set(), last_applied::view()])
        .flags(resolve::file_flags("File, directory or URL with the configuration."))
        .flags(print::write_flags(CLIENT_MANAGER))
        .flags(super::delete::flags())
        .flags([
            resolve::selector_flag(),
            print::validate_flag(),
            Flag::switch("all", "Prune all objects of the pruned types."),
            Flag::switch("force-conflicts", "Take fields over from other managers (with --server-side)."),
            Flag::on("overwrite", "Values of the manifest win over changes that others made."),
            Flag::switch("prune", "Delete objects that were applied before and are not in the manifests."),
            prune::allow_flag(),
            Flag::switch("server-side", "Apply on the server."),
            Flag::on(
                "openapi-patch",
                "Kinds are patched as their schema says; built-in schemas say the same as the server's.",
            ),
            Flag::text("subresource", "", "Apply to this subresource (with --server-side): status, scale or resize."),
            Flag::switch("wait", "Wait until what is deleted is gone."),
        ])
        .flags(applyset::flag())
        .runs(|context| Box::pin(run(context)))
}

/// What the flags say.
pub(super) struct Options {
    pub(super) dry_run: DryRun,
    pub(super) manager: String,
    pub(super) validation: &'static str,
    pub(super) server_side: bool,
    pub(super) force_conflicts: bool,
    /// Subresource that is applied to; empty for the object.
    pub(super) subresource: String,
}

impl Options {
    async fn of(context: &Context, set: Option<&ApplySet>) -> Result<Self, CommandError> {
        let flags = &context.flags;
        let (dry_run, server_side) = (DryRun::of(context)?, flags.bool("server-side"));
        if flags.bool("force-conflicts") && !server_side {
            return Err(CommandError::plain("--force-conflicts only works with --server-side"));
        }
        if !flags.text("subresource").is_empty() && !server_side {
            return Err(CommandError::plain("--subresource can only be specified for --server-side"));
        }
        if dry_run == DryRun::Client && server_side {
            return Err(CommandError::plain(
                "--dry-run=client doesn't work with --server-side (did you mean --dry-run=server instead?)",
            ));
        }
        if flags.bool("force") && server_side {
            return Err(CommandError::plain("--force cannot be used with --server-side"));
        }
        if dry_run == DryRun::Server && flags.bool("force") {
            return Err(CommandError::plain("--dry-run=server cannot be used with --force"));
        }
        if flags.bool("all") && !flags.text("selector").is_empty() {
            return Err(CommandError::plain("cannot set --all and --selector at the same time"));
        }
        if let Some(set) = set {
            set.check(context).await?;
        }
        if flags.bool("force") && flags.bool("prune") {
            return Err(CommandError::plain("--force cannot be used with --prune"));
        }
        if flags.bool("prune") && set.is_none() && !flags.bool("all") && flags.text("selector").is_empty() {
            return Err(CommandError::plain(
                "all resources selected for prune without explicitly passing --all. To prune all resources, pass the \
                 --all flag. If you did not mean to prune all resources, specify a label selector",
            ));
        }
        let manager = match flags.given("field-manager") {
            true => flags.text("field-manager"),
            false if server_side => SERVER_MANAGER,
            false => CLIENT_MANAGER,
        };
        Ok(Self {
            dry_run,
            manager: manager.to_owned(),
            validation: print::field_validation(flags)?,
            server_side,
            force_conflicts: flags.bool("force-conflicts"),
            subresource: flags.text("subresource").to_owned(),
        })
    }
}

/// An object after it was applied, and how that is reported.
pub(super) struct Applied {
    pub(super) object: Value,
    pub(super) operation: &'static str,
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let query = Query::of(context).arguments(&[]);
    if !context.args.is_empty() {
        return Err(context.usage(format!("Unexpected args: {}", list(&context.args))));
    }
    query.sources.require()?;
    let mut set = ApplySet::of(context).await?;
    let options = Options::of(context, set.as_ref()).await?;
    let mut results = Results::of(context, options.dry_run)?;
    let mut out = context.streams.out.clone();
    let kinds = if set.is_some() { Vec::new() } else { prune::kinds(context).await? };
    let mut found = query.infos(context).await?;
    let mut errors = found.errors;
    if found.infos.is_empty() && errors.is_empty() {
        return Err(CommandError::plain("no objects passed to apply"));
    }
    if let Some(set) = &mut set {
        set.read(&*context.cluster().await?).await?;
        set.label(&mut found.infos)?;
        if applyset::is_kept(&options) {
            set.widen(context, &found.infos).await?;
        }
    }
    let mut done: Vec<(Info, Value)> = Vec::new();
    for info in found.infos {
        if info.name.is_empty() {
            let prefix = machinery::meta::text(&info.object, "generateName");
            errors.push(CommandError::plain(format!("from {prefix}: cannot use generate name with apply")));
            continue;
        }
        let outcome = match options.server_side {
            true => server::apply(context, &options, &info).await,
            false => client::apply(context, &options, &info).await,
        };
        match outcome {
            Ok(applied) => {
                warn_if_deleting(context, &info, &applied.object)?;
                if results.is_text() {
                    results.print(&applied.object, applied.operation, &mut out)?;
                }
                done.push((info, applied.object));
            }
            Err(error) => errors.push(error),
        }
    }
    if !results.is_text() {
        print_all(&mut results, done.iter().map(|(_, object)| object.clone()).collect(), &mut out)?;
    }
    CommandError::all(errors)?;
    if context.flags.bool("prune") {
        let left = match &set {
            Some(set) => set.left_over(&*context.cluster().await?, &done).await?,
            None => prune::left_over(context, &kinds, &done).await?,
        };
        prune::run(context, &options, left, &mut results).await?;
    }
    match set {
        Some(set) if applyset::is_kept(&options) => set.narrow(context, &done).await,
        _ => Ok(()),
    }
}

fn list(words: &[String]) -> String {
    format!("[{}]", words.join(" "))
}

/// One object as it is, several as a list.
fn print_all(
    results: &mut Results,
    mut objects: Vec<Value>,
    out: &mut crate::streams::Output,
) -> Result<(), CommandError> {
    match objects.len() {
        0 => Ok(()),
        1 => results.print(&objects.remove(0), "", out),
        _ => {
            let list = json!({"apiVersion": "v1", "items": objects, "kind": "List", "metadata": {}});
            results.print(&list, "", out)
        }
    }
}

fn warn_if_deleting(context: &Context, info: &Info, object: &Value) -> Result<(), CommandError> {
    use std::io::Write;
    if machinery::meta::is_deleting(object) {
        writeln!(
            context.streams.err.clone(),
            "Warning: Detected changes to resource {} which is currently being deleted.",
            info.name
        )?;
    }
    Ok(())
}
