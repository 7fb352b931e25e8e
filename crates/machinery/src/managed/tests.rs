use std::collections::HashMap;

use serde_json::{Value, json};

use super::*;
use crate::schema::{Field, ListType, Shape, Type, TypeId, TypeTable};

fn field(type_id: TypeId) -> Field {
    Field {
        type_id,
        required: false,
        default: None,
        patch_merge: false,
        retain_keys: false,
        merge_key: None,
        protobuf: 0,
    }
}

/// metadata{labels, finalizers(set)}, spec{replicas, containers[name]{name, image}}.
fn table() -> (TypeTable, TypeId) {
    let mut table = TypeTable::default();
    let mut add = |shape| table.add(Type { name: String::new(), shape, atomic: false });
    let string = add(Shape::String);
    let integer = add(Shape::Integer(32));
    let labels = add(Shape::Map { value: string });
    let finalizers = add(Shape::List { item: string, merge: ListType::Set });
    let of = |fields: &[(&str, TypeId)]| {
        Shape::Struct(fields.iter().map(|(n, t)| ((*n).to_owned(), field(*t))).collect::<HashMap<_, _>>())
    };
    let metadata = add(of(&[("name", string), ("namespace", string), ("labels", labels), ("finalizers", finalizers)]));
    let container = add(of(&[("name", string), ("image", string)]));
    let containers = add(Shape::List { item: container, merge: ListType::Map(Box::from(["name".to_owned()])) });
    let spec = add(of(&[("replicas", integer), ("containers", containers)]));
    let root = add(of(&[("apiVersion", string), ("kind", string), ("metadata", metadata), ("spec", spec)]));
    (table, root)
}

fn writer(manager: &str) -> Writer<'_> {
    Writer { manager, api_version: "v1", subresource: "", now: "2024-01-01T00:00:00Z" }
}

fn config(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "X", "metadata": {"name": "x"}, "spec": spec})
}

#[test]
fn an_update_owns_what_it_changes() {
    let (table, root) = table();
    let schema = table.get(root);
    let mut object = config(json!({"replicas": 1, "containers": [{"name": "a", "image": "i"}]}));
    update(None, &mut object, &writer("kubectl-create"), schema).expect("create");
    let fields = &object["metadata"]["managedFields"][0]["fieldsV1"];
    assert_eq!(
        *fields,
        json!({"f:spec": {"f:replicas": {}, "f:containers": {".": {}, "k:{\"name\":\"a\"}": {".": {}, "f:name": {}, "f:image": {}}}}})
    );
    let mut scaled = object.clone();
    scaled["spec"]["replicas"] = json!(2);
    update(Some(&object), &mut scaled, &writer("other"), schema).expect("update");
    let entries = scaled["metadata"]["managedFields"].as_array().expect("entries");
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[1]["manager"], "other");
    assert_eq!(entries[1]["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
    assert!(entries[0]["fieldsV1"]["f:spec"].get("f:replicas").is_none());
}

#[test]
fn apply_removes_what_it_no_longer_wants() {
    let (table, root) = table();
    let schema = table.get(root);
    let first =
        config(json!({"replicas": 1, "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "j"}]}));
    let live = apply(None, &first, &writer("me"), false, schema).expect("create");
    let second = config(json!({"containers": [{"name": "a", "image": "i2"}]}));
    let live = apply(Some(&live), &second, &writer("me"), false, schema).expect("apply");
    assert_eq!(live["spec"], json!({"containers": [{"name": "a", "image": "i2"}]}));
}

#[test]
fn conflicts_name_the_other_manager() {
    let (table, root) = table();
    let schema = table.get(root);
    let live = apply(None, &config(json!({"replicas": 1})), &writer("one"), false, schema).expect("create");
    let wanted = config(json!({"replicas": 2}));
    let error = apply(Some(&live), &wanted, &writer("two"), false, schema).expect_err("conflict");
    assert_eq!(error.to_string(), "Apply failed with 1 conflict: conflict with \"one\": .spec.replicas");
    let forced = apply(Some(&live), &wanted, &writer("two"), true, schema).expect("forced");
    assert_eq!(forced["spec"]["replicas"], 2);
    assert_eq!(forced["metadata"]["managedFields"].as_array().map(Vec::len), Some(1));
    let shared = apply(Some(&forced), &wanted, &writer("three"), false, schema).expect("same value is shared");
    assert_eq!(shared["metadata"]["managedFields"].as_array().map(Vec::len), Some(2));
}

#[test]
fn unknown_fields_do_not_fit() {
    let (table, root) = table();
    let error = apply(None, &config(json!({"foo": 1})), &writer("me"), false, table.get(root)).expect_err("unfit");
    assert_eq!(error.code(), 500);
    assert!(error.to_string().ends_with(".spec.foo: field not declared in schema"), "{error}");
}
