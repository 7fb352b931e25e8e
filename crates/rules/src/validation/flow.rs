//! FlowSchema and PriorityLevelConfiguration.

use std::collections::HashSet;

use machinery::{
    field::{ErrorList, Path},
    meta, names,
};
use serde_json::{Value, json};

use crate::bootstrap::flow;

use super::{
    checks::{choice, enumeration},
    read::{list, number, present, text},
    spec_path,
};

const MAX_PRECEDENCE: i64 = 10_000;
const MAX_QUEUES: i64 = 10_000_000;
/// Bits of a hash that dealing a hand may use up.
const MAX_HASH_BITS: i64 = 60;
const VERBS: [&str; 9] = ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

/// Checks a FlowSchema.
pub(super) fn schema(object: &Value, errors: &mut ErrorList) {
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    let path = spec_path();
    fixed(object, spec, errors);
    let precedence = number(spec, "matchingPrecedence").unwrap_or(0);
    let at = path.child("matchingPrecedence");
    if precedence <= 0 {
        errors.invalid(&at, &json!(precedence), "must be a positive value");
    }
    if precedence > MAX_PRECEDENCE {
        errors.invalid(&at, &json!(precedence), &format!("must not be greater than {MAX_PRECEDENCE}"));
    }
    if precedence == 1 && meta::name(object) != "exempt" {
        errors.invalid(&at, &json!(precedence), "only the schema named 'exempt' may have matchingPrecedence 1");
    }
    if let Some(method) = present(spec, "distinguisherMethod") {
        enumeration(method, "type", &["ByNamespace", "ByUser"], &path.child("distinguisherMethod"), errors);
    }
    let level = spec.get("priorityLevelConfiguration").map_or("", |level| text(level, "name"));
    let at = path.child("priorityLevelConfiguration").child("name");
    if level.is_empty() {
        errors.required(&at, "must reference a priority level");
    } else {
        errors.invalid_all(&at, &json!(level), names::dns1123_subdomain(level));
    }
    for (at, rule) in list(spec, "rules").iter().enumerate() {
        check_rule(rule, &path.child("rules").index(at), errors);
    }
}

/// The mandatory objects are what they are; of level `exempt` that is the type only.
fn fixed(object: &Value, spec: &Value, errors: &mut ErrorList) {
    let is_same = |other: &&Value| other.get("kind") == object.get("kind") && meta::name(other) == meta::name(object);
    let mandatory = flow::mandatory();
    let Some(wanted) = mandatory.iter().find(is_same) else { return };
    let is_exempt_level = wanted.pointer("/spec/type").is_some_and(|kind| kind == "Exempt");
    if !is_exempt_level && wanted.get("spec") != Some(spec) {
        let text = format!("spec of '{}' must equal the fixed value", meta::name(object));
        errors.invalid(&spec_path(), spec, &text);
    }
}

fn check_rule(rule: &Value, path: &Path, errors: &mut ErrorList) {
    let subjects = list(rule, "subjects");
    if subjects.is_empty() {
        errors.required(&path.child("subjects"), "subjects must contain at least one value");
    }
    for (at, subject) in subjects.iter().enumerate() {
        check_subject(subject, &path.child("subjects").index(at), errors);
    }
    let (resources, urls) = (list(rule, "resourceRules"), list(rule, "nonResourceRules"));
    if resources.is_empty() && urls.is_empty() {
        errors.required(path, "at least one of resourceRules and nonResourceRules has to be non-empty");
    }
    for (at, rule) in resources.iter().enumerate() {
        let path = path.child("resourceRules").index(at);
        verbs(rule, &path, errors);
        for field in ["apiGroups", "resources"] {
            let values = list(rule, field);
            if values.is_empty() {
                let what = if field == "apiGroups" { "api group" } else { "resource" };
                errors.required(&path.child(field), &format!("resource rules must supply at least one {what}"));
            } else {
                alone(values, field, &path, errors);
            }
        }
        let scoped = rule.get("clusterScope").and_then(Value::as_bool).unwrap_or(false);
        if !scoped && list(rule, "namespaces").is_empty() {
            let text = "resource rules that are not cluster scoped must supply at least one namespace";
            errors.required(&path.child("namespaces"), text);
        }
    }
    for (at, rule) in urls.iter().enumerate() {
        let path = path.child("nonResourceRules").index(at);
        verbs(rule, &path, errors);
        if list(rule, "nonResourceURLs").is_empty() {
            errors.required(&path.child("nonResourceURLs"), "nonResourceURLs must contain at least one value");
        }
    }
}

fn alone(values: &[Value], field: &str, path: &Path, errors: &mut ErrorList) {
    if values.len() > 1 && values.contains(&json!("*")) {
        errors.invalid(
            &path.child(field),
            &json!(values),
            &format!("if '*' is present, must not specify other {field}"),
        );
    }
}

fn verbs(rule: &Value, path: &Path, errors: &mut ErrorList) {
    let verbs = list(rule, "verbs");
    let path = path.child("verbs");
    if verbs.is_empty() {
        errors.required(&path, "verbs must contain at least one value");
    } else if verbs.contains(&json!("*")) {
        if verbs.len() > 1 {
            errors.invalid(&path, &json!(verbs), "if '*' is present, must not specify other verbs");
        }
    } else if !verbs.iter().all(|verb| verb.as_str().is_some_and(|verb| VERBS.contains(&verb.to_lowercase().as_str())))
    {
        errors.not_supported(&path, &json!(verbs), &VERBS);
    }
}

fn check_subject(subject: &Value, path: &Path, errors: &mut ErrorList) {
    let kinds = ["Group", "ServiceAccount", "User"];
    choice(subject, "kind", &kinds, path, errors);
    for (kind, field) in [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")] {
        let own = present(subject, field);
        let path = path.child(field);
        if text(subject, "kind") != kind {
            if own.is_some() {
                errors.forbidden(&path, &format!("{field} is forbidden when subject kind is not '{kind}'"));
            }
            continue;
        }
        let Some(own) = own else {
            errors.required(&path, &format!("{field} is required when subject kind is '{kind}'"));
            continue;
        };
        if text(own, "name").is_empty() {
            errors.required(&path.child("name"), "");
        }
        if kind == "ServiceAccount" && text(own, "namespace").is_empty() {
            errors.required(&path.child("namespace"), "must specify namespace for service account");
        }
    }
}

/// Checks a PriorityLevelConfiguration.
pub(super) fn level(object: &Value, errors: &mut ErrorList) {
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    let path = spec_path();
    fixed(object, spec, errors);
    let kind = text(spec, "type");
    if (meta::name(object) == "exempt") != (kind == "Exempt") {
        let text = "type must be 'Exempt' if and only if `name` is 'exempt'";
        errors.invalid(&path.child("type"), &json!(kind), text);
    }
    let (limited, exempt) = (present(spec, "limited"), present(spec, "exempt"));
    match kind {
        "Exempt" => {
            if limited.is_some() {
                errors.forbidden(&path.child("limited"), "must be nil if the type is not Limited");
            }
            if let Some(exempt) = exempt {
                shares(exempt, &path.child("exempt"), errors);
            }
        }
        "Limited" => {
            if exempt.is_some() {
                errors.forbidden(&path.child("exempt"), "must be nil if the type is Limited");
            }
            match limited {
                None => errors.required(&path.child("limited"), "must not be empty when type is Limited"),
                Some(limited) => check_limited(limited, &path.child("limited"), errors),
            }
        }
        other => errors.not_supported(&path.child("type"), &json!(other), &["Exempt", "Limited"]),
    }
}

fn shares(level: &Value, path: &Path, errors: &mut ErrorList) {
    if let Some(shares) = number(level, "nominalConcurrencyShares").filter(|shares| *shares < 0) {
        let text = "must be a non-negative integer";
        errors.invalid(&path.child("nominalConcurrencyShares"), &json!(shares), text);
    }
    if let Some(lent) = number(level, "lendablePercent").filter(|lent| !(0..=100).contains(lent)) {
        errors.invalid(&path.child("lendablePercent"), &json!(lent), "must be between 0 and 100, inclusive");
    }
}

fn check_limited(limited: &Value, path: &Path, errors: &mut ErrorList) {
    shares(limited, path, errors);
    if let Some(borrowed) = number(limited, "borrowingLimitPercent").filter(|borrowed| *borrowed < 0) {
        let text = "if specified, must be a non-negative integer";
        errors.invalid(&path.child("borrowingLimitPercent"), &json!(borrowed), text);
    }
    let response = limited.get("limitResponse").unwrap_or(&Value::Null);
    let path = path.child("limitResponse");
    let queuing = present(response, "queuing");
    match text(response, "type") {
        "Reject" => {
            if queuing.is_some() {
                errors.forbidden(&path.child("queuing"), "must be nil if limited.limitResponse.type is not Limited");
            }
        }
        "Queue" => match queuing {
            None => {
                let text = "must not be empty if limited.limitResponse.type is Limited";
                errors.required(&path.child("queuing"), text);
            }
            Some(queuing) => queues(queuing, &path.child("queuing"), errors),
        },
        other => errors.not_supported(&path.child("type"), &json!(other), &["Queue", "Reject"]),
    }
}

fn queues(queuing: &Value, path: &Path, errors: &mut ErrorList) {
    for field in ["queueLengthLimit", "queues", "handSize"] {
        let have = number(queuing, field).unwrap_or(0);
        if have <= 0 {
            errors.invalid(&path.child(field), &json!(have), "must be positive");
        }
    }
    let (queues, hand) = (number(queuing, "queues").unwrap_or(0), number(queuing, "handSize").unwrap_or(0));
    if queues > MAX_QUEUES {
        let text = format!("must not be greater than {MAX_QUEUES}");
        errors.invalid(&path.child("queues"), &json!(queues), &text);
    }
    if hand > queues {
        let text = format!("should not be greater than queues ({queues})");
        errors.invalid(&path.child("handSize"), &json!(hand), &text);
    } else if queues > 0 && hand_bits(queues, hand) > MAX_HASH_BITS {
        let text = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {MAX_HASH_BITS}"
        );
        errors.invalid(&path.child("handSize"), &json!(hand), &text);
    }
}

/// Bits of a hash that dealing `hand` of `queues` uses up.
fn hand_bits(queues: i64, hand: i64) -> i64 {
    let bits: f64 = (0..hand.min(MAX_HASH_BITS + 1)).map(|dealt| ((queues - dealt).max(1) as f64).log2()).sum();
    bits.ceil() as i64
}

/// Checks the conditions in the status of both kinds.
pub(super) fn status(object: &Value, errors: &mut ErrorList) {
    let status = object.get("status").unwrap_or(&Value::Null);
    let mut seen = HashSet::new();
    for (at, condition) in list(status, "conditions").iter().enumerate() {
        let path = Path::new("status").child("conditions").index(at);
        let kind = text(condition, "type");
        if !seen.insert(kind) {
            errors.duplicate(&path.child("type"), &json!(kind));
        }
        if kind.is_empty() {
            errors.required(&path.child("type"), "must not be empty");
        }
    }
}
