//! GET on collections: snapshots, pages, and the byte-level list body.

use std::sync::Arc;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures::stream;
use http::{HeaderValue, Response, StatusCode, header};
use machinery::{
    ApiError, ApiResult, GroupVersionKind,
    list::{Continue, ContinueError},
};
use serde_json::{Map, Value, json};
use storage::{
    cache::{CachedObject, Freshness, Snapshot},
    contract::StoreError,
};
use time::OffsetDateTime;

use crate::{
    endpoint::Call,
    negotiate::{Form, Media, Output, Target},
    options::ListOptions,
    print,
    resource::{Resource, decode_cached},
    respond::{self, GZIP_THRESHOLD, Writer},
    selection::Selection,
};

/// Lists are sent in pieces of about this many bytes.
const CHUNK: usize = 128 * 1024;

/// The field that lists and watches are looked up by without scanning.
pub const HOT_FIELD: &str = "spec.nodeName";

/// The objects of one answer, and what its metadata says.
struct Page {
    items: Vec<Arc<CachedObject>>,
    revision: i64,
    next: Option<String>,
    remaining: Option<usize>,
}

/// Serves GET on a collection.
pub async fn list(call: &Call) -> ApiResult<Response<Body>> {
    let options = ListOptions::parse(&call.query, false)?;
    let resource = call.resource()?;
    let writer = call.writer(Target::List)?;
    let selection = Selection::parse(&options.label_selector, &options.field_selector, &call.endpoint)?;
    spans::step("About to List from storage", []);
    let page = page(call, resource, &options, &selection).await?;
    spans::step("Listing from storage done", [("count", page.items.len().into())]);
    let metadata = metadata(page.revision, page.next, page.remaining);
    if writer.output == Output::JSON && call.endpoint.serves_stored_form() {
        return Ok(stream_json(call, resource, page.items, &metadata, writer.gzip));
    }
    let whole = (writer.output.media, writer.output.form) == (Media::Protobuf, Form::Object);
    if whole && call.endpoint.serves_stored_form() {
        return protobuf(call, &page.items, &metadata, &writer);
    }
    let objects = page.items.iter().map(|o| decode_cached(o).map(|s| s.object)).collect::<ApiResult<Vec<Value>>>()?;
    respond(call, call.endpoint.served_all(objects).await?, metadata)
}

fn metadata(revision: i64, next: Option<String>, remaining: Option<usize>) -> Map<String, Value> {
    let mut metadata = Map::new();
    if let Some(next) = next {
        metadata.insert("continue".into(), json!(next));
    }
    if let Some(remaining) = remaining {
        metadata.insert("remainingItemCount".into(), json!(remaining));
    }
    metadata.insert("resourceVersion".into(), json!(revision.to_string()));
    metadata
}

/// Answers objects in the stored version as a list at a revision.
pub async fn respond_with(call: &Call, items: Vec<Value>, revision: i64) -> ApiResult<Response<Body>> {
    respond(call, call.endpoint.served_all(items).await?, metadata(revision, None, None))
}

/// Answers objects in the served version as a list.
pub fn respond(call: &Call, objects: Vec<Value>, metadata: Map<String, Value>) -> ApiResult<Response<Body>> {
    let writer = call.writer(Target::List)?;
    let version = writer.output.meta_version;
    let list = match writer.output.form {
        Form::Object => json!({
            "kind": call.endpoint.list_kind,
            "apiVersion": call.endpoint.gvk.api_version(),
            "metadata": metadata,
            "items": match call.endpoint.custom() {
                Some(_) => objects,
                None => objects.into_iter().map(without_kind).collect(),
            },
        }),
        Form::Table => {
            let now = OffsetDateTime::now_utc();
            let mut objects = objects;
            writer.printer.arrange(&mut objects);
            let rows = objects.into_iter().map(|o| print::row(writer.printer, o, writer.include, version, now));
            print::table(writer.printer.definitions(), rows.collect(), metadata, version)
        }
        Form::PartialMetadata | Form::PartialMetadataList => json!({
            "kind": "PartialObjectMetadataList",
            "apiVersion": format!("meta.k8s.io/{version}"),
            "metadata": metadata,
            "items": objects.into_iter().map(|o| print::partial(o, version)).collect::<Vec<_>>(),
        }),
    };
    writer.value(StatusCode::OK, &list)
}

/// Items of typed lists carry no kind.
fn without_kind(mut object: Value) -> Value {
    if let Some(map) = object.as_object_mut() {
        map.remove("kind");
        map.remove("apiVersion");
    }
    object
}

async fn page(call: &Call, resource: &Resource, options: &ListOptions, selection: &Selection) -> ApiResult<Page> {
    let prefix = resource.key_prefix(&call.info.namespace)?;
    let (snapshot_at, start) = where_from(options, &prefix)?;
    let snapshot_at = match snapshot_at {
        At::Fresh(wished) => At::Fresh(resource.freshness(wished)),
        exact => exact,
    };
    let fail = |e| resource.store_error(e);
    let name =
        selection.exact_field("metadata.name").filter(|_| !call.info.namespace.is_empty() || !resource.namespaced);
    if let (Some(name), None, At::Fresh(freshness)) = (name, &start, &snapshot_at) {
        let key = resource.key(&call.info.namespace, name)?;
        let (object, revision) = resource.cache().get(&key, *freshness).await.map_err(fail)?;
        let items = object.into_iter().filter(|o| selection.matches(o)).collect();
        return Ok(Page { items, revision, next: None, remaining: None });
    }
    let any = options.resource_version == "0" && options.continue_token.is_empty() && resource.has_watch_cache();
    let unlimited = options.limit == 0 || any;
    let from = start.as_deref();
    let snapshot = match snapshot_at {
        At::Fresh(freshness) => resource.cache().list(&prefix, freshness).await.map_err(fail)?,
        At::Exact(revision) => {
            // A selector may need any number of objects to fill a page.
            let enough = if unlimited || !selection.is_everything() { 0 } else { options.limit };
            match resource.cache().exact(&prefix, revision, from, enough).await {
                Ok(snapshot) => snapshot,
                Err(StoreError::Compacted { .. }) => return Err(expired(options, from, &prefix)),
                Err(error) => return Err(fail(error)),
            }
        }
    };
    let limit = if unlimited { usize::MAX } else { options.limit };
    Ok(fill(&snapshot, &prefix, from, selection, limit))
}

/// Takes up to `limit` matching objects from `start` on.
fn fill(snapshot: &Snapshot, prefix: &str, start: Option<&str>, selection: &Selection, limit: usize) -> Page {
    let by_node = selection.exact_field(HOT_FIELD).and_then(|node| snapshot.by_field(HOT_FIELD, node, start));
    let mut objects = by_node.unwrap_or_else(|| snapshot.range(start));
    let mut items = Vec::new();
    let mut last_key = "";
    while items.len() < limit {
        match objects.next() {
            Some((key, object)) if selection.matches(object) => {
                items.push(Arc::clone(object));
                last_key = key;
            }
            Some(_) => {}
            None => return Page { items, revision: snapshot.revision, next: None, remaining: None },
        }
    }
    let left = objects.count() + usize::try_from(snapshot.beyond).unwrap_or(0);
    let next = (left > 0).then(|| {
        let suffix = last_key.strip_prefix(prefix).unwrap_or(last_key);
        Continue::new(snapshot.revision, &format!("{suffix}\0")).encode()
    });
    let remaining = next.as_ref().filter(|_| selection.is_everything()).map(|_| left);
    Page { items, revision: snapshot.revision, next, remaining }
}

enum At {
    Fresh(Freshness),
    Exact(i64),
}

/// Which state to read, and the key to start at.
fn where_from(options: &ListOptions, prefix: &str) -> ApiResult<(At, Option<String>)> {
    if !options.continue_token.is_empty() {
        let token = Continue::decode(&options.continue_token)
            .map_err(|e: ContinueError| ApiError::bad_request(e.to_string()))?;
        if !matches!(options.resource_version.as_str(), "" | "0") {
            return Err(ApiError::bad_request("specifying resource version is not allowed when using continue"));
        }
        let at = if token.revision <= 0 { At::Fresh(Freshness::Latest) } else { At::Exact(token.revision) };
        return Ok((at, Some(format!("{prefix}{}", token.start))));
    }
    let at = match options.resource_version.as_str() {
        "" => At::Fresh(Freshness::Latest),
        "0" => At::Fresh(Freshness::Any),
        text => {
            let revision = parse_revision(text)?;
            let exact = options.resource_version_match == "Exact"
                || (options.limit > 0 && options.resource_version_match.is_empty());
            if exact { At::Exact(revision) } else { At::Fresh(Freshness::AtLeast(revision)) }
        }
    };
    Ok((at, None))
}

/// A resourceVersion as a revision; 400 otherwise.
pub fn parse_revision(text: &str) -> ApiResult<i64> {
    text.parse().map_err(|_| ApiError::bad_request(format!("invalid resource version: {text:?}")))
}

const INCONSISTENT: &str = "The provided continue parameter is too old to display a consistent list result. You can \
    start a new list without the continue parameter, or use the continue token in this response to retrieve the \
    remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were \
    created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

/// 410 for a page or exact list whose revision is compacted.
fn expired(options: &ListOptions, start: Option<&str>, prefix: &str) -> ApiError {
    let Some(start) = start.filter(|_| !options.continue_token.is_empty()) else {
        return ApiError::expired("The resourceVersion for the provided list is too old.");
    };
    let token = Continue::new(-1, start.strip_prefix(prefix).unwrap_or(start)).encode();
    ApiError::expired(INCONSISTENT).edit(|s| {
        s.metadata.insert("continue".into(), json!(token));
    })
}

/// The list as protobuf: the messages of its items, each made once and kept while it is in use.
fn protobuf(
    call: &Call,
    items: &[Arc<CachedObject>],
    metadata: &Map<String, Value>,
    writer: &Writer<'_>,
) -> ApiResult<Response<Body>> {
    let gvk = &call.endpoint.gvk;
    let metadata = api::encode::list_metadata(metadata).map_err(ApiError::internal)?;
    let mut pieces = vec![Bytes::from(metadata)];
    for item in items {
        let message = respond::message(item, gvk)?;
        pieces.push(Bytes::from(api::encode::item(message.len())));
        pieces.push(message);
    }
    let length = pieces.iter().map(Bytes::len).sum();
    let list = GroupVersionKind::new(gvk.group.clone(), gvk.version.clone(), call.endpoint.list_kind.clone());
    let head = Bytes::from(api::encode::envelope(&list, length));
    let end = Bytes::from_static(api::encode::ENVELOPE_END);
    let pieces = std::iter::once(head).chain(pieces).chain(std::iter::once(end));
    if length <= GZIP_THRESHOLD || writer.gzip {
        let whole = pieces.collect::<Vec<_>>().concat();
        return Ok(writer.bytes(StatusCode::OK, Media::Protobuf, whole.into()));
    }
    let mut response = Response::new(Body::from_stream(stream::iter(pieces.map(Ok::<_, std::io::Error>))));
    let kind = HeaderValue::from_static(Media::Protobuf.content_type());
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

/// The list body from stored slices: header, items without their kind, footer.
fn stream_json(
    call: &Call,
    resource: &Resource,
    items: Vec<Arc<CachedObject>>,
    metadata: &Map<String, Value>,
    gzip: bool,
) -> Response<Body> {
    let head = format!(
        "{{\"kind\":{:?},\"apiVersion\":{:?},\"metadata\":{},\"items\":[",
        call.endpoint.list_kind,
        call.endpoint.gvk.api_version(),
        Value::Object(metadata.clone()),
    );
    // Items of custom resources say what they are.
    let offset = if call.endpoint.custom().is_some() { 1 } else { resource.codec().item_offset() };
    let size: usize = items.iter().map(|o| o.json.len() - offset + 2).sum();
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(Media::Json.content_type()));
    let pieces = Pieces { head: Some(head), items: items.into_iter(), offset, first: true, ended: false };
    if gzip && size > GZIP_THRESHOLD {
        respond::mark_compressed(headers);
        *response.body_mut() = Body::from_stream(compressed(pieces));
    } else if size <= CHUNK {
        let body: BytesMut = pieces.fold(BytesMut::with_capacity(size + 256), |mut all, piece| {
            all.extend_from_slice(&piece);
            all
        });
        *response.body_mut() = Body::from(body.freeze());
    } else {
        *response.body_mut() = Body::from_stream(stream::iter(pieces.map(Ok::<_, std::io::Error>)));
    }
    response
}

struct Pieces {
    head: Option<String>,
    items: std::vec::IntoIter<Arc<CachedObject>>,
    offset: usize,
    first: bool,
    ended: bool,
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let mut piece = BytesMut::with_capacity(CHUNK + 8192);
        if let Some(head) = self.head.take() {
            piece.extend_from_slice(head.as_bytes());
        }
        while piece.len() < CHUNK {
            match self.items.next() {
                Some(object) => {
                    piece.extend_from_slice(if std::mem::take(&mut self.first) { b"{" } else { b",{" });
                    piece.extend_from_slice(&object.json[self.offset..]);
                }
                None => {
                    piece.extend_from_slice(b"]}\n");
                    self.ended = true;
                    break;
                }
            }
        }
        Some(piece.freeze())
    }
}

/// Compresses piece by piece, so that neither form stands in memory whole.
fn compressed(mut pieces: Pieces) -> impl futures::Stream<Item = Result<Bytes, std::io::Error>> {
    use std::io::Write;
    let mut encoder = Some(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    stream::iter(std::iter::from_fn(move || {
        loop {
            let mut current = encoder.take()?;
            match pieces.next() {
                Some(piece) => {
                    if let Err(error) = current.write_all(&piece) {
                        return Some(Err(error));
                    }
                    let ready = std::mem::take(current.get_mut());
                    encoder = Some(current);
                    if !ready.is_empty() {
                        return Some(Ok(Bytes::from(ready)));
                    }
                }
                None => return Some(current.finish().map(Bytes::from)),
            }
        }
    }))
}
