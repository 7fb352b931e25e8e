use super::*;

fn kind() -> GroupVersionKind {
    gvk("", "Pod")
}

#[test]
fn containers() {
    refused(
        &kind(),
        &pod(),
        &[
            (
                "/spec/containers/0/env",
                json!([{"name": "A", "valueFrom": {}}]),
                "spec.containers[0].env[0].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, \
                 `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
            ),
            (
                "/spec/containers/0/env",
                json!([{"name": "A", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "spec.x"}}}]),
                "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.x\": error converting \
                 fieldPath: field label not supported: spec.x",
            ),
            (
                "/spec/containers/0/envFrom",
                json!([{}]),
                "spec.containers[0].envFrom: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`",
            ),
            (
                "/spec/containers/0/volumeMounts/0/subPath",
                json!("../x"),
                "spec.containers[0].volumeMounts[0].subPath: Invalid value: \"../x\": must not contain '..'",
            ),
            (
                "/spec/containers/0/volumeMounts/0/mountPropagation",
                json!("Bidirectional"),
                "spec.containers[0].volumeMounts[0].mountPropagation: Forbidden: Bidirectional mount propagation is \
                 available only to privileged containers",
            ),
            (
                "/spec/containers/0/resources/requests",
                json!({"gpus": "1"}),
                "spec.containers[0].resources.requests[gpus]: Invalid value: \"gpus\": must be a standard resource \
                 type or fully qualified",
            ),
            (
                "/spec/containers/0/resources/requests",
                json!({"pods": "1"}),
                "spec.containers[0].resources.requests[pods]: Invalid value: \"pods\": must be a standard resource \
                 for containers",
            ),
            (
                "/spec/containers/0/resources/requests",
                json!({"a.b/gpu": "1"}),
                "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable \
                 resources",
            ),
            (
                "/spec/containers/0/resources",
                json!({"limits": {"hugepages-2Mi": "4Mi"}, "requests": {"hugepages-2Mi": "4Mi"}}),
                "spec.containers[0].resources: Forbidden: HugePages require cpu or memory",
            ),
            (
                "/spec/containers/0/lifecycle",
                json!({"preStop": {"exec": {"command": ["x"]}, "httpGet": {"port": 1}}}),
                "spec.containers[0].lifecycle.preStop.httpGet: Forbidden: may not specify more than 1 handler type",
            ),
            (
                "/spec/containers/0/readinessProbe",
                json!({"tcpSocket": {"port": "a_b"}}),
                "spec.containers[0].readinessProbe.tcpSocket.port: Invalid value: \"a_b\": must contain only \
                 alpha-numeric characters (a-z, 0-9), and hyphens (-)",
            ),
            (
                "/spec/containers/0/securityContext",
                json!({"seccompProfile": {"type": "Localhost"}}),
                "spec.containers[0].securityContext.seccompProfile.localhostProfile: Required value: must be set when \
                 seccomp type is Localhost",
            ),
            (
                "/spec/containers/0/securityContext",
                json!({"runAsUser": -1}),
                "spec.containers[0].securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, \
                 inclusive",
            ),
            (
                "/spec/initContainers",
                json!([{"name": "a", "image": "i"}]),
                "spec.initContainers[0].name: Duplicate value: \"a\"",
            ),
            (
                "/spec/initContainers",
                json!([{"name": "b", "image": "i", "lifecycle": {}}]),
                "spec.initContainers[0].lifecycle: Forbidden: may not be set for init containers without \
                 restartPolicy=Always",
            ),
        ],
    );
}

#[test]
fn ports() {
    let upper = with(&pod(), &[("/spec/containers/0/ports/0/name", json!("UPPER"))]);
    let texts = told(create(&kind(), &upper));
    assert!(texts[0].ends_with("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)"), "{texts:?}");
    let port = json!({"containerPort": 80, "hostPort": 80, "protocol": "TCP"});
    let twice = with(&pod(), &[("/spec/containers/0/ports", json!([port, port]))]);
    let expected = "spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//80\"";
    assert_eq!(told(create(&kind(), &twice)), [expected]);
}

#[test]
fn volumes() {
    let volume = |value: Value| json!([{"name": "v", "emptyDir": {}}, value]);
    let cases = [
        (json!({"name": "w", "secret": {}}), "spec.volumes[1].secret.secretName: Required value"),
        (
            json!({"name": "w", "emptyDir": {}, "hostPath": {"path": "/x", "type": ""}}),
            "spec.volumes[1].hostPath: Forbidden: may not specify more than 1 volume type",
        ),
        (json!({"name": "w"}), "spec.volumes[1]: Required value: must specify a volume type"),
        (json!({"name": "v", "emptyDir": {}}), "spec.volumes[1].name: Duplicate value: \"v\""),
        (
            json!({"name": "w", "nfs": {"server": "s", "path": "x"}}),
            "spec.volumes[1].nfs.path: Invalid value: \"x\": must be an absolute path",
        ),
        (
            json!({"name": "w", "configMap": {"name": "c", "items": [{"key": "k", "path": "..x"}]}}),
            "spec.volumes[1].configMap.items[0].path: Invalid value: \"..x\": must not start with '..'",
        ),
        (
            json!({"name": "w", "configMap": {"name": "c", "defaultMode": 512}}),
            "spec.volumes[1].configMap.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), \
             both inclusive",
        ),
        (
            json!({"name": "w", "projected": {"sources": [{"downwardAPI": {"items": [{"path": "p"}]}}]}}),
            "spec.volumes[1].projected.sources[0].downwardAPI: Required value: one of fieldRef and resourceFieldRef \
             is required",
        ),
    ];
    for (value, expected) in cases {
        let object = with(&pod(), &[("/spec/volumes", volume(value))]);
        assert_eq!(told(create(&kind(), &object)), [expected]);
    }
    let token = json!({"name": "w", "projected": {"sources": [
        {"serviceAccountToken": {"path": "t", "expirationSeconds": 60}}]}});
    let texts = told(create(&kind(), &with(&pod(), &[("/spec/volumes", volume(token))])));
    assert_eq!(
        texts,
        [
            "spec.volumes[1].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 60: may not \
             specify a duration less than 10 minutes",
            "spec.volumes[1].projected.sources[0].serviceAccountToken: Forbidden: must not be specified when \
             serviceAccountName is not set",
        ]
    );
}

#[test]
fn places() {
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let constraint = json!({"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "ScheduleAnyway"});
    refused(
        &kind(),
        &pod(),
        &[
            (
                "/spec/affinity",
                json!({"nodeAffinity": {required: {"nodeSelectorTerms": []}}}),
                "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: \
                 Required value: must have at least one node selector term",
            ),
            (
                "/spec/affinity",
                json!({"podAffinity": {required: [{"labelSelector": {}}]}}),
                "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Required \
                 value: can not be empty",
            ),
            (
                "/spec/topologySpreadConstraints",
                json!([constraint, constraint]),
                "spec.topologySpreadConstraints[1].{topologyKey, whenUnsatisfiable}: Duplicate value: \"{z, \
                 ScheduleAnyway}\"",
            ),
            (
                "/spec/topologySpreadConstraints",
                json!([{"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule", "matchLabelKeys": ["a"]}]),
                "spec.topologySpreadConstraints[0].matchLabelKeys: Forbidden: must not be specified when \
                 labelSelector is not set",
            ),
            (
                "/spec/tolerations/0/operator",
                json!("Near"),
                "spec.tolerations[0].operator: Unsupported value: \"Near\": supported values: \"Equal\", \"Exists\"",
            ),
            (
                "/spec/dnsConfig",
                json!({"nameservers": ["010.0.0.1"]}),
                "spec.dnsConfig.nameservers[0]: Invalid value: \"010.0.0.1\": must not have leading 0s",
            ),
            (
                "/spec/hostAliases",
                json!([{"ip": "x", "hostnames": ["a"]}]),
                "spec.hostAliases[0].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or \
                 2001:db8::ffff)",
            ),
            (
                "/spec/os",
                json!({"name": "plan9"}),
                "spec.os: Unsupported value: \"plan9\": supported values: \"linux\", \"windows\"",
            ),
            (
                "/spec/resourceClaims",
                json!([{"name": "c"}]),
                "spec.resourceClaims[0]: Invalid value: {\"name\":\"c\"}: must specify one of: `resourceClaimName`, \
                 `resourceClaimTemplateName`",
            ),
        ],
    );
    let hosted = with(&pod(), &[("/spec/hostUsers", json!(false)), ("/spec/hostPID", json!(true))]);
    assert_eq!(told(create(&kind(), &hosted)), ["spec.HostPID: Forbidden: when `hostUsers` is false"]);
}

/// A constraint whose keys were merged into its selector at creation stays valid.
#[test]
fn merged_label_keys() {
    let merged = json!([{"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule",
        "matchLabelKeys": ["a"], "labelSelector": {"matchExpressions": [
            {"key": "a", "operator": "In", "values": ["b"]}]}}]);
    assert_eq!(told(create(&kind(), &with(&pod(), &[("/spec/topologySpreadConstraints", merged.clone())]))), [""; 0]);
    let mut named = merged;
    named[0]["labelSelector"]["matchLabels"] = json!({"a": "b"});
    let texts = told(create(&kind(), &with(&pod(), &[("/spec/topologySpreadConstraints", named)])));
    let expected = "spec.topologySpreadConstraints[0].matchLabelKeys[0]: Invalid value: \"a\": exists in both \
                    matchLabelKeys and labelSelector";
    assert_eq!(texts, [expected]);
}

#[test]
fn whole_pods_have_resources() {
    let sized =
        |requests: Value| with(&pod(), &[("/spec/resources", json!({"limits": {"cpu": "4"}, "requests": requests}))]);
    assert_eq!(told(create(&kind(), &sized(json!({"cpu": "2"})))), [""; 0]);
    let expected = "spec.resources.requests[cpu]: Invalid value: \"500m\": must be greater than or equal to aggregate \
                    container requests of 1";
    assert_eq!(told(create(&kind(), &sized(json!({"cpu": "500m"})))), [expected]);
}

#[test]
fn resizes() {
    let resize = |pointer: &str, value: Value| {
        let stored = with(&pod(), &[("/spec/containers/0/resources/limits", json!({"cpu": "2"}))]);
        told(update(&kind(), &with(&stored, &[(pointer, value)]), &stored, "resize"))
    };
    let requests = "/spec/containers/0/resources/requests";
    assert_eq!(resize(requests, json!({"cpu": "1500m"})), [""; 0]);
    assert_eq!(
        resize(requests, json!({})),
        ["spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"]
    );
    assert_eq!(
        resize(requests, json!({"cpu": "1", "ephemeral-storage": "1Gi"})),
        ["spec: Forbidden: only cpu and memory resources are mutable"]
    );
    assert_eq!(
        resize(
            "/spec/containers/0/resources",
            json!({"limits": {"cpu": "1", "memory": "1Gi"},
            "requests": {"cpu": "1", "memory": "1Gi"}})
        ),
        ["spec: Invalid value: \"Guaranteed\": Pod QOS Class may not change as a result of resizing"]
    );
}

#[test]
fn ephemeral_containers_are_only_added() {
    let some = |containers: Value| with(&pod(), &[("/spec/ephemeralContainers", containers)]);
    let one = json!({"name": "e", "image": "i"});
    let through = |new: &Value, old: &Value| told(update(&kind(), new, old, "ephemeralcontainers"));
    assert_eq!(through(&some(json!([one])), &pod()), [""; 0]);
    let removed = through(&pod(), &some(json!([one])));
    let expected = "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"e\" may not be removed\n";
    assert_eq!(removed, [expected]);
    let probed = json!({"name": "e", "image": "i", "livenessProbe": {"tcpSocket": {"port": 1}}});
    let expected = "spec.ephemeralContainers[0].livenessProbe: Forbidden: cannot be set for an Ephemeral Container";
    assert_eq!(through(&some(json!([probed])), &pod()), [expected]);
    let stray = json!({"name": "e", "image": "i", "targetContainerName": "z"});
    let expected = "spec.ephemeralContainers[0].targetContainerName: Not found: \"z\"";
    assert_eq!(through(&some(json!([stray])), &pod()), [expected]);
}

#[test]
fn gated_pods_are_only_narrowed() {
    let term = |values: Value| {
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": values}]}}})
    };
    let one = json!({"key": "a", "operator": "Exists"});
    let two = json!({"key": "b", "operator": "Exists"});
    let gated =
        with(&pod(), &[("/spec/schedulingGates", json!([{"name": "g/h"}])), ("/spec/affinity", term(json!([one])))]);
    let changed = |to: Value| told(update(&kind(), &with(&gated, &[("/spec/affinity", term(to))]), &gated, ""));
    assert_eq!(changed(json!([one, two])), [""; 0]);
    let texts = changed(json!([two]));
    assert!(
        texts.len() == 1 && texts[0].ends_with("only additions are allowed (no mutations or deletions)"),
        "{texts:?}"
    );
}

#[test]
fn profiles_in_annotations_agree_with_fields() {
    let key = "seccomp.security.alpha.kubernetes.io/pod";
    let said = with(
        &pod(),
        &[
            ("/metadata/annotations", json!({key: "unconfined"})),
            ("/spec/securityContext", json!({"seccompProfile": {"type": "RuntimeDefault"}})),
        ],
    );
    let expected =
        "spec.securityContext.seccompProfile.type: Forbidden: seccomp type in annotation and field must match";
    assert_eq!(told(create(&kind(), &said)), [expected]);
}

#[test]
fn fixed_annotations() {
    let key = "container.apparmor.security.beta.kubernetes.io/a";
    let annotated = with(&pod(), &[("/metadata/annotations", json!({key: "unconfined"}))]);
    let expected = format!("metadata.annotations[{key}]: Forbidden: may not add AppArmor annotations");
    assert_eq!(told(update(&kind(), &annotated, &pod(), "")), [expected]);
    let expected = format!("metadata.annotations[{key}]: Forbidden: may not remove or update AppArmor annotations");
    assert_eq!(told(update(&kind(), &pod(), &annotated, "")), [expected]);
}
