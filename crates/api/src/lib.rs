//! The kinds table over the v1.36 API: discovery facts, field schemas, protobuf numbers.
//!
//! `data/resources.json` lists what discovery shows, one resource or subresource a line; `data/types.json` lists the
//! fields of every type, one type a line. Both are read once into [`Api`]. Protobuf messages are kept apart, in
//! [`protobuf`].

pub mod decode;
pub mod discovery;
pub mod encode;
pub mod protobuf;
#[cfg(test)]
mod tests;
mod types;

use std::{collections::HashMap, sync::LazyLock};

use machinery::{
    GroupVersion, GroupVersionKind,
    schema::{SchemaRef, TypeTable},
};
use serde::Deserialize;

/// A subresource as discovery lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subresource {
    /// Name, such as `status`.
    pub name: String,
    /// Kind it takes and gives.
    pub gvk: GroupVersionKind,
    /// Whether `gvk` is of another group version than the resource, which discovery then says.
    pub foreign: bool,
    /// Verbs.
    pub verbs: Vec<String>,
}

/// A resource of one group version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Kind.
    pub gvk: GroupVersionKind,
    /// Plural name.
    pub plural: String,
    /// Singular name.
    pub singular: String,
    /// Short names.
    pub short_names: Vec<String>,
    /// Categories.
    pub categories: Vec<String>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Verbs.
    pub verbs: Vec<String>,
    /// Subresources.
    pub subresources: Vec<Subresource>,
    /// Hash of the stored group version kind, empty for kinds that are not stored.
    pub storage_version_hash: String,
}

impl Kind {
    /// Kind of lists.
    pub fn list_kind(&self) -> String {
        format!("{}List", self.gvk.kind)
    }

    /// Group, version and plural.
    fn place(&self) -> (&str, &str, &str) {
        (&self.gvk.group, &self.gvk.version, &self.plural)
    }

    /// Whether a verb is served.
    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    /// Whether objects are stored, rather than answered at once (reviews, bindings).
    pub fn is_stored(&self) -> bool {
        self.has_verb("list") && self.gvk.kind != "ComponentStatus"
    }
}

/// The table.
pub struct Api {
    kinds: Vec<Kind>,
    /// Indexes into `kinds`, sorted by group, version and plural.
    by_resource: Vec<usize>,
    types: TypeTable,
    type_names: HashMap<GroupVersionKind, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    group_version: String,
    name: String,
    kind: String,
    namespaced: bool,
    verbs: Vec<String>,
    #[serde(default)]
    singular: String,
    #[serde(default)]
    short_names: Vec<String>,
    #[serde(default)]
    categories: Vec<String>,
    #[serde(default)]
    group: Option<String>,
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    storage_version_hash: String,
}

fn find(kinds: &[Kind], sorted: &[usize], place: (&str, &str, &str)) -> Option<usize> {
    let at = sorted.binary_search_by(|at| kinds[*at].place().cmp(&place)).ok()?;
    sorted.get(at).copied()
}

static API: LazyLock<Api> = LazyLock::new(Api::load);

/// The table of the built-in API. GA versions only.
pub fn api() -> &'static Api {
    &API
}

/// Alpha and beta versions are off by default.
fn is_ga(version: &str) -> bool {
    !version.contains("alpha") && !version.contains("beta")
}

impl Api {
    fn load() -> Self {
        let rows: Vec<Row> =
            serde_json::from_str(include_str!("../data/resources.json")).expect("the committed table is valid");
        let mut kinds: Vec<Kind> = Vec::new();
        let mut subresources = Vec::new();
        for row in rows {
            let version = GroupVersion::parse(&row.group_version).unwrap_or_default();
            if !is_ga(&version.version) {
                continue;
            }
            if row.name.contains('/') {
                subresources.push((version, row));
                continue;
            }
            kinds.push(Kind {
                gvk: GroupVersionKind::new(version.group, version.version, row.kind),
                plural: row.name,
                singular: row.singular,
                short_names: row.short_names,
                categories: row.categories,
                namespaced: row.namespaced,
                verbs: row.verbs,
                subresources: Vec::new(),
                storage_version_hash: row.storage_version_hash,
            });
        }
        let mut by_resource: Vec<usize> = (0..kinds.len()).collect();
        by_resource.sort_by(|a, b| kinds[*a].place().cmp(&kinds[*b].place()));
        for (version, row) in subresources {
            let (resource, name) = row.name.split_once('/').unwrap_or((&row.name, ""));
            let Some(at) = find(&kinds, &by_resource, (&version.group, &version.version, resource)) else { continue };
            let foreign = row.group.is_some() || row.version.is_some();
            let group = row.group.unwrap_or(version.group);
            let version = row.version.unwrap_or(version.version);
            kinds[at].subresources.push(Subresource {
                name: name.to_owned(),
                gvk: GroupVersionKind::new(group, version, row.kind),
                foreign,
                verbs: row.verbs,
            });
        }
        let (types, type_names) = types::load(include_str!("../data/types.json"));
        Self { kinds, by_resource, types, type_names }
    }

    /// All resources.
    pub fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// The resource of a group, version and plural.
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&Kind> {
        find(&self.kinds, &self.by_resource, (group, version, plural)).and_then(|at| self.kinds.get(at))
    }

    /// The resource whose objects are of a kind.
    pub fn kind(&self, gvk: &GroupVersionKind) -> Option<&Kind> {
        self.kinds.iter().find(|k| k.gvk == *gvk)
    }

    /// All types.
    pub fn types(&self) -> &TypeTable {
        &self.types
    }

    /// Field facts of a kind.
    pub fn schema(&self, gvk: &GroupVersionKind) -> Option<SchemaRef<'_>> {
        let name = self.type_names.get(gvk)?;
        self.types.named(name).map(|id| self.types.get(id))
    }

    /// Name of the OpenAPI definition of a kind, such as `io.k8s.api.core.v1.Pod`.
    pub fn definition(&self, gvk: &GroupVersionKind) -> Option<&str> {
        self.type_names.get(gvk).map(String::as_str)
    }

    /// Kinds that an OpenAPI definition serves as.
    pub fn kinds_of(&self, definition: &str) -> Vec<&GroupVersionKind> {
        let mut kinds: Vec<_> = self.type_names.iter().filter(|(_, n)| *n == definition).map(|(k, _)| k).collect();
        kinds.sort();
        kinds
    }
}

/// The version a kind is stored in: the group's v1, but autoscaling in v2, and events under the core group.
pub fn storage_kind(gvk: &GroupVersionKind) -> GroupVersionKind {
    match (gvk.group.as_str(), gvk.kind.as_str()) {
        ("autoscaling", "HorizontalPodAutoscaler") => GroupVersionKind::new("autoscaling", "v2", &gvk.kind),
        ("events.k8s.io", "Event") => GroupVersionKind::new("", "v1", &gvk.kind),
        _ => gvk.clone(),
    }
}

/// Key prefix of a resource below `/registry`, with a trailing slash.
pub fn storage_prefix(group: &str, plural: &str) -> String {
    let path = match (group, plural) {
        ("", "nodes") => "minions".into(),
        ("", "services") => "services/specs".into(),
        ("", "endpoints") => "services/endpoints".into(),
        ("", "replicationcontrollers") => "controllers".into(),
        ("networking.k8s.io", "ingresses") => "ingress".into(),
        ("apiextensions.k8s.io" | "apiregistration.k8s.io", plural) => format!("{group}/{plural}"),
        (_, plural) => plural.to_owned(),
    };
    format!("{path}/")
}
