//! OpenAPI v3, one document per group version.

use serde_json::{Map, Value, json};

use crate::{
    definitions::{Dialect, Writer},
    gvk_extension, info, operations, parameter_type, query_parameters,
};

/// Kinds of patches; custom resources take all but the last.
const PATCHES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

const OPTIONS: [&str; 4] = [
    "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Patch",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Status",
    "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent",
];

/// What one publisher brings to the document of a group version.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Part {
    /// Paths.
    pub paths: Map<String, Value>,
    /// Definitions by name.
    pub schemas: Map<String, Value>,
}

/// The part of the built-in kinds of a group version that are served.
pub fn built_in(group: &str, version: &str, serves: &dyn Fn(&api::Kind) -> bool) -> Part {
    let all = api::api().kinds().iter();
    let kinds = all.filter(|k| k.gvk.group == group && k.gvk.version == version && serves(k));
    let mut paths = Map::new();
    let mut roots = Vec::new();
    for kind in kinds {
        let Some(name) = api::api().definition(&kind.gvk) else { continue };
        roots.push(name.to_owned());
        roots.push(format!("{name}List"));
        add_paths(&mut paths, kind, name, &operations(kind));
    }
    Part { paths, schemas: definitions(roots) }
}

/// Definitions of built-in types with what they and the operations refer to.
pub(crate) fn definitions(roots: impl IntoIterator<Item = String>) -> Map<String, Value> {
    Writer::new(Dialect::V3).closure(roots.into_iter().chain(OPTIONS.iter().map(|o| (*o).to_owned())))
}

pub(crate) fn add_paths(
    paths: &mut Map<String, Value>,
    kind: &api::Kind,
    definition: &str,
    operations: &[crate::Operation],
) {
    for operation in operations {
        let item = paths.entry(operation.path.clone()).or_insert_with(|| json!({}));
        item[operation.method] = body(kind, operation.definition.as_deref().unwrap_or(definition), operation);
        let mut scope = Vec::new();
        if operation.path.contains("{name}") {
            scope.push(path_parameter("name", &format!("name of the {}", kind.gvk.kind)));
        }
        if operation.path.contains("{namespace}") {
            scope.push(path_parameter("namespace", "object name and auth scope, such as for teams and projects"));
        }
        item["parameters"] = json!(scope);
    }
}

/// The document made of parts; of definitions with one name the first stays.
pub fn document(parts: impl IntoIterator<Item = Part>) -> Value {
    let mut all = Part::default();
    for part in parts {
        all.paths.extend(part.paths);
        for (name, schema) in part.schemas {
            all.schemas.entry(name).or_insert(schema);
        }
    }
    json!({
        "openapi": "3.0.0",
        "info": info(),
        "paths": all.paths,
        "components": {
            "schemas": all.schemas,
            "securitySchemes": {"BearerToken": {
                "type": "apiKey", "description": "Bearer Token authentication", "name": "authorization", "in": "header"}},
        },
    })
}

fn path_parameter(name: &str, description: &str) -> Value {
    json!({
        "name": name, "in": "path", "description": description, "required": true,
        "schema": {"type": "string", "uniqueItems": true},
    })
}

fn body(kind: &api::Kind, definition: &str, operation: &crate::Operation) -> Value {
    let action = operation.action;
    let of = |name: &str| Dialect::V3.reference(name);
    let returns = match action {
        "list" => of(&format!("{definition}List")),
        "deletecollection" | "delete" => of(OPTIONS[2]),
        _ => of(definition),
    };
    let content = |schema: Value| json!({"application/json": {"schema": schema}});
    let parameters: Vec<Value> = query_parameters(action)
        .iter()
        .map(|name| json!({"name": name, "in": "query", "schema": {"type": parameter_type(name), "uniqueItems": true}}))
        .collect();
    let mut out = json!({
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": gvk_extension(&kind.gvk),
        "parameters": parameters,
        "responses": {
            "200": {"description": "OK", "content": content(returns)},
            "401": {"description": "Unauthorized"},
        },
    });
    let takes = match action {
        "post" | "put" => Some(of(definition)),
        "patch" => Some(of(OPTIONS[1])),
        "delete" | "deletecollection" => Some(of(OPTIONS[0])),
        _ => None,
    };
    if let Some(schema) = takes {
        let content = match action {
            "patch" => PATCHES
                .iter()
                .take(operation.patches)
                .map(|media| ((*media).to_owned(), json!({"schema": schema})))
                .collect::<Map<_, _>>()
                .into(),
            _ => json!({"*/*": {"schema": schema}}),
        };
        out["requestBody"] = json!({"content": content});
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_resolves() {
        for (_, group, version) in crate::group_versions() {
            let document = document([built_in(&group, &version, &|_| true)]);
            let text = document.to_string();
            let schemas = document["components"]["schemas"].as_object().expect("schemas");
            for reference in text.split("\"#/components/schemas/").skip(1) {
                let name = reference.split('"').next().unwrap_or("");
                // List types are not in the table of fields; clients read the kinds.
                assert!(schemas.contains_key(name) || name.ends_with("List"), "{group}/{version}: {name}");
            }
        }
    }

    #[test]
    fn patches_tell_of_field_validation() {
        let document = document([built_in("apps", "v1", &|kind| kind.plural != "statefulsets")]);
        let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
        assert!(document["paths"].get("/apis/apps/v1/statefulsets").is_none());
        let names: Vec<_> = patch["parameters"].as_array().expect("list").iter().map(|p| p["name"].clone()).collect();
        assert!(names.contains(&json!("fieldValidation")));
        let containers = &document["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    }
}
