//! What the server tells about itself, discovery and OpenAPI, while what it serves changes.
//!
//! Publishers each hold any number of [`Offer`]s, one per group version, under a name of their own: the built-in API
//! (`built-in`), each CustomResourceDefinition, each APIService of another server. [`Published::publish`] replaces all
//! offers of one publisher, [`Published::withdraw`] removes them. Several publishers may offer the same group version;
//! their resources and definitions are merged, the first publisher (by name) winning over the others.
//!
//! Documents are made when they are first asked for and kept until an offer that they are made of changes; those of
//! other group versions stay as they are, byte for byte.
//!
//! A group version of another server is offered with the resources its discovery lists ([`Offer::resources`], and
//! [`Offer::is_stale`] when it is down) and its OpenAPI as it stands ([`OpenApi::Ready`]). Requests below
//! `/apis/<group>/<version>` are passed on before they reach the routes made here.

mod documents;
mod routes;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use api::{
    Kind,
    discovery::{Discovery, Group, Serves, Version},
};
use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use schema::{v2, v3};

pub use routes::router;

use self::documents::{Document, Swagger};

/// Name of the publisher of the built-in API.
pub const BUILT_IN: &str = "built-in";

/// Makes the OpenAPI of an offer when it is asked for.
pub trait Describe: Send + Sync {
    /// Its part of the OpenAPI v3 document of the group version.
    fn v3(&self) -> v3::Part;
    /// Its part of the OpenAPI v2 document.
    fn v2(&self) -> v2::Part;
}

/// The OpenAPI of an offer.
#[derive(Clone)]
pub enum OpenApi {
    /// None is known.
    Absent,
    /// Made when asked for.
    Described(Arc<dyn Describe>),
    /// As another server gave it: the whole v3 document of the group version (JSON), and its part of the v2 one.
    Ready {
        /// The v3 document.
        v3: Option<Bytes>,
        /// The v2 part.
        v2: Option<Arc<v2::Part>>,
    },
}

/// What a publisher offers in one group version.
#[derive(Clone)]
pub struct Offer {
    /// Group; empty for the core group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Priority of the group; of several offers the highest counts.
    pub group_priority: i32,
    /// Priority of the version within its group.
    pub version_priority: i32,
    /// Resources that discovery lists.
    pub resources: Vec<Kind>,
    /// Whether `resources` are only what was known last.
    pub is_stale: bool,
    /// OpenAPI.
    pub openapi: OpenApi,
}

/// `apis/apps/v1`, `api/v1`: where the OpenAPI v3 document of a group version is found.
fn document_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// An offer with what was made of it.
struct Held {
    offer: Offer,
    swagger: OnceLock<Swagger>,
}

/// All offers at one moment, and the documents made of them.
#[derive(Default)]
struct Snapshot {
    /// By publisher, then group and version.
    offers: BTreeMap<String, Vec<Arc<Held>>>,
    /// Which built-in kinds are served; all, if that is not said.
    serves: Option<Serves>,
    v3: BTreeMap<String, Arc<OnceLock<Document>>>,
    discovery: OnceLock<documents::Discovered>,
    v2: OnceLock<Document>,
    v2_binary: OnceLock<Document>,
    index: OnceLock<Document>,
}

impl Snapshot {
    fn held(&self) -> impl Iterator<Item = &Arc<Held>> {
        self.offers.values().flatten()
    }

    fn at<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a Offer> {
        self.held().map(|h| &h.offer).filter(move |o| document_path(&o.group, &o.version) == path)
    }

    /// The same with other offers of `publisher`; documents that do not change are taken over.
    fn with(&self, publisher: &str, offers: Vec<Offer>) -> Self {
        let mut next = self.offers.clone();
        let held: Vec<_> = offers.into_iter().map(|offer| Arc::new(Held { offer, swagger: OnceLock::new() })).collect();
        let mut touched: Vec<String> = held.iter().map(|h| document_path(&h.offer.group, &h.offer.version)).collect();
        let gone = match held.is_empty() {
            true => next.remove(publisher),
            false => next.insert(publisher.to_owned(), held),
        };
        touched.extend(gone.iter().flatten().map(|h| document_path(&h.offer.group, &h.offer.version)));
        let mut snapshot = Self { offers: next, serves: self.serves.clone(), v3: self.v3.clone(), ..Self::default() };
        for path in touched {
            let offered = snapshot.at(&path).any(|o| !matches!(o.openapi, OpenApi::Absent));
            match offered {
                true => snapshot.v3.insert(path, Arc::default()),
                false => snapshot.v3.remove(&path),
            };
        }
        snapshot
    }

    /// The served groups.
    fn groups(&self) -> Discovery {
        let built_in = self.offers.contains_key(BUILT_IN);
        let extra = self.offers.iter().filter(|(name, _)| name.as_str() != BUILT_IN).flat_map(|(_, held)| held);
        let groups = extra.map(|held| {
            let offer = &held.offer;
            let version = Version {
                name: offer.version.clone(),
                resources: offer.resources.clone(),
                priority: offer.version_priority,
                is_stale: offer.is_stale,
            };
            Group { name: offer.group.clone(), priority: offer.group_priority, versions: vec![version] }
        });
        match (built_in, &self.serves) {
            (false, _) => Discovery::of(groups.collect()),
            (true, None) => Discovery::new(groups.collect()),
            (true, Some(serves)) => Discovery::serving(&**serves, groups.collect()),
        }
    }
}

/// The register of publishers.
pub struct Published {
    /// Serialises changes.
    changing: Mutex<()>,
    current: ArcSwap<Snapshot>,
    /// `host:port` that clients reach the server at.
    address: String,
}

struct BuiltIn {
    group: String,
    version: String,
    serves: Serves,
}

impl Describe for BuiltIn {
    fn v3(&self) -> v3::Part {
        v3::built_in(&self.group, &self.version, &*self.serves)
    }

    fn v2(&self) -> v2::Part {
        v2::built_in(&self.group, &self.version, &*self.serves)
    }
}

impl Published {
    /// A register without publishers. `address` is the `host:port` that clients reach the server at.
    pub fn new(address: String) -> Self {
        Self { changing: Mutex::new(()), current: ArcSwap::default(), address }
    }

    /// A register with what is served of the built-in API.
    pub fn with_built_in(address: String, serves: Serves) -> Self {
        let published = Self::new(address);
        let is_served = |group: &str, version: &str| {
            let kinds = api::api().kinds().iter().filter(|kind| kind.gvk.group == group && kind.gvk.version == version);
            kinds.into_iter().any(|kind| serves(kind))
        };
        let all = schema::group_versions().into_iter();
        let served = all.filter(|(_, group, version)| is_served(group, version));
        let offers: Vec<Offer> = served
            .map(|(_, group, version)| Offer {
                group_priority: api::discovery::CUSTOM_GROUP_PRIORITY,
                version_priority: api::discovery::VERSION_PRIORITY,
                // Discovery knows the built-in kinds by itself.
                resources: Vec::new(),
                is_stale: false,
                openapi: OpenApi::Described(Arc::new(BuiltIn {
                    group: group.clone(),
                    version: version.clone(),
                    serves: Arc::clone(&serves),
                })),
                group,
                version,
            })
            .collect();
        published.current.store(Arc::new(Snapshot { serves: Some(serves), ..Snapshot::default() }));
        published.publish(BUILT_IN, offers);
        published
    }

    /// Makes `offers` all that `publisher` offers.
    pub fn publish(&self, publisher: &str, offers: Vec<Offer>) {
        let _one_at_a_time = self.changing.lock();
        let next = self.current.load().with(publisher, offers);
        self.current.store(Arc::new(next));
    }

    /// Removes all offers of a publisher.
    pub fn withdraw(&self, publisher: &str) {
        self.publish(publisher, Vec::new());
    }

    /// Whether anybody offers a group version.
    pub fn has_version(&self, group: &str, version: &str) -> bool {
        self.current.load().held().any(|h| h.offer.group == group && h.offer.version == version)
    }

    /// The present groups, versions and resources.
    pub fn discovery(&self) -> Discovery {
        self.current.load().groups()
    }
}
