//! The behaviour of objects of one version of a custom resource.

use std::sync::Arc;

use machinery::{
    decode::FieldProblems,
    field::{ErrorList, Path},
    meta, names,
};
use rules::{
    metadata,
    strategy::{Context, Strategy, Subresource},
};
use schema::structural::{self, RuleBudget, apply_defaults, check_rules, drop_nulls};
use serde_json::{Map, Value, json};

use crate::definition::LazySchema;

pub(crate) struct VersionStrategy {
    pub(crate) schema: Arc<LazySchema>,
    pub(crate) namespaced: bool,
    pub(crate) has_status: bool,
}

impl VersionStrategy {
    /// Brings metadata into form and removes unknown fields.
    pub(crate) fn check(&self, object: &mut Value) -> FieldProblems {
        let schema = self.schema.get();
        let mut problems = FieldProblems::default();
        for path in structural::prune(object, schema) {
            problems.unknown_field(&path);
        }
        problems.append(structural::coerce(object, schema));
        problems
    }

    fn errors(&self, object: &Value, old: Option<&Value>) -> ErrorList {
        let schema = self.schema.get();
        let mut errors = structural::validate(&without_metadata(object), old.map(without_metadata).as_ref(), schema);
        errors.append(structural::embedded_errors(object, schema));
        errors.append(metadata_errors(object, old, schema));
        if schema.has_rules() {
            let blocking = |reason: &str| {
                let reasons = ["NotSupported", "Required", "TooLong", "TooMany", "TypeInvalid"];
                reason.strip_prefix("FieldValue").is_some_and(|reason| reasons.contains(&reason))
            };
            if errors.iter().any(|error| blocking(&error.reason)) {
                let text = "some validation rules were not checked because the object was invalid; correct the existing \
                            errors to complete validation";
                errors.invalid(&Path::new("<nil>"), &Value::Null, text);
            } else {
                errors.append(check_rules(object, old, schema, &mut RuleBudget::default()));
            }
        }
        errors
    }

    /// What the generation counts.
    fn content(&self, object: &Value) -> Map<String, Value> {
        let counted = |key: &str| key != "metadata" && (key != "status" || !self.has_status);
        let fields = object.as_object().into_iter().flatten();
        fields.filter(|(k, _)| counted(k)).map(|(k, v)| (k.clone(), v.clone())).collect()
    }
}

/// Metadata has rules of its own.
fn without_metadata(object: &Value) -> Value {
    let fields = object.as_object().into_iter().flatten();
    fields.filter(|(k, _)| k.as_str() != "metadata").map(|(k, v)| (k.clone(), v.clone())).collect::<Map<_, _>>().into()
}

/// What the schema says of the name.
fn metadata_errors(object: &Value, old: Option<&Value>, schema: &structural::Schema) -> ErrorList {
    let Some(property) = schema.property("metadata") else { return ErrorList::default() };
    let named = |object: &Value| -> Value {
        let fields = object.get("metadata").and_then(Value::as_object).into_iter().flatten();
        let names = fields.filter(|(k, _)| matches!(k.as_str(), "name" | "generateName"));
        names.map(|(k, v)| (k.clone(), v.clone())).collect::<Map<_, _>>().into()
    };
    let mut errors = ErrorList::default();
    for cause in structural::validate(&named(object), old.map(named).as_ref(), property).into_causes() {
        let field = if cause.field.is_empty() { "metadata".into() } else { format!("metadata.{}", cause.field) };
        let message = cause.message.replace(&format!("{} in body", cause.field), &format!("{field} in body"));
        errors.push(machinery::StatusCause { field, message, ..cause });
    }
    errors
}

fn keep(new: &mut Value, old: &Value, field: &str) {
    let Some(map) = new.as_object_mut() else { return };
    match old.get(field) {
        Some(value) => map.insert(field.to_owned(), value.clone()),
        None => map.remove(field),
    };
}

impl Strategy for VersionStrategy {
    fn defaults(&self, object: &mut Value) {
        let schema = self.schema.get();
        apply_defaults(object, schema);
        drop_nulls(object, schema);
    }

    fn read(&self, object: &mut Value) {
        if self.check(object).type_error().is_some() {
            for field in ["labels", "annotations"] {
                let map = meta::metadata_mut(object).get_mut(field);
                match map {
                    Some(Value::Object(map)) => map.retain(|_, value| value.is_string()),
                    Some(other) => *other = json!({}),
                    None => {}
                }
            }
        }
        self.defaults(object);
    }

    fn prepare_create(&self, object: &mut Value, _context: &Context<'_>) {
        if let Some(map) = object.as_object_mut().filter(|_| self.has_status) {
            map.remove("status");
        }
        meta::metadata_mut(object).insert("generation".into(), json!(1));
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        let mut errors = metadata::validate(object, self.namespaced, names::dns1123_subdomain);
        errors.append(self.errors(object, None));
        errors
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, subresource: Subresource<'_>, _context: &Context<'_>) {
        match subresource {
            "status" => {
                let status = new.get("status").cloned();
                let managed = new.pointer("/metadata/managedFields").cloned();
                let version = meta::resource_version(new).to_owned();
                *new = old.clone();
                let map = meta::object_mut(new);
                match status {
                    Some(status) => map.insert("status".into(), status),
                    None => map.remove("status"),
                };
                let metadata = meta::metadata_mut(new);
                match managed {
                    Some(managed) => metadata.insert("managedFields".into(), managed),
                    None => metadata.remove("managedFields"),
                };
                meta::set_text(new, "resourceVersion", &version);
            }
            _ if self.has_status => keep(new, old, "status"),
            _ => {}
        }
        let stored = old.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0);
        let changed = subresource != "status" && self.content(new) != self.content(old);
        meta::metadata_mut(new).insert("generation".into(), json!(if changed { stored + 1 } else { stored }));
    }

    fn validate_update(&self, new: &Value, old: &Value, _subresource: Subresource<'_>) -> ErrorList {
        self.errors(new, Some(old))
    }

    fn unconditional_update(&self) -> bool {
        false
    }
}
