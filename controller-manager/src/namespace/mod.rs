//! What every namespace has (the `default` ServiceAccount, the root CA), and how one goes.

use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::{
    Api, ResourceExt,
    runtime::{Controller, controller::Action, reflector::ObjectRef, watcher},
};
use machinery::meta;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    objects::text,
    rest::{Rest, RestError},
    retry,
};

const ROOT_CA: &str = "kube-root-ca.crt";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
    endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across \
    distributions of Kubernetes clusters.";
/// Time between looks at a namespace whose content is still going.
const DRAIN: std::time::Duration = std::time::Duration::from_secs(1);

struct Context {
    rest: Rest,
    /// PEM bundle of `--root-ca-file`; without it no ConfigMap is published.
    root_ca: Option<String>,
}

/// Runs the controller until `stop`.
pub async fn run(rest: Rest, root_ca: Option<String>, stop: CancellationToken) {
    let client = rest.0.clone();
    let named = |name: &str| watcher::Config::default().fields(&format!("metadata.name={name}"));
    let to_namespace = |namespace: Option<String>| namespace.map(|n| ObjectRef::<Namespace>::new(&n));
    Controller::new(Api::<Namespace>::all(client.clone()), watcher::Config::default())
        .watches(Api::<ServiceAccount>::all(client.clone()), named("default"), move |o| to_namespace(o.namespace()))
        .watches(Api::<ConfigMap>::all(client), named(ROOT_CA), move |o| to_namespace(o.namespace()))
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(
            |one, context| async move { reconcile(&one.name_any(), &context).await },
            |_, error, _| retry(Arc::new(()), error, Arc::new(())),
            Arc::new(Context { rest, root_ca }),
        )
        .for_each(|_| async {})
        .await;
}

async fn reconcile(name: &str, context: &Context) -> Result<Action, RestError> {
    let rest = &context.rest;
    let namespace = match rest.get(&format!("/api/v1/namespaces/{name}")).await {
        Err(error) if error.is_not_found() => return Ok(Action::await_change()),
        namespace => namespace?,
    };
    if meta::is_deleting(&namespace) {
        return drain(rest, &namespace).await;
    }
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}});
    ensure(rest, &format!("/api/v1/namespaces/{name}/serviceaccounts"), &account).await?;
    if let Some(root_ca) = &context.root_ca {
        publish(rest, name, root_ca).await?;
    }
    Ok(Action::await_change())
}

async fn ensure(rest: &Rest, collection: &str, object: &Value) -> Result<(), RestError> {
    match rest.get(&format!("{collection}/{}", meta::name(object))).await {
        Err(error) if error.is_not_found() => match rest.create(collection, object).await {
            Err(error) if !error.is_conflict() && !error.is_terminating_namespace() => Err(error),
            _ => Ok(()),
        },
        outcome => outcome.map(drop),
    }
}

async fn publish(rest: &Rest, namespace: &str, root_ca: &str) -> Result<(), RestError> {
    let collection = format!("/api/v1/namespaces/{namespace}/configmaps");
    let wanted = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {
            "name": ROOT_CA, "namespace": namespace,
            "annotations": {"kubernetes.io/description": DESCRIPTION},
        },
        "data": {"ca.crt": root_ca},
    });
    ensure(rest, &collection, &wanted).await?;
    let path = format!("{collection}/{ROOT_CA}");
    let present = rest.get(&path).await?;
    if present["data"] == wanted["data"] {
        return Ok(());
    }
    let mut restored = present;
    restored["data"] = wanted["data"].clone();
    rest.update(&path, &restored).await.map(drop)
}

/// Deletes everything in the namespace, Pods last; then takes the finalizer off.
async fn drain(rest: &Rest, namespace: &Value) -> Result<Action, RestError> {
    let name = meta::name(namespace);
    let mut left = 0;
    for (path, is_pods) in collections(rest, name).await? {
        let items = rest.get(&path).await?["items"].as_array().map_or(0, Vec::len);
        left += items;
        // Pods go when what they may still need to say goodbye to is gone from the API's point of view.
        if items > 0 && (!is_pods || left == items) {
            rest.delete(&path, &json!({"propagationPolicy": "Background"})).await?;
        }
    }
    if left > 0 {
        return Ok(Action::requeue(DRAIN));
    }
    let mut done = namespace.clone();
    done["spec"]["finalizers"] = json!([]);
    match rest.update(&format!("/api/v1/namespaces/{name}/finalize"), &done).await {
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
        _ => Ok(Action::await_change()),
    }
}

/// Deletable collections of a namespace with whether they are the Pods, Pods last.
async fn collections(rest: &Rest, namespace: &str) -> Result<Vec<(String, bool)>, RestError> {
    let mut roots = vec![("/api/v1".to_owned(), rest.get("/api/v1").await?)];
    for group in rest.get("/apis").await?["groups"].as_array().into_iter().flatten() {
        let version = text(group, "/preferredVersion/groupVersion");
        roots.push((format!("/apis/{version}"), rest.get(&format!("/apis/{version}")).await?));
    }
    let mut all = Vec::new();
    for (root, list) in &roots {
        for resource in list["resources"].as_array().into_iter().flatten() {
            let verbs = resource["verbs"].as_array().into_iter().flatten();
            let deletable = verbs.clone().any(|v| v == "deletecollection") && verbs.clone().any(|v| v == "list");
            let plural = text(resource, "/name");
            // The events of events.k8s.io are those of the core group.
            let twice = plural == "events" && root != "/api/v1";
            if resource["namespaced"] == true && deletable && !plural.contains('/') && !twice {
                all.push((format!("{root}/namespaces/{namespace}/{plural}"), plural == "pods"));
            }
        }
    }
    all.sort_by_key(|(_, is_pods)| *is_pods);
    Ok(all)
}
