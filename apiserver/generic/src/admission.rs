//! Admission: what plugins see, and the order in which they are asked.

use std::{collections::HashMap, fmt, sync::Arc, time::Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::Method;
use machinery::{ApiResult, GroupVersionKind, GroupVersionResource, meta};
use parking_lot::Mutex;
use prometheus::{HistogramVec, Registry};
use runtime::metrics::{Stability, histogram_vec};
use serde_json::{Value, json};

use crate::{
    audit::Annotations,
    endpoint::{Call, Endpoint, Waited, Warnings},
    request::Query,
    server::Server,
    user::User,
};

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl Operation {
    /// As rules and reviews write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// One operation under admission. Objects are value trees in the storage version, those of custom resources in the
/// served one.
#[derive(Clone)]
pub struct AdmissionRequest {
    /// Kind of the object.
    pub kind: GroupVersionKind,
    /// Resource it stands under.
    pub resource: GroupVersionResource,
    /// Subresource or empty.
    pub subresource: String,
    /// Name; empty while `generateName` has not been resolved.
    pub name: String,
    /// Namespace or empty.
    pub namespace: String,
    /// The operation.
    pub operation: Operation,
    /// Who asks.
    pub user: User,
    /// Whether nothing will be stored.
    pub dry_run: bool,
    /// What the client is warned of.
    pub warnings: Warnings,
    /// Notes in the audit log.
    pub audit: Annotations,
    /// How long the request waited for others.
    pub waited: Waited,
    /// What the options of the request are read from.
    pub(crate) sent: SentOptions,
    /// The version that was asked for.
    pub endpoint: Arc<Endpoint>,
    /// The server.
    pub server: Arc<Server>,
    /// Whether mutating plugins are asked again.
    pub reinvocation: Reinvocation,
}

impl fmt::Debug for AdmissionRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdmissionRequest")
            .field("kind", &self.kind)
            .field("resource", &self.resource)
            .field("subresource", &self.subresource)
            .field("name", &self.name)
            .field("namespace", &self.namespace)
            .field("operation", &self.operation)
            .finish_non_exhaustive()
    }
}

/// Where the options of a request stand.
#[derive(Clone)]
pub(crate) struct SentOptions {
    pub(crate) method: Method,
    pub(crate) query: Query,
    /// Of a removal: its body may hold them.
    pub(crate) body: Bytes,
}

/// Mutating plugins are asked a second time when something outside the server has changed the object: the built-in ones
/// always, a webhook if it wants to and if the object is no longer as it left it.
#[derive(Clone, Debug, Default)]
pub struct Reinvocation(Arc<Mutex<Rounds>>);

#[derive(Debug, Default)]
struct Rounds {
    is_second: bool,
    changed: bool,
    /// How those that want to be asked again left the object, by name.
    left: HashMap<String, Value>,
}

impl Reinvocation {
    /// Notes that the object was changed from outside.
    pub fn changed(&self) {
        self.0.lock().changed = true;
    }

    /// Notes how `name`, who wants to be asked again, left the object.
    pub fn left(&self, name: &str, object: &Value) {
        self.0.lock().left.insert(name.to_owned(), object.clone());
    }

    /// Whether `name` is to be asked in this round.
    pub fn asks(&self, name: &str, object: &Value) -> bool {
        let rounds = self.0.lock();
        !rounds.is_second || rounds.left.get(name).is_some_and(|left| left != object)
    }

    /// Begins the second round, if there is one.
    fn again(&self) -> bool {
        let mut rounds = self.0.lock();
        let again = rounds.changed && !rounds.is_second;
        rounds.is_second = true;
        again
    }
}

impl AdmissionRequest {
    /// Whether this is about a group's resource (subresource aside).
    pub fn is(&self, group: &str, resource: &str) -> bool {
        self.resource.group == group && self.resource.resource == resource
    }

    /// The options of the request (`CreateOptions`...) as an object of their own; null for connections.
    pub fn options(&self) -> Value {
        if self.operation == Operation::Connect {
            return Value::Null;
        }
        let SentOptions { method, query, body } = &self.sent;
        let kind = match (self.operation, method) {
            (Operation::Delete, _) => "DeleteOptions",
            (_, &Method::PATCH) => "PatchOptions",
            (Operation::Update, _) => "UpdateOptions",
            _ => "CreateOptions",
        };
        let sent = match self.operation {
            Operation::Delete => serde_json::from_slice::<Value>(body).ok(),
            _ => None,
        };
        let mut options = sent.filter(Value::is_object).unwrap_or_else(|| json!({}));
        let map = meta::object_mut(&mut options);
        map.insert("kind".into(), json!(kind));
        map.insert("apiVersion".into(), json!("meta.k8s.io/v1"));
        let dry_run: Vec<&str> = query.all("dryRun").filter(|value| !value.is_empty()).collect();
        if !dry_run.is_empty() {
            map.insert("dryRun".into(), json!(dry_run));
        }
        for name in ["fieldManager", "fieldValidation", "propagationPolicy"] {
            if let Some(value) = query.get(name).filter(|value| !value.is_empty()) {
                map.insert(name.into(), json!(value));
            }
        }
        if kind == "PatchOptions"
            && let Some(force) = query.get("force")
        {
            map.insert("force".into(), json!(force != "false" && force != "0"));
        }
        options
    }

    /// The 403 of a rejecting plugin: `{resource.group} "{name}" is forbidden: {why}`.
    pub fn reject(&self, object: Option<&Value>, why: &str) -> machinery::ApiError {
        let from_object = |field| object.map(|o| meta::text(o, field)).filter(|t| !t.is_empty());
        let name = Some(self.name.as_str())
            .filter(|n| !n.is_empty())
            .or_else(|| from_object("name"))
            .or_else(|| from_object("generateName"))
            .unwrap_or("Unknown");
        machinery::ApiError::forbidden(&self.resource.group_resource(), name, why)
    }
}

/// Asks admission about a connection through a subresource. `options` are those of the connection, an object of the
/// core group's `kind`; answers them as plugins left them.
pub async fn connect(call: &Call, kind: &str, mut options: Value) -> ApiResult<Value> {
    let mut request = call.admission(Operation::Connect, &call.info.name, false);
    request.kind = GroupVersionKind::new("", "v1", kind);
    let map = meta::object_mut(&mut options);
    map.insert("apiVersion".into(), json!("v1"));
    map.insert("kind".into(), json!(kind));
    call.server.plugins.admit(&request, Some(&mut options), None).await?;
    call.server.plugins.validate(&request, Some(&options), None).await?;
    Ok(options)
}

/// One admission plugin. The mutating halves of all plugins run first, in order, then the validating halves.
#[async_trait]
pub trait Plugin: Send + Sync {
    /// Name as in `--enable-admission-plugins`.
    fn name(&self) -> &'static str;

    /// Whether the plugin looks at such requests at all.
    fn handles(&self, request: &AdmissionRequest) -> bool;

    /// May change the object (absent on delete; the options on connect) or reject.
    async fn admit(
        &self,
        _request: &AdmissionRequest,
        _object: Option<&mut Value>,
        _old: Option<&Value>,
    ) -> ApiResult<()> {
        Ok(())
    }

    /// May only reject.
    async fn validate(
        &self,
        _request: &AdmissionRequest,
        _object: Option<&Value>,
        _old: Option<&Value>,
    ) -> ApiResult<()> {
        Ok(())
    }
}

/// Upstream's buckets for the duration of admission, seconds.
const BUCKETS: [f64; 6] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5];

/// How long plugins take: all together, and each of them.
pub struct AdmissionMetrics {
    step: HistogramVec,
    controller: HistogramVec,
}

impl AdmissionMetrics {
    /// Registers the metrics.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let of = |what: &str, help, labels: &[&str]| {
            let name = format!("apiserver_admission_{what}_admission_duration_seconds");
            histogram_vec(registry, Stability::Stable, &name, help, labels, &BUCKETS)
        };
        Ok(Self {
            step: of(
                "step",
                "Admission sub-step latency histogram in seconds, broken out for each operation and API resource and \
                 step type (validate or admit).",
                &["operation", "rejected", "type"],
            )?,
            controller: of(
                "controller",
                "Admission controller latency histogram in seconds, identified by name and broken out for each \
                 operation and API resource and type (validate or admit).",
                &["name", "operation", "rejected", "type"],
            )?,
        })
    }
}

/// The enabled plugins in upstream's order.
#[derive(Clone, Default)]
pub struct Plugins {
    all: Arc<Vec<Arc<dyn Plugin>>>,
    metrics: Option<Arc<AdmissionMetrics>>,
}

impl Plugins {
    /// These plugins.
    pub fn new(all: Vec<Arc<dyn Plugin>>, metrics: AdmissionMetrics) -> Self {
        Self { all: Arc::new(all), metrics: Some(Arc::new(metrics)) }
    }

    fn observe(&self, name: Option<&str>, request: &AdmissionRequest, step: &str, start: Instant, rejected: bool) {
        let Some(metrics) = &self.metrics else { return };
        let (operation, rejected) = (request.operation.as_str(), if rejected { "true" } else { "false" });
        let histogram = match name {
            None => metrics.step.with_label_values(&[operation, rejected, step]),
            Some(name) => metrics.controller.with_label_values(&[name, operation, rejected, step]),
        };
        histogram.observe(start.elapsed().as_secs_f64());
    }

    /// Runs the mutating halves.
    pub async fn admit(
        &self,
        request: &AdmissionRequest,
        object: Option<&mut Value>,
        old: Option<&Value>,
    ) -> ApiResult<()> {
        let start = Instant::now();
        let outcome = self.admit_all(request, object, old).await;
        self.observe(None, request, "admit", start, outcome.is_err());
        outcome
    }

    async fn admit_all(
        &self,
        request: &AdmissionRequest,
        mut object: Option<&mut Value>,
        old: Option<&Value>,
    ) -> ApiResult<()> {
        loop {
            for plugin in self.all.iter().filter(|p| p.handles(request)) {
                let start = Instant::now();
                let outcome = plugin.admit(request, object.as_deref_mut(), old).await;
                self.observe(Some(plugin.name()), request, "admit", start, outcome.is_err());
                outcome?;
            }
            if !request.reinvocation.again() {
                return Ok(());
            }
        }
    }

    /// Runs the validating halves.
    pub async fn validate(
        &self,
        request: &AdmissionRequest,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> ApiResult<()> {
        let start = Instant::now();
        let outcome = self.validate_all(request, object, old).await;
        self.observe(None, request, "validate", start, outcome.is_err());
        outcome
    }

    async fn validate_all(
        &self,
        request: &AdmissionRequest,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> ApiResult<()> {
        for plugin in self.all.iter().filter(|p| p.handles(request)) {
            let start = Instant::now();
            let outcome = plugin.validate(request, object, old).await;
            self.observe(Some(plugin.name()), request, "validate", start, outcome.is_err());
            outcome?;
        }
        Ok(())
    }
}
