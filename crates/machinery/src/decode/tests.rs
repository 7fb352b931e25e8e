use std::collections::HashMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::schema::{Field, ListType, Shape, Type, TypeId, TypeTable};

fn yaml(text: &str) -> Value {
    decode_yaml(text.as_bytes()).expect(text).0
}

#[test]
fn duplicates_are_found_with_their_path() {
    let (value, problems) = decode_json(br#"{"spec":{"a":1,"a":2,"l":[{"x":1,"x":1}]}}"#).expect("json");
    assert_eq!(value["spec"]["a"], 2);
    assert_eq!(problems.texts(), ["duplicate field \"spec.a\"", "duplicate field \"spec.l[0].x\""]);
}

#[test]
fn depth_is_bounded() {
    let deep = "[".repeat(100_000);
    assert!(decode_json(deep.as_bytes()).is_err());
    assert!(decode_yaml(deep.as_bytes()).is_err());
    let closed = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
    assert!(decode_json(closed.as_bytes()).is_err());
    assert!(decode_yaml(closed.as_bytes()).is_err());
    let block: String = (0..1000).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
    assert!(decode_yaml(block.as_bytes()).is_err());
}

#[test]
fn yaml_becomes_json() {
    assert_eq!(
        yaml("a: 1\nb:\n- x\n- 'true'\nc: true\nd: yes\ne: 0644\nf: 1.0\ng: 1.5\nh: ~\ni: 0x10\nj: \"0644\"\n"),
        json!({"a": 1, "b": ["x", "true"], "c": true, "d": true, "e": 420, "f": 1, "g": 1.5, "h": null, "i": 16, "j": "0644"})
    );
    assert_eq!(
        yaml("a: |\n  x\n  y\nb: 2024-01-01\nc: 1.2.3\nd: 1e3\ne: -5\nf: 089\ng: !!str 5"),
        json!({
            "a": "x\ny\n", "b": "2024-01-01", "c": "1.2.3", "d": 1000, "e": -5, "f": 89, "g": "5"
        })
    );
    assert_eq!(yaml("1: a\ntrue: b\n"), json!({"1": "a", "true": "b"}));
    assert_eq!(yaml(""), Value::Null);
    assert_eq!(yaml("---\na: 1\n---\nb: 2\n"), json!({"a": 1}));
    assert!(decode_yaml(b"a: [").is_err());
    assert!(decode_yaml(b"a: *nothing").is_err());
    assert!(decode_yaml(b"\xff\xfe").is_err());
}

#[test]
fn yaml_duplicates_name_their_line() {
    let (value, problems) = decode_yaml(b"spec:\n  foo: 1\n  bar: 2\n  foo: 3\n").expect("yaml");
    assert_eq!(value["spec"]["foo"], 3);
    assert_eq!(problems.texts(), ["line 4: key \"foo\" already set in map"]);
    assert_eq!(
        problems.strict_text().as_deref(),
        Some("yaml: unmarshal errors:\n  line 4: key \"foo\" already set in map")
    );
}

#[test]
fn aliases_are_copied_within_bounds() {
    assert_eq!(
        yaml("a: &x {k: 1}\nb: *x\nc:\n  <<: *x\n  l: 2\n"),
        json!({
            "a": {"k": 1}, "b": {"k": 1}, "c": {"k": 1, "l": 2}
        })
    );
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for n in 1..12 {
        let refs = vec![format!("*a{}", n - 1); 9].join(", ");
        laughs.push_str(&format!("a{n}: &a{n} [{refs}]\n"));
    }
    let error = decode_yaml(laughs.as_bytes()).expect_err("too large");
    assert!(error.to_string().ends_with("document contains excessive aliasing"), "{error}");
}

/// spec{replicas, names[], labels{}, size, at, data, items[{port}]}
fn table() -> (TypeTable, TypeId) {
    let mut table = TypeTable::default();
    let mut add = |name: &str, shape| table.add(Type { name: name.into(), shape, atomic: false, rest: None });
    let fact = |type_id, required| Field { required, ..Field::new(type_id) };
    let of = |fields: &[(&str, TypeId)]| {
        Shape::Struct(fields.iter().map(|(n, t)| ((*n).to_owned(), fact(*t, false))).collect::<HashMap<_, _>>())
    };
    let string = add("", Shape::String);
    let integer = add("", Shape::Integer(32));
    let quantity = add("", Shape::Quantity);
    let time = add("", Shape::Time);
    let bytes = add("", Shape::Bytes);
    let names = add("", Shape::List { item: string, merge: ListType::Atomic });
    let labels = add("", Shape::Map { value: string });
    let port = add("io.k8s.api.core.v1.Port", of(&[("port", integer)]));
    let items = add("", Shape::List { item: port, merge: ListType::Atomic });
    let spec = add(
        "io.k8s.api.core.v1.ThingSpec",
        of(&[
            ("replicas", integer),
            ("names", names),
            ("labels", labels),
            ("size", quantity),
            ("at", time),
            ("data", bytes),
            ("items", items),
        ]),
    );
    let root = add("io.k8s.api.core.v1.Thing", of(&[("spec", spec)]));
    (table, root)
}

fn checked(mut value: Value) -> (Value, FieldProblems) {
    let (table, root) = table();
    let problems = check_fields(&mut value, table.get(root));
    (value, problems)
}

#[test]
fn values_are_pruned_and_normalised() {
    let (value, problems) = checked(json!({"foo": 1, "spec": {
        "replicas": null, "names": [], "labels": {"a": null}, "size": "1024Ki", "at": "2024-01-02T03:04:05.6+01:00",
        "items": [null, {"port": 1, "bar": 2}]
    }}));
    assert_eq!(problems.texts(), ["unknown field \"foo\"", "unknown field \"spec.items[1].bar\""]);
    assert_eq!(problems.type_error(), None);
    assert_eq!(
        value,
        json!({"spec": {"labels": {"a": ""}, "size": "1Mi", "at": "2024-01-02T02:04:05Z", "items": [{}, {"port": 1}]}})
    );
}

#[test]
fn type_errors_are_gos() {
    for (spec, want) in [
        (
            json!({"replicas": "x"}),
            "json: cannot unmarshal string into Go struct field ThingSpec.spec.replicas of type int32",
        ),
        (
            json!({"replicas": 1.5}),
            "json: cannot unmarshal number 1.5 into Go struct field ThingSpec.spec.replicas of type int32",
        ),
        (
            json!({"names": "x"}),
            "json: cannot unmarshal string into Go struct field ThingSpec.spec.names of type []string",
        ),
        (
            json!({"labels": {"a": 1}}),
            "json: cannot unmarshal number into Go struct field ThingSpec.spec.labels of type string",
        ),
        (
            json!({"items": [{"port": true}]}),
            "json: cannot unmarshal bool into Go struct field Port.spec.items.port of type int32",
        ),
        (
            json!({"items": {}}),
            "json: cannot unmarshal object into Go struct field ThingSpec.spec.items of type []v1.Port",
        ),
        (json!([]), "json: cannot unmarshal array into Go struct field Thing.spec of type v1.ThingSpec"),
        (
            json!({"size": "x"}),
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (json!({"data": "a!"}), "illegal base64 data at input byte 1"),
    ] {
        assert_eq!(checked(json!({"spec": spec})).1.type_error(), Some(want));
    }
}

#[test]
fn problems_come_in_document_order() {
    let document = br#"{"zoo":1,"foo":2,"spec":{"zap":1,"bar":1},"ant":1}"#;
    let (mut value, mut problems) = decode_json(document).expect("json");
    let (table, root) = table();
    problems.append(check_fields(&mut value, table.get(root)));
    let ordered = problems.in_document_order(document);
    assert_eq!(
        ordered.strict_text().as_deref(),
        Some(
            "unknown field \"zoo\", unknown field \"foo\", unknown field \"spec.zap\", unknown field \"spec.bar\", \
             unknown field \"ant\""
        )
    );
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "[\\[\\]{}:,&*a<!\"' \n-]{0,60}") {
        drop(decode_json(&bytes));
        drop(decode_yaml(&bytes));
        drop(decode_yaml(text.as_bytes()));
        drop(crate::time::parse(&text));
    }
}
