//! OpenAPI v2 (Swagger), one document for everything.

use serde_json::{Map, Value, json};

use crate::{
    definitions::{Dialect, Writer},
    gvk_extension, info, operations, parameter_type, query_parameters,
};

/// The document.
pub fn document() -> Value {
    let mut paths = Map::new();
    let mut roots = Vec::new();
    for kind in api::api().kinds() {
        let Some(name) = api::api().definition(&kind.gvk) else { continue };
        roots.push(name.to_owned());
        for operation in operations(kind) {
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
    json!({
        "swagger": "2.0",
        "info": info(),
        "paths": paths,
        "definitions": Writer::new(Dialect::V2).closure(roots),
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_document_has_pods() {
        let document = super::document();
        assert!(document["definitions"]["io.k8s.api.core.v1.Pod"]["properties"]["spec"]["$ref"].is_string());
        assert!(document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"].is_object());
    }
}
