//! Admission policies and their bindings.

use std::collections::HashSet;

use machinery::{
    field::{ErrorList, Path},
    meta, names,
};
use serde_json::{Value, json};

use super::{
    admission::{compiled, match_conditions, operations_and_resources},
    checks::{choice, enumeration, selector},
    read::{list, present, text},
    spec_path,
};
use crate::policy::{Asks, Scope, Yields};

/// Checks a ValidatingAdmissionPolicy or MutatingAdmissionPolicy.
pub(super) fn policy(object: &Value, mutating: bool, errors: &mut ErrorList) {
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    let path = spec_path();
    enumeration(spec, "failurePolicy", &["Fail", "Ignore"], &path, errors);
    if let Some(kind) = present(spec, "paramKind") {
        param_kind(kind, &path.child("paramKind"), errors);
    }
    match present(spec, "matchConstraints") {
        None => errors.required(&path.child("matchConstraints"), ""),
        Some(constraints) => {
            let path = path.child("matchConstraints");
            match_resources(constraints, &path, errors);
            // At least one rule, or nothing would match.
            if list(constraints, "resourceRules").is_empty() {
                errors.required(&path.child("resourceRules"), "");
            }
        }
    }
    let has_params = present(spec, "paramKind").is_some();
    let mut scope = if mutating { Scope::of_mutation(has_params) } else { Scope::of_validation(has_params) };
    match_conditions(spec, &scope, &path.child("matchConditions"), errors);
    variables(spec, &mut scope, &path.child("variables"), errors);
    if mutating {
        mutations(spec, &scope, &path, errors);
    } else {
        validations(spec, &scope, &path, errors);
        audit_annotations(spec, meta::name(object), &scope, &path, errors);
    }
}

fn param_kind(kind: &Value, path: &Path, errors: &mut ErrorList) {
    for field in ["apiVersion", "kind"] {
        if text(kind, field).is_empty() {
            errors.required(&path.child(field), "");
        }
    }
    let version = text(kind, "apiVersion");
    if version.matches('/').count() > 1 {
        let text = format!("unexpected GroupVersion string: {version}");
        errors.invalid(&path.child("apiVersion"), &json!(version), &text);
    }
    let name = text(kind, "kind");
    if !name.is_empty() {
        let problems = names::dns1035_label(&name.to_lowercase());
        if !problems.is_empty() {
            let text = format!("may have mixed case, but should otherwise match: {}", problems.join(","));
            errors.invalid(&path.child("kind"), &json!(name), &text);
        }
    }
}

fn match_resources(constraints: &Value, path: &Path, errors: &mut ErrorList) {
    choice(constraints, "matchPolicy", &["Equivalent", "Exact"], path, errors);
    for field in ["namespaceSelector", "objectSelector"] {
        if present(constraints, field).is_none() {
            errors.required(&path.child(field), "");
        }
        selector(constraints.get(field), &path.child(field), errors);
    }
    for field in ["resourceRules", "excludeResourceRules"] {
        for (at, rule) in list(constraints, field).iter().enumerate() {
            let path = path.child(field).index(at);
            operations_and_resources(rule, &path, errors);
            let mut seen = HashSet::new();
            for (at, name) in list(rule, "resourceNames").iter().filter_map(Value::as_str).enumerate() {
                let path = path.child("resourceNames").index(at);
                errors.invalid_all(&path, &json!(name), names::path_segment(name));
                if !seen.insert(name) {
                    errors.duplicate(&path, &json!(name));
                }
            }
        }
    }
}

fn variables(spec: &Value, scope: &mut Scope, path: &Path, errors: &mut ErrorList) {
    let mut seen = HashSet::new();
    for (at, variable) in list(spec, "variables").iter().enumerate() {
        let path = path.index(at);
        let name = text(variable, "name");
        if name.is_empty() {
            errors.required(&path.child("name"), "name is not specified");
        } else if !is_identifier(name) {
            errors.invalid(&path.child("name"), &json!(name), "name is not a valid CEL identifier");
        } else if !seen.insert(name) {
            errors.duplicate(&path.child("name"), &json!(name));
        }
        let compile = |expression: &str| scope.compile(expression, Yields::Any, Asks::Authorizer);
        let program = compiled(variable, "expression", "expression is not specified", compile, &path, errors);
        scope.declare(name, program.map(|program| program.result().clone()).unwrap_or_default());
    }
}

fn is_identifier(name: &str) -> bool {
    name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn validations(spec: &Value, scope: &Scope, path: &Path, errors: &mut ErrorList) {
    let (rules, audits) = (list(spec, "validations"), list(spec, "auditAnnotations"));
    if rules.is_empty() && audits.is_empty() {
        for field in ["validations", "auditAnnotations"] {
            let text = "validations or auditAnnotations must contain at least one item";
            errors.required(&path.child(field), text);
        }
    }
    let reasons = ["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];
    for (at, rule) in rules.iter().enumerate() {
        let path = path.child("validations").index(at);
        let compile = |expression: &str| scope.compile(expression, Yields::Bool, Asks::Authorizer);
        compiled(rule, "expression", "expression is not specified", compile, &path, errors);
        match present(rule, "messageExpression").and_then(Value::as_str) {
            None | Some("") => {}
            Some(given) if given.trim().is_empty() => {
                errors.invalid(&path.child("messageExpression"), &json!(given), "must be non-empty if specified");
            }
            Some(_) => {
                let compile = |expression: &str| scope.compile(expression, Yields::Text, Asks::Nobody);
                compiled(rule, "messageExpression", "", compile, &path, errors);
            }
        }
        let message = text(rule, "message");
        if message.contains('\n') {
            errors.invalid(&path.child("message"), &json!(message), "message must not contain line breaks");
        } else if !message.is_empty() && message.trim().is_empty() {
            errors.invalid(&path.child("message"), &json!(message), "message must be non-empty if specified");
        }
        enumeration(rule, "reason", &reasons, &path, errors);
    }
}

fn audit_annotations(spec: &Value, policy: &str, scope: &Scope, path: &Path, errors: &mut ErrorList) {
    let mut seen = HashSet::new();
    for (at, audit) in list(spec, "auditAnnotations").iter().enumerate() {
        let path = path.child("auditAnnotations").index(at);
        let key = text(audit, "key");
        if key.is_empty() {
            errors.required(&path.child("key"), "key is not specified");
        } else {
            let full = format!("{policy}/{key}");
            errors.invalid_all(&path.child("key"), &json!(key), names::qualified_name(&full));
        }
        if !seen.insert(key) {
            errors.duplicate(&path.child("key"), &json!(key));
        }
        let compile = |expression: &str| scope.compile(expression, Yields::TextOrNull, Asks::Nobody);
        compiled(audit, "valueExpression", "valueExpression is not specified", compile, &path, errors);
    }
}

fn mutations(spec: &Value, scope: &Scope, path: &Path, errors: &mut ErrorList) {
    choice(spec, "reinvocationPolicy", &["IfNeeded", "Never"], path, errors);
    let rules = present(spec, "matchConstraints").map_or(&[][..], |constraints| list(constraints, "resourceRules"));
    for (at, rule) in rules.iter().enumerate() {
        let path = path.child("matchConstraints").child("resourceRules").index(at).child("operations");
        for (at, operation) in list(rule, "operations").iter().enumerate().filter(|(_, name)| *name == "DELETE") {
            errors.not_supported(&path.index(at), operation, &["*", "CONNECT", "CREATE", "UPDATE"]);
        }
    }
    let mutations = list(spec, "mutations");
    let path = path.child("mutations");
    if mutations.is_empty() {
        errors.required(&path, "mutations must contain at least one item");
    }
    for (at, mutation) in mutations.iter().enumerate() {
        let path = path.index(at);
        choice(mutation, "patchType", &["ApplyConfiguration", "JSONPatch"], &path, errors);
        let (own, yields, other) = match text(mutation, "patchType") {
            "ApplyConfiguration" => ("applyConfiguration", Yields::Object, "jsonPatch"),
            "JSONPatch" => ("jsonPatch", Yields::Patch, "applyConfiguration"),
            _ => continue,
        };
        if present(mutation, other).is_some() {
            errors.forbidden(
                &path.child(other),
                &format!("may not be specified when patchType is {}", text(mutation, "patchType")),
            );
        }
        let path = path.child(own);
        match present(mutation, own) {
            None => {
                errors.required(&path, &format!("must be specified when patchType is {}", text(mutation, "patchType")))
            }
            Some(change) => {
                let compile = |expression: &str| scope.compile(expression, yields, Asks::Authorizer);
                compiled(change, "expression", "expression is not specified", compile, &path, errors);
            }
        }
    }
}

/// Checks a ValidatingAdmissionPolicyBinding or MutatingAdmissionPolicyBinding.
pub(super) fn binding(object: &Value, mutating: bool, errors: &mut ErrorList) {
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    let path = spec_path();
    let policy = text(spec, "policyName");
    if policy.is_empty() {
        errors.required(&path.child("policyName"), "");
    } else {
        errors.invalid_all(&path.child("policyName"), &json!(policy), names::dns1123_subdomain(policy));
    }
    if let Some(reference) = present(spec, "paramRef") {
        param_ref(reference, &path.child("paramRef"), errors);
    }
    if let Some(resources) = present(spec, "matchResources") {
        match_resources(resources, &path.child("matchResources"), errors);
    }
    if !mutating {
        actions(list(spec, "validationActions"), &path.child("validationActions"), errors);
    }
}

fn param_ref(reference: &Value, path: &Path, errors: &mut ErrorList) {
    let (name, labels) = (text(reference, "name"), present(reference, "selector"));
    if name.is_empty() && labels.is_none() {
        errors.required(path, "one of name or selector must be specified");
    } else if !name.is_empty() && labels.is_some() {
        errors.forbidden(&path.child("name"), "name and selector are mutually exclusive");
    }
    if !name.is_empty() {
        errors.invalid_all(&path.child("name"), &json!(name), names::path_segment(name));
    }
    selector(labels, &path.child("selector"), errors);
    match present(reference, "parameterNotFoundAction").and_then(Value::as_str) {
        None => errors.required(&path.child("parameterNotFoundAction"), ""),
        Some("Allow" | "Deny") => {}
        Some(other) => {
            let values = ["Allow", "Deny"];
            errors.not_supported(&path.child("parameterNotFoundAction"), &json!(other), &values);
        }
    }
}

fn actions(actions: &[Value], path: &Path, errors: &mut ErrorList) {
    let known = ["Audit", "Deny", "Warn"];
    let mut seen = HashSet::new();
    for (at, action) in actions.iter().filter_map(Value::as_str).enumerate() {
        let path = path.index(at);
        if !known.contains(&action) {
            errors.not_supported(&path, &json!(action), &known);
        }
        if !seen.insert(action) {
            errors.duplicate(&path, &json!(action));
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        let text = "must not contain both Deny and Warn (repeating the same validation failure information in the API \
                    response and headers serves no purpose)";
        errors.invalid(path, &json!(actions), text);
    }
    if seen.is_empty() {
        errors.required(path, "at least one validation action is required");
    }
}
