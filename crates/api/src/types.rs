//! Reading `data/types.json` into a [`TypeTable`].

use std::collections::HashMap;

use machinery::{
    GroupVersion, GroupVersionKind,
    schema::{Field, ListType, Shape, Type, TypeId, TypeTable},
};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    #[serde(default)]
    fields: Option<HashMap<String, FieldRow>>,
    #[serde(default)]
    gvk: Vec<String>,
    #[serde(default)]
    map_type: Option<String>,
    #[serde(default, rename = "type")]
    scalar: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FieldRow {
    t: String,
    #[serde(default)]
    pb: u32,
    #[serde(default)]
    req: bool,
    #[serde(default)]
    list: Option<String>,
    #[serde(default)]
    keys: Vec<String>,
    #[serde(default)]
    patch: String,
    #[serde(default)]
    merge_key: Option<String>,
    #[serde(default)]
    default: Option<Value>,
    #[serde(default)]
    map_type: Option<String>,
}

struct Loader {
    table: TypeTable,
    inline: HashMap<String, TypeId>,
}

pub(super) fn load(text: &str) -> (TypeTable, HashMap<GroupVersionKind, String>) {
    let rows: HashMap<String, Row> = serde_json::from_str(text).expect("the committed table is valid");
    let mut loader = Loader { table: TypeTable::default(), inline: HashMap::new() };
    let mut ids: Vec<(&String, TypeId)> = Vec::with_capacity(rows.len());
    for name in rows.keys() {
        ids.push((name, loader.table.add(Type { name: name.clone(), shape: Shape::Any, atomic: false, rest: None })));
    }
    let mut kinds = HashMap::new();
    for (name, id) in ids {
        let row = &rows[name];
        let shape = loader.shape(name, row);
        let atomic = row.map_type.as_deref() == Some("atomic");
        loader.table.set(id, Type { name: name.clone(), shape, atomic, rest: None });
        for gvk in &row.gvk {
            let (version, kind) = gvk.split_once(' ').unwrap_or(("", gvk));
            let version = GroupVersion::parse(version).unwrap_or_default();
            kinds.insert(GroupVersionKind::new(version.group, version.version, kind), name.clone());
        }
    }
    (loader.table, kinds)
}

impl Loader {
    fn shape(&mut self, name: &str, row: &Row) -> Shape {
        match name.rsplit('.').next().unwrap_or("") {
            "Quantity" => return Shape::Quantity,
            "IntOrString" => return Shape::IntOrString,
            "Time" if row.fields.is_none() => return Shape::Time,
            "MicroTime" => return Shape::MicroTime,
            "CustomResourceSubresourceStatus" | "FieldsV1" | "RawExtension" | "Patch" => return Shape::Any,
            _ => {}
        }
        match &row.fields {
            Some(fields) => Shape::Struct(fields.iter().map(|(n, f)| (n.clone(), self.field(f))).collect()),
            None if row.scalar.as_deref() == Some("object") => Shape::Struct(HashMap::new()),
            None => Shape::Any,
        }
    }

    fn field(&mut self, row: &FieldRow) -> Field {
        let merge = match row.list.as_deref() {
            Some("set") => ListType::Set,
            Some("map") => ListType::Map(row.keys.clone().into_boxed_slice()),
            _ => ListType::Atomic,
        };
        Field {
            type_id: self.resolve(&row.t, merge, row.map_type.as_deref() == Some("atomic")),
            required: row.req,
            default: row.default.clone(),
            patch_merge: row.patch.split(',').any(|p| p == "merge"),
            retain_keys: row.patch.split(',').any(|p| p == "retainKeys"),
            merge_key: row.merge_key.clone(),
            protobuf: row.pb,
        }
    }

    /// The type that a notation names: `string`, `integer:int32`, `[]T`, `map:T`, or a definition.
    fn resolve(&mut self, notation: &str, merge: ListType, atomic: bool) -> TypeId {
        if let Some(id) = self.table.named(notation)
            && !atomic
        {
            return id;
        }
        let key = format!("{notation}|{merge:?}|{atomic}");
        if let Some(id) = self.inline.get(&key) {
            return *id;
        }
        let shape = if let Some(item) = notation.strip_prefix("[]") {
            Shape::List { item: self.resolve(item, ListType::Atomic, false), merge }
        } else if let Some(value) = notation.strip_prefix("map:") {
            Shape::Map { value: self.resolve(value, ListType::Atomic, false) }
        } else if let Some(id) = self.table.named(notation) {
            self.table.get(id).shape().clone()
        } else {
            scalar(notation)
        };
        let id = self.table.add(Type { name: String::new(), shape, atomic, rest: None });
        self.inline.insert(key, id);
        id
    }
}

fn scalar(notation: &str) -> Shape {
    match notation {
        "string" => Shape::String,
        "string:byte" => Shape::Bytes,
        "boolean" => Shape::Boolean,
        "integer:int32" => Shape::Integer(32),
        "integer:int64" | "integer" => Shape::Integer(64),
        "number:double" | "number" => Shape::Number,
        _ => Shape::Any,
    }
}
