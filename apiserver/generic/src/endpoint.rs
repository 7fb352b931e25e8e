//! One served resource of one version, and the call that reaches it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Response};
use machinery::{
    ApiError, ApiResult, GroupResource, GroupVersionKind, GroupVersionResource, decode::FieldProblems, meta,
    schema::SchemaRef,
};
use parking_lot::Mutex;
use rules::strategy::Strategy;
use serde_json::Value;

use crate::{
    admission::{AdmissionRequest, Operation, Reinvocation, SentOptions},
    audit::Annotations,
    authn::Peer,
    negotiate::{self, Output, Target},
    print::{IncludeObject, Printer},
    request::{Query, RequestInfo},
    resource::Resource,
    respond::{self, Writer},
    server::Server,
    user::User,
};

/// A served group, version and resource.
pub struct Endpoint {
    /// Served group, version and plural.
    pub gvr: GroupVersionResource,
    /// Kind in this version.
    pub gvk: GroupVersionKind,
    /// Kind of lists.
    pub list_kind: String,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Verbs of the main resource; others answer 405.
    pub verbs: Vec<String>,
    /// What the kind is described by.
    pub nature: Nature,
    /// The stored resource; absent for kinds that are only posted (reviews).
    pub resource: Option<Arc<Resource>>,
    /// Between this version and the stored one; absent when they are the same.
    pub conversion: Option<&'static dyn Conversion>,
    /// Table columns.
    pub printer: Box<dyn Printer>,
    /// Work beside the store at writes (allocators).
    pub hooks: Option<Arc<dyn Hooks>>,
    /// Subresources by name. `""` replaces the generic verbs of the main resource.
    pub subresources: BTreeMap<&'static str, Subresource>,
}

/// What a kind is described by.
pub enum Nature {
    /// The built-in tables: field facts of this version. The strategy is that of the stored resource, and works on the
    /// stored version.
    BuiltIn(SchemaRef<'static>),
    /// A definition. Its strategy works on the served version.
    Custom(Arc<dyn Custom>),
}

/// One served version of a custom resource.
#[async_trait]
pub trait Custom: Send + Sync {
    /// Behaviour, for objects in the served version.
    fn strategy(&self) -> &dyn Strategy;

    /// Field facts of the served version.
    fn schema(&self) -> SchemaRef<'_>;

    /// Brings metadata into form and removes unknown fields.
    fn check(&self, object: &mut Value) -> FieldProblems;

    /// Whether stored objects are served as they are.
    fn serves_stored_form(&self) -> bool;

    /// Objects from the version they are stored in to the served one, schema applied.
    async fn load(&self, objects: Vec<Value>) -> ApiResult<Vec<Value>>;

    /// An object from the served version to that of storage.
    async fn unload(&self, object: Value) -> ApiResult<Value>;

    /// Fields that selectors may name, as dotted paths.
    fn selectable(&self) -> &Arc<[String]>;

    /// What everyone is told who asks for the version.
    fn deprecation(&self) -> Option<&str>;

    /// Whether new objects are refused because the definition is being deleted.
    fn is_terminating(&self) -> bool;
}

impl Endpoint {
    /// The definition of a custom resource.
    pub fn custom(&self) -> Option<&Arc<dyn Custom>> {
        match &self.nature {
            Nature::BuiltIn(_) => None,
            Nature::Custom(custom) => Some(custom),
        }
    }

    /// Field facts of the served version.
    pub fn schema(&self) -> SchemaRef<'_> {
        match &self.nature {
            Nature::BuiltIn(schema) => *schema,
            Nature::Custom(custom) => custom.schema(),
        }
    }

    /// Whether objects can be sent and answered as protobuf.
    pub fn has_protobuf(&self) -> bool {
        self.custom().is_none() && api::encode::is_registered(&self.gvk)
    }

    /// Whether stored objects are served as they are.
    pub fn serves_stored_form(&self) -> bool {
        self.conversion.is_none() && self.custom().is_none_or(|c| c.serves_stored_form())
    }

    /// Stored objects in the served version.
    pub async fn served_all(&self, objects: Vec<Value>) -> ApiResult<Vec<Value>> {
        match (self.custom(), self.conversion) {
            (Some(custom), _) if custom.serves_stored_form() => Ok(objects),
            (Some(custom), _) => custom.load(objects).await,
            (None, Some(conversion)) => Ok(objects.into_iter().map(|o| conversion.to_served(o)).collect()),
            (None, None) => Ok(objects),
        }
    }

    /// One stored object in the served version.
    pub async fn served(&self, object: Value) -> ApiResult<Value> {
        let mut all = self.served_all(vec![object]).await?;
        all.pop().ok_or_else(|| ApiError::internal("conversion lost an object"))
    }
}

/// How a subresource is served.
pub enum Subresource {
    /// get, update and patch of the whole object, of which only a part may change (`status`, `approval`, ...).
    Part,
    /// `autoscaling/v1` Scale over the parent.
    Scale(ScalePaths),
    /// Its own handler.
    Handler(Arc<dyn Handler>),
}

/// Where a kind keeps what its Scale shows, as JSON pointers.
#[derive(Clone, Debug)]
pub struct ScalePaths {
    /// Wanted replicas.
    pub spec_replicas: String,
    /// Present replicas.
    pub status_replicas: String,
    /// The selector, and how it is written.
    pub selector: Option<(String, ScaleSelector)>,
    /// Whether a Scale without wanted replicas is an error (custom resources) rather than zero.
    pub must_have_replicas: bool,
}

/// How a scaled kind writes its selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScaleSelector {
    /// A map of labels (ReplicationController).
    Plain,
    /// A LabelSelector.
    Structured,
    /// The text of a selector.
    Text,
}

impl ScalePaths {
    /// Those of the built-in kinds.
    pub fn built_in(selector: ScaleSelector) -> Self {
        Self {
            spec_replicas: "/spec/replicas".into(),
            status_replicas: "/status/replicas".into(),
            selector: Some(("/spec/selector".into(), selector)),
            must_have_replicas: false,
        }
    }
}

/// Conversion between two versions of one kind. Defaults of the target version are filled by the caller.
pub trait Conversion: Send + Sync {
    /// Served to stored.
    fn to_stored(&self, object: Value) -> Value;
    /// Stored to served.
    fn to_served(&self, object: Value) -> Value;
}

/// Serves a subresource or a kind that is not stored.
#[async_trait]
pub trait Handler: Send + Sync {
    /// Answers the call. Authorization has happened.
    async fn handle(&self, call: &Call) -> ApiResult<Response<Body>>;
}

/// Work beside the store at writes, such as allocating cluster IPs. Every `begin` is ended by exactly one `finish`.
#[async_trait]
pub trait Hooks: Send + Sync {
    /// Before validation of a create or update; may change the object.
    async fn begin(&self, object: &mut Value, old: Option<&Value>, dry_run: bool) -> ApiResult<Reservation>;
    /// After the object is gone.
    async fn deleted(&self, object: &Value);
}

/// What `Hooks::begin` reserved: dropped = given back, committed = kept.
pub struct Reservation(Option<Box<dyn FnOnce(Outcome) + Send>>);

/// End of a reserved write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Outcome {
    Committed,
    Abandoned,
}

impl Reservation {
    /// Nothing reserved.
    pub fn none() -> Self {
        Self(None)
    }

    /// Calls `end` exactly once with the outcome.
    pub fn new(end: impl FnOnce(Outcome) + Send + 'static) -> Self {
        Self(Some(Box::new(end)))
    }

    /// The write is stored.
    pub fn commit(mut self) {
        if let Some(end) = self.0.take() {
            end(Outcome::Committed);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(end) = self.0.take() {
            end(Outcome::Abandoned);
        }
    }
}

/// One request on its way through a verb.
pub struct Call {
    /// The server.
    pub server: Arc<Server>,
    /// The addressed endpoint.
    pub endpoint: Arc<Endpoint>,
    /// What is asked.
    pub info: RequestInfo,
    /// Query parameters.
    pub query: Query,
    /// Request headers.
    pub headers: HeaderMap,
    /// HTTP method.
    pub method: http::Method,
    /// Who asks.
    pub user: User,
    /// Where from.
    pub peer: Peer,
    /// The body; empty for streams.
    pub body: Bytes,
    /// The request itself for connections that are taken over (exec, proxy); taken once.
    pub connection: Mutex<Option<http::Request<Body>>>,
    /// Warnings for the client.
    pub warnings: Warnings,
    /// Notes in the audit log.
    pub audit: Annotations,
    /// How long it waited for others.
    pub waited: Waited,
}

/// Time that a request spent in queues and with webhooks. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Waited(Arc<AtomicU64>);

impl Waited {
    /// Adds a wait.
    pub fn add(&self, time: std::time::Duration) {
        self.0.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// All waits together.
    pub fn total(&self) -> std::time::Duration {
        std::time::Duration::from_micros(self.0.load(Ordering::Relaxed))
    }
}

/// Collected `Warning` texts. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    /// Adds a text once.
    pub fn add(&self, text: impl Into<String>) {
        let text = text.into();
        let mut texts = self.0.lock();
        if !text.is_empty() && !texts.contains(&text) {
            texts.push(text);
        }
    }

    /// Adds several.
    pub fn extend(&self, texts: impl IntoIterator<Item = String>) {
        texts.into_iter().for_each(|t| self.add(t));
    }

    /// Takes all texts.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock())
    }
}

impl Call {
    /// The stored resource, or 405 when the kind is not stored.
    pub fn resource(&self) -> ApiResult<&Arc<Resource>> {
        self.endpoint
            .resource
            .as_ref()
            .ok_or_else(|| ApiError::method_not_supported(&self.group_resource(), &self.info.verb))
    }

    /// Group and plural of the endpoint.
    pub fn group_resource(&self) -> GroupResource {
        self.endpoint.gvr.group_resource()
    }

    /// How to answer for `target`.
    pub fn output(&self, target: Target) -> ApiResult<Output> {
        negotiate::output(&self.headers, &self.query, target, || self.endpoint.has_protobuf())
    }

    /// Writer of the answer for `target`.
    pub fn writer(&self, target: Target) -> ApiResult<Writer<'_>> {
        Ok(Writer {
            output: self.output(target)?,
            printer: &*self.endpoint.printer,
            include: IncludeObject::parse(self.query.get("includeObject").unwrap_or(""))?,
            gzip: respond::accepts_gzip(&self.headers),
        })
    }

    /// Field facts of an object sent to this call: the endpoint's kind, or that of a subresource.
    pub fn schema_of(&self, gvk: &GroupVersionKind) -> SchemaRef<'_> {
        if *gvk == self.endpoint.gvk {
            return self.endpoint.schema();
        }
        api::api().schema(gvk).unwrap_or_else(|| self.endpoint.schema())
    }

    /// Field facts of the version that writes work on.
    pub fn working_schema(&self) -> SchemaRef<'_> {
        match (&self.endpoint.resource, self.endpoint.custom()) {
            (Some(resource), None) => self.schema_of(&resource.gvk),
            _ => self.endpoint.schema(),
        }
    }

    /// The strategy that writes follow.
    pub fn strategy<'a>(&'a self, resource: &'a Resource) -> &'a dyn Strategy {
        self.endpoint.custom().map_or(&*resource.strategy, |c| c.strategy())
    }

    /// A stored object in the version that writes work on: the stored one of built-in kinds, the served one of others.
    pub async fn working(&self, object: Value) -> ApiResult<Value> {
        if self.endpoint.custom().is_some() { self.endpoint.served(object).await } else { Ok(object) }
    }

    /// Whether writes work on another version than the stored one.
    pub fn works_elsewhere(&self) -> bool {
        self.endpoint.custom().is_some_and(|c| !c.serves_stored_form())
    }

    /// An object in the version that writes work on, as it is to be stored.
    pub async fn unload(&self, object: &Value) -> ApiResult<Value> {
        match self.endpoint.custom() {
            Some(custom) if !custom.serves_stored_form() => custom.unload(object.clone()).await,
            _ => Ok(object.clone()),
        }
    }

    /// What a write stored, in the version that writes work on. `object` is what was asked to be stored.
    pub fn written(&self, mut object: Value, stored: &Bytes) -> ApiResult<Value> {
        let stored: Value = serde_json::from_slice(stored).map_err(ApiError::internal)?;
        if !self.works_elsewhere() {
            return Ok(stored);
        }
        meta::set_text(&mut object, "resourceVersion", meta::resource_version(&stored));
        Ok(object)
    }

    /// Applies the schema of a custom resource once more, after admission has changed the object.
    pub fn settle(&self, object: &mut Value) {
        if let Some(custom) = self.endpoint.custom() {
            custom.check(object);
            custom.strategy().defaults(object);
        }
    }

    /// An object that writes work on in the served version.
    pub fn to_served(&self, object: Value) -> Value {
        match self.endpoint.conversion {
            Some(conversion) => conversion.to_served(object),
            None => object,
        }
    }

    /// A served object in the version that writes work on.
    pub fn to_stored(&self, object: Value) -> Value {
        match self.endpoint.conversion {
            Some(conversion) => conversion.to_stored(object),
            None => object,
        }
    }

    /// What admission is told.
    pub fn admission(&self, operation: Operation, name: &str, dry_run: bool) -> AdmissionRequest {
        let stored = self.endpoint.resource.as_ref().filter(|_| self.endpoint.custom().is_none());
        AdmissionRequest {
            kind: stored.map_or_else(|| self.endpoint.gvk.clone(), |r| r.gvk.clone()),
            resource: self.endpoint.gvr.clone(),
            subresource: self.info.subresource.clone(),
            name: name.to_owned(),
            namespace: self.info.namespace.clone(),
            operation,
            user: self.user.clone(),
            dry_run,
            warnings: self.warnings.clone(),
            audit: self.audit.clone(),
            waited: self.waited.clone(),
            sent: SentOptions {
                method: self.method.clone(),
                query: self.query.clone(),
                body: if operation == Operation::Delete { self.body.clone() } else { Bytes::new() },
            },
            endpoint: Arc::clone(&self.endpoint),
            server: Arc::clone(&self.server),
            reinvocation: Reinvocation::default(),
        }
    }
}
