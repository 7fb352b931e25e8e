//! What expressions may know of the values of a schema.

use cel::Type;

use crate::structural::{Additional, ListType, Schema, Type as Kind};

/// The type of the values of a schema. Of resources, names are known too.
pub(in crate::structural) fn declared(schema: &Schema, is_resource: bool) -> Type {
    if schema.int_or_string {
        return Type::Dyn;
    }
    match schema.kind {
        None => Type::Dyn,
        Some(Kind::Boolean) => Type::Bool,
        Some(Kind::Integer) => Type::Int,
        Some(Kind::Number) => Type::Double,
        Some(Kind::String) => match schema.format() {
            Some("byte") => Type::Bytes,
            Some("date" | "date-time") => Type::Timestamp,
            Some("duration") => Type::Duration,
            _ => Type::String,
        },
        Some(Kind::Array) => {
            let item = schema.items.as_deref().map_or(Type::Dyn, |items| declared(items, items.embedded));
            match schema.list {
                ListType::Set => Type::Set(item.into()),
                _ => Type::list(item),
            }
        }
        Some(Kind::Object) => object(schema, is_resource),
    }
}

fn object(schema: &Schema, is_resource: bool) -> Type {
    if let Additional::Of(values) = &schema.additional {
        return Type::map(declared(values, values.embedded));
    }
    if let Additional::Any = schema.additional {
        return Type::map(Type::Dyn);
    }
    let mut fields: Vec<(String, Type)> = Vec::new();
    if is_resource {
        let metadata = ["name", "generateName"].map(|name| (name.to_owned(), Type::String));
        fields.push(("metadata".to_owned(), Type::object(metadata)));
        fields.extend(["apiVersion", "kind"].map(|name| (name.to_owned(), Type::String)));
    }
    for (name, property) in &schema.properties {
        let known = is_resource && matches!(&**name, "metadata" | "apiVersion" | "kind");
        if !known {
            fields.push((name.to_string(), declared(property, property.embedded)));
        }
    }
    Type::object(fields)
}
