//! Deployments: rollouts over ReplicaSets.

mod plan;

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kube::{Api, ResourceExt, runtime::{Controller, controller::Action, watcher}};
use machinery::{meta, selector::LabelSelector};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use self::plan::Step;
use crate::{
    objects::{Event, controller_of, controller_reference, now, number, record, selects},
    rest::{Rest, RestError},
    retry,
};

const COMPONENT: &str = "deployment-controller";

/// Runs the controller until `stop`.
pub async fn run(rest: Rest, stop: CancellationToken) {
    let client = rest.0.clone();
    Controller::new(Api::<Deployment>::all(client.clone()), watcher::Config::default())
        .owns(Api::<ReplicaSet>::all(client), watcher::Config::default())
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(|one, rest| async move { reconcile(&one, &rest).await }, retry, Arc::new(rest))
        .for_each(|_| async {})
        .await;
}

fn root(namespace: &str) -> String {
    format!("/apis/apps/v1/namespaces/{namespace}")
}

async fn reconcile(deployment: &Deployment, rest: &Rest) -> Result<Action, RestError> {
    let root = root(&deployment.namespace().unwrap_or_default());
    let path = format!("{root}/deployments/{}", deployment.name_any());
    let deployment = match rest.get(&path).await {
        Err(error) if error.is_not_found() => return Ok(Action::await_change()),
        deployment => deployment?,
    };
    let Ok(selector) = LabelSelector::from_object(&deployment["spec"]["selector"]) else {
        return Ok(Action::await_change());
    };
    let sets = claim(rest, &root, &deployment, &selector).await?;
    let outcome = act(rest, &root, &path, &deployment, &sets).await;
    let sets = claim(rest, &root, &deployment, &selector).await?;
    sync_revision(rest, &path, &root, &deployment, &sets).await?;
    write_status(rest, &path, &deployment, &sets).await?;
    outcome?;
    let deadline = deployment.pointer("/spec/progressDeadlineSeconds").and_then(Value::as_u64).unwrap_or(600);
    Ok(Action::requeue(Duration::from_secs(deadline + 1)))
}

/// The ReplicaSets of the Deployment: its own, and matching orphans, which it adopts.
async fn claim(rest: &Rest, root: &str, deployment: &Value, selector: &LabelSelector) -> Result<Vec<Value>, RestError> {
    let mut claimed = Vec::new();
    for set in rest.list(&format!("{root}/replicasets"), "apps/v1", "ReplicaSet").await? {
        let owner = controller_of(&set);
        if owner == meta::uid(deployment) {
            claimed.push(set);
        } else if owner.is_empty() && selects(selector, &set) && !meta::is_deleting(&set) && !meta::is_deleting(deployment) {
            let mut owners = set.pointer("/metadata/ownerReferences").and_then(Value::as_array).cloned().unwrap_or_default();
            owners.push(controller_reference(deployment));
            let patch = json!({"metadata": {"uid": meta::uid(&set),
                "resourceVersion": meta::resource_version(&set), "ownerReferences": owners}});
            claimed.push(rest.merge(&format!("{root}/replicasets/{}", meta::name(&set)), &patch).await?);
        }
    }
    Ok(claimed)
}

async fn act(rest: &Rest, root: &str, path: &str, deployment: &Value, sets: &[Value]) -> Result<(), RestError> {
    match plan::step(deployment, sets) {
        Step::Rest => Ok(()),
        Step::Create(new) => create(rest, root, path, deployment, &new).await,
        Step::Scale(changes) => {
            for (name, size) in changes {
                scale(rest, root, deployment, sets, &name, size).await?;
            }
            Ok(())
        }
        Step::Clean(names) => {
            for name in names {
                match rest.delete(&format!("{root}/replicasets/{name}"), &json!({})).await {
                    Err(error) if !error.is_not_found() => return Err(error),
                    _ => {}
                }
            }
            Ok(())
        }
    }
}

async fn create(rest: &Rest, root: &str, path: &str, deployment: &Value, new: &Value) -> Result<(), RestError> {
    let name = meta::name(new);
    match rest.create(&format!("{root}/replicasets"), new).await {
        Ok(_) => {
            let size = number(new, "/spec/replicas");
            if size > 0 {
                told(rest, deployment, format!("Scaled up replica set {name} from 0 to {size}")).await;
            }
            Ok(())
        }
        // Somebody else's ReplicaSet has the name: the next hash is another one.
        Err(error) if error.is_conflict() => {
            let present = rest.get(&format!("{root}/replicasets/{name}")).await?;
            if controller_of(&present) == meta::uid(deployment) {
                return Ok(());
            }
            let mut counted = deployment.clone();
            counted["status"]["collisionCount"] = json!(number(deployment, "/status/collisionCount") + 1);
            rest.update(&format!("{path}/status"), &counted).await.map(drop)
        }
        Err(error) if error.is_terminating_namespace() => Ok(()),
        Err(error) => {
            let message = format!("Failed to create new replica set {name:?}: {error}");
            let event = Event { about: deployment, kind: "Warning", reason: "ReplicaSetCreateError", message, component: COMPONENT };
            record(rest, event).await;
            Err(error)
        }
    }
}

async fn told(rest: &Rest, deployment: &Value, message: String) {
    let event = Event { about: deployment, kind: "Normal", reason: "ScalingReplicaSet", message, component: COMPONENT };
    record(rest, event).await;
}

async fn scale(
    rest: &Rest,
    root: &str,
    deployment: &Value,
    sets: &[Value],
    name: &str,
    size: i64,
) -> Result<(), RestError> {
    let Some(set) = sets.iter().find(|s| meta::name(s) == name) else { return Ok(()) };
    let from = number(set, "/spec/replicas");
    let mut new = set.clone();
    new["spec"]["replicas"] = json!(size);
    rest.update(&format!("{root}/replicasets/{name}"), &new).await?;
    let direction = if size > from { "up" } else { "down" };
    told(rest, deployment, format!("Scaled {direction} replica set {name} from {from} to {size}")).await;
    Ok(())
}

/// The newest ReplicaSet carries the highest revision, and the Deployment shows it.
async fn sync_revision(rest: &Rest, path: &str, root: &str, deployment: &Value, sets: &[Value]) -> Result<(), RestError> {
    let Some(new) = plan::newest(deployment, sets).filter(|_| !meta::is_deleting(deployment)) else { return Ok(()) };
    let wanted = plan::annotations(deployment, sets, Some(new));
    let has = |object: &Value, key: &str| object.pointer("/metadata/annotations").and_then(|a| a.get(key)).cloned();
    if wanted.iter().any(|(key, value)| has(new, key).as_ref() != Some(value)) {
        let patch = json!({"metadata": {"annotations": wanted}});
        rest.merge(&format!("{root}/replicasets/{}", meta::name(new)), &patch).await?;
    }
    let revision = wanted.get(plan::REVISION);
    if has(deployment, plan::REVISION).as_ref() != revision {
        let patch = json!({"metadata": {"annotations": {plan::REVISION: revision}}});
        rest.merge(path, &patch).await?;
    }
    Ok(())
}

async fn write_status(rest: &Rest, path: &str, deployment: &Value, sets: &[Value]) -> Result<(), RestError> {
    let current = match rest.get(path).await {
        Err(error) if error.is_not_found() => return Ok(()),
        current => current?,
    };
    // The spec may have changed since the step was taken: its status is of the state that was acted on.
    let mut of = current.clone();
    of["spec"] = deployment["spec"].clone();
    of["metadata"]["generation"] = deployment["metadata"]["generation"].clone();
    let status = plan::status(&of, sets, &now());
    if current["status"] == status {
        return Ok(());
    }
    let mut new = current;
    new["status"] = status;
    match rest.update(&format!("{path}/status"), &new).await {
        Err(error) if error.is_not_found() => Ok(()),
        outcome => outcome.map(drop),
    }
}
