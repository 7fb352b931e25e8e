//! Label and field selectors of lists and watches, compiled against the cache's index records.

use std::{borrow::Cow, sync::Arc};

use machinery::{
    ApiError, ApiResult,
    selector::{FieldSelector, LabelSelector},
};
use serde_json::Value;
use storage::cache::CachedObject;

use crate::endpoint::Endpoint;

/// Compiled selectors of one request.
#[derive(Clone, Default)]
pub struct Selection {
    labels: Option<LabelSelector>,
    fields: Option<FieldSelector>,
    /// Fields of a custom resource, which are read from the object itself.
    custom: Option<Arc<[String]>>,
}

impl Selection {
    /// Parses both selectors; unknown field labels are 400 with the kind's text.
    pub fn parse(labels: &str, fields: &str, endpoint: &Endpoint) -> ApiResult<Self> {
        let labels = match labels.trim() {
            "" => None,
            text => Some(LabelSelector::parse(text).map_err(|e| ApiError::bad_request(e.full_text()))?),
        };
        let fields = match fields.trim() {
            "" => None,
            text => {
                let selector = FieldSelector::parse(text).map_err(|e| ApiError::bad_request(e.to_string()))?;
                for requirement in selector.requirements() {
                    check_label(&requirement.field, endpoint)?;
                }
                Some(selector)
            }
        };
        let custom = endpoint.custom().filter(|_| fields.is_some()).map(|c| Arc::clone(c.selectable()));
        Ok(Self { labels, fields, custom })
    }

    /// Whether everything matches.
    pub fn is_everything(&self) -> bool {
        self.labels.is_none() && self.fields.is_none()
    }

    /// Whether an object matches.
    pub fn matches(&self, object: &CachedObject) -> bool {
        let index = &object.index;
        self.labels.as_ref().is_none_or(|s| s.matches(|key| index.label(key)))
            && self.fields.as_ref().is_none_or(|s| self.matches_fields(s, object))
    }

    fn matches_fields(&self, selector: &FieldSelector, object: &CachedObject) -> bool {
        let Some(own) = self.custom.as_ref().filter(|own| !own.is_empty()) else {
            return selector.matches(|field| field_value(object, field));
        };
        let value: Value = serde_json::from_slice(&object.json).unwrap_or_default();
        let texts: Vec<(&str, String)> = own.iter().map(|path| (path.as_str(), text_at(&value, path))).collect();
        selector.matches(|field| match texts.iter().find(|(path, _)| *path == field) {
            Some((_, text)) => text,
            None => field_value(object, field),
        })
    }

    /// As a shared predicate for watchers.
    pub fn predicate(&self) -> Arc<dyn Fn(&CachedObject) -> bool + Send + Sync> {
        let selection = self.clone();
        Arc::new(move |object| selection.matches(object))
    }

    /// The value that the field selector demands of a field, if it does.
    pub fn exact_field(&self, field: &str) -> Option<&str> {
        self.fields.as_ref()?.exact(field)
    }
}

/// The scalar at a dotted path, empty when there is none.
fn text_at(object: &Value, path: &str) -> String {
    match path.split('.').try_fold(object, |value, step| value.get(step)) {
        Some(Value::String(text)) => text.clone(),
        Some(value @ (Value::Bool(_) | Value::Number(_))) => value.to_string(),
        _ => String::new(),
    }
}

fn field_value<'a>(object: &'a CachedObject, field: &str) -> &'a str {
    object.index.field(&stored_label(field)).unwrap_or("")
}

/// The label under which the stored kind knows a field: aliases and the names that `events.k8s.io` uses.
fn stored_label(field: &str) -> Cow<'_, str> {
    match field {
        "spec.host" => Cow::Borrowed("spec.nodeName"),
        "reportingController" => Cow::Borrowed("reportingComponent"),
        _ => match field.strip_prefix("regarding.") {
            Some(part) => Cow::Owned(format!("involvedObject.{part}")),
            None => Cow::Borrowed(field),
        },
    }
}

fn check_label(field: &str, endpoint: &Endpoint) -> ApiResult<()> {
    let own = endpoint.resource.as_ref().map_or(&[][..], |r| r.strategy.selectable_fields());
    let stored = stored_label(field);
    let custom = endpoint.custom().map(|c| c.selectable());
    let known = custom.is_some_and(|own| own.iter().any(|path| path == field))
        || field == "metadata.name"
        || (field == "metadata.namespace" && endpoint.namespaced)
        || own.iter().any(|f| f.label == stored);
    if known {
        return Ok(());
    }
    Err(ApiError::bad_request(match endpoint.gvk.kind.as_str() {
        "Job" => format!("field label {field:?} not supported for Job"),
        "ResourceSlice" => format!("field label not supported for resource.k8s.io/v1, Kind=ResourceSlice: {field}"),
        _ if custom.is_some() || !own.is_empty() => format!("field label not supported: {field}"),
        _ => format!("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""),
    }))
}
