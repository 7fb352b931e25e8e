//! The RBAC objects that every cluster has from its first start (`rbac-defaults`).

mod controllers;
pub mod flow;
mod roles;

use serde_json::{Value, json};

use crate::rbac::PolicyRule;

const READ: &str = "get,list,watch";
const WRITE: &str = "create,delete,deletecollection,patch,update";
const READ_WRITE: &str = "create,delete,deletecollection,get,list,patch,update,watch";

/// A rule on resources; all lists comma-separated, `-` in `groups` is the core group.
fn rule(verbs: &str, groups: &str, resources: &str) -> PolicyRule {
    PolicyRule {
        verbs: split(verbs),
        api_groups: split(groups).into_iter().map(|g| if g == "-" { String::new() } else { g }).collect(),
        resources: split(resources),
        ..PolicyRule::default()
    }
}

/// A rule on named resources.
fn named(verbs: &str, groups: &str, resources: &str, names: &str) -> PolicyRule {
    PolicyRule { resource_names: split(names), ..rule(verbs, groups, resources) }
}

/// A rule on paths.
fn paths(verbs: &str, urls: &str) -> PolicyRule {
    PolicyRule { verbs: split(verbs), non_resource_urls: split(urls), ..PolicyRule::default() }
}

/// Writing events.
fn events() -> PolicyRule {
    rule("create,patch,update", "-,events.k8s.io", "events")
}

fn split(list: &str) -> Vec<String> {
    list.split(',').map(str::to_owned).collect()
}

/// A ClusterRole to be.
struct ClusterRole {
    name: &'static str,
    rules: Vec<PolicyRule>,
    labels: &'static [&'static str],
    aggregates: Option<&'static str>,
}

impl ClusterRole {
    fn new(name: &'static str, rules: Vec<PolicyRule>) -> Self {
        Self { name, rules, labels: &[], aggregates: None }
    }

    fn object(&self) -> Value {
        let mut object = object("ClusterRole", "", self.name);
        for label in self.labels {
            object["metadata"]["labels"][*label] = json!("true");
        }
        if let Some(label) = self.aggregates {
            object["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
        }
        object["rules"] = if self.rules.is_empty() { Value::Null } else { json!(self.rules) };
        object
    }
}

fn object(kind: &str, namespace: &str, name: &str) -> Value {
    let mut object = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind,
        "metadata": {
            "name": name,
            "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
            "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        },
    });
    if !namespace.is_empty() {
        object["metadata"]["namespace"] = json!(namespace);
    }
    object
}

/// Subjects of a binding: `User:x`, `Group:x` or `ServiceAccount:namespace/name`.
fn subjects(list: &[&str]) -> Value {
    let subject = |text: &&str| match text.split_once(':') {
        Some(("ServiceAccount", rest)) => {
            let (namespace, name) = rest.split_once('/').unwrap_or(("", rest));
            json!({"kind": "ServiceAccount", "name": name, "namespace": namespace})
        }
        Some((kind, name)) => json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}),
        None => Value::Null,
    };
    Value::Array(list.iter().map(subject).collect())
}

fn binding(kind: &str, namespace: &str, name: &str, role_kind: &str, role: &str, who: &[&str]) -> Value {
    let mut object = object(kind, namespace, name);
    object["roleRef"] = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": role});
    if !who.is_empty() {
        object["subjects"] = subjects(who);
    }
    object
}

/// Rules of `system:node`, which the Node authorizer grants to every node.
pub fn node_rules() -> Vec<PolicyRule> {
    roles::node()
}

/// All bootstrap objects, roles before bindings.
pub fn objects() -> Vec<Value> {
    let mut objects: Vec<Value> = roles::cluster_roles().iter().map(ClusterRole::object).collect();
    let controllers = controllers::controllers();
    for (name, rules) in &controllers {
        let mut role = object("ClusterRole", "", &format!("system:controller:{name}"));
        role["rules"] = json!(rules);
        objects.push(role);
    }
    objects.extend(roles::cluster_role_bindings());
    for (name, _) in &controllers {
        let role = format!("system:controller:{name}");
        let who = format!("ServiceAccount:kube-system/{name}");
        objects.push(binding("ClusterRoleBinding", "", &role, "ClusterRole", &role, &[&who]));
    }
    objects.extend(roles::namespaced());
    objects
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_bindings_point_at_roles() {
        let objects = objects();
        let id = |o: &Value| {
            format!(
                "{}/{}/{}",
                o["kind"],
                o["metadata"].get("namespace").unwrap_or(&Value::Null),
                o["metadata"]["name"]
            )
        };
        let ids: HashSet<String> = objects.iter().map(id).collect();
        assert_eq!(ids.len(), objects.len());
        for binding in objects.iter().filter(|o| o.get("roleRef").is_some()) {
            let found = objects.iter().any(|o| {
                o["kind"] == binding["roleRef"]["kind"] && o["metadata"]["name"] == binding["roleRef"]["name"]
            });
            assert!(found, "{} refers to a missing role", id(binding));
        }
    }
}
