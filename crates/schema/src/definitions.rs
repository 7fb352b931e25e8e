//! Definitions of types, the same in both versions but for where references point.

use std::collections::BTreeSet;

use machinery::schema::{Field, ListType, SchemaRef, Shape};
use serde_json::{Map, Value, json};

use crate::gvk_extension;

/// How a version of OpenAPI writes definitions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    V2,
    V3,
}

impl Dialect {
    fn prefix(self) -> &'static str {
        match self {
            Self::V2 => "#/definitions/",
            Self::V3 => "#/components/schemas/",
        }
    }

    pub(crate) fn reference(self, name: &str) -> Value {
        json!({"$ref": format!("{}{name}", self.prefix())})
    }
}

/// Writes definitions and remembers what they refer to.
pub(crate) struct Writer {
    dialect: Dialect,
    pub(crate) wanted: BTreeSet<String>,
}

impl Writer {
    pub(crate) fn new(dialect: Dialect) -> Self {
        Self { dialect, wanted: BTreeSet::new() }
    }

    /// The definition of a named type.
    pub(crate) fn definition(&mut self, schema: SchemaRef<'_>) -> Value {
        let mut out = self.body(schema);
        let name = &schema.get().name;
        let kinds = api::api().kinds_of(name);
        if !kinds.is_empty() {
            out["x-kubernetes-group-version-kind"] = kinds.into_iter().map(gvk_extension).collect();
        }
        out
    }

    fn body(&mut self, schema: SchemaRef<'_>) -> Value {
        let mut out = match schema.shape() {
            Shape::String => json!({"type": "string"}),
            Shape::Integer(32) => json!({"type": "integer", "format": "int32"}),
            Shape::Integer(_) => json!({"type": "integer", "format": "int64"}),
            Shape::Number => json!({"type": "number", "format": "double"}),
            Shape::Boolean => json!({"type": "boolean"}),
            Shape::Bytes => json!({"type": "string", "format": "byte"}),
            Shape::Time | Shape::MicroTime => json!({"type": "string", "format": "date-time"}),
            Shape::Quantity if self.dialect == Dialect::V3 => {
                json!({"oneOf": [{"type": "string"}, {"type": "number"}]})
            }
            Shape::IntOrString if self.dialect == Dialect::V3 => {
                json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
            }
            Shape::Quantity => json!({"type": "string"}),
            Shape::IntOrString => json!({"type": "string", "format": "int-or-string"}),
            Shape::Any => json!({"type": "object"}),
            Shape::Map { value } => {
                json!({"type": "object", "additionalProperties": self.inline(schema.follow(*value))})
            }
            Shape::List { item, .. } => json!({"type": "array", "items": self.inline(schema.follow(*item))}),
            Shape::Struct(fields) => {
                let mut properties = Map::new();
                let mut required: Vec<&str> = Vec::new();
                for (name, field) in fields {
                    properties.insert(name.clone(), self.field(schema, field));
                    if field.required {
                        required.push(name);
                    }
                }
                required.sort_unstable();
                let mut out = json!({"type": "object"});
                if !properties.is_empty() {
                    out["properties"] = Value::Object(properties);
                }
                if !required.is_empty() {
                    out["required"] = json!(required);
                }
                out
            }
        };
        if schema.get().atomic {
            out["x-kubernetes-map-type"] = json!("atomic");
        }
        out
    }

    /// A type where it is used: named ones by reference.
    fn inline(&mut self, schema: SchemaRef<'_>) -> Value {
        let name = &schema.get().name;
        if name.is_empty() {
            return self.body(schema);
        }
        self.wanted.insert(name.clone());
        self.dialect.reference(name)
    }

    fn field(&mut self, parent: SchemaRef<'_>, field: &Field) -> Value {
        let schema = parent.follow(field.type_id);
        let mut out = self.inline(schema);
        // A reference stands alone in OpenAPI v3.0; what is said beside it needs an envelope.
        let is_reference = out.get("$ref").is_some() && self.dialect == Dialect::V3;
        if is_reference && (field.default.is_some() || field.patch_merge || field.retain_keys) {
            out = json!({"allOf": [out]});
        }
        if let Some(default) = &field.default {
            out["default"] = default.clone();
        }
        if let Shape::List { merge, .. } = schema.shape() {
            match merge {
                ListType::Atomic => out["x-kubernetes-list-type"] = json!("atomic"),
                ListType::Set => out["x-kubernetes-list-type"] = json!("set"),
                ListType::Map(keys) => {
                    out["x-kubernetes-list-type"] = json!("map");
                    out["x-kubernetes-list-map-keys"] = json!(keys);
                }
            }
        }
        if let Some(key) = &field.merge_key {
            out["x-kubernetes-patch-merge-key"] = json!(key);
        }
        let strategy = match (field.patch_merge, field.retain_keys) {
            (true, true) => Some("merge,retainKeys"),
            (true, false) => Some("merge"),
            (false, true) => Some("retainKeys"),
            (false, false) => None,
        };
        if let Some(strategy) = strategy {
            out["x-kubernetes-patch-strategy"] = json!(strategy);
        }
        out
    }

    /// The definitions of all types reachable from `roots`.
    pub(crate) fn closure(&mut self, roots: impl IntoIterator<Item = String>) -> Map<String, Value> {
        let types = api::api().types();
        let mut out = Map::new();
        let mut open: Vec<String> = roots.into_iter().collect();
        while let Some(name) = open.pop() {
            if out.contains_key(&name) {
                continue;
            }
            let Some(id) = types.named(&name) else { continue };
            self.wanted.clear();
            let definition = self.definition(types.get(id));
            out.insert(name, definition);
            open.extend(std::mem::take(&mut self.wanted));
        }
        out
    }
}
