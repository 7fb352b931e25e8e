//! Events of both groups; they are stored in the core form.

use machinery::{
    field::{ErrorList, Path},
    meta, names,
};
use serde_json::{Value, json};

use super::{
    checks::required,
    read::{present, text},
};

const MAX_WORD: usize = 128;
const MAX_MESSAGE: usize = 1024;

/// Checks a new Event.
pub(super) fn event(object: &Value, errors: &mut ErrorList) {
    involved(object, errors);
    if present(object, "eventTime").is_some() {
        modern(object, errors);
    }
}

/// The Event lives where the object does that it is about; those of cluster-wide objects in a system namespace.
fn involved(object: &Value, errors: &mut ErrorList) {
    let about = object.get("involvedObject").unwrap_or(&Value::Null);
    let namespace = meta::namespace(object);
    let path = Path::new("involvedObject").child("namespace");
    match text(about, "namespace") {
        "" => {
            let timed = present(object, "eventTime").is_some();
            if namespace != "default" && !(timed && namespace == "kube-system") {
                errors.invalid(&path, &json!(""), "does not match event.namespace");
            }
        }
        other if other != namespace => {
            errors.invalid(&path, &json!(other), "does not match event.namespace");
        }
        _ => {}
    }
}

fn modern(object: &Value, errors: &mut ErrorList) {
    let root = Path::default();
    let controller = text(object, "reportingComponent");
    if controller.is_empty() {
        errors.required(&root.child("reportingController"), "");
    } else {
        errors.invalid_all(&root.child("reportingController"), &json!(controller), names::qualified_name(controller));
    }
    for field in ["reportingInstance", "action", "reason"] {
        let value = text(object, field);
        if required(object, &[field], &root, errors) && value.len() > MAX_WORD {
            let text = format!("can have at most {MAX_WORD} characters");
            errors.invalid(&root.child(field), &json!(""), &text);
        }
    }
    if text(object, "message").len() > MAX_MESSAGE {
        errors.invalid(&root.child("message"), &json!(""), &format!("can have at most {MAX_MESSAGE} characters"));
    }
}
