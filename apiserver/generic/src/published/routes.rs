//! `/api`, `/apis` and below, `/openapi/v2`, `/openapi/v3`.

use std::sync::Arc;

use api::discovery::api_versions;
use axum::{
    Router,
    extract::{Path, RawQuery, State},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc2822};

use super::{Published, Snapshot};
use crate::{chain::plain_not_found, request::Query};

type Shared = State<Arc<Published>>;

/// Documents are asked for with `If-None-Match`.
const REVALIDATED: &str = "public";
const PRIVATE: &str = "no-cache, private";
/// A document under its hash never changes.
const IMMUTABLE: &str = "public, immutable";
const YEAR: time::Duration = time::Duration::days(365);

fn json_answer(value: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], format!("{value}\n")).into_response()
}

fn found(document: Option<Value>) -> Response {
    document.map_or_else(plain_not_found, |d| json_answer(&d))
}

/// Whether the client asks for the aggregated form.
fn wants_aggregated(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
    accept.split(',').any(|clause| {
        let has = |part: &str| clause.split(';').any(|p| p.trim() == part);
        has("as=APIGroupDiscoveryList") && has("v=v2") && has("g=apidiscovery.k8s.io")
    })
}

impl Published {
    pub(super) fn now(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Paths that `/` lists: groups, versions and documents.
    pub fn root_paths(&self) -> Vec<String> {
        let mut paths: Vec<String> = ["/api", "/apis", "/openapi/v2", "/openapi/v3"].map(str::to_owned).into();
        for group in self.now().discovered().groups.groups() {
            if !group.name.is_empty() {
                paths.push(format!("/apis/{}", group.name));
            }
            for version in &group.versions {
                paths.push(format!("/{}", super::document_path(&group.name, &version.name)));
            }
        }
        paths.sort();
        paths
    }
}

/// The routes of discovery and OpenAPI.
pub fn router(published: Arc<Published>) -> Router {
    let core = get(|State(published): Shared, headers: HeaderMap| async move {
        match wants_aggregated(&headers) {
            true => published.now().discovered().aggregated_core.answer(&headers, REVALIDATED),
            false => json_answer(&api_versions(&published.address)),
        }
    });
    let groups = get(|State(published): Shared, headers: HeaderMap| async move {
        match wants_aggregated(&headers) {
            true => published.now().discovered().aggregated_groups.answer(&headers, REVALIDATED),
            false => json_answer(&published.now().discovered().groups.group_list()),
        }
    });
    let group = get(|State(published): Shared, Path(group): Path<String>| async move {
        found(published.now().discovered().groups.group(&group))
    });
    let version = get(|State(published): Shared, Path((group, version)): Path<(String, String)>| async move {
        found(published.now().discovered().groups.resource_list(&group, &version))
    });
    let core_version = get(|State(published): Shared, Path(version): Path<String>| async move {
        found(published.now().discovered().groups.resource_list("", &version))
    });
    let index = get(|State(published): Shared, headers: HeaderMap| async move {
        published.now().index().answer(&headers, PRIVATE)
    });
    let mut router = Router::new();
    for (path, route) in [
        ("/api", core),
        ("/apis", groups),
        ("/api/{version}", core_version),
        ("/apis/{group}", group),
        ("/apis/{group}/{version}", version),
        ("/openapi/v3", index),
    ] {
        router = router.route(path, route.clone()).route(&format!("{path}/"), route);
    }
    router
        .route("/openapi/v2", get(v2))
        .route("/openapi/v3/{*path}", get(v3))
        .route("/", get(|State(published): Shared| async move { json_answer(&root(&published)) }))
        .with_state(published)
}

fn root(published: &Published) -> Value {
    let mut paths = published.root_paths();
    paths.extend(["/healthz", "/livez", "/metrics", "/readyz", "/version"].map(str::to_owned));
    paths.sort();
    json!({"paths": paths})
}

/// The Swagger document, as JSON or in gnostic's protobuf.
async fn v2(State(published): Shared, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
    let now = published.now();
    if accept.contains(schema::v2_protobuf::MEDIA_TYPE) || accept.contains(schema::v2_protobuf::CONTENT_TYPE) {
        return now.v2_binary().answer(&headers, PRIVATE);
    }
    let fits = accept.is_empty() || accept.contains("json") || accept.contains("*/*");
    if fits { now.v2().answer(&headers, PRIVATE) } else { StatusCode::NOT_ACCEPTABLE.into_response() }
}

/// One v3 document. Under its hash it may be kept for a year; a wrong hash is sent to the right one.
async fn v3(
    State(published): Shared,
    Path(path): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let path = path.trim_matches('/');
    let now = published.now();
    let Some(document) = now.v3(path) else { return plain_not_found() };
    let query = Query::parse(query.as_deref().unwrap_or(""));
    match query.get("hash").filter(|hash| !hash.is_empty()) {
        None => document.answer(&headers, PRIVATE),
        Some(hash) if hash == document.hash => {
            let mut response = document.answer(&headers, IMMUTABLE);
            let expires = OffsetDateTime::now_utc().saturating_add(YEAR).format(&Rfc2822).unwrap_or_default();
            if let Ok(value) = HeaderValue::try_from(expires.replace("+0000", "GMT")) {
                response.headers_mut().insert(header::EXPIRES, value);
            }
            response
        }
        Some(_) => {
            let right = format!("/openapi/v3/{path}?hash={}", document.hash);
            (StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, right)]).into_response()
        }
    }
}
