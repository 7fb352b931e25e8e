//! Node labels and annotations that have had their time.

use machinery::names;
use serde_json::Value;

use super::{Warnings, list, pairs, text};

/// What to say about a node label, if it is deprecated.
fn deprecated(label: &str) -> Option<String> {
    let (since, instead) = match label {
        "beta.kubernetes.io/arch" => ("v1.14", "kubernetes.io/arch"),
        "beta.kubernetes.io/os" => ("v1.14", "kubernetes.io/os"),
        "failure-domain.beta.kubernetes.io/region" => ("v1.17", "topology.kubernetes.io/region"),
        "failure-domain.beta.kubernetes.io/zone" => ("v1.17", "topology.kubernetes.io/zone"),
        "beta.kubernetes.io/instance-type" => ("v1.17", "node.kubernetes.io/instance-type"),
        "app.kubernetes.io/created-by" => return Some("deprecated since v1.9".into()),
        "scheduler.alpha.kubernetes.io/preferAvoidPods" => {
            return Some("deprecated since v1.22; use Taints and Tolerations instead".into());
        }
        "node-role.kubernetes.io/master" => {
            return Some("use \"node-role.kubernetes.io/control-plane\" instead".into());
        }
        _ => return None,
    };
    Some(format!("deprecated since {since}; use \"{instead}\" instead"))
}

/// Warns about the keys of a map of node labels.
pub(super) fn selector(value: &Value, field: &str, path: &str, warnings: &mut Warnings) {
    for (key, _) in pairs(value, field) {
        if let Some(told) = deprecated(key) {
            warnings.add(format!("{path}.{field}[{key}]: {told}"));
        }
    }
}

/// Warns about one key that stands at a path.
pub(super) fn key(key: &str, path: &str, warnings: &mut Warnings) {
    if let Some(told) = deprecated(key) {
        warnings.add(format!("{path}: {key} is {told}"));
    }
}

/// Warns about a term of a node selector; `values` says whether its values are only wished for.
pub(super) fn term(term: &Value, values: bool, path: &str, warnings: &mut Warnings) {
    for (at, expression) in list(term, "matchExpressions").iter().enumerate() {
        let path = format!("{path}.matchExpressions[{at}]");
        key(text(expression, "key"), &format!("{path}.key"), warnings);
        if !values {
            continue;
        }
        for (at, value) in list(expression, "values").iter().filter_map(Value::as_str).enumerate() {
            for problem in names::label_value(value) {
                warnings.add(format!("{path}.values[{at}]: {value} is invalid, {problem}"));
            }
        }
    }
}

const SYSCTLS: &str = "non-functional in v1.11+; use the \"sysctls\" field instead";
const SECCOMP: &str = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
const APP_ARMOR: &str = "deprecated since v1.30; use the \"appArmorProfile\" field instead";

/// Warns about annotations of a Pod or template; `path` is where its metadata stand, with a dot.
pub(super) fn annotations(object: &Value, path: &str, warnings: &mut Warnings) {
    let Some(metadata) = object.get("metadata") else { return };
    for (key, _) in pairs(metadata, "annotations") {
        let told = match key.as_str() {
            "scheduler.alpha.kubernetes.io/critical-pod" => {
                "non-functional in v1.16+; use the \"priorityClassName\" field instead"
            }
            "security.alpha.kubernetes.io/sysctls" | "security.alpha.kubernetes.io/unsafe-sysctls" => SYSCTLS,
            "seccomp.security.alpha.kubernetes.io/pod" => SECCOMP,
            key if key.starts_with("container.seccomp.security.alpha.kubernetes.io/") => SECCOMP,
            key if key.starts_with("container.apparmor.security.beta.kubernetes.io/") => APP_ARMOR,
            _ => continue,
        };
        warnings.add(format!("{path}metadata.annotations[{key}]: {told}"));
    }
}
