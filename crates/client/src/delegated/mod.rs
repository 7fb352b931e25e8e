//! Authentication and authorization of requests to a component by asking the API server: TokenReview for bearer
//! tokens, SubjectAccessReview for what a caller may do; client certificates by the authorities that the cluster names
//! in the ConfigMap `kube-system/extension-apiserver-authentication`.
//!
//! A component wraps its router: `auth.protect(router)`. Callers without credentials are `system:anonymous`, who may
//! see the always-allowed paths (health) and nothing else unless RBAC says so.

mod callers;
mod lookup;
mod review;

use std::{path::Path, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, header};
use machinery::{ApiError, Reason};
use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec, Registry};
use runtime::{
    Runtime,
    flags::{ClientArgs, DelegatedAuthArgs},
    metrics::{self, Stability},
    serving::Connection as Peer,
    tls::TlsError,
};

pub use callers::Caller;

use self::{
    callers::{Authenticated, Callers},
    review::{Decision, Reviews},
};
use crate::{ClientError, Connection, connect};

/// Group whose members may do everything.
const MASTERS: &str = "system:masters";

/// Why requests cannot be authenticated or authorized.
#[derive(Debug, thiserror::Error)]
pub enum DelegatedError {
    /// A kubeconfig is not usable.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A bundle is not usable.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The cluster's authorities are not known, and that is not to be tolerated.
    #[error("unable to load configmap based request-header-client-ca-file: {0}")]
    Lookup(String),
    /// A metric name is taken.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct DelegatedAuth(Arc<Inner>);

struct Inner {
    callers: Callers,
    reviews: Option<Reviews>,
    always_allowed: Vec<String>,
}

#[derive(Clone)]
pub(crate) struct AuthMetrics {
    requests: IntCounterVec,
    seconds: HistogramVec,
}

impl AuthMetrics {
    fn new(registry: &Registry, what: &str) -> Result<Self, prometheus::Error> {
        let buckets = [0.25, 0.5, 0.7, 1.0, 1.5, 3.0, 5.0, 10.0];
        Ok(Self {
            requests: metrics::counter_vec(
                registry,
                Stability::Alpha,
                &format!("apiserver_delegated_{what}_request_total"),
                "Number of HTTP requests partitioned by status code.",
                &["code"],
            )?,
            seconds: metrics::histogram_vec(
                registry,
                Stability::Alpha,
                &format!("apiserver_delegated_{what}_request_duration_seconds"),
                "Request latency in seconds. Broken down by status code.",
                &["code"],
                &buckets,
            )?,
        })
    }

    pub(crate) fn finished(&self, code: &str, took: std::time::Duration) {
        self.requests.with_label_values(&[code]).inc();
        self.seconds.with_label_values(&[code]).observe(took.as_secs_f64());
    }
}

/// What is known of tokens that were looked up before.
#[derive(Clone)]
pub(crate) struct TokenMetrics {
    requests: IntCounterVec,
    fetches: IntCounterVec,
    active: IntGaugeVec,
}

impl TokenMetrics {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let alpha = Stability::Alpha;
        let counter = |name: &str| metrics::counter_vec(registry, alpha, name, "", &["status"]);
        let active = "authentication_token_cache_active_fetch_count";
        Ok(Self {
            requests: counter("authentication_token_cache_request_total")?,
            fetches: counter("authentication_token_cache_fetch_total")?,
            active: metrics::gauge_vec(registry, alpha, active, "", &["status"])?,
        })
    }

    /// Whether an answer was known.
    pub(crate) fn asked(&self, known: bool) {
        self.requests.with_label_values(&[if known { "hit" } else { "miss" }]).inc();
    }

    /// An answer is fetched until what is returned is dropped.
    pub(crate) fn fetching(&self) -> impl Drop + use<> {
        struct Fetching(prometheus::IntGauge);
        impl Drop for Fetching {
            fn drop(&mut self) {
                self.0.dec();
            }
        }
        let active = self.active.with_label_values(&["in_flight"]);
        active.inc();
        Fetching(active)
    }

    /// Whether an answer came.
    pub(crate) fn fetched(&self, came: bool) {
        self.fetches.with_label_values(&[if came { "ok" } else { "error" }]).inc();
    }
}

impl DelegatedAuth {
    /// As the flags say. `component` is the name in the user agent.
    pub async fn new(args: &DelegatedAuthArgs, component: &str, runtime: &Runtime) -> Result<Self, DelegatedError> {
        let client = |kubeconfig: Option<&Path>, suffix: &'static str| {
            let given = kubeconfig.filter(|p| !p.as_os_str().is_empty()).map(Path::to_owned);
            let runtime_version = runtime::version::user_agent(component);
            async move {
                let Some(path) = given else { return Ok::<_, ClientError>(None) };
                let flags = ClientArgs { kubeconfig: Some(path), ..ClientArgs::default() };
                let user_agent = format!("{runtime_version}/{suffix}");
                // No limit: each request that is waiting holds a caller up.
                let connection = Connection { user_agent, qps: -1.0, burst: -1, metrics: None };
                connect(&flags, &connection).await.map(Some)
            }
        };
        let authentication = client(args.authentication_kubeconfig.as_deref(), "authentication").await?;
        if authentication.is_none() {
            tracing::warn!(
                "No authentication-kubeconfig provided in order to lookup client-ca-file in configmap/extension-apiserver-authentication in kube-system, so client certificate authentication won't work."
            );
        }
        let authorization = client(args.authorization_kubeconfig.as_deref(), "authorization").await?;
        if authorization.is_none() {
            tracing::warn!(
                "No authorization-kubeconfig provided, so SubjectAccessReview of authorization tokens won't work."
            );
        }
        Self::asking(args, authentication, authorization, runtime).await
    }

    /// For an addon, which asks with the client it has, whatever the kubeconfig flags say.
    pub async fn with_client(
        args: &DelegatedAuthArgs,
        client: kube::Client,
        runtime: &Runtime,
    ) -> Result<Self, DelegatedError> {
        Self::asking(args, Some(client.clone()), Some(client), runtime).await
    }

    async fn asking(
        args: &DelegatedAuthArgs,
        authentication: Option<kube::Client>,
        authorization: Option<kube::Client>,
        runtime: &Runtime,
    ) -> Result<Self, DelegatedError> {
        let callers = Callers::new(args, authentication, runtime).await?;
        let reviews = match authorization {
            None => None,
            Some(client) => Some(Reviews::new(client, args, AuthMetrics::new(&runtime.registry, "authz")?, runtime)),
        };
        let always_allowed = args.authorization_always_allow_paths.clone();
        Ok(Self(Arc::new(Inner { callers, reviews, always_allowed })))
    }

    /// A router that serves only those who may.
    pub fn protect(&self, router: Router) -> Router {
        router.layer(axum::middleware::from_fn_with_state(self.clone(), guard))
    }

    /// Who calls, or the answer to one who is not who they say.
    async fn caller(&self, peer: Option<&Peer>, headers: &HeaderMap) -> Result<Caller, ApiError> {
        let certificates = peer.map(|p| &p.certificates[..]).unwrap_or_default();
        match self.0.callers.identify(certificates, headers).await {
            Authenticated::As(caller) => Ok(caller),
            Authenticated::Nobody => Ok(Caller::anonymous()),
            Authenticated::Refused => Err(ApiError::unauthorized()),
        }
    }

    async fn may(&self, caller: &Caller, verb: &str, path: &str) -> Decision {
        if is_listed(&self.0.always_allowed, path) || caller.groups.iter().any(|g| g == MASTERS) {
            return Decision::Allowed;
        }
        match &self.0.reviews {
            None => Decision::Denied(String::new()),
            Some(reviews) => reviews.ask(caller, verb, path).await,
        }
    }
}

/// Whether a path is among those that are listed, of which `*` at the end stands for anything.
fn is_listed(listed: &[String], path: &str) -> bool {
    listed.iter().any(|entry| match entry.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => path == entry,
    })
}

async fn guard(State(auth): State<DelegatedAuth>, mut request: Request, next: Next) -> Response {
    let (peer, headers) = (request.extensions().get::<Peer>().cloned(), request.headers().clone());
    let caller = match auth.caller(peer.as_ref(), &headers).await {
        Ok(caller) => caller,
        Err(refused) => return answer(&refused),
    };
    request.headers_mut().remove(header::AUTHORIZATION);
    let verb = request.method().as_str().to_lowercase();
    let path = request.uri().path().to_owned();
    match auth.may(&caller, &verb, &path).await {
        Decision::Allowed => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Decision::Denied(why) => answer(&forbidden(&caller, &verb, &path, &why)),
        Decision::Failed => answer(&ApiError::internal("authorization is not available")),
    }
}

fn forbidden(caller: &Caller, verb: &str, path: &str, why: &str) -> ApiError {
    let colon = if why.is_empty() { "" } else { ": " };
    let message = format!("forbidden: User {:?} cannot {verb} path {path:?}{colon}{why}", caller.name);
    ApiError::new(403, Reason::Forbidden, message)
}

fn answer(error: &ApiError) -> Response {
    let code = StatusCode::from_u16(error.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = serde_json::to_string(error.status()).unwrap_or_default();
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-cache, private"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (code, headers, Body::from(body)).into_response()
}

#[cfg(test)]
mod tests;
