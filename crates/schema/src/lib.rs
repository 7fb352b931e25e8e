//! OpenAPI documents: those of the built-in API are made from the kinds table, those of custom resources from their
//! schemas. A document is put together from the parts of its publishers.

pub mod custom;
mod definitions;
pub mod expressions;
pub mod structural;
pub mod v2;
pub mod v2_protobuf;
pub mod v3;

use machinery::GroupVersionKind;
use serde_json::{Value, json};

/// Group versions served, as the paths under which their documents are found (`api/v1`, `apis/apps/v1`).
pub fn group_versions() -> Vec<(String, String, String)> {
    let mut all: Vec<(String, String, String)> = Vec::new();
    for kind in api::api().kinds() {
        let (group, version) = (&kind.gvk.group, &kind.gvk.version);
        let path = if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
        if !all.iter().any(|(p, ..)| *p == path) {
            all.push((path, group.clone(), version.clone()));
        }
    }
    all.sort();
    all
}

fn gvk_extension(gvk: &GroupVersionKind) -> Value {
    json!({"group": gvk.group, "version": gvk.version, "kind": gvk.kind})
}

/// Title and version of all documents.
fn info() -> Value {
    json!({"title": "Kubernetes", "version": "v1.36.0"})
}

/// One HTTP method on one path of a resource.
struct Operation {
    method: &'static str,
    action: &'static str,
    path: String,
    /// Definition of what it takes and gives, when that is not the resource's own.
    definition: Option<String>,
    /// How many kinds of patches it takes.
    patches: usize,
}

/// The operations of a resource: `method`, `x-kubernetes-action`, path.
fn operations(kind: &api::Kind) -> Vec<Operation> {
    let root = match kind.gvk.group.as_str() {
        "" => format!("/api/{}", kind.gvk.version),
        group => format!("/apis/{group}/{}", kind.gvk.version),
    };
    let scope = if kind.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("{root}{scope}/{}", kind.plural);
    let item = format!("{collection}/{{name}}");
    let everywhere = format!("{root}/{}", kind.plural);
    let mut all = Vec::new();
    for (verb, method, action, path) in [
        ("list", "get", "list", &collection),
        ("create", "post", "post", &collection),
        ("deletecollection", "delete", "deletecollection", &collection),
        ("get", "get", "get", &item),
        ("update", "put", "put", &item),
        ("patch", "patch", "patch", &item),
        ("delete", "delete", "delete", &item),
        // Of all namespaces; the same path again for kinds without.
        ("list", "get", "list", &everywhere),
    ] {
        if kind.has_verb(verb) {
            all.push(Operation { method, action, path: path.clone(), definition: None, patches: 4 });
        }
    }
    all
}

/// Names of the query parameters of an action.
fn query_parameters(action: &str) -> &'static [&'static str] {
    match action {
        "list" | "deletecollection" => &[
            "allowWatchBookmarks",
            "continue",
            "fieldSelector",
            "labelSelector",
            "limit",
            "resourceVersion",
            "resourceVersionMatch",
            "sendInitialEvents",
            "timeoutSeconds",
            "watch",
        ],
        "post" | "put" => &["dryRun", "fieldManager", "fieldValidation"],
        "patch" => &["dryRun", "fieldManager", "fieldValidation", "force"],
        "delete" => &["dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy"],
        _ => &[],
    }
}

fn parameter_type(name: &str) -> &'static str {
    match name {
        "limit" | "timeoutSeconds" | "gracePeriodSeconds" => "integer",
        "allowWatchBookmarks" | "sendInitialEvents" | "watch" | "force" | "orphanDependents" => "boolean",
        _ => "string",
    }
}
