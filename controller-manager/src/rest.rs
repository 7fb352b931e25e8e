//! Requests to the API on value trees: what the controllers decide from is always read fresh from the server, so that
//! an own write is never mistaken for stale state.

use std::time::Duration;

use http::{Method, Request};
use kube::Client;
use serde_json::Value;

/// Longest time one request may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum RestError {
    /// The server answered with a Status.
    #[error("{0}")]
    Status(Box<kube::core::Status>),
    /// The server did not answer.
    #[error("request failed: {0}")]
    Transport(String),
    /// The server did not answer in time.
    #[error("request did not end in time")]
    Deadline,
}

impl RestError {
    /// Whether the object does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Status(status) if status.code == 404)
    }

    /// Whether the object exists, or was changed by somebody else.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Status(status) if status.code == 409)
    }

    /// Whether the namespace is going.
    pub fn is_terminating_namespace(&self) -> bool {
        matches!(self, Self::Status(status) if status.code == 403 && status.message.contains("because it is being terminated"))
    }
}

/// The API.
#[derive(Clone)]
pub struct Rest(pub Client);

impl Rest {
    async fn send(&self, method: Method, path: &str, media: &str, body: Vec<u8>) -> Result<Value, RestError> {
        let request = Request::builder().method(method).uri(path).header("content-type", media).body(body);
        let request = request.map_err(|e| RestError::Transport(e.to_string()))?;
        match tokio::time::timeout(DEADLINE, self.0.request::<Value>(request)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(kube::Error::Api(status))) => Err(RestError::Status(status)),
            Ok(Err(error)) => Err(RestError::Transport(error.to_string())),
            Err(_) => Err(RestError::Deadline),
        }
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Result<Value, RestError> {
        self.send(Method::GET, path, "application/json", Vec::new()).await
    }

    /// The items of a collection, with their kind filled in.
    pub async fn list(&self, path: &str, api_version: &str, kind: &str) -> Result<Vec<Value>, RestError> {
        let mut list = self.get(path).await?;
        let mut items = list["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
        for item in &mut items {
            item["apiVersion"] = api_version.into();
            item["kind"] = kind.into();
        }
        Ok(items)
    }

    /// POST.
    pub async fn create(&self, path: &str, object: &Value) -> Result<Value, RestError> {
        self.send(Method::POST, path, "application/json", object.to_string().into_bytes()).await
    }

    /// PUT.
    pub async fn update(&self, path: &str, object: &Value) -> Result<Value, RestError> {
        self.send(Method::PUT, path, "application/json", object.to_string().into_bytes()).await
    }

    /// PATCH by merge patch.
    pub async fn merge(&self, path: &str, patch: &Value) -> Result<Value, RestError> {
        self.send(Method::PATCH, path, "application/merge-patch+json", patch.to_string().into_bytes()).await
    }

    /// DELETE with options.
    pub async fn delete(&self, path: &str, options: &Value) -> Result<Value, RestError> {
        self.send(Method::DELETE, path, "application/json", options.to_string().into_bytes()).await
    }
}
