//! Discovery documents, legacy and aggregated v2, as pure functions of the served groups.

mod order;
#[cfg(test)]
mod tests;

use std::{cmp::Reverse, sync::Arc};

use serde_json::{Map, Value, json};

pub use order::compare_versions;

use crate::{Kind, api};

/// Priority of groups that custom resources bring.
pub const CUSTOM_GROUP_PRIORITY: i32 = 1000;

/// Priority of versions that nobody gave another.
pub const VERSION_PRIORITY: i32 = 100;

/// Content type of the aggregated documents.
pub const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Tells whether a built-in kind is served.
pub type Serves = Arc<dyn Fn(&Kind) -> bool + Send + Sync>;

/// A served version of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Name, such as `v1`.
    pub name: String,
    /// Resources.
    pub resources: Vec<Kind>,
    /// Versions of higher priority come first; those of equal priority are ordered by name.
    pub priority: i32,
    /// Whether `resources` are only what was known last, because the server behind is down.
    pub is_stale: bool,
}

/// A served group; the core group has no name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Name.
    pub name: String,
    /// Groups of higher priority come first.
    pub priority: i32,
    /// Versions, preferred first.
    pub versions: Vec<Version>,
}

/// What a server serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    groups: Vec<Group>,
}

impl Discovery {
    /// The built-in groups.
    pub fn built_in() -> Self {
        Self::new(Vec::new())
    }

    /// The built-in groups with those of custom resources and other servers. Versions of a group that is there
    /// already are added to it.
    pub fn new(extra: Vec<Group>) -> Self {
        Self::serving(&|_: &Kind| true, extra)
    }

    /// [`Discovery::new`] with only those of the built-in kinds that are served.
    pub fn serving(serves: &dyn Fn(&Kind) -> bool, extra: Vec<Group>) -> Self {
        let mut groups: Vec<Group> = Vec::new();
        for kind in api().kinds().iter().filter(|kind| serves(kind)) {
            let group = group_of(&mut groups, &kind.gvk.group, order::priority(&kind.gvk.group));
            version_of(group, &kind.gvk.version).resources.push(kind.clone());
        }
        Self::merged(groups, extra)
    }

    /// Only the given groups.
    pub fn of(groups: Vec<Group>) -> Self {
        Self::merged(Vec::new(), groups)
    }

    fn merged(mut groups: Vec<Group>, extra: Vec<Group>) -> Self {
        for group in extra {
            let own = group_of(&mut groups, &group.name, group.priority);
            for version in group.versions {
                let into = version_of(own, &version.name);
                into.priority = version.priority;
                into.is_stale |= version.is_stale;
                into.resources.extend(version.resources);
            }
        }
        for group in &mut groups {
            group.versions.sort_by(|a, b| b.priority.cmp(&a.priority).then_with(|| compare_versions(&a.name, &b.name)));
            for version in &mut group.versions {
                version.resources.sort_by(|a, b| a.plural.cmp(&b.plural));
                version.resources.dedup_by(|a, b| a.plural == b.plural);
            }
        }
        groups.sort_by(|a, b| (Reverse(a.priority), &a.name).cmp(&(Reverse(b.priority), &b.name)));
        Self { groups }
    }

    /// All groups in order, the core group among them.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    fn find(&self, group: &str) -> Option<&Group> {
        self.groups.iter().find(|g| g.name == group)
    }

    fn named(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter().filter(|g| !g.name.is_empty())
    }

    /// `/apis`.
    pub fn group_list(&self) -> Value {
        let groups: Vec<Value> = self.named().map(|g| Value::Object(group_body(g))).collect();
        json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
    }

    /// `/apis/<group>`.
    pub fn group(&self, name: &str) -> Option<Value> {
        let mut body = group_body(self.find(name).filter(|g| !g.name.is_empty())?);
        body.insert("kind".into(), json!("APIGroup"));
        body.insert("apiVersion".into(), json!("v1"));
        Some(Value::Object(body))
    }

    /// `/api/v1` and `/apis/<group>/<version>`.
    pub fn resource_list(&self, group: &str, version: &str) -> Option<Value> {
        let found = self.find(group)?.versions.iter().find(|v| v.name == version)?;
        let resources: Vec<Value> = found.resources.iter().flat_map(legacy_rows).collect();
        let group_version = machinery::GroupVersion::new(group, version).to_string();
        let mut list = json!({"kind": "APIResourceList", "groupVersion": group_version, "resources": resources});
        if !group.is_empty() {
            list["apiVersion"] = json!("v1");
        }
        Some(list)
    }

    /// The aggregated document of `/api` (`core`) or `/apis`.
    pub fn aggregated(&self, core: bool) -> Value {
        let items: Vec<Value> =
            self.groups.iter().filter(|g| g.name.is_empty() == core).map(aggregated_group).collect();
        json!({
            "kind": "APIGroupDiscoveryList",
            "apiVersion": "apidiscovery.k8s.io/v2",
            "metadata": {},
            "items": items,
        })
    }
}

fn group_of<'a>(groups: &'a mut Vec<Group>, name: &str, priority: i32) -> &'a mut Group {
    let at = groups.iter().position(|g| g.name == name).unwrap_or_else(|| {
        groups.push(Group { name: name.to_owned(), priority, versions: Vec::new() });
        groups.len() - 1
    });
    groups[at].priority = groups[at].priority.max(priority);
    &mut groups[at]
}

fn version_of<'a>(group: &'a mut Group, name: &str) -> &'a mut Version {
    let versions = &mut group.versions;
    let at = versions.iter().position(|v| v.name == name).unwrap_or_else(|| {
        versions.push(Version {
            name: name.to_owned(),
            resources: Vec::new(),
            priority: VERSION_PRIORITY,
            is_stale: false,
        });
        versions.len() - 1
    });
    &mut versions[at]
}

/// `/api`.
pub fn api_versions(server_address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    })
}

fn group_body(group: &Group) -> Map<String, Value> {
    let entry = |v: &Version| json!({"groupVersion": format!("{}/{}", group.name, v.name), "version": v.name});
    let mut body = Map::new();
    body.insert("name".into(), json!(group.name));
    body.insert("versions".into(), group.versions.iter().map(entry).collect());
    if let Some(preferred) = group.versions.first() {
        body.insert("preferredVersion".into(), entry(preferred));
    }
    body
}

fn legacy_rows(kind: &Kind) -> Vec<Value> {
    let mut row = json!({
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.gvk.kind,
        "verbs": kind.verbs,
    });
    add_names(&mut row, kind);
    if !kind.storage_version_hash.is_empty() {
        row["storageVersionHash"] = json!(kind.storage_version_hash);
    }
    let mut rows = vec![row];
    let mut subresources: Vec<_> = kind.subresources.iter().collect();
    subresources.sort_by(|a, b| a.name.cmp(&b.name));
    for sub in subresources {
        let mut row = json!({
            "name": format!("{}/{}", kind.plural, sub.name),
            "singularName": "",
            "namespaced": kind.namespaced,
            "kind": sub.gvk.kind,
            "verbs": sub.verbs,
        });
        if sub.foreign {
            row["group"] = json!(sub.gvk.group);
            row["version"] = json!(sub.gvk.version);
        }
        rows.push(row);
    }
    rows
}

fn add_names(row: &mut Value, kind: &Kind) {
    if !kind.short_names.is_empty() {
        row["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        row["categories"] = json!(kind.categories);
    }
}

fn aggregated_group(group: &Group) -> Value {
    let mut metadata = json!({"creationTimestamp": null});
    if !group.name.is_empty() {
        metadata["name"] = json!(group.name);
    }
    let versions: Vec<Value> = group
        .versions
        .iter()
        .map(|version| {
            let resources: Vec<Value> = version.resources.iter().map(aggregated_resource).collect();
            let freshness = if version.is_stale { "Stale" } else { "Current" };
            json!({"version": version.name, "resources": resources, "freshness": freshness})
        })
        .collect();
    json!({"metadata": metadata, "versions": versions})
}

fn response_kind(gvk: &machinery::GroupVersionKind) -> Value {
    json!({"group": gvk.group, "version": gvk.version, "kind": gvk.kind})
}

fn aggregated_resource(kind: &Kind) -> Value {
    let mut row = json!({
        "resource": kind.plural,
        "responseKind": response_kind(&kind.gvk),
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": kind.verbs,
    });
    add_names(&mut row, kind);
    let mut subresources: Vec<_> = kind.subresources.iter().collect();
    subresources.sort_by(|a, b| a.name.cmp(&b.name));
    let subresources: Vec<Value> = subresources
        .iter()
        .map(|s| json!({"subresource": s.name, "responseKind": response_kind(&s.gvk), "verbs": s.verbs}))
        .collect();
    if !subresources.is_empty() {
        row["subresources"] = json!(subresources);
    }
    row
}
