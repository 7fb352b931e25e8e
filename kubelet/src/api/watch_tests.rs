//! A server that fails in every way a watch can; each time the client must be up to date within seconds.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;
use tower::BoxError;

use super::*;

type Answer = Response<UnsyncBoxBody<Bytes, BoxError>>;

/// What a watch request gets.
#[derive(Clone, Debug)]
enum Watch {
    /// Frames, then the end of the stream.
    Ends(Vec<Value>),
    /// Frames, then nothing for ever.
    Hangs(Vec<Value>),
    /// Frames, then a broken connection.
    Breaks(Vec<Value>),
    /// A status instead of a stream.
    Refused(u16),
    /// No connection.
    Unreachable,
    /// No answer at all.
    Silent,
}

fn pod(name: &str, version: u32) -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "n", "uid": name, "resourceVersion": version.to_string() } })
}

fn status(code: u16) -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": "Expired", "message": "too old" })
}

fn error_frame(code: u16) -> Value {
    json!({ "type": "ERROR", "object": status(code) })
}

fn body(frames: Vec<Value>, end: impl Stream<Item = Result<Frame<Bytes>, BoxError>> + Send + 'static) -> Answer {
    let frames = frames.into_iter().map(|frame| Ok(Frame::data(Bytes::from(format!("{frame}\n")))));
    Response::new(StreamBody::new(stream::iter(frames.collect::<Vec<_>>()).chain(end)).boxed_unsync())
}

fn answer_status(code: u16) -> Answer {
    let mut response = body(vec![status(code)], stream::empty());
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap();
    response
}

/// A server whose lists hold a Pod named after how many lists there were, and whose watches follow a script.
struct Server {
    lists: Mutex<u32>,
    script: Mutex<Vec<Watch>>,
}

impl Server {
    fn client(script: Vec<Watch>) -> (Arc<Self>, Client) {
        let server = Arc::new(Self { lists: Mutex::new(0), script: Mutex::new(script.into_iter().rev().collect()) });
        let shared = Arc::clone(&server);
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = Arc::clone(&shared);
            let watches = request.uri().query().unwrap_or_default().contains("watch=true");
            async move { server.answer(watches).await }
        });
        (server, Client::new(service, "default"))
    }

    async fn answer(&self, watches: bool) -> Result<Answer, BoxError> {
        if !watches {
            let mut lists = self.lists.lock();
            *lists += 1;
            let list = json!({ "apiVersion": "v1", "kind": "PodList", "metadata": { "resourceVersion": "10" },
                "items": [pod(&format!("listed-{}", *lists), 10)] });
            return Ok(body(vec![list], stream::empty()));
        }
        let next = self.script.lock().pop().unwrap_or(Watch::Hangs(Vec::new()));
        match next {
            Watch::Ends(frames) => Ok(body(frames, stream::empty())),
            Watch::Hangs(frames) => Ok(body(frames, stream::pending())),
            Watch::Breaks(frames) => Ok(body(frames, stream::iter([Err("connection reset".into())]))),
            Watch::Refused(code) => Ok(answer_status(code)),
            Watch::Unreachable => Err("connection refused".into()),
            Watch::Silent => std::future::pending().await,
        }
    }
}

/// Follows until a Pod of that name was seen; answers after how long.
async fn seen_after(script: Vec<Watch>, name: &str) -> (Duration, u32) {
    let (server, client) = Server::client(script);
    let start = Instant::now();
    let mut events = Box::pin(follow(Api::<Pod>::all(client), watcher::Config::default()));
    while let Some(event) = events.next().await {
        if let Ok(Event::InitApply(pod) | Event::Apply(pod)) = event
            && pod.metadata.name.as_deref() == Some(name)
        {
            break;
        }
    }
    let lists = *server.lists.lock();
    (start.elapsed(), lists)
}

fn added(name: &str) -> Value {
    json!({ "type": "ADDED", "object": pod(name, 11) })
}

#[tokio::test(start_paused = true)]
async fn every_failure_is_over_within_seconds() {
    let seconds = Duration::from_secs;
    let late = || Watch::Hangs(vec![added("late")]);
    for (what, script, name, limit, lists) in [
        ("an end of the stream", vec![Watch::Ends(vec![]), late()], "late", seconds(1), 1),
        ("410 in the stream", vec![Watch::Hangs(vec![error_frame(410)])], "listed-2", seconds(1), 2),
        ("410 as the answer", vec![Watch::Refused(410)], "listed-2", seconds(1), 2),
        (
            "410 again and again",
            vec![Watch::Refused(410), Watch::Hangs(vec![error_frame(410)])],
            "listed-3",
            seconds(2),
            3,
        ),
        ("another error in the stream", vec![Watch::Ends(vec![error_frame(500)]), late()], "late", seconds(1), 1),
        ("a broken connection", vec![Watch::Breaks(vec![]), late()], "late", seconds(1), 1),
        ("a server that is overloaded", vec![Watch::Refused(503), Watch::Refused(429), late()], "late", seconds(2), 1),
        ("silence", vec![Watch::Hangs(vec![]), late()], "late", seconds(36), 1),
        ("silence after an error", vec![Watch::Hangs(vec![error_frame(500)]), late()], "late", seconds(37), 1),
    ] {
        let (took, listed) = tokio::time::timeout(seconds(3600), seen_after(script, name)).await.expect(what);
        assert!(took <= limit, "{what} took {took:?}");
        assert_eq!(listed, lists, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_outage_is_over_soon_after_its_end() {
    // A dozen failures take the better part of a minute; the one that follows is five seconds later at most.
    let mut script = vec![Watch::Unreachable; 12];
    script.push(Watch::Refused(410));
    let (took, lists) = seen_after(script, "listed-2").await;
    assert!(took < Duration::from_secs(12 * 5 + 5), "{took:?}");
    assert_eq!(lists, 2);
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_answers_is_left() {
    let (_, client) = Server::client(vec![Watch::Silent]);
    let (front, reload) = client::reloadable(client);
    let mut events = Box::pin(follow(Api::<Pod>::all(front), watcher::Config::default()));
    let silence = async {
        // The list is answered, the watch is not.
        while events.next().await.is_some() {}
    };
    assert!(tokio::time::timeout(Duration::from_secs(5), silence).await.is_err());
    let (_, other) = Server::client(vec![Watch::Hangs(vec![added("late")])]);
    reload.abandon(other);
    let found = async {
        loop {
            if let Some(Ok(Event::Apply(pod))) = events.next().await {
                return pod.metadata.name;
            }
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(10), found).await.expect("a new connection");
    assert_eq!(found.as_deref(), Some("late"));
}

#[tokio::test(start_paused = true)]
async fn one_object_is_followed() {
    let deleted = json!({ "type": "DELETED", "object": pod("listed-1", 12) });
    let (_, client) = Server::client(vec![Watch::Hangs(vec![deleted])]);
    let mut states = Box::pin(follow_object(Api::<Pod>::namespaced(client, "n"), "listed-1"));
    assert!(states.next().await.unwrap().unwrap().is_some());
    assert!(states.next().await.unwrap().unwrap().is_none());
}
