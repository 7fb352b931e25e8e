use serde_json::json;

use super::*;
use crate::structural::check::check;

fn schema(spec: Value) -> Value {
    json!({"type": "object", "properties": {"spec": spec}})
}

fn errors(spec: Value, object: Value, old: Option<Value>) -> Vec<String> {
    let schema = Schema::compile(&schema(spec));
    let (object, old) = (json!({"spec": object}), old.map(|old| json!({"spec": old})));
    let found = check_rules(&object, old.as_ref(), &schema, &mut RuleBudget::default());
    found.iter().map(|e| format!("{} {}: {}", e.reason, e.field, e.message)).collect()
}

fn spec(rules: Value) -> Value {
    json!({"type": "object", "x-kubernetes-validations": rules, "properties": {
        "min": {"type": "integer"}, "max": {"type": "integer"},
        "name": {"type": "string"},
        "at": {"type": "string", "format": "date-time"},
        "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "size": {"type": "integer",
                "x-kubernetes-validations": [{"rule": "self >= oldSelf", "message": "may not shrink"}]}}}},
    }})
}

#[test]
fn rules_are_run_where_they_stand() {
    let rule = json!([{"rule": "self.min <= self.max", "message": "min is over max"}]);
    assert!(errors(spec(rule.clone()), json!({"min": 1, "max": 2}), None).is_empty());
    assert_eq!(
        errors(spec(rule.clone()), json!({"min": 3, "max": 2}), None),
        ["FieldValueInvalid spec: Invalid value: min is over max"]
    );
    // What did not change was accepted before.
    assert!(errors(spec(rule), json!({"min": 3, "max": 2}), Some(json!({"min": 3, "max": 2}))).is_empty());
    let absent = json!([{"rule": "self.min > 0"}]);
    assert_eq!(
        errors(spec(absent), json!({}), None),
        ["FieldValueInvalid spec: Invalid value: no such key: min evaluating rule: failed rule: self.min > 0"]
    );
}

#[test]
fn messages_reasons_and_places() {
    let rules = json!([
        {"rule": "self.min > 1", "messageExpression": "'min is %d'.format([self.min])", "reason": "FieldValueForbidden",
         "fieldPath": ".min"},
        {"rule": "self.max > 9", "reason": "FieldValueRequired"},
    ]);
    assert_eq!(
        errors(spec(rules), json!({"min": 1, "max": 2}), None),
        [
            "FieldValueForbidden spec.min: Forbidden: min is 1",
            "FieldValueRequired spec: Required value: failed rule: self.max > 9"
        ]
    );
}

#[test]
fn transitions_are_told_by_keys() {
    let plain = spec(json!([]));
    let old = json!({"parts": [{"name": "a", "size": 2}, {"name": "b", "size": 2}]});
    let new = json!({"parts": [{"name": "b", "size": 1}, {"name": "a", "size": 3}, {"name": "c", "size": 0}]});
    assert_eq!(
        errors(plain.clone(), new.clone(), Some(old)),
        ["FieldValueInvalid spec.parts[0].size: Invalid value: 1: may not shrink"]
    );
    assert!(errors(plain, new, None).is_empty());
    let first =
        json!([{"rule": "oldSelf.hasValue() || self.min == 0", "optionalOldSelf": true, "message": "begins at 0"}]);
    assert_eq!(errors(spec(first.clone()), json!({"min": 1}), None).len(), 1);
    assert!(errors(spec(first), json!({"min": 1}), Some(json!({"min": 0}))).is_empty());
}

#[test]
fn rules_that_do_not_compile_are_refused() {
    let cases = [
        ("self.none == 1", "compilation failed: ERROR: <input>:1:5: undefined field 'none'"),
        ("self.min", "cel expression must evaluate to a bool"),
        ("frob(self)", "undeclared reference to 'frob'"),
        ("self.min ==", "Syntax error"),
    ];
    for (rule, text) in cases {
        let found = check(&schema(spec(json!([{"rule": rule}]))), &Path::new("s"));
        let found: Vec<String> = found.iter().map(|e| format!("{}: {}", e.field, e.message)).collect();
        assert_eq!(found.len(), 1, "{rule}: {found:?}");
        assert!(
            found[0].starts_with("s.properties[spec].x-kubernetes-validations[0].rule: Invalid value: "),
            "{found:?}"
        );
        assert!(found[0].contains(text), "{found:?}");
    }
    assert!(
        check(&schema(spec(json!([{"rule": "self.at > timestamp('2024-01-01T00:00:00Z')"}]))), &Path::new("s"))
            .is_empty()
    );
}

#[test]
fn work_is_bounded() {
    let rule = json!([{"rule": "lists.range(3000).all(i, lists.range(3000).all(j, i != j || true))"}]);
    let found = errors(spec(rule), json!({}), None);
    assert!(found[0].contains("running out of cost budget"), "{found:?}");
}

#[test]
fn rules_that_may_cost_too_much_are_refused() {
    let told = |properties: Value| {
        let schema = json!({"type": "object", "properties": properties});
        let found = check(&schema, &Path::new("s"));
        found.iter().map(|e| format!("{}: {}", e.field, e.message)).collect::<Vec<_>>()
    };
    let names = |limits: Value, rule: &str| {
        let mut names = json!({"type": "array", "items": {"type": "string"},
            "x-kubernetes-validations": [{"rule": rule}]});
        for (key, value) in limits.as_object().expect("limits") {
            names[key] = value.clone();
        }
        names
    };
    let unique = "self.all(a, self.all(b, a != b))";
    let advice = "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and \
                  strings are declared)";
    let rule = "s.properties[names].x-kubernetes-validations[0].rule";
    assert_eq!(
        told(json!({"names": names(json!({}), unique)})),
        [
            format!("{rule}: Forbidden: estimated rule cost exceeds budget by factor of more than 100x {advice}"),
            format!(
                "{rule}: Forbidden: contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 \
                 schema"
            ),
            format!(
                "s: Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds \
                 budget by factor of more than 100x {advice}"
            ),
        ]
    );
    let bounded = json!({"maxItems": 50, "items": {"type": "string", "maxLength": 64}});
    assert!(told(json!({"names": names(bounded.clone(), unique)})).is_empty());
    assert!(told(json!({"names": names(json!({}), "self.all(a, a.startsWith('x'))")})).is_empty());
    // What is bounded by itself is not where it may stand many times.
    let many =
        json!({"type": "array", "items": {"type": "object", "properties": {"names": names(bounded.clone(), unique)}}});
    let found = told(json!({"many": many}));
    assert!(
        found[0].starts_with("s.properties[many].items.properties[names].x-kubernetes-validations[0].rule: Forbidden")
    );
    let few = json!({"type": "array", "maxItems": 10,
        "items": {"type": "object", "properties": {"names": names(bounded, unique)}}});
    assert!(told(json!({"few": few})).is_empty());
}
