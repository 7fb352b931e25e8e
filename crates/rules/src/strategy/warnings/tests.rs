use serde_json::json;

use super::*;

fn told(group: &str, kind: &str, object: &Value) -> Vec<String> {
    of(&GroupVersionKind::new(group, "v1", kind), object, None)
}

#[test]
fn pods() {
    let cases = [
        (
            json!({"nodeSelector": {"beta.kubernetes.io/os": "linux"}}),
            "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
        ),
        (
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "node-role.kubernetes.io/master"}]}]}}}}),
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]\
             .matchExpressions[0].key: node-role.kubernetes.io/master is use \"node-role.kubernetes.io/control-plane\" \
             instead",
        ),
        (
            json!({"topologySpreadConstraints": [{"topologyKey": "z"}]}),
            "spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod",
        ),
        (
            json!({"volumes": [{"name": "g", "gitRepo": {}}]}),
            "spec.volumes[0].gitRepo: deprecated in v1.11, and disabled by default in v1.33+",
        ),
        (
            json!({"volumes": [{"name": "v", "configMap": {"name": "c", "items": [{"path": "a"}, {"path": "a/b"}]}}]}),
            "volume \"v\" (ConfigMap \"c\"): overlapping paths: \"a/b\" with \"a\"",
        ),
        (
            json!({"containers": [{"resources": {"limits": {"memory": "100m"}}}]}),
            "spec.containers[0].resources.limits[memory]: fractional byte value \"100m\" is invalid, must be an \
             integer",
        ),
        (
            json!({"containers": [{"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}]}),
            "spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply",
        ),
        (
            json!({"containers": [{"ports": [{"containerPort": 1, "protocol": "TCP"}]},
                {"ports": [{"containerPort": 1, "protocol": "TCP"}]}]}),
            "spec.containers[1].ports[0]: duplicate port definition with spec.containers[0].ports[0]",
        ),
        (
            json!({"terminationGracePeriodSeconds": -1}),
            "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
        ),
        (
            json!({"hostAliases": [{"ip": "FD00::1"}]}),
            "spec.hostAliases[0].ip: IPv6 address \"FD00::1\" should be in RFC 5952 canonical format (\"fd00::1\")",
        ),
    ];
    for (spec, expected) in cases {
        let object = json!({"metadata": {"name": "p"}, "spec": spec});
        assert_eq!(told("", "Pod", &object), [expected]);
    }
    let placed = json!({"spec": {"template": {"spec": {"nodeSelector": {"beta.kubernetes.io/arch": "a"}}}}});
    assert_eq!(
        told("apps", "Deployment", &placed),
        [
            "spec.template.spec.nodeSelector[beta.kubernetes.io/arch]: deprecated since v1.14; use \"kubernetes.io/arch\" \
          instead"
        ]
    );
    let composed =
        json!({"spec": {"containers": [{"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "$(A)2"}]}]}});
    assert_eq!(told("", "Pod", &composed), [""; 0]);
    let dotted = json!({"metadata": {"name": "a.b"}, "spec": {}});
    assert_eq!(
        told("", "Pod", &dotted),
        ["metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is \
          recommended: [must not contain dots]"]
    );
}

#[test]
fn services_and_volumes() {
    let service = json!({"spec": {"type": "ClusterIP", "clusterIP": "None", "sessionAffinity": "ClientIP",
        "trafficDistribution": "PreferClose", "externalName": "x"}});
    assert_eq!(
        told("", "Service", &service),
        [
            "spec.SessionAffinity is ignored for headless services",
            "spec.externalName is ignored when spec.type is not \"ExternalName\"",
            "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"",
        ]
    );
    let volume = json!({"spec": {"rbd": {}, "persistentVolumeReclaimPolicy": "Recycle"}});
    assert_eq!(told("", "PersistentVolume", &volume)[1], "spec.rbd: deprecated in v1.28, non-functional in v1.31+");
    let policy = json!({"spec": {"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.1/8"}}]}]}});
    assert_eq!(
        told("networking.k8s.io", "NetworkPolicy", &policy),
        ["spec.ingress[0].from[0].ipBlock.cidr: CIDR value \"10.0.0.1/8\" is ambiguous in this context (should be \
          \"10.0.0.0/8\" or \"10.0.0.1/32\"?)"]
    );
}
