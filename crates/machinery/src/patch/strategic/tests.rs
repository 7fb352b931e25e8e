use std::collections::HashMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::schema::{Field, ListType, Type, TypeId, TypeTable};

fn fact(type_id: TypeId, merge_key: Option<&str>, patch_merge: bool) -> Field {
    Field {
        type_id,
        required: false,
        default: None,
        patch_merge,
        retain_keys: false,
        merge_key: merge_key.map(str::to_owned),
        protobuf: 0,
    }
}

/// items[name]{name, value, tags[]}, finalizers (merged scalars), args (replaced), labels{}, spec{…} nested.
fn table() -> (TypeTable, TypeId) {
    let mut table = TypeTable::default();
    let mut add = |shape| table.add(Type { name: String::new(), shape, atomic: false, rest: None });
    let string = add(Shape::String);
    let strings = add(Shape::List { item: string, merge: ListType::Atomic });
    let labels = add(Shape::Map { value: string });
    let item = add(Shape::Struct(HashMap::from([
        ("name".into(), fact(string, None, false)),
        ("value".into(), fact(string, None, false)),
        ("tags".into(), fact(strings, None, false)),
    ])));
    let items = add(Shape::List { item, merge: ListType::Atomic });
    let spec = add(Shape::Struct(HashMap::from([
        ("items".into(), fact(items, Some("name"), true)),
        ("finalizers".into(), fact(strings, None, true)),
        ("args".into(), fact(strings, None, false)),
        ("labels".into(), fact(labels, None, false)),
    ])));
    let root = add(Shape::Struct(HashMap::from([("spec".into(), fact(spec, None, false))])));
    (table, root)
}

fn patched(current: Value, patch: Value) -> ApiResult<Value> {
    let (table, root) = table();
    let outcome = apply(&json!({"spec": current}), &json!({"spec": patch}), table.get(root))?;
    Ok(outcome["spec"].clone())
}

fn named(names: &[&str]) -> Value {
    names.iter().map(|n| json!({"name": n})).collect()
}

#[test]
fn lists_merge_by_key_and_keep_order() {
    for (current, patch, want) in [
        (
            json!({"items": [{"name": "a", "value": "1"}, {"name": "b"}]}),
            json!({"items": [{"name": "b", "value": "2"}, {"name": "c"}]}),
            json!({"items": [{"name": "a", "value": "1"}, {"name": "b", "value": "2"}, {"name": "c"}]}),
        ),
        (
            json!({"items": named(&["a", "b", "c"])}),
            json!({"items": [{"name": "b", "$patch": "delete"}]}),
            json!({"items": named(&["a", "c"])}),
        ),
        (
            json!({"items": [{"name": "a", "value": "1", "tags": ["x"]}]}),
            json!({"items": [{"name": "a", "$patch": "replace", "value": "2"}]}),
            json!({"items": [{"name": "a", "value": "2"}]}),
        ),
        (
            json!({"items": named(&["a", "b"])}),
            json!({"items": [{"$patch": "replace"}, {"name": "c"}]}),
            json!({"items": named(&["c"])}),
        ),
        (
            json!({"items": named(&["a", "b", "c", "d"])}),
            json!({"$setElementOrder/items": named(&["c", "a"])}),
            json!({"items": named(&["b", "c", "a", "d"])}),
        ),
        (
            json!({"items": named(&["a", "b"])}),
            json!({"$setElementOrder/items": named(&["new", "b", "a"]), "items": named(&["new"])}),
            json!({"items": named(&["new", "b", "a"])}),
        ),
        (json!({"finalizers": ["a", "b"]}), json!({"finalizers": ["c", "a"]}), json!({"finalizers": ["b", "c", "a"]})),
        (
            json!({"finalizers": ["a", "b"]}),
            json!({"$deleteFromPrimitiveList/finalizers": ["a"]}),
            json!({"finalizers": ["b"]}),
        ),
        (json!({"args": ["a", "b"]}), json!({"args": ["c"]}), json!({"args": ["c"]})),
        (json!({"labels": {"a": "1", "b": "2"}}), json!({"labels": {"a": null}}), json!({"labels": {"b": "2"}})),
        (
            json!({"labels": {"a": "1"}}),
            json!({"labels": {"$patch": "replace", "b": "2"}}),
            json!({"labels": {"b": "2"}}),
        ),
        (
            json!({"labels": {"a": "1"}, "args": []}),
            json!({"labels": {"$patch": "delete"}}),
            json!({"labels": {}, "args": []}),
        ),
        (
            json!({"labels": {"a": "1", "b": "2"}}),
            json!({"labels": {"$retainKeys": ["a", "c"], "c": "3"}}),
            json!({"labels": {"a": "1", "c": "3"}}),
        ),
        (json!({}), json!({"labels": {"a": null, "b": "1"}}), json!({"labels": {"b": "1"}})),
        (
            json!({}),
            json!({"items": [{"name": "a", "value": null, "tags": ["x"]}]}),
            json!({"items": [{"name": "a", "tags": ["x"]}]}),
        ),
    ] {
        assert_eq!(patched(current.clone(), patch.clone()).expect("patched"), want, "{current} + {patch}");
    }
}

#[test]
fn bad_patches_are_refused() {
    for (patch, code, text) in [
        (json!({"items": [{"value": "1"}]}), 500, "map: map[value:1] does not contain declared merge key: name"),
        (json!({"labels": {"$retainKeys": ["a"], "b": "1"}}), 422, "patch content doesn't match retainKeys list"),
        (json!({"$deleteFromPrimitiveList/finalizers": "a"}), 400, "invalid patch format of primitive list"),
        (json!({"$setElementOrder/items": 1}), 400, "invalid patch format of setElementOrder list"),
        (json!({"labels": {"$patch": "nonsense"}}), 400, "unknown patch type found: nonsense"),
    ] {
        let error = patched(json!({"items": [], "finalizers": ["a"]}), patch).expect_err("refused");
        assert_eq!((error.code(), error.to_string()), (code, text.to_owned()));
    }
}

proptest! {
    #[test]
    fn merged_lists_hold_both_sides_once(
        old in proptest::collection::btree_set("[a-f]", 0..6),
        new in proptest::collection::btree_set("[a-f]", 0..6),
    ) {
        let list = |set: &std::collections::BTreeSet<String>| named(&set.iter().map(String::as_str).collect::<Vec<_>>());
        let merged = patched(json!({"items": list(&old)}), json!({"items": list(&new)})).expect("patched");
        let mut names: Vec<&str> =
            merged["items"].as_array().into_iter().flatten().filter_map(|i| i["name"].as_str()).collect();
        names.sort_unstable();
        let want: Vec<&str> = old.union(&new).map(String::as_str).collect();
        prop_assert_eq!(names, want);
    }
}
