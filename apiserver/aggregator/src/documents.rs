//! What another server says it serves: discovery and OpenAPI of one group version.

use std::{sync::Arc, time::Duration};

use api::{Kind, Subresource};
use axum::body::Body;
use bytes::Bytes;
use generic::published::OpenApi;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use machinery::GroupVersionKind;
use schema::v2::Part;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{backend::Backend, place::Place};

/// Longest document that is read.
const LONGEST: usize = 16 << 20;
/// Time for a document.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);

/// Why a document is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DocumentError {
    #[error(transparent)]
    Backend(#[from] crate::backend::BackendError),
    #[error("bad status from {url}: {code}")]
    Code { url: String, code: u16 },
    #[error("{0}")]
    Body(String),
}

/// Reads `path`, as the server itself.
pub(crate) async fn fetch(backend: &Backend, place: &Place, host: &str, path: &str) -> Result<Bytes, DocumentError> {
    let failed = |error: &dyn std::fmt::Display| DocumentError::Body(error.to_string());
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::ACCEPT, "application/json")
        .header("x-remote-user", "system:kube-aggregator")
        .header("x-remote-group", "system:masters")
        .body(Body::empty())
        .map_err(|error| failed(&error))?;
    let read = async {
        let answer = backend.send(place, request, DEADLINE).await?;
        let code = answer.status();
        if !code.is_success() {
            let url = format!("https://{}{path}", place.authority());
            return Err(DocumentError::Code { url, code: code.as_u16() });
        }
        let body = Limited::new(answer.into_body(), LONGEST).collect().await;
        Ok(body.map_err(|error| failed(&error))?.to_bytes())
    };
    tokio::time::timeout(DEADLINE, read).await.map_err(|_| crate::backend::BackendError::Deadline)?
}

#[derive(Deserialize)]
struct ResourceList {
    #[serde(default)]
    resources: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    name: String,
    kind: String,
    #[serde(default)]
    singular_name: String,
    #[serde(default)]
    namespaced: bool,
    #[serde(default)]
    group: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    short_names: Vec<String>,
    #[serde(default)]
    categories: Vec<String>,
    #[serde(default)]
    storage_version_hash: String,
}

/// The resources of a discovery document; what is not one lists none.
pub(crate) fn kinds(document: &[u8], group: &str, version: &str) -> Vec<Kind> {
    let Ok(list) = serde_json::from_slice::<ResourceList>(document) else { return Vec::new() };
    let gvk = |row: &Row| {
        let or = |own: &str, usual: &str| if own.is_empty() { usual.to_owned() } else { own.to_owned() };
        GroupVersionKind {
            group: if row.version.is_empty() { group.to_owned() } else { row.group.clone() },
            version: or(&row.version, version),
            kind: row.kind.clone(),
        }
    };
    let (parts, whole): (Vec<Row>, Vec<Row>) = list.resources.into_iter().partition(|row| row.name.contains('/'));
    let subresource = |row: &Row, name: &str| {
        let gvk = gvk(row);
        let foreign = gvk.group != group || gvk.version != version;
        Subresource { name: name.to_owned(), gvk, foreign, verbs: row.verbs.clone() }
    };
    let subresources = |plural: &str| {
        let own = parts.iter().filter_map(|row| Some((row, row.name.strip_prefix(plural)?.strip_prefix('/')?)));
        own.map(|(row, name)| subresource(row, name)).collect()
    };
    whole
        .into_iter()
        .map(|row| Kind {
            gvk: gvk(&row),
            subresources: subresources(&row.name),
            plural: row.name,
            singular: row.singular_name,
            short_names: row.short_names,
            categories: row.categories,
            namespaced: row.namespaced,
            verbs: row.verbs,
            storage_version_hash: row.storage_version_hash,
        })
        .collect()
}

/// The OpenAPI of a group version, as far as the server has one.
pub(crate) async fn openapi(backend: &Backend, place: &Place, host: &str, group: &str, version: &str) -> OpenApi {
    let path = format!("/openapi/v3/apis/{group}/{version}");
    let v3 = fetch(backend, place, host, &path).await.ok().filter(|bytes| is_object(bytes));
    let v2 = match fetch(backend, place, host, "/openapi/v2").await {
        Ok(bytes) => part(&bytes, group, version).map(Arc::new),
        Err(DocumentError::Code { code, .. }) if code == StatusCode::NOT_FOUND.as_u16() => None,
        Err(error) => {
            tracing::debug!(%error, host, "OpenAPI of another server");
            None
        }
    };
    if v3.is_none() && v2.is_none() { OpenApi::Absent } else { OpenApi::Ready { v3, v2 } }
}

fn is_object(bytes: &[u8]) -> bool {
    serde_json::from_slice::<Map<String, Value>>(bytes).is_ok()
}

/// The part of a v2 document that is about the group version: its paths, and all definitions.
fn part(document: &[u8], group: &str, version: &str) -> Option<Part> {
    let mut document: Map<String, Value> = serde_json::from_slice(document).ok()?;
    let mut take = |field: &str| match document.remove(field) {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let (mut paths, definitions) = (take("paths"), take("definitions"));
    let prefix = format!("/apis/{group}/{version}/");
    paths.retain(|path, _| path.starts_with(&prefix) || *path == prefix[..prefix.len() - 1]);
    Some(Part { paths, definitions })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn resources_with_their_parts() {
        let document = json!({"kind": "APIResourceList", "resources": [
            {"name": "things", "singularName": "thing", "namespaced": true, "kind": "Thing", "verbs": ["get", "list"], "shortNames": ["th"]},
            {"name": "things/status", "namespaced": true, "kind": "Thing", "verbs": ["get"]},
            {"name": "things/scale", "namespaced": true, "group": "autoscaling", "version": "v1", "kind": "Scale", "verbs": ["get"]},
        ]});
        let kinds = kinds(document.to_string().as_bytes(), "example.com", "v1");
        assert_eq!(kinds.len(), 1);
        assert_eq!((kinds[0].plural.as_str(), kinds[0].singular.as_str()), ("things", "thing"));
        let parts: Vec<(&str, bool, &str)> =
            kinds[0].subresources.iter().map(|s| (s.name.as_str(), s.foreign, s.gvk.group.as_str())).collect();
        assert_eq!(parts, [("status", false, "example.com"), ("scale", true, "autoscaling")]);
        assert!(super::kinds(b"<html>", "example.com", "v1").is_empty());
    }

    #[test]
    fn parts_of_documents() {
        let document = json!({"paths": {"/apis/example.com/v1/things": {}, "/apis/": {}, "/version": {}}, "definitions": {"T": {}}});
        let part = part(document.to_string().as_bytes(), "example.com", "v1").unwrap();
        assert_eq!(part.paths.keys().collect::<Vec<_>>(), ["/apis/example.com/v1/things"]);
        assert!(part.definitions.contains_key("T"));
    }
}
