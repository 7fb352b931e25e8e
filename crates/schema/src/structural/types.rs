//! Schemas as a table of types: how objects merge under server-side apply.

use std::collections::HashMap;

use machinery::schema::{self as target, Field, SchemaRef, Shape, Type, TypeId, TypeTable};

use super::{Additional, ListType, Schema};

/// The types of a kind: those of its schema, and those of metadata. Answers the root.
pub fn type_table(schema: &Schema) -> (TypeTable, TypeId) {
    let mut table = TypeTable::default();
    let any = table.add(plain(Shape::Any));
    let mut build = Build { table, any, metadata: None };
    let root = build.object(schema, true);
    (build.table, root)
}

fn plain(shape: Shape) -> Type {
    Type { name: String::new(), shape, atomic: false, rest: None }
}

/// Adds the types of metadata to a table.
pub(super) fn object_meta(table: &mut TypeTable) -> TypeId {
    let types = api::api().types();
    match types.named("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta") {
        Some(id) => copy(types.get(id), table, &mut HashMap::new()),
        None => table.add(plain(Shape::Any)),
    }
}

/// Copies a type with all that it refers to.
fn copy(from: SchemaRef<'_>, table: &mut TypeTable, done: &mut HashMap<String, TypeId>) -> TypeId {
    let own = from.get();
    if let Some(id) = done.get(&own.name).filter(|_| !own.name.is_empty()) {
        return *id;
    }
    let id = table.add(plain(Shape::Any));
    if !own.name.is_empty() {
        done.insert(own.name.clone(), id);
    }
    let shape = match &own.shape {
        Shape::Struct(fields) => {
            let copied = fields.iter().map(|(name, fact)| {
                let type_id = copy(from.follow(fact.type_id), table, done);
                (name.clone(), Field { type_id, ..fact.clone() })
            });
            Shape::Struct(copied.collect())
        }
        Shape::List { item, merge } => {
            Shape::List { item: copy(from.follow(*item), table, done), merge: merge.clone() }
        }
        Shape::Map { value } => Shape::Map { value: copy(from.follow(*value), table, done) },
        other => other.clone(),
    };
    table.set(id, Type { name: own.name.clone(), shape, atomic: own.atomic, rest: None });
    id
}

struct Build {
    table: TypeTable,
    any: TypeId,
    metadata: Option<TypeId>,
}

impl Build {
    fn metadata(&mut self) -> TypeId {
        if let Some(id) = self.metadata {
            return id;
        }
        let id = object_meta(&mut self.table);
        self.metadata = Some(id);
        id
    }

    fn scalar(&mut self, shape: Shape) -> TypeId {
        self.table.add(plain(shape))
    }

    fn value(&mut self, schema: &Schema) -> TypeId {
        use super::Type as Kind;
        if schema.int_or_string {
            return self.scalar(Shape::IntOrString);
        }
        match schema.kind {
            None => self.any,
            Some(Kind::String) => self.scalar(Shape::String),
            Some(Kind::Integer) => self.scalar(Shape::Integer(64)),
            Some(Kind::Number) => self.scalar(Shape::Number),
            Some(Kind::Boolean) => self.scalar(Shape::Boolean),
            Some(Kind::Array) => {
                let item = schema.items.as_deref().map_or(self.any, |items| self.value(items));
                let merge = match &schema.list {
                    ListType::Atomic => target::ListType::Atomic,
                    ListType::Set => target::ListType::Set,
                    ListType::Map(keys) => target::ListType::Map(keys.iter().map(|k| k.to_string()).collect()),
                };
                self.scalar(Shape::List { item, merge })
            }
            Some(Kind::Object) => self.object(schema, schema.embedded),
        }
    }

    fn object(&mut self, schema: &Schema, is_resource: bool) -> TypeId {
        let open = schema.preserves || matches!(schema.additional, Additional::Any);
        if !is_resource && schema.properties.is_empty() {
            let value = match &schema.additional {
                Additional::Of(values) => Some(self.value(values)),
                _ if open => None,
                Additional::Absent | Additional::Any => {
                    let shape = Shape::Struct(HashMap::new());
                    return self.table.add(Type { atomic: schema.atomic, ..plain(shape) });
                }
            };
            let shape = value.map_or(Shape::Any, |value| Shape::Map { value });
            return self.table.add(Type { atomic: schema.atomic, ..plain(shape) });
        }
        let mut fields = HashMap::with_capacity(schema.properties.len() + 3);
        for (name, inner) in &schema.properties {
            let type_id = self.value(inner);
            let default = inner.default.as_deref().cloned();
            fields.insert(name.to_string(), Field { default, ..Field::new(type_id) });
        }
        if is_resource {
            let text = self.scalar(Shape::String);
            fields.insert("apiVersion".into(), Field::new(text));
            fields.insert("kind".into(), Field::new(text));
            let metadata = self.metadata();
            fields.insert("metadata".into(), Field::new(metadata));
        }
        let rest = match &schema.additional {
            Additional::Of(values) => Some(self.value(values)),
            _ => open.then_some(self.any),
        };
        self.table.add(Type { atomic: schema.atomic, rest, ..plain(Shape::Struct(fields)) })
    }
}
