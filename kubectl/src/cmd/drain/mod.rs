//! `kubectl cordon`, `uncordon` and `drain`.

mod evict;
mod filter;

use std::io::Write;

use serde_json::{Value, json};

use crate::{
    cluster::{Call, Cluster},
    command::Command,
    context::Context,
    error::CommandError,
    flags::Flag,
    print::DryRun,
    resolve::{self, Info, Query},
};

/// `kubectl cordon`.
pub(crate) fn cordon() -> Command {
    Command::new("cordon", "Mark node as unschedulable")
        .usage("NODE")
        .examples(&["kubectl cordon foo"])
        .flags([DryRun::flag(), resolve::selector_flag()])
        .runs(|context| Box::pin(set(context, true)))
}

/// `kubectl uncordon`.
pub(crate) fn uncordon() -> Command {
    Command::new("uncordon", "Mark node as schedulable")
        .usage("NODE")
        .examples(&["kubectl uncordon foo"])
        .flags([DryRun::flag(), resolve::selector_flag()])
        .runs(|context| Box::pin(set(context, false)))
}

/// `kubectl drain`.
pub(crate) fn command() -> Command {
    Command::new("drain", "Drain node in preparation for maintenance")
        .usage("NODE")
        .examples(&["kubectl drain foo --force", "kubectl drain foo --grace-period=900"])
        .flags([
            DryRun::flag(),
            resolve::selector_flag(),
            resolve::chunk_flag(),
            Flag::switch("delete-emptydir-data", "Go on even if Pods lose the data of emptyDir volumes."),
            Flag::switch("disable-eviction", "Delete Pods instead of evicting them, whatever budgets say."),
            Flag::switch("force", "Go on even if Pods have no controller."),
            Flag::int("grace-period", "-1", "Seconds that Pods get to end; their own if negative."),
            Flag::switch("ignore-daemonsets", "Leave the Pods of DaemonSets alone."),
            Flag::text("pod-selector", "", "Label query of the Pods to evict."),
            Flag::int(
                "skip-wait-for-delete-timeout",
                "0",
                "Do not wait for Pods that are being deleted for more seconds than this.",
            ),
            Flag::duration("timeout", "0s", "Time after which to give up; 0 never does."),
        ])
        .runs(|context| Box::pin(drain(context)))
}

/// The Nodes that the arguments or the selector choose.
async fn nodes(context: &Context) -> Result<Vec<Info>, CommandError> {
    let name = context.path.rsplit(' ').next().unwrap_or("");
    let selector = context.flags.text("selector");
    if context.args.is_empty() && selector.is_empty() {
        return Err(context.usage(format!("USAGE: {name} NODE [flags]")));
    }
    if !context.args.is_empty() && !selector.is_empty() {
        return Err(context.usage("cannot specify both a node name and a --selector option"));
    }
    let slashed = context.args.iter().any(|argument| argument.contains('/'));
    let mut arguments = if slashed { Vec::new() } else { vec!["nodes".to_owned()] };
    arguments.extend(context.args.iter().cloned());
    Query::of(context).arguments(&arguments).infos(context).await?.all()
}

async fn set(context: &Context, unschedulable: bool) -> Result<(), CommandError> {
    let dry_run = DryRun::of(context)?;
    let infos = nodes(context).await?;
    let cluster = context.cluster().await?;
    let mut errors = Vec::new();
    for info in infos {
        if let Err(error) = mark(context, &cluster, &info, unschedulable, dry_run).await {
            errors.push(error);
        }
    }
    CommandError::all(errors)
}

/// Cordons or uncordons a Node and tells so.
async fn mark(
    context: &Context,
    cluster: &Cluster,
    info: &Info,
    unschedulable: bool,
    dry_run: DryRun,
) -> Result<(), CommandError> {
    let word = if unschedulable { "cordoned" } else { "uncordoned" };
    let mut out = context.streams.out.clone();
    let suffix = dry_run.suffix();
    if (info.object["spec"]["unschedulable"] == true) == unschedulable {
        writeln!(out, "node/{} already {word}{suffix}", info.name)?;
        return Ok(());
    }
    if dry_run != DryRun::Client {
        let value = if unschedulable { Value::Bool(true) } else { Value::Null };
        let patch = json!({"spec": {"unschedulable": value}});
        let call = Call::patch(&info.path(), "application/strategic-merge-patch+json", &patch)
            .query_if("dryRun", dry_run.query());
        cluster.json(&call).await.map_err(|error| match error.status() {
            Some(status) => {
                let verb = if unschedulable { "cordon" } else { "uncordon" };
                CommandError::plain(format!("unable to {verb} node {:?}: {}", info.name, status.message))
            }
            None => error,
        })?;
    }
    writeln!(out, "node/{} {word}{suffix}", info.name)?;
    out.flush()?;
    Ok(())
}

async fn drain(context: &Context) -> Result<(), CommandError> {
    let dry_run = DryRun::of(context)?;
    let selector = context.flags.text("pod-selector");
    if machinery::selector::LabelSelector::parse(selector).is_err() {
        return Err(CommandError::plain("--pod-selector=<pod_selector> must be a valid label selector"));
    }
    let infos = nodes(context).await?;
    let cluster = context.cluster().await?;
    for info in &infos {
        mark(context, &cluster, info, true, dry_run).await?;
    }
    let (mut out, mut err) = (context.streams.out.clone(), context.streams.err.clone());
    let (mut pending, mut failures) = (Vec::new(), Vec::new());
    for info in &infos {
        match empty(context, &cluster, info, dry_run).await {
            Ok(()) => {
                writeln!(out, "node/{} drained{}", info.name, dry_run.suffix())?;
                out.flush()?;
            }
            Err(reasons) => {
                let texts: Vec<String> = reasons.iter().map(ToString::to_string).collect();
                let shown = if texts.len() == 1 { texts[0].clone() } else { format!("[{}]", texts.join(", ")) };
                writeln!(
                    err,
                    "error: unable to drain node {:?} due to error: {shown}, continuing command...",
                    info.name
                )?;
                pending.push(info.name.as_str());
                failures.extend(texts);
            }
        }
    }
    if failures.is_empty() {
        return Ok(());
    }
    writeln!(err, "There are pending nodes to be drained:")?;
    for node in pending {
        writeln!(err, " {node}")?;
    }
    failures.dedup();
    Err(CommandError::Verbatim(failures.join("\n")))
}

/// Moves the Pods of a Node away.
async fn empty(context: &Context, cluster: &Cluster, node: &Info, dry_run: DryRun) -> Result<(), Vec<CommandError>> {
    let chosen = filter::choose(context, cluster, &node.name).await.map_err(|error| vec![error])?;
    if !chosen.errors.is_empty() {
        return Err(chosen.errors.into_iter().map(CommandError::plain).collect());
    }
    if !chosen.warnings.is_empty() {
        let written = writeln!(context.streams.err.clone(), "Warning: {}", chosen.warnings.join("; "));
        written.map_err(|error| vec![CommandError::from(error)])?;
    }
    evict::all(context, cluster, chosen.pods, dry_run).await
}
