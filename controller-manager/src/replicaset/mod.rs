//! ReplicaSets: as many Pods as wanted.

mod plan;

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::Pod};
use kube::{Api, ResourceExt, runtime::{Controller, controller::Action, watcher}};
use machinery::{meta, selector::LabelSelector};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::{
    objects::{Event, controller_of, controller_reference, is_active, now, record, selects, text},
    rest::{Rest, RestError},
    retry,
};

const COMPONENT: &str = "replicaset-controller";

/// Runs the controller until `stop`.
pub async fn run(rest: Rest, stop: CancellationToken) {
    let client = rest.0.clone();
    Controller::new(Api::<ReplicaSet>::all(client.clone()), watcher::Config::default())
        .owns(Api::<Pod>::all(client), watcher::Config::default())
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(|set, rest| async move { reconcile(&set, &rest).await }, retry, Arc::new(rest))
        .for_each(|_| async {})
        .await;
}

fn path(namespace: &str, name: &str) -> String {
    format!("/apis/apps/v1/namespaces/{namespace}/replicasets/{name}")
}

async fn reconcile(set: &ReplicaSet, rest: &Rest) -> Result<Action, RestError> {
    let namespace = set.namespace().unwrap_or_default();
    let set = match rest.get(&path(&namespace, &set.name_any())).await {
        Err(error) if error.is_not_found() => return Ok(Action::await_change()),
        set => set?,
    };
    let Ok(selector) = LabelSelector::from_object(&set["spec"]["selector"]) else { return Ok(Action::await_change()) };
    let pods = claim(rest, &set, &namespace, &selector).await?;
    let plan = plan::plan(&set, &pods);
    let failure = create(rest, &set, &namespace, plan.create).await?;
    for name in &plan.delete {
        delete(rest, &set, &namespace, name).await?;
    }
    let pods = if plan.create > 0 || !plan.delete.is_empty() {
        claim(rest, &set, &namespace, &selector).await?
    } else {
        pods
    };
    let (status, next) = plan::status(&set, &pods, failure.as_deref(), &now(), OffsetDateTime::now_utc());
    write_status(rest, &set, &namespace, status).await?;
    Ok(next.map_or_else(Action::await_change, |seconds| Action::requeue(Duration::from_secs(seconds))))
}

/// The Pods of the set: its own, and matching orphans, which it adopts. Own Pods that no longer match are released.
async fn claim(rest: &Rest, set: &Value, namespace: &str, selector: &LabelSelector) -> Result<Vec<Value>, RestError> {
    let collection = format!("/api/v1/namespaces/{namespace}/pods");
    let mut claimed = Vec::new();
    for pod in rest.list(&collection, "v1", "Pod").await? {
        let (owner, matches) = (controller_of(&pod), selects(selector, &pod));
        let item = format!("{collection}/{}", meta::name(&pod));
        if owner == meta::uid(set) {
            if matches || meta::is_deleting(set) {
                claimed.push(pod);
            } else {
                let others = pod.pointer("/metadata/ownerReferences").and_then(Value::as_array).cloned().unwrap_or_default();
                let others: Vec<Value> = others.into_iter().filter(|o| text(o, "/uid") != meta::uid(set)).collect();
                patch_owners(rest, &item, &pod, &others).await?;
            }
        } else if owner.is_empty() && matches && is_active(&pod) && !meta::is_deleting(set) {
            let mut owners = pod.pointer("/metadata/ownerReferences").and_then(Value::as_array).cloned().unwrap_or_default();
            owners.push(controller_reference(set));
            if patch_owners(rest, &item, &pod, &owners).await? {
                claimed.push(pod);
            }
        }
    }
    Ok(claimed)
}

/// Replaces the owners of the very Pod that was seen. False if it is gone or another one by now.
async fn patch_owners(rest: &Rest, item: &str, pod: &Value, owners: &[Value]) -> Result<bool, RestError> {
    let patch = json!({"metadata": {
        "uid": meta::uid(pod), "resourceVersion": meta::resource_version(pod), "ownerReferences": owners}});
    match rest.merge(item, &patch).await {
        Ok(_) => Ok(true),
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(false),
        Err(error) => Err(error),
    }
}

fn pod_of(set: &Value) -> Value {
    let template = &set["spec"]["template"];
    let mut metadata = json!({
        "generateName": format!("{}-", meta::name(set)),
        "namespace": meta::namespace(set),
        "ownerReferences": [controller_reference(set)],
    });
    for field in ["labels", "annotations", "finalizers"] {
        if let Some(value) = template.pointer(&format!("/metadata/{field}")) {
            metadata[field] = value.clone();
        }
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
}

/// Creates Pods in batches of 1, 2, 4...; the first failure ends it and is answered.
async fn create(rest: &Rest, set: &Value, namespace: &str, count: usize) -> Result<Option<String>, RestError> {
    let collection = format!("/api/v1/namespaces/{namespace}/pods");
    let (mut left, mut batch) = (count, 1);
    while left > 0 {
        let size = batch.min(left);
        let pod = pod_of(set);
        let outcomes = futures::future::join_all((0..size).map(|_| rest.create(&collection, &pod))).await;
        let mut failure = None;
        for outcome in outcomes {
            match outcome {
                Ok(pod) => {
                    let message = format!("Created pod: {}", meta::name(&pod));
                    record(rest, Event { about: set, kind: "Normal", reason: "SuccessfulCreate", message, component: COMPONENT }).await;
                }
                Err(error) if error.is_terminating_namespace() => return Ok(None),
                Err(error) => failure = Some(error.to_string()),
            }
        }
        if let Some(message) = failure {
            let text = format!("Error creating: {message}");
            record(rest, Event { about: set, kind: "Warning", reason: "FailedCreate", message: text, component: COMPONENT }).await;
            return Ok(Some(message));
        }
        left -= size;
        batch *= 2;
    }
    Ok(None)
}

async fn delete(rest: &Rest, set: &Value, namespace: &str, name: &str) -> Result<(), RestError> {
    match rest.delete(&format!("/api/v1/namespaces/{namespace}/pods/{name}"), &json!({})).await {
        Ok(_) => {
            let message = format!("Deleted pod: {name}");
            record(rest, Event { about: set, kind: "Normal", reason: "SuccessfulDelete", message, component: COMPONENT }).await;
            Ok(())
        }
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

async fn write_status(rest: &Rest, set: &Value, namespace: &str, status: Value) -> Result<(), RestError> {
    if set["status"] == status {
        return Ok(());
    }
    let mut new = set.clone();
    new["status"] = status;
    match rest.update(&format!("{}/status", path(namespace, meta::name(set))), &new).await {
        Err(error) if error.is_not_found() => Ok(()),
        outcome => outcome.map(drop),
    }
}
