//! Whether a schema is structural, and says nothing that custom resources may not say.

mod cost;
mod invariants;
mod nested;

use machinery::field::{ErrorList, Path};
use serde_json::{Map, Value, json};

use self::cost::Costs;
use super::{Schema, apply_defaults, prune, rules::sized, validate};

/// Where a schema stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Root,
    Field,
    Item,
}

/// Keys of a schema that take no part in what it means, or are read elsewhere.
const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

/// Checks the schema of a version.
pub fn check(schema: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::default();
    forbidden(schema, Place::Root, path, &mut errors);
    invariants::check(schema, Place::Root, path, &mut errors);
    if errors.is_empty() {
        defaults(schema, path, &mut errors);
        let mut costs = Costs::default();
        let root = Spot { correlation: Correlation::Possible, is_resource: true, cardinality: Some(1) };
        rules(schema, root, path, &mut costs, &mut errors);
        costs.end(path, &mut errors);
    }
    errors
}

/// Whether a part of an object can be told in its former state.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Correlation {
    Possible,
    Impossible,
}

/// Where rules stand.
#[derive(Clone, Copy)]
struct Spot {
    correlation: Correlation,
    is_resource: bool,
    /// How many values the rules are evaluated for; `None`: as many as there is room for.
    cardinality: Option<u64>,
}

impl Spot {
    /// The values of a field.
    fn below(self) -> Self {
        Self { is_resource: false, ..self }
    }

    /// The items of a list or the values of a map, of which there are `most`.
    fn each(self, most: Option<u64>) -> Self {
        let cardinality = self.cardinality.zip(most).map(|(own, most)| own.saturating_mul(most));
        Self { cardinality, ..self.below() }
    }
}

const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// Rules must compile, and ask for former states only where there are some.
fn rules(schema: &Value, spot: Spot, path: &Path, costs: &mut Costs, errors: &mut ErrorList) {
    let compiled = Schema::compile(schema);
    if !compiled.has_rules {
        return;
    }
    let given = list_of(schema, "x-kubernetes-validations");
    let sized = sized(&compiled);
    let everywhere = spot.cardinality.unwrap_or_else(|| sized.cardinality());
    for (at, (rule, given)) in compiled.rules.iter().zip(given).enumerate() {
        let path = path.child("x-kubernetes-validations").index(at);
        if rule.rule.trim().is_empty() {
            errors.required(&path.child("rule"), "rule is not specified");
            continue;
        }
        if rule.message.contains(['\n', '\r']) {
            errors.invalid(&path.child("message"), &json!(rule.message), "message must not contain line breaks");
        }
        let reason = text_of(given, "reason");
        if !reason.is_empty() && !REASONS.contains(&reason) {
            errors.not_supported(&path.child("reason"), &json!(reason), &REASONS);
        }
        let made = match rule.compile(&compiled, spot.is_resource || compiled.embedded) {
            Ok(made) => made,
            Err(unfit) => {
                errors.invalid(&path.child(unfit.field), given, &unfit.text);
                continue;
            }
        };
        if spot.correlation == Correlation::Impossible && made.program.uses("oldSelf") {
            let text = "oldSelf cannot be used on the uncorrelatable portion of the schema";
            errors.invalid(&path.child("rule"), &json!(rule.rule), text);
        }
        let cost = |program: &cel::Program| {
            program.estimate(&[("self", &sized.size), ("oldSelf", &sized.size)]).max.saturating_mul(everywhere)
        };
        costs.rule(cost(&made.program), &path.child("rule"), errors);
        if let Some(message) = &made.message {
            costs.message(cost(message), &path.child("messageExpression"), errors);
        }
    }
    for (name, inner) in object_of(schema, "properties") {
        rules(inner, spot.below(), &path.child("properties").key(name), costs, errors);
    }
    let limit = |key: &str| schema.get(key).and_then(Value::as_u64);
    if let Some(inner) = schema.get("additionalProperties").filter(|inner| inner.is_object()) {
        let below = spot.each(limit("maxProperties"));
        rules(inner, below, &path.child("additionalProperties"), costs, errors);
    }
    if let Some(inner) = schema.get("items").filter(|inner| inner.is_object()) {
        let by_key = text_of(schema, "x-kubernetes-list-type") == "map";
        let correlation = if by_key { spot.correlation } else { Correlation::Impossible };
        let below = Spot { correlation, ..spot.each(limit("maxItems")) };
        rules(inner, below, &path.child("items"), costs, errors);
    }
}

pub(super) fn object_of<'a>(schema: &'a Value, key: &str) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
    schema.get(key).and_then(Value::as_object).into_iter().flatten()
}

pub(super) fn list_of<'a>(schema: &'a Value, key: &str) -> &'a [Value] {
    schema.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

pub(super) fn text_of<'a>(schema: &'a Value, key: &str) -> &'a str {
    schema.get(key).and_then(Value::as_str).unwrap_or("")
}

pub(super) fn is(schema: &Value, key: &str) -> bool {
    schema.get(key) == Some(&Value::Bool(true))
}

fn present(map: &Map<String, Value>, key: &str) -> bool {
    match map.get(key) {
        None | Some(Value::Null) => false,
        Some(Value::Object(inner)) => !inner.is_empty(),
        Some(Value::Array(inner)) => !inner.is_empty(),
        Some(Value::String(text)) => !text.is_empty(),
        Some(_) => true,
    }
}

/// Constructs that are not supported at all.
fn forbidden(schema: &Value, place: Place, path: &Path, errors: &mut ErrorList) {
    let Some(map) = schema.as_object() else { return };
    for key in ["definitions", "dependencies", "id", "patternProperties", "additionalItems", "$ref"] {
        if present(map, key) {
            let field = if key == "$ref" { "$ref" } else { key };
            errors.forbidden(&path.child(field), &format!("{key} is not supported"));
        }
    }
    match map.get("type").and_then(Value::as_str) {
        Some("null") => {
            errors.forbidden(&path.child("type"), "type cannot be set to null, use nullable as an alternative");
        }
        Some(kind) if !kind.is_empty() && !TYPES.contains(&kind) => {
            errors.not_supported(&path.child("type"), &json!(kind), &TYPES);
        }
        _ => {}
    }
    if is(schema, "uniqueItems") {
        let text = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.forbidden(&path.child("uniqueItems"), text);
    }
    if map.get("items").is_some_and(Value::is_array) {
        errors.forbidden(&path.child("items"), "items must be a schema object and not an array");
    }
    let additional = path.child("additionalProperties");
    match map.get("additionalProperties") {
        Some(Value::Bool(false)) => errors.forbidden(&additional, "additionalProperties cannot be set to false"),
        Some(Value::Null) | None => {}
        Some(_) if place == Place::Root => errors.forbidden(&additional, "must not be used at the root"),
        Some(_) if present(map, "properties") => {
            errors.forbidden(&additional, "additionalProperties and properties are mutual exclusive");
        }
        Some(_) => {}
    }
    let pattern = map.get("pattern").and_then(Value::as_str).unwrap_or("");
    if !pattern.is_empty()
        && let Err(error) = super::pattern(pattern)
    {
        let text = format!("must be a valid regular expression, but isn't: {error}");
        errors.invalid(&path.child("pattern"), &json!(pattern), &text);
    }
    for (name, inner) in object_of(schema, "properties") {
        forbidden(inner, Place::Field, &path.child("properties").key(name), errors);
    }
    if let Some(inner) = map.get("additionalProperties").filter(|inner| inner.is_object()) {
        forbidden(inner, Place::Field, &additional, errors);
    }
    if let Some(inner) = map.get("items").filter(|inner| inner.is_object()) {
        forbidden(inner, Place::Item, &path.child("items"), errors);
    }
    for key in ["allOf", "anyOf", "oneOf"] {
        for (at, inner) in list_of(schema, key).iter().enumerate() {
            forbidden(inner, Place::Field, &path.child(key).index(at), errors);
        }
    }
    if let Some(inner) = map.get("not") {
        forbidden(inner, Place::Field, &path.child("not"), errors);
    }
}

/// Defaults must be values that their own schema accepts and knows all fields of.
fn defaults(schema: &Value, path: &Path, errors: &mut ErrorList) {
    if let Some(default) = schema.get("default") {
        default_fits(schema, default, &path.child("default"), errors);
    }
    for (name, inner) in object_of(schema, "properties") {
        defaults(inner, &path.child("properties").key(name), errors);
    }
    for key in ["additionalProperties", "items"] {
        if let Some(inner) = schema.get(key).filter(|inner| inner.is_object()) {
            defaults(inner, &path.child(key), errors);
        }
    }
}

fn default_fits(schema: &Value, default: &Value, path: &Path, errors: &mut ErrorList) {
    if default.is_null() {
        if !is(schema, "nullable") {
            errors.invalid(path, default, "must not be null if nullable is false");
        }
        return;
    }
    let compiled = Schema::compile(schema);
    let mut pruned = default.clone();
    if !prune(&mut pruned, &compiled).is_empty() {
        errors.invalid(path, default, "must not have unknown fields");
    }
    apply_defaults(&mut pruned, &compiled);
    for cause in validate(&pruned, None, &compiled).into_causes() {
        let place = if cause.field.is_empty() { path.clone() } else { path.child(&cause.field) };
        let text = cause.message.split_once(": ").map_or(cause.message.as_str(), |(_, rest)| rest);
        errors.invalid_unshown(&place, text);
    }
}
