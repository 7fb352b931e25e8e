//! Evicting Pods and waiting until they are gone.

use std::{io::Write, time::Duration};

use futures::{StreamExt, stream};
use machinery::meta;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    cluster::{Call, Cluster},
    context::Context,
    error::CommandError,
    print::DryRun,
};

/// Time before a refused eviction is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// Time between two looks at a Pod that is to be gone.
const POLL: Duration = Duration::from_secs(1);
/// Pods that are evicted at once.
const PARALLEL: usize = 100;

/// How Pods are moved away.
struct Eviction<'a> {
    context: &'a Context,
    cluster: &'a Cluster,
    dry_run: DryRun,
    /// Pods are deleted, as the server or the user wants no evictions.
    delete: bool,
    limit: Duration,
    deadline: Option<Instant>,
}

/// Moves all Pods away at once.
pub(super) async fn all(
    context: &Context,
    cluster: &Cluster,
    pods: Vec<Value>,
    dry_run: DryRun,
) -> Result<(), Vec<CommandError>> {
    let limit = context.flags.duration("timeout");
    let delete = context.flags.bool("disable-eviction");
    let deadline = (!limit.is_zero()).then(|| Instant::now() + limit);
    let eviction = Eviction { context, cluster, dry_run, delete, limit, deadline };
    let errors: Vec<CommandError> = stream::iter(&pods)
        .map(|pod| eviction.one(pod))
        .buffer_unordered(PARALLEL)
        .filter_map(async |outcome| outcome.err())
        .collect()
        .await;
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

impl Eviction<'_> {
    async fn one(&self, pod: &Value) -> Result<(), CommandError> {
        let (namespace, name) = (meta::namespace(pod), meta::name(pod));
        let suffix = self.dry_run.suffix();
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
        let mut out = self.context.streams.out.clone();
        loop {
            let verb = if self.delete { "deleting" } else { "evicting" };
            writeln!(out, "{verb} pod {namespace}/{name}{suffix}")?;
            out.flush()?;
            if self.dry_run == DryRun::Client {
                return Ok(());
            }
            let Err(error) = self.cluster.json(&self.call(&path, namespace, name)).await else { break };
            let Some(status) = error.status() else { return Err(error) };
            match status.reason.as_str() {
                "NotFound" => break,
                "TooManyRequests" => {
                    let message = status.message.clone();
                    writeln!(
                        self.context.streams.err.clone(),
                        "error when evicting pods/{name:?} -n {namespace:?} (will retry after 5s): {message}"
                    )?;
                    self.pause(RETRY, name, namespace).await?;
                }
                _ => {
                    let verb = if self.delete { "deleting" } else { "evicting" };
                    let message = &status.message;
                    let text = format!("error when {verb} pods/{name:?} -n {namespace:?}: {message}");
                    return Err(CommandError::plain(text));
                }
            }
        }
        if self.dry_run == DryRun::Server {
            return Ok(());
        }
        self.gone(&path, pod).await?;
        let word = if self.delete { "deleted" } else { "evicted" };
        writeln!(out, "pod/{name} {word}")?;
        out.flush()?;
        Ok(())
    }

    fn call(&self, path: &str, namespace: &str, name: &str) -> Call {
        let seconds = self.context.flags.int("grace-period");
        let mut options = json!({});
        if seconds >= 0 {
            options["gracePeriodSeconds"] = seconds.into();
        }
        let mut options = self.dry_run.in_options(options);
        if self.delete {
            options["apiVersion"] = "v1".into();
            options["kind"] = "DeleteOptions".into();
            return Call::delete(path, &options);
        }
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": {"name": name, "namespace": namespace}, "deleteOptions": options});
        Call::post(&format!("{path}/eviction"), &eviction)
    }

    /// Waits, unless the time is over or the user stops.
    async fn pause(&self, time: Duration, name: &str, namespace: &str) -> Result<(), CommandError> {
        let over = async {
            match self.deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = over => {
                let limit = machinery::duration::format(machinery::duration::GoDuration(self.limit.as_nanos() as i64));
                let text = format!("error when evicting pods/{name:?} -n {namespace:?}: global timeout reached: {limit}");
                Err(CommandError::plain(text))
            }
            () = tokio::time::sleep(time) => Ok(()),
            () = self.context.stop.cancelled() => Err(CommandError::Exit(130)),
        }
    }

    /// Waits until a Pod is gone, or another has its name.
    async fn gone(&self, path: &str, pod: &Value) -> Result<(), CommandError> {
        loop {
            match self.cluster.get(path).await {
                Ok(now) if meta::uid(&now) != meta::uid(pod) => return Ok(()),
                Ok(now) if self.is_skipped(&now) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.status().is_some_and(|status| status.reason == "NotFound") => return Ok(()),
                Err(error) => return Err(error),
            }
            self.pause(POLL, meta::name(pod), meta::namespace(pod)).await?;
        }
    }

    /// Whether a Pod has been going for longer than is waited for.
    fn is_skipped(&self, pod: &Value) -> bool {
        let limit = self.context.flags.int("skip-wait-for-delete-timeout");
        let deleted = meta::text(pod, "deletionTimestamp").parse::<jiff::Timestamp>().ok();
        limit > 0 && deleted.is_some_and(|at| jiff::Timestamp::now().as_second() - at.as_second() > limit)
    }
}
