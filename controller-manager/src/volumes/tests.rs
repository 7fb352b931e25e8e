use serde_json::{Value, json};

use super::*;

fn volume(name: &str, size: &str, more: Value) -> PersistentVolume {
    let mut object = json!({"metadata": {"name": name}, "spec": {"capacity": {"storage": size},
        "accessModes": ["ReadWriteOnce"], "storageClassName": "slow"}, "status": {"phase": "Available"}});
    merge(&mut object, more);
    serde_json::from_value(object).unwrap()
}

fn claim(more: Value) -> PersistentVolumeClaim {
    let mut object = json!({"metadata": {"name": "c", "namespace": "ns", "uid": "u1"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "storageClassName": "slow", "resources": {"requests": {"storage": "5Gi"}}}});
    merge(&mut object, more);
    serde_json::from_value(object).unwrap()
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            from.into_iter().for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value));
        }
        (into, from) => *into = from,
    }
}

fn chosen(volumes: &[PersistentVolume], claim: &PersistentVolumeClaim, reserved_only: bool) -> String {
    matching::best(volumes.iter(), claim, reserved_only).map(|v| name(v).to_owned()).unwrap_or_default()
}

#[test]
fn drivers_take_over_from_provisioners() {
    let claim = |annotations: serde_json::Value| -> PersistentVolumeClaim {
        serde_json::from_value(serde_json::json!({"metadata": {"name": "c", "annotations": annotations}})).unwrap()
    };
    let key = STORAGE_PROVISIONER[0];
    let old = claim(serde_json::json!({key: "kubernetes.io/aws-ebs"}));
    let told = steps::migrated(&old, key).unwrap();
    assert_eq!(annotation(&told, MIGRATED_TO), Some("ebs.csi.aws.com"));
    assert!(steps::migrated(&told, key).is_none());
    let own = claim(serde_json::json!({key: "csi.example.com", MIGRATED_TO: "ebs.csi.aws.com"}));
    assert!(!is_annotated(&steps::migrated(&own, key).unwrap(), MIGRATED_TO));
    assert!(steps::migrated(&claim(serde_json::json!({})), key).is_none());
}

#[test]
fn the_smallest_that_fits_is_taken() {
    let volumes = [
        volume("large", "100Gi", json!({})),
        volume("fit", "6Gi", json!({})),
        volume("small", "4Gi", json!({})),
        volume("many-modes", "5Gi", json!({"spec": {"accessModes": ["ReadWriteOnce", "ReadWriteMany"]}})),
        volume("fast", "5Gi", json!({"spec": {"storageClassName": "fast"}})),
        volume("block", "5Gi", json!({"spec": {"volumeMode": "Block"}})),
        volume("released", "5Gi", json!({"status": {"phase": "Released"}})),
        volume("taken", "5Gi", json!({"spec": {"claimRef": {"namespace": "ns", "name": "other", "uid": "u9"}}})),
    ];
    assert_eq!(chosen(&volumes, &claim(json!({})), false), "fit");
    assert_eq!(chosen(&volumes, &claim(json!({})), true), "");
    assert_eq!(chosen(&volumes, &claim(json!({"spec": {"accessModes": ["ReadWriteMany"]}})), false), "many-modes");
    assert_eq!(chosen(&volumes, &claim(json!({"spec": {"volumeMode": "Block"}})), false), "block");
    let labelled = json!({"spec": {"selector": {"matchLabels": {"a": "b"}}}});
    assert_eq!(chosen(&volumes, &claim(labelled), false), "");
}

#[test]
fn a_reserved_volume_goes_before_others() {
    let reserved = json!({"spec": {"claimRef": {"namespace": "ns", "name": "c"}, "storageClassName": "other"}});
    let volumes = [volume("fit", "5Gi", json!({})), volume("reserved", "50Gi", reserved)];
    assert_eq!(chosen(&volumes, &claim(json!({})), false), "reserved");
    assert_eq!(chosen(&volumes, &claim(json!({})), true), "reserved");
    assert_eq!(chosen(&volumes, &claim(json!({"spec": {"resources": {"requests": {"storage": "60Gi"}}}})), false), "");
}

#[test]
fn mismatches_are_named() {
    let of = |more: Value| matching::mismatch(&volume("v", "5Gi", more), &claim(json!({})));
    assert_eq!(of(json!({})), None);
    assert_eq!(of(json!({"spec": {"capacity": {"storage": "1Gi"}}})).as_deref(), Some("requested PV is too small"));
    let class = of(json!({"spec": {"storageClassName": "fast"}}));
    assert_eq!(class.as_deref(), Some("storageClassName does not match"));
    assert_eq!(of(json!({"spec": {"volumeMode": "Block"}})).as_deref(), Some("incompatible volumeMode"));
    let modes = of(json!({"spec": {"accessModes": ["ReadOnlyMany"]}}));
    assert_eq!(modes.as_deref(), Some("incompatible accessMode"));
}

#[test]
fn every_step_is_taken_once() {
    let (mut v, mut c) = (volume("v", "6Gi", json!({})), claim(json!({})));
    v = steps::volume_names_claim(&v, &c).unwrap();
    assert!(is_annotated(&v, BOUND_BY_CONTROLLER) && is_reserved_for(&v, &c));
    assert_eq!(steps::volume_names_claim(&v, &c), None);
    v = steps::volume_phase(&v, "Bound", "").unwrap();
    assert_eq!(steps::volume_phase(&v, "Bound", ""), None);
    c = steps::claim_names_volume(&c, &v).unwrap();
    assert!(is_annotated(&c, BIND_COMPLETED) && is_annotated(&c, BOUND_BY_CONTROLLER));
    assert_eq!(steps::claim_names_volume(&c, &v), None);
    c = steps::claim_bound(&c, &v).unwrap();
    assert_eq!(c.status.as_ref().and_then(|s| s.capacity.as_ref()?.get("storage")).map(|q| q.0.as_str()), Some("6Gi"));
    assert_eq!(steps::claim_bound(&c, &v), None);
    let free = steps::volume_unbound(&v).unwrap();
    assert!(free.spec.unwrap().claim_ref.is_none());
}

#[test]
fn a_choice_of_the_user_is_kept() {
    let reserved = json!({"spec": {"claimRef": {"namespace": "ns", "name": "c"}}});
    let v = volume("v", "6Gi", reserved);
    let c = claim(json!({"spec": {"volumeName": "v"}}));
    let named = steps::volume_names_claim(&v, &c).unwrap();
    assert!(!is_annotated(&named, BOUND_BY_CONTROLLER));
    assert!(!is_annotated(&steps::claim_names_volume(&c, &v).unwrap(), BOUND_BY_CONTROLLER));
    let free = steps::volume_unbound(&named).unwrap().spec.unwrap().claim_ref.unwrap();
    assert_eq!((free.name.as_deref(), free.uid), (Some("c"), None));
}

#[test]
fn only_directories_below_tmp_are_removed() {
    for (path, may) in [("/tmp/a", true), ("/tmp/a/b", true), ("/tmp", false), ("/tmp/../etc", false), ("/etc", false)]
    {
        assert_eq!(volume::may_be_removed(path), may, "{path}");
    }
}

#[test]
fn finalizers_come_and_go() {
    let of = |meta: Value| {
        let mut object = json!({"metadata": {"name": "c"}});
        merge(&mut object, json!({"metadata": meta}));
        protection::need(&serde_json::from_value::<PersistentVolumeClaim>(object).unwrap(), "f")
    };
    let now = "2024-01-01T00:00:00Z";
    assert_eq!(of(json!({})), protection::Need::Add);
    assert_eq!(of(json!({"finalizers": ["f"]})), protection::Need::Nothing);
    assert_eq!(of(json!({"finalizers": ["f"], "deletionTimestamp": now})), protection::Need::Review);
    assert_eq!(of(json!({"finalizers": ["g"], "deletionTimestamp": now})), protection::Need::Nothing);
}

#[test]
fn ephemeral_claims_belong_to_their_pod() {
    let template = serde_json::from_value(json!({"metadata": {"labels": {"a": "b"}}, "spec": {}})).unwrap();
    let made = ephemeral::claim_of(&ObjectKey::new("ns", "pod"), "u1", "data", &template);
    assert_eq!(name(&made), "pod-data");
    let owner = &made.metadata.owner_references.unwrap()[0];
    assert_eq!((owner.uid.as_str(), owner.controller), ("u1", Some(true)));
}
