//! What only some nodes can do.

use k8s_openapi::api::core::v1::{AppArmorProfile, Pod};

use super::{Refusal, Support};
use crate::config::{RESIZE_INIT, RESIZE_POD, RESTART_ALL};
use crate::pods;
use crate::workers::plan::may_restart_all;

const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Decides.
pub(super) fn admit(pod: &Pod, support: Support) -> Result<(), Refusal> {
    if !support.apparmor && needs_apparmor(pod) {
        return Err(Refusal::new("AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host"));
    }
    let context = pods::spec(pod).security_context.as_ref();
    let policy = context.and_then(|context| context.supplemental_groups_policy.as_deref());
    if policy == Some("Strict") && !support.strict_groups {
        let text = "SupplementalGroupsPolicy=Strict is not supported in this node";
        return Err(Refusal::new("SupplementalGroupsPolicyNotSupported", text));
    }
    Ok(())
}

/// Whether the node declares what a Pod needs, which it had with other amounts before.
pub(super) fn admit_declared(
    pod: &Pod,
    before: Option<&Pod>,
    declared: Option<&[&'static str]>,
) -> Result<(), Refusal> {
    let Some(declared) = declared else { return Ok(()) };
    let missing: Vec<&str> = needed(pod, before).into_iter().filter(|name| !declared.contains(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let text = format!("Pod requires node features that are not available: {}", missing.join(", "));
    Err(Refusal::new("PodFeatureUnsupported", text))
}

/// Features that Nodes declare and a Pod needs.
fn needed(pod: &Pod, before: Option<&Pod>) -> Vec<&'static str> {
    let mut names = Vec::new();
    if let Some(before) = before {
        let resources = |pod: &Pod| pods::spec(pod).resources.clone();
        let init = |pod: &Pod| -> Vec<_> {
            let ordinary = pods::init_containers(pod).iter().filter(|container| !pods::is_sidecar(container));
            ordinary.map(|container| (container.name.clone(), container.resources.clone())).collect()
        };
        names.extend((resources(pod) != resources(before)).then_some(RESIZE_POD));
        names.extend((init(pod) != init(before)).then_some(RESIZE_INIT));
    }
    names.extend(may_restart_all(pod).then_some(RESTART_ALL));
    names
}

/// Whether a profile is named, for the Pod or for a container.
fn needs_apparmor(pod: &Pod) -> bool {
    let confines = |profile: Option<&AppArmorProfile>| profile.is_some_and(|profile| profile.type_ != "Unconfined");
    let context = pods::spec(pod).security_context.as_ref();
    let annotated = pod.metadata.annotations.iter().flatten();
    confines(context.and_then(|context| context.app_armor_profile.as_ref()))
        || pods::all_containers(pod).any(|(container, _)| {
            confines(container.security_context.as_ref().and_then(|context| context.app_armor_profile.as_ref()))
        })
        || annotated.into_iter().any(|(key, value)| key.starts_with(ANNOTATION) && value != "unconfined")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn what_the_node_does_not_declare_is_refused() {
        let pod = |spec: Value| -> Pod { serde_json::from_value(json!({ "spec": spec })).unwrap() };
        let rules = json!([{ "action": "RestartAllContainers", "exitCodes": { "operator": "In", "values": [1] } }]);
        let own = json!({ "name": "c", "restartPolicy": "Never", "restartPolicyRules": rules });
        let restarts = pod(json!({ "containers": [own] }));
        let plain = pod(json!({ "containers": [{ "name": "c" }] }));
        let cpu = |cpu: &str| json!({ "requests": { "cpu": cpu } });
        let whole = |amount: &str| pod(json!({ "containers": [{ "name": "c" }], "resources": cpu(amount) }));
        let init = |amount: &str| {
            pod(
                json!({ "containers": [{ "name": "c" }], "initContainers": [{ "name": "i", "resources": cpu(amount) }] }),
            )
        };
        for (wanted, before, missing) in [
            (&plain, None, None),
            (&restarts, None, Some(RESTART_ALL)),
            (&whole("2"), Some(&whole("1")), Some(RESIZE_POD)),
            (&whole("2"), None, None),
            (&init("2"), Some(&init("1")), Some(RESIZE_INIT)),
        ] {
            let all = [RESTART_ALL, RESIZE_POD, RESIZE_INIT];
            assert_eq!(admit_declared(wanted, before, None), Ok(()));
            assert_eq!(admit_declared(wanted, before, Some(&all)), Ok(()));
            let refused = admit_declared(wanted, before, Some(&[])).err();
            let text = |name| format!("Pod requires node features that are not available: {name}");
            assert_eq!(refused.map(|refusal| refusal.message), missing.map(text));
        }
    }

    #[test]
    fn what_the_node_cannot_do_is_refused() {
        let none = Support { apparmor: false, strict_groups: false };
        let all = Support { apparmor: true, strict_groups: true };
        let confined = json!({ "appArmorProfile": { "type": "RuntimeDefault" } });
        let open = json!({ "appArmorProfile": { "type": "Unconfined" } });
        let strict = json!({ "supplementalGroupsPolicy": "Strict" });
        for (pod, own, expected) in [
            (&confined, &open, Some("AppArmor")),
            (&open, &confined, Some("AppArmor")),
            (&open, &open, None),
            (&strict, &open, Some("SupplementalGroupsPolicyNotSupported")),
        ] {
            let make = |pod: &Value, own: &Value| -> Pod {
                let containers = json!([{ "name": "c", "securityContext": own }]);
                serde_json::from_value(json!({ "spec": { "securityContext": pod, "containers": containers } })).unwrap()
            };
            let refused = admit(&make(pod, own), none).err().map(|refusal| refusal.reason);
            assert_eq!(refused.as_deref(), expected, "{pod} {own}");
            assert_eq!(admit(&make(pod, own), all), Ok(()));
        }
    }
}
