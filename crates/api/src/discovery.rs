//! Discovery documents, legacy and aggregated v2, as pure functions of the table.

use serde_json::{Map, Value, json};

use crate::{Kind, api};

/// Groups in the order of upstream's priorities.
const GROUP_ORDER: [&str; 22] = [
    "",
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "resource.k8s.io",
    "internal.apiserver.k8s.io",
];

/// Served groups but the core one, in order, each with its versions, preferred first.
pub fn groups() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for kind in api().kinds().iter().filter(|k| !k.gvk.group.is_empty()) {
        let (group, version) = (kind.gvk.group.as_str(), kind.gvk.version.as_str());
        match groups.iter_mut().find(|(g, _)| *g == group) {
            Some((_, versions)) if versions.contains(&version) => {}
            Some((_, versions)) => versions.push(version),
            None => groups.push((group, vec![version])),
        }
    }
    for (_, versions) in &mut groups {
        // Only GA versions are served: higher numbers first.
        versions.sort_by_key(|v| std::cmp::Reverse(v.trim_start_matches('v').parse::<u32>().unwrap_or(0)));
    }
    groups.sort_by_key(|(g, _)| GROUP_ORDER.iter().position(|o| o == g).unwrap_or(GROUP_ORDER.len()));
    groups
}

/// `/api`.
pub fn api_versions(server_address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    })
}

fn group_body(group: &str, versions: &[&str]) -> Map<String, Value> {
    let entry = |v: &&str| json!({"groupVersion": format!("{group}/{v}"), "version": v});
    let mut body = Map::new();
    body.insert("name".into(), json!(group));
    body.insert("versions".into(), versions.iter().map(entry).collect());
    body.insert("preferredVersion".into(), versions.first().map(entry).unwrap_or_default());
    body
}

/// `/apis`.
pub fn group_list() -> Value {
    let groups: Vec<Value> = groups().iter().map(|(g, v)| Value::Object(group_body(g, v))).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/<group>`.
pub fn group(name: &str) -> Option<Value> {
    let groups = groups();
    let (group, versions) = groups.iter().find(|(g, _)| *g == name)?;
    let mut body = group_body(group, versions);
    body.insert("kind".into(), json!("APIGroup"));
    body.insert("apiVersion".into(), json!("v1"));
    Some(Value::Object(body))
}

fn kinds_of(group: &str, version: &str) -> Vec<&'static Kind> {
    let mut kinds: Vec<&Kind> =
        api().kinds().iter().filter(|k| k.gvk.group == group && k.gvk.version == version).collect();
    kinds.sort_by(|a, b| a.plural.cmp(&b.plural));
    kinds
}

/// `/api/v1` and `/apis/<group>/<version>`.
pub fn resource_list(group: &str, version: &str) -> Option<Value> {
    let kinds = kinds_of(group, version);
    if kinds.is_empty() {
        return None;
    }
    let resources: Vec<Value> = kinds.iter().flat_map(|k| legacy_rows(k)).collect();
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let mut list = json!({"kind": "APIResourceList", "groupVersion": group_version, "resources": resources});
    if !group.is_empty() {
        list["apiVersion"] = json!("v1");
    }
    Some(list)
}

fn legacy_rows(kind: &Kind) -> Vec<Value> {
    let mut row = json!({
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.gvk.kind,
        "verbs": kind.verbs,
    });
    if !kind.short_names.is_empty() {
        row["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        row["categories"] = json!(kind.categories);
    }
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

/// Content type of the aggregated documents.
pub const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// The aggregated document of `/api` (`core`) or `/apis`.
pub fn aggregated(core: bool) -> Value {
    let listed = if core { vec![("", vec!["v1"])] } else { groups() };
    let items: Vec<Value> = listed.iter().map(|(g, v)| aggregated_group(g, v)).collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    })
}

fn aggregated_group(group: &str, versions: &[&str]) -> Value {
    let mut metadata = json!({"creationTimestamp": null});
    if !group.is_empty() {
        metadata["name"] = json!(group);
    }
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| {
            let resources: Vec<Value> = kinds_of(group, version).iter().map(|k| aggregated_resource(k)).collect();
            json!({"version": version, "resources": resources, "freshness": "Current"})
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
    if !kind.short_names.is_empty() {
        row["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        row["categories"] = json!(kind.categories);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn autoscaling_prefers_v2() {
        let group = group("autoscaling").expect("group");
        assert_eq!(group["preferredVersion"]["version"], "v2");
        assert_eq!(group["versions"].as_array().map(Vec::len), Some(2));
    }

    #[test]
    fn lists_hold_subresources() {
        let list = resource_list("apps", "v1").expect("apps");
        let names: Vec<&str> =
            list["resources"].as_array().into_iter().flatten().filter_map(|r| r["name"].as_str()).collect();
        assert!(names.contains(&"deployments/scale"));
        assert!(resource_list("nope", "v1").is_none());
    }

    #[test]
    fn the_aggregated_core_group_has_no_name() {
        let list = aggregated(true);
        assert!(list["items"][0]["metadata"].get("name").is_none());
        assert_eq!(list["items"][0]["versions"][0]["version"], "v1");
    }
}
