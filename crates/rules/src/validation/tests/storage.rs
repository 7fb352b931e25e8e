use super::*;

const GROUP: &str = "storage.k8s.io";

fn volume() -> Value {
    json!({"spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "volumeMode": "Filesystem",
        "hostPath": {"path": "/x"}}})
}

#[test]
fn volumes() {
    let kind = gvk("", "PersistentVolume");
    refused(
        &kind,
        &volume(),
        &[
            ("/spec/hostPath", json!(null), "spec: Required value: must specify a volume type"),
            (
                "/spec/nfs",
                json!({"server": "s", "path": "/"}),
                "spec.nfs: Forbidden: may not specify more than 1 volume type",
            ),
            (
                "/spec/accessModes",
                json!(["ReadWriteOncePod", "ReadOnlyMany"]),
                "spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
            ),
            (
                "/spec/capacity",
                json!({"storage": "0"}),
                "spec.capacity[storage]: Invalid value: \"0\": must be greater than zero",
            ),
        ],
    );
    let moved = with(&volume(), &[("/spec/hostPath/path", json!("/y"))]);
    let texts = told(update(&kind, &moved, &volume(), ""));
    let expected = "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation\n";
    assert!(texts.len() == 1 && texts[0].starts_with(expected), "{texts:?}");
    let placed = |key: &str| {
        let term = json!({"matchExpressions": [{"key": key, "operator": "Exists"}]});
        with(&volume(), &[("/spec/nodeAffinity", json!({"required": {"nodeSelectorTerms": [term]}}))])
    };
    let (beta, stable) = (placed("failure-domain.beta.kubernetes.io/zone"), placed("topology.kubernetes.io/zone"));
    assert_eq!(told(update(&kind, &stable, &beta, "")), [""; 0]);
    let texts = told(update(&kind, &placed("other"), &beta, ""));
    assert!(texts[0].ends_with("field is immutable, except for updating from beta label to GA"), "{texts:?}");
}

#[test]
fn claims() {
    let base = json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    refused(
        &gvk("", "PersistentVolumeClaim"),
        &base,
        &[
            (
                "/spec/resources/requests/storage",
                json!("0"),
                "spec.resources[storage]: Invalid value: \"0\": must be greater than zero",
            ),
            (
                "/spec/accessModes",
                json!(["Sometimes"]),
                "spec.accessModes: Unsupported value: \"Sometimes\": supported values: \"ReadOnlyMany\", \
                 \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"",
            ),
        ],
    );
}

#[test]
fn classes() {
    let class = json!({"metadata": {"name": "c"}, "provisioner": "a.b/c", "reclaimPolicy": "Delete",
        "volumeBindingMode": "Immediate", "parameters": {"a": "b"}});
    let kind = gvk(GROUP, "StorageClass");
    refused(&kind, &class, &[("/provisioner", json!(""), "provisioner: Required value")]);
    kept(
        &kind,
        &class,
        &[
            ("/parameters", json!({}), "parameters: Forbidden: updates to parameters are forbidden."),
            (
                "/volumeBindingMode",
                json!("WaitForFirstConsumer"),
                "volumeBindingMode: Invalid value: \"WaitForFirstConsumer\": field is immutable",
            ),
        ],
    );
    let class = json!({"driverName": "d", "parameters": {"a": "b"}});
    let kind = gvk(GROUP, "VolumeAttributesClass");
    refused(
        &kind,
        &class,
        &[("/parameters", json!({}), "parameters: Required value: must contain at least one parameter")],
    );
    kept(&kind, &class, &[("/driverName", json!("e"), "driverName: Forbidden: updates to driverName are forbidden.")]);
}

#[test]
fn drivers() {
    let driver =
        json!({"metadata": {"name": "d"}, "spec": {"attachRequired": true, "volumeLifecycleModes": ["Persistent"]}});
    kept(
        &gvk(GROUP, "CSIDriver"),
        &driver,
        &[("/spec/attachRequired", json!(false), "spec.attachedRequired: Invalid value: false: field is immutable")],
    );
    let node = json!({"spec": {"drivers": [{"name": "d", "nodeID": "n"}]}});
    let kind = gvk(GROUP, "CSINode");
    refused(&kind, &node, &[("/spec/drivers/0/nodeID", json!(""), "spec.drivers[0].nodeID: Required value")]);
    let counted = with(&node, &[("/spec/drivers/0/allocatable", json!({"count": 3}))]);
    assert_eq!(told(update(&kind, &counted, &node, "")), [""; 0]);
    let attachment = json!({"spec": {"attacher": "d", "nodeName": "n", "source": {"persistentVolumeName": "v"}}});
    let kind = gvk(GROUP, "VolumeAttachment");
    refused(
        &kind,
        &attachment,
        &[(
            "/spec/source",
            json!({}),
            "spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName",
        )],
    );
    let texts = told(update(&kind, &with(&attachment, &[("/spec/nodeName", json!("m"))]), &attachment, ""));
    assert!(texts.len() == 1 && texts[0].ends_with("field is immutable"), "{texts:?}");
}

#[test]
fn quotas_and_ranges() {
    let quota = json!({"spec": {"hard": {"pods": "3", "count/a.b": "1"}}});
    let kind = gvk("", "ResourceQuota");
    refused(
        &kind,
        &quota,
        &[
            (
                "/spec/hard",
                json!({"apples": "1"}),
                "spec.hard[apples]: Invalid value: \"apples\": must be a standard resource for quota",
            ),
            (
                "/spec/scopes",
                json!(["BestEffort", "NotBestEffort"]),
                "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\"]: conflicting scopes",
            ),
        ],
    );
    kept(
        &kind,
        &quota,
        &[("/spec/scopes", json!(["BestEffort"]), "spec.scopes: Invalid value: [\"BestEffort\"]: field is immutable")],
    );
    let range = json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "default": {"cpu": "1"}}]}});
    assert_eq!(told(create(&gvk("", "LimitRange"), &range)), [""; 0]);
    let texts = told(create(&gvk("", "LimitRange"), &with(&range, &[("/spec/limits/0/min", json!({"cpu": "3"}))])));
    assert_eq!(
        texts,
        [
            "spec.limits[0].min[cpu]: Invalid value: \"3\": min value 3 is greater than max value 2",
            "spec.limits[0].default[cpu]: Invalid value: \"1\": min value 3 is greater than default value 1",
        ]
    );
    let claims = json!({"spec": {"limits": [{"type": "PersistentVolumeClaim"}]}});
    let expected = "spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but \
                    neither was provided";
    assert_eq!(told(create(&gvk("", "LimitRange"), &claims)), [expected]);
}
