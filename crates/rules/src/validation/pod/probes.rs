//! Probes and lifecycle hooks.

use machinery::{
    field::{ErrorList, Path},
    names,
};
use serde_json::{Value, json};

use super::super::{
    checks::{choice, non_negative, port_number, port_or_name},
    read::{list, number, present, text},
};

/// The probes that a container may have.
pub(super) const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];
const HANDLERS: [&str; 5] = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"];

/// Checks one probe.
pub(super) fn probe(kind: &str, probe: &Value, grace: Option<i64>, path: &Path, errors: &mut ErrorList) {
    handler(probe, grace, path, errors);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        non_negative(probe, field, path, errors);
    }
    let own = number(probe, "terminationGracePeriodSeconds");
    let grace_path = path.child("terminationGracePeriodSeconds");
    if let Some(own) = own.filter(|own| *own <= 0) {
        errors.invalid(&grace_path, &json!(own), "must be greater than 0");
    }
    if kind == "readinessProbe" {
        if let Some(own) = own {
            errors.invalid(&grace_path, &json!(own), "must not be set for readinessProbes");
        }
        return;
    }
    let successes = number(probe, "successThreshold").unwrap_or(1);
    if successes != 1 {
        errors.invalid(&path.child("successThreshold"), &json!(successes), "must be 1");
    }
}

/// Checks the hooks of a container.
pub(super) fn lifecycle(lifecycle: &Value, grace: Option<i64>, path: &Path, errors: &mut ErrorList) {
    for hook in ["postStart", "preStop"] {
        if let Some(value) = present(lifecycle, hook) {
            handler(value, grace, &path.child(hook), errors);
        }
    }
}

fn handler(value: &Value, grace: Option<i64>, path: &Path, errors: &mut ErrorList) {
    let mut found = false;
    for kind in HANDLERS {
        let Some(action) = present(value, kind) else { continue };
        let path = path.child(kind);
        if found {
            errors.forbidden(&path, "may not specify more than 1 handler type");
            continue;
        }
        found = true;
        match kind {
            "exec" if list(action, "command").is_empty() => errors.required(&path.child("command"), ""),
            "httpGet" => http_get(action, &path, errors),
            "tcpSocket" => port_or_name(action.get("port"), &path.child("port"), errors),
            "grpc" => port_number(number(action, "port").unwrap_or(0), &path.child("port"), errors),
            "sleep" => sleep(action, grace, &path, errors),
            _ => {}
        }
    }
    if !found {
        errors.required(path, "must specify a handler type");
    }
}

fn http_get(action: &Value, path: &Path, errors: &mut ErrorList) {
    if text(action, "path").is_empty() {
        errors.required(&path.child("path"), "");
    }
    port_or_name(action.get("port"), &path.child("port"), errors);
    choice(action, "scheme", &["HTTP", "HTTPS"], path, errors);
    for header in list(action, "httpHeaders") {
        let name = text(header, "name");
        errors.invalid_all(&path.child("httpHeaders"), &json!(name), names::http_header_name(name));
    }
}

fn sleep(action: &Value, grace: Option<i64>, path: &Path, errors: &mut ErrorList) {
    let seconds = number(action, "seconds").unwrap_or(0);
    if let Some(grace) = grace.filter(|grace| seconds < 0 || seconds > *grace) {
        let text = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        errors.invalid(path, &json!(seconds), &text);
    }
}
