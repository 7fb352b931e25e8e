//! What debugging containers and the Pods around them may do.

use machinery::decode::decode_yaml;
use serde_json::{Map, Value, json};

use crate::{context::Context, error::CommandError, kubeconfig::files::go_io_text};

/// Names of the profiles.
pub(super) const PROFILES: [&str; 6] = ["legacy", "general", "baseline", "netadmin", "restricted", "sysadmin"];
/// Fields of a container that `--custom` must leave alone.
const FIXED: [&str; 5] = ["name", "command", "image", "lifecycle", "volumeDevices"];

/// Where the container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In the Pod itself.
    Ephemeral,
    /// In a copy of the Pod.
    Copy,
    /// In a Pod of a Node's namespaces.
    Node,
}

/// What a profile sets in the security context.
fn security(profile: &str, place: Place) -> Value {
    match profile {
        "general" if place != Place::Node => json!({"capabilities": {"add": ["SYS_PTRACE"]}}),
        "restricted" => json!({
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": true,
            "seccompProfile": {"type": "RuntimeDefault"},
        }),
        "netadmin" => json!({"capabilities": {"add": ["NET_ADMIN", "NET_RAW"]}}),
        "sysadmin" => json!({"privileged": true}),
        _ => Value::Null,
    }
}

/// Gives a container what the profile says. Capabilities come on top of those that it has.
pub(super) fn apply(profile: &str, place: Place, container: &mut Value) {
    if profile == "baseline" || (profile == "general" && place == Place::Node) {
        if let Some(container) = container.as_object_mut() {
            container.remove("securityContext");
        }
        return;
    }
    let Value::Object(wanted) = security(profile, place) else { return };
    let present = container["securityContext"].as_object().cloned().unwrap_or_default();
    let mut merged = if profile == "restricted" { Map::new() } else { present.clone() };
    for (key, value) in wanted {
        let mut value = value;
        if key == "capabilities" && profile != "restricted" {
            for list in ["add", "drop"] {
                let mut all: Vec<Value> = present
                    .get("capabilities")
                    .and_then(|capabilities| capabilities[list].as_array())
                    .cloned()
                    .unwrap_or_default();
                for more in value[list].as_array().into_iter().flatten() {
                    if !all.contains(more) {
                        all.push(more.clone());
                    }
                }
                if !all.is_empty() {
                    value[list] = Value::Array(all);
                }
            }
        }
        merged.insert(key, value);
    }
    container["securityContext"] = Value::Object(merged);
}

/// The partial container of `--custom`.
pub(super) fn custom(context: &Context) -> Result<Option<Value>, CommandError> {
    let Some(path) = context.flags.non_empty("custom") else { return Ok(None) };
    let text = std::fs::read(path).map_err(|e| {
        let text = go_io_text(&e);
        CommandError::plain(format!("must pass a container spec json file for custom profile: open {path}: {text}"))
    })?;
    let (custom, _) = decode_yaml(&text)
        .map_err(|e| CommandError::plain(format!("{path} does not contain a valid container spec: {e}")))?;
    if !custom.is_object() {
        return Err(CommandError::plain(format!("{path} does not contain a valid container spec")));
    }
    if FIXED.iter().any(|field| !custom[*field].is_null()) {
        return Err(CommandError::plain(
            "name, command, image, lifecycle and volume devices are not modifiable via custom profile",
        ));
    }
    Ok(Some(custom))
}

/// Merges `--custom` into a container.
pub(super) fn customise(container: &mut Value, custom: Option<&Value>) {
    let Some(custom) = custom else { return };
    let pod = |container: &Value| json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [container]}});
    let mut patch = custom.clone();
    patch["name"] = container["name"].clone();
    let (before, patch) = (pod(container), pod(&patch));
    let schema = crate::print::declared::schema(&before);
    if let Some(Ok(merged)) = schema.map(|schema| machinery::patch::strategic::apply(&before, &patch, schema)) {
        *container = merged["spec"]["containers"][0].clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_give_what_they_say() {
        let given = |profile: &str, place| {
            let mut container = json!({"name": "c"});
            apply(profile, place, &mut container);
            container["securityContext"].clone()
        };
        assert_eq!(given("general", Place::Ephemeral), json!({"capabilities": {"add": ["SYS_PTRACE"]}}));
        assert_eq!(given("general", Place::Node), Value::Null);
        assert_eq!(given("baseline", Place::Copy), Value::Null);
        assert_eq!(given("sysadmin", Place::Node), json!({"privileged": true}));
        let mut container = json!({"securityContext": {"runAsUser": 1, "capabilities": {"add": ["SYS_TIME"]}}});
        apply("netadmin", Place::Copy, &mut container);
        let expected = json!({"runAsUser": 1, "capabilities": {"add": ["SYS_TIME", "NET_ADMIN", "NET_RAW"]}});
        assert_eq!(container["securityContext"], expected);
    }

    #[test]
    fn custom_containers_are_merged() {
        let mut container = json!({"name": "c", "image": "i", "env": [{"name": "A", "value": "1"}]});
        let custom = json!({"env": [{"name": "B", "value": "2"}], "securityContext": {"runAsUser": 5}});
        customise(&mut container, Some(&custom));
        assert_eq!(container["securityContext"]["runAsUser"], 5);
        assert_eq!(container["env"].as_array().map(Vec::len), Some(2));
        assert_eq!(container["image"], "i");
    }
}
