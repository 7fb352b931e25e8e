//! The lives of an object of each kind: made, read, changed and removed in every way, and watched meanwhile.

use http_body_util::BodyExt;
use kube::{Client, client::Body};
use serde_json::{Value, json};

use super::{
    Resource, subresources,
    wire::{ENCODINGS, Encoding, ask, read, send},
};

/// The patches, with their content types.
pub(super) const PATCHES: [&str; 4] =
    ["application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json", APPLY];
const APPLY: &str = "application/apply-patch+yaml";
/// How often a change is tried again that somebody else was faster than.
const TRIES: usize = 50;

/// One kind's object and the changes that were acknowledged.
pub(super) struct Life<'a> {
    pub(super) client: &'a Client,
    pub(super) resource: &'a Resource,
    pub(super) name: String,
    versions: Vec<u64>,
}

fn version(object: &Value) -> u64 {
    let version = object["metadata"]["resourceVersion"].as_str().unwrap_or_else(|| panic!("no version: {object}"));
    version.parse().expect("a number")
}

/// Whether everything in `part` is in `whole`.
pub(super) fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(name, value)| whole.get(name).is_some_and(|own| contains(own, value)))
        }
        (Value::Array(whole), Value::Array(part)) => {
            part.iter().all(|value| whole.iter().any(|own| contains(own, value)))
        }
        _ => whole == part,
    }
}

/// The first place where two values are not the same.
fn difference(at: &str, one: &Value, other: &Value) -> Option<String> {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let more = other.keys().find(|name| !one.contains_key(*name)).map(|name| format!("{at}.{name}: more"));
            let within = one.iter().find_map(|(name, value)| match other.get(name) {
                Some(other) => difference(&format!("{at}.{name}"), value, other),
                None => Some(format!("{at}.{name}: {value} is missing")),
            });
            within.or(more)
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            let mut pairs = one.iter().zip(other).enumerate();
            pairs.find_map(|(n, (one, other))| difference(&format!("{at}[{n}]"), one, other))
        }
        _ => (one != other).then(|| format!("{at}: {one} and {other}")),
    }
}

impl Life<'_> {
    pub(super) fn item(&self) -> String {
        self.resource.item(&self.name)
    }

    pub(super) fn subresource(&self, name: &str) -> String {
        format!("{}/{name}", self.item())
    }

    /// The objects of this life, and no others: some kinds are served in two versions.
    fn selected(&self) -> String {
        format!("{}?labelSelector=enumeration%3D{}", self.resource.collection(), self.name)
    }

    /// Remembers a change that the server has acknowledged.
    fn acknowledged(&mut self, object: &Value) {
        let version = version(object);
        if self.versions.last() != Some(&version) {
            self.versions.push(version);
        }
    }

    pub(super) async fn get(&self, path: &str) -> Value {
        let (code, object) = read(self.client, path, Encoding::Json).await;
        assert_eq!(code, 200, "GET {path}: {object}");
        object
    }

    /// Puts what `change` makes of the object at a path.
    pub(super) async fn update(&mut self, path: &str, encoding: Encoding, change: impl Fn(&mut Value)) -> Value {
        for _ in 0..TRIES {
            let mut object = self.get(path).await;
            change(&mut object);
            let (code, answer) = ask(self.client, "PUT", path, encoding, &object).await;
            if code == 409 {
                continue;
            }
            assert_eq!(code, 200, "PUT {path} {encoding:?}: {answer}");
            if answer["kind"] == self.resource.kind.as_str() {
                self.acknowledged(&answer);
            }
            return answer;
        }
        panic!("PUT {path}: always a conflict");
    }

    /// Patches so that `part` (of an object) is there afterwards.
    pub(super) async fn patch(&mut self, path: &str, content_type: &str, part: &Value) -> Value {
        let identity = json!({"apiVersion": self.resource.group_version, "kind": self.resource.kind, "metadata": {"name": self.name}});
        let (query, body) = match content_type {
            APPLY => ("?fieldManager=enumeration&force=true", merged(identity, part)),
            "application/json-patch+json" => ("", operations("", part)),
            _ => ("", part.clone()),
        };
        let url = format!("{path}{query}");
        for _ in 0..TRIES {
            let body = (content_type, body.to_string().into_bytes());
            let (code, answer) = send(self.client, "PATCH", &url, body, Encoding::Json).await;
            if code == 409 {
                continue;
            }
            assert_eq!(code, 200, "PATCH {url} {content_type}: {answer}");
            assert!(contains(&answer, part), "PATCH {url} {content_type} {part}: {answer}");
            if answer["kind"] == self.resource.kind.as_str() {
                self.acknowledged(&answer);
            }
            return answer;
        }
        panic!("PATCH {url}: always a conflict");
    }

    async fn create(&mut self, object: &Value, encoding: Encoding) -> Value {
        let path = self.resource.collection();
        let (code, created) = ask(self.client, "POST", &path, encoding, object).await;
        assert_eq!(code, 201, "POST {path} {encoding:?}: {created}");
        for name in ["apiVersion", "kind"] {
            assert_eq!(created[name], object[name], "POST {path} {encoding:?}");
        }
        assert!(created["metadata"]["uid"].is_string(), "POST {path} {encoding:?}: {created}");
        self.acknowledged(&created);
        created
    }

    /// Reads the object in every encoding, alone and in lists: all say the same.
    async fn read(&self) {
        let (path, list) = (self.item(), self.selected());
        for encoding in ENCODINGS {
            let object = self.get(&path).await;
            let (code, same) = read(self.client, &path, encoding).await;
            assert_eq!(code, 200, "GET {path} {encoding:?}: {same}");
            // Controllers of the server may have been here in between.
            if version(&object) == version(&same) {
                assert_eq!(difference("", &object, &same), None, "GET {path} {encoding:?}");
            }
            let (code, found) = read(self.client, &list, encoding).await;
            assert_eq!((code, &found["kind"]), (200, &json!(format!("{}List", self.resource.kind))), "{list}: {found}");
            assert!(found["items"].to_string().contains(&format!("\"{}\"", self.name)), "{list} {encoding:?}: {found}");
        }
    }

    async fn change(&mut self) {
        let path = self.item();
        for encoding in ENCODINGS {
            let step = format!("{encoding:?}");
            let annotations = json!({"step": step});
            let updated =
                self.update(&path, encoding, |object| object["metadata"]["annotations"] = annotations.clone()).await;
            assert_eq!(updated["metadata"]["annotations"]["step"], step.as_str(), "{path}");
        }
        for content_type in PATCHES {
            self.patch(&path, content_type, &json!({"metadata": {"annotations": {"step": content_type}}})).await;
        }
    }

    /// Waits until a deleted object is gone; does what controllers would do that are not there.
    async fn gone(&self) {
        harness::wait_until("an object to be gone", || async {
            let (code, object) = read(self.client, &self.item(), Encoding::Json).await;
            if code == 404 {
                return Ok(());
            }
            assert!(object["metadata"]["deletionTimestamp"].is_string(), "{object}");
            if self.resource.kind == "Namespace" {
                let mut object = object.clone();
                object["spec"]["finalizers"] = json!([]);
                ask(self.client, "PUT", &self.subresource("finalize"), Encoding::Json, &object).await;
            } else if object["metadata"]["finalizers"][0].as_str().is_some_and(|own| own.ends_with("-protection")) {
                let body = (PATCHES[1], br#"{"metadata":{"finalizers":null}}"#.to_vec());
                send(self.client, "PATCH", &self.item(), body, Encoding::Json).await;
            }
            Err(object.to_string())
        })
        .await;
    }

    async fn delete(&self, path: &str) {
        let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"});
        let (code, answer) = ask(self.client, "DELETE", path, Encoding::Json, &options).await;
        assert!(matches!(code, 200 | 202), "DELETE {path}: {code} {answer}");
        self.gone().await;
    }

    /// Reads what watchers in both encodings are told from `start` on, as far as `ends` deletions.
    async fn watched(&self, start: &str, ends: usize) {
        let path = format!("{}&watch=true&timeoutSeconds=60&resourceVersion={start}", self.selected());
        let told = events(self.client, &path, Encoding::Json, ends).await;
        let versions: Vec<u64> = told.iter().map(|(_, object)| version(object)).collect();
        assert!(versions.is_sorted_by(|a, b| a < b), "{path}: {versions:?}");
        let mut rest = versions.iter();
        for written in &self.versions {
            assert!(rest.any(|seen| seen == written), "{path}: {written} is not told, or late: {versions:?}");
        }
        let mut alive = false;
        for (kind, object) in &told {
            assert_eq!(alive, kind != "ADDED", "{path}: {kind} {object}");
            alive = kind != "DELETED";
        }
        assert_eq!(told, events(self.client, &path, Encoding::Protobuf, ends).await, "{path}");
    }
}

/// The same as operations of a JSON patch on an object that has every field above the leaves.
fn operations(at: &str, part: &Value) -> Value {
    let mut all = Vec::new();
    for (name, value) in part.as_object().into_iter().flatten() {
        let at = format!("{at}/{name}");
        match (name.as_str(), value) {
            ("metadata" | "annotations" | "spec", Value::Object(_)) => {
                all.extend(operations(&at, value).as_array().cloned().unwrap_or_default());
            }
            _ => all.push(json!({"op": "add", "path": at, "value": value})),
        }
    }
    all.into()
}

fn merged(mut into: Value, part: &Value) -> Value {
    for (name, value) in part.as_object().into_iter().flatten() {
        match (into.get_mut(name), value) {
            (Some(own @ Value::Object(_)), Value::Object(_)) => *own = merged(own.take(), value),
            _ => into[name] = value.clone(),
        }
    }
    into
}

/// Takes the next event from what has arrived.
fn next_event(buffer: &mut Vec<u8>, encoding: Encoding) -> Option<(String, Value)> {
    if encoding == Encoding::Json {
        let end = buffer.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = buffer.drain(..=end).collect();
        let mut event: Value = serde_json::from_slice(&line).expect("an event");
        return Some((event["type"].as_str().expect("a type").to_owned(), event["object"].take()));
    }
    let length = u32::from_be_bytes(buffer.get(..4)?.try_into().expect("four bytes")) as usize;
    if buffer.len() < 4 + length {
        return None;
    }
    let frame: Vec<u8> = buffer.drain(..4 + length).skip(4).collect();
    let kind = &frame[2..2 + usize::from(frame[1])];
    let at = frame.windows(4).position(|window| window == api::decode::MAGIC).expect("an object");
    Some((String::from_utf8_lossy(kind).into_owned(), encoding.decode(&frame[at..])))
}

async fn events(client: &Client, path: &str, encoding: Encoding, ends: usize) -> Vec<(String, Value)> {
    let request = http::Request::get(path).header("accept", encoding.media_type());
    let answer = client.send(request.body(Body::empty()).expect("a request")).await.expect("a watch");
    assert_eq!(answer.status(), 200, "{path}");
    let mut body = answer.into_body();
    let (mut buffer, mut told, mut deleted) = (Vec::new(), Vec::new(), 0);
    while deleted < ends {
        let frame =
            body.frame().await.unwrap_or_else(|| panic!("{path} {encoding:?} ended: {told:?}")).expect("a frame");
        buffer.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
        while let Some(event) = next_event(&mut buffer, encoding) {
            deleted += usize::from(event.0 == "DELETED");
            told.push(event);
        }
    }
    told
}

/// What is asked of kinds that are not stored.
async fn answer(client: &Client, resource: &Resource, object: Option<&Value>) {
    let path = resource.collection();
    if resource.has("list") {
        for encoding in ENCODINGS {
            let (code, list) = read(client, &path, encoding).await;
            assert_eq!(code, 200, "GET {path}: {list}");
        }
        return;
    }
    let object = object.unwrap_or_else(|| panic!("objects.yaml has no {}", resource.kind));
    for encoding in ENCODINGS {
        let (code, answer) = ask(client, "POST", &path, encoding, object).await;
        if resource.kind == "Binding" {
            assert_eq!((code, &answer["reason"]), (404, &json!("NotFound")), "POST {path} {encoding:?}: {answer}");
        } else {
            assert_eq!((code, &answer["kind"]), (201, &object["kind"]), "POST {path} {encoding:?}: {answer}");
        }
    }
}

/// Lives of an object of a kind, one for each encoding it is made in.
pub(super) async fn live(client: &Client, resource: &Resource, object: Option<&Value>) {
    if !resource.has("watch") {
        return answer(client, resource, object).await;
    }
    let mut object = object.unwrap_or_else(|| panic!("objects.yaml has no {}", resource.kind)).clone();
    object["metadata"]["labels"] = json!({"enumeration": object["metadata"]["name"]});
    let status = object.as_object_mut().expect("an object").remove("status");
    let name = object["metadata"]["name"].as_str().expect("a name").to_owned();
    let mut life = Life { client, resource, name, versions: Vec::new() };
    let list = life.get(&resource.collection()).await;
    let start = list["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    for encoding in ENCODINGS {
        life.create(&object, encoding).await;
        life.read().await;
        if encoding == Encoding::Json {
            life.change().await;
            // A status that is put replaces what other subresources have written.
            let (status_first, others) =
                resource.subresources.iter().partition::<Vec<_>, _>(|sub| sub.name == "status");
            for subresource in status_first.into_iter().chain(others) {
                subresources::check(&mut life, subresource, status.as_ref()).await;
            }
        }
        let collection = encoding == Encoding::Yaml && resource.has("deletecollection");
        let path = if collection { life.selected() } else { life.item() };
        life.delete(&path).await;
    }
    life.watched(&start, ENCODINGS.len()).await;
}
