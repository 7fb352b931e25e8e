//! Object metadata without managed fields, annotations and finalizers.

use std::collections::BTreeMap;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time},
    jiff::Timestamp,
};
use machinery::selector::LabelSelector;
use serde::{Deserialize, Deserializer};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    labels: Option<BTreeMap<String, String>>,
    deletion_timestamp: Option<Time>,
    owner_references: Option<Vec<OwnerReference>>,
}

/// Reads metadata and skips what is large and of no use here.
pub(super) fn metadata<'de, D: Deserializer<'de>>(from: D) -> Result<ObjectMeta, D::Error> {
    Meta::deserialize(from).map(slim)
}

fn slim(meta: Meta) -> ObjectMeta {
    ObjectMeta {
        name: meta.name,
        namespace: meta.namespace,
        uid: meta.uid,
        resource_version: meta.resource_version,
        generation: meta.generation,
        labels: meta.labels,
        deletion_timestamp: meta.deletion_timestamp,
        owner_references: meta.owner_references,
        ..ObjectMeta::default()
    }
}

#[derive(Deserialize)]
struct Annotated {
    #[serde(flatten)]
    meta: Meta,
    annotations: Option<BTreeMap<String, String>>,
}

/// [`metadata`] with annotations.
pub(super) fn annotated<'de, D: Deserializer<'de>>(from: D) -> Result<ObjectMeta, D::Error> {
    let Annotated { meta, annotations } = Annotated::deserialize(from)?;
    Ok(ObjectMeta { annotations, ..slim(meta) })
}

/// Labels, sorted by key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Labels(Box<[(Box<str>, Box<str>)]>);

impl Labels {
    pub(crate) fn new(labels: Option<BTreeMap<String, String>>) -> Self {
        let sorted = labels.unwrap_or_default().into_iter();
        Self(sorted.map(|(k, v)| (k.into_boxed_str(), v.into_boxed_str())).collect())
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
        self.0.get(at).map(|(_, v)| &**v)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (&**k, &**v))
    }

    pub(crate) fn match_selector(&self, selector: &LabelSelector) -> bool {
        selector.matches(|key| self.get(key))
    }
}

/// The controller that made an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Owner {
    pub(crate) kind: Box<str>,
    pub(crate) name: Box<str>,
}

pub(crate) fn controller_of(meta: &ObjectMeta) -> Option<Owner> {
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    let owner = owners.iter().find(|o| o.controller == Some(true))?;
    Some(Owner { kind: owner.kind.as_str().into(), name: owner.name.as_str().into() })
}

/// Seconds since the epoch.
pub(super) fn seconds(at: Option<&Time>) -> Option<i64> {
    at.map(|t: &Time| Timestamp::as_second(t.0))
}
