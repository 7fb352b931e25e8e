use std::collections::HashMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::schema::{Field, ListType, Shape, Type, TypeId, TypeTable};

/// metadata{labels, finalizers(set)}, spec{replicas, containers[name]{name, image}}.
fn table() -> (TypeTable, TypeId) {
    let mut table = TypeTable::default();
    let mut add = |shape| table.add(Type { name: String::new(), shape, atomic: false, rest: None });
    let string = add(Shape::String);
    let integer = add(Shape::Integer(32));
    let labels = add(Shape::Map { value: string });
    let finalizers = add(Shape::List { item: string, merge: ListType::Set });
    let of = |fields: &[(&str, TypeId)]| {
        Shape::Struct(fields.iter().map(|(n, t)| ((*n).to_owned(), Field::new(*t))).collect::<HashMap<_, _>>())
    };
    let metadata = add(of(&[
        ("name", string),
        ("namespace", string),
        ("labels", labels),
        ("annotations", labels),
        ("finalizers", finalizers),
    ]));
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

#[test]
fn untracked_objects_stay_so_until_the_first_apply() {
    let (table, root) = table();
    let schema = table.get(root);
    let mut object = config(json!({"replicas": 1}));
    update(None, &mut object, &writer("a"), schema).expect("create");
    let mut cleared = object.clone();
    cleared["metadata"]["managedFields"] = json!([{}]);
    update(Some(&object), &mut cleared, &writer("a"), schema).expect("clear");
    assert!(cleared["metadata"].get("managedFields").is_none());
    let mut changed = cleared.clone();
    changed["spec"]["replicas"] = json!(2);
    update(Some(&cleared), &mut changed, &writer("a"), schema).expect("update");
    assert!(changed["metadata"].get("managedFields").is_none());
    let applied = apply(Some(&changed), &config(json!({"replicas": 2})), &writer("me"), false, schema).expect("apply");
    let entries = applied["metadata"]["managedFields"].as_array().expect("entries");
    assert_eq!(
        (entries[0]["manager"].as_str(), entries[1]["manager"].as_str()),
        (Some("me"), Some("before-first-apply"))
    );
}

#[test]
fn many_conflicts_are_grouped_and_sorted() {
    let (table, root) = table();
    let schema = table.get(root);
    let mut object = config(json!({"replicas": 1, "containers": [{"name": "a", "image": "i"}]}));
    update(None, &mut object, &writer("z"), schema).expect("create");
    let first = config(json!({"replicas": 1}));
    let live =
        apply(Some(&object), &first, &Writer { subresource: "scale", ..writer("b") }, false, schema).expect("apply");
    let wanted = config(json!({"replicas": 2, "containers": [{"name": "a", "image": "j"}]}));
    let error = apply(Some(&live), &wanted, &writer("me"), false, schema).expect_err("conflict");
    assert_eq!(
        error.to_string(),
        "Apply failed with 3 conflicts: conflicts with \"b\" with subresource \"scale\":\n- .spec.replicas\nconflicts \
         with \"z\" using v1 at 2024-01-01T00:00:00Z:\n- .spec.containers[name=\"a\"].image\n- .spec.replicas"
    );
    let causes = &error.status().details.as_ref().expect("details").causes;
    assert_eq!(causes[1].field, ".spec.containers[name=\"a\"].image");
    assert_eq!(causes[1].message, "conflict with \"z\" using v1 at 2024-01-01T00:00:00Z");
}

#[test]
fn items_of_others_survive_and_order_follows_the_configuration() {
    let (table, root) = table();
    let schema = table.get(root);
    let item = |name: &str| json!({"name": name, "image": "i"});
    let mine = config(json!({"containers": [item("a"), item("b")]}));
    let live = apply(None, &mine, &writer("me"), false, schema).expect("create");
    let theirs = config(json!({"containers": [item("c"), item("b")]}));
    let live = apply(Some(&live), &theirs, &writer("them"), false, schema).expect("apply");
    let names = |object: &Value| -> Vec<String> {
        let list = object["spec"]["containers"].as_array().into_iter().flatten();
        list.filter_map(|c| c["name"].as_str().map(str::to_owned)).collect()
    };
    assert_eq!(names(&live), ["a", "c", "b"]);
    let live =
        apply(Some(&live), &config(json!({"containers": [item("a")]})), &writer("me"), false, schema).expect("apply");
    assert_eq!(names(&live), ["a", "c", "b"]);
    let live = apply(Some(&live), &config(json!({})), &writer("them"), false, schema).expect("apply");
    assert_eq!(names(&live), ["a"]);
    assert_eq!(live["metadata"]["name"], "x");
}

#[test]
fn a_pruned_struct_goes_with_its_unowned_parts() {
    let (table, root) = table();
    let schema = table.get(root);
    let labelled = json!({"apiVersion": "v1", "kind": "X", "metadata": {"name": "x", "labels": {"a": "1"}}});
    let live = apply(None, &labelled, &writer("me"), false, schema).expect("create");
    let bare = json!({"apiVersion": "v1", "kind": "X", "metadata": {"name": "x"}});
    let live = apply(Some(&live), &bare, &writer("me"), false, schema).expect("apply");
    assert!(live["metadata"].get("labels").is_none());
    assert!(live["metadata"].get("managedFields").is_none());
    assert_eq!(live["metadata"]["name"], "x");
}

#[test]
fn old_updaters_are_merged_per_version() {
    let (table, root) = table();
    let schema = table.get(root);
    let mut object = config(json!({"replicas": 0}));
    update(None, &mut object, &writer("m00"), schema).expect("create");
    for n in 1..15 {
        let mut next = object.clone();
        next["metadata"]["labels"][format!("l{n}")] = json!("x");
        let (manager, now) = (format!("m{n:02}"), format!("2024-01-01T00:00:{n:02}Z"));
        let writer = Writer { manager: &manager, now: &now, ..writer("") };
        update(Some(&object), &mut next, &writer, schema).expect("update");
        object = next;
    }
    let entries = object["metadata"]["managedFields"].as_array().expect("entries");
    assert_eq!(entries.len(), 10);
    assert_eq!(entries[0]["manager"], "ancient-changes");
    assert_eq!(entries[0]["time"], "2024-01-01T00:00:05Z");
}

#[test]
fn kubectl_takes_over_what_its_annotation_says() {
    let (table, root) = table();
    let schema = table.get(root);
    let last = r#"{"apiVersion":"v1","kind":"X","metadata":{"name":"x"},"spec":{"replicas":1}}"#;
    let mut object = config(json!({"replicas": 1}));
    object["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": last});
    update(None, &mut object, &writer("kubectl-client-side-apply"), schema).expect("create");
    let wanted = config(json!({"replicas": 2}));
    assert!(apply(Some(&object), &wanted, &writer("other"), false, schema).is_err());
    let live = apply(Some(&object), &wanted, &writer("kubectl"), false, schema).expect("silently forced");
    assert_eq!(live["spec"]["replicas"], 2);
    let text = live["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"].as_str();
    assert!(text.is_some_and(|t| t.contains("\"replicas\":2") && t.ends_with('\n')));
}

#[test]
fn endpoints_reset_the_other_half() {
    let whole = json!({"kind": "X", "metadata": {"name": "x"}, "spec": {"a": 1}, "status": {"b": 1}});
    let left = |has_status, subresource| {
        let mut config = whole.clone();
        reset_fields(&mut config, has_status, subresource);
        (config.get("spec").is_some(), config.get("status").is_some())
    };
    assert_eq!((left(true, ""), left(true, "status"), left(false, "")), ((true, false), (false, true), (true, true)));
}

#[test]
fn misfits_are_named() {
    let (table, root) = table();
    let schema = table.get(root);
    for (spec, want) in [
        (json!({"replicas": "x"}), ": .spec.replicas: expected numeric (int or float), got &{x}"),
        (
            json!({"containers": [{"image": "i"}]}),
            ": .spec.containers: element 0: associative list with keys has an element that omits key field \"name\" (and doesn't have default value)",
        ),
        (
            json!({"containers": [{"name": "a"}, {"name": "a"}]}),
            ": .spec.containers: duplicate entries for key [name=\"a\"]",
        ),
        (
            json!({"foo": 1, "bar": 1}),
            ": errors:\n  .spec.bar: field not declared in schema\n  .spec.foo: field not declared in schema",
        ),
    ] {
        let error = apply(None, &config(spec), &writer("me"), false, schema).expect_err("unfit");
        let text = error.to_string();
        assert!(text.starts_with("failed to create typed patch object (/x; v1, Kind=X)"), "{text}");
        assert!(text.ends_with(want), "{text}");
    }
}

proptest! {
    #[test]
    fn sets_obey_their_laws(a in any_set(), b in any_set()) {
        prop_assert_eq!(Set::parse(&a.to_fields()), Some(a.clone()));
        prop_assert_eq!(a.clone().union(&b), b.clone().union(&a));
        prop_assert!(a.difference(&a).is_empty());
        prop_assert_eq!(a.intersection(&b), b.intersection(&a));
        let rebuilt = a.difference(&b).union(&a.intersection(&b));
        prop_assert_eq!(rebuilt.paths(), a.paths());
    }

    #[test]
    fn applying_twice_changes_nothing(replicas in 0..5_i32, names in proptest::collection::btree_set("[a-d]", 0..4)) {
        let (table, root) = table();
        let containers: Vec<Value> = names.iter().map(|n| json!({"name": n})).collect();
        let config = config(json!({"replicas": replicas, "containers": containers}));
        let once = apply(None, &config, &writer("me"), false, table.get(root)).expect("create");
        let twice = apply(Some(&once), &config, &writer("me"), false, table.get(root)).expect("apply");
        prop_assert_eq!(once, twice);
    }
}

fn any_set() -> impl Strategy<Value = Set> {
    proptest::collection::vec(proptest::collection::vec("[a-c]", 1..4), 0..6).prop_map(|paths| {
        let mut set = Set::default();
        for path in paths {
            let mut at = &mut set;
            for element in path {
                at = at.children.entry(format!("f:{element}")).or_default();
            }
            at.member = true;
        }
        set
    })
}

#[test]
fn configurations_of_policies_are_merged_without_owners() {
    let (mut table, root) = table();
    let live = config(json!({"replicas": 1, "containers": [{"name": "a", "image": "1"}, {"name": "b"}]}));
    let wanted = json!({"metadata": {"labels": {"k": "v"}}, "spec": {"containers": [{"name": "a", "image": "2"}]}});
    let merged = merge_configuration(&live, &wanted, table.get(root)).expect("fits");
    let spec = json!({"replicas": 1, "containers": [{"name": "a", "image": "2"}, {"name": "b"}]});
    let mut expected = config(spec);
    expected["metadata"]["labels"] = json!({"k": "v"});
    assert_eq!(merged, expected);
    let unknown = json!({"spec": {"nothing": 1}});
    let error = merge_configuration(&live, &unknown, table.get(root)).expect_err("there is no such field");
    assert!(error.to_string().contains(".spec.nothing: field not declared in schema"), "{error}");

    let string = table.add(Type { name: String::new(), shape: Shape::String, atomic: false, rest: None });
    let args = Shape::List { item: string, merge: ListType::Atomic };
    let args = table.add(Type { name: String::new(), shape: args, atomic: false, rest: None });
    let holder = Shape::Struct(HashMap::from([("args".to_owned(), Field::new(args))]));
    let holder = table.add(Type { name: String::new(), shape: holder, atomic: false, rest: None });
    let error = merge_configuration(&json!({}), &json!({"args": ["x"]}), table.get(holder)).expect_err("a whole");
    let text = "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .args";
    assert_eq!(error.status().message, text);
}
