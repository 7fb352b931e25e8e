//! A value tree against its schema, as the typed decoder of the API sees it.

use std::fmt::Write;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Number, Value};

use super::FieldProblems;
use crate::{
    field::go_quote,
    quantity::Quantity,
    schema::{Field, SchemaRef, Shape},
};

/// Checks a value tree against its schema in place: unknown fields are removed and reported, nulls become what an
/// absent value is, empty optional lists and maps go, quantities and times are written canonically, mistyped values
/// are reported.
pub fn check_fields(value: &mut Value, schema: SchemaRef<'_>) -> FieldProblems {
    let mut walk =
        Walk { problems: FieldProblems::default(), path: String::new(), fields: Vec::new(), owner: String::new() };
    walk.check(value, schema);
    walk.problems
}

struct Walk<'a> {
    problems: FieldProblems,
    /// Path in problem texts: `spec.containers[0].name`.
    path: String,
    /// Field names on the way, as Go names fields in type errors: without indexes and map keys.
    fields: Vec<&'a str>,
    /// Name of the struct that has the last of `fields`.
    owner: String,
}

/// Fields whose null has a meaning of its own on the wire.
fn keeps_null(key: &str) -> bool {
    matches!(key, "creationTimestamp" | "lastProbeTime")
}

/// Whether a value is the same as none at all.
fn is_absent(key: &str, value: &Value, field: &Field, schema: SchemaRef<'_>) -> bool {
    match (schema.shape(), value) {
        (Shape::Any, _) => false,
        (_, Value::Null) => !keeps_null(key),
        // An explicit empty list of managedFields asks for a reset.
        (Shape::List { .. }, Value::Array(list)) => list.is_empty() && !field.required && key != "managedFields",
        (Shape::Map { .. }, Value::Object(map)) => map.is_empty() && !field.required,
        _ => false,
    }
}

/// What a null in a list or map stands for.
fn zero_of(shape: &Shape) -> Option<Value> {
    match shape {
        Shape::String | Shape::Bytes => Some(Value::String(String::new())),
        Shape::Quantity => Some(Value::String("0".into())),
        Shape::Integer(_) => Some(Value::from(0)),
        Shape::Boolean => Some(Value::Bool(false)),
        Shape::Struct(_) => Some(Value::Object(Map::new())),
        _ => None,
    }
}

impl<'a> Walk<'a> {
    fn check(&mut self, value: &mut Value, schema: SchemaRef<'a>) {
        match (schema.shape(), &mut *value) {
            (Shape::Any, _) | (_, Value::Null) => {}
            (Shape::Struct(_), Value::Object(map)) => self.check_struct(map, schema),
            (Shape::Map { value: inner }, Value::Object(map)) => {
                let inner = schema.follow(*inner);
                let length = self.path.len();
                for (key, item) in map.iter_mut() {
                    self.path.push('.');
                    self.path.push_str(key);
                    self.element(item, inner);
                    self.path.truncate(length);
                }
            }
            (Shape::List { item, .. }, Value::Array(list)) => {
                let inner = schema.follow(*item);
                let length = self.path.len();
                for (at, item) in list.iter_mut().enumerate() {
                    let _infallible = write!(self.path, "[{at}]");
                    self.element(item, inner);
                    self.path.truncate(length);
                }
            }
            (shape, value) => {
                if let Err(text) = scalar(shape, value) {
                    let text = text.unwrap_or_else(|| self.mismatch(value, schema));
                    self.problems.mistyped(text);
                }
            }
        }
    }

    fn element(&mut self, item: &mut Value, schema: SchemaRef<'a>) {
        if item.is_null()
            && let Some(zero) = zero_of(schema.shape())
        {
            *item = zero;
        }
        self.check(item, schema);
    }

    fn check_struct(&mut self, map: &mut Map<String, Value>, schema: SchemaRef<'a>) {
        let Shape::Struct(fields) = schema.shape() else { return };
        let length = self.path.len();
        let mut gone: Vec<String> = Vec::new();
        for (key, inner) in map.iter_mut() {
            let Some((name, field)) = fields.get_key_value(key) else {
                self.descend(key);
                self.problems.add(format!("unknown field {}", go_quote(&self.path)));
                self.path.truncate(length);
                gone.push(key.clone());
                continue;
            };
            let inner_schema = schema.follow(field.type_id);
            if is_absent(key, inner, field, inner_schema) {
                gone.push(key.clone());
                continue;
            }
            self.descend(key);
            self.fields.push(name);
            let outer = std::mem::replace(&mut self.owner, go_name(&schema.get().name).to_owned());
            self.check(inner, inner_schema);
            self.owner = outer;
            self.fields.pop();
            self.path.truncate(length);
        }
        for key in gone {
            map.remove(&key);
        }
    }

    fn descend(&mut self, key: &str) {
        if !self.path.is_empty() {
            self.path.push('.');
        }
        self.path.push_str(key);
    }

    fn mismatch(&self, value: &Value, schema: SchemaRef<'_>) -> String {
        let found = found(value, schema.shape());
        let wanted = go_type(schema);
        if self.fields.is_empty() {
            return format!("json: cannot unmarshal {found} into Go value of type {wanted}");
        }
        let field = self.fields.join(".");
        format!("json: cannot unmarshal {found} into Go struct field {}.{field} of type {wanted}", self.owner)
    }
}

/// Checks and rewrites a scalar. `Err(None)` is a plain type mismatch, `Err(Some)` a text of the type's own.
fn scalar(shape: &Shape, value: &mut Value) -> Result<(), Option<String>> {
    let fits = match (shape, &*value) {
        (Shape::String, Value::String(_)) | (Shape::IntOrString, Value::String(_)) => true,
        (Shape::Boolean, Value::Bool(_)) | (Shape::Number, Value::Number(_)) => true,
        (Shape::Integer(32), Value::Number(n)) => integral(n).is_some_and(|n| i32::try_from(n).is_ok()),
        (Shape::Integer(_), Value::Number(n)) => integral(n).is_some(),
        (Shape::IntOrString, other) => {
            if other.as_i64().is_none_or(|n| i32::try_from(n).is_err()) {
                let text = found(other, &Shape::Integer(32));
                return Err(Some(format!("json: cannot unmarshal {text} into Go value of type int32")));
            }
            true
        }
        (Shape::Bytes, Value::String(text)) => {
            base64_text(text).map_err(Some)?;
            true
        }
        (Shape::Time | Shape::MicroTime, Value::String(text)) => {
            let micro = *shape == Shape::MicroTime;
            let written = if micro {
                crate::time::parse_micro(text).map(crate::time::format_micro)
            } else {
                crate::time::parse(text).map(crate::time::format)
            };
            *value = Value::String(written.map_err(|e| Some(e.to_string()))?);
            true
        }
        (Shape::Time | Shape::MicroTime, other) => {
            return Err(Some(format!("json: cannot unmarshal {} into Go value of type string", found(other, shape))));
        }
        (Shape::Quantity, other) => {
            let parsed = match other {
                Value::String(text) => Quantity::parse(text),
                other => Quantity::parse(&other.to_string()),
            };
            *value = Value::String(parsed.map_err(|e| Some(e.to_string()))?.to_string());
            true
        }
        _ => false,
    };
    if fits { Ok(()) } else { Err(None) }
}

fn base64_text(text: &str) -> Result<(), String> {
    let clean: String;
    let checked = if text.contains(['\r', '\n']) {
        clean = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
        &clean
    } else {
        text
    };
    STANDARD.decode(checked).map(drop).map_err(|e| {
        let at = match e {
            base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
            base64::DecodeError::InvalidLength(length) => length,
            base64::DecodeError::InvalidPadding => checked.len(),
        };
        format!("illegal base64 data at input byte {at}")
    })
}

fn integral(number: &Number) -> Option<i64> {
    number.as_i64()
}

/// The JSON value as Go's decoder names it.
fn found(value: &Value, wanted: &Shape) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "bool".into(),
        Value::Number(n) if matches!(wanted, Shape::Integer(_)) => format!("number {n}"),
        Value::Number(_) => "number".into(),
        Value::String(_) => "string".into(),
        Value::Array(_) => "array".into(),
        Value::Object(_) => "object".into(),
    }
}

/// `PodSpec` of `io.k8s.api.core.v1.PodSpec`.
fn go_name(definition: &str) -> &str {
    definition.rsplit('.').next().unwrap_or("")
}

/// The type as Go prints it: `int32`, `[]v1.Container`, `map[string]string`.
fn go_type(schema: SchemaRef<'_>) -> String {
    match schema.shape() {
        Shape::String => "string".into(),
        Shape::Integer(bits) => format!("int{bits}"),
        Shape::Number => "float64".into(),
        Shape::Boolean => "bool".into(),
        Shape::Bytes => "[]uint8".into(),
        Shape::Quantity => "resource.Quantity".into(),
        Shape::IntOrString => "intstr.IntOrString".into(),
        Shape::Time => "v1.Time".into(),
        Shape::MicroTime => "v1.MicroTime".into(),
        Shape::List { item, .. } => format!("[]{}", go_type(schema.follow(*item))),
        Shape::Map { value } => format!("map[string]{}", go_type(schema.follow(*value))),
        Shape::Struct(_) if !schema.get().name.is_empty() => {
            let mut parts = schema.get().name.rsplit('.');
            let (name, package) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
            format!("{package}.{name}")
        }
        Shape::Struct(_) | Shape::Any => "map[string]interface {}".into(),
    }
}
