//! The server: its table of endpoints, and the dispatch of a request to a verb.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use axum::{Router, body::Body};
use http::{Method, Response};
use machinery::{ApiError, ApiResult};
use spans::Tracer;
use storage::contract::Store;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    admission::Plugins,
    audit::Auditor,
    authn::Authenticator,
    authz::Authorizer,
    delegate::Delegate,
    endpoint::{Call, Endpoint, Subresource},
    flowcontrol::{FlowControl, Found, Refused, Ticket},
    front::Front,
    metrics::{Metrics, Running},
    request::{Query, RequestInfo},
    resource::Resource,
    user::{MASTERS, User},
    verbs,
};

/// Everything a request needs. Built once by the component, shared by all requests.
pub struct Server {
    /// Served endpoints.
    pub endpoints: Endpoints,
    /// Authenticators in order.
    pub authenticators: Vec<Arc<dyn Authenticator>>,
    /// Paths that may be read without credentials.
    pub anonymous_paths: Vec<String>,
    /// The authorizer chain.
    pub authorizer: Arc<dyn Authorizer>,
    /// Admission plugins in order.
    pub plugins: Plugins,
    /// The store itself, for what is no resource (allocations, leases of apiservers).
    pub store: Arc<dyn Store>,
    /// What every request passes first.
    pub front: Front,
    /// Routes of paths that name no resource.
    pub nonresource: Router,
    /// Request metrics.
    pub metrics: Metrics,
    /// Who runs and who waits; without it `limits` hold.
    pub flow: Option<Arc<FlowControl>>,
    /// Bounds of concurrently running requests.
    pub limits: Limits,
    /// How long requests may take.
    pub times: Times,
    /// Objects that a delete of a collection deletes at a time.
    pub collection_workers: usize,
    /// Who passes on what other servers answer.
    pub delegate: Option<Arc<dyn Delegate>>,
    /// Sends traces, if the operator wants them.
    pub tracer: Tracer,
    /// Records requests, if a policy says so.
    pub audit: Option<Arc<Auditor>>,
}

/// `--request-timeout` and `--min-request-timeout`.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Deadline of requests that are not long-running; a request may ask for a shorter one.
    pub request: Duration,
    /// Watches without a wish end after a random time from this to twice this.
    pub shortest_watch: Duration,
}

/// `--max-requests-inflight` and `--max-mutating-requests-inflight`, which hold where there is no flow control; 0 is no
/// limit.
pub struct Limits {
    read: Option<Arc<Semaphore>>,
    write: Option<Arc<Semaphore>>,
}

impl Limits {
    /// Limits of reading and of mutating requests.
    pub fn new(read: usize, write: usize) -> Self {
        let limit = |limit: usize| (limit > 0).then(|| Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS))));
        Self { read: limit(read), write: limit(write) }
    }

    fn admit(
        &self,
        metrics: &Metrics,
        info: &RequestInfo,
        user: &User,
        reads: bool,
    ) -> Result<Option<Admitted>, Refused> {
        if info.is_long_running() {
            return Ok(None);
        }
        let permit = match if reads { &self.read } else { &self.write } {
            None => None,
            // Who administrates a full server is let in.
            Some(limit) => match Arc::clone(limit).try_acquire_owned() {
                Ok(permit) => Some(permit),
                Err(_) if user.in_group(MASTERS) => None,
                Err(_) => return Err(Refused { retry_after: 1 }),
            },
        };
        Ok(Some(Admitted { _permit: permit, _ticket: None, _counted: metrics.runs(reads) }))
    }
}

impl Server {
    /// Resolves when watches shall end.
    pub fn watches_end(&self) -> impl Future<Output = ()> + Send + 'static {
        self.front.watch_ends()
    }

    /// Whether a path may be read without credentials. A trailing `*` in the setting matches any rest.
    pub fn allows_anonymous(&self, path: &str) -> bool {
        self.anonymous_paths.iter().any(|allowed| match allowed.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => path == allowed,
        })
    }

    /// Lets a request in for as long as the answer lives, maybe after a while; or sends it away. Streams are not counted.
    pub async fn admit(
        &self,
        info: &RequestInfo,
        query: &Query,
        user: &User,
        found: &Found,
    ) -> Result<Option<Admitted>, Refused> {
        if info.is_long_running() && info.verb != "watch" {
            return Ok(None);
        }
        let reads = matches!(info.verb.as_str(), "get" | "list" | "watch" | "head" | "options");
        let Some(flow) = &self.flow else { return self.limits.admit(&self.metrics, info, user, reads) };
        let costs_more = info.is_resource && info.verb != "get";
        let endpoint = costs_more.then(|| self.endpoints.get(&info.group, &info.version, &info.resource)).flatten();
        let resource = endpoint.as_ref().and_then(|endpoint| endpoint.resource.as_deref());
        let waiting = self.metrics.waits(reads);
        let ticket = flow.admit(info, query, user, resource, found).await?;
        drop(waiting);
        Ok(Some(Admitted { _permit: None, _ticket: ticket, _counted: self.metrics.runs(reads) }))
    }
}

/// A request that was let in.
pub struct Admitted {
    _permit: Option<OwnedSemaphorePermit>,
    _ticket: Option<Ticket>,
    _counted: Running,
}

/// Group, version and plural.
type Place = (String, String, String);

/// Endpoints by group, version and plural, and stored resources by group and plural. Those of custom resources come and
/// go while the server runs.
#[derive(Default)]
pub struct Endpoints {
    served: HashMap<Place, Arc<Endpoint>>,
    stored: HashMap<(String, String), Arc<Resource>>,
    custom: Arc<CustomEndpoints>,
}

/// Endpoints of custom resources.
#[derive(Default)]
pub struct CustomEndpoints {
    served: ArcSwap<imbl::HashMap<Place, Arc<Endpoint>>>,
    is_complete: AtomicBool,
}

impl CustomEndpoints {
    /// Replaces endpoints at once: those of `gone`, given as group, version and plural, by `new`.
    pub fn replace(&self, gone: &[Place], new: Vec<Endpoint>) {
        let new: Vec<Arc<Endpoint>> = new.into_iter().map(Arc::new).collect();
        self.served.rcu(|served| {
            let mut next = imbl::HashMap::clone(served);
            for place in gone {
                next.remove(place);
            }
            for endpoint in &new {
                let gvr = &endpoint.gvr;
                next.insert((gvr.group.clone(), gvr.version.clone(), gvr.resource.clone()), Arc::clone(endpoint));
            }
            next
        });
    }

    /// Whether all endpoints known at the start are there.
    pub fn is_complete(&self) -> bool {
        self.is_complete.load(Ordering::Acquire)
    }

    /// Says that all endpoints known at the start are there, so that what is not found does not exist.
    pub fn complete(&self) {
        self.is_complete.store(true, Ordering::Release);
    }
}

impl Endpoints {
    /// Adds an endpoint.
    pub fn add(&mut self, endpoint: Endpoint) {
        let gvr = &endpoint.gvr;
        if let Some(resource) = &endpoint.resource {
            let key = (gvr.group.clone(), gvr.resource.clone());
            self.stored.entry(key).or_insert_with(|| Arc::clone(resource));
        }
        let key = (gvr.group.clone(), gvr.version.clone(), gvr.resource.clone());
        self.served.insert(key, Arc::new(endpoint));
    }

    /// The endpoint of a group, version and plural.
    pub fn get(&self, group: &str, version: &str, resource: &str) -> Option<Arc<Endpoint>> {
        let key = (group.to_owned(), version.to_owned(), resource.to_owned());
        self.served.get(&key).cloned().or_else(|| self.custom.served.load().get(&key).cloned())
    }

    /// The stored resource of a built-in group and plural, for lookups inside the server.
    pub fn resource(&self, group: &str, resource: &str) -> Option<&Arc<Resource>> {
        self.stored.get(&(group.to_owned(), resource.to_owned()))
    }

    /// All built-in stored resources, each once.
    pub fn resources(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.stored.values()
    }

    /// The endpoints of custom resources.
    pub fn custom(&self) -> &Arc<CustomEndpoints> {
        &self.custom
    }

    /// The other versions in which the objects of an endpoint are served.
    pub fn siblings(&self, endpoint: &Endpoint) -> Vec<Arc<Endpoint>> {
        let Some(resource) = &endpoint.resource else { return Vec::new() };
        let custom = self.custom.served.load();
        let same = |other: &&Arc<Endpoint>| {
            other.gvr != endpoint.gvr && other.resource.as_ref().is_some_and(|r| Arc::ptr_eq(r, resource))
        };
        let mut found: Vec<_> = self.served.values().chain(custom.values()).filter(same).cloned().collect();
        found.sort_by(|a, b| (&a.gvr.group, &a.gvr.version).cmp(&(&b.gvr.group, &b.gvr.version)));
        found
    }

    /// An endpoint that serves stored objects of a kind.
    pub fn of_kind(&self, kind: &machinery::GroupVersionKind) -> Option<Arc<Endpoint>> {
        let custom = self.custom.served.load();
        let is = |endpoint: &&Arc<Endpoint>| endpoint.gvk == *kind && endpoint.resource.is_some();
        self.served.values().chain(custom.values()).find(is).cloned()
    }

    /// The endpoints of a kind in a version.
    pub fn serving_kind(&self, group: &str, version: &str, kind: &str) -> Vec<Arc<Endpoint>> {
        let custom = self.custom.served.load();
        let is = |endpoint: &&Arc<Endpoint>| {
            let gvk = &endpoint.gvk;
            gvk.group == group && gvk.version == version && gvk.kind == kind
        };
        self.served.values().chain(custom.values()).filter(is).cloned().collect()
    }

    /// Whether a built-in group version is served.
    pub fn has_version(&self, group: &str, version: &str) -> bool {
        self.served.keys().any(|(g, v, _)| g == group && v == version)
    }

    /// Whether the endpoints of custom resources known at the start are there.
    pub fn is_complete(&self) -> bool {
        self.custom.is_complete()
    }
}

/// Runs an authorized call.
pub async fn dispatch(call: &Call) -> ApiResult<Response<Body>> {
    let subresource = call.info.subresource.as_str();
    match call.endpoint.subresources.get(subresource) {
        Some(Subresource::Handler(handler)) => handler.handle(call).await,
        Some(Subresource::Scale(paths)) => match call.method {
            Method::GET | Method::PUT | Method::PATCH => verbs::scale::scale(call, paths).await,
            _ => Err(ApiError::method_not_allowed()),
        },
        Some(Subresource::Part) => match call.method {
            Method::GET | Method::HEAD => verbs::get::get(call).await,
            Method::PUT => verbs::update::update(call).await,
            Method::PATCH => verbs::patch::patch(call).await,
            _ => Err(ApiError::method_not_allowed()),
        },
        None if subresource.is_empty() => main_resource(call).await,
        None if call.endpoint.custom().is_some() => Err(ApiError::not_found(&call.group_resource(), &call.info.name)),
        None => Err(ApiError::no_resource()),
    }
}

async fn main_resource(call: &Call) -> ApiResult<Response<Body>> {
    let verb = call.info.verb.as_str();
    if !call.endpoint.verbs.iter().any(|v| v == verb) {
        return Err(ApiError::method_not_allowed());
    }
    if call.endpoint.namespaced && call.info.namespace.is_empty() && !matches!(verb, "list" | "watch") {
        return Err(ApiError::method_not_allowed());
    }
    if verb == "create" && !call.info.name.is_empty() {
        return Err(ApiError::method_not_allowed());
    }
    match verb {
        "get" => verbs::get::get(call).await,
        "list" => verbs::list::list(call).await,
        "watch" => verbs::watch::watch(call).await,
        "create" => verbs::create::create(call).await,
        "update" => verbs::update::update(call).await,
        "patch" => verbs::patch::patch(call).await,
        "delete" => verbs::delete::delete(call).await,
        "deletecollection" => verbs::delete::delete_collection(call).await,
        _ => Err(ApiError::method_not_allowed()),
    }
}
