//! Values.

mod json;

use std::{cmp::Ordering, net::IpAddr, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};
use ipnet::IpNet;
use machinery::quantity::Quantity;
use serde_json::{Map, Value as Json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    functions::authorization::{Authorizer, Check, Decision},
    types::Type,
};

/// A value. Lists and maps of the data are looked into where they stand.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Val<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Arc<str>),
    /// Text of the data.
    Text(&'a str),
    Bytes(Arc<[u8]>),
    Timestamp(OffsetDateTime),
    /// Nanoseconds.
    Duration(i64),
    /// A list of the data, and the type of its items.
    Items(&'a [Json], &'a Type, bool),
    List(Arc<Vec<Val<'a>>>),
    /// An object of the data, and its type.
    Fields(&'a Map<String, Json>, &'a Type),
    Map(Arc<Vec<(Val<'a>, Val<'a>)>>),
    Optional(Option<Arc<Val<'a>>>),
    Type(Arc<str>),
    Quantity(Quantity),
    Ip(IpAddr),
    Cidr(IpNet),
    Url(Arc<Url>),
    Semver(Arc<Semver>),
    /// A format of names.
    Format(&'static str),
    Authorizer(Arc<Authorizer>),
    /// Questions that are not complete yet.
    PathCheck(Arc<Check>),
    GroupCheck(Arc<Check>),
    ResourceCheck(Arc<Check>),
    Decision(Arc<Decision>),
    /// What `Name{...}` makes.
    Struct(Arc<Struct<'a>>),
}

/// A structure that an expression made.
#[derive(Clone, Debug)]
pub struct Struct<'a> {
    pub(crate) name: Arc<str>,
    pub(crate) fields: Vec<(&'a str, Val<'a>)>,
}

/// An absolute URL or path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    pub(crate) scheme: String,
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
}

/// A semantic version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Semver {
    pub(crate) numbers: [u64; 3],
    pub(crate) pre: Vec<String>,
    pub(crate) build: String,
}

impl PartialOrd for Semver {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Semver {
    fn cmp(&self, other: &Self) -> Ordering {
        let part = |a: &String, b: &String| match (a.parse::<u64>(), b.parse::<u64>()) {
            (Ok(a), Ok(b)) => a.cmp(&b),
            (Ok(_), Err(_)) => Ordering::Less,
            (Err(_), Ok(_)) => Ordering::Greater,
            (Err(_), Err(_)) => a.cmp(b),
        };
        let pre = || match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => self
                .pre
                .iter()
                .zip(&other.pre)
                .map(|(a, b)| part(a, b))
                .find(|o| o.is_ne())
                .unwrap_or_else(|| self.pre.len().cmp(&other.pre.len())),
        };
        self.numbers.cmp(&other.numbers).then_with(pre)
    }
}

static DYN: Type = Type::Dyn;

impl<'a> Val<'a> {
    /// A text.
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self::String(text.into())
    }

    pub(crate) fn list(items: Vec<Self>) -> Self {
        Self::List(Arc::new(items))
    }

    /// An optional value.
    pub fn some_or_none(value: Option<Self>) -> Self {
        Self::optional(value)
    }

    pub(crate) fn optional(value: Option<Self>) -> Self {
        Self::Optional(value.map(Arc::new))
    }

    /// A value of the data, as its type says.
    pub fn of(json: &'a Json, kind: &'a Type) -> Self {
        match (json, kind) {
            (Json::Null, _) => Self::Null,
            (Json::Bool(value), _) => Self::Bool(*value),
            (Json::Number(number), Type::Double) => Self::Double(number.as_f64().unwrap_or(f64::NAN)),
            (Json::Number(number), _) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(value), ..) => Self::Int(value),
                (None, Some(value), _) => Self::Uint(value),
                (None, None, Some(value)) if *kind == Type::Int && value.fract() == 0.0 => Self::Int(value as i64),
                (None, None, value) => Self::Double(value.unwrap_or(f64::NAN)),
            },
            (Json::String(text), Type::Bytes) => {
                BASE64_STANDARD.decode(text).map_or(Self::Text(text), |bytes| Self::Bytes(bytes.into()))
            }
            (Json::String(text), Type::Timestamp) => parse_time(text).map_or(Self::Text(text), Self::Timestamp),
            (Json::String(text), Type::Duration) => parse_duration(text).map_or(Self::Text(text), Self::Duration),
            (Json::String(text), _) => Self::Text(text),
            (Json::Array(list), Type::List(item)) => Self::Items(list, item, false),
            (Json::Array(list), Type::Set(item)) => Self::Items(list, item, true),
            (Json::Array(list), _) => Self::Items(list, &DYN, false),
            (Json::Object(map), kind) => Self::Fields(map, kind),
        }
    }

    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Name of its type.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::String(_) | Self::Text(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::Items(..) | Self::List(_) => "list",
            Self::Fields(_, Type::Object(_)) => "object",
            Self::Fields(..) | Self::Map(_) => "map",
            Self::Optional(_) => "optional_type",
            Self::Type(_) => "type",
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Ip(_) => "net.IP",
            Self::Cidr(_) => "net.CIDR",
            Self::Url(_) => "kubernetes.URL",
            Self::Semver(_) => "kubernetes.Semver",
            Self::Format(_) => "kubernetes.NamedFormat",
            Self::Authorizer(_) => "kubernetes.authorization.Authorizer",
            Self::PathCheck(_) => "kubernetes.authorization.PathCheck",
            Self::GroupCheck(_) => "kubernetes.authorization.GroupCheck",
            Self::ResourceCheck(_) => "kubernetes.authorization.ResourceCheck",
            Self::Decision(_) => "kubernetes.authorization.Decision",
            Self::Struct(_) => "object",
        }
    }

    /// The items of a list.
    pub(crate) fn items(&self) -> Option<Vec<Self>> {
        match self {
            Self::Items(list, kind, _) => Some(list.iter().map(|item| Self::of(item, kind)).collect()),
            Self::List(items) => Some((**items).clone()),
            _ => None,
        }
    }

    /// The entries of a map or object.
    pub(crate) fn entries(&self) -> Option<Vec<(Self, Self)>> {
        match self {
            Self::Map(entries) => Some((**entries).clone()),
            Self::Fields(map, Type::Object(fields)) => Some(
                fields
                    .iter()
                    .filter_map(|(name, field)| {
                        let value = map.get(&field.name)?;
                        Some((Self::text(name.as_str()), Self::of(value, &field.kind)))
                    })
                    .collect(),
            ),
            Self::Fields(map, kind) => {
                let inner = match kind {
                    Type::Map(_, value) => &**value,
                    _ => &DYN,
                };
                Some(map.iter().map(|(key, value)| (Self::Text(key), Self::of(value, inner))).collect())
            }
            _ => None,
        }
    }

    /// A field of an object or the value of a text key.
    pub(crate) fn field(&self, name: &str) -> Option<Self> {
        match self {
            Self::Fields(map, Type::Object(fields)) => {
                let field = fields.get(name)?;
                map.get(&field.name).map(|value| Self::of(value, &field.kind))
            }
            Self::Fields(map, Type::Map(_, value)) => map.get(name).map(|found| Self::of(found, value)),
            Self::Fields(map, _) => map.get(name).map(|found| Self::of(found, &DYN)),
            Self::Map(entries) => entries.iter().find(|(key, _)| key.as_str() == Some(name)).map(|(_, v)| v.clone()),
            Self::Struct(made) => made.fields.iter().find(|(own, _)| *own == name).map(|(_, value)| value.clone()),
            Self::Authorizer(authorizer) => authorizer.field(name),
            _ => None,
        }
    }

    /// The value of a key of any type.
    pub(crate) fn get(&self, key: &Self) -> Option<Self> {
        match (self, key.as_str()) {
            (Self::Map(entries), None) => entries.iter().find(|(k, _)| k.equals(key)).map(|(_, v)| v.clone()),
            (_, Some(name)) => self.field(name),
            _ => None,
        }
    }

    /// How many items, entries, characters or bytes there are.
    pub(crate) fn size(&self) -> Option<usize> {
        Some(match self {
            Self::String(text) => text.chars().count(),
            Self::Text(text) => text.chars().count(),
            Self::Bytes(bytes) => bytes.len(),
            Self::Items(list, ..) => list.len(),
            Self::List(items) => items.len(),
            Self::Fields(map, Type::Map(..) | Type::Dyn) => map.len(),
            Self::Fields(..) => self.entries()?.len(),
            Self::Map(entries) => entries.len(),
            _ => return None,
        })
    }

    /// Equality; values of different types differ, but numbers are compared as numbers.
    pub(crate) fn equals(&self, other: &Self) -> bool {
        if let (Some(a), Some(b)) = (self.as_str(), other.as_str()) {
            return a == b;
        }
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::Timestamp(a), Self::Timestamp(b)) => a == b,
            (Self::Duration(a), Self::Duration(b)) => a == b,
            (Self::Type(a), Self::Type(b)) => a == b,
            (Self::Quantity(a), Self::Quantity(b)) => a == b,
            (Self::Ip(a), Self::Ip(b)) => a == b,
            (Self::Cidr(a), Self::Cidr(b)) => a == b,
            (Self::Url(a), Self::Url(b)) => a == b,
            (Self::Format(a), Self::Format(b)) => a == b,
            (Self::Semver(a), Self::Semver(b)) => a.cmp(b).is_eq(),
            (Self::Optional(a), Self::Optional(b)) => match (a, b) {
                (Some(a), Some(b)) => a.equals(b),
                (None, None) => true,
                _ => false,
            },
            (Self::Struct(a), Self::Struct(b)) => {
                let has = |(name, value): &(&str, Val<'_>)| {
                    b.fields.iter().any(|(own, other)| own == name && value.equals(other))
                };
                a.name == b.name && a.fields.len() == b.fields.len() && a.fields.iter().all(has)
            }
            (Self::Decision(a), Self::Decision(b)) => a == b,
            _ => self.equals_deep(other),
        }
    }

    fn equals_deep(&self, other: &Self) -> bool {
        if let (Some(a), Some(b)) = (self.items(), other.items()) {
            let unordered = matches!(self, Self::Items(.., true)) || matches!(other, Self::Items(.., true));
            return a.len() == b.len()
                && match unordered {
                    true => a.iter().all(|x| b.iter().any(|y| x.equals(y))),
                    false => a.iter().zip(&b).all(|(x, y)| x.equals(y)),
                };
        }
        if let (Some(a), Some(_)) = (self.entries(), other.entries()) {
            return self.size() == other.size()
                && a.iter().all(|(key, value)| other.get(key).is_some_and(|found| value.equals(&found)));
        }
        compare_numbers(self, other) == Some(Ordering::Equal)
    }

    /// The value as data. Structures must be named by the path of fields that leads to them from their root.
    pub fn to_json(&self) -> Result<Json, String> {
        json::of(self)
    }

    /// Order of values that have one.
    pub(crate) fn compare(&self, other: &Self) -> Option<Ordering> {
        if let (Some(a), Some(b)) = (self.as_str(), other.as_str()) {
            return Some(a.cmp(b));
        }
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            (Self::Bytes(a), Self::Bytes(b)) => Some(a.cmp(b)),
            (Self::Timestamp(a), Self::Timestamp(b)) => Some(a.cmp(b)),
            (Self::Duration(a), Self::Duration(b)) => Some(a.cmp(b)),
            _ => compare_numbers(self, other),
        }
    }
}

fn compare_numbers(a: &Val<'_>, b: &Val<'_>) -> Option<Ordering> {
    match (a, b) {
        (Val::Int(a), Val::Int(b)) => Some(a.cmp(b)),
        (Val::Uint(a), Val::Uint(b)) => Some(a.cmp(b)),
        (Val::Int(a), Val::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Val::Uint(a), Val::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        _ => number(a)?.partial_cmp(&number(b)?),
    }
}

fn number(value: &Val<'_>) -> Option<f64> {
    match value {
        Val::Int(value) => Some(*value as f64),
        Val::Uint(value) => Some(*value as f64),
        Val::Double(value) => Some(*value),
        _ => None,
    }
}

pub(crate) fn parse_time(text: &str) -> Option<OffsetDateTime> {
    let date_only = || OffsetDateTime::parse(&format!("{text}T00:00:00Z"), &Rfc3339).ok();
    OffsetDateTime::parse(text, &Rfc3339).ok().or_else(date_only)
}

pub(crate) fn parse_duration(text: &str) -> Option<i64> {
    machinery::duration::parse(text).ok().map(|parsed| parsed.0)
}
