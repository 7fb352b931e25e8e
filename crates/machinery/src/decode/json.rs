//! JSON into value trees.

use std::{cell::RefCell, collections::HashMap, fmt, fmt::Write};

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{DecodeError, FieldProblems, MAX_DEPTH};

pub(super) fn decode(bytes: &[u8]) -> Result<(Value, FieldProblems), DecodeError> {
    let state = State::default();
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Tree { state: &state, depth: 0 }.deserialize(&mut reader).map_err(|e| DecodeError(e.to_string()))?;
    reader.end().map_err(|e| DecodeError(e.to_string()))?;
    Ok((value, state.problems.into_inner()))
}

/// Sorts texts that quote a field path by where the document has that field.
pub(super) fn sort_by_position(texts: &mut [String], document: &[u8]) {
    let quoted = |text: &str| text.find('"').and_then(|at| serde_json::from_str::<String>(&text[at..]).ok());
    let wanted = texts.iter().filter_map(|t| quoted(t)).map(|path| (path, usize::MAX)).collect();
    let state = State { positions: RefCell::new(wanted), ..State::default() };
    let mut reader = serde_json::Deserializer::from_slice(document);
    // A document that ends early still orders the fields seen so far.
    drop(Tree { state: &state, depth: 0 }.deserialize(&mut reader));
    let positions = state.positions.into_inner();
    texts.sort_by_key(|text| quoted(text).and_then(|path| positions.get(&path).copied()).unwrap_or(usize::MAX));
}

#[derive(Default)]
struct State {
    problems: RefCell<FieldProblems>,
    path: RefCell<String>,
    /// Paths to locate, with the ordinal of their first occurrence.
    positions: RefCell<HashMap<String, usize>>,
    fields: RefCell<usize>,
}

impl State {
    fn locate(&self) {
        let mut positions = self.positions.borrow_mut();
        if positions.is_empty() {
            return;
        }
        let mut fields = self.fields.borrow_mut();
        *fields += 1;
        if let Some(position) = positions.get_mut(self.path.borrow().as_str()) {
            *position = (*position).min(*fields);
        }
    }
}

struct Tree<'a> {
    state: &'a State,
    depth: usize,
}

impl<'a> Tree<'a> {
    fn down(&self) -> Tree<'a> {
        Tree { state: self.state, depth: self.depth + 1 }
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
        let length = self.state.path.borrow().len();
        let mut list = Vec::new();
        loop {
            let _infallible = write!(self.state.path.borrow_mut(), "[{}]", list.len());
            let item = seq.next_element_seed(self.down())?;
            self.state.path.borrow_mut().truncate(length);
            match item {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let length = self.state.path.borrow().len();
        let mut out = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            {
                let mut path = self.state.path.borrow_mut();
                if length > 0 {
                    path.push('.');
                }
                path.push_str(&key);
            }
            self.state.locate();
            if out.contains_key(&key) {
                let text = format!("duplicate field {}", crate::field::go_quote(&self.state.path.borrow()));
                self.state.problems.borrow_mut().add(text);
            }
            let value = map.next_value_seed(self.down())?;
            self.state.path.borrow_mut().truncate(length);
            out.insert(key, value);
        }
        Ok(Value::Object(out))
    }
}
