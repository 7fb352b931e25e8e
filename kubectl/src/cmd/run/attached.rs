//! A Pod that `kubectl run` stays with.

use std::{io::Write, time::Duration};

use futures::StreamExt;
use http_body_util::BodyExt;
use machinery::meta;
use serde_json::Value;

use crate::{
    cluster::{Call, Cluster},
    cmd::attach::{self, Wanted},
    context::Context,
    error::CommandError,
    follow, pods,
    resolve::{Info, arguments::of_kind},
};

/// Time to wait for a deletion when no other was given.
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
const ENDED: [&str; 2] = ["Succeeded", "Failed"];

async fn info(cluster: &Cluster, pod: &Value) -> Result<Info, CommandError> {
    Ok(Info {
        resource: of_kind(cluster, pod).await?,
        namespace: meta::namespace(pod).to_owned(),
        name: meta::name(pod).to_owned(),
        source: String::new(),
        object: pod.clone(),
    })
}

fn phase(pod: &Value) -> &str {
    pod["status"]["phase"].as_str().unwrap_or("")
}

/// Waits until the Pod runs, attaches, and ends as its container ends.
pub(super) async fn run(context: &Context, pod: &Value) -> Result<(), CommandError> {
    let cluster = context.cluster().await?;
    let flags = &context.flags;
    let mut info = info(&cluster, pod).await?;
    let started = follow::until(context, &cluster, &info, |pod| {
        let pod = pod.ok_or_else(|| CommandError::plain(format!("pods {:?} not found", info.name)))?;
        let ready = pods::condition(pod, "Ready").is_some_and(|condition| condition["status"] == "True");
        let done = ENDED.contains(&phase(pod)) || (phase(pod) == "Running" && ready);
        Ok(done.then(|| pod.clone()))
    });
    let limit = flags.duration("pod-running-timeout");
    info.object = tokio::time::timeout(limit, started).await.unwrap_or_else(|_| Err(pods::timed_out()))?;
    if ENDED.contains(&phase(&info.object)) {
        logs(context, &cluster, &info).await?;
    } else {
        let wanted =
            Wanted { container: "", stdin: flags.bool("stdin"), tty: flags.bool("tty"), quiet: flags.bool("quiet") };
        if let Err(error) = attach::to_pod(context, &cluster, &info.object, &wanted).await {
            if matches!(error, CommandError::Exit(_)) {
                return Err(error);
            }
            writeln!(
                context.streams.err.clone(),
                "warning: couldn't attach to pod/{}, falling back to streaming logs: {error}",
                info.name
            )?;
            logs(context, &cluster, &info).await?;
        }
    }
    if flags.text("restart") == "Always" || flags.bool("leave-stdin-open") {
        return Ok(());
    }
    info.fetch(&cluster).await?;
    let ended = follow::until(context, &cluster, &info, |pod| {
        let pod = pod.ok_or_else(|| CommandError::plain(format!("pods {:?} not found", info.name)))?;
        Ok(ENDED.contains(&phase(pod)).then(|| pod.clone()))
    })
    .await?;
    outcome(&ended)
}

/// How a Pod that ended makes the command end.
fn outcome(pod: &Value) -> Result<(), CommandError> {
    if phase(pod) == "Succeeded" {
        return Ok(());
    }
    let title = format!("pod {}/{}", meta::namespace(pod), meta::name(pod));
    let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    let code = ended["exitCode"].as_i64().unwrap_or(0);
    if code == 0 {
        return Err(CommandError::plain(format!("{title} failed with unknown exit code")));
    }
    let text = |field: &str| ended[field].as_str().unwrap_or("");
    let error = CommandError::Verbatim(format!("{title} terminated ({})\n{}", text("reason"), text("message")));
    // Processes end with one byte.
    Err(error.with_code((code & 0xff) as u8))
}

/// The container's log, to its end.
async fn logs(context: &Context, cluster: &Cluster, info: &Info) -> Result<(), CommandError> {
    let call = Call::get(&format!("{}/log", info.path())).query("follow", "true");
    let mut body = cluster.send(&call).await?.into_body().into_data_stream();
    let mut out = context.streams.out.clone();
    while let Some(bytes) = body.next().await {
        out.write_all(&bytes.map_err(|e| CommandError::plain(e.to_string()))?)?;
        out.flush()?;
    }
    Ok(())
}

/// `--rm`.
pub(super) async fn remove(context: &Context, pod: &Value) -> Result<(), CommandError> {
    let cluster = context.cluster().await?;
    let info = info(&cluster, pod).await?;
    let options = crate::cmd::delete::options(context)?;
    match cluster.json(&Call::delete(&info.path(), &options)).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ if context.flags.bool("quiet") => Ok(()),
        _ => {
            writeln!(context.streams.out.clone(), "{}", crate::cmd::delete::deleted(&info, false))?;
            if !context.flags.bool("wait") {
                return Ok(());
            }
            let limit = context.flags.duration("timeout");
            crate::cmd::delete::until_gone(&cluster, &info, if limit.is_zero() { WEEK } else { limit }).await
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_exit_code_is_the_containers() {
        assert!(outcome(&json!({"status": {"phase": "Succeeded"}})).is_ok());
        let failed = json!({"metadata": {"name": "p", "namespace": "n"}, "status": {"phase": "Failed", "containerStatuses":
            [{"state": {"terminated": {"exitCode": 3, "reason": "Error"}}}]}});
        let error = outcome(&failed).expect_err("failed");
        assert_eq!((error.code(), error.to_string().as_str()), (3, "pod n/p terminated (Error)\n"));
    }
}
