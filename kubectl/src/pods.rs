//! Which Pod and which container a command is about, when it names a workload or no container.

use std::{io::Write, time::Duration};

use machinery::{meta, selector::LabelSelector};
use serde_json::Value;

use crate::{
    cluster::{Call, Cluster},
    context::Context,
    describe,
    error::CommandError,
    resolve::{Info, Query},
    streams::Output,
};

/// Annotation with the container that commands choose.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
/// Time between two looks at Pods that are waited for.
const POLL: Duration = Duration::from_millis(500);

/// Order in which Pods of a workload are preferred.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prefer {
    /// Running longest.
    Oldest,
    /// The same, for logs.
    Logs,
}

/// The one object that an argument names; a bare name is a Pod.
pub(crate) async fn named(context: &Context, argument: &str, expected: &str) -> Result<Info, CommandError> {
    let query = Query { arguments: target(argument), ..Query::of(context) };
    let mut infos = query.infos(context).await?.all()?;
    if infos.len() != 1 {
        return Err(CommandError::plain(expected.to_owned()));
    }
    Ok(infos.remove(0))
}

fn target(argument: &str) -> Vec<String> {
    if argument.contains('/') { vec![argument.to_owned()] } else { vec!["pods".to_owned(), argument.to_owned()] }
}

/// The Pods that an object stands for: itself, or those that it selects.
pub(crate) fn selector_of(info: &Info) -> Result<LabelSelector, CommandError> {
    let spec = &info.object["spec"];
    let kind = info.object["kind"].as_str().unwrap_or("");
    match kind {
        "Service" | "ReplicationController" => {
            let labels = spec["selector"].as_object().filter(|labels| !labels.is_empty()).ok_or_else(|| {
                let lower = if kind == "Service" { "service" } else { "replication controller" };
                let name = &info.name;
                CommandError::plain(format!("invalid {lower} '{name}': {kind} is defined without a selector"))
            })?;
            Ok(LabelSelector::from_map(labels.iter().map(|(k, v)| (k.as_str(), v.as_str().unwrap_or("")))))
        }
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" | "Job" => {
            LabelSelector::from_object(&spec["selector"])
                .map_err(|e| CommandError::plain(format!("invalid label selector: {e}")))
        }
        other => Err(CommandError::plain(format!("selector for *v1.{other} not implemented"))),
    }
}

/// The Pod of an object, waited for, and how many there were.
pub(crate) async fn of_object(
    cluster: &Cluster,
    info: Info,
    prefer: Prefer,
    limit: Duration,
) -> Result<(Value, usize), CommandError> {
    if info.object["kind"] == "Pod" {
        return Ok((info.object, 1));
    }
    let selector = selector_of(&info)?.to_string();
    let path = format!("/api/v1/namespaces/{}/pods", info.namespace);
    let look = async {
        loop {
            let call = Call::get(&path).query("labelSelector", selector.clone());
            let mut pods = describe::list(cluster, call).await?;
            pods.sort_by_cached_key(|pod| order(pod, prefer));
            let count = pods.len();
            if let Some(best) = pods.into_iter().next() {
                return Ok((best, count));
            }
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(limit, look).await.unwrap_or_else(|_| Err(timed_out()))
}

/// Whether the Pods of an object can be found at all.
pub(crate) fn check_attachable(info: &Info) -> Result<(), CommandError> {
    let kind = info.object["kind"].as_str().unwrap_or("");
    if kind == "Pod" {
        return Ok(());
    }
    let unfit = |error| CommandError::plain(format!("cannot attach to *v1.{kind}: {error}"));
    selector_of(info).map(|_| ()).map_err(unfit)
}

/// What waiting without success ends with.
pub(crate) fn timed_out() -> CommandError {
    CommandError::plain("timed out waiting for the condition")
}

/// The best Pod has the smallest key.
fn order(pod: &Value, prefer: Prefer) -> (bool, u8, bool, String, i64, String) {
    let status = &pod["status"];
    let phase = match status["phase"].as_str().unwrap_or("") {
        "Running" => 0,
        "Unknown" => 1,
        "Pending" => 2,
        _ => 3,
    };
    let ready = condition(pod, "Ready");
    let is_ready = ready.is_some_and(|c| c["status"] == "True");
    let since = ready.and_then(|c| c["lastTransitionTime"].as_str()).filter(|_| is_ready).unwrap_or("").to_owned();
    let restarts = status["containerStatuses"].as_array().into_iter().flatten();
    let restarts = restarts.filter_map(|c| c["restartCount"].as_i64()).max().unwrap_or(0);
    // For logs, what restarted most is looked at first.
    let restarts = if prefer == Prefer::Logs { -restarts } else { restarts };
    let assigned = pod["spec"]["nodeName"].as_str().is_some_and(|n| !n.is_empty());
    (!assigned, phase, !is_ready, since, restarts, meta::text(pod, "creationTimestamp").to_owned())
}

/// A condition of an object by its type.
pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

/// Names of containers, as the lists of a Pod name them.
pub(crate) fn containers(pod: &Value) -> Vec<String> {
    let of = |field: &str, note: &str| -> Vec<String> {
        let list = pod["spec"][field].as_array().into_iter().flatten();
        list.map(|c| format!("{}{note}", c["name"].as_str().unwrap_or(""))).collect()
    };
    [of("containers", ""), of("ephemeralContainers", " (ephem)"), of("initContainers", " (init)")].concat()
}

/// Whether a Pod has a container of this name in any list.
pub(crate) fn has_container(pod: &Value, name: &str) -> bool {
    container(pod, name).is_some()
}

/// A container by its name.
pub(crate) fn container<'a>(pod: &'a Value, name: &str) -> Option<&'a Value> {
    ["containers", "initContainers", "ephemeralContainers"]
        .iter()
        .filter_map(|field| pod["spec"][*field].as_array())
        .flatten()
        .find(|container| container["name"] == name)
}

/// A container that was named, if the Pod has it.
pub(crate) fn valid_container(pod: &Value, name: &str) -> Result<String, CommandError> {
    if has_container(pod, name) {
        return Ok(name.to_owned());
    }
    let (pod_name, all) = (meta::name(pod), containers(pod).join(", "));
    Err(CommandError::plain(format!("container {name} is not valid for pod {pod_name} out of: {all}")))
}

/// The container that a command is about if none was named; tells which, unless quiet.
pub(crate) fn default_container(context: &Context, pod: &Value, quiet: bool) -> Result<String, CommandError> {
    default_container_told(&mut context.streams.err.clone(), pod, quiet)
}

/// The same, told to an output.
pub(crate) fn default_container_told(err: &mut Output, pod: &Value, quiet: bool) -> Result<String, CommandError> {
    let annotated = pod["metadata"]["annotations"][DEFAULT_CONTAINER].as_str().unwrap_or("");
    if !annotated.is_empty() {
        if has_container(pod, annotated) {
            return Ok(annotated.to_owned());
        }
        writeln!(err, "Default container name {annotated:?} not found in pod {}", meta::name(pod))?;
    }
    let first = pod["spec"]["containers"][0]["name"].as_str().unwrap_or("").to_owned();
    let all = containers(pod);
    if first.is_empty() {
        return Err(CommandError::plain(format!("pod {} does not have any containers", meta::name(pod))));
    }
    if all.len() > 1 && !quiet {
        writeln!(err, "Defaulted container {first:?} out of: {}", all.join(", "))?;
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(phase: &str, ready: Option<&str>, restarts: i64) -> Value {
        let mut pod = json!({"spec": {"nodeName": "n"}, "status": {"phase": phase,
            "containerStatuses": [{"restartCount": restarts}]}});
        if let Some(at) = ready {
            pod["status"]["conditions"] = json!([{"type": "Ready", "status": "True", "lastTransitionTime": at}]);
        }
        pod
    }

    #[test]
    fn the_longest_ready_pod_is_preferred() {
        let ordered = [
            pod("Running", Some("2026-01-01T00:00:00Z"), 5),
            pod("Running", Some("2026-01-02T00:00:00Z"), 0),
            pod("Running", None, 0),
            pod("Running", None, 1),
            pod("Pending", None, 0),
            json!({"status": {"phase": "Running"}}),
        ];
        for pair in ordered.windows(2) {
            assert!(order(&pair[0], Prefer::Oldest) < order(&pair[1], Prefer::Oldest), "{} {}", pair[0], pair[1]);
        }
        assert!(order(&ordered[3], Prefer::Logs) < order(&ordered[2], Prefer::Logs));
    }

    #[test]
    fn containers_are_listed_with_their_kind() {
        let pod = json!({"spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "i"}],
            "ephemeralContainers": [{"name": "e"}]}});
        assert_eq!(containers(&pod).join(", "), "a, e (ephem), i (init)");
        assert!(has_container(&pod, "i") && !has_container(&pod, "x"));
    }
}
