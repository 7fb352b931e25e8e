use std::sync::Arc;

use controller::{Cached, ObjectKey};
use serde_json::json;

use super::*;
use crate::{
    objects::{ClaimRef, ClaimView, ClassView, VolumeView},
    plugins::testing::{Fixture, pod_view},
};

fn cached<V>(key: ObjectKey, view: V) -> Cached<V> {
    Cached { uid: format!("uid-{}", key.name), key, resource_version: "1".into(), view }
}

fn with_claim(storage: &Storage, name: &str, edit: impl FnOnce(&mut ClaimView)) {
    let mut view =
        ClaimView { class: "local".into(), size: 10, modes: vec!["ReadWriteOnce".into()], ..ClaimView::default() };
    edit(&mut view);
    storage.claims.apply(cached(ObjectKey::new("default", name), view));
}

fn with_volume(storage: &Storage, name: &str, size: i64, node: &str) {
    let nodes = json!({"nodeSelectorTerms": [{"matchExpressions": [
        {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    ]}]});
    let view = VolumeView {
        class: "local".into(),
        size,
        modes: vec!["ReadWriteOnce".into()],
        nodes: Some(serde_json::from_value(nodes).unwrap()),
        available: true,
        ..VolumeView::default()
    };
    storage.volumes.apply(cached(ObjectKey::cluster(name), view));
}

fn with_class(storage: &Storage, provisioner: Option<&str>, waits: bool) {
    let view = ClassView { provisioner: provisioner.map(Into::into), waits, topologies: Vec::new() };
    storage.classes.apply(cached(ObjectKey::cluster("local"), view));
}

fn using(name: &str) -> Arc<crate::objects::PodView> {
    let volume = json!([{"name": "v", "persistentVolumeClaim": {"claimName": name}}]);
    pod_view("p", |p| p.spec("volumes", volume))
}

fn scene() -> (Fixture, Arc<Storage>) {
    let mut fixture = Fixture::new();
    fixture.node("a", |n| n);
    fixture.node("b", |n| n);
    (fixture, Storage::empty())
}

#[test]
fn claims_that_are_not_ready() {
    let (mut fixture, storage) = scene();
    let plugin = VolumeBinding(Arc::clone(&storage));
    let mut told = |pod: &crate::objects::PodView| fixture.filter(&plugin, pod).remove(0);
    assert_eq!(told(&using("c")), ("*".into(), "persistentvolumeclaim \"c\" not found".into()));
    with_class(&storage, None, false);
    with_claim(&storage, "c", |_| {});
    assert_eq!(told(&using("c")).1, "pod has unbound immediate PersistentVolumeClaims");
    with_claim(&storage, "d", |c| c.terminating = true);
    assert_eq!(told(&using("d")).1, "persistentvolumeclaim \"d\" is being deleted");
    with_claim(&storage, "l", |c| {
        c.lost = true;
        c.volume = "gone".into();
    });
    assert_eq!(told(&using("l")).1, "persistentvolumeclaim \"l\" bound to non-existent persistentvolume \"gone\"");
    let ephemeral = pod_view("p", |p| p.spec("volumes", json!([{"name": "v", "ephemeral": {}}])));
    let waiting = "waiting for ephemeral volume controller to create the persistentvolumeclaim \"p-v\"";
    assert_eq!(told(&ephemeral).1, waiting);
    with_claim(&storage, "e", |c| {
        c.bound = true;
        c.volume = "gone".into();
    });
    assert_eq!(told(&using("e")).1, "!node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)");
}

#[test]
fn bound_volumes_tie_a_pod_to_their_nodes() {
    let (mut fixture, storage) = scene();
    with_volume(&storage, "v", 10, "b");
    with_claim(&storage, "c", |c| {
        c.bound = true;
        c.volume = "v".into();
    });
    let plugin = VolumeBinding(Arc::clone(&storage));
    assert_eq!(fixture.passing(&plugin, &using("c")), ["b"]);
    assert_eq!(fixture.filter(&plugin, &using("c"))[0].1, "!node(s) didn't match PersistentVolume's node affinity");
}

#[test]
fn the_smallest_volume_that_fits_is_set_aside() {
    let (mut fixture, storage) = scene();
    with_class(&storage, None, true);
    with_claim(&storage, "c", |_| {});
    with_volume(&storage, "small", 5, "a");
    with_volume(&storage, "large", 100, "b");
    with_volume(&storage, "right", 10, "b");
    let plugin = VolumeBinding(Arc::clone(&storage));
    assert_eq!(fixture.passing(&plugin, &using("c")), ["b"]);
    let told = fixture.filter(&plugin, &using("c"));
    assert_eq!(told[0].1, "!node(s) didn't find available persistent volumes to bind");
    let b = fixture.cluster.nodes.find("b").unwrap();
    let plan = storage.reserve(&using("c"), &fixture.cluster, b).unwrap();
    assert_eq!(storage.reserved.lock().keys().map(|k| &**k).collect::<Vec<_>>(), ["right"]);
    with_claim(&storage, "other", |_| {});
    let other = storage.reserve(&using("other"), &fixture.cluster, b).unwrap();
    assert!(storage.reserved.lock().contains_key("large"));
    with_claim(&storage, "third", |_| {});
    assert!(storage.reserve(&using("third"), &fixture.cluster, b).is_none());
    storage.release(&plan);
    storage.release(&other);
    assert!(storage.reserved.lock().is_empty());
}

#[test]
fn volumes_can_be_made() {
    let (mut fixture, storage) = scene();
    with_class(&storage, Some("example.com/maker"), true);
    with_claim(&storage, "c", |_| {});
    let plugin = VolumeBinding(Arc::clone(&storage));
    assert_eq!(fixture.passing(&plugin, &using("c")), ["a", "b"]);
    with_claim(&storage, "c", |c| c.selected_node = Some("a".into()));
    assert_eq!(fixture.passing(&plugin, &using("c")), ["a"]);
}

#[test]
fn drivers_tell_their_room() {
    let (mut fixture, storage) = scene();
    with_class(&storage, Some("csi.example.com"), true);
    with_claim(&storage, "c", |_| {});
    storage
        .csi_drivers
        .apply(cached(ObjectKey::cluster("csi.example.com"), crate::objects::CsiDriverView { tells_capacity: true }));
    let plugin = VolumeBinding(Arc::clone(&storage));
    assert_eq!(fixture.filter(&plugin, &using("c"))[0].1, "!node(s) did not have enough free storage");
    for (node, largest) in [("a", 5), ("b", 50)] {
        let nodes = machinery::selector::LabelSelector::parse(&format!("kubernetes.io/hostname={node}")).unwrap();
        let view = crate::objects::CapacityView { class: "local".into(), nodes: Some(nodes), largest: Some(largest) };
        storage.capacities.apply(cached(ObjectKey::new("driver", node), view));
    }
    assert_eq!(fixture.passing(&plugin, &using("c")), ["b"]);
}

#[test]
fn one_pod_only() {
    let (mut fixture, storage) = scene();
    with_claim(&storage, "c", |c| c.modes = vec!["ReadWriteOncePod".into()]);
    let plugin = VolumeRestrictions(Arc::clone(&storage));
    assert_eq!(fixture.passing(&plugin, &using("c")).len(), 2);
    let volume = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]);
    fixture.bound("user", "a", |p| p.spec("volumes", volume));
    assert!(fixture.passing(&plugin, &using("c")).is_empty());
    fixture.cluster.remove_pod("uid-user");
    assert_eq!(fixture.passing(&plugin, &using("c")).len(), 2);
}

#[test]
fn zones_of_volumes() {
    let (mut fixture, storage) = scene();
    fixture.node("a", |n| n.label("topology.kubernetes.io/zone", "z1"));
    fixture.node("b", |n| n.label("topology.kubernetes.io/zone", "z3"));
    let labels = [("failure-domain.beta.kubernetes.io/zone".to_owned(), "z1__z2".to_owned())].into();
    let view = VolumeView { labels: crate::objects::Labels::new(Some(labels)), ..VolumeView::default() };
    storage.volumes.apply(cached(ObjectKey::cluster("v"), view));
    with_claim(&storage, "c", |c| c.volume = "v".into());
    let plugin = VolumeZone(Arc::clone(&storage));
    assert_eq!(fixture.passing(&plugin, &using("c")), ["a"]);
    assert_eq!(fixture.filter(&plugin, &using("c"))[1].1, "!node(s) had no available volume zone");
}

#[test]
fn drivers_have_limits() {
    let (mut fixture, storage) = scene();
    let limits = [("csi.example.com".into(), 1)].into();
    storage.csi_nodes.apply(cached(ObjectKey::cluster("a"), crate::objects::CsiNodeView { limits }));
    for name in ["v1", "v2"] {
        let csi = Some(("csi.example.com".into(), name.into()));
        storage.volumes.apply(cached(ObjectKey::cluster(name), VolumeView { csi, ..VolumeView::default() }));
        with_claim(&storage, &format!("c-{name}"), |c| c.volume = name.into());
    }
    let plugin = NodeVolumeLimits(Arc::clone(&storage));
    assert_eq!(fixture.passing(&plugin, &using("c-v2")).len(), 2);
    let volume = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c-v1"}}]);
    fixture.bound("user", "a", |p| p.spec("volumes", volume));
    assert_eq!(fixture.passing(&plugin, &using("c-v2")), ["b"]);
    assert_eq!(fixture.filter(&plugin, &using("c-v2"))[0].1, "node(s) exceed max volume count");
    assert_eq!(fixture.passing(&plugin, &using("c-v1")).len(), 2, "the same volume counts once");
}

#[test]
fn what_is_attached_or_will_be_counts_too() {
    let (mut fixture, storage) = scene();
    for node in ["a", "b"] {
        let limits = [("csi.example.com".into(), 1)].into();
        storage.csi_nodes.apply(cached(ObjectKey::cluster(node), crate::objects::CsiNodeView { limits }));
    }
    for name in ["v1", "v2"] {
        let csi = Some(("csi.example.com".into(), name.into()));
        storage.volumes.apply(cached(ObjectKey::cluster(name), VolumeView { csi, ..VolumeView::default() }));
    }
    with_claim(&storage, "c", |c| c.volume = "v2".into());
    let plugin = NodeVolumeLimits(Arc::clone(&storage));
    let attachment = AttachmentView { node: "a".into(), volume: "v1".into() };
    storage.attachments.apply(cached(ObjectKey::cluster("x"), attachment));
    assert_eq!(fixture.passing(&plugin, &using("c")), ["b"]);
    // A volume that is to be made for a Pod that is on its way.
    with_class(&storage, Some("csi.example.com"), true);
    with_claim(&storage, "open", |_| {});
    let volume = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "open"}}]);
    fixture.bound("user", "b", |p| p.spec("volumes", volume));
    assert_eq!(fixture.passing(&plugin, &using("c")), Vec::<String>::new());
}

#[test]
fn a_volume_that_is_meant_for_a_claim_is_its_only_one() {
    let (mut fixture, storage) = scene();
    with_class(&storage, None, true);
    with_claim(&storage, "c", |_| {});
    with_volume(&storage, "free", 10, "a");
    let mine = ClaimRef { namespace: "default".into(), name: "c".into(), uid: "".into() };
    let meant = VolumeView { class: "other".into(), claim: Some(mine), ..view_of(&storage, "free") };
    let reach_b = VolumeView { nodes: node_b(), ..meant };
    storage.volumes.apply(cached(ObjectKey::cluster("meant"), reach_b));
    let plugin = VolumeBinding(Arc::clone(&storage));
    assert_eq!(fixture.passing(&plugin, &using("c")), ["b"]);
    // What is not available yet is nobody's.
    with_claim(&storage, "d", |_| {});
    let early = VolumeView { available: false, ..view_of(&storage, "free") };
    storage.volumes.apply(cached(ObjectKey::cluster("free"), early));
    assert!(fixture.passing(&plugin, &using("d")).is_empty());
}

fn view_of(storage: &Storage, name: &str) -> VolumeView {
    storage.volume(name).unwrap().view.clone()
}

fn node_b() -> Option<crate::objects::NodeSelector> {
    serde_json::from_value(json!({"nodeSelectorTerms": [{"matchExpressions": [
        {"key": "kubernetes.io/hostname", "operator": "In", "values": ["b"]}]}]}))
    .ok()
}

#[test]
fn disks_are_for_one_pod_of_a_node() {
    let rbd = |monitor: &str, read_only: bool| json!({"rbd": {"monitors": [monitor, "m9"], "pool": "p", "image": "i", "readOnly": read_only}});
    let gce = |name: &str, read_only: bool| json!({"gcePersistentDisk": {"pdName": name, "readOnly": read_only}});
    let iscsi = |read_only: bool| json!({"iscsi": {"iqn": "q", "lun": 1, "targetPortal": "t", "readOnly": read_only}});
    let aws = |id: &str| json!({"awsElasticBlockStore": {"volumeID": id, "readOnly": true}});
    let other = json!({"rbd": {"monitors": ["m1"], "pool": "p", "image": "another"}});
    let cases = [
        (gce("a", false), gce("a", false), true),
        (gce("a", true), gce("a", true), false),
        (gce("a", true), gce("a", false), true),
        (gce("a", false), gce("b", false), false),
        (aws("a"), aws("a"), true),
        (aws("a"), aws("b"), false),
        (aws("a"), gce("a", false), false),
        (iscsi(true), iscsi(true), false),
        (iscsi(true), iscsi(false), true),
        (rbd("m1", false), rbd("m2", false), true),
        (rbd("m1", true), rbd("m2", true), false),
        (rbd("m1", false), other, false),
    ];
    for (there, wanted, conflict) in cases {
        let (mut fixture, storage) = scene();
        let plugin = VolumeRestrictions(storage);
        let volumes = |volume: &serde_json::Value| {
            let mut volume = volume.clone();
            volume["name"] = "v".into();
            json!([volume])
        };
        fixture.bound("there", "a", |p| p.spec("volumes", volumes(&there)));
        let told = fixture.filter(&plugin, &pod_view("p", |p| p.spec("volumes", volumes(&wanted))));
        assert_eq!(told[0].1, if conflict { "node(s) had no available disk" } else { "" }, "{there} {wanted}");
        assert_eq!(told[1].1, "");
    }
}
