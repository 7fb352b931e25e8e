use machinery::{field::Path, managed};
use serde_json::{Value, json};

use super::*;

fn compiled(schema: &Value) -> Schema {
    Schema::compile(schema)
}

fn errors(schema: &Value, object: &Value) -> Vec<String> {
    texts(validate(object, None, &compiled(schema)))
}

fn texts(errors: machinery::field::ErrorList) -> Vec<String> {
    errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect()
}

fn object(properties: Value) -> Value {
    json!({"type": "object", "properties": properties})
}

#[test]
fn unknown_fields_are_removed() {
    let schema = object(json!({
        "spec": object(json!({
            "a": {"type": "string"},
            "list": {"type": "array", "items": object(json!({"x": {"type": "integer"}}))},
            "map": {"type": "object", "additionalProperties": object(json!({"x": {"type": "integer"}}))},
            "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                     "properties": {"known": object(json!({"x": {"type": "integer"}}))}},
            "pod": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}},
        })),
    }));
    let mut value = json!({"apiVersion": "v", "kind": "k", "metadata": {"name": "n"}, "extra": 1, "spec": {
        "a": "b", "b": 1, "list": [{"x": 1, "y": 2}], "map": {"k": {"x": 1, "z": 1}},
        "open": {"any": {"thing": 1}, "known": {"x": 1, "y": 1}},
        "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": {}}, "spec": {"q": 1}, "other": 1},
    }});
    let mut removed = prune(&mut value, &compiled(&schema));
    removed.sort();
    assert_eq!(
        removed,
        ["extra", "spec.b", "spec.list[0].y", "spec.map.k.z", "spec.open.known.y", "spec.pod.other", "spec.pod.spec.q"]
    );
    assert_eq!(value["spec"]["open"]["any"], json!({"thing": 1}));
    assert_eq!(value["spec"]["pod"]["metadata"], json!({"labels": {}}));
}

#[test]
fn defaults_and_nulls() {
    let schema = object(json!({"spec": object(json!({
        "a": {"type": "string", "default": "x"},
        "b": object(json!({"c": {"type": "integer", "default": 3}})),
        "n": {"type": "string", "nullable": true, "default": "y"},
        "z": {"type": "string"},
        "l": {"type": "array", "items": object(json!({"d": {"type": "boolean", "default": true}}))},
    }))}));
    let schema = compiled(&schema);
    let mut value = json!({"spec": {"a": null, "b": {}, "n": null, "z": null, "l": [{}, {"d": false}]}});
    apply_defaults(&mut value, &schema);
    drop_nulls(&mut value, &schema);
    assert_eq!(value, json!({"spec": {"a": "x", "b": {"c": 3}, "n": null, "l": [{"d": true}, {"d": false}]}}));
}

#[test]
fn values_are_checked_with_upstreams_texts() {
    let cases = [
        (
            json!({"type": "integer"}),
            json!("a"),
            "Invalid value: \"string\": x in body must be of type integer: \"string\"",
        ),
        (json!({"type": "string"}), json!(null), "Invalid value: \"null\": x in body must be of type string: \"null\""),
        (
            json!({"type": "integer", "minimum": 1}),
            json!(0),
            "Invalid value: 0: x in body should be greater than or equal to 1",
        ),
        (
            json!({"type": "number", "maximum": 2.5, "exclusiveMaximum": true}),
            json!(2.5),
            "Invalid value: 2.5: x in body should be less than 2.5",
        ),
        (
            json!({"type": "string", "enum": ["a", "b"]}),
            json!("c"),
            "Unsupported value: \"c\": supported values: \"a\", \"b\"",
        ),
        (
            json!({"type": "string", "pattern": "^a+$"}),
            json!("b"),
            "Invalid value: \"b\": x in body should match '^a+$'",
        ),
        (json!({"type": "string", "maxLength": 1}), json!("bb"), "Too long: may not be more than 1 byte"),
        (
            json!({"type": "string", "minLength": 2}),
            json!("b"),
            "Invalid value: \"b\": x in body should be at least 2 chars long",
        ),
        (
            json!({"type": "string", "format": "ipv4"}),
            json!("b"),
            "Invalid value: \"b\": x in body must be of type ipv4: \"b\"",
        ),
        (
            json!({"type": "array", "maxItems": 1, "items": {"type": "integer"}}),
            json!([1, 2]),
            "Too many: 2: must have at most 1 item",
        ),
        (
            json!({"x-kubernetes-int-or-string": true}),
            json!(true),
            "Invalid value: \"boolean\": x in body must be of type integer,string: \"boolean\"",
        ),
    ];
    for (schema, value, text) in cases {
        let found = errors(&object(json!({"x": schema})), &json!({"x": value}));
        assert_eq!(found, [format!("x: {text}")], "{schema} {value}");
    }
    assert!(errors(&object(json!({"x": {"type": "integer"}})), &json!({"x": 1.0})).is_empty());
    let required = json!({"type": "object", "required": ["x"], "properties": {"x": {"type": "string"}}});
    assert_eq!(errors(&object(json!({"spec": required})), &json!({"spec": {}})), ["spec.x: Required value"]);
}

#[test]
fn alternatives() {
    let with = |key: &str, list: Value| {
        let mut schema = object(json!({"a": {"type": "string"}, "b": {"type": "string"}}));
        schema[key] = list;
        object(json!({"spec": schema}))
    };
    let either = json!([{"required": ["a"]}, {"required": ["b"]}]);
    let none = errors(&with("oneOf", either.clone()), &json!({"spec": {}}));
    assert_eq!(
        none[0],
        "<nil>: Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found none valid"
    );
    assert_eq!(none[1], "spec.a: Required value");
    let both = errors(&with("oneOf", either.clone()), &json!({"spec": {"a": "", "b": ""}}));
    assert!(both[0].ends_with("Found 2 valid alternatives"), "{both:?}");
    assert!(errors(&with("anyOf", either.clone()), &json!({"spec": {"b": ""}})).is_empty());
    assert_eq!(errors(&with("allOf", either), &json!({"spec": {"b": ""}})).len(), 2);
    let not = errors(&with("not", json!({"required": ["a"]})), &json!({"spec": {"a": ""}}));
    assert_eq!(not, ["<nil>: Invalid value: \"\": \"spec\" must not validate the schema (not)"]);
}

#[test]
fn lists_hold_each_item_once() {
    let schema = object(json!({
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": object(json!({"name": {"type": "string"}}))},
    }));
    let value = json!({"set": ["a", "b", "a"], "map": [{"name": "x"}, {"name": "x"}]});
    let mut found = errors(&schema, &value);
    found.sort();
    assert_eq!(found, ["map[1]: Duplicate value: {\"name\":\"x\"}", "set[2]: Duplicate value: \"a\""]);
}

#[test]
fn what_did_not_change_is_not_checked_again() {
    let schema = compiled(&object(json!({
        "a": {"type": "string", "maxLength": 1},
        "b": {"type": "string", "maxLength": 1},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
    })));
    let old = json!({"a": "long", "b": "x", "set": ["d", "d"]});
    let new = json!({"a": "long", "b": "also", "set": ["d", "d", "e"]});
    assert_eq!(texts(validate(&new, Some(&old), &schema)), ["b: Too long: may not be more than 1 byte"]);
}

#[test]
fn schemas_that_are_not_structural() {
    let cases = [
        (json!({}), "s.type: Required value: must not be empty at the root"),
        (json!({"type": "string"}), "s.type: Invalid value: \"string\": must be object at the root"),
        (
            object(json!({"a": {}})),
            "s.properties[a].type: Required value: must not be empty for specified object fields",
        ),
        (
            object(json!({"a": {"type": "array", "items": {}}})),
            "s.properties[a].items.type: Required value: must not be empty for specified array items",
        ),
        (
            object(json!({"a": {"type": "string", "$ref": "#"}})),
            "s.properties[a].$ref: Forbidden: $ref is not supported",
        ),
        (
            object(json!({"a": {"type": "array", "uniqueItems": true, "items": {"type": "string"}}})),
            "s.properties[a].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity \
             becomes quadratic",
        ),
        (
            object(json!({"a": {"type": "string", "anyOf": [{"type": "string"}]}})),
            "s.properties[a].anyOf[0].type: Forbidden: must be empty to be structural",
        ),
        (
            json!({"type": "object", "anyOf": [{"properties": {"x": {"minimum": 1}}}]}),
            "s.properties[x]: Required value: because it is defined in s.anyOf[0].properties[x]",
        ),
        (
            object(json!({"a": {"type": "string", "default": null}})),
            "s.properties[a].default: Invalid value: null: must not be null if nullable is false",
        ),
        (
            object(json!({"a": {"type": "array", "x-kubernetes-list-type": "map", "items": {"type": "object"}}})),
            "s.properties[a].x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map",
        ),
    ];
    for (schema, text) in cases {
        assert_eq!(texts(check::check(&schema, &Path::new("s"))), [text], "{schema}");
    }
    let fine = object(json!({
        "metadata": object(json!({"name": {"type": "string", "maxLength": 3}})),
        "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
        "n": {"type": "integer", "default": 3, "minimum": 1},
    }));
    assert!(check::check(&fine, &Path::new("s")).is_empty());
    let wrong = object(json!({"n": {"type": "integer", "default": 0, "minimum": 1}}));
    assert_eq!(check::check(&wrong, &Path::new("s")).len(), 1);
}

#[test]
fn metadata_is_typed() {
    let schema = compiled(&object(json!({"spec": object(json!({
        "pod": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
    }))})));
    let mut value =
        json!({"metadata": {"name": "a", "odd": 1}, "spec": {"pod": {"metadata": {"labels": {"a": "b"}, "bad": 1}}}});
    let problems = coerce(&mut value, &schema);
    assert_eq!(problems.texts(), ["unknown field \"metadata.odd\"", "unknown field \"spec.pod.metadata.bad\""]);
    assert_eq!(value["spec"]["pod"]["metadata"], json!({"labels": {"a": "b"}}));
    let mut value = json!({"metadata": {"labels": {"a": 1}}});
    assert!(coerce(&mut value, &schema).type_error().is_some());
    let missing = texts(embedded_errors(&json!({"spec": {"pod": {"kind": "Pod"}}}), &schema));
    assert_eq!(missing, ["spec.pod.apiVersion: Required value: must not be empty"]);
}

#[test]
fn types_merge_as_the_schema_says() {
    let schema = compiled(&object(json!({"spec": {
        "type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
            "items": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": object(json!({"name": {"type": "string"}, "v": {"type": "integer"}}))},
        },
    }})));
    let (table, root) = type_table(&schema);
    let writer = managed::Writer { manager: "m", api_version: "g/v1", subresource: "", now: "2024-01-01T00:00:00Z" };
    let config = json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "n"}, "spec": {
        "items": [{"name": "a", "v": 1}], "free": {"x": [1, 2]}}});
    let object = managed::apply(None, &config, &writer, false, table.get(root)).expect("applied");
    let fields = &object["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"];
    assert!(fields["f:items"]["k:{\"name\":\"a\"}"]["f:v"].is_object(), "{fields}");
    assert_eq!(fields["f:free"]["f:x"], json!({}));
    let unknown = json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "n", "odd": 1}, "other": 1});
    let error = managed::apply(None, &unknown, &writer, false, table.get(root)).expect_err("refused");
    assert!(error.to_string().contains(".metadata.odd: field not declared in schema"), "{error}");
}
