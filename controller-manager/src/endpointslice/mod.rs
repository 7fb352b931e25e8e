//! EndpointSlices of Services with a selector.

mod plan;

use std::{collections::BTreeMap, sync::Arc};

use futures::StreamExt;
use k8s_openapi::api::{core::v1::{Pod, Service}, discovery::v1::EndpointSlice};
use kube::{
    Api, ResourceExt,
    runtime::{Controller, controller::Action, reflector::ObjectRef, watcher},
};
use machinery::{meta, selector::LabelSelector};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    objects::{selects, text},
    rest::{Rest, RestError},
    retry,
};

/// Runs the controller until `stop`.
pub async fn run(rest: Rest, stop: CancellationToken) {
    let client = rest.0.clone();
    let controller = Controller::new(Api::<Service>::all(client.clone()), watcher::Config::default())
        .owns(Api::<EndpointSlice>::all(client.clone()), watcher::Config::default());
    let services = controller.store();
    controller
        .watches(Api::<Pod>::all(client), watcher::Config::default(), move |pod| {
            let matching = services.state().into_iter().filter(|service| selects_pod(service, &pod));
            matching.map(|service| ObjectRef::from_obj(&*service)).collect::<Vec<_>>()
        })
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(|one, rest| async move { reconcile(&one, &rest).await }, retry, Arc::new(rest))
        .for_each(|_| async {})
        .await;
}

fn selects_pod(service: &Service, pod: &Pod) -> bool {
    let selector = service.spec.as_ref().and_then(|s| s.selector.as_ref()).filter(|s| !s.is_empty());
    let labels = pod.labels();
    service.namespace() == pod.namespace()
        && selector.is_some_and(|s| s.iter().all(|(key, value)| labels.get(key) == Some(value)))
}

async fn reconcile(service: &Service, rest: &Rest) -> Result<Action, RestError> {
    let namespace = service.namespace().unwrap_or_default();
    let service = match rest.get(&format!("/api/v1/namespaces/{namespace}/services/{}", service.name_any())).await {
        Err(error) if error.is_not_found() => return Ok(Action::await_change()),
        service => service?,
    };
    let selector = service.pointer("/spec/selector").and_then(Value::as_object).filter(|s| !s.is_empty());
    let Some(selector) = selector.filter(|_| text(&service, "/spec/type") != "ExternalName") else {
        return Ok(Action::await_change());
    };
    let selector = LabelSelector::from_map(selector.iter().filter_map(|(k, v)| v.as_str().map(|v| (k.as_str(), v))));
    let pods: Vec<Value> = rest.list(&format!("/api/v1/namespaces/{namespace}/pods"), "v1", "Pod").await?;
    let pods: Vec<Value> = pods.into_iter().filter(|p| selects(&selector, p)).collect();
    let root = format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices");
    let query = format!(
        "{root}?labelSelector=kubernetes.io/service-name={},endpointslice.kubernetes.io/managed-by={}",
        meta::name(&service),
        plan::MANAGER
    );
    let slices = rest.list(&query, "discovery.k8s.io/v1", "EndpointSlice").await?;
    let plan = plan::plan(&service, &pods, &slices, &zones(rest, &pods).await?);
    for slice in &plan.create {
        rest.create(&root, slice).await?;
    }
    for slice in &plan.update {
        rest.update(&format!("{root}/{}", meta::name(slice)), slice).await?;
    }
    for name in &plan.delete {
        match rest.delete(&format!("{root}/{name}"), &json!({})).await {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
    }
    Ok(Action::await_change())
}

/// Zones of the nodes that the Pods run on.
async fn zones(rest: &Rest, pods: &[Value]) -> Result<BTreeMap<String, String>, RestError> {
    let mut zones = BTreeMap::new();
    if pods.is_empty() {
        return Ok(zones);
    }
    for node in rest.list("/api/v1/nodes", "v1", "Node").await? {
        if let Some((_, zone)) = meta::text_map(&node, "labels").find(|(k, _)| *k == "topology.kubernetes.io/zone") {
            zones.insert(meta::name(&node).to_owned(), zone.to_owned());
        }
    }
    Ok(zones)
}
