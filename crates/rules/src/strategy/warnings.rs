//! Warnings about objects that are valid but unwise.

use machinery::GroupVersionKind;
use serde_json::Value;

/// Warnings about a new (`old` absent) or changed object.
pub(super) fn of(gvk: &GroupVersionKind, object: &Value, old: Option<&Value>) -> Vec<String> {
    match (gvk.group.as_str(), gvk.kind.as_str()) {
        ("", "Pod") if old.is_none() => pod_spec(object.get("spec"), "spec"),
        ("", "Endpoints") => vec!["v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice".into()],
        ("apps" | "batch", _) if changed(object, old) => {
            pod_spec(object.pointer("/spec/template/spec"), "spec.template.spec")
        }
        _ => Vec::new(),
    }
}

fn changed(object: &Value, old: Option<&Value>) -> bool {
    old.is_none_or(|old| old.pointer("/metadata/generation") != object.pointer("/metadata/generation"))
}

fn pod_spec(spec: Option<&Value>, path: &str) -> Vec<String> {
    let Some(spec) = spec else { return Vec::new() };
    let mut warnings = Vec::new();
    if spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64).is_some_and(|s| s < 0) {
        warnings.push(format!(
            "{path}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
        ));
    }
    for key in ["beta.kubernetes.io/arch", "beta.kubernetes.io/os"] {
        let stable = key.strip_prefix("beta.").unwrap_or(key);
        if spec.get("nodeSelector").and_then(|s| s.get(key)).is_some() {
            warnings.push(format!("{path}.nodeSelector[{key}]: deprecated since v1.14; use \"{stable}\" instead"));
        }
    }
    warnings
}
