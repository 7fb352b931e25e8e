//! Clients that write and read at random and remember what they were told.

use std::{collections::BTreeMap, sync::Arc, time::Duration, time::Instant};

use http::Request;
use kube::Client;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{
    history::{History, Operation, Outcome, Record},
    random::Random,
};

/// Keys that all clients work on.
const KEYS: u64 = 6;
/// The objects.
pub(super) const PATH: &str = "/api/v1/namespaces/default/configmaps";
/// Time after which an answer is not waited for.
const PATIENCE: Duration = Duration::from_secs(3);

/// Key, revision and value of an object.
pub(super) fn parts(object: &Value) -> (String, u64, u64) {
    let key = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let version = object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).unwrap_or_default();
    let value = object["data"]["value"].as_str().and_then(|text| text.parse().ok()).unwrap_or_default();
    (key, version, value)
}

/// Revision and objects of a list.
pub(super) fn listed(list: &Value) -> (u64, BTreeMap<String, (u64, u64)>) {
    let items = list["items"].as_array().into_iter().flatten().map(parts);
    let version = list["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok());
    (version.expect("a revision"), items.map(|(key, version, value)| (key, (version, value))).collect())
}

/// What came of a request: an answer, a refusal that has changed nothing, or nothing that says anything.
enum Answer {
    Yes(Value),
    No,
    Unknown,
}

async fn ask(client: &Client, method: &str, path: &str, body: &Value) -> Answer {
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let request = request.body(body).expect("a request");
    match timeout(PATIENCE, client.request::<Value>(request)).await {
        Ok(Ok(answer)) => Answer::Yes(answer),
        Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => Answer::No,
        Ok(Err(kube::Error::Api(status))) if status.code < 429 => panic!("{method} {path}: {status:?}"),
        Ok(Err(_)) | Err(_) => Answer::Unknown,
    }
}

fn config_map(key: &str, version: Option<u64>, value: u64) -> Value {
    let version = version.map(|version| version.to_string());
    let metadata = json!({"name": key, "resourceVersion": version});
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"value": value.to_string()}})
}

/// One client.
pub(super) struct Worker {
    number: u64,
    endpoints: Vec<Client>,
    random: Random,
    history: Arc<Mutex<History>>,
    /// Revisions as this client knows them, which others may have made old.
    known: BTreeMap<String, u64>,
    written: u64,
}

impl Worker {
    pub(super) fn new(number: u64, endpoints: &[Client], random: Random, history: Arc<Mutex<History>>) -> Self {
        Self { number, endpoints: endpoints.to_vec(), random, history, known: BTreeMap::new(), written: 0 }
    }

    /// Works until told to stop.
    pub(super) async fn work(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let key = format!("k{}", self.random.below(KEYS));
            let (operation, value) = self.choose(&key);
            let start = Instant::now();
            let outcome = self.perform(&key, operation, value).await;
            let record = Record { key: key.clone(), operation, value, start, end: Instant::now(), outcome };
            self.learn(&key, &record.outcome);
            self.history.lock().records.push(record);
            let rest = Duration::from_millis(self.random.below(20));
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(rest) => {}
            }
        }
    }

    fn choose(&mut self, key: &str) -> (Operation, u64) {
        let known = self.known.get(key).copied();
        let operation = match (self.random.below(100), known) {
            (0..45, Some(expected)) => Operation::Update { expected },
            (45..58, Some(expected)) => Operation::Delete { expected },
            (58..75, _) | (0..45, None) => Operation::Create,
            (75..85, _) => Operation::List,
            _ => Operation::Get,
        };
        self.written += 1;
        (operation, (self.number + 1) * 1_000_000 + self.written)
    }

    async fn perform(&self, key: &str, operation: Operation, value: u64) -> Outcome {
        let client = self.random.pick(&self.endpoints);
        let item = format!("{PATH}/{key}");
        match operation {
            Operation::Create => match ask(client, "POST", PATH, &config_map(key, None, value)).await {
                Answer::Yes(object) => Outcome::Wrote(parts(&object).1),
                Answer::No => Outcome::Refused,
                Answer::Unknown => Outcome::Unknown,
            },
            Operation::Update { expected } => {
                match ask(client, "PUT", &item, &config_map(key, Some(expected), value)).await {
                    Answer::Yes(object) => Outcome::Wrote(parts(&object).1),
                    Answer::No => Outcome::Refused,
                    Answer::Unknown => Outcome::Unknown,
                }
            }
            Operation::Delete { expected } => {
                let preconditions = json!({"resourceVersion": expected.to_string()});
                let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": preconditions});
                match ask(client, "DELETE", &item, &options).await {
                    Answer::Yes(_) => Outcome::Deleted,
                    Answer::No => Outcome::Refused,
                    Answer::Unknown => Outcome::Unknown,
                }
            }
            Operation::Get => match ask(client, "GET", &item, &Value::Null).await {
                Answer::Yes(object) => Outcome::Found(Some((parts(&object).1, parts(&object).2))),
                Answer::No => Outcome::Found(None),
                Answer::Unknown => Outcome::Unknown,
            },
            Operation::List => match ask(client, "GET", PATH, &Value::Null).await {
                Answer::Yes(list) => {
                    let (version, items) = listed(&list);
                    Outcome::Listed(version, items)
                }
                Answer::No | Answer::Unknown => Outcome::Unknown,
            },
        }
    }

    fn learn(&mut self, key: &str, outcome: &Outcome) {
        match outcome {
            Outcome::Wrote(version) | Outcome::Found(Some((version, _))) => {
                self.known.insert(key.to_owned(), *version);
            }
            Outcome::Found(None) | Outcome::Deleted => {
                self.known.remove(key);
            }
            Outcome::Listed(_, items) => {
                self.known = items.iter().map(|(key, (version, _))| (key.clone(), *version)).collect();
            }
            // A refused compare-and-swap is tried again now and then: old revisions are part of the test.
            Outcome::Refused | Outcome::Unknown => {
                if self.random.below(2) == 0 {
                    self.known.remove(key);
                }
            }
        }
    }
}

/// Writes something that ends the history and gives its revision.
pub(super) async fn last_write(endpoints: &[Client]) -> u64 {
    let number = std::sync::atomic::AtomicU64::new(0);
    harness::wait_until("the last write", || async {
        let number = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let object = config_map(&format!("last-{number}"), None, number);
        match ask(&endpoints[0], "POST", PATH, &object).await {
            Answer::Yes(object) => Ok(parts(&object).1),
            Answer::No => Err("refused".to_owned()),
            Answer::Unknown => Err("no answer".to_owned()),
        }
    })
    .await
}
