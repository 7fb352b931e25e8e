//! Objects as the cache holds and shares them.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use parking_lot::Mutex;

use super::intern::intern;

/// A stored value that cannot be made into an object.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct CodecError(pub String);

/// Turns stored values into cached objects.
pub trait Codec: Send + Sync + 'static {
    /// Makes the object of a stored value: JSON in the storage version, with `metadata.resourceVersion` set to
    /// `revision`.
    fn ingest(&self, key: &str, value: &Bytes, revision: i64) -> Result<CachedObject, CodecError>;

    /// The JSON of `object` with another resourceVersion. A removed object is shown so.
    fn restamp(&self, object: &CachedObject, revision: i64) -> Bytes {
        restamp(&object.json, object.revision, revision)
    }
}

/// What selectors look at, extracted once. Texts are shared between objects.
#[derive(Clone, Debug, Default)]
pub struct IndexRecord {
    namespace: Arc<str>,
    name: Box<str>,
    uid: Box<str>,
    labels: Box<[(Arc<str>, Arc<str>)]>,
    fields: Box<[(&'static str, Arc<str>)]>,
}

impl IndexRecord {
    /// A record. Labels and fields may come in any order.
    pub fn new(
        namespace: impl AsRef<str>,
        name: impl Into<Box<str>>,
        uid: impl Into<Box<str>>,
        labels: Vec<(String, String)>,
        fields: Vec<(&'static str, Arc<str>)>,
    ) -> Self {
        let mut labels: Box<[_]> = labels.into_iter().map(|(key, value)| (intern(&key), intern(&value))).collect();
        labels.sort_unstable();
        let fields = fields.into_iter().map(|(field, value)| (field, intern(&value))).collect();
        Self { namespace: intern(namespace.as_ref()), name: name.into(), uid: uid.into(), labels, fields }
    }

    /// `metadata.namespace`, empty for cluster-scoped objects.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `metadata.uid`.
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// All labels, in order of their keys.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.labels.iter().map(|(key, value)| (&**key, &**value))
    }

    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        let at = self.labels.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
        Some(&self.labels[at].1)
    }

    /// The value of an extracted field. `metadata.name` and `metadata.namespace` are always there.
    pub fn field(&self, field: &str) -> Option<&str> {
        match field {
            "metadata.name" => Some(&self.name),
            "metadata.namespace" => Some(&self.namespace),
            _ => self.fields.iter().find(|(name, _)| *name == field).map(|(_, value)| &**value),
        }
    }

    /// The shared text of an extracted field.
    pub(crate) fn shared_field(&self, field: &str) -> Option<&Arc<str>> {
        self.fields.iter().find(|(name, _)| *name == field).map(|(_, value)| value)
    }
}

/// An object of the cache: its bytes, made once and shared by every answer.
#[derive(Debug)]
pub struct CachedObject {
    /// JSON in the storage version, with the resourceVersion.
    pub json: Bytes,
    /// The resourceVersion.
    pub revision: i64,
    /// What selectors look at.
    pub index: IndexRecord,
    alternates: OnceLock<Box<Alternates>>,
}

#[derive(Debug, Default)]
struct Alternates {
    made: Mutex<Vec<(u64, Bytes)>>,
    used: AtomicBool,
}

/// Other encodings kept of one object.
const MAX_ALTERNATES: usize = 8;

impl CachedObject {
    /// An object.
    pub fn new(json: Bytes, revision: i64, index: IndexRecord) -> Self {
        Self { json, revision, index, alternates: OnceLock::new() }
    }

    /// Another encoding of the object (a table row, another version, protobuf), made once by `make` and kept while it
    /// is in use. `key` names the encoding.
    pub fn alternate<E>(&self, key: u64, make: impl FnOnce(&Self) -> Result<Bytes, E>) -> Result<Bytes, E> {
        let alternates = self.alternates.get_or_init(Box::default);
        alternates.used.store(true, Ordering::Relaxed);
        if let Some((_, bytes)) = alternates.made.lock().iter().find(|(k, _)| *k == key) {
            return Ok(bytes.clone());
        }
        let bytes = make(self)?;
        let mut made = alternates.made.lock();
        if let Some((_, first)) = made.iter().find(|(k, _)| *k == key) {
            return Ok(first.clone());
        }
        if made.len() >= MAX_ALTERNATES {
            made.remove(0);
        }
        made.push((key, bytes.clone()));
        Ok(bytes)
    }

    /// Drops the other encodings unless one was asked for since the last call.
    pub(crate) fn release_unused_alternates(&self) {
        if let Some(alternates) = self.alternates.get()
            && !alternates.used.swap(false, Ordering::Relaxed)
        {
            let unused = std::mem::take(&mut *alternates.made.lock());
            drop(unused);
        }
    }
}

/// Replaces the resourceVersion `from`, wherever it first stands as a member, by `to`.
pub(crate) fn restamp(json: &Bytes, from: i64, to: i64) -> Bytes {
    let old = format!("\"resourceVersion\":\"{from}\"");
    let Some(at) = find(json, old.as_bytes()) else { return json.clone() };
    let new = format!("\"resourceVersion\":\"{to}\"");
    let mut out = Vec::with_capacity(json.len() + new.len());
    out.extend_from_slice(&json[..at]);
    out.extend_from_slice(new.as_bytes());
    out.extend_from_slice(&json[at + old.len()..]);
    Bytes::from(out)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
