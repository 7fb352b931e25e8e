use serde_json::{Value, json};

use super::*;

fn deployment(containers: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
           "spec": {"template": {"spec": {"containers": containers}}}})
}

#[test]
fn what_the_server_defaulted_is_no_difference() {
    let applied = deployment(json!([{"name": "a", "image": "x"}]));
    let live = deployment(json!([{"name": "a", "image": "x", "imagePullPolicy": "Always"}]));
    assert!(patch(&applied, &applied, &live).is_empty());
}

#[test]
fn only_what_was_applied_is_removed() {
    let original = deployment(json!([{"name": "a", "image": "x", "command": ["c"]}, {"name": "b", "image": "y"}]));
    let modified = deployment(json!([{"name": "a", "image": "z"}]));
    let live = deployment(json!([
        {"name": "a", "image": "x", "command": ["c"], "imagePullPolicy": "Always"},
        {"name": "b", "image": "y"}, {"name": "injected", "image": "s"},
    ]));
    let made = patch(&original, &modified, &live);
    assert_eq!(made.media_type, STRATEGIC);
    let spec = &made.body["spec"]["template"]["spec"];
    assert_eq!(spec["$setElementOrder/containers"], json!([{"name": "a"}]));
    assert_eq!(
        spec["containers"],
        json!([{"name": "a", "image": "z", "command": null}, {"name": "b", "$patch": "delete"}])
    );
}

#[test]
fn patches_lead_to_what_was_wanted() {
    let original = deployment(json!([{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]));
    let modified = deployment(json!([{"name": "b", "image": "y2"}, {"name": "c", "image": "z"}]));
    let made = patch(&original, &modified, &original);
    let schema = crate::print::declared::schema(&modified).expect("a built-in kind");
    let applied = machinery::patch::strategic::apply(&original, &made.body, schema).expect("a patch");
    assert_eq!(applied, modified);
}

#[test]
fn lists_of_scalars_and_retained_keys() {
    let schema = |finalizers: Value, strategy: Value| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"finalizers": finalizers},
               "spec": {"strategy": strategy}})
    };
    let original = schema(json!(["a", "b"]), json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}));
    let modified = schema(json!(["b", "c"]), json!({"type": "Recreate"}));
    let made = patch(&original, &modified, &original).body;
    assert_eq!(made["metadata"]["finalizers"], json!(["c"]));
    assert_eq!(made["metadata"]["$deleteFromPrimitiveList/finalizers"], json!(["a"]));
    assert_eq!(made["spec"]["strategy"]["$retainKeys"], json!(["type"]));
    assert_eq!(made["spec"]["strategy"]["rollingUpdate"], Value::Null);
}

#[test]
fn custom_resources_are_merged() {
    let object = |spec: Value| json!({"apiVersion": "x.io/v1", "kind": "Foo", "spec": spec});
    let made = patch(
        &object(json!({"a": 1, "b": {"c": 1}})),
        &object(json!({"a": 2, "b": {}})),
        &object(json!({"a": 1, "b": {"c": 1, "d": 1}, "e": 1})),
    );
    assert_eq!(made.media_type, MERGE);
    assert_eq!(made.body, json!({"spec": {"a": 2, "b": {"c": null}}}));
}
