use super::*;

fn kind(subresources: &[&str]) -> api::Kind {
    let gvk = GroupVersionKind::new("a.b.example.com", "v1", "Foo");
    let verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
    let sub = |name: &&str| api::Subresource {
        name: (*name).to_owned(),
        gvk: gvk.clone(),
        foreign: false,
        verbs: vec!["get".into()],
    };
    api::Kind {
        plural: "foos".into(),
        singular: "foo".into(),
        short_names: Vec::new(),
        categories: Vec::new(),
        namespaced: true,
        verbs: verbs.iter().map(|v| (*v).to_owned()).collect(),
        subresources: subresources.iter().map(sub).collect(),
        storage_version_hash: String::new(),
        gvk,
    }
}

#[test]
fn published_schemas_are_those_given_with_type_and_metadata() {
    let kind = kind(&["status", "scale"]);
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "required": ["a", "n"], "properties": {
            "a": {"type": "string", "default": "x", "description": "d"},
            "n": {"type": "string", "nullable": true},
            "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "description": "all"},
            "pod": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {}},
        }},
    }});
    let custom = Custom { kind: &kind, list_kind: "FooList", schema: &schema, selectable: &[".spec.a".to_owned()] };
    let part = custom.v3();
    let foo = &part.schemas["com.example.b.a.v1.Foo"];
    assert_eq!(foo["properties"]["spec"]["properties"]["a"], schema["properties"]["spec"]["properties"]["a"]);
    assert_eq!(foo["x-kubernetes-group-version-kind"][0]["kind"], "Foo");
    assert_eq!(foo["x-kubernetes-selectable-fields"], json!([{"fieldPath": ".spec.a"}]));
    assert_eq!(foo["properties"]["spec"]["properties"]["pod"]["required"], json!(["kind", "apiVersion"]));
    assert!(part.schemas.contains_key("com.example.b.a.v1.FooList"));
    let item = "/apis/a.b.example.com/v1/namespaces/{namespace}/foos/{name}";
    let patches = &part.paths[item]["patch"]["requestBody"]["content"];
    assert_eq!(patches.as_object().map(Map::len), Some(3));
    assert!(part.paths[&format!("{item}/scale")]["put"].is_object());

    let foo = &custom.v2().definitions["com.example.b.a.v1.Foo"];
    let spec = &foo["properties"]["spec"];
    assert_eq!(spec["required"], json!(["a"]));
    assert_eq!(spec["properties"]["a"], json!({"type": "string", "description": "d"}));
    assert_eq!(spec["properties"]["n"], json!({}));
    assert_eq!(spec["properties"]["any"], json!({"x-kubernetes-preserve-unknown-fields": true, "description": "all"}));
    let metadata = &spec["properties"]["pod"]["properties"]["metadata"];
    assert_eq!(metadata["$ref"], "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
}

#[test]
fn a_root_that_keeps_everything_publishes_no_properties_in_v2() {
    let kind = kind(&[]);
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"a": {}}});
    let custom = Custom { kind: &kind, list_kind: "FooList", schema: &schema, selectable: &[] };
    let foo = custom.v2().definitions["com.example.b.a.v1.Foo"].clone();
    let keys: Vec<&String> = foo.as_object().expect("object").keys().collect();
    assert_eq!(keys, ["type", "x-kubernetes-group-version-kind"]);
}
