//! `/openapi/v2` and `/openapi/v3`, made when first asked for.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock, OnceLock},
};

use axum::{
    Router,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use generic::chain::plain_not_found;
use http::{HeaderMap, StatusCode, header};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};

struct Document {
    bytes: Bytes,
    hash: String,
    content_type: &'static str,
}

impl Document {
    fn new(value: &Value) -> Self {
        Self::of(value.to_string().into(), "application/json")
    }

    fn of(bytes: Bytes, content_type: &'static str) -> Self {
        let hash = Sha512::digest(&bytes).iter().map(|b| format!("{b:02X}")).collect();
        Self { bytes, hash, content_type }
    }

    fn answer(&self, headers: &HeaderMap) -> Response {
        let etag = format!("\"{}\"", self.hash);
        if headers.get(header::IF_NONE_MATCH).is_some_and(|v| v.as_bytes() == etag.as_bytes()) {
            return (StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response();
        }
        let common = [
            (header::ETAG, etag),
            (header::VARY, "Accept".to_owned()),
            (header::CACHE_CONTROL, "no-cache, private".to_owned()),
            (header::CONTENT_TYPE, self.content_type.to_owned()),
        ];
        (common, self.bytes.clone()).into_response()
    }
}

/// Documents by path (`apis/apps/v1`), each made once.
#[derive(Default)]
struct Documents {
    v3: BTreeMap<String, (String, String, OnceLock<Document>)>,
}

static V2: LazyLock<(Document, Document)> = LazyLock::new(|| {
    let document = schema::v2::document();
    let binary = schema::v2_protobuf::encode(&document);
    (Document::new(&document), Document::of(binary.into(), schema::v2_protobuf::CONTENT_TYPE))
});

impl Documents {
    fn new() -> Self {
        let v3 = schema::group_versions().into_iter().map(|(path, g, v)| (path, (g, v, OnceLock::new()))).collect();
        Self { v3 }
    }

    fn get(&self, path: &str) -> Option<&Document> {
        let (group, version, document) = self.v3.get(path)?;
        Some(document.get_or_init(|| Document::new(&schema::v3::document(group, version))))
    }

    /// The list of documents with their hashes, by which clients cache them.
    fn index(&self) -> Value {
        let mut paths = Map::new();
        for path in self.v3.keys() {
            let hash = self.get(path).map_or("", |d| d.hash.as_str());
            paths.insert(path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")}));
        }
        json!({"paths": paths})
    }
}

/// The routes.
pub(crate) fn router() -> Router {
    let index = get(|State(documents): State<Arc<Documents>>, headers: HeaderMap| async move {
        Document::new(&documents.index()).answer(&headers)
    });
    let one = get(|State(documents): State<Arc<Documents>>, Path(path): Path<String>, headers: HeaderMap| async move {
        documents.get(path.trim_matches('/')).map_or_else(plain_not_found, |d| d.answer(&headers))
    });
    Router::new()
        .route("/openapi/v2", get(v2))
        .route("/openapi/v3", index.clone())
        .route("/openapi/v3/", index)
        .route("/openapi/v3/{*path}", one)
        .with_state(Arc::new(Documents::new()))
}

/// The Swagger document, as JSON or in gnostic's protobuf.
async fn v2(headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
    if accept.contains(schema::v2_protobuf::MEDIA_TYPE) {
        return V2.1.answer(&headers);
    }
    let fits = accept.is_empty() || accept.contains("json") || accept.contains("*/*");
    if fits { V2.0.answer(&headers) } else { StatusCode::NOT_ACCEPTABLE.into_response() }
}
