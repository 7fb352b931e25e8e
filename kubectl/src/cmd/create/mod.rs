//! `kubectl create`: from manifests, or by the generators below.

mod configmap;
mod deployment;
mod ingress;
mod job;
mod policy;
mod rbac;
mod secret;
mod service;
mod simple;
mod source;
mod token;

use serde_json::{Value, json};

use crate::{
    cluster::Call,
    command::Command,
    context::Context,
    error::CommandError,
    flags::Flag,
    last_applied,
    print::{self, DryRun, Results},
    resolve::{self, Query, arguments::of_kind, files},
};

/// The command.
pub(crate) fn command() -> Command {
    Command::new("create", "Create a resource from a file or from stdin")
        .usage("-f FILENAME")
        .examples(&["kubectl create -f ./pod.json", "cat pod.json | kubectl create -f -"])
        .commands(vec![
            rbac::cluster_role(),
            rbac::cluster_role_binding(),
            configmap::command(),
            job::cron_job(),
            deployment::command(),
            ingress::command(),
            job::job(),
            simple::namespace(),
            policy::disruption_budget(),
            policy::priority_class(),
            policy::quota(),
            rbac::role(),
            rbac::role_binding(),
            secret::command(),
            service::command(),
            simple::service_account(),
            token::command(),
        ])
        .flags(resolve::file_flags("File, directory or URL with the resources to create."))
        .flags(print::write_flags("kubectl-create"))
        .flags([
            resolve::selector_flag(),
            print::validate_flag(),
            save_config(),
            Flag::switch("edit", "Edit the manifests before they are sent."),
            super::edit::line_endings_flag(),
            Flag::text("raw", "", "POST the file to this path of the server."),
        ])
        .runs(|context| Box::pin(run(context)))
}

fn save_config() -> Flag {
    Flag::switch("save-config", "Keep the configuration in an annotation, for apply.")
}

/// Flags of all generators.
fn generator_flags() -> Vec<Flag> {
    let mut flags = print::write_flags("kubectl-create");
    flags.extend([save_config(), print::validate_flag()]);
    flags
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let query = Query::of(context).arguments(&[]);
    if query.sources.is_empty() && !context.args.is_empty() {
        return Err(context.usage(format!("Unexpected args: [{}]", context.args.join(" "))));
    }
    query.sources.require()?;
    if !context.args.is_empty() {
        return Err(context.usage(format!("Unexpected args: [{}]", context.args.join(" "))));
    }
    if let Some(path) = context.flags.non_empty("raw") {
        return raw(context, path, &query).await;
    }
    if context.flags.bool("edit") {
        return super::edit::before_create(context, &query).await;
    }
    let dry_run = DryRun::of(context)?;
    let validation = print::field_validation(&context.flags)?;
    let mut results = Results::of(context, dry_run)?;
    let mut out = context.streams.out.clone();
    let found = query.infos(context).await?;
    let mut errors = found.errors;
    if found.infos.is_empty() && errors.is_empty() {
        return Err(CommandError::plain("no objects passed to create"));
    }
    for mut info in found.infos {
        if context.flags.bool("save-config") {
            last_applied::write(&mut info.object);
        }
        if dry_run == DryRun::Client {
            results.print(&info.object, "created", &mut out)?;
            continue;
        }
        let call = Call::post(&info.collection(), &info.object)
            .query_if("dryRun", dry_run.query())
            .query("fieldManager", context.flags.text("field-manager"))
            .query("fieldValidation", validation);
        match context.cluster().await?.json(&call).await {
            Ok(created) => results.print(&created, "created", &mut out)?,
            Err(error) => errors.push(error.during(format!("error when creating {:?}", info.source))),
        }
    }
    CommandError::all(errors)
}

/// `--raw`: POSTs one file as it is.
async fn raw(context: &Context, path: &str, query: &Query) -> Result<(), CommandError> {
    let [file] = query.sources.filenames.as_slice() else {
        return Err(CommandError::plain("--raw can only use a single local file or stdin"));
    };
    files::send_raw(context, http::Method::POST, path, file).await
}

/// An object that a generator made, with what to do with it.
struct Generated {
    object: Value,
    namespaced: bool,
    /// What a failure begins with, such as `failed to create deployment: `; empty for the server's words alone.
    failure: &'static str,
}

impl Generated {
    fn new(object: Value, failure: &'static str) -> Self {
        Self { object, namespaced: true, failure }
    }

    fn in_cluster_scope(mut self) -> Self {
        self.namespaced = false;
        self
    }

    /// Prints the object or creates it.
    async fn finish(mut self, context: &Context) -> Result<(), CommandError> {
        let dry_run = DryRun::of(context)?;
        let validation = print::field_validation(&context.flags)?;
        let mut results = Results::of(context, dry_run)?;
        let mut out = context.streams.out.clone();
        let selected = context.selected()?;
        if self.namespaced && selected.enforced {
            self.object["metadata"]["namespace"] = json!(selected.namespace);
        }
        if context.flags.bool("save-config") {
            last_applied::write_declared(&mut self.object);
        }
        if dry_run == DryRun::Client {
            return results.print_declared(&self.object, "created", &mut out);
        }
        let cluster = context.cluster().await?;
        let resource = of_kind(&cluster, &self.object).await?;
        let namespace = if self.namespaced { cluster.namespace.as_str() } else { "" };
        let call = Call::post(&resource.path(namespace), &self.object)
            .query_if("dryRun", dry_run.query())
            .query("fieldManager", context.flags.text("field-manager"))
            .query("fieldValidation", validation);
        match cluster.json(&call).await {
            Ok(mut created) => {
                // Typed objects have a status even when it is empty.
                let has_status = print::declared::schema(&created).and_then(|s| s.field("status")).is_some();
                if has_status && created.get("status").is_none() {
                    created["status"] = json!({});
                }
                results.print_declared(&created, "created", &mut out)
            }
            Err(error) if self.failure.is_empty() => Err(error),
            Err(error) => Err(failed(self.failure, &error)),
        }
    }
}

/// A failure of a generator: the server's words after its own.
fn failed(what: &str, error: &CommandError) -> CommandError {
    match error.status() {
        Some(status) => CommandError::plain(format!("{what}{}", status.message)),
        None => CommandError::plain(format!("{what}{error}")),
    }
}
