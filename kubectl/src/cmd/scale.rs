//! `kubectl scale`.

use std::time::Duration;

use machinery::meta;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    cluster::{Call, Cluster},
    command::Command,
    context::Context,
    error::CommandError,
    flags::Flag,
    print::{self, DryRun, Results},
    resolve::{self, Info, Query},
};

/// Time between tries, and between looks at the status.
const PAUSE: Duration = Duration::from_secs(1);
/// Time for which conflicts are met with another try.
const LIMIT: Duration = Duration::from_secs(5 * 60);

/// The command.
pub(crate) fn command() -> Command {
    Command::new("scale", "Set a new size for a deployment, replica set, or replication controller")
        .usage("[--resource-version=version] [--current-replicas=count] --replicas=COUNT (-f FILENAME | TYPE NAME)")
        .examples(&[
            "kubectl scale --replicas=3 rs/foo",
            "kubectl scale --current-replicas=2 --replicas=3 deployment/mysql",
        ])
        .flags(resolve::file_flags("File, directory or URL with the resource to scale."))
        .flags(print::flags())
        .flags([
            DryRun::flag(),
            resolve::selector_flag(),
            Flag::switch("all", "All objects of the types in the namespace."),
            Flag::int("current-replicas", "-1", "Scale only what has this size; -1 for any."),
            Flag::int("replicas", "0", "The new size. Required.").required(),
            Flag::text("resource-version", "", "Scale only what has this version."),
            Flag::duration("timeout", "0s", "Time to wait until the size is reached; 0 for no wait."),
        ])
        .runs(|context| Box::pin(run(context)))
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let flags = &context.flags;
    let replicas = flags.int("replicas");
    if replicas < 0 {
        return Err(CommandError::plain(
            "The --replicas=COUNT flag is required, and COUNT must be greater than or equal to 0",
        ));
    }
    let dry_run = DryRun::of(context)?;
    let mut results = Results::of(context, dry_run)?;
    let mut out = context.streams.out.clone();
    let found = Query::of(context).infos(context).await?;
    let mut errors = found.errors;
    if !flags.text("resource-version").is_empty() && found.infos.len() > 1 {
        return Err(CommandError::plain("cannot use --resource-version with multiple resources"));
    }
    if found.infos.is_empty() && errors.is_empty() {
        return Err(CommandError::plain("no objects passed to scale"));
    }
    let cluster = context.cluster().await?;
    for info in found.infos {
        if dry_run != DryRun::Client
            && let Err(error) = scale(context, &cluster, &info, replicas, dry_run).await
        {
            errors.push(error);
            continue;
        }
        results.print(&info.object, "scaled", &mut out)?;
        if !flags.duration("timeout").is_zero() && dry_run == DryRun::None {
            errors.extend(reached(context, &cluster, &info, replicas).await.err());
        }
    }
    CommandError::all(errors)
}

async fn scale(
    context: &Context,
    cluster: &Cluster,
    info: &Info,
    replicas: i64,
    dry_run: DryRun,
) -> Result<(), CommandError> {
    let (current, version) = (context.flags.int("current-replicas"), context.flags.text("resource-version"));
    let path = format!("{}/scale", info.path());
    if current < 0 && version.is_empty() {
        let patch = json!({"spec": {"replicas": replicas}});
        let call = Call::patch(&path, "application/merge-patch+json", &patch).query_if("dryRun", dry_run.query());
        return cluster.json(&call).await.map(drop);
    }
    let end = Instant::now() + LIMIT;
    loop {
        let mut scale: Value = cluster.get(&path).await?;
        let size = scale["spec"]["replicas"].as_i64().unwrap_or(0);
        if current >= 0 && size != current {
            return Err(CommandError::plain(format!("Expected replicas to be {current}, was {size}")));
        }
        let found = meta::resource_version(&scale);
        if !version.is_empty() && found != version {
            return Err(CommandError::plain(format!("Expected resource version to be {version}, was {found}")));
        }
        scale["spec"]["replicas"] = json!(replicas);
        let call = Call::put(&path, &scale).query_if("dryRun", dry_run.query());
        match cluster.json(&call).await {
            Err(error) if error.has_reason("Conflict") && Instant::now() < end => tokio::time::sleep(PAUSE).await,
            answer => return answer.map(drop),
        }
    }
}

/// Waits until the size is what was asked for.
async fn reached(context: &Context, cluster: &Cluster, info: &Info, replicas: i64) -> Result<(), CommandError> {
    let end = Instant::now() + context.flags.duration("timeout");
    loop {
        let scale = cluster.get(&format!("{}/scale", info.path())).await?;
        let (wanted, held) = (scale["spec"]["replicas"].as_i64(), scale["status"]["replicas"].as_i64().unwrap_or(0));
        if wanted == Some(replicas) && held == replicas {
            return Ok(());
        }
        if Instant::now() >= end {
            return Err(CommandError::plain(format!("timed out waiting for {:?} to be synced", info.name)));
        }
        tokio::time::sleep(PAUSE).await;
    }
}
