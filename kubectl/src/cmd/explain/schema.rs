//! An OpenAPI v3 document, and the ways through it.

use serde_json::Value;

/// References that are followed at most.
const DEEPEST: usize = 32;

/// A document of one group version.
pub(super) struct Document(Value);

impl Document {
    pub(super) fn new(document: Value) -> Self {
        Self(document)
    }

    /// The schema of a kind.
    pub(super) fn of_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Value> {
        let schemas = self.0["components"]["schemas"].as_object()?;
        schemas.values().find(|schema| {
            let kinds = schema["x-kubernetes-group-version-kind"].as_array().into_iter().flatten();
            kinds.into_iter().any(|k| k["group"] == group && k["version"] == version && k["kind"] == kind)
        })
    }

    /// The name of the definition that a schema refers to.
    pub(super) fn reference<'a>(&self, schema: &'a Value) -> Option<&'a str> {
        let direct = schema["$ref"].as_str();
        let only = || schema["allOf"].as_array().filter(|a| a.len() == 1).and_then(|a| a[0]["$ref"].as_str());
        let of_item =
            || self.reference_of(&schema["items"]).or_else(|| self.reference_of(&schema["additionalProperties"]));
        direct.or_else(only).or_else(of_item).and_then(|r| r.rsplit('/').next())
    }

    fn reference_of<'a>(&self, schema: &'a Value) -> Option<&'a str> {
        schema["$ref"]
            .as_str()
            .or_else(|| schema["allOf"].as_array().filter(|a| a.len() == 1).and_then(|a| a[0]["$ref"].as_str()))
    }

    /// What a schema refers to, or itself.
    fn target<'a>(&'a self, schema: &'a Value) -> &'a Value {
        let mut current = schema;
        for _ in 0..DEEPEST {
            let Some(name) = self.reference_of(current).and_then(|r| r.rsplit('/').next()) else { break };
            let Some(next) = self.0["components"]["schemas"].get(name) else { break };
            current = next;
        }
        current
    }

    /// What has the fields: of lists and maps, their items.
    fn body<'a>(&'a self, schema: &'a Value) -> &'a Value {
        let mut current = self.target(schema);
        for _ in 0..DEEPEST {
            let inner = match current["items"].is_object() {
                true => &current["items"],
                false if current["additionalProperties"].is_object() => &current["additionalProperties"],
                false => break,
            };
            current = self.target(inner);
        }
        current
    }

    /// Fields in the order of their names.
    pub(super) fn fields<'a>(&'a self, schema: &'a Value) -> Vec<(&'a str, &'a Value)> {
        let properties = self.body(schema)["properties"].as_object();
        properties.into_iter().flatten().map(|(name, field)| (name.as_str(), field)).collect()
    }

    pub(super) fn field<'a>(&'a self, schema: &'a Value, name: &str) -> Option<&'a Value> {
        self.body(schema)["properties"].get(name)
    }

    pub(super) fn required<'a>(&'a self, schema: &'a Value) -> Vec<&'a str> {
        self.body(schema)["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// The field's own words, or those of its type.
    pub(super) fn description<'a>(&'a self, schema: &'a Value) -> &'a str {
        let own = schema["description"].as_str().filter(|t| !t.is_empty());
        own.or_else(|| self.target(schema)["description"].as_str()).unwrap_or("")
    }

    /// The values of an enumeration.
    pub(super) fn values(&self, schema: &Value) -> Vec<String> {
        let values = self.target(schema)["enum"].as_array().into_iter().flatten();
        values
            .map(|v| match v.as_str() {
                Some("") => "\"\"".to_owned(),
                Some(text) => text.to_owned(),
                None => v.to_string(),
            })
            .collect()
    }

    /// `string`, `[]Container`, `map[string]string`, `ObjectMeta`.
    pub(super) fn type_name(&self, schema: &Value) -> String {
        if let Some(reference) = self.reference_of(schema) {
            // Definitions of plain values are known by what they are.
            let plain = self.target(schema)["type"].as_str().filter(|t| !matches!(*t, "object" | "array"));
            if let Some(plain) = plain {
                return plain.to_owned();
            }
            return reference.rsplit(['/', '.']).next().unwrap_or(reference).to_owned();
        }
        match schema["type"].as_str() {
            Some("array") => format!("[]{}", self.type_name(&schema["items"])),
            Some("object") if schema["additionalProperties"].is_object() => {
                format!("map[string]{}", self.type_name(&schema["additionalProperties"]))
            }
            Some("object") | None if schema["x-kubernetes-int-or-string"] == true => "IntOrString".to_owned(),
            Some("object") | None => "Object".to_owned(),
            Some(other) => other.to_owned(),
        }
    }
}
