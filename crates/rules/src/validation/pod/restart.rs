//! Restart policies and rules of single containers.

use std::collections::HashSet;

use machinery::field::{ErrorList, Path};
use serde_json::{Value, json};

use super::super::{
    checks::choice,
    read::{list, present, text},
};

const MAX_RULES: usize = 20;
const MAX_CODES: usize = 255;
const POLICIES: [&str; 3] = ["Always", "Never", "OnFailure"];

/// Checks a regular container.
pub(super) fn regular(container: &Value, path: &Path, errors: &mut ErrorList) {
    policy(container, path, errors);
    rules(container, path, errors);
}

/// Checks an init container.
pub(super) fn init(container: &Value, path: &Path, errors: &mut ErrorList) {
    regular(container, path, errors);
}

fn policy(container: &Value, path: &Path, errors: &mut ErrorList) {
    if let Some(have) = present(container, "restartPolicy")
        && !have.as_str().is_some_and(|have| POLICIES.contains(&have))
    {
        errors.not_supported(&path.child("restartPolicy"), have, &POLICIES);
    }
}

fn rules(container: &Value, path: &Path, errors: &mut ErrorList) {
    let rules = list(container, "restartPolicyRules");
    if rules.is_empty() {
        return;
    }
    if present(container, "restartPolicy").is_none() {
        errors.required(&path.child("restartPolicy"), "must specify restartPolicy when restart rules are used");
    }
    let path = path.child("restartPolicyRules");
    if rules.len() > MAX_RULES {
        errors.too_many(&path, rules.len(), MAX_RULES);
    }
    for (at, rule) in rules.iter().enumerate() {
        let path = path.index(at);
        let actions = ["Restart", "RestartAllContainers"];
        if !actions.contains(&text(rule, "action")) {
            errors.not_supported(&path.child("action"), &json!(text(rule, "action")), &actions);
        }
        match present(rule, "exitCodes") {
            None => errors.required(&path.child("exitCodes"), "must be specified"),
            Some(codes) => exit_codes(codes, &path.child("exitCodes"), errors),
        }
    }
}

fn exit_codes(codes: &Value, path: &Path, errors: &mut ErrorList) {
    choice(codes, "operator", &["In", "NotIn"], path, errors);
    let values = list(codes, "values");
    let path = path.child("values");
    if values.len() > MAX_CODES {
        errors.too_many(&path, values.len(), MAX_CODES);
    }
    let mut seen = HashSet::new();
    for (at, code) in values.iter().enumerate() {
        if !seen.insert(code.as_i64()) {
            errors.duplicate(&path.index(at), code);
        }
    }
}
