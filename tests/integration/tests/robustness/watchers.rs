//! Watchers that go on where they were, at the same server or at another.

use std::{sync::Arc, time::Duration};

use http_body_util::BodyExt;
use kube::{Client, client::Body};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    clients::{PATH, listed, parts},
    history::{Change, Event, Segment},
    random::Random,
};

/// Longest silence of a watch that is believed; they end by themselves much earlier.
const SILENCE: Duration = Duration::from_secs(8);
/// Time before a watch is tried again.
const REST: Duration = Duration::from_millis(50);
/// Time within which the end has to be reached.
const DEADLINE: Duration = Duration::from_secs(60);

/// Why a watch has ended.
enum End {
    /// It can go on from the last revision.
    Resumable,
    /// The revision is too old: somebody has to list again.
    Gone,
}

/// What a running watcher has seen.
pub(super) struct Watcher {
    segments: Arc<Mutex<Vec<Segment>>>,
    seen: watch::Receiver<u64>,
}

impl Watcher {
    /// Everything that was seen, as soon as a revision is among it; the last one seen if that takes too long.
    pub(super) async fn until(mut self, revision: u64) -> Result<Vec<Segment>, u64> {
        let reached =
            timeout(DEADLINE, self.seen.wait_for(|seen| *seen >= revision)).await.is_ok_and(|seen| seen.is_ok());
        if reached { Ok(self.segments.lock().clone()) } else { Err(*self.seen.borrow()) }
    }
}

/// Starts watchers of each server, and some that change between servers, each after a list.
pub(super) async fn start(
    endpoints: &[Client],
    each: usize,
    random: &Random,
    stop: &CancellationToken,
) -> Vec<Watcher> {
    let mut places: Vec<Vec<Client>> = endpoints.iter().map(|client| vec![client.clone()]).collect();
    places.push(endpoints.to_vec());
    let mut watchers = Vec::new();
    for (number, endpoints) in places.into_iter().cycle().take((endpoints.len() + 1) * each).enumerate() {
        let segments = Arc::new(Mutex::new(Vec::new()));
        let (sender, seen) = watch::channel(0);
        let random = random.fork(100 + number as u64);
        let task = Task { endpoints, random, segments: Arc::clone(&segments), seen: sender };
        task.list().await.expect("everything runs yet");
        tokio::spawn(stop.clone().run_until_cancelled_owned(task.run()));
        watchers.push(Watcher { segments, seen });
    }
    watchers
}

struct Task {
    endpoints: Vec<Client>,
    random: Random,
    segments: Arc<Mutex<Vec<Segment>>>,
    seen: watch::Sender<u64>,
}

impl Task {
    async fn run(self) {
        loop {
            let ended = self.watch().await;
            tokio::time::sleep(REST).await;
            // Now and then somebody lists who would not have to.
            if matches!(ended, End::Gone) || self.random.below(10) == 0 {
                drop(self.list().await);
            }
        }
    }

    /// Begins a segment with a list.
    async fn list(&self) -> Result<(), String> {
        let request = harness::server::http_get(PATH);
        let answer = timeout(SILENCE, self.random.pick(&self.endpoints).request::<Value>(request)).await;
        let list = answer.map_err(|late| late.to_string())?.map_err(|error| error.to_string())?;
        let (from, items) = listed(&list);
        self.segments.lock().push(Segment { from, last: from, items, events: Vec::new() });
        self.seen.send_replace(from);
        Ok(())
    }

    async fn watch(&self) -> End {
        let from = self.segments.lock().last().map_or(0, |segment| segment.last);
        let seconds = 1 + self.random.below(4);
        let path =
            format!("{PATH}?watch=true&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={from}");
        let request = http::Request::get(path).body(Body::empty()).expect("a request");
        let Ok(Ok(answer)) = timeout(SILENCE, self.random.pick(&self.endpoints).send(request)).await else {
            return End::Resumable;
        };
        match answer.status().as_u16() {
            200 => {}
            410 => return End::Gone,
            _ => return End::Resumable,
        }
        let mut body = answer.into_body();
        let mut buffer = Vec::new();
        while let Ok(Some(Ok(frame))) = timeout(SILENCE, body.frame()).await {
            buffer.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                if let Some(end) = self.take(&serde_json::from_slice(&line).expect("an event")) {
                    return end;
                }
            }
        }
        End::Resumable
    }

    /// Remembers an event.
    fn take(&self, event: &Value) -> Option<End> {
        let (key, version, value) = parts(&event["object"]);
        let change = match event["type"].as_str().unwrap_or_default() {
            "ADDED" => Change::Added,
            "MODIFIED" => Change::Modified,
            "DELETED" => Change::Deleted,
            "BOOKMARK" => Change::Bookmark,
            "ERROR" if event["object"]["code"] == 410 => return Some(End::Gone),
            "ERROR" => return Some(End::Resumable),
            other => panic!("an event of type {other}: {event}"),
        };
        if let Some(segment) = self.segments.lock().last_mut() {
            segment.events.push(Event { change, key, version, value });
            segment.last = version;
        }
        self.seen.send_replace(version);
        None
    }
}
