//! The calls that the scheduler makes: bindings, Pod status, deletion of victims, claims and volumes that are to find
//! each other, events. Nothing else is written.

use std::time::Duration;

use client::ApiErrorExt;
use controller::ObjectKey;
use http::{Method, Request, header};
use k8s_openapi::api::resource::v1::ResourceClaim;
use kube::Client;
use serde_json::{Value, json};

use crate::objects::PodView;

/// Time for one call.
const DEADLINE: Duration = Duration::from_secs(30);

/// A call that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("{}", .0.text())]
    Api(Box<kube::Error>),
    #[error("no answer within {} seconds", DEADLINE.as_secs())]
    Late,
    #[error("cannot make the request: {0}")]
    Request(#[from] http::Error),
}

impl CallError {
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Api(error) if error.is_not_found())
    }
}

/// The API, as far as the scheduler writes to it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Api {
    client: Client,
}

impl Api {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// The whole Pod of the name, which may be another one by now.
    pub(crate) async fn pod(&self, pod: &PodView) -> Result<Value, CallError> {
        let request = Request::get(path_of(pod)).header(header::ACCEPT, "application/json").body(Vec::new())?;
        self.within(self.client.request(request)).await
    }

    async fn call(&self, method: Method, path: &str, media: &str, body: &Value) -> Result<(), CallError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, media)
            .header(header::ACCEPT, "application/json")
            .body(body.to_string().into_bytes())?;
        self.within(self.client.request_text(request)).await.map(drop)
    }

    /// The claims of devices in a namespace. Calls are to be made [`Api::within`] the deadline.
    pub(crate) fn claims(&self, namespace: &str) -> kube::Api<ResourceClaim> {
        kube::Api::namespaced(self.client.clone(), namespace)
    }

    /// Waits for calls, each of which has the deadline of one.
    pub(crate) async fn within<T>(&self, calls: impl Future<Output = Result<T, kube::Error>>) -> Result<T, CallError> {
        match tokio::time::timeout(DEADLINE, calls).await {
            Err(_) => Err(CallError::Late),
            Ok(outcome) => outcome.map_err(|error| CallError::Api(Box::new(error))),
        }
    }

    /// Binds a Pod to a node.
    pub(crate) async fn bind(&self, pod: &PodView, node: &str) -> Result<(), CallError> {
        let body = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": &*pod.name, "namespace": pod.namespace(), "uid": &*pod.uid},
            "target": {"kind": "Node", "name": node},
        });
        self.call(Method::POST, &format!("{}/binding", path_of(pod)), "application/json", &body).await
    }

    /// Patches the status of a Pod, if it still is the same one.
    pub(crate) async fn patch_status(&self, pod: &PodView, status: &Value) -> Result<(), CallError> {
        let body = json!({"metadata": {"uid": &*pod.uid}, "status": status});
        let media = "application/strategic-merge-patch+json";
        self.call(Method::PATCH, &format!("{}/status", path_of(pod)), media, &body).await
    }

    /// Deletes a Pod, if it still is the same one, with its own grace period.
    pub(crate) async fn delete(&self, pod: &PodView) -> Result<(), CallError> {
        let body = json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": &*pod.uid},
        });
        self.call(Method::DELETE, &path_of(pod), "application/json", &body).await
    }

    /// Patches a PersistentVolumeClaim.
    pub(crate) async fn patch_claim(&self, claim: &ObjectKey, patch: &Value) -> Result<(), CallError> {
        let path = format!("/api/v1/namespaces/{}/persistentvolumeclaims/{}", claim.namespace, claim.name);
        self.call(Method::PATCH, &path, "application/merge-patch+json", patch).await
    }

    /// Patches a PersistentVolume.
    pub(crate) async fn patch_volume(&self, name: &str, patch: &Value) -> Result<(), CallError> {
        let path = format!("/api/v1/persistentvolumes/{name}");
        self.call(Method::PATCH, &path, "application/merge-patch+json", patch).await
    }

    /// Writes an object of events.k8s.io/v1.
    pub(crate) async fn create_event(&self, namespace: &str, event: &Value) -> Result<(), CallError> {
        let path = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
        self.call(Method::POST, &path, "application/json", event).await
    }

    /// Patches an event.
    pub(crate) async fn patch_event(&self, namespace: &str, name: &str, patch: &Value) -> Result<(), CallError> {
        let path = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events/{name}");
        self.call(Method::PATCH, &path, "application/strategic-merge-patch+json", patch).await
    }
}

fn path_of(pod: &PodView) -> String {
    format!("/api/v1/namespaces/{}/pods/{}", pod.namespace(), pod.name)
}
