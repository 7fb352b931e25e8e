use serde_json::{Value, json};

use super::*;

fn definition(short: &[&str], status: Value) -> Definition {
    let object = json!({
        "metadata": {"name": "foos.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "versions": [],
            "names": {"plural": "foos", "singular": "foo", "kind": "Foo", "listKind": "FooList", "shortNames": short}},
        "status": status,
    });
    serde_json::from_value(object).expect("definition")
}

fn texts(verdict: &Verdict) -> Vec<String> {
    verdict.conditions.iter().map(|c| format!("{}={} {}: {}", c.kind, c.status, c.reason, c.message)).collect()
}

#[test]
fn free_names_are_accepted_and_then_established() {
    let fresh = definition(&["f"], json!({}));
    let verdict = decide(&fresh, &Taken::default(), false);
    assert_eq!(verdict.names, fresh.spec.names);
    assert_eq!(
        texts(&verdict),
        [
            "NamesAccepted=True NoConflicts: no conflicts found",
            "Established=False Installing: the initial names have been accepted",
        ]
    );
    let served = decide(&fresh, &Taken::default(), true);
    assert_eq!(texts(&served)[1], "Established=True InitialNamesAccepted: the initial names have been accepted");
}

#[test]
fn taken_names_are_told() {
    let other = Names {
        plural: "bars".into(),
        singular: "bar".into(),
        short_names: vec!["f".into()],
        kind: "Foo".into(),
        list_kind: "BarList".into(),
        ..Names::default()
    };
    let verdict = decide(&definition(&["f"], json!({})), &Taken::by([&other]), true);
    assert!(!verdict.accepts());
    assert_eq!(
        texts(&verdict),
        [
            "NamesAccepted=False KindConflict: \"Foo\" is already in use",
            "Established=False NotAccepted: not all names are accepted",
        ]
    );
    assert_eq!((verdict.names.plural.as_str(), verdict.names.kind.as_str()), ("foos", ""));
}

#[test]
fn what_is_established_stays_so() {
    let condition = json!({"type": "Established", "status": "True", "reason": "InitialNamesAccepted", "message": "m"});
    let names = json!({"plural": "foos", "singular": "foo", "kind": "Foo", "listKind": "FooList"});
    let old = definition(&["f"], json!({"conditions": [condition], "acceptedNames": names}));
    let other = Names { short_names: vec!["f".into()], ..Names::default() };
    let verdict = decide(&old, &Taken::by([&other]), false);
    assert_eq!(texts(&verdict)[0], "NamesAccepted=False ShortNamesConflict: \"f\" is already in use");
    assert_eq!(verdict.conditions[1].status, "True");
    assert!(verdict.names.short_names.is_empty());
}
