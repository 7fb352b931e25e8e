//! ComponentStatus: the health of scheduler, controller manager and store, looked at when asked.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use axum::body::Body;
use generic::{
    endpoint::{Call, Handler},
    negotiate::Target,
    verbs::list,
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use machinery::{ApiError, ApiResult};
use rustls::ClientConfig;
use serde_json::{Map, Value, json};
use storage::contract::Store;
use streaming::forward;

use crate::connect::{dial, egress::Dialer};

/// Components that are asked on this machine, and their ports.
const COMPONENTS: [(&str, u16); 2] = [("controller-manager", 10257), ("scheduler", 10259)];
const STORE: &str = "etcd-0";
/// Time for one answer.
const DEADLINE: Duration = Duration::from_secs(20);
/// Bytes of an answer that are read.
const LONGEST: usize = 4096;
const DEPRECATED: &str = "v1 ComponentStatus is deprecated in v1.19+";

/// Serves get and list of ComponentStatus.
pub struct ComponentStatuses {
    /// What stands as `etcd-0`.
    pub store: Arc<dyn Store>,
    /// TLS towards the components, whose certificates are not checked.
    pub tls: Arc<ClientConfig>,
}

#[async_trait]
impl Handler for ComponentStatuses {
    async fn handle(&self, call: &Call) -> ApiResult<Response<Body>> {
        if call.method != Method::GET || !matches!(call.info.verb.as_str(), "get" | "list") {
            return Err(ApiError::method_not_allowed());
        }
        call.warnings.add(DEPRECATED);
        let name = call.info.name.as_str();
        if name.is_empty() {
            let (store, [(manager, manager_port), (scheduler, scheduler_port)]) = (self.store(), COMPONENTS);
            let (store, manager, scheduler) =
                tokio::join!(store, self.component(manager, manager_port), self.component(scheduler, scheduler_port));
            return list::respond(call, vec![manager, scheduler, store], Map::new());
        }
        let status = match COMPONENTS.into_iter().find(|(known, _)| *known == name) {
            Some((_, port)) => self.component(name, port).await,
            None if name == STORE => self.store().await,
            None => return Err(ApiError::not_found(&call.group_resource(), name)),
        };
        call.writer(Target::Plain)?.object(StatusCode::OK, status)
    }
}

impl ComponentStatuses {
    async fn component(&self, name: &str, port: u16) -> Value {
        let asked = tokio::time::timeout(DEADLINE, self.ask(port)).await;
        status(name, asked.unwrap_or_else(|_| Err(format!("no answer in {} s", DEADLINE.as_secs()))))
    }

    async fn store(&self) -> Value {
        let asked = tokio::time::timeout(DEADLINE, self.store.ping()).await;
        let health = match asked {
            Ok(Ok(())) => Ok("ok".to_owned()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer in {} s", DEADLINE.as_secs())),
        };
        status(STORE, health)
    }

    /// What `/healthz` of a component says, or why it says nothing.
    async fn ask(&self, port: u16) -> Result<String, String> {
        let url = format!("https://127.0.0.1:{port}/healthz");
        let failed = |error: String| format!("Get {url:?}: {error}");
        let connection = dial::connect(&Dialer::default(), "127.0.0.1", port, Some(&self.tls))
            .await
            .map_err(|e| failed(e.to_string()))?;
        let request = Request::get("/healthz").body(Body::empty()).map_err(|e| failed(e.to_string()))?;
        let answer = forward::send(connection, request, &format!("127.0.0.1:{port}")).await;
        let (parts, body) = answer.map_err(|e| failed(e.to_string()))?.into_parts();
        let body = Limited::new(body, LONGEST).collect().await.map_err(|e| failed(e.to_string()))?.to_bytes();
        let text = String::from_utf8_lossy(&body).into_owned();
        if parts.status == StatusCode::OK { Ok(text) } else { Err(text) }
    }
}

fn status(name: &str, health: Result<String, String>) -> Value {
    let condition = match health {
        Ok(message) => json!({"type": "Healthy", "status": "True", "message": message}),
        Err(error) => json!({"type": "Healthy", "status": "False", "error": error}),
    };
    json!({"kind": "ComponentStatus", "apiVersion": "v1", "metadata": {"name": name}, "conditions": [condition]})
}
