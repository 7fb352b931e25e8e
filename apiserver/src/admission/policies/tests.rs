use serde_json::json;

use super::{
    definitions::{Binding, Form, MutatingPolicy, ValidatingPolicy},
    validating::Notes,
};

#[test]
fn policies_are_compiled_when_they_are_read() {
    let policy: ValidatingPolicy = serde_json::from_value(json!({
        "metadata": {"name": "p"},
        "spec": {
            "failurePolicy": "Ignore",
            "paramKind": {"apiVersion": "rules.example.com/v1", "kind": "Limit"},
            "matchConstraints": {"resourceRules": [{"operations": ["CREATE"], "apiGroups": ["apps"],
                "apiVersions": ["v1"], "resources": ["deployments"]}]},
            "variables": [{"name": "n", "expression": "object.spec.replicas"}],
            "validations": [
                {"expression": "variables.n <= params.max", "reason": "Forbidden", "messageExpression": "'at most ' + string(params.max)"},
                {"expression": "variables.m == 1"},
            ],
            "auditAnnotations": [{"key": "k", "valueExpression": "null"}],
        },
    }))
    .expect("a policy");
    assert_eq!(
        policy.policy.param_kind.as_ref().map(ToString::to_string).as_deref(),
        Some("rules.example.com/v1, Kind=Limit")
    );
    assert!(policy.policy.fails_open && policy.policy.fault.is_none());
    assert!(policy.validations[0].expression.program.is_ok() && policy.validations[0].message_expression.is_some());
    assert!(policy.validations[1].expression.program.is_err(), "there is no such variable");
    assert!(policy.policy.constraints.criteria().rules.is_some_and(|rules| rules.len() == 1));
    let broken = json!({"metadata": {"name": "p"}, "spec": {"variables": [{"name": "x", "expression": "1 +"}]}});
    let broken: ValidatingPolicy = serde_json::from_value(broken).expect("a policy");
    assert!(broken.policy.fault.is_some_and(|why| why.starts_with("composited variable \"x\" fails to compile: ")));
}

#[test]
fn mutations_say_how_they_are_written() {
    let policy: MutatingPolicy = serde_json::from_value(json!({
        "metadata": {"name": "p"},
        "spec": {"reinvocationPolicy": "IfNeeded", "mutations": [
            {"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 'remove', path: '/a'}]"}},
            {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{}"}},
        ]},
    }))
    .expect("a policy");
    assert!(policy.wants_again);
    let forms: Vec<_> = policy.mutations.iter().map(|one| (one.form, one.expression.program.is_ok())).collect();
    assert_eq!(forms, [(Form::JsonPatch, true), (Form::ApplyConfiguration, true)]);
}

#[test]
fn bindings_are_read() {
    let binding: Binding = serde_json::from_value(json!({
        "metadata": {"name": "b"},
        "spec": {"policyName": "p", "validationActions": ["Deny"], "paramRef": {"selector": {}, "parameterNotFoundAction": "Deny"}},
    }))
    .expect("a binding");
    let reference = binding.spec.param_ref.expect("a reference");
    assert!(reference.name.is_empty() && reference.selector.is_some_and(|selector| selector.is_everything()));
    assert!(binding.spec.match_resources.is_none());
}

#[test]
fn notes_of_several_bindings_stand_together() {
    let mut notes = Notes::default();
    notes.add("k", "a");
    notes.add("k", "a");
    notes.add("k", "b");
    notes.add("k", "");
    notes.add("long", &"ä".repeat(10_000));
    assert_eq!(notes.texts("k"), ["a", "b"]);
    assert_eq!(notes.texts("long")[0].len(), 10 * 1024);
}
