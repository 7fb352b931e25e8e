//! Documents of custom resources: their schemas as published, and the paths they are served at.

#[cfg(test)]
mod tests;

use machinery::GroupVersionKind;
use serde_json::{Map, Value, json};

use crate::{Operation, definitions::Dialect, gvk_extension, operations, v2, v3};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const SCALE: &str = "io.k8s.api.autoscaling.v1.Scale";
const CONVENTIONS: &str = "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md";
const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";

/// One served version of a custom resource.
#[derive(Clone, Copy, Debug)]
pub struct Custom<'a> {
    /// The resource as discovery shows it.
    pub kind: &'a api::Kind,
    /// Kind of lists.
    pub list_kind: &'a str,
    /// `openAPIV3Schema`.
    pub schema: &'a Value,
    /// Paths of its selectable fields.
    pub selectable: &'a [String],
}

/// Name of the definition of a custom kind: `com.example.stable.v1.Foo` for `stable.example.com/v1` `Foo`.
pub fn definition_name(gvk: &GroupVersionKind) -> String {
    let mut parts: Vec<&str> = gvk.group.split('.').rev().collect();
    parts.extend([gvk.version.as_str(), gvk.kind.as_str()]);
    parts.join(".")
}

fn api_version_property() -> Value {
    json!({"type": "string", "description": format!(
        "APIVersion defines the versioned schema of this representation of an object. Servers should convert \
         recognized schemas to the latest internal value, and may reject unrecognized values. More info: \
         {CONVENTIONS}#resources"
    )})
}

fn kind_property() -> Value {
    json!({"type": "string", "description": format!(
        "Kind is a string value representing the REST resource this object represents. Servers may infer this from \
         the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: \
         {CONVENTIONS}#types-kinds"
    )})
}

fn reference(dialect: Dialect, name: &str, description: &str) -> Value {
    let mut out = dialect.reference(name);
    if dialect == Dialect::V3 {
        out = json!({"allOf": [out]});
    }
    out["description"] = json!(description);
    out
}

fn metadata_property(dialect: Dialect) -> Value {
    let text = format!("Standard object's metadata. More info: {CONVENTIONS}#metadata");
    reference(dialect, &format!("{META}.ObjectMeta"), &text)
}

impl Custom<'_> {
    fn operations(&self) -> Vec<Operation> {
        let mut all = operations(self.kind);
        let item = all.iter().find(|o| o.action == "get").map(|o| o.path.clone()).unwrap_or_default();
        for operation in &mut all {
            operation.patches = 3;
        }
        for sub in &self.kind.subresources {
            let definition = (sub.name == "scale").then(|| SCALE.to_owned());
            for (method, action) in [("get", "get"), ("put", "put"), ("patch", "patch")] {
                let path = format!("{item}/{}", sub.name);
                all.push(Operation { method, action, path, definition: definition.clone(), patches: 3 });
            }
        }
        all
    }

    fn roots(&self) -> Vec<String> {
        let mut roots = vec![format!("{META}.ObjectMeta"), format!("{META}.ListMeta")];
        if self.kind.subresources.iter().any(|s| s.name == "scale") {
            roots.push(SCALE.into());
        }
        roots
    }

    fn list(&self, dialect: Dialect) -> Value {
        let kind = &self.kind.gvk.kind;
        let items = format!("List of {}. More info: {CONVENTIONS}", self.kind.plural);
        let metadata = format!("Standard list metadata. More info: {CONVENTIONS}#types-kinds");
        let gvk = GroupVersionKind { kind: self.list_kind.to_owned(), ..self.kind.gvk.clone() };
        json!({
            "description": format!("{} is a list of {kind}", self.list_kind),
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": api_version_property(),
                "kind": kind_property(),
                "metadata": reference(dialect, &format!("{META}.ListMeta"), &metadata),
                "items": {
                    "description": items,
                    "type": "array",
                    "items": dialect.reference(&definition_name(&self.kind.gvk)),
                },
            },
            "x-kubernetes-group-version-kind": [gvk_extension(&gvk)],
        })
    }

    /// The schema of the kind with what every object has.
    fn object(&self, dialect: Dialect) -> Value {
        let mut out = match dialect {
            Dialect::V3 => with_embedded(self.schema.clone(), true),
            Dialect::V2 if self.schema.get(PRESERVE) == Some(&json!(true)) => json!({"type": "object"}),
            Dialect::V2 => to_v2(&with_embedded(self.schema.clone(), true)),
        };
        if out.get("type").is_none() {
            out["type"] = json!("object");
        }
        let bare = dialect == Dialect::V2 && out.get("properties").is_none();
        if !bare {
            add_type_meta(&mut out, dialect);
        }
        out["x-kubernetes-group-version-kind"] = json!([gvk_extension(&self.kind.gvk)]);
        if !self.selectable.is_empty() {
            let fields: Vec<Value> = self.selectable.iter().map(|p| json!({"fieldPath": p})).collect();
            out["x-kubernetes-selectable-fields"] = json!(fields);
        }
        out
    }

    fn definitions(&self, dialect: Dialect, mut shared: Map<String, Value>) -> Map<String, Value> {
        let name = definition_name(&self.kind.gvk);
        let list = format!("{}.{}", name.rsplit_once('.').map_or("", |(head, _)| head), self.list_kind);
        shared.insert(list, self.list(dialect));
        shared.insert(name, self.object(dialect));
        shared
    }

    /// Its part of the OpenAPI v3 document.
    pub fn v3(&self) -> v3::Part {
        let mut paths = Map::new();
        v3::add_paths(&mut paths, self.kind, &definition_name(&self.kind.gvk), &self.operations());
        v3::Part { paths, schemas: self.definitions(Dialect::V3, v3::definitions(self.roots())) }
    }

    /// Its part of the OpenAPI v2 document.
    pub fn v2(&self) -> v2::Part {
        let mut paths = Map::new();
        v2::add_paths(&mut paths, self.kind, &definition_name(&self.kind.gvk), &self.operations());
        v2::Part { paths, definitions: self.definitions(Dialect::V2, v2::definitions(self.roots())) }
    }
}

fn add_type_meta(schema: &mut Value, dialect: Dialect) {
    let Some(map) = schema.as_object_mut() else { return };
    let properties = map.entry("properties").or_insert_with(|| json!({}));
    properties["apiVersion"] = api_version_property();
    properties["kind"] = kind_property();
    properties["metadata"] = metadata_property(dialect);
}

/// Gives embedded resources, at any depth, the fields that every object has.
fn with_embedded(mut schema: Value, root: bool) -> Value {
    let Some(map) = schema.as_object_mut() else { return schema };
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = map.get_mut(key).filter(|v| v.is_object()) {
            *inner = with_embedded(inner.take(), false);
        }
    }
    if let Some(properties) = map.get_mut("properties").and_then(Value::as_object_mut) {
        for inner in properties.values_mut() {
            *inner = with_embedded(inner.take(), false);
        }
    }
    if !root && map.get("x-kubernetes-embedded-resource") == Some(&json!(true)) {
        let mut required = map.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
        for field in ["kind", "apiVersion"] {
            if !required.contains(&json!(field)) {
                required.push(json!(field));
            }
        }
        map.insert("required".into(), required.into());
        add_type_meta(&mut schema, Dialect::V3);
    }
    schema
}

/// A schema in what OpenAPI v2 can say: no alternatives, no defaults, nothing about values that may be null.
pub fn to_v2(schema: &Value) -> Value {
    let Some(map) = schema.as_object() else { return schema.clone() };
    let is = |key: &str| map.get(key) == Some(&json!(true));
    let mut out = Map::new();
    for (key, value) in map {
        match key.as_str() {
            "oneOf" | "anyOf" | "allOf" | "not" | "default" | "nullable" => continue,
            "properties" | "items" | "type" | "additionalProperties" | "required" if is(PRESERVE) => continue,
            "properties" | "items" | "type" | "additionalProperties" | "required" if is("nullable") => continue,
            "properties" => {
                let inner = value.as_object().into_iter().flatten();
                out.insert(key.clone(), inner.map(|(k, v)| (k.clone(), to_v2(v))).collect::<Map<_, _>>().into());
            }
            "items" | "additionalProperties" => {
                out.insert(key.clone(), to_v2(value));
            }
            "required" => {
                let may_be_null =
                    |field: &str| map.get("properties").is_some_and(|p| p[field]["nullable"] == json!(true));
                let kept: Vec<&Value> = value
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter(|f| f.as_str().is_some_and(|f| !may_be_null(f)))
                    .collect();
                if !kept.is_empty() {
                    out.insert(key.clone(), json!(kept));
                }
            }
            _ => {
                out.insert(key.clone(), value.clone());
            }
        }
    }
    // References stand bare in v2.
    if let Some(metadata) = map.get("allOf").and_then(|all| all.get(0)).filter(|one| one.get("$ref").is_some()) {
        out.insert("$ref".into(), json!(v2_reference(metadata)));
    }
    Value::Object(out)
}

fn v2_reference(reference: &Value) -> String {
    let name = reference["$ref"].as_str().unwrap_or("").rsplit('/').next().unwrap_or("").to_owned();
    Dialect::V2.reference(&name)["$ref"].as_str().unwrap_or("").to_owned()
}
