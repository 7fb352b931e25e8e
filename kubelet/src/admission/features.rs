//! What only some nodes can do.

use k8s_openapi::api::core::v1::{AppArmorProfile, Pod};

use super::{Refusal, Support};
use crate::pods;

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
