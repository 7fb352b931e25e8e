mod networks;
mod pods;
mod statuses;
mod storage;
mod system;

use serde_json::json;

use super::*;

fn gvk(group: &str, kind: &str) -> GroupVersionKind {
    GroupVersionKind::new(group, "v1", kind)
}

fn told(errors: ErrorList) -> Vec<String> {
    errors.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
}

/// `base` with the value at each pointer's parent set, created when missing.
fn with(base: &Value, changes: &[(&str, Value)]) -> Value {
    let mut object = base.clone();
    for (pointer, value) in changes {
        let (parent, field) = pointer.rsplit_once('/').expect("a pointer");
        let parent = object.pointer_mut(parent).expect("a parent");
        match parent {
            Value::Array(list) => list[field.parse::<usize>().expect("an index")] = value.clone(),
            parent => parent[field] = value.clone(),
        }
    }
    object
}

/// Checks that each change alone makes a new object invalid with this one text.
fn refused(kind: &GroupVersionKind, base: &Value, cases: &[(&str, Value, &str)]) {
    assert_eq!(told(create(kind, base)), [""; 0], "the base of {kind:?}");
    for (pointer, value, expected) in cases {
        let texts = told(create(kind, &with(base, &[(pointer, value.clone())])));
        assert_eq!(texts, [*expected], "{pointer} {value}");
    }
}

/// Checks that each change of a stored object is refused with this one text.
fn kept(kind: &GroupVersionKind, base: &Value, cases: &[(&str, Value, &str)]) {
    assert_eq!(told(update(kind, base, base, "")), [""; 0], "the base of {kind:?}");
    for (pointer, value, expected) in cases {
        let texts = told(update(kind, &with(base, &[(pointer, value.clone())]), base, ""));
        assert_eq!(texts, [*expected], "{pointer} {value}");
    }
}

fn pod() -> Value {
    json!({"metadata": {"name": "p", "namespace": "d"}, "spec": {
        "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "volumes": [{"name": "v", "emptyDir": {}}],
        "containers": [{"name": "a", "image": "i:1", "resources": {"requests": {"cpu": "1"}},
            "volumeMounts": [{"name": "v", "mountPath": "/v"}], "ports": [{"containerPort": 80, "protocol": "TCP"}]}],
        "tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
    }})
}

#[test]
fn pods_on_create() {
    let cases = [
        (("/spec/containers", json!([])), "spec.containers: Required value"),
        (("/spec/containers/0/name", json!("")), "spec.containers[0].name: Required value"),
        (("/spec/containers/0/image", json!("")), "spec.containers[0].image: Required value"),
        (
            ("/spec/containers/0/image", json!(" i")),
            "spec.containers[0].image: Invalid value: \" i\": must not have leading or trailing whitespace",
        ),
        (
            ("/spec/containers/0/volumeMounts/0/name", json!("w")),
            "spec.containers[0].volumeMounts[0].name: Not found: \"w\"",
        ),
        (
            ("/spec/containers/0/ports/0/containerPort", json!(70000)),
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            ("/spec/containers/0/resources/limits", json!({"cpu": "500m"})),
            "spec.containers[0].resources.requests: Invalid value: \"1\": must be less than or equal to cpu limit of \
             500m",
        ),
        (
            ("/spec/containers/0/livenessProbe", json!({})),
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
        ),
        (
            ("/spec/restartPolicy", json!("Sometimes")),
            "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \
             \"Never\"",
        ),
        (
            ("/spec/tolerations/0/value", json!("x")),
            "spec.tolerations[0].operator: Invalid value: \"x\": value must be empty when `operator` is 'Exists'",
        ),
        (
            ("/spec/ephemeralContainers", json!([{"name": "e", "image": "i"}])),
            "spec.ephemeralContainers: Forbidden: cannot be set on create",
        ),
    ];
    assert!(create(&gvk("", "Pod"), &pod()).is_empty());
    for (change, expected) in cases {
        assert_eq!(told(create(&gvk("", "Pod"), &with(&pod(), &[change]))), [expected]);
    }
}

#[test]
fn pods_on_update() {
    let allowed = [
        ("/spec/containers/0/image", json!("i:2")),
        ("/spec/activeDeadlineSeconds", json!(5)),
        ("/spec/tolerations/0/tolerationSeconds", json!(7)),
        ("/spec/nodeSelector", json!({})),
        ("/spec/hostNetwork", json!(false)),
        ("/spec/containers/0/resources/requests/cpu", json!("1000m")),
        ("/metadata/labels", json!({"a": "b"})),
    ];
    for change in allowed {
        let new = with(&pod(), &[change]);
        assert_eq!(told(update(&gvk("", "Pod"), &new, &pod(), "")), [""; 0]);
    }
    let refused = [
        (("/spec/containers/0/command", json!(["x"])), "spec: Forbidden: pod updates may not change fields other"),
        (("/spec/containers/0/resources/requests/cpu", json!("2")), "spec: Forbidden: pod updates may not change"),
        (("/spec/nodeName", json!("n")), "spec: Forbidden: pod updates may not change fields other than"),
        (("/spec/automountServiceAccountToken", json!(false)), "spec: Forbidden: pod updates may not change"),
        (
            ("/spec/tolerations", json!([])),
            "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds",
        ),
        (
            ("/spec/schedulingGates", json!([{"name": "g/h"}])),
            "spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'g/h'",
        ),
        (
            ("/spec/initContainers", json!([{"name": "b", "image": "i"}])),
            "spec.initContainers: Forbidden: pod updates may not add or remove containers",
        ),
    ];
    for (change, expected) in refused {
        let texts = told(update(&gvk("", "Pod"), &with(&pod(), &[change]), &pod(), ""));
        assert!(texts.len() == 1 && texts[0].starts_with(expected), "{texts:?}");
    }
    let gated = with(&pod(), &[("/spec/schedulingGates", json!([{"name": "g/h"}]))]);
    let open = with(&pod(), &[("/spec/nodeSelector", json!({"a": "b"}))]);
    assert_eq!(told(update(&gvk("", "Pod"), &open, &gated, "")), [""; 0]);
}

fn workload() -> Value {
    json!({"metadata": {"name": "w"}, "spec": {
        "replicas": 1, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod()["spec"]},
    }})
}

#[test]
fn workloads_on_create_and_update() {
    let deployment = gvk("apps", "Deployment");
    assert!(create(&deployment, &workload()).is_empty());
    let cases = [
        (("/spec/replicas", json!(-1)), "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        (
            ("/spec/template/metadata/labels", json!({"a": "c"})),
            "spec.template.metadata.labels: Invalid value: {\"a\":\"c\"}: `selector` does not match template `labels`",
        ),
        (
            ("/spec/template/spec/restartPolicy", json!("Never")),
            "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
        ),
        (
            ("/spec/strategy", json!({"type": "Recreate", "rollingUpdate": {}})),
            "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
        ),
        (
            ("/spec/strategy", json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 0}})),
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
        ),
    ];
    for (change, expected) in cases {
        assert_eq!(told(create(&deployment, &with(&workload(), &[change]))), [expected]);
    }
    let moved = with(
        &workload(),
        &[("/spec/selector/matchLabels", json!({"x": "y"})), ("/spec/template/metadata/labels", json!({"x": "y"}))],
    );
    let expected = "spec.selector: Invalid value: {\"matchLabels\":{\"x\":\"y\"}}: field is immutable";
    assert_eq!(told(update(&deployment, &moved, &workload(), "")), [expected]);
    let set = with(&workload(), &[("/spec/serviceName", json!("other"))]);
    let texts = told(update(&gvk("apps", "StatefulSet"), &set, &workload(), ""));
    assert!(texts.len() == 1 && texts[0].starts_with("spec: Forbidden: updates to statefulset spec"), "{texts:?}");
}

#[test]
fn jobs() {
    let own = with(&workload(), &[("/spec/manualSelector", json!(true))]);
    let job = with(&own, &[("/spec/template/spec/restartPolicy", json!("Never"))]);
    let kind = gvk("batch", "Job");
    assert!(create(&kind, &job).is_empty());
    let texts = told(create(&kind, &own));
    assert_eq!(texts, ["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""]);
    let other = with(&job, &[("/spec/template/spec/nodeSelector", json!({"a": "b"}))]);
    let texts = told(update(&kind, &other, &job, ""));
    assert!(texts.len() == 1 && texts[0].ends_with("field is immutable"), "{texts:?}");
    let suspended = with(&job, &[("/spec/suspend", json!(true))]);
    assert!(update(&kind, &other, &suspended, "").is_empty());
}

#[test]
fn services() {
    let kind = gvk("", "Service");
    let service = json!({"spec": {"type": "ClusterIP", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
        "sessionAffinity": "None", "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}]}});
    assert!(create(&kind, &service).is_empty());
    let cases = [
        (("/spec/ports", json!([])), "spec.ports: Required value"),
        (
            ("/spec/ports/0/nodePort", json!(30000)),
            "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
        ),
        (
            ("/spec/ports/0/port", json!(0)),
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
        (
            ("/spec/sessionAffinityConfig", json!({"clientIP": {}})),
            "spec.sessionAffinityConfig: Forbidden: must not be set when session affinity is None",
        ),
    ];
    for (change, expected) in cases {
        assert_eq!(told(create(&kind, &with(&service, &[change]))), [expected]);
    }
    let moved = with(&service, &[("/spec/clusterIP", json!("10.0.0.2")), ("/spec/clusterIPs/0", json!("10.0.0.2"))]);
    let expected = "spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\"]: may not change once set";
    assert_eq!(told(update(&kind, &moved, &service, "")), [expected]);
}

#[test]
fn content_of_maps_and_secrets() {
    let map = json!({"immutable": true, "data": {"a": "1"}});
    let kind = gvk("", "ConfigMap");
    assert!(create(&kind, &map).is_empty());
    let changed = with(&map, &[("/data/a", json!("2"))]);
    let expected = "data: Forbidden: field is immutable when `immutable` is set";
    assert_eq!(told(update(&kind, &changed, &map, "")), [expected]);
    let large = json!({"data": {"a": "x".repeat(1024 * 1024 + 1)}});
    assert_eq!(told(create(&kind, &large)), ["[]: Too long: may not be more than 1048576 bytes"]);
    let secret = json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}});
    assert_eq!(told(create(&gvk("", "Secret"), &secret)), ["data[tls.key]: Required value"]);
    let access = json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "eA=="}});
    let texts = told(create(&gvk("", "Secret"), &access));
    assert!(
        texts[0].starts_with("data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\": "),
        "{texts:?}"
    );
    let other = json!({"type": "Opaque", "data": {}});
    let expected = "type: Invalid value: \"Opaque\": field is immutable";
    assert_eq!(told(update(&gvk("", "Secret"), &other, &secret, "")), [expected]);
}

#[test]
fn claims_and_nodes() {
    let kind = gvk("", "PersistentVolumeClaim");
    let claim = json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    assert!(create(&kind, &claim).is_empty());
    let texts = told(create(&kind, &json!({"spec": {}})));
    assert_eq!(
        texts,
        [
            "spec.accessModes: Required value: at least 1 access mode is required",
            "spec.resources[storage]: Required value",
        ]
    );
    let larger = with(&claim, &[("/spec/resources/requests/storage", json!("2Gi"))]);
    let texts = told(update(&kind, &larger, &claim, ""));
    assert!(texts.len() == 1 && texts[0].starts_with("spec: Forbidden: spec is immutable after creation"), "{texts:?}");
    let bound = with(&claim, &[("/status", json!({"phase": "Bound"}))]);
    assert!(update(&kind, &larger, &bound, "").is_empty());
    let named = with(&claim, &[("/spec/volumeName", json!("v"))]);
    assert!(update(&kind, &named, &claim, "").is_empty());
    let node = json!({"spec": {"podCIDRs": ["10.0.0.0/24"], "podCIDR": "10.0.0.0/24"}});
    let moved = with(&node, &[("/spec/podCIDRs", json!(["10.0.1.0/24"]))]);
    let expected = "spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid";
    assert_eq!(told(update(&gvk("", "Node"), &moved, &node, "")), [expected]);
}

#[test]
fn roles_and_classes() {
    let role = json!({"rules": [{"verbs": [], "apiGroups": [""], "resources": ["pods"]}]});
    let texts = told(create(&gvk("rbac.authorization.k8s.io", "Role"), &role));
    assert_eq!(texts, ["rules[0].verbs: Required value: verbs must contain at least one value"]);
    let binding = json!({"roleRef": {"kind": "ClusterRole", "name": "a"}, "subjects": []});
    let other = with(&binding, &[("/roleRef/name", json!("b"))]);
    let texts = told(update(&gvk("rbac.authorization.k8s.io", "ClusterRoleBinding"), &other, &binding, ""));
    assert!(texts.len() == 1 && texts[0].ends_with("cannot change roleRef"), "{texts:?}");
    let class = json!({"metadata": {"name": "a"}, "value": 5});
    let other = with(&class, &[("/value", json!(6))]);
    let texts = told(update(&gvk("scheduling.k8s.io", "PriorityClass"), &other, &class, ""));
    assert_eq!(texts, ["value: Forbidden: may not be changed in an update."]);
}
