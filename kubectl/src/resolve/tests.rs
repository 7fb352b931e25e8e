use super::files::{Manifest, decode, documents};

fn kinds(text: &str) -> Vec<String> {
    let mut all: Vec<Manifest> = Vec::new();
    decode(text.as_bytes(), "f", &mut all).expect("manifests");
    all.iter().filter_map(|m| m.object["kind"].as_str().map(str::to_owned)).collect()
}

#[test]
fn documents_and_lists_are_taken_apart() {
    assert_eq!(
        kinds(
            "# c\n---\nkind: A\napiVersion: v1\n---\nkind: List\napiVersion: v1\nitems:\n- {kind: B, apiVersion: v1}\n"
        ),
        ["A", "B"]
    );
    assert_eq!(kinds(r#"{"kind": "A", "apiVersion": "v1"} {"kind": "B", "apiVersion": "v1"}"#), ["A", "B"]);
    assert!(documents(b"---\n# nothing\n---\n", "f").expect("documents").is_empty());
}

#[test]
fn what_is_no_object_is_refused() {
    let mut all = Vec::new();
    let error = decode(b"a: 1\n", "f", &mut all).expect_err("no kind").to_string();
    assert!(error.starts_with("error validating \"f\": error validating data: [apiVersion not set, kind not set];"));
    let labels = b"kind: A\napiVersion: v1\nmetadata: {labels: {x: 1}}\n";
    assert!(decode(labels, "f", &mut all).expect_err("number").to_string().contains("cannot unmarshal number"));
}
