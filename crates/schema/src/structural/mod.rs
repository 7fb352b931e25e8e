//! Structural schemas of custom resources (`openAPIV3Schema`): what may stand in an object, what is filled in, what is
//! taken out, how lists merge.
//!
//! A [`Schema`] is compiled once from the JSON of a definition that [`check`] found valid; all else is functions of it.

pub mod check;
mod defaults;
mod formats;
mod lists;
mod metadata;
mod prune;
mod rules;
#[cfg(test)]
mod tests;
mod types;
mod validate;

use std::sync::OnceLock;

use regex::Regex;
use serde_json::{Map, Value};

pub use self::{
    defaults::{apply_defaults, drop_nulls},
    metadata::{coerce, embedded_errors},
    prune::prune,
    rules::{RuleBudget, check_rules},
    types::type_table,
    validate::validate,
};

/// `type` of a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// `object`.
    Object,
    /// `array`.
    Array,
    /// `string`.
    String,
    /// `integer`.
    Integer,
    /// `number`.
    Number,
    /// `boolean`.
    Boolean,
}

impl Type {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "object" => Self::Object,
            "array" => Self::Array,
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => return None,
        })
    }

    /// As it stands in schemas.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// How a list merges (`x-kubernetes-list-type`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// Replaced whole.
    #[default]
    Atomic,
    /// Scalars or atomic values, each once.
    Set,
    /// Objects identified by these fields.
    Map(Box<[Box<str>]>),
}

/// A compiled schema.
#[derive(Debug, Default)]
pub struct Schema {
    /// `type`.
    pub kind: Option<Type>,
    /// `nullable`.
    pub nullable: bool,
    /// `x-kubernetes-preserve-unknown-fields`.
    pub preserves: bool,
    /// `x-kubernetes-embedded-resource`.
    pub embedded: bool,
    /// `x-kubernetes-int-or-string`.
    pub int_or_string: bool,
    /// `x-kubernetes-map-type: atomic`.
    pub atomic: bool,
    /// `x-kubernetes-list-type`.
    pub list: ListType,
    /// `properties`, by name.
    pub properties: Box<[(Box<str>, Schema)]>,
    /// `additionalProperties`.
    pub additional: Additional,
    /// `items`.
    pub items: Option<Box<Schema>>,
    /// `default`.
    pub default: Option<Box<Value>>,
    /// Everything else that values are checked by.
    limits: Option<Box<Limits>>,
    /// `x-kubernetes-validations`.
    rules: Box<[rules::Rule]>,
    /// Whether there are rules here or below.
    has_rules: bool,
}

/// `additionalProperties`.
#[derive(Debug, Default)]
pub enum Additional {
    /// Not said.
    #[default]
    Absent,
    /// Anything.
    Any,
    /// Values of a schema.
    Of(Box<Schema>),
}

/// Checks of values.
#[derive(Debug, Default)]
struct Limits {
    required: Box<[Box<str>]>,
    choices: Box<[Value]>,
    format: Option<Box<str>>,
    pattern: Option<Pattern>,
    min_length: Option<u64>,
    max_length: Option<u64>,
    min_items: Option<u64>,
    max_items: Option<u64>,
    min_properties: Option<u64>,
    max_properties: Option<u64>,
    minimum: Option<Bound>,
    maximum: Option<Bound>,
    multiple_of: Option<f64>,
    all_of: Box<[Schema]>,
    any_of: Box<[Schema]>,
    one_of: Box<[Schema]>,
    not: Option<Box<Schema>>,
}

#[derive(Clone, Copy, Debug)]
struct Bound {
    value: f64,
    exclusive: bool,
}

/// A pattern, compiled when first needed.
#[derive(Debug)]
struct Pattern {
    text: Box<str>,
    compiled: OnceLock<Option<Regex>>,
}

/// Memory that one compiled pattern may take.
const PATTERN_SIZE: usize = 1 << 20;

/// Compiles a pattern within bounds.
pub(crate) fn pattern(text: &str) -> Result<Regex, regex::Error> {
    regex::RegexBuilder::new(text).size_limit(PATTERN_SIZE).dfa_size_limit(PATTERN_SIZE).build()
}

impl Pattern {
    fn matches(&self, text: &str) -> bool {
        let compiled = self.compiled.get_or_init(|| pattern(&self.text).ok());
        compiled.as_ref().is_none_or(|regex| regex.is_match(text))
    }
}

fn flag(map: &Map<String, Value>, key: &str) -> bool {
    map.get(key).and_then(Value::as_bool).unwrap_or(false)
}

fn count(map: &Map<String, Value>, key: &str) -> Option<u64> {
    map.get(key).and_then(Value::as_u64)
}

fn texts(map: &Map<String, Value>, key: &str) -> Box<[Box<str>]> {
    map.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(Box::from).collect()
}

fn schemas(map: &Map<String, Value>, key: &str) -> Box<[Schema]> {
    map.get(key).and_then(Value::as_array).into_iter().flatten().map(Schema::compile).collect()
}

impl Schema {
    /// Compiles a schema. What is not understood is left out; [`check::check`] has refused it.
    pub fn compile(schema: &Value) -> Self {
        let Some(map) = schema.as_object() else { return Self::default() };
        let mut properties: Vec<(Box<str>, Self)> = map
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(name, inner)| (Box::from(name.as_str()), Self::compile(inner)))
            .collect();
        properties.sort_by(|a, b| a.0.cmp(&b.0));
        let list = match map.get("x-kubernetes-list-type").and_then(Value::as_str) {
            Some("set") => ListType::Set,
            Some("map") => ListType::Map(texts(map, "x-kubernetes-list-map-keys")),
            _ => ListType::Atomic,
        };
        let additional = match map.get("additionalProperties") {
            Some(Value::Bool(true)) => Additional::Any,
            Some(inner @ Value::Object(_)) => Additional::Of(Box::new(Self::compile(inner))),
            _ => Additional::Absent,
        };
        let rules: Box<[rules::Rule]> = rules::Rule::all(map);
        let items = map.get("items").filter(|i| i.is_object()).map(|i| Box::new(Self::compile(i)));
        let has_rules = !rules.is_empty()
            || properties.iter().any(|(_, inner)| inner.has_rules)
            || items.as_ref().is_some_and(|inner| inner.has_rules)
            || matches!(&additional, Additional::Of(inner) if inner.has_rules);
        Self {
            kind: map.get("type").and_then(Value::as_str).and_then(Type::parse),
            nullable: flag(map, "nullable"),
            preserves: flag(map, "x-kubernetes-preserve-unknown-fields"),
            embedded: flag(map, "x-kubernetes-embedded-resource"),
            int_or_string: flag(map, "x-kubernetes-int-or-string"),
            atomic: map.get("x-kubernetes-map-type").and_then(Value::as_str) == Some("atomic"),
            list,
            properties: properties.into(),
            additional,
            items,
            default: map.get("default").map(|d| Box::new(d.clone())),
            limits: Limits::compile(map).map(Box::new),
            rules,
            has_rules,
        }
    }

    /// The schema of a declared property.
    pub fn property(&self, name: &str) -> Option<&Self> {
        let at = self.properties.binary_search_by(|(own, _)| (**own).cmp(name)).ok()?;
        self.properties.get(at).map(|(_, schema)| schema)
    }

    /// The schema of a field: a declared property, or a map value.
    pub fn field(&self, name: &str) -> Option<&Self> {
        match (self.property(name), &self.additional) {
            (Some(schema), _) => Some(schema),
            (None, Additional::Of(schema)) => Some(schema),
            _ => None,
        }
    }

    /// `format`.
    pub(crate) fn format(&self) -> Option<&str> {
        self.limits.as_ref()?.format.as_deref()
    }

    /// Schema at a dotted path of properties.
    pub fn at<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> Option<&Self> {
        path.into_iter().try_fold(self, |schema, name| schema.property(name))
    }
}

impl Limits {
    /// `None` if there is nothing to check.
    fn compile(map: &Map<String, Value>) -> Option<Self> {
        const KEYS: [&str; 17] = [
            "required",
            "enum",
            "format",
            "pattern",
            "minLength",
            "maxLength",
            "minItems",
            "maxItems",
            "minProperties",
            "maxProperties",
            "minimum",
            "maximum",
            "multipleOf",
            "allOf",
            "anyOf",
            "oneOf",
            "not",
        ];
        if !KEYS.iter().any(|key| map.contains_key(*key)) {
            return None;
        }
        let bound = |key: &str, exclusive: &str| {
            let value = map.get(key).and_then(Value::as_f64)?;
            Some(Bound { value, exclusive: flag(map, exclusive) })
        };
        let text = |key: &str| map.get(key).and_then(Value::as_str).filter(|t| !t.is_empty()).map(Box::<str>::from);
        Some(Self {
            required: texts(map, "required"),
            choices: map.get("enum").and_then(Value::as_array).cloned().unwrap_or_default().into(),
            format: text("format"),
            pattern: text("pattern").map(|text| Pattern { text, compiled: OnceLock::new() }),
            min_length: count(map, "minLength"),
            max_length: count(map, "maxLength"),
            min_items: count(map, "minItems"),
            max_items: count(map, "maxItems"),
            min_properties: count(map, "minProperties"),
            max_properties: count(map, "maxProperties"),
            minimum: bound("minimum", "exclusiveMinimum"),
            maximum: bound("maximum", "exclusiveMaximum"),
            multiple_of: map.get("multipleOf").and_then(Value::as_f64),
            all_of: schemas(map, "allOf"),
            any_of: schemas(map, "anyOf"),
            one_of: schemas(map, "oneOf"),
            not: map.get("not").filter(|n| n.is_object()).map(|n| Box::new(Schema::compile(n))),
        })
    }
}
