use super::*;

fn answer(response: Value) -> Value {
    json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1", "response": response})
}

#[test]
fn answers_are_taken_only_if_they_belong_to_the_question() {
    let v1 = "apiextensions.k8s.io/v1";
    let cases = [
        (json!({"uid": "u", "result": {"status": "Success"}, "convertedObjects": [1, 2]}), Ok(2)),
        (json!({"uid": "x", "result": {"status": "Success"}}), Err("expected response.uid=\"u\", got \"x\"")),
        (json!({"uid": "u", "result": {"status": "Failure", "message": "no"}}), Err("no")),
        (json!({"uid": "u", "result": {}}), Err("response.result.status was '', not 'Success'")),
        (json!(null), Err("no response provided")),
    ];
    for (response, wanted) in cases {
        let found = converted_objects(&mut answer(response.clone()), v1, "u").map(|o| o.len());
        assert_eq!(found, wanted.map_err(str::to_owned), "{response}");
    }
    let mut other = json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1beta1"});
    assert!(converted_objects(&mut other, v1, "u").is_err_and(|e| e.starts_with("expected webhook response of")));
}

#[test]
fn metadata_stays_but_for_labels_and_annotations() {
    let original = json!({"apiVersion": "g.io/v1", "kind": "K",
        "metadata": {"name": "a", "uid": "u", "generation": 3, "labels": {"x": "y"}}});
    let to = GroupVersion::new("g.io", "v2");
    let converted = json!({"apiVersion": "g.io/v2", "kind": "K", "spec": {},
        "metadata": {"name": "a", "uid": "u", "generation": 9, "annotations": {"n": "m"}}});
    let kept = checked(&original, converted.clone(), &to).expect("valid");
    assert_eq!(kept["metadata"], json!({"name": "a", "uid": "u", "generation": 3, "annotations": {"n": "m"}}));
    for (pointer, value, text) in [
        ("/metadata/name", json!("b"), "must have the same name: b != a"),
        ("/kind", json!("L"), "must have the same kind: L != K"),
        ("/apiVersion", json!("g.io/v1"), "invalid groupVersion (expected g.io/v2, received g.io/v1)"),
    ] {
        let mut wrong = converted.clone();
        *wrong.pointer_mut(pointer).expect("field") = value;
        assert_eq!(checked(&original, wrong, &to), Err(text.to_owned()));
    }
}
