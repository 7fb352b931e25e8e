//! Profiles of seccomp and AppArmor that stand in annotations as well as in fields.

use machinery::field::{ErrorList, Path};
use serde_json::Value;

use super::super::read::{list, present, text};

/// A kind of profile: its field, its word, the annotation of the Pod, the start of those of containers.
const KINDS: [(&str, &str, &str, &str); 2] = [
    (
        "seccompProfile",
        "seccomp",
        "seccomp.security.alpha.kubernetes.io/pod",
        "container.seccomp.security.alpha.kubernetes.io/",
    ),
    ("appArmorProfile", "apparmor", "", "container.apparmor.security.beta.kubernetes.io/"),
];

/// Checks that annotations of a new Pod say what its fields say.
pub(super) fn agree(pod: &Value, path: &Path, errors: &mut ErrorList) {
    let none = Value::Null;
    let spec = pod.get("spec").unwrap_or(&none);
    let annotations = pod.pointer("/metadata/annotations").unwrap_or(&none);
    for (field, word, whole, prefix) in KINDS {
        let mut check = |holder: &Value, annotation: &str, path: Path| {
            let profile = holder.get("securityContext").and_then(|context| present(context, field));
            if let (Some(profile), Some(said)) = (profile, annotations.get(annotation).and_then(Value::as_str)) {
                compare(profile, said, word, &path.child("securityContext").child(field), errors);
            }
        };
        if !whole.is_empty() {
            check(spec, whole, path.clone());
        }
        for containers in super::CONTAINER_LISTS {
            for (at, container) in list(spec, containers).iter().enumerate() {
                let annotation = format!("{prefix}{}", text(container, "name"));
                check(container, &annotation, path.child(containers).index(at));
            }
        }
    }
}

fn compare(profile: &Value, said: &str, word: &str, path: &Path, errors: &mut ErrorList) {
    let (kind, local) = match said {
        "unconfined" => ("Unconfined", None),
        "runtime/default" | "docker/default" => ("RuntimeDefault", None),
        other => match other.strip_prefix("localhost/") {
            Some(local) => ("Localhost", Some(local)),
            None => return,
        },
    };
    if text(profile, "type") != kind {
        errors.forbidden(&path.child("type"), &format!("{word} type in annotation and field must match"));
    } else if local.is_some_and(|local| text(profile, "localhostProfile") != local) {
        let text = format!("{word} profile in annotation and field must match");
        errors.forbidden(&path.child("localhostProfile"), &text);
    }
}
