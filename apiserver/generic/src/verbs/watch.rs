//! WATCH: frames of the cache, as they are or in another form.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures::Stream;
use http::{HeaderValue, Response, header};
use machinery::{ApiError, ApiResult, Reason, meta};
use rand::Rng;
use serde_json::{Value, json};
use storage::{
    cache::{EventKind, Freshness, Scope, WatchEvent, WatchItem, WatchRequest, WatchStart, Watcher},
    contract::StoreError,
};
use time::OffsetDateTime;
use tokio::time::{Instant, Sleep};

use super::list::{HOT_FIELD, parse_revision};
use crate::{
    endpoint::{Call, Endpoint},
    metrics::Watched,
    negotiate::{Form, Media, Output, Target},
    options::ListOptions,
    print,
    resource::Resource,
    respond,
    selection::Selection,
};

/// The last bookmark comes this long before the end.
const LAST_BOOKMARK: Duration = Duration::from_secs(2);

/// Frames that are ready together are sent together up to this size, bytes: one HTTP/2 frame of the default size.
const PIECE: usize = 16 * 1024;

/// Serves WATCH on a collection or (legacy) one object.
pub async fn watch(call: &Call) -> ApiResult<Response<Body>> {
    let mut options = ListOptions::parse(&call.query, true)?;
    let resource = call.resource()?;
    let writer = call.writer(Target::Watch)?;
    name_to_selector(call, &mut options)?;
    let selection = Selection::parse(&options.label_selector, &options.field_selector, &call.endpoint)?;
    let shortest = call.server.times.shortest_watch;
    let timeout = options.timeout.unwrap_or_else(|| shortest.mul_f64(rand::rng().random_range(1.0..2.0)));
    let request = request(call, resource, &options, &selection)?;
    let source = match resource.cache().watch(request).await {
        Ok(watcher) => Source::Live(Box::pin(watcher)),
        Err(error @ (StoreError::Compacted { .. } | StoreError::FutureRevision { .. })) => {
            Source::Refused(Some(resource.watch_error(error, &options.resource_version)))
        }
        Err(error) => return Err(resource.store_error(error)),
    };
    let transform = Transform {
        endpoint: Arc::clone(&call.endpoint),
        output: writer.output,
        include: writer.include,
        columns_sent: false,
        raw: writer.output.form == Form::Object && call.endpoint.serves_stored_form(),
    };
    let last_bookmark = options.allow_bookmarks.then(|| {
        let early = timeout.saturating_sub(LAST_BOOKMARK);
        Box::pin(tokio::time::sleep_until(Instant::now() + early))
    });
    let lists = options.send_initial_events == Some(true) && options.allow_bookmarks;
    let frames = Frames {
        source,
        watched: call.server.metrics.watched(&call.info, lists),
        transform,
        converting: None,
        last_bookmark,
        deadline: Box::pin(tokio::time::sleep_until(Instant::now() + timeout)),
        stopping: Box::pin(call.server.watches_end()),
    };
    let mut response = Response::new(Body::from_stream(frames));
    let content_type = match writer.output.media {
        Media::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        _ => "application/json",
    };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    Ok(response)
}

/// A watch on one object is a watch on its name.
fn name_to_selector(call: &Call, options: &mut ListOptions) -> ApiResult<()> {
    let path_name = call.info.path.trim_end_matches('/').rsplit('/').next().unwrap_or("");
    if call.info.name.is_empty() || path_name != call.info.name || options.field_selector.contains("metadata.name") {
        if !call.info.name.is_empty() && path_name != call.endpoint.gvr.resource && path_name != call.info.name {
            return Err(ApiError::bad_request("fieldSelector metadata.name doesn't match requested name"));
        }
        return Ok(());
    }
    options.field_selector = format!("metadata.name={}", call.info.name);
    Ok(())
}

fn request(call: &Call, resource: &Resource, options: &ListOptions, selection: &Selection) -> ApiResult<WatchRequest> {
    let start = match (options.resource_version.as_str(), options.send_initial_events) {
        ("", Some(false)) => WatchStart::Now(Freshness::Latest),
        ("", Some(true)) => WatchStart::Initial(Freshness::Latest),
        ("0", Some(false)) => WatchStart::Now(Freshness::Any),
        ("" | "0", _) => WatchStart::Initial(Freshness::Any),
        (text, Some(true)) => WatchStart::Initial(Freshness::AtLeast(revision(text)?)),
        (text, _) => WatchStart::After(revision(text)?),
    };
    let start = match start {
        WatchStart::Now(wished) => WatchStart::Now(resource.freshness(wished)),
        WatchStart::Initial(wished) => WatchStart::Initial(resource.freshness(wished)),
        after @ WatchStart::After(_) => after,
    };
    Ok(WatchRequest {
        prefix: resource.key_prefix(&call.info.namespace)?,
        start,
        scope: Scope {
            namespace: Some(call.info.namespace.clone()).filter(|n| !n.is_empty()),
            name: selection.exact_field("metadata.name").map(str::to_owned),
            hot_field: selection
                .exact_field(HOT_FIELD)
                .filter(|_| resource.has_hot_field())
                .map(|node| (HOT_FIELD, node.to_owned())),
        },
        predicate: (!selection.is_everything()).then(|| selection.predicate()),
        bookmarks: options.allow_bookmarks,
        initial_events_end: options.send_initial_events == Some(true) && options.allow_bookmarks,
    })
}

fn revision(text: &str) -> ApiResult<i64> {
    parse_revision(text).map_err(|_| {
        let text =
            format!("resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax");
        ApiError::new(500, Reason::Unknown, text)
    })
}

/// Turns cache events into frames of the negotiated form.
struct Transform {
    endpoint: Arc<Endpoint>,
    output: Output,
    include: print::IncludeObject,
    columns_sent: bool,
    raw: bool,
}

impl Transform {
    fn frame(&mut self, event: &WatchEvent) -> ApiResult<Frame> {
        match self.output.media {
            Media::Protobuf if self.raw => {
                let object = respond::enveloped(&event.object, &self.endpoint.gvk)?;
                return Ok(Frame::Ready(api::encode::watch_frame(event.kind.as_str(), &object).into()));
            }
            _ if self.raw => return Ok(Frame::Ready(event.frame())),
            _ => {}
        }
        let mut value: Value = serde_json::from_slice(&event.object.json).map_err(ApiError::internal)?;
        let kind = event.kind;
        if let Some(custom) = self.endpoint.custom().filter(|c| !c.serves_stored_form()) {
            let custom = Arc::clone(custom);
            return Ok(Frame::Converting(Box::pin(async move {
                let mut converted = custom.load(vec![value]).await?;
                let value = converted.pop().ok_or_else(|| ApiError::internal("conversion lost an object"))?;
                Ok((kind, value))
            })));
        }
        if let Some(conversion) = self.endpoint.conversion {
            value = conversion.to_served(value);
        }
        let object = self.shape(value);
        Ok(Frame::Ready(self.line(kind.as_str(), &object)))
    }

    fn shape(&mut self, value: Value) -> Value {
        let version = self.output.meta_version;
        match self.output.form {
            Form::Object => value,
            Form::PartialMetadata | Form::PartialMetadataList => print::partial(value, version),
            Form::Table => {
                let printer = &*self.endpoint.printer;
                let columns =
                    if std::mem::replace(&mut self.columns_sent, true) { Value::Null } else { printer.definitions() };
                let metadata = print::table_metadata(&value);
                let row = print::row(printer, value, self.include, version, OffsetDateTime::now_utc());
                print::table(columns, vec![row], metadata, version)
            }
        }
    }

    fn bookmark(&self, revision: i64, initial_events_end: bool) -> Bytes {
        let endpoint = &self.endpoint;
        let mut object = json!({
            "kind": endpoint.gvk.kind,
            "apiVersion": endpoint.gvk.api_version(),
            "metadata": {"resourceVersion": revision.to_string(), "creationTimestamp": null},
        });
        if initial_events_end {
            meta::metadata_mut(&mut object).insert("annotations".into(), json!({"k8s.io/initial-events-end": "true"}));
        }
        let object = match self.output.form {
            Form::Object => object,
            Form::Table => {
                let metadata = print::table_metadata(&object);
                let partial = print::partial(object, self.output.meta_version);
                let rows = vec![json!({"cells": [], "object": partial})];
                print::table(Value::Null, rows, metadata, self.output.meta_version)
            }
            _ => print::partial(object, self.output.meta_version),
        };
        self.line("BOOKMARK", &object)
    }

    fn error(&self, error: &ApiError) -> Bytes {
        self.line("ERROR", &serde_json::to_value(error.status()).unwrap_or_default())
    }

    /// A frame of a value tree.
    fn line(&self, kind: &str, object: &Value) -> Bytes {
        match self.output.media {
            // What has no protobuf form is not negotiated as such.
            Media::Protobuf => {
                let object = api::encode::encode(object).unwrap_or_default();
                api::encode::watch_frame(kind, &object).into()
            }
            _ => json_line(kind, object),
        }
    }
}

fn json_line(kind: &str, object: &Value) -> Bytes {
    let mut frame = format!("{{\"type\":\"{kind}\",\"object\":").into_bytes();
    frame.extend_from_slice(object.to_string().as_bytes());
    frame.extend_from_slice(b"}\n");
    Bytes::from(frame)
}

/// A conversion under way: the kind of event and the object in the served version.
type Converting = Pin<Box<dyn Future<Output = ApiResult<(EventKind, Value)>> + Send>>;

/// The frame of an event, at once or after its object is converted.
enum Frame {
    Ready(Bytes),
    Converting(Converting),
}

/// Where frames come from.
enum Source {
    Live(Pin<Box<Watcher>>),
    /// One ERROR frame, then the end.
    Refused(Option<ApiError>),
}

/// The body of a watch.
struct Frames {
    source: Source,
    watched: Watched,
    transform: Transform,
    converting: Option<Converting>,
    last_bookmark: Option<Pin<Box<Sleep>>>,
    deadline: Pin<Box<Sleep>>,
    stopping: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Frames {
    /// The next frame of the watcher, or the frame of the error that ends the watch.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Some(outcome) = ready!(self.poll_outcome(cx)) else { return Poll::Ready(None) };
        let frame = outcome.unwrap_or_else(|error| {
            self.source = Source::Refused(None);
            self.transform.error(&error)
        });
        self.watched.sent(frame.len());
        Poll::Ready(Some(frame))
    }

    fn poll_outcome(&mut self, cx: &mut Context<'_>) -> Poll<Option<ApiResult<Bytes>>> {
        loop {
            if let Some(converting) = &mut self.converting {
                let converted = ready!(converting.as_mut().poll(cx));
                self.converting = None;
                return Poll::Ready(Some(converted.map(|(kind, value)| {
                    let object = self.transform.shape(value);
                    self.transform.line(kind.as_str(), &object)
                })));
            }
            let watcher = match &mut self.source {
                Source::Live(watcher) => watcher,
                Source::Refused(error) => return Poll::Ready(error.take().map(|e| Ok(self.transform.error(&e)))),
            };
            match watcher.as_mut().poll_next(cx) {
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(WatchItem::Bookmark { revision, initial_events_end })) => {
                    if initial_events_end {
                        self.watched.listed();
                    }
                    return Poll::Ready(Some(Ok(self.transform.bookmark(revision, initial_events_end))));
                }
                Poll::Ready(Some(WatchItem::Event(event))) => match self.transform.frame(&event) {
                    Ok(Frame::Ready(bytes)) => return Poll::Ready(Some(Ok(bytes))),
                    Ok(Frame::Converting(converting)) => self.converting = Some(converting),
                    Err(error) => return Poll::Ready(Some(Err(error))),
                },
                Poll::Pending => {
                    let due = self.last_bookmark.as_mut().is_some_and(|sleep| sleep.as_mut().poll(cx).is_ready());
                    if !due {
                        return Poll::Pending;
                    }
                    self.last_bookmark = None;
                    let revision = watcher.bookmark_revision();
                    return Poll::Ready(Some(Ok(self.transform.bookmark(revision, false))));
                }
            }
        }
    }

    /// What follows `first` without waiting, in the same piece as long as it is small.
    fn with_followers(&mut self, first: Bytes, cx: &mut Context<'_>) -> Bytes {
        let mut joined = BytesMut::new();
        let mut last = first;
        while joined.len() + last.len() < PIECE {
            let Poll::Ready(Some(next)) = self.poll_frame(cx) else { break };
            joined.extend_from_slice(&last);
            last = next;
        }
        if joined.is_empty() {
            return last;
        }
        joined.extend_from_slice(&last);
        joined.freeze()
    }
}

impl Stream for Frames {
    type Item = Result<Bytes, std::io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.deadline.as_mut().poll(cx).is_ready() || this.stopping.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        match this.poll_frame(cx) {
            Poll::Ready(Some(first)) => Poll::Ready(Some(Ok(this.with_followers(first, cx)))),
            other => other.map(|end| end.map(Ok)),
        }
    }
}
