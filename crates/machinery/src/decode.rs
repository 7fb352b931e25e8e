//! Decoding of request bodies: bounded, with duplicate keys found, then checked and pruned against a schema.

use std::{cell::RefCell, fmt};

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::{
    quantity::Quantity,
    schema::{SchemaRef, Shape},
};

/// Nesting beyond which a document is refused.
const MAX_DEPTH: usize = 120;
/// Nodes that a YAML document may grow to through aliases.
const MAX_YAML_NODES: usize = 1_000_000;
/// Problems reported of one document.
const MAX_PROBLEMS: usize = 100;

/// A document that cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DecodeError(String);

/// Unknown, duplicate and mistyped fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldProblems {
    texts: Vec<String>,
    type_error: Option<String>,
}

impl FieldProblems {
    fn add(&mut self, text: String) {
        if self.texts.len() < MAX_PROBLEMS && !self.texts.contains(&text) {
            self.texts.push(text);
        }
    }

    /// Adds those of another decoding step.
    pub fn append(&mut self, other: Self) {
        other.texts.into_iter().for_each(|t| self.add(t));
        self.type_error = self.type_error.take().or(other.type_error);
    }

    /// The texts: `unknown field "spec.foo"`, `duplicate field "spec.replicas"`.
    pub fn texts(&self) -> Vec<String> {
        self.texts.clone()
    }

    /// The first value of a wrong type, as text.
    pub fn type_error(&self) -> Option<&str> {
        self.type_error.as_deref()
    }

    /// With a prefix on each text.
    pub fn labelled(&self, prefix: &str) -> Self {
        let texts = self.texts.iter().map(|t| format!("{prefix}{t}")).collect();
        Self { texts, type_error: self.type_error.clone() }
    }
}

/// Decodes JSON; the last of duplicate keys wins.
pub fn decode_json(bytes: &[u8]) -> Result<(Value, FieldProblems), DecodeError> {
    let state = State { problems: RefCell::default(), path: RefCell::default() };
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Tree { state: &state, depth: 0 }.deserialize(&mut reader).map_err(|e| DecodeError(e.to_string()))?;
    reader.end().map_err(|e| DecodeError(e.to_string()))?;
    Ok((value, state.problems.into_inner()))
}

/// Decodes one YAML document.
pub fn decode_yaml(bytes: &[u8]) -> Result<(Value, FieldProblems), DecodeError> {
    if let Ok(decoded) = decode_json(bytes) {
        return Ok(decoded);
    }
    let fail = |e: String| DecodeError(format!("error converting YAML to JSON: yaml: {e}"));
    let text = std::str::from_utf8(bytes).map_err(|e| fail(e.to_string()))?;
    let yaml: serde_yaml::Value = serde_yaml::from_str(text).map_err(|e| fail(e.to_string()))?;
    let mut budget = MAX_YAML_NODES;
    let value = from_yaml(yaml, 0, &mut budget).map_err(fail)?;
    Ok((value, FieldProblems::default()))
}

fn from_yaml(yaml: serde_yaml::Value, depth: usize, budget: &mut usize) -> Result<Value, String> {
    use serde_yaml::Value as Yaml;
    if depth > MAX_DEPTH {
        return Err("document nests too deep".into());
    }
    *budget = budget.checked_sub(1).ok_or("document contains excessive aliasing")?;
    Ok(match yaml {
        Yaml::Null => Value::Null,
        Yaml::Bool(b) => Value::Bool(b),
        Yaml::Number(n) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
            (Some(n), ..) => Value::from(n),
            (_, Some(n), _) => Value::from(n),
            (_, _, Some(n)) => Number::from_f64(n).map_or(Value::Null, Value::Number),
            _ => Value::Null,
        },
        Yaml::String(text) => Value::String(text),
        Yaml::Sequence(list) => {
            Value::Array(list.into_iter().map(|v| from_yaml(v, depth + 1, budget)).collect::<Result<_, _>>()?)
        }
        Yaml::Mapping(map) => {
            let mut out = Map::new();
            for (key, value) in map {
                let key = match key {
                    Yaml::String(text) => text,
                    Yaml::Bool(b) => b.to_string(),
                    Yaml::Number(n) => n.to_string(),
                    _ => return Err("unsupported map key".into()),
                };
                out.insert(key, from_yaml(value, depth + 1, budget)?);
            }
            Value::Object(out)
        }
        Yaml::Tagged(tagged) => from_yaml(tagged.value, depth + 1, budget)?,
    })
}

struct State {
    problems: RefCell<FieldProblems>,
    path: RefCell<String>,
}

struct Tree<'a> {
    state: &'a State,
    depth: usize,
}

impl<'a> Tree<'a> {
    /// The seed of a child, with the path grown by `add`; answers the old length of the path.
    fn down(&self, add: impl FnOnce(&mut String)) -> (Tree<'a>, usize) {
        let mut path = self.state.path.borrow_mut();
        let length = path.len();
        add(&mut path);
        (Tree { state: self.state, depth: self.depth + 1 }, length)
    }

    fn up(&self, length: usize) {
        self.state.path.borrow_mut().truncate(length);
    }
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if self.depth > MAX_DEPTH {
            return Err(serde::de::Error::custom("exceeded max depth"));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(Number::from_f64(v).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.to_owned()))
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(Value::String(v))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let (seed, length) = self.down(|path| path.push_str(&format!("[{}]", list.len())));
            let item = seq.next_element_seed(seed)?;
            self.up(length);
            match item {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut out = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let (seed, length) = self.down(|path| {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(&key);
            });
            if out.contains_key(&key) {
                let text = format!("duplicate field {:?}", self.state.path.borrow().as_str());
                self.state.problems.borrow_mut().add(text);
            }
            let value = map.next_value_seed(seed)?;
            self.up(length);
            out.insert(key, value);
        }
        Ok(Value::Object(out))
    }
}

/// Checks a value tree against its schema in place: unknown fields are removed and reported, absent-like nulls are
/// dropped, quantities written canonically, mistyped values reported.
pub fn check_fields(value: &mut Value, schema: SchemaRef<'_>) -> FieldProblems {
    let mut problems = FieldProblems::default();
    check(value, schema, &mut String::new(), &mut problems);
    problems
}

fn check(value: &mut Value, schema: SchemaRef<'_>, path: &mut String, problems: &mut FieldProblems) {
    let length = path.len();
    match (schema.shape(), &mut *value) {
        (Shape::Any, _) | (_, Value::Null) => {}
        (Shape::Struct(fields), Value::Object(map)) => {
            let inner: Vec<String> = map.keys().cloned().collect();
            for key in inner {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(&key);
                match fields.get(&key) {
                    None => {
                        problems.add(format!("unknown field {:?}", path.as_str()));
                        map.remove(&key);
                    }
                    Some(field) => match map.get_mut(&key) {
                        Some(Value::Null) => {
                            if !keeps_null(&key) {
                                map.remove(&key);
                            }
                        }
                        Some(inner) => check(inner, schema.follow(field.type_id), path, problems),
                        None => {}
                    },
                }
                path.truncate(length);
            }
        }
        (Shape::Map { value: inner }, Value::Object(map)) => {
            let zero = zero_of(schema.follow(*inner).shape());
            for (key, item) in map.iter_mut() {
                path.push('.');
                path.push_str(key);
                if item.is_null()
                    && let Some(zero) = &zero
                {
                    *item = zero.clone();
                }
                check(item, schema.follow(*inner), path, problems);
                path.truncate(length);
            }
        }
        (Shape::List { item, .. }, Value::Array(list)) => {
            let inner = schema.follow(*item);
            for (at, item) in list.iter_mut().enumerate() {
                path.push_str(&format!("[{at}]"));
                check(item, inner, path, problems);
                path.truncate(length);
            }
        }
        (shape, value) => scalar(shape, value, path, problems),
    }
}

/// Fields whose null has a meaning of its own on the wire.
fn keeps_null(key: &str) -> bool {
    matches!(key, "creationTimestamp" | "lastProbeTime")
}

fn zero_of(shape: &Shape) -> Option<Value> {
    match shape {
        Shape::String | Shape::Bytes => Some(Value::String(String::new())),
        Shape::Quantity => Some(Value::String("0".into())),
        _ => None,
    }
}

fn scalar(shape: &Shape, value: &mut Value, path: &str, problems: &mut FieldProblems) {
    let fits = match (shape, &*value) {
        (Shape::String | Shape::Bytes, Value::String(_)) => true,
        (Shape::Time | Shape::MicroTime, Value::String(text)) => {
            match crate::time::parse(text) {
                Ok(at) => {
                    let micro = *shape == Shape::MicroTime;
                    *value = Value::String(if micro { crate::time::format_micro(at) } else { crate::time::format(at) });
                }
                Err(error) => return fail(problems, error.to_string()),
            }
            true
        }
        (Shape::Boolean, Value::Bool(_)) | (Shape::Number, Value::Number(_)) => true,
        (Shape::IntOrString, Value::String(_)) => true,
        (Shape::Integer(32) | Shape::IntOrString, Value::Number(n)) => {
            integral(n).is_some_and(|n| i32::try_from(n).is_ok())
        }
        (Shape::Integer(_), Value::Number(n)) => integral(n).is_some(),
        (Shape::Quantity, Value::String(_) | Value::Number(_)) => {
            let text = match &*value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            match Quantity::parse(&text) {
                Ok(quantity) => *value = Value::String(quantity.to_string()),
                Err(error) => return fail(problems, error.to_string()),
            }
            true
        }
        _ => false,
    };
    if !fits {
        let text = format!(
            "json: cannot unmarshal {} into Go struct field {path} of type {}",
            go_kind(value),
            go_type(shape)
        );
        fail(problems, text);
    }
}

fn fail(problems: &mut FieldProblems, text: String) {
    problems.type_error.get_or_insert(text);
}

fn integral(number: &Number) -> Option<i64> {
    number.as_i64()
}

fn go_kind(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "bool".into(),
        Value::Number(n) => format!("number {n}").trim_end().to_owned(),
        Value::String(_) => "string".into(),
        Value::Array(_) => "array".into(),
        Value::Object(_) => "object".into(),
    }
}

fn go_type(shape: &Shape) -> &'static str {
    match shape {
        Shape::String => "string",
        Shape::Integer(32) => "int32",
        Shape::Integer(_) => "int64",
        Shape::Number => "float64",
        Shape::Boolean => "bool",
        Shape::Bytes => "[]uint8",
        Shape::Quantity => "resource.Quantity",
        Shape::IntOrString => "intstr.IntOrString",
        Shape::Time => "v1.Time",
        Shape::MicroTime => "v1.MicroTime",
        Shape::List { .. } => "[]interface {}",
        Shape::Struct(_) | Shape::Map { .. } | Shape::Any => "map[string]interface {}",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_are_found_with_their_path() {
        let (value, problems) = decode_json(br#"{"spec":{"a":1,"a":2,"l":[{"x":1,"x":1}]}}"#).expect("json");
        assert_eq!(value["spec"]["a"], 2);
        assert_eq!(problems.texts(), ["duplicate field \"spec.a\"", "duplicate field \"spec.l[0].x\""]);
    }

    #[test]
    fn depth_is_bounded() {
        let deep = "[".repeat(100_000);
        assert!(decode_json(deep.as_bytes()).is_err());
        let closed = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
        assert!(decode_json(closed.as_bytes()).is_err());
    }

    #[test]
    fn yaml_becomes_json() {
        let (value, _) = decode_yaml(b"a: 1\nb:\n- x\n- 'true'\nc: true\n").expect("yaml");
        assert_eq!(value, serde_json::json!({"a": 1, "b": ["x", "true"], "c": true}));
        assert!(decode_yaml(b"a: [").is_err());
    }
}
