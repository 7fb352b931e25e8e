//! `kubectl rollout status`.

use std::io::Write;

use serde_json::Value;

use super::{flags, group_kind, objects};
use crate::{
    cluster::Cluster, command::Command, context::Context, error::CommandError, flags::Flag, follow, pods, resolve::Info,
};

const REVISION: &str = "deployment.kubernetes.io/revision";
const UNROLLED: &str = "rollout status is only available for RollingUpdate strategy type";

/// The command.
pub(super) fn command() -> Command {
    Command::new("status", "Show the status of the rollout")
        .usage("(TYPE NAME | TYPE/NAME) [flags]")
        .examples(&["kubectl rollout status deployment/nginx"])
        .flags(flags("File, directory or URL with the resource."))
        .flags([
            Flag::on("watch", "Go on until the rollout is done.").short('w'),
            Flag::int("revision", "0", "The revision that has to be rolled out; 0 for the latest."),
            Flag::duration("timeout", "0s", "Time after which to give up; 0 never does."),
        ])
        .runs(|context| Box::pin(run(context)))
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let (infos, mut errors) = objects(context).await?;
    let cluster = context.cluster().await?;
    for info in infos {
        if let Err(error) = one(context, &cluster, info).await {
            errors.push(error);
            break;
        }
    }
    CommandError::all(errors)
}

async fn one(context: &Context, cluster: &Cluster, info: Info) -> Result<(), CommandError> {
    let kind = info.resource.kind.as_str();
    let judge = match (info.resource.group.as_str(), kind) {
        ("apps", "Deployment") => deployment,
        ("apps", "DaemonSet") => daemon_set,
        ("apps", "StatefulSet") => stateful_set,
        _ => {
            let kind = group_kind(&info);
            return Err(CommandError::plain(format!("no status viewer has been implemented for {kind}")));
        }
    };
    let limit = context.flags.duration("timeout");
    let followed = watch(context, cluster, info, judge);
    if limit.is_zero() {
        return followed.await;
    }
    tokio::time::timeout(limit, followed).await.unwrap_or_else(|_| Err(pods::timed_out()))
}

/// What is told of an object, and whether its rollout is done.
type Judge = fn(&Value, i64) -> Result<(String, bool), CommandError>;

async fn watch(context: &Context, cluster: &Cluster, info: Info, judge: Judge) -> Result<(), CommandError> {
    let mut out = context.streams.out.clone();
    let revision = context.flags.int("revision");
    follow::until(context, cluster, &info, |object| {
        let object = object.ok_or_else(|| CommandError::plain("object has been deleted"))?;
        let (text, done) = judge(object, revision)?;
        writeln!(out, "{text}")?;
        out.flush()?;
        Ok((done || !context.flags.bool("watch")).then_some(()))
    })
    .await
}

fn number(object: &Value, part: &str, field: &str) -> i64 {
    object[part][field].as_i64().unwrap_or(0)
}

fn is_observed(object: &Value) -> bool {
    number(object, "metadata", "generation") <= number(object, "status", "observedGeneration")
}

fn deployment(object: &Value, revision: i64) -> Result<(String, bool), CommandError> {
    let name = object["metadata"]["name"].as_str().unwrap_or("");
    if revision > 0 {
        let running = object["metadata"]["annotations"][REVISION].as_str().unwrap_or("0");
        if running != revision.to_string() {
            return Err(CommandError::plain(format!(
                "desired revision ({revision}) is different from the running revision ({running})"
            )));
        }
    }
    if !is_observed(object) {
        return Ok(("Waiting for deployment spec update to be observed...".into(), false));
    }
    if pods::condition(object, "Progressing").is_some_and(|c| c["reason"] == "ProgressDeadlineExceeded") {
        return Err(CommandError::plain(format!("deployment {name:?} exceeded its progress deadline")));
    }
    let wanted = object["spec"]["replicas"].as_i64();
    let [updated, all, available] =
        ["updatedReplicas", "replicas", "availableReplicas"].map(|field| number(object, "status", field));
    let waiting = format!("Waiting for deployment {name:?} rollout to finish");
    Ok(match wanted {
        Some(wanted) if updated < wanted => {
            (format!("{waiting}: {updated} out of {wanted} new replicas have been updated..."), false)
        }
        _ if all > updated => (format!("{waiting}: {} old replicas are pending termination...", all - updated), false),
        _ if available < updated => {
            (format!("{waiting}: {available} of {updated} updated replicas are available..."), false)
        }
        _ => (format!("deployment {name:?} successfully rolled out"), true),
    })
}

fn daemon_set(object: &Value, _: i64) -> Result<(String, bool), CommandError> {
    let name = object["metadata"]["name"].as_str().unwrap_or("");
    if object["spec"]["updateStrategy"]["type"] != "RollingUpdate" {
        return Err(CommandError::plain(UNROLLED));
    }
    if !is_observed(object) {
        return Ok(("Waiting for daemon set spec update to be observed...".into(), false));
    }
    let [updated, wanted, available] = ["updatedNumberScheduled", "desiredNumberScheduled", "numberAvailable"]
        .map(|field| number(object, "status", field));
    let waiting = format!("Waiting for daemon set {name:?} rollout to finish");
    Ok(if updated < wanted {
        (format!("{waiting}: {updated} out of {wanted} new pods have been updated..."), false)
    } else if available < wanted {
        (format!("{waiting}: {available} of {wanted} updated pods are available..."), false)
    } else {
        (format!("daemon set {name:?} successfully rolled out"), true)
    })
}

fn stateful_set(object: &Value, _: i64) -> Result<(String, bool), CommandError> {
    let strategy = &object["spec"]["updateStrategy"];
    if strategy["type"] != "RollingUpdate" {
        return Err(CommandError::plain(UNROLLED));
    }
    if number(object, "status", "observedGeneration") == 0 || !is_observed(object) {
        return Ok(("Waiting for statefulset spec update to be observed...".into(), false));
    }
    let wanted = object["spec"]["replicas"].as_i64();
    let [ready, updated, current] =
        ["readyReplicas", "updatedReplicas", "currentReplicas"].map(|field| number(object, "status", field));
    if let Some(wanted) = wanted.filter(|wanted| ready < *wanted) {
        return Ok((format!("Waiting for {} pods to be ready...", wanted - ready), false));
    }
    if !strategy["rollingUpdate"].is_null() {
        if let (Some(wanted), Some(partition)) = (wanted, strategy["rollingUpdate"]["partition"].as_i64())
            && updated < wanted - partition
        {
            let new = wanted - partition;
            let text = "Waiting for partitioned roll out to finish";
            return Ok((format!("{text}: {updated} out of {new} new pods have been updated..."), false));
        }
        return Ok((format!("partitioned roll out complete: {updated} new pods have been updated..."), true));
    }
    let revision = |field: &str| object["status"][field].as_str().unwrap_or("").to_owned();
    let (update, running) = (revision("updateRevision"), revision("currentRevision"));
    Ok(match update == running {
        false => (
            format!("waiting for statefulset rolling update to complete {updated} pods at revision {update}..."),
            false,
        ),
        true => (format!("statefulset rolling update complete {current} pods at revision {running}..."), true),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn deployments_by_their_numbers() {
        let told = |updated: i64, all: i64, available: i64| {
            let object = json!({"metadata": {"name": "web", "generation": 2}, "spec": {"replicas": 3}, "status":
                {"observedGeneration": 2, "updatedReplicas": updated, "replicas": all, "availableReplicas": available}});
            deployment(&object, 0).expect("judged").0.replace("Waiting for deployment \"web\" rollout to finish: ", "")
        };
        assert_eq!(told(1, 3, 3), "1 out of 3 new replicas have been updated...");
        assert_eq!(told(3, 4, 3), "1 old replicas are pending termination...");
        assert_eq!(told(3, 3, 2), "2 of 3 updated replicas are available...");
        assert_eq!(told(3, 3, 3), "deployment \"web\" successfully rolled out");
        let late = json!({"metadata": {"name": "web"}, "status": {"conditions":
            [{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]}});
        let error = deployment(&late, 0).expect_err("too late");
        assert_eq!(error.to_string(), "deployment \"web\" exceeded its progress deadline");
    }

    #[test]
    fn stateful_sets_with_partitions() {
        let object = |updated: i64, ready: i64| {
            json!({"metadata": {"generation": 1}, "spec": {"replicas": 3, "updateStrategy":
                {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}},
                "status": {"observedGeneration": 1, "updatedReplicas": updated, "readyReplicas": ready}})
        };
        let told = |updated, ready| stateful_set(&object(updated, ready), 0).expect("judged");
        assert_eq!(told(0, 1), ("Waiting for 2 pods to be ready...".into(), false));
        let waiting = "Waiting for partitioned roll out to finish: 1 out of 2 new pods have been updated...";
        assert_eq!(told(1, 3), (waiting.into(), false));
        assert_eq!(told(2, 3), ("partitioned roll out complete: 2 new pods have been updated...".into(), true));
    }
}
