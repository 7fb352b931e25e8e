//! What is known of the objects of a kind: the built-in tables, else the schema of a definition.

use cel::Type;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion,
};
use machinery::{GroupVersionKind, GroupVersionResource};
use schema::{
    expressions,
    structural::{Schema, type_table},
};
use serde_json::Value;

fn served<'a>(
    definitions: &[&'a CustomResourceDefinition],
    group: &str,
    version: &str,
    is: impl Fn(&CustomResourceDefinition) -> bool,
) -> Option<(&'a CustomResourceDefinition, &'a CustomResourceDefinitionVersion)> {
    let found = definitions.iter().find(|definition| definition.spec.group == group && is(definition))?;
    let version = found.spec.versions.iter().find(|own| own.served && own.name == version)?;
    Some((found, version))
}

/// The kind of a resource.
pub(super) fn kind(
    resource: &GroupVersionResource,
    definitions: &[&CustomResourceDefinition],
) -> Option<GroupVersionKind> {
    let GroupVersionResource { group, version, resource } = resource;
    if let Some(kind) = api::api().resource(group, version, resource) {
        return Some(kind.gvk.clone());
    }
    let (definition, _) = served(definitions, group, version, |own| own.spec.names.plural == *resource)?;
    Some(GroupVersionKind::new(group, version, &definition.spec.names.kind))
}

/// The type of the objects of a kind.
pub(super) fn of_kind(kind: &GroupVersionKind, definitions: &[&CustomResourceDefinition]) -> Option<Type> {
    if let Some(known) = api::api().schema(kind) {
        return Some(expressions::type_of(known));
    }
    let (_, version) = served(definitions, &kind.group, &kind.version, |own| own.spec.names.kind == kind.kind)?;
    let schema = version.schema.as_ref()?.open_api_v3_schema.as_ref()?;
    let (table, root) = type_table(&Schema::compile(&serde_json::to_value(schema).ok()?));
    Some(expressions::type_of(table.get(root)))
}

/// The type of the parameters of a policy; anything if they are not known.
pub(super) fn of_params(spec: &Value, definitions: &[&CustomResourceDefinition]) -> Type {
    let text = |pointer: &str| spec.pointer(pointer).and_then(Value::as_str).unwrap_or("");
    let version = text("/paramKind/apiVersion");
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let kind = GroupVersionKind::new(group, version, text("/paramKind/kind"));
    of_kind(&kind, definitions).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn kinds_of_definitions_are_known() {
        let definition: CustomResourceDefinition = serde_json::from_value(json!({
            "metadata": {"name": "jobs.example.com"},
            "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "jobs", "kind": "Job"},
                "versions": [
                    {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object",
                        "properties": {"spec": {"type": "object", "properties": {"retries": {"type": "integer"}}}}}}},
                    {"name": "v2", "served": false, "storage": false},
                ]},
        }))
        .expect("a definition");
        let all = [&definition];
        let gvr = |group: &str, version: &str| GroupVersionResource::new(group, version, "jobs");
        let own = kind(&gvr("example.com", "v1"), &all).expect("a kind");
        assert_eq!(own.to_string(), "example.com/v1, Kind=Job");
        assert_eq!(kind(&gvr("batch", "v1"), &all).expect("a kind").to_string(), "batch/v1, Kind=Job");
        assert_eq!(kind(&gvr("example.com", "v2"), &all), None);
        let known = of_kind(&own, &all).expect("a type");
        let told = |expression: &str| cel::Program::compile(expression, &[("object", &known)]).map(|_| ());
        assert_eq!(told("object.spec.retries > 1 && object.metadata.name == 'x'"), Ok(()));
        assert!(told("object.spec.maxRetries > 1").is_err());
        let params = json!({"paramKind": {"apiVersion": "example.com/v1", "kind": "Job"}});
        assert_eq!(of_params(&params, &all), known);
        assert_eq!(of_params(&json!({}), &all), Type::Dyn);
    }
}
