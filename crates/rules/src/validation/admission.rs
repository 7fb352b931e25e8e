//! Webhook configurations, admission policies and their bindings.

use std::collections::HashSet;

use machinery::{
    field::{ErrorList, Path},
    meta, names,
};
use serde_json::{Value, json};

use super::{
    checks::{choice, enumeration, port_number, selector},
    read::{is_true, list, number, present, text},
    spec_path,
};

const MAX_CONDITIONS: usize = 64;
const REVIEWS: [&str; 2] = ["v1", "v1beta1"];
const SCOPES: [&str; 3] = ["*", "Cluster", "Namespaced"];

/// Checks a webhook configuration.
pub(super) fn webhooks(object: &Value, mutating: bool, errors: &mut ErrorList) {
    let mut seen = HashSet::new();
    for (at, hook) in list(object, "webhooks").iter().enumerate() {
        let path = Path::new("webhooks").index(at);
        webhook(hook, &path, errors);
        if mutating {
            enumeration(hook, "reinvocationPolicy", &["IfNeeded", "Never"], &path, errors);
        }
        let name = text(hook, "name");
        if !name.is_empty() && !seen.insert(name) {
            errors.duplicate(&path.child("name"), &json!(name));
        }
    }
}

fn webhook(hook: &Value, path: &Path, errors: &mut ErrorList) {
    fully_qualified(text(hook, "name"), &path.child("name"), errors);
    for (at, rule) in list(hook, "rules").iter().enumerate() {
        operations_and_resources(rule, &path.child("rules").index(at), errors);
    }
    enumeration(hook, "failurePolicy", &["Fail", "Ignore"], path, errors);
    enumeration(hook, "matchPolicy", &["Equivalent", "Exact"], path, errors);
    match text(hook, "sideEffects") {
        "" => errors.required(&path.child("sideEffects"), "must specify one of None, NoneOnDryRun"),
        "None" | "NoneOnDryRun" => {}
        other => errors.not_supported(&path.child("sideEffects"), &json!(other), &["None", "NoneOnDryRun"]),
    }
    if let Some(seconds) = number(hook, "timeoutSeconds").filter(|seconds| !(1..=30).contains(seconds)) {
        let text = "the timeout value must be between 1 and 30 seconds";
        errors.invalid(&path.child("timeoutSeconds"), &json!(seconds), text);
    }
    for field in ["namespaceSelector", "objectSelector"] {
        selector(hook.get(field), &path.child(field), errors);
    }
    client_config(hook.get("clientConfig").unwrap_or(&Value::Null), &path.child("clientConfig"), errors);
    review_versions(list(hook, "admissionReviewVersions"), &path.child("admissionReviewVersions"), errors);
    match_conditions(hook, &path.child("matchConditions"), errors);
}

/// Checks a name of at least three parts.
fn fully_qualified(name: &str, path: &Path, errors: &mut ErrorList) {
    if name.is_empty() {
        errors.required(path, "");
        return;
    }
    let problems = names::dns1123_subdomain(name);
    if !problems.is_empty() {
        errors.invalid(path, &json!(name), &problems.join(","));
    } else if name.split('.').count() < 3 {
        errors.invalid(path, &json!(name), "should be a domain with at least three segments separated by dots");
    }
}

fn operations_and_resources(rule: &Value, path: &Path, errors: &mut ErrorList) {
    let operations = list(rule, "operations");
    let known = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
    if operations.is_empty() {
        errors.required(&path.child("operations"), "");
    }
    alone(operations, "operations", &path.child("operations"), errors);
    for (at, operation) in operations.iter().enumerate() {
        if !operation.as_str().is_some_and(|operation| known.contains(&operation)) {
            errors.not_supported(&path.child("operations").index(at), operation, &known);
        }
    }
    resource_rule(rule, path, errors);
}

fn alone(values: &[Value], what: &str, path: &Path, errors: &mut ErrorList) {
    if values.len() > 1 && values.contains(&json!("*")) {
        errors.invalid(path, &json!(values), &format!("if '*' is present, must not specify other {what}"));
    }
}

fn resource_rule(rule: &Value, path: &Path, errors: &mut ErrorList) {
    for (field, what) in [("apiGroups", "API groups"), ("apiVersions", "API versions")] {
        let values = list(rule, field);
        let path = path.child(field);
        if values.is_empty() {
            errors.required(&path, "");
        }
        alone(values, what, &path, errors);
        for (at, _) in values.iter().enumerate().filter(|(_, v)| field == "apiVersions" && v.as_str() == Some("")) {
            errors.required(&path.index(at), "");
        }
    }
    resources(list(rule, "resources"), &path.child("resources"), errors);
    if !text(rule, "scope").is_empty() {
        enumeration(rule, "scope", &SCOPES, path, errors);
    }
}

fn resources(values: &[Value], path: &Path, errors: &mut ErrorList) {
    if values.is_empty() {
        errors.required(path, "");
    }
    let texts: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
    let every_resource: HashSet<&str> = texts.iter().filter_map(|text| text.strip_suffix("/*")).collect();
    let every_sub: HashSet<&str> = texts.iter().filter_map(|text| text.strip_prefix("*/")).collect();
    for (at, text) in texts.iter().enumerate() {
        let path = path.index(at);
        let (resource, sub) = text.split_once('/').map_or((*text, None), |(resource, sub)| (resource, Some(sub)));
        match (*text, sub) {
            ("", _) => errors.required(&path, ""),
            ("*/*", _) if texts.len() > 1 => {
                errors.invalid(&path, &json!(texts), "if '*/*' is present, must not specify other resources");
            }
            (_, Some(sub)) if sub != "*" && every_resource.contains(resource) => {
                let text_of = format!("if '{resource}/*' is present, must not specify {text}");
                errors.invalid(&path, &json!(text), &text_of);
            }
            (_, Some(sub)) if resource != "*" && every_sub.contains(sub) => {
                errors.invalid(&path, &json!(text), &format!("if '*/{sub}' is present, must not specify {text}"));
            }
            (_, None) if resource != "*" && texts.contains(&"*") => {
                let text_of = "if '*' is present, must not specify other resources without subresources";
                errors.invalid(&path, &json!(texts), text_of);
            }
            _ => {}
        }
    }
}

fn client_config(config: &Value, path: &Path, errors: &mut ErrorList) {
    match (present(config, "url"), present(config, "service")) {
        (None, None) | (Some(_), Some(_)) => {
            errors.required(&path.child("url"), "exactly one of url or service is required");
        }
        (Some(url), None) => web_address(url.as_str().unwrap_or(""), &path.child("url"), errors),
        (None, Some(service)) => service_reference(service, &path.child("service"), errors),
    }
}

/// Checks the address of a webhook.
fn web_address(url: &str, path: &Path, errors: &mut ErrorList) {
    let form = "; desired format: https://host[/path]";
    let value = json!(url);
    let Some((scheme, rest)) = url.split_once("://") else {
        errors.invalid(path, &value, &format!("url must be a valid URL{form}"));
        return;
    };
    if scheme != "https" {
        let text = format!("'https' is the only allowed URL scheme{form}");
        errors.invalid(path, &json!(scheme), &text);
    }
    let host = rest.split(['/', '?', '#']).next().unwrap_or("");
    if host.is_empty() {
        errors.invalid(path, &json!(host), &format!("host must be specified{form}"));
    }
    if host.contains('@') {
        let user = host.split('@').next().unwrap_or("");
        errors.invalid(path, &json!(user), "user information is not permitted in the URL");
    }
    if let Some((_, fragment)) = rest.split_once('#').filter(|(_, fragment)| !fragment.is_empty()) {
        errors.invalid(path, &json!(fragment), "fragments are not permitted in the URL");
    }
    let query = rest.split('#').next().and_then(|rest| rest.split_once('?')).map_or("", |(_, query)| query);
    if !query.is_empty() {
        errors.invalid(path, &json!(query), "query parameters are not permitted in the URL");
    }
}

/// Checks a reference to the Service of a webhook.
pub(super) fn service_reference(service: &Value, path: &Path, errors: &mut ErrorList) {
    for (field, what) in [("name", "service name is required"), ("namespace", "service namespace is required")] {
        if text(service, field).is_empty() {
            errors.required(&path.child(field), what);
        }
    }
    if let Some(own) = present(service, "path").and_then(Value::as_str) {
        service_path(own, &path.child("path"), errors);
    }
    let port = number(service, "port").unwrap_or(443);
    if !(1..=65535).contains(&port) {
        let text = "port is not valid: must be between 1 and 65535, inclusive";
        errors.invalid(&path.child("port"), &json!(port), text);
    }
}

fn service_path(own: &str, path: &Path, errors: &mut ErrorList) {
    let value = json!(own);
    if !own.starts_with('/') {
        errors.invalid(path, &value, "must start with a '/'");
        return;
    }
    if own == "/" {
        return;
    }
    let inner = own.trim_start_matches('/').trim_end_matches('/');
    for (at, step) in inner.split('/').enumerate() {
        if step.is_empty() {
            errors.invalid(path, &value, &format!("segment[{at}] may not be empty"));
            continue;
        }
        for problem in names::dns1123_subdomain(step) {
            errors.invalid(path, &value, &format!("segment[{at}]: {problem}"));
        }
    }
}

fn review_versions(versions: &[Value], path: &Path, errors: &mut ErrorList) {
    if versions.is_empty() {
        errors.required(path, "must specify one of v1, v1beta1");
        return;
    }
    let mut seen = HashSet::new();
    for (at, version) in versions.iter().filter_map(Value::as_str).enumerate() {
        let path = path.index(at);
        if !seen.insert(version) {
            errors.invalid(&path, &json!(version), "duplicate version");
        }
        errors.invalid_all(&path, &json!(version), names::dns1035_label(version));
    }
    if !REVIEWS.iter().any(|version| seen.contains(version)) {
        errors.invalid(path, &json!(versions), "must include at least one of v1, v1beta1");
    }
}

/// Compiles an expression that narrows what webhooks and policies are asked about.
pub fn match_condition(expression: &str) -> Result<cel::Program, String> {
    let of_any_type = cel::Type::Dyn;
    let variables = ["object", "oldObject", "request", "authorizer"].map(|name| (name, &of_any_type));
    let program = cel::Program::compile(expression, &variables).map_err(|error| error.to_string())?;
    match program.result() {
        cel::Type::Bool | cel::Type::Dyn => Ok(program),
        _ => Err("must evaluate to bool".into()),
    }
}

fn match_conditions(holder: &Value, path: &Path, errors: &mut ErrorList) {
    let conditions = list(holder, "matchConditions");
    if conditions.len() > MAX_CONDITIONS {
        errors.too_many(path, conditions.len(), MAX_CONDITIONS);
    }
    let mut seen = HashSet::new();
    for (at, condition) in conditions.iter().enumerate() {
        let path = path.index(at);
        let expression = text(condition, "expression");
        if expression.trim().is_empty() {
            errors.required(&path.child("expression"), "");
        } else if let Err(why) = match_condition(expression) {
            errors.invalid(&path.child("expression"), &json!(expression), &format!("compilation failed: {why}"));
        }
        let name = text(condition, "name");
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else {
            errors.invalid_all(&path.child("name"), &json!(name), names::qualified_name(name));
            if !seen.insert(name) {
                errors.duplicate(&path.child("name"), &json!(name));
            }
        }
    }
}

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
    match_conditions(spec, &path.child("matchConditions"), errors);
    variables(spec, &path.child("variables"), errors);
    if mutating {
        mutations(spec, &path, errors);
    } else {
        validations(spec, meta::name(object), &path, errors);
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

fn variables(spec: &Value, path: &Path, errors: &mut ErrorList) {
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
        if text(variable, "expression").trim().is_empty() {
            errors.required(&path.child("expression"), "expression is not specified");
        }
    }
}

fn is_identifier(name: &str) -> bool {
    name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn validations(spec: &Value, policy: &str, path: &Path, errors: &mut ErrorList) {
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
        if text(rule, "expression").trim().is_empty() {
            errors.required(&path.child("expression"), "expression is not specified");
        }
        if present(rule, "messageExpression").and_then(Value::as_str).is_some_and(|text| text.trim().is_empty()) {
            let value = &rule["messageExpression"];
            errors.invalid(&path.child("messageExpression"), value, "must be non-empty if specified");
        }
        let message = text(rule, "message");
        if message.contains('\n') {
            errors.invalid(&path.child("message"), &json!(message), "message must not contain line breaks");
        } else if !message.is_empty() && message.trim().is_empty() {
            errors.invalid(&path.child("message"), &json!(message), "message must be non-empty if specified");
        }
        enumeration(rule, "reason", &reasons, &path, errors);
    }
    let mut seen = HashSet::new();
    for (at, audit) in audits.iter().enumerate() {
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
        if text(audit, "valueExpression").trim().is_empty() {
            errors.required(&path.child("valueExpression"), "valueExpression is not specified");
        }
    }
}

fn mutations(spec: &Value, path: &Path, errors: &mut ErrorList) {
    choice(spec, "reinvocationPolicy", &["IfNeeded", "Never"], path, errors);
    let mutations = list(spec, "mutations");
    let path = path.child("mutations");
    if mutations.is_empty() {
        errors.required(&path, "mutations must contain at least one item");
    }
    for (at, mutation) in mutations.iter().enumerate() {
        let path = path.index(at);
        choice(mutation, "patchType", &["ApplyConfiguration", "JSONPatch"], &path, errors);
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

/// Checks an APIService.
pub(super) fn api_service(object: &Value, errors: &mut ErrorList) {
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    let path = spec_path();
    let (group, version) = (text(spec, "group"), text(spec, "version"));
    let expected = format!("{version}.{group}");
    if meta::name(object) != expected {
        let text = format!("must be `spec.version+\".\"+spec.group`: \"{expected}\"");
        errors.invalid(&Path::new("metadata").child("name"), &json!(meta::name(object)), &text);
    }
    if !group.is_empty() {
        errors.invalid_all(&path.child("group"), &json!(group), names::dns1123_subdomain(group));
    }
    errors.invalid_all(&path.child("version"), &json!(version), names::dns1035_label(version));
    let minimum = number(spec, "groupPriorityMinimum").unwrap_or(0);
    if !(1..=20_000).contains(&minimum) {
        let text = "must be positive and less than 20000";
        errors.invalid(&path.child("groupPriorityMinimum"), &json!(minimum), text);
    }
    let priority = number(spec, "versionPriority").unwrap_or(0);
    if !(1..=1000).contains(&priority) {
        errors.invalid(&path.child("versionPriority"), &json!(priority), "must be positive and less than 1000");
    }
    let insecure = is_true(spec, "insecureSkipTLSVerify");
    let bundle = !text(spec, "caBundle").is_empty();
    match present(spec, "service") {
        None => {
            if bundle {
                let text = "local APIServices may not have a caBundle";
                errors.invalid(&path.child("caBundle"), &spec["caBundle"], text);
            }
            if insecure {
                let text = "local APIServices may not have insecureSkipTLSVerify";
                errors.invalid(&path.child("insecureSkipTLSVerify"), &json!(true), text);
            }
            return;
        }
        Some(service) => {
            let path = path.child("service");
            for field in ["namespace", "name"] {
                if text(service, field).is_empty() {
                    errors.required(&path.child(field), "");
                }
            }
            port_number(number(service, "port").unwrap_or(443), &path.child("port"), errors);
        }
    }
    if insecure && bundle {
        let text = "may not be true if caBundle is present";
        errors.invalid(&path.child("insecureSkipTLSVerify"), &json!(true), text);
    }
}
