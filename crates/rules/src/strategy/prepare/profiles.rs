//! AppArmor profiles that annotations name.

use serde_json::{Value, json};

const PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Containers whose profile only an annotation names get it as a field as well.
pub(super) fn from_annotations(pod: &mut Value) {
    if pod.pointer("/spec/os/name") == Some(&json!("windows")) {
        return;
    }
    let annotations = pod.pointer("/metadata/annotations").and_then(Value::as_object).cloned().unwrap_or_default();
    let whole = pod.pointer("/spec/securityContext/appArmorProfile").cloned();
    for list in ["containers", "initContainers"] {
        let containers = pod.pointer_mut(&format!("/spec/{list}")).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let name = container.get("name").and_then(Value::as_str).unwrap_or("");
            let named = annotations.get(&format!("{PREFIX}{name}")).and_then(Value::as_str);
            let Some(profile) = named.and_then(parse).filter(|profile| whole.as_ref() != Some(profile)) else {
                continue;
            };
            let Some(container) = container.as_object_mut() else { continue };
            let context = container.entry("securityContext").or_insert_with(|| json!({}));
            if context.is_null() {
                *context = json!({});
            }
            let Some(context) = context.as_object_mut() else { continue };
            if context.get("appArmorProfile").is_none_or(Value::is_null) {
                context.insert("appArmorProfile".into(), profile);
            }
        }
    }
}

fn parse(text: &str) -> Option<Value> {
    match text {
        "runtime/default" => Some(json!({"type": "RuntimeDefault"})),
        "unconfined" => Some(json!({"type": "Unconfined"})),
        other => {
            let profile = other.strip_prefix("localhost/").filter(|profile| !profile.is_empty())?;
            Some(json!({"type": "Localhost", "localhostProfile": profile}))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_follow_annotations() {
        let mut pod = json!({"metadata": {"annotations": {format!("{PREFIX}a"): "localhost/x", format!("{PREFIX}b"): "?"}},
            "spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        from_annotations(&mut pod);
        assert_eq!(
            pod["spec"]["containers"][0]["securityContext"]["appArmorProfile"],
            json!({"type": "Localhost", "localhostProfile": "x"})
        );
        assert!(pod["spec"]["containers"][1].get("securityContext").is_none());
    }
}
