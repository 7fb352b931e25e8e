//! Defaults of a schema, and nulls that stand for nothing.

use serde_json::Value;

use super::Schema;

/// Fills in defaults. A null where the schema allows none is replaced by the default.
pub fn apply_defaults(value: &mut Value, schema: &Schema) {
    match value {
        Value::Object(map) => {
            for (name, property) in &schema.properties {
                let Some(default) = &property.default else { continue };
                let absent = map.get(&**name).is_none_or(|v| v.is_null() && !property.nullable);
                if absent {
                    map.insert(name.to_string(), (**default).clone());
                }
            }
            for (name, inner) in map.iter_mut() {
                let Some(property) = schema.field(name) else { continue };
                if inner.is_null()
                    && !property.nullable
                    && let Some(default) = &property.default
                {
                    *inner = (**default).clone();
                }
                apply_defaults(inner, property);
            }
        }
        Value::Array(list) => {
            let Some(items) = &schema.items else { return };
            for item in list {
                if item.is_null()
                    && !items.nullable
                    && let Some(default) = &items.default
                {
                    *item = (**default).clone();
                }
                apply_defaults(item, items);
            }
        }
        _ => {}
    }
}

/// Removes nulls of declared fields that may not be null and have no default.
pub fn drop_nulls(value: &mut Value, schema: &Schema) {
    match value {
        Value::Object(map) => {
            map.retain(|name, inner| {
                !inner.is_null() || schema.field(name).is_none_or(|p| p.nullable || p.default.is_some())
            });
            for (name, inner) in map.iter_mut() {
                if let Some(property) = schema.field(name) {
                    drop_nulls(inner, property);
                }
            }
        }
        Value::Array(list) => {
            let Some(items) = &schema.items else { return };
            list.iter_mut().for_each(|item| drop_nulls(item, items));
        }
        _ => {}
    }
}
