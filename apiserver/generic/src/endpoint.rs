//! One served resource of one version, and the call that reaches it.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Response};
use machinery::{ApiError, ApiResult, GroupResource, GroupVersionKind, GroupVersionResource, schema::SchemaRef};
use parking_lot::Mutex;
use serde_json::Value;

use crate::{
    admission::{AdmissionRequest, Operation},
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
    /// Field facts of this version.
    pub schema: SchemaRef<'static>,
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

/// How a subresource is served.
pub enum Subresource {
    /// get, update and patch of the whole object, of which only a part may change (`status`, `approval`, ...).
    Part,
    /// `autoscaling/v1` Scale over the parent.
    Scale(ScalePaths),
    /// Its own handler.
    Handler(Arc<dyn Handler>),
}

/// Where a kind keeps what its Scale shows.
#[derive(Clone, Copy, Debug)]
pub struct ScalePaths {
    /// Whether `spec.selector` is a plain map (ReplicationController) instead of a LabelSelector.
    pub plain_selector: bool,
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
}

/// Collected `Warning` texts.
#[derive(Default)]
pub struct Warnings(Mutex<Vec<String>>);

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
        negotiate::output(&self.headers, &self.query, target)
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
    pub fn schema_of(&self, gvk: &GroupVersionKind) -> SchemaRef<'static> {
        if *gvk == self.endpoint.gvk {
            return self.endpoint.schema;
        }
        api::api().schema(gvk).unwrap_or(self.endpoint.schema)
    }

    /// Field facts of the stored version.
    pub fn stored_schema(&self) -> SchemaRef<'static> {
        self.endpoint.resource.as_ref().map_or(self.endpoint.schema, |r| self.schema_of(&r.gvk))
    }

    /// The object in the served version.
    pub fn to_served(&self, object: Value) -> Value {
        match self.endpoint.conversion {
            Some(conversion) => conversion.to_served(object),
            None => object,
        }
    }

    /// The object in the stored version.
    pub fn to_stored(&self, object: Value) -> Value {
        match self.endpoint.conversion {
            Some(conversion) => conversion.to_stored(object),
            None => object,
        }
    }

    /// What admission is told.
    pub fn admission(&self, operation: Operation, name: &str, dry_run: bool) -> AdmissionRequest {
        let stored = self.endpoint.resource.as_ref();
        AdmissionRequest {
            kind: stored.map_or_else(|| self.endpoint.gvk.clone(), |r| r.gvk.clone()),
            resource: self.endpoint.gvr.clone(),
            subresource: self.info.subresource.clone(),
            name: name.to_owned(),
            namespace: self.info.namespace.clone(),
            operation,
            user: self.user.clone(),
            dry_run,
        }
    }
}
