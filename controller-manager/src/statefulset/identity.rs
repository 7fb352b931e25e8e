//! Names, labels and storage of a StatefulSet's Pods: pure.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{StatefulSet, StatefulSetSpec},
        core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume},
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};

use crate::{
    children::{self, NoLabels, owner_reference},
    views::PodView,
};

/// Label of Pods: the revision of their template.
pub(super) const REVISION: &str = "controller-revision-hash";
const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

pub(super) fn spec(set: &StatefulSet) -> StatefulSetSpec {
    set.spec.clone().unwrap_or_default()
}

pub(super) fn set_name(set: &StatefulSet) -> &str {
    set.metadata.name.as_deref().unwrap_or_default()
}

pub(super) fn pod_name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", set_name(set))
}

/// The ordinal of a Pod, if its name is one of the set's.
pub(super) fn ordinal(set: &StatefulSet, pod: &str) -> Option<i32> {
    let digits = pod.strip_prefix(set_name(set))?.strip_prefix('-')?;
    let number: i32 = digits.parse().ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit()))?;
    Some(number)
}

/// The first ordinal, and the one after the last.
pub(super) fn range(set: &StatefulSet) -> (i32, i32) {
    let spec = set.spec.as_ref();
    let start = spec.and_then(|s| s.ordinals.as_ref()).and_then(|o| o.start).unwrap_or(0);
    (start, start.saturating_add(spec.and_then(|s| s.replicas).unwrap_or(1)))
}

pub(super) fn claim_name(template: &PersistentVolumeClaim, pod: &str) -> String {
    format!("{}-{pod}", template.metadata.name.as_deref().unwrap_or_default())
}

/// The claims of a Pod as they are created.
pub(super) fn claims(set: &StatefulSet, pod: &str) -> Vec<PersistentVolumeClaim> {
    let spec = spec(set);
    let labels = spec.selector.match_labels.unwrap_or_default();
    let templates = spec.volume_claim_templates.into_iter().flatten();
    templates
        .map(|template| {
            let name = claim_name(&template, pod);
            let mut claim = PersistentVolumeClaim { status: None, ..template };
            claim.metadata.name = Some(name);
            claim.metadata.namespace = set.metadata.namespace.clone();
            claim.metadata.labels.get_or_insert_default().extend(labels.clone());
            claim
        })
        .collect()
}

fn identity_labels(name: &str, ordinal: i32) -> [(String, String); 2] {
    [(POD_NAME.into(), name.to_owned()), (POD_INDEX.into(), ordinal.to_string())]
}

/// Whether labels say who the Pod is.
pub(super) fn is_labelled(labels: &BTreeMap<String, String>, name: &str, ordinal: i32) -> bool {
    identity_labels(name, ordinal).iter().all(|(k, v)| labels.get(k) == Some(v))
}

/// Whether a Pod uses its claims.
pub(super) fn has_storage(set: &StatefulSet, pod: &PodView, name: &str) -> bool {
    let templates = set.spec.as_ref().and_then(|s| s.volume_claim_templates.as_ref()).into_iter().flatten();
    templates.into_iter().all(|t| {
        let volume = t.metadata.name.clone().unwrap_or_default();
        pod.claims.contains(&(volume, claim_name(t, name)))
    })
}

/// Gives a Pod its name tags and claims.
pub(super) fn identify(set: &StatefulSet, pod: &mut Pod, ordinal: i32) {
    let name = pod_name(set, ordinal);
    pod.metadata.labels.get_or_insert_default().extend(identity_labels(&name, ordinal));
    let templates = spec(set).volume_claim_templates.unwrap_or_default();
    if templates.is_empty() {
        return;
    }
    let spec = pod.spec.get_or_insert_default();
    let others = spec.volumes.take().unwrap_or_default();
    let mut volumes: Vec<Volume> = templates
        .iter()
        .map(|t| Volume {
            name: t.metadata.name.clone().unwrap_or_default(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim_name(t, &name),
                read_only: Some(false),
            }),
            ..Volume::default()
        })
        .collect();
    volumes.extend(others.into_iter().filter(|v| !templates.iter().any(|t| t.metadata.name.as_ref() == Some(&v.name))));
    spec.volumes = Some(volumes);
}

/// A new Pod of a template.
pub(super) fn pod(
    set: &StatefulSet,
    template: &PodTemplateSpec,
    revision: &str,
    ordinal: i32,
) -> Result<Pod, NoLabels> {
    let owner: OwnerReference = owner_reference(set);
    let name = pod_name(set, ordinal);
    let mut pod = children::pod_of(template, &children::name_prefix(set_name(set)), &owner)?;
    pod.metadata.name = Some(name.clone());
    pod.metadata.namespace = set.metadata.namespace.clone();
    pod.metadata.labels.get_or_insert_default().insert(REVISION.into(), revision.to_owned());
    identify(set, &mut pod, ordinal);
    let fields = pod.spec.get_or_insert_default();
    fields.hostname = Some(name);
    fields.subdomain = spec(set).service_name.filter(|s| !s.is_empty());
    Ok(pod)
}

/// Who owns a claim: the set, the Pod.
pub(super) fn claim_owners(set: &StatefulSet, ordinal: i32) -> (bool, bool) {
    let policy = set.spec.as_ref().and_then(|s| s.persistent_volume_claim_retention_policy.clone()).unwrap_or_default();
    let deletes = |text: Option<String>| text.as_deref() == Some("Delete");
    let (start, end) = range(set);
    let condemned = !(start..end).contains(&ordinal);
    let by_pod = deletes(policy.when_scaled) && condemned;
    (deletes(policy.when_deleted) && !by_pod, by_pod)
}

/// Owners of a claim as they should be, or `None` if they are right. `pod` is the UID of its Pod.
pub(super) fn owned(
    set: &StatefulSet,
    claim: &PersistentVolumeClaim,
    ordinal: i32,
    pod: Option<&str>,
) -> Option<Vec<OwnerReference>> {
    let (by_set, by_pod) = claim_owners(set, ordinal);
    let present = claim.metadata.owner_references.clone().unwrap_or_default();
    let mut owners = present.clone();
    let own = owner_reference(set);
    owners.retain(|o| o.uid != own.uid && Some(o.uid.as_str()) != pod);
    if by_set {
        owners.push(own);
    } else if let Some(uid) = pod.filter(|_| by_pod) {
        owners.push(OwnerReference {
            api_version: "v1".into(),
            kind: "Pod".into(),
            name: pod_name(set, ordinal),
            uid: uid.to_owned(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        });
    }
    let key = |list: &[OwnerReference]| {
        let mut uids: Vec<String> = list.iter().map(|o| o.uid.clone()).collect();
        uids.sort_unstable();
        uids
    };
    (key(&present) != key(&owners)).then_some(owners)
}

/// Whether somebody else controls a claim.
pub(super) fn is_contested(set: &StatefulSet, claim: &PersistentVolumeClaim, pod: &str) -> bool {
    let owner = ::controller::claim::controller_of(claim.metadata.owner_references.as_deref());
    owner.is_some_and(|o| {
        let ours = Some(&o.uid) == set.metadata.uid.as_ref() || (o.kind == "Pod" && o.name == pod);
        // An earlier set of the name leaves its claims to garbage collection.
        let earlier = o.kind == "StatefulSet" && o.name == set_name(set);
        !(ours || earlier)
    })
}

/// Whether a claim is still owned by an earlier Pod of the name, and so about to be deleted.
pub(super) fn is_stale(claim: &PersistentVolumeClaim, pod: &str) -> bool {
    claim.metadata.owner_references.iter().flatten().any(|o| o.kind == "Pod" && o.name == pod)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn set(policy: Value) -> StatefulSet {
        serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "n", "uid": "s"}, "spec": {
            "replicas": 2, "ordinals": {"start": 5}, "serviceName": "svc", "selector": {"matchLabels": {"a": "b"}},
            "persistentVolumeClaimRetentionPolicy": policy,
            "volumeClaimTemplates": [{"metadata": {"name": "www", "labels": {"l": "m"}}, "spec": {}}],
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [], "volumes": [{"name": "www", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]}}}}))
        .unwrap()
    }

    #[test]
    fn names() {
        let set = set(json!({}));
        assert_eq!(range(&set), (5, 7));
        for (name, expected) in
            [("web-5", Some(5)), ("web-x", None), ("web-", None), ("web-+1", None), ("other-1", None)]
        {
            assert_eq!(ordinal(&set, name), expected, "{name}");
        }
    }

    #[test]
    fn pods_know_who_they_are() {
        let set = set(json!({}));
        let made = pod(&set, &spec(&set).template, "web-rev", 6).unwrap();
        let value = serde_json::to_value(&made).unwrap();
        assert_eq!(
            value["metadata"]["labels"],
            json!({"a": "b", REVISION: "web-rev", POD_NAME: "web-6", POD_INDEX: "6"})
        );
        assert_eq!(
            (value["spec"]["hostname"].clone(), value["spec"]["subdomain"].clone()),
            (json!("web-6"), json!("svc"))
        );
        assert_eq!(value.pointer("/spec/volumes/0/persistentVolumeClaim/claimName"), Some(&json!("www-web-6")));
        assert_eq!(value["spec"]["volumes"].as_array().map(Vec::len), Some(2));
        let claim = &claims(&set, "web-6")[0];
        assert_eq!(claim.metadata.name.as_deref(), Some("www-web-6"));
        assert_eq!(claim.metadata.labels.as_ref().map(BTreeMap::len), Some(2));
    }

    #[test]
    fn owners_of_claims() {
        let owner_uids = |policy: Value, ordinal: i32, present: Value| {
            let claim: PersistentVolumeClaim =
                serde_json::from_value(json!({"metadata": {"ownerReferences": present}})).unwrap();
            let owned = owned(&set(policy), &claim, ordinal, Some("p"));
            owned.map(|o| o.into_iter().map(|o| o.uid).collect::<Vec<_>>())
        };
        let (none, both) = (json!([]), json!({"whenDeleted": "Delete", "whenScaled": "Delete"}));
        let by = |uid: &str| json!([{"apiVersion": "v1", "kind": "K", "name": "x", "uid": uid}]);
        assert_eq!(owner_uids(json!({}), 5, none.clone()), None);
        assert_eq!(owner_uids(json!({}), 5, by("s")), Some(vec![]));
        assert_eq!(owner_uids(json!({"whenDeleted": "Delete"}), 9, none.clone()), Some(vec!["s".into()]));
        assert_eq!(owner_uids(json!({"whenScaled": "Delete"}), 5, by("p")), Some(vec![]));
        assert_eq!(owner_uids(json!({"whenScaled": "Delete"}), 9, none), Some(vec!["p".into()]));
        assert_eq!(owner_uids(both.clone(), 5, by("p")), Some(vec!["s".into()]));
        assert_eq!(owner_uids(both.clone(), 9, by("s")), Some(vec!["p".into()]));
        assert_eq!(owner_uids(both, 9, by("p")), None);
    }
}
