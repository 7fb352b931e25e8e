//! The audit log: a record of who did what, made as the policy says.
//!
//! A request that the policy wants recorded carries a [`Record`] through the handler chain; each stage writes an event
//! of what is known by then.

pub mod delivery;
pub mod log;
pub mod policy;
pub mod webhook;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::body::Body;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::{HeaderMap, Response, StatusCode, header};
use http_body_util::BodyExt;
use machinery::{ApiError, ApiResult, time::format_micro};
use parking_lot::Mutex;
use prometheus::{IntCounter, IntCounterVec, Registry};
use runtime::metrics::{Stability, counter, counter_vec};
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;

use self::{
    delivery::{Kept, Sink, delivered},
    policy::{Level, Policy, Stage, Verdict},
};
use crate::{authn::Peer, authz::Decision, negotiate, request::RequestInfo, user::User, verbs::body};

/// What plugins and authorizers note in the record of a request. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Annotations(Arc<Mutex<BTreeMap<String, String>>>);

impl Annotations {
    /// Notes something; what was noted first stays.
    pub fn add(&self, key: impl Into<String>, value: impl Into<String>) {
        self.0.lock().entry(key.into()).or_insert_with(|| value.into());
    }
}

struct AuditMetrics {
    events: IntCounter,
    levels: IntCounterVec,
    rejected: IntCounter,
}

/// Records requests.
pub struct Auditor {
    policy: Policy,
    sinks: Vec<Sink>,
    metrics: AuditMetrics,
}

impl Auditor {
    /// Records in `sinks` what `policy` wants.
    pub fn new(policy: Policy, sinks: Vec<Sink>, registry: &Registry) -> Result<Self, prometheus::Error> {
        use Stability::Alpha;
        let events = counter(
            registry,
            Alpha,
            "apiserver_audit_event_total",
            "Counter of audit events generated and sent to the audit backend.",
        )?;
        let levels = counter_vec(
            registry,
            Alpha,
            "apiserver_audit_level_total",
            "Counter of policy levels for audit events (1 per request).",
            &["level"],
        )?;
        let rejected = counter(
            registry,
            Alpha,
            "apiserver_audit_requests_rejected_total",
            "Counter of apiserver requests rejected due to an error in audit logging backend.",
        )?;
        Ok(Self { policy, sinks, metrics: AuditMetrics { events, levels, rejected } })
    }

    /// Waits until what waits has been delivered, within bounds.
    pub async fn close(&self) {
        for sink in &self.sinks {
            sink.close().await;
        }
    }

    /// Begins the record of a request, if the policy wants one. An error if the request must not go on without one.
    pub(crate) async fn begin(self: &Arc<Self>, request: Asked<'_>, user: &User) -> ApiResult<Option<Arc<Record>>> {
        let verdict = self.policy.decide(request.info, user);
        self.metrics.levels.with_label_values(&[verdict.level.as_str()]).inc();
        if verdict.level == Level::None {
            return Ok(None);
        }
        let annotations = Annotations::default();
        let event = request.event(verdict.level, user);
        let fields = Mutex::new(event);
        let ended = AtomicBool::new(false);
        let record = Arc::new(Record { auditor: Arc::clone(self), verdict, fields, annotations, ended });
        let kept = record.emit(Stage::RequestReceived, None);
        if !delivered(kept).await {
            record.ended.store(true, Ordering::Release);
            self.metrics.rejected.inc();
            return Err(ApiError::internal("failed to store audit event"));
        }
        Ok(Some(record))
    }

    fn keep(&self, event: &Value) -> Vec<Kept> {
        self.metrics.events.inc();
        self.sinks.iter().filter_map(|sink| sink.keep(event)).collect()
    }
}

/// A request as it came in.
pub(crate) struct Asked<'a> {
    pub(crate) info: &'a RequestInfo,
    pub(crate) uri: &'a http::Uri,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) peer: &'a Peer,
    pub(crate) id: &'a str,
}

impl Asked<'_> {
    fn event(&self, level: Level, user: &User) -> Value {
        let header = |name: &str| self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let mut event = json!({
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": level.as_str(),
            "auditID": self.id,
            "requestURI": self.uri.path_and_query().map_or("/", |uri| uri.as_str()),
            "verb": self.info.verb,
            "user": of_user(user),
            "sourceIPs": self.sources(),
            "userAgent": header(header::USER_AGENT.as_str()),
            "requestReceivedTimestamp": format_micro(OffsetDateTime::now_utc()),
        });
        if self.info.is_resource {
            let info = self.info;
            let mut reference = json!({"resource": info.resource, "apiVersion": info.version});
            for (field, text) in [
                ("namespace", &info.namespace),
                ("name", &info.name),
                ("apiGroup", &info.group),
                ("subresource", &info.subresource),
            ] {
                if !text.is_empty() {
                    reference[field] = json!(text);
                }
            }
            event["objectRef"] = reference;
        }
        event
    }

    /// Addresses that the request came from: those that proxies name, then the peer.
    fn sources(&self) -> Vec<String> {
        let forwarded = self.headers.get("x-forwarded-for").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let named = forwarded.split(',').filter_map(|part| part.trim().parse::<std::net::IpAddr>().ok());
        let mut all: Vec<String> = named.map(|address| address.to_string()).collect();
        all.extend(self.peer.address.map(|address| address.ip().to_string()));
        all.dedup();
        all
    }
}

fn of_user(user: &User) -> Value {
    let mut shown = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        shown["uid"] = json!(user.uid);
    }
    if !user.extra.is_empty() {
        shown["extra"] = json!(user.extra);
    }
    shown
}

/// The record of one request.
pub(crate) struct Record {
    auditor: Arc<Auditor>,
    verdict: Verdict,
    fields: Mutex<Value>,
    annotations: Annotations,
    /// Whether the last event has been made.
    ended: AtomicBool,
}

#[derive(Default, Deserialize)]
struct Named {
    #[serde(default)]
    metadata: NamedMetadata,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NamedMetadata {
    name: String,
}

impl Record {
    /// Notes of the request.
    pub(crate) fn annotations(&self) -> Annotations {
        self.annotations.clone()
    }

    /// Notes as whom the user acts.
    pub(crate) fn impersonates(&self, user: &User) {
        self.fields.lock()["impersonatedUser"] = of_user(user);
    }

    /// Notes what the authorizers said.
    pub(crate) fn decided(&self, decision: &Decision) {
        let (word, reason) = match decision {
            Decision::Allow(reason) => ("allow", reason),
            Decision::Deny(reason) | Decision::NoOpinion(reason) => ("forbid", reason),
        };
        self.annotations.add("authorization.k8s.io/decision", word);
        self.annotations.add("authorization.k8s.io/reason", reason.as_str());
    }

    /// Notes the body of the request.
    pub(crate) fn sent(&self, headers: &HeaderMap, bytes: &Bytes) {
        if bytes.is_empty() {
            return;
        }
        let unnamed = self.fields.lock().pointer("/objectRef").is_some_and(|reference| reference.get("name").is_none());
        if unnamed
            && let Ok(named) = serde_json::from_slice::<Named>(bytes)
            && !named.metadata.name.is_empty()
        {
            self.fields.lock()["objectRef"]["name"] = json!(named.metadata.name);
        }
        if self.verdict.level >= Level::Request {
            let decoded = negotiate::input(headers).ok().and_then(|media| body::parse(media, bytes).ok());
            let object = decoded.map(|decoded| decoded.object).or_else(|| serde_json::from_slice(bytes).ok());
            if let Some(object) = object {
                self.fields.lock()["requestObject"] = self.shown(object);
            }
        }
    }

    fn shown(&self, mut object: Value) -> Value {
        if self.verdict.without_managed_fields
            && let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
        {
            metadata.remove("managedFields");
        }
        object
    }

    fn emit(&self, stage: Stage, response: Option<Value>) -> Vec<Kept> {
        if self.verdict.omitted.contains(&stage) {
            return Vec::new();
        }
        let mut event = self.fields.lock().clone();
        event["stage"] = json!(stage.as_str());
        event["stageTimestamp"] = json!(format_micro(OffsetDateTime::now_utc()));
        if let Some(status) = response {
            event["responseStatus"] = status;
        }
        let annotations = self.annotations.0.lock().clone();
        if !annotations.is_empty() {
            event["annotations"] = json!(annotations);
        }
        self.auditor.keep(&event)
    }

    fn end(&self, status: Value) -> Vec<Kept> {
        self.ended.store(true, Ordering::Release);
        self.emit(Stage::ResponseComplete, Some(status))
    }

    /// The end of a request: its answer, recorded. `streams`: whether the answer goes on after its head.
    pub(crate) async fn finish(
        self: Arc<Self>,
        outcome: ApiResult<Response<Body>>,
        streams: bool,
    ) -> ApiResult<Response<Body>> {
        let response = match outcome {
            Ok(response) => response,
            Err(error) => {
                delivered(self.end(of_error(&error))).await;
                return Err(error);
            }
        };
        let status = json!({"metadata": {}, "code": response.status().as_u16()});
        if streams && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            delivered(self.emit(Stage::ResponseStarted, Some(status.clone()))).await;
            let (head, body) = response.into_parts();
            let frames = Recorded { body: body.into_data_stream(), _end: End { record: self, status } };
            return Ok(Response::from_parts(head, Body::from_stream(frames)));
        }
        if self.verdict.level < Level::RequestResponse || streams {
            delivered(self.end(status)).await;
            return Ok(response);
        }
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.map_err(ApiError::internal)?.to_bytes();
        if let Ok(object) = serde_json::from_slice::<Value>(&bytes) {
            self.fields.lock()["responseObject"] = self.shown(object);
        }
        delivered(self.end(status)).await;
        Ok(Response::from_parts(head, Body::from(bytes)))
    }
}

fn of_error(error: &ApiError) -> Value {
    let status = error.status();
    json!({"metadata": {}, "status": "Failure", "message": status.message, "reason": status.reason,
        "code": status.code})
}

/// Records the end of a stream, however it ends.
struct End {
    record: Arc<Record>,
    status: Value,
}

impl Drop for End {
    fn drop(&mut self) {
        // Nobody waits for it.
        drop(self.record.end(self.status.clone()));
    }
}

/// A request that is given up, because its time is over or its handler failed, is recorded too.
impl Drop for Record {
    fn drop(&mut self) {
        if self.ended.load(Ordering::Acquire) {
            return;
        }
        let (stage, code) = if std::thread::panicking() { (Stage::Panic, 500) } else { (Stage::ResponseComplete, 504) };
        drop(self.emit(stage, Some(json!({"metadata": {}, "status": "Failure", "code": code}))));
    }
}

struct Recorded {
    body: axum::body::BodyDataStream,
    _end: End,
}

impl Stream for Recorded {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.body.poll_next_unpin(context)
    }
}
