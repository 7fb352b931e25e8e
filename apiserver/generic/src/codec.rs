//! The stored form of objects, and the index record that the watch cache keeps of each.
//!
//! Stored bytes are JSON that starts `{"apiVersion":"<gv>","kind":"<Kind>","metadata":{` and holds no
//! resourceVersion. Serving them means splicing the resourceVersion in behind that prefix; a list item is the same
//! slice without the first two members. Values written by others (a stock kube-apiserver) do not start like that:
//! they are decoded, defaulted and written in this form once, when they enter the cache.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use machinery::meta;
use rules::strategy::SelectableField;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use storage::cache::{CachedObject, Codec, CodecError, IndexRecord};

use crate::resource::StrategyRef;

/// A stored form that is not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FormError {
    /// Not JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// Not YAML.
    #[error(transparent)]
    Yaml(#[from] serde_yaml::Error),
    /// Has no message.
    #[error(transparent)]
    Protobuf(#[from] api::encode::EncodeError),
}

/// The stored form in YAML.
pub(crate) fn yaml(json: &[u8]) -> Result<Bytes, FormError> {
    Ok(serde_yaml::to_string(&serde_json::from_slice::<Value>(json)?)?.into())
}

/// The stored form in protobuf.
pub(crate) fn protobuf(json: &[u8]) -> Result<Bytes, FormError> {
    Ok(api::encode::encode(&serde_json::from_slice(json)?)?.into())
}

/// An object of the store, whatever form it has.
fn parsed(value: &[u8]) -> Result<Value, CodecError> {
    let wrong = |error: &dyn fmt::Display| CodecError(error.to_string());
    if value.starts_with(api::decode::MAGIC) {
        return Ok(api::decode::decode(value).map_err(|e| wrong(&e))?.1);
    }
    match value.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{') => serde_json::from_slice(value).map_err(|e| wrong(&e)),
        _ => serde_yaml::from_slice(value).map_err(|e| wrong(&e)),
    }
}

/// Codec of one stored kind.
pub struct KindCodec {
    api_version: String,
    kind: String,
    /// `{"apiVersion":"v1","kind":"Pod","metadata":{`
    prefix: String,
    fields: &'static [SelectableField],
    paths: Node,
    strategy: StrategyRef,
}

impl KindCodec {
    /// Codec of a kind with its selectable fields.
    pub fn new(api_version: &str, kind: &str, strategy: StrategyRef) -> Self {
        let fields = strategy.selectable_fields();
        Self {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            prefix: prefix(api_version, kind),
            fields,
            paths: Node::of(fields),
            strategy,
        }
    }

    /// Length of `{"apiVersion":"..","kind":"..",`, which list items leave out (writing `{` instead).
    pub fn item_offset(&self) -> usize {
        self.prefix.len() - "\"metadata\":{".len()
    }

    /// The stored form of an object.
    pub fn encode(&self, object: &Value) -> Result<Vec<u8>, serde_json::Error> {
        self.encode_as(&self.prefix, object)
    }

    fn encode_as(&self, prefix: &str, object: &Value) -> Result<Vec<u8>, serde_json::Error> {
        let mut out = Vec::with_capacity(4096);
        out.extend_from_slice(&prefix.as_bytes()[..prefix.len() - 1]);
        let empty = Map::new();
        let metadata = object.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
        write_members(&mut out, metadata, &["resourceVersion", "selfLink"])?;
        let rest = object.as_object().unwrap_or(&empty);
        for (key, value) in rest.iter().filter(|(k, _)| !matches!(k.as_str(), "apiVersion" | "kind" | "metadata")) {
            out.push(b',');
            serde_json::to_writer(&mut out, key)?;
            out.push(b':');
            serde_json::to_writer(&mut out, value)?;
        }
        out.push(b'}');
        Ok(out)
    }

    /// Stored bytes with the resourceVersion in place, or `None` if they are not in the stored form.
    pub fn with_revision(&self, stored: &[u8], revision: i64) -> Option<Bytes> {
        Self::splice(&self.prefix, stored, revision)
    }

    fn splice(prefix: &str, stored: &[u8], revision: i64) -> Option<Bytes> {
        let tail = stored.strip_prefix(prefix.as_bytes())?;
        let insert =
            format!("\"resourceVersion\":\"{revision}\"{}", if tail.first() == Some(&b'}') { "" } else { "," });
        let mut out = Vec::with_capacity(stored.len() + insert.len());
        out.extend_from_slice(prefix.as_bytes());
        out.extend_from_slice(insert.as_bytes());
        out.extend_from_slice(tail);
        Some(Bytes::from(out))
    }

    /// Decodes a value that somebody else wrote, and gives it our stored form.
    fn adopt(&self, value: &[u8]) -> Result<Vec<u8>, CodecError> {
        let mut object = parsed(value)?;
        if !object.is_object() {
            return Err(CodecError(format!("not a {}", self.kind)));
        }
        meta::metadata_mut(&mut object);
        if object.get("kind").and_then(Value::as_str) != Some(self.kind.as_str()) {
            return Err(CodecError(format!("not a {}", self.kind)));
        }
        self.strategy.defaults(&mut object);
        self.encode(&object).map_err(|e| CodecError(e.to_string()))
    }

    /// An object of a custom resource. Its schema may have changed since it was stored, so it is applied again; one that
    /// is stored in another version stays in that version.
    fn adopt_custom(&self, value: &[u8], revision: i64) -> Result<Bytes, CodecError> {
        let mut object = parsed(value)?;
        let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or("").to_owned();
        let (version, kind) = (text("apiVersion"), text("kind"));
        if kind != self.kind {
            return Err(CodecError(format!("not a {}", self.kind)));
        }
        if version == self.api_version {
            self.strategy.read(&mut object);
        }
        let prefix = prefix(&version, &kind);
        let encoded = self.encode_as(&prefix, &object).map_err(|e| CodecError(e.to_string()))?;
        Self::splice(&prefix, &encoded, revision).ok_or_else(|| CodecError("re-encoding failed".into()))
    }

    fn index(&self, json: &[u8]) -> Result<IndexRecord, CodecError> {
        let mut found = Found { texts: vec![None; self.paths.total], labels: Vec::new() };
        let mut reader = serde_json::Deserializer::from_slice(json);
        Walk { node: &self.paths, found: &mut found }
            .deserialize(&mut reader)
            .map_err(|e| CodecError(e.to_string()))?;
        let mut take = |leaf: usize| found.texts.get_mut(leaf).and_then(Option::take).unwrap_or_default();
        let (namespace, name, uid) = (take(0), take(1), take(2));
        let mut fields = Vec::with_capacity(self.fields.len());
        let mut leaf = FIXED.len();
        for field in self.fields {
            let mut text = take(leaf);
            leaf += 1;
            if field.fallback.is_some() {
                let other = take(leaf);
                leaf += 1;
                if text.is_empty() {
                    text = other;
                }
            }
            let text = if text.is_empty() { field.absent.to_owned() } else { text };
            fields.push((field.label, Arc::<str>::from(text)));
        }
        Ok(IndexRecord::new(namespace, name, uid, found.labels, fields))
    }

    /// `apiVersion` of stored objects.
    pub fn api_version(&self) -> &str {
        &self.api_version
    }
}

impl Codec for KindCodec {
    fn ingest(&self, _key: &str, value: &Bytes, revision: i64) -> Result<CachedObject, CodecError> {
        let json = match self.with_revision(value, revision) {
            _ if matches!(self.strategy, StrategyRef::Shared(_)) => self.adopt_custom(value, revision)?,
            Some(json) => json,
            None => {
                let adopted = self.adopt(value)?;
                self.with_revision(&adopted, revision).ok_or_else(|| CodecError("re-encoding failed".into()))?
            }
        };
        let index = self.index(&json)?;
        Ok(CachedObject::new(json, revision, index))
    }
}

/// `{"apiVersion":"v1","kind":"Pod","metadata":{`
fn prefix(api_version: &str, kind: &str) -> String {
    let (version, kind) = (Value::from(api_version), Value::from(kind));
    format!("{{\"apiVersion\":{version},\"kind\":{kind},\"metadata\":{{")
}

fn write_members(out: &mut Vec<u8>, map: &Map<String, Value>, skip: &[&str]) -> Result<(), serde_json::Error> {
    out.push(b'{');
    let mut first = true;
    for (key, value) in map.iter().filter(|(k, _)| !skip.contains(&k.as_str())) {
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        serde_json::to_writer(&mut *out, key)?;
        out.push(b':');
        serde_json::to_writer(&mut *out, value)?;
    }
    out.push(b'}');
    Ok(())
}

const FIXED: [&[&str]; 3] = [&["metadata", "namespace"], &["metadata", "name"], &["metadata", "uid"]];

/// Tree of the paths to read from an object; everything else is skipped unparsed.
#[derive(Default)]
struct Node {
    children: Vec<(&'static str, Node)>,
    /// Where the text goes; several when two selectable fields read the same path.
    slots: Vec<usize>,
    labels: bool,
    /// In the root: number of slots.
    total: usize,
}

impl Node {
    fn of(fields: &'static [SelectableField]) -> Self {
        let mut root = Self::default();
        let mut next = 0;
        let mut add = |root: &mut Self, path: &[&'static str]| {
            let node = path.iter().fold(&mut *root, |node, part| node.child_mut(part));
            node.slots.push(next);
            next += 1;
        };
        for path in FIXED {
            add(&mut root, path);
        }
        for field in fields {
            add(&mut root, field.path);
            if let Some(path) = field.fallback {
                add(&mut root, path);
            }
        }
        root.child_mut("metadata").child_mut("labels").labels = true;
        root.total = next;
        root
    }

    fn child_mut(&mut self, part: &'static str) -> &mut Self {
        let at = match self.children.iter().position(|(name, _)| *name == part) {
            Some(at) => at,
            None => {
                self.children.push((part, Self::default()));
                self.children.len() - 1
            }
        };
        &mut self.children[at].1
    }

    fn child(&self, part: &str) -> Option<&Self> {
        self.children.iter().find(|(name, _)| *name == part).map(|(_, node)| node)
    }
}

struct Found {
    texts: Vec<Option<String>>,
    labels: Vec<(String, String)>,
}

struct Walk<'a> {
    node: &'a Node,
    found: &'a mut Found,
}

impl Walk<'_> {
    fn put<E>(self, text: String) -> Result<(), E> {
        for slot in &self.node.slots {
            self.found.texts[*slot] = Some(text.clone());
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if self.node.labels {
            while let Some((key, value)) = map.next_entry::<String, String>()? {
                self.found.labels.push((key, value));
            }
            return Ok(());
        }
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            match self.node.child(&key) {
                Some(node) => map.next_value_seed(Walk { node, found: &mut *self.found })?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut at = 0_usize;
        loop {
            let more = match self.node.child(&at.to_string()) {
                Some(node) => seq.next_element_seed(Walk { node, found: &mut *self.found })?.is_some(),
                None => seq.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                return Ok(());
            }
            at += 1;
        }
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.put(text.to_owned())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.put(value.to_string())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.put(value.to_string())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.put(value.to_string())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.put(value.to_string())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}
