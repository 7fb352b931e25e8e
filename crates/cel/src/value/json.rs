//! Values as data.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Number, Value as Json};

use super::Val;
use crate::{functions::strings, types::PATCH};

/// The data that a value is.
pub(super) fn of(value: &Val<'_>) -> Result<Json, String> {
    place(value, None)
}

/// `path`: names of the fields that lead here from the root of a structure.
fn place(value: &Val<'_>, path: Option<&str>) -> Result<Json, String> {
    Ok(match value {
        Val::Null => Json::Null,
        Val::Bool(value) => Json::Bool(*value),
        Val::Int(value) => Json::from(*value),
        Val::Uint(value) => Json::from(*value),
        Val::Double(value) => {
            Number::from_f64(*value).map(Json::Number).ok_or("cannot convert to JSON: not a number")?
        }
        Val::String(text) => Json::String(text.to_string()),
        Val::Text(text) => Json::String((*text).to_owned()),
        Val::Bytes(bytes) => Json::String(BASE64_STANDARD.encode(bytes)),
        Val::Timestamp(_) | Val::Duration(_) | Val::Quantity(_) | Val::Ip(_) | Val::Cidr(_) | Val::Semver(_) => {
            Json::String(strings::show(value).unwrap_or_default())
        }
        Val::Items(list, ..) => Json::Array(list.to_vec()),
        Val::List(items) => Json::Array(items.iter().map(|item| place(item, path)).collect::<Result<_, _>>()?),
        Val::Fields(map, _) => Json::Object((*map).clone()),
        Val::Map(entries) => {
            let mut map = Map::new();
            for (key, value) in entries.iter() {
                let Some(key) = key.as_str() else {
                    return Err(format!("cannot convert to JSON: a key is of type {}", key.type_name()));
                };
                map.insert(key.to_owned(), place(value, path)?);
            }
            Json::Object(map)
        }
        Val::Optional(Some(inner)) => place(inner, path)?,
        Val::Optional(None) => Json::Null,
        Val::Struct(made) => {
            let expected = path.unwrap_or(&made.name);
            if *made.name != *expected {
                return Err(format!(
                    "unexpected type name {:?}, expected {expected:?}, which matches field name path from root Object \
                     type",
                    made.name
                ));
            }
            // The value of an operation of a patch may be of any type.
            let is_patch = expected == PATCH;
            let mut map = Map::new();
            for (name, value) in &made.fields {
                let below = (!is_patch).then(|| format!("{expected}.{name}"));
                map.insert((*name).to_owned(), place(value, below.as_deref())?);
            }
            Json::Object(map)
        }
        other => return Err(format!("cannot convert to JSON: {}", other.type_name())),
    })
}
