//! Pausing, resuming and restarting.

use jiff::Zoned;
use serde_json::{Value, json};

use super::{flags, objects};
use crate::{
    cluster::Call,
    command::Command,
    context::Context,
    error::CommandError,
    flags::Flag,
    print::{self, DryRun, Results},
    resolve::Info,
};

const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

/// The patch of an object, or why there is none.
type Plan = fn(&Info) -> Result<Value, String>;

fn subcommand(name: &'static str, short: &'static str) -> Command {
    Command::new(name, short)
        .usage("RESOURCE")
        .flags(flags("File, directory or URL with the resource."))
        .flags(print::flags())
        .flags([Flag::text("field-manager", "kubectl-rollout", "Name that the changed fields are owned by.")])
}

/// `kubectl rollout pause`.
pub(super) fn pause() -> Command {
    subcommand("pause", "Mark the provided resource as paused")
        .examples(&["kubectl rollout pause deployment/nginx"])
        .runs(|context| Box::pin(run(context, plan_pause, "paused")))
}

/// `kubectl rollout resume`.
pub(super) fn resume() -> Command {
    subcommand("resume", "Resume a paused resource")
        .examples(&["kubectl rollout resume deployment/nginx"])
        .runs(|context| Box::pin(run(context, plan_resume, "resumed")))
}

/// `kubectl rollout restart`.
pub(super) fn restart() -> Command {
    subcommand("restart", "Restart a resource")
        .examples(&[
            "kubectl rollout restart deployment/nginx",
            "kubectl rollout restart deployment --selector=app=nginx",
        ])
        .runs(|context| Box::pin(run(context, plan_restart, "restarted")))
}

fn is_deployment(info: &Info) -> bool {
    info.resource.group == "apps" && info.resource.kind == "Deployment"
}

fn plan_pause(info: &Info) -> Result<Value, String> {
    match (is_deployment(info), info.object["spec"]["paused"] == true) {
        (false, _) => Err("pausing is not supported".to_owned()),
        (true, true) => Err("is already paused".to_owned()),
        (true, false) => Ok(json!({"spec": {"paused": true}})),
    }
}

fn plan_resume(info: &Info) -> Result<Value, String> {
    match (is_deployment(info), info.object["spec"]["paused"] == true) {
        (false, _) => Err("resuming is not supported".to_owned()),
        (true, false) => Err("is not paused".to_owned()),
        (true, true) => Ok(json!({"spec": {"paused": null}})),
    }
}

fn plan_restart(info: &Info) -> Result<Value, String> {
    let kind = info.resource.kind.as_str();
    if info.resource.group != "apps" || !["Deployment", "DaemonSet", "StatefulSet"].contains(&kind) {
        return Err("restarting is not supported".to_owned());
    }
    if info.object["spec"]["paused"] == true {
        return Err("can't restart paused deployment (run rollout resume first)".to_owned());
    }
    let now = Zoned::now().strftime("%Y-%m-%dT%H:%M:%S%:z").to_string().replace("+00:00", "Z");
    if info.object["spec"]["template"]["metadata"]["annotations"][RESTARTED_AT] == json!(now) {
        return Err(String::new());
    }
    Ok(json!({"spec": {"template": {"metadata": {"annotations": {RESTARTED_AT: now}}}}}))
}

async fn run(context: &Context, plan: Plan, operation: &str) -> Result<(), CommandError> {
    let mut results = Results::of(context, DryRun::None)?;
    let mut out = context.streams.out.clone();
    let (infos, mut errors) = objects(context).await?;
    let cluster = context.cluster().await?;
    for info in infos {
        let patch = match plan(&info) {
            Ok(patch) => patch,
            Err(reason) if reason.is_empty() => {
                errors.push(CommandError::plain(format!(
                    "failed to create patch for {}: if restart has already been triggered within the past second, \
                     please wait before attempting to trigger another",
                    info.name
                )));
                continue;
            }
            Err(reason) => {
                errors.push(CommandError::plain(format!("{} {:?} {reason}", info.resource.title(), info.name)));
                continue;
            }
        };
        let call = Call::patch(&info.path(), "application/strategic-merge-patch+json", &patch)
            .query("fieldManager", context.flags.text("field-manager"));
        match cluster.json(&call).await {
            Ok(object) => results.print(&object, operation, &mut out)?,
            Err(error) => errors.push(match error.status() {
                Some(status) => CommandError::plain(format!("failed to patch: {}", status.message)),
                None => error,
            }),
        }
    }
    CommandError::all(errors)
}
