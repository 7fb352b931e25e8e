//! Field facts of types: what a value tree may hold, how lists and maps merge.
//!
//! A [`TypeTable`] is an arena of types; a [`SchemaRef`] points into it and is copied freely. Built-in kinds are
//! described by one static table; structural schemas of custom resources can be compiled into another.

use std::collections::HashMap;

use serde_json::Value;

/// A type of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TypeId(pub u32);

/// How a list merges under server-side apply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// Replaced whole.
    #[default]
    Atomic,
    /// Scalars, each owned by itself.
    Set,
    /// Objects identified by these fields.
    Map(Box<[String]>),
}

/// What a type's values look like.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// Text.
    String,
    /// Integer of so many bits (32 or 64).
    Integer(u8),
    /// Number.
    Number,
    /// Truth value.
    Boolean,
    /// Base64 text.
    Bytes,
    /// Quantity: text or number.
    Quantity,
    /// Integer or text.
    IntOrString,
    /// RFC 3339 text, seconds.
    Time,
    /// RFC 3339 text, microseconds.
    MicroTime,
    /// Known fields.
    Struct(HashMap<String, Field>),
    /// List of one type.
    List {
        /// Type of the items.
        item: TypeId,
        /// How it merges.
        merge: ListType,
    },
    /// Map from text to one type.
    Map {
        /// Type of the values.
        value: TypeId,
    },
    /// Anything; unknown fields are kept.
    Any,
}

/// A field of a struct.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Its type.
    pub type_id: TypeId,
    /// Whether clients must set it.
    pub required: bool,
    /// Default that OpenAPI shows.
    pub default: Option<Value>,
    /// `merge` in `x-kubernetes-patch-strategy`.
    pub patch_merge: bool,
    /// `retainKeys` in `x-kubernetes-patch-strategy`.
    pub retain_keys: bool,
    /// `x-kubernetes-patch-merge-key`.
    pub merge_key: Option<String>,
    /// Number in the protobuf message; 0 if none.
    pub protobuf: u32,
}

impl Field {
    /// A field of which nothing but its type is known.
    pub fn new(type_id: TypeId) -> Self {
        Self {
            type_id,
            required: false,
            default: None,
            patch_merge: false,
            retain_keys: false,
            merge_key: None,
            protobuf: 0,
        }
    }
}

/// A type: its name (OpenAPI definition, empty for inline types), shape, and whether it is owned as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Type {
    /// Name of the OpenAPI definition.
    pub name: String,
    /// Shape.
    pub shape: Shape,
    /// `x-kubernetes-map-type: atomic`.
    pub atomic: bool,
    /// Type of the fields that a struct does not name; absent when it has no others.
    pub rest: Option<TypeId>,
}

/// An arena of types.
#[derive(Clone, Debug, Default)]
pub struct TypeTable {
    types: Vec<Type>,
    names: HashMap<String, TypeId>,
}

impl TypeTable {
    /// Adds a type.
    pub fn add(&mut self, one: Type) -> TypeId {
        let id = TypeId(u32::try_from(self.types.len()).unwrap_or(u32::MAX));
        if !one.name.is_empty() {
            self.names.insert(one.name.clone(), id);
        }
        self.types.push(one);
        id
    }

    /// Replaces a type added before (for types that refer to each other).
    pub fn set(&mut self, id: TypeId, one: Type) {
        self.types[id.0 as usize] = one;
    }

    /// The type of a name.
    pub fn named(&self, name: &str) -> Option<TypeId> {
        self.names.get(name).copied()
    }

    /// Names of all named types.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// A pointer to a type.
    pub fn get(&self, id: TypeId) -> SchemaRef<'_> {
        SchemaRef { table: self, id }
    }
}

/// A type within its table.
#[derive(Clone, Copy)]
pub struct SchemaRef<'a> {
    table: &'a TypeTable,
    id: TypeId,
}

impl<'a> SchemaRef<'a> {
    /// The type.
    pub fn get(self) -> &'a Type {
        &self.table.types[self.id.0 as usize]
    }

    /// Its shape.
    pub fn shape(self) -> &'a Shape {
        &self.get().shape
    }

    /// Another type of the same table.
    pub fn follow(self, id: TypeId) -> Self {
        Self { table: self.table, id }
    }

    /// The fact about a field.
    pub fn field_fact(self, name: &str) -> Option<&'a Field> {
        match self.shape() {
            Shape::Struct(fields) => fields.get(name),
            _ => None,
        }
    }

    /// The type of a field or map value.
    pub fn field(self, name: &str) -> Option<Self> {
        match self.shape() {
            Shape::Struct(fields) => fields.get(name).map(|f| f.type_id).or(self.get().rest).map(|id| self.follow(id)),
            Shape::Map { value } => Some(self.follow(*value)),
            _ => None,
        }
    }

    /// The type of list items.
    pub fn item(self) -> Option<Self> {
        match self.shape() {
            Shape::List { item, .. } => Some(self.follow(*item)),
            _ => None,
        }
    }

    /// Whether nothing is known about the value.
    pub fn is_any(self) -> bool {
        matches!(self.shape(), Shape::Any)
    }
}
