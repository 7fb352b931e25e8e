//! An API server in the test process: stores objects of one kind per path, counts revisions, serves watches.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use kube::{Client, client::Body};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;

type OnRequest = Box<dyn FnMut(&str) + Send>;

#[derive(Default)]
pub(crate) struct Server {
    pub(crate) revision: u64,
    /// Objects by path.
    pub(crate) objects: BTreeMap<String, Value>,
    /// Requests as `METHOD path?query`.
    pub(crate) requests: Vec<String>,
    /// Bodies of writes.
    pub(crate) bodies: Vec<Value>,
    /// Open watches by collection path.
    watches: Vec<(String, mpsc::UnboundedSender<Value>)>,
    /// Answers lists by watch with 422.
    pub(crate) no_streaming: bool,
    /// Answers all requests with this code.
    pub(crate) failing: Option<u16>,
    /// Called with every request before it is served.
    pub(crate) on_request: Option<OnRequest>,
}

pub(crate) type Shared = Arc<Mutex<Server>>;

pub(crate) fn server() -> (Shared, Client) {
    let server = Shared::default();
    let state = Arc::clone(&server);
    let service = tower::service_fn(move |request: Request<Body>| {
        let state = Arc::clone(&state);
        async move {
            let (parts, body) = request.into_parts();
            let bytes = body.collect_bytes().await?;
            Ok::<_, tower::BoxError>(state.lock().serve(&parts.method, &parts.uri, &bytes))
        }
    });
    (server, Client::new(service, "default"))
}

type Answer = UnsyncBoxBody<Bytes, std::convert::Infallible>;

fn answer(code: u16, body: &Value) -> Response<Answer> {
    Response::builder().status(code).body(Full::new(Bytes::from(body.to_string())).boxed_unsync()).unwrap()
}

fn status(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": reason, "code": code,
        "message": format!("it is {reason}")})
}

impl Server {
    fn serve(&mut self, method: &Method, uri: &http::Uri, body: &[u8]) -> Response<Answer> {
        let (path, query) = (uri.path().to_owned(), uri.query().unwrap_or_default().to_owned());
        let line = format!("{method} {path}{}{query}", if query.is_empty() { "" } else { "?" });
        if let Some(mut told) = self.on_request.take() {
            told(&line);
            self.on_request = Some(told);
        }
        self.requests.push(line);
        if let Some(code) = self.failing {
            return answer(code, &status(code, "InternalError"));
        }
        let sent: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        if !sent.is_null() {
            self.bodies.push(sent.clone());
        }
        match method.as_str() {
            "GET" if query.contains("watch=true") => self.watch(&path, &query),
            "GET" if self.objects.contains_key(&path) => answer(200, &self.objects[&path]),
            "GET" if is_collection(&path) => self.list(&path),
            "POST" => {
                let path = format!("{path}/{}", sent["metadata"]["name"].as_str().unwrap());
                if self.objects.contains_key(&path) {
                    return answer(409, &status(409, "AlreadyExists"));
                }
                answer(201, &self.put(&path, sent))
            }
            "PUT" | "PATCH" => match self.objects.get(&path) {
                None => answer(404, &status(404, "NotFound")),
                Some(old) => {
                    let expected = &sent["metadata"]["resourceVersion"];
                    if expected.is_string() && *expected != old["metadata"]["resourceVersion"] {
                        return answer(409, &status(409, "Conflict"));
                    }
                    let new = if method == Method::PUT { sent } else { merged(old.clone(), &sent) };
                    answer(200, &self.put(&path, new))
                }
            },
            _ => answer(404, &status(404, "NotFound")),
        }
    }

    /// Stores an object and tells watchers.
    pub(crate) fn put(&mut self, path: &str, mut object: Value) -> Value {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let old = self.objects.insert(path.to_owned(), object.clone());
        self.tell(path, if old.is_some() { "MODIFIED" } else { "ADDED" }, &object);
        object
    }

    /// Removes an object and tells watchers.
    pub(crate) fn remove(&mut self, path: &str) {
        self.revision += 1;
        let mut object = self.objects.remove(path).unwrap();
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        self.tell(path, "DELETED", &object);
    }

    /// Ends all watches, with an event if one is given.
    pub(crate) fn end_watches(&mut self, last: Option<Value>) {
        for (_, sender) in self.watches.drain(..) {
            if let Some(event) = &last {
                let _gone = sender.send(event.clone()).is_err();
            }
        }
    }

    /// The event of a revision that is too old.
    pub(crate) fn expired() -> Value {
        json!({"type": "ERROR", "object": status(410, "Expired")})
    }

    fn tell(&mut self, path: &str, kind: &str, object: &Value) {
        let event = json!({"type": kind, "object": object});
        self.watches.retain(|(collection, sender)| {
            let inside = path.rsplit_once('/').is_some_and(|(dir, _)| covers(collection, dir));
            !inside || sender.send(event.clone()).is_ok()
        });
    }

    fn within(&self, path: &str) -> Vec<Value> {
        let inside = |p: &str| p.rsplit_once('/').is_some_and(|(dir, _)| covers(path, dir));
        self.objects.iter().filter(|(p, _)| inside(p)).map(|(_, o)| o.clone()).collect()
    }

    fn list(&self, path: &str) -> Response<Answer> {
        let meta = json!({"resourceVersion": self.revision.to_string()});
        answer(200, &json!({"kind": "List", "apiVersion": "v1", "metadata": meta, "items": self.within(path)}))
    }

    fn watch(&mut self, path: &str, query: &str) -> Response<Answer> {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        if query.contains("sendInitialEvents=true") {
            if self.no_streaming {
                return answer(422, &status(422, "Invalid"));
            }
            for object in self.within(path) {
                sender.send(json!({"type": "ADDED", "object": object})).unwrap();
            }
            let mark = json!({"kind": "X", "apiVersion": "v1", "metadata": {
                "resourceVersion": self.revision.to_string(), "annotations": {"k8s.io/initial-events-end": "true"}}});
            sender.send(json!({"type": "BOOKMARK", "object": mark})).unwrap();
        }
        self.watches.push((path.to_owned(), sender));
        let lines = futures::stream::poll_fn(move |cx| receiver.poll_recv(cx));
        let frames = lines.map(|event| Ok(http_body::Frame::data(Bytes::from(format!("{event}\n")))));
        Response::builder().status(200).body(StreamBody::new(frames).boxed_unsync()).unwrap()
    }
}

/// `/api/v1/pods` covers `/api/v1/namespaces/x/pods`.
fn covers(collection: &str, dir: &str) -> bool {
    let across = |dir: &str| {
        let (base, rest) = dir.split_once("/namespaces/")?;
        let (_, plural) = rest.split_once('/')?;
        Some(format!("{base}/{plural}"))
    };
    collection == dir || across(dir).as_deref() == Some(collection)
}

fn is_collection(path: &str) -> bool {
    path.rsplit('/').next().is_some_and(|last| last.ends_with('s') && !last.contains('-'))
}

fn merged(mut base: Value, patch: &Value) -> Value {
    match patch {
        Value::Object(fields) => {
            for (key, value) in fields {
                let old = base.get(key).cloned().unwrap_or(Value::Null);
                base[key] = merged(old, value);
            }
            base
        }
        other => other.clone(),
    }
}
