//! Webhook configurations and APIServices.

use std::collections::HashSet;

use cel::Program;
use machinery::{
    field::{ErrorList, Path},
    meta, names,
};
use serde_json::{Value, json};

use super::{
    checks::{enumeration, port_number, selector},
    read::{is_true, list, number, present, text},
    spec_path,
};
use crate::policy::{Asks, Fault, Scope, Yields};

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
    match_conditions(hook, &Scope::of_webhook(), &path.child("matchConditions"), errors);
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

pub(super) fn operations_and_resources(rule: &Value, path: &Path, errors: &mut ErrorList) {
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

/// Requires an expression that compiles; `missing`: what is said if there is none.
pub(super) fn compiled(
    holder: &Value,
    field: &str,
    missing: &str,
    compile: impl FnOnce(&str) -> Result<Program, Fault>,
    path: &Path,
    errors: &mut ErrorList,
) -> Option<Program> {
    let (expression, path) = (text(holder, field), path.child(field));
    if expression.trim().is_empty() {
        errors.required(&path, missing);
        return None;
    }
    match compile(expression) {
        Ok(program) => Some(program),
        Err(fault) => {
            errors.invalid(&path, &json!(expression), &fault.to_string());
            None
        }
    }
}

pub(super) fn match_conditions(holder: &Value, scope: &Scope, path: &Path, errors: &mut ErrorList) {
    let conditions = list(holder, "matchConditions");
    if conditions.len() > MAX_CONDITIONS {
        errors.too_many(path, conditions.len(), MAX_CONDITIONS);
    }
    let mut seen = HashSet::new();
    for (at, condition) in conditions.iter().enumerate() {
        let path = path.index(at);
        let compile = |expression: &str| scope.compile(expression, Yields::Bool, Asks::Authorizer);
        compiled(condition, "expression", "", compile, &path, errors);
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
