//! `pods/log`: the kubelet's container log, streamed.

use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use generic::{
    endpoint::{Call, Handler},
    resource::Resource,
};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use machinery::{
    ApiError, ApiResult, GroupKind,
    field::{ErrorList, Path},
    meta,
};
use serde_json::json;
use streaming::{forward, upgrade::Refusal};

use util::percent_encode;

use super::{backend_failure, kubelet::Kubelets, place::Place};

/// Longest text of a kubelet's failure, bytes.
const MAX_ERROR: usize = 10 * 1024;
/// Parameters that the kubelet is given as they are.
const PASSED: [&str; 8] =
    ["follow", "previous", "timestamps", "sinceSeconds", "sinceTime", "tailLines", "limitBytes", "stream"];

/// Handler of logs.
pub struct Logs {
    /// The Pods.
    pub pods: Arc<Resource>,
    /// Their kubelets.
    pub kubelets: Arc<Kubelets>,
}

#[async_trait]
impl Handler for Logs {
    async fn handle(&self, call: &Call) -> ApiResult<Response<Body>> {
        if call.method != Method::GET {
            return Err(ApiError::method_not_allowed());
        }
        validate(call)?;
        let place = Place::of(call, &self.pods).await?;
        let container = place.container(call.query.get("container"))?;
        if place.node().is_empty() {
            return Ok(text(Body::empty()));
        }
        let kubelet = self.kubelets.of(place.node()).await?;
        let (namespace, pod) = (meta::namespace(place.pod()), meta::name(place.pod()));
        let mut target = format!(
            "/containerLogs/{}/{}/{}",
            percent_encode(namespace),
            percent_encode(pod),
            percent_encode(container)
        );
        let parameters: Vec<String> = PASSED
            .iter()
            .filter_map(|name| call.query.get(name).map(|value| format!("{name}={}", percent_encode(value))))
            .collect();
        if !parameters.is_empty() {
            target = format!("{target}?{}", parameters.join("&"));
        }
        let url = format!("https://{}{target}", kubelet.authority());
        let verified = !call.query.flag("insecureSkipTLSVerifyBackend");
        let connection =
            self.kubelets.connect(&kubelet, verified).await.map_err(|error| error.of_request("GET", &url))?;
        let request = Request::builder().uri(target).body(Body::empty()).map_err(ApiError::internal)?;
        let answer = forward::send(connection, request, &kubelet.authority()).await;
        let answer = answer.map_err(|error| ApiError::internal(format!("Get {url:?}: {error}")))?;
        if !(200..=206).contains(&answer.status().as_u16()) {
            return Err(backend_failure(&read(answer).await, "pods/log", pod));
        }
        Ok(text(answer.into_body()))
    }
}

fn text(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    *response.status_mut() = StatusCode::OK;
    response
}

async fn read(answer: Response<Body>) -> Refusal {
    let (parts, body) = answer.into_parts();
    let collected = Limited::new(body, MAX_ERROR).collect().await;
    Refusal {
        status: parts.status,
        content_type: parts.headers.get(header::CONTENT_TYPE).cloned(),
        body: collected.map(|c| c.to_bytes()).unwrap_or_default(),
    }
}

/// PodLogOptions as the API has them.
fn validate(call: &Call) -> ApiResult<()> {
    let mut errors = ErrorList::default();
    let number = |name: &str| match call.query.get(name).filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => text
            .parse::<i64>()
            .map(Some)
            .map_err(|_| ApiError::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))),
    };
    let (tail, limit, since) = (number("tailLines")?, number("limitBytes")?, number("sinceSeconds")?);
    if let Some(tail) = tail.filter(|tail| *tail < 0) {
        errors.invalid(&Path::new("tailLines"), &json!(tail), "must be greater than or equal to 0");
    }
    if let Some(limit) = limit.filter(|limit| *limit < 1) {
        errors.invalid(&Path::new("limitBytes"), &json!(limit), "must be greater than 0");
    }
    let since_time = call.query.get("sinceTime").filter(|text| !text.is_empty());
    match (since, since_time) {
        (Some(_), Some(_)) => {
            errors.forbidden(&Path::new(""), "at most one of `sinceTime` or `sinceSeconds` may be specified");
        }
        (Some(since), None) if since < 1 => {
            errors.invalid(&Path::new("sinceSeconds"), &json!(since), "must be greater than 0");
        }
        _ => {}
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid(
        &GroupKind { group: String::new(), kind: "PodLogOptions".into() },
        &call.info.name,
        errors.into_causes(),
    ))
}
