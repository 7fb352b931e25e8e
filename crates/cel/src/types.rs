//! Types, of data and of expressions.

use std::{collections::BTreeMap, fmt, sync::Arc};

use crate::parser::RESERVED;

/// A field of an object: its name in the data, and its type. Expressions may know it by another name.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Name in the data.
    pub name: String,
    /// Type.
    pub kind: Type,
}

/// A type. Data is read as its type says: the same text is a string or a time.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Type {
    /// Known when it is met.
    #[default]
    Dyn,
    /// Null.
    Null,
    /// Truth value.
    Bool,
    /// 64-bit integer.
    Int,
    /// 64-bit unsigned integer.
    Uint,
    /// Floating-point number.
    Double,
    /// Text.
    String,
    /// Bytes; base64 in data.
    Bytes,
    /// Point in time; RFC 3339 in data.
    Timestamp,
    /// Span of time; Go's notation in data.
    Duration,
    /// List.
    List(Arc<Type>),
    /// List whose order does not count.
    Set(Arc<Type>),
    /// Map.
    Map(Arc<Type>, Arc<Type>),
    /// Known fields, by the names that expressions use.
    Object(Arc<BTreeMap<String, Field>>),
    /// `optional.of(...)`.
    Optional(Arc<Type>),
    /// A type.
    Type,
    /// Something of a library: `kubernetes.Quantity`, `net.IP`, `net.CIDR`, `kubernetes.URL`, `kubernetes.Semver`.
    Named(&'static str),
    /// What an expression makes by `Name{...}`: `Object`, `Object.spec`, `JSONPatch`.
    Struct(Arc<str>),
}

/// Structure of one operation of a JSON patch, and the root of those that describe objects.
pub(crate) const PATCH: &str = "JSONPatch";
pub(crate) const OBJECT: &str = "Object";

/// Types of the authorizer library.
pub(crate) mod authorization {
    use super::Type;

    pub(crate) const AUTHORIZER: Type = Type::Named("kubernetes.authorization.Authorizer");
    pub(crate) const PATH_CHECK: Type = Type::Named("kubernetes.authorization.PathCheck");
    pub(crate) const GROUP_CHECK: Type = Type::Named("kubernetes.authorization.GroupCheck");
    pub(crate) const RESOURCE_CHECK: Type = Type::Named("kubernetes.authorization.ResourceCheck");
    pub(crate) const DECISION: Type = Type::Named("kubernetes.authorization.Decision");
}

impl Type {
    /// A list of a type.
    pub fn list(item: Self) -> Self {
        Self::List(Arc::new(item))
    }

    /// A map from text.
    pub fn map(value: Self) -> Self {
        Self::Map(Arc::new(Self::String), Arc::new(value))
    }

    /// What `authorizer` is.
    pub fn authorizer() -> Self {
        authorization::AUTHORIZER
    }

    /// What `Name{...}` makes.
    pub fn of_struct(name: &str) -> Self {
        Self::Struct(name.into())
    }

    /// An object of fields whose names in expressions are those of the data, escaped where they must be.
    pub fn object(fields: impl IntoIterator<Item = (String, Self)>) -> Self {
        let fields = fields.into_iter().filter_map(|(name, kind)| Some((escape(&name)?, Field { name, kind })));
        Self::Object(Arc::new(fields.collect()))
    }

    /// An object of fields that expressions know by the names of the data, reserved words or not.
    pub fn record(fields: impl IntoIterator<Item = (String, Self)>) -> Self {
        let fields = fields.into_iter().map(|(name, kind)| (name.clone(), Field { name, kind }));
        Self::Object(Arc::new(fields.collect()))
    }

    /// Type of the items of a list.
    pub(crate) fn item(&self) -> Self {
        match self {
            Self::List(item) | Self::Set(item) => (**item).clone(),
            _ => Self::Dyn,
        }
    }

    pub(crate) fn is_dyn(&self) -> bool {
        matches!(self, Self::Dyn)
    }

    /// Whether a value of this type may be one of the other, as far as is known.
    pub(crate) fn fits(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Dyn, _) | (_, Self::Dyn) => true,
            (Self::List(a) | Self::Set(a), Self::List(b) | Self::Set(b)) => a.fits(b),
            (Self::Map(a, b), Self::Map(c, d)) => a.fits(c) && b.fits(d),
            (Self::Optional(a), Self::Optional(b)) => a.fits(b),
            (Self::Null, _) | (_, Self::Null) => true,
            (Self::Object(_), Self::Map(..)) | (Self::Map(..), Self::Object(_)) => true,
            (Self::Object(a), Self::Object(b)) => Arc::ptr_eq(a, b) || a == b,
            (a, b) => a == b,
        }
    }

    pub(crate) fn is_number(&self) -> bool {
        matches!(self, Self::Int | Self::Uint | Self::Double)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dyn => f.write_str("dyn"),
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Uint => f.write_str("uint"),
            Self::Double => f.write_str("double"),
            Self::String => f.write_str("string"),
            Self::Bytes => f.write_str("bytes"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Duration => f.write_str("duration"),
            Self::List(item) | Self::Set(item) => write!(f, "list({item})"),
            Self::Map(key, value) => write!(f, "map({key}, {value})"),
            Self::Object(_) => f.write_str("object"),
            Self::Optional(inner) => write!(f, "optional_type({inner})"),
            Self::Type => f.write_str("type"),
            Self::Named(name) => f.write_str(name),
            Self::Struct(name) => f.write_str(name),
        }
    }
}

/// Words that fields cannot be named by, besides those that the parser reserves.
const ALSO_RESERVED: [&str; 4] = ["true", "false", "null", "in"];

/// The name by which expressions know a field; `None` if they cannot.
pub fn escape(name: &str) -> Option<String> {
    if RESERVED.contains(&name) || ALSO_RESERVED.contains(&name) {
        return Some(format!("__{name}__"));
    }
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        let (text, length) = match c {
            '_' if rest.starts_with("__") => ("__underscores__", 2),
            '.' => ("__dot__", 1),
            '-' => ("__dash__", 1),
            '/' => ("__slash__", 1),
            'a'..='z' | 'A'..='Z' | '0'..='9' | '_' => (&rest[..1], 1),
            _ => return None,
        };
        out.push_str(text);
        rest = &rest[length..];
    }
    (!out.is_empty() && !out.starts_with(|c: char| c.is_ascii_digit())).then_some(out)
}
