//! OpenAPI v2 (Swagger), one document for everything.

use serde_json::{Map, Value, json};

use crate::{
    definitions::{Dialect, Writer},
    gvk_extension, info, operations, parameter_type, query_parameters,
};

/// What one publisher brings to the document.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Part {
    /// Paths.
    pub paths: Map<String, Value>,
    /// Definitions by name.
    pub definitions: Map<String, Value>,
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
        add_paths(&mut paths, kind, name, &operations(kind));
    }
    Part { paths, definitions: definitions(roots) }
}

/// Definitions of built-in types with what they refer to.
pub(crate) fn definitions(roots: impl IntoIterator<Item = String>) -> Map<String, Value> {
    Writer::new(Dialect::V2).closure(roots)
}

pub(crate) fn add_paths(
    paths: &mut Map<String, Value>,
    kind: &api::Kind,
    definition: &str,
    operations: &[crate::Operation],
) {
    for operation in operations {
        let name = operation.definition.as_deref().unwrap_or(definition);
        let item = paths.entry(operation.path.clone()).or_insert_with(|| json!({}));
        let parameters: Vec<Value> = query_parameters(operation.action)
            .iter()
            .map(|p| json!({"name": p, "in": "query", "type": parameter_type(p), "uniqueItems": true}))
            .collect();
        item[operation.method] = json!({
            "x-kubernetes-action": operation.action,
            "x-kubernetes-group-version-kind": gvk_extension(&kind.gvk),
            "consumes": ["*/*"],
            "produces": ["application/json", "application/yaml"],
            "parameters": parameters,
            "responses": {
                "200": {"description": "OK", "schema": Dialect::V2.reference(name)},
                "401": {"description": "Unauthorized"},
            },
        });
    }
}

/// The head of the document, before `paths` and `definitions`.
pub fn head() -> Map<String, Value> {
    Map::from_iter([("swagger".to_owned(), json!("2.0")), ("info".to_owned(), info())])
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_part_of_the_core_group_has_pods() {
        let part = super::built_in("", "v1", &|_| true);
        assert!(part.definitions["io.k8s.api.core.v1.Pod"]["properties"]["spec"]["$ref"].is_string());
        assert!(part.paths["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"].is_object());
    }
}
