//! Decisions about resource claims.

use k8s_openapi::{
    api::resource::v1::{
        DeviceRequestAllocationResult, ResourceClaim, ResourceClaimConsumerReference, ResourceClaimTemplate,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};

use crate::views::PodView;

/// Keeps a claim while devices are allocated for it.
pub(super) const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// Tells which of a Pod's own names a claim was made for.
pub(super) const POD_CLAIM_NAME: &str = "resource.kubernetes.io/pod-claim-name";
/// Consumers that a claim can have.
pub(super) const MAX_CONSUMERS: usize = 256;
/// Length of a name that leaves room for what the API server adds to it.
const MAX_BASE: usize = 57;

/// A Pod for which devices are of no more use: it has ended, or goes without ever having had a node.
pub(crate) fn is_done(pod: &PodView) -> bool {
    pod.phase.is_terminal() || pod.deletion.is_some() && pod.node.is_empty()
}

/// What the name of a generated claim begins with. If it gets too long, both parts lose their share.
fn generate_name(pod: &str, claim: &str) -> String {
    let whole = pod.len() + 1 + claim.len();
    if whole <= MAX_BASE {
        return format!("{pod}-{claim}-");
    }
    let share = |part: &str| part.chars().take(part.len() * MAX_BASE / whole).collect::<String>();
    format!("{}-{}-", share(pod), share(claim))
}

/// The claim that a Pod gets from a template, for its own name `claim`.
pub(super) fn claim_of(
    (namespace, pod, uid): (&str, &str, &str),
    claim: &str,
    template: &ResourceClaimTemplate,
) -> ResourceClaim {
    let given = template.spec.metadata.clone().unwrap_or_default();
    let mut annotations = given.annotations.unwrap_or_default();
    annotations.insert(POD_CLAIM_NAME.to_owned(), claim.to_owned());
    ResourceClaim {
        metadata: ObjectMeta {
            generate_name: Some(generate_name(pod, claim)),
            namespace: Some(namespace.to_owned()),
            labels: given.labels,
            annotations: Some(annotations),
            finalizers: given.finalizers,
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".into(),
                kind: "Pod".into(),
                name: pod.to_owned(),
                uid: uid.to_owned(),
                controller: Some(true),
                block_owner_deletion: None,
            }]),
            ..ObjectMeta::default()
        },
        spec: template.spec.spec.clone(),
        status: None,
    }
}

/// The Pod that a claim was made for.
pub(super) fn owner(claim: &ResourceClaim) -> Option<&OwnerReference> {
    let owner = ::controller::claim::controller_of(claim.metadata.owner_references.as_deref())?;
    (owner.kind == "Pod" && owner.api_version == "v1").then_some(owner)
}

/// Whether a claim was made for the Pod of a UID, and for which of its names.
pub(super) fn made_for<'a>(claim: &'a ResourceClaim, uid: &str) -> Option<&'a str> {
    let annotation = || claim.metadata.annotations.as_ref()?.get(POD_CLAIM_NAME).map(String::as_str);
    owner(claim).filter(|o| o.uid == uid).and_then(|_| annotation())
}

/// Consumers that a claim is reserved for.
pub(crate) fn consumers(claim: &ResourceClaim) -> &[ResourceClaimConsumerReference] {
    claim.status.as_ref().and_then(|s| s.reserved_for.as_deref()).unwrap_or_default()
}

/// Whether a consumer is a Pod.
pub(crate) fn is_pod(consumer: &ResourceClaimConsumerReference) -> bool {
    consumer.resource == "pods" && consumer.api_group.as_deref().unwrap_or_default().is_empty()
}

/// `true` if an administrator's access is asked for.
pub(super) fn admin_access(claim: &ResourceClaim) -> &'static str {
    let requests = claim.spec.devices.iter().flat_map(|devices| devices.requests.iter().flatten());
    let mut exact = requests.filter_map(|request| request.exactly.as_ref());
    if exact.any(|request| request.admin_access == Some(true)) { "true" } else { "false" }
}

/// Full name of a device.
pub(crate) fn device_name(driver: &str, pool: &str, device: &str) -> String {
    format!("{driver}/{pool}/{device}")
}

/// The devices that a claim has, by full name.
pub(crate) fn devices(claim: &ResourceClaim) -> impl Iterator<Item = (String, &DeviceRequestAllocationResult)> {
    let allocation = claim.status.as_ref().and_then(|s| s.allocation.as_ref()?.devices.as_ref());
    let results = allocation.into_iter().flat_map(|devices| devices.results.iter().flatten());
    results.map(|result| (device_name(&result.driver, &result.pool, &result.device), result))
}

/// Whether devices are allocated.
pub(super) fn is_allocated(claim: &ResourceClaim) -> bool {
    claim.status.as_ref().is_some_and(|s| s.allocation.is_some())
}

/// Whether a claim has the finalizer.
pub(super) fn is_kept(claim: &ResourceClaim) -> bool {
    claim.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER)
}

/// Reserves an allocated claim for a Pod that has a node. Tells whether anything changed.
pub(super) fn reserve(claim: &mut ResourceClaim, pod: &str, uid: &str) -> bool {
    let full = consumers(claim).len() >= MAX_CONSUMERS;
    if !is_allocated(claim) || full || consumers(claim).iter().any(|c| c.uid == uid) {
        return false;
    }
    let status = claim.status.get_or_insert_default();
    status.reserved_for.get_or_insert_default().push(ResourceClaimConsumerReference {
        api_group: None,
        resource: "pods".into(),
        name: pod.to_owned(),
        uid: uid.to_owned(),
    });
    true
}

/// Takes consumers away, and the devices with the last one, or if the claim itself goes. Tells whether anything changed.
pub(super) fn release(claim: &mut ResourceClaim, gone: &[String]) -> bool {
    let going = claim.metadata.deletion_timestamp.is_some();
    let Some(status) = claim.status.as_mut() else { return false };
    let before = status.reserved_for.as_ref().map_or(0, Vec::len);
    if let Some(consumers) = &mut status.reserved_for {
        consumers.retain(|c| !gone.contains(&c.uid));
    }
    let left = status.reserved_for.as_ref().map_or(0, Vec::len);
    let freed = left == 0 && status.allocation.is_some() && (left < before || going);
    if freed {
        status.allocation = None;
    }
    freed || left < before
}

/// Removes the finalizer of a claim that holds nothing. Tells whether anything changed.
pub(super) fn let_go(claim: &mut ResourceClaim) -> bool {
    if is_allocated(claim) || !consumers(claim).is_empty() || !is_kept(claim) {
        return false;
    }
    claim.metadata.finalizers.get_or_insert_default().retain(|f| f != FINALIZER);
    true
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::resource::v1::{AllocationResult, ResourceClaimStatus};
    use serde_json::json;

    use super::*;

    fn claim(users: &[&str]) -> ResourceClaim {
        let user = |uid: &&str| ResourceClaimConsumerReference {
            resource: "pods".into(),
            name: format!("pod-{uid}"),
            uid: (*uid).into(),
            api_group: None,
        };
        ResourceClaim {
            metadata: ObjectMeta { finalizers: Some(vec!["own".into(), FINALIZER.into()]), ..ObjectMeta::default() },
            status: Some(ResourceClaimStatus {
                allocation: Some(AllocationResult::default()),
                reserved_for: Some(users.iter().map(user).collect()),
                devices: None,
            }),
            ..ResourceClaim::default()
        }
    }

    #[test]
    fn names_leave_room() {
        assert_eq!(generate_name("web-0", "gpu"), "web-0-gpu-");
        let long = generate_name(&"p".repeat(60), &"c".repeat(20));
        assert_eq!(long, format!("{}-{}-", "p".repeat(42), "c".repeat(14)));
        assert!(long.len() <= MAX_BASE + 1);
    }

    #[test]
    fn claims_are_what_the_template_says() {
        let template: ResourceClaimTemplate = serde_json::from_value(json!({
            "spec": {"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}},
                "spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}]}}},
        }))
        .unwrap();
        let made = claim_of(("ns", "web", "u1"), "gpu", &template);
        assert_eq!(made.metadata.generate_name.as_deref(), Some("web-gpu-"));
        let annotations = made.metadata.annotations.clone().unwrap();
        assert_eq!((annotations["c"].as_str(), annotations[POD_CLAIM_NAME].as_str()), ("d", "gpu"));
        assert_eq!(made.metadata.labels.as_ref().unwrap()["a"], "b");
        assert_eq!(made_for(&made, "u1"), Some("gpu"));
        assert_eq!(made_for(&made, "u2"), None);
        assert_eq!(made.spec.devices.unwrap().requests.unwrap().len(), 1);
        assert_eq!(made.metadata.owner_references.unwrap()[0].block_owner_deletion, None);
    }

    #[test]
    fn the_last_consumer_takes_the_devices_along() {
        let mut both = claim(&["1", "2"]);
        assert!(release(&mut both, &["1".into()]));
        assert!(is_allocated(&both) && consumers(&both).len() == 1);
        assert!(!let_go(&mut both), "it is used");
        assert!(release(&mut both, &["2".into()]));
        assert!(!is_allocated(&both));
        assert!(let_go(&mut both));
        assert_eq!(both.metadata.finalizers, Some(vec!["own".to_owned()]));
        let mut unused = claim(&[]);
        assert!(!release(&mut unused, &[]), "it may be used again");
        unused.metadata.deletion_timestamp = Some(crate::context::now(&*runtime::clock::RealClock::shared()));
        assert!(release(&mut unused, &[]) && !is_allocated(&unused));
    }

    #[test]
    fn reservations_are_made_once() {
        let mut one = claim(&["1"]);
        assert!(!reserve(&mut one, "pod-1", "1"));
        assert!(reserve(&mut one, "pod-2", "2"));
        assert_eq!(consumers(&one).len(), 2);
        let uids: Vec<String> = (0..MAX_CONSUMERS).map(|n| n.to_string()).collect();
        let mut full = claim(&uids.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(!reserve(&mut full, "p", "another"));
        one.status.as_mut().unwrap().allocation = None;
        assert!(!reserve(&mut one, "pod-3", "3"), "the scheduler allocates");
    }
}
