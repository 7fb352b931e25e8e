use super::*;

const GROUP: &str = "networking.k8s.io";

#[test]
fn ingresses() {
    let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
    let base = json!({"metadata": {"name": "i"}, "spec": {"rules": [{"host": "a.b", "http": {"paths": [
        {"path": "/x", "pathType": "Prefix", "backend": backend}]}}]}});
    let path = "/spec/rules/0/http/paths/0";
    refused(
        &gvk(GROUP, "Ingress"),
        &base,
        &[
            ("/spec/rules", json!([]), "spec: Invalid value: []: either `defaultBackend` or `rules` must be specified"),
            (
                "/spec/rules/0/host",
                json!("10.0.0.1"),
                "spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address",
            ),
            (
                &format!("{path}/path"),
                json!("/a//b"),
                "spec.rules[0].http.paths[0].path: Invalid value: \"/a//b\": must not contain '//'",
            ),
            (
                &format!("{path}/pathType"),
                json!(null),
                "spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified",
            ),
            (
                &format!("{path}/backend"),
                json!({}),
                "spec.rules[0].http.paths[0].backend: Required value: resource or service backend is required",
            ),
            (
                &format!("{path}/backend/service/port"),
                json!({}),
                "spec.rules[0].http.paths[0].backend.service: Required value: port name or number is required",
            ),
        ],
    );
}

#[test]
fn policies() {
    let base = json!({"spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [
        {"from": [{"podSelector": {}}], "ports": [{"port": 80, "protocol": "TCP"}]}]}});
    refused(
        &gvk(GROUP, "NetworkPolicy"),
        &base,
        &[
            ("/spec/ingress/0/from/0", json!({}), "spec.ingress[0].from[0]: Required value: must specify a peer"),
            (
                "/spec/ingress/0/from/0/ipBlock",
                json!({"cidr": "10.0.0.0/8"}),
                "spec.ingress[0].from[0]: Forbidden: may not specify both ipBlock and another peer",
            ),
            (
                "/spec/ingress/0/from/0",
                json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}}),
                "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"10.0.0.0/8\": must be a strict subset of \
                 `cidr`",
            ),
            (
                "/spec/ingress/0/ports/0/endPort",
                json!(70),
                "spec.ingress[0].ports[0].endPort: Invalid value: 70: must be greater than or equal to `port`",
            ),
        ],
    );
}

#[test]
fn classes_and_ranges() {
    refused(
        &gvk(GROUP, "IngressClass"),
        &json!({"spec": {"controller": "a.b/c"}}),
        &[
            ("/spec/controller", json!(""), "spec.controller: Required value"),
            (
                "/spec/parameters",
                json!({"kind": "K", "name": "n", "scope": "Namespace"}),
                "spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'",
            ),
        ],
    );
    let range = |cidrs: Value| json!({"metadata": {"name": "r"}, "spec": {"cidrs": cidrs}});
    let kind = gvk(GROUP, "ServiceCIDR");
    refused(
        &kind,
        &range(json!(["10.0.0.0/24", "fd00::/112"])),
        &[(
            "/spec/cidrs",
            json!(["10.0.0.1/24"]),
            "spec.cidrs[0]: Invalid value: \"10.0.0.1/24\": must not have bits set beyond the prefix length",
        )],
    );
    let one = range(json!(["10.0.0.0/24"]));
    assert_eq!(told(update(&kind, &range(json!(["10.0.0.0/24", "fd00::/112"])), &one, "")), [""; 0]);
    kept(
        &kind,
        &one,
        &[("/spec/cidrs", json!(["10.0.1.0/24"]), "spec.cidrs: Invalid value: [\"10.0.1.0/24\"]: field is immutable")],
    );
    let address = json!({"metadata": {"name": "10.0.0.1"}, "spec": {"parentRef": {"resource": "services", "name": "s",
        "namespace": "d", "group": ""}}});
    refused(
        &gvk(GROUP, "IPAddress"),
        &address,
        &[
            ("/spec/parentRef", json!(null), "spec.parentRef: Required value"),
            (
                "/metadata/name",
                json!("fd00:0::1"),
                "metadata.name: Invalid value: \"fd00:0::1\": must be in canonical form (\"fd00::1\")",
            ),
        ],
    );
}

#[test]
fn endpoints() {
    let base = json!({"subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 1, "protocol": "TCP"}]}]});
    refused(
        &gvk("", "Endpoints"),
        &base,
        &[
            (
                "/subsets/0/addresses",
                json!([]),
                "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`",
            ),
            (
                "/subsets/0/addresses/0/ip",
                json!("127.0.0.1"),
                "subsets[0].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range \
                 (127.0.0.0/8, ::1/128)",
            ),
        ],
    );
    let base = json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}],
        "ports": [{"name": "a", "port": 1, "protocol": "TCP"}]});
    let kind = gvk("discovery.k8s.io", "EndpointSlice");
    refused(
        &kind,
        &base,
        &[
            (
                "/endpoints/0/addresses",
                json!(["fd00::1"]),
                "endpoints[0].addresses[0]: Invalid value: \"fd00::1\": must be an IPv4 address",
            ),
            (
                "/endpoints/0/addresses",
                json!([]),
                "endpoints[0].addresses: Required value: must contain at least 1 address",
            ),
        ],
    );
    kept(
        &kind,
        &with(&base, &[("/endpoints", json!([]))]),
        &[("/addressType", json!("FQDN"), "addressType: Invalid value: \"FQDN\": field is immutable")],
    );
}

#[test]
fn service_traffic() {
    let base = json!({"spec": {"type": "ClusterIP", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
        "sessionAffinity": "None", "ipFamilies": ["IPv4"], "ports": [{"port": 80, "protocol": "TCP"}]}});
    refused(
        &gvk("", "Service"),
        &base,
        &[
            (
                "/spec/externalTrafficPolicy",
                json!("Local"),
                "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible \
                 services",
            ),
            (
                "/spec/healthCheckNodePort",
                json!(30000),
                "spec.healthCheckNodePort: Invalid value: 30000: may only be set when `type` is 'LoadBalancer' and \
                 `externalTrafficPolicy` is 'Local'",
            ),
            (
                "/spec/allocateLoadBalancerNodePorts",
                json!(true),
                "spec.allocateLoadBalancerNodePorts: Forbidden: may only be used when `type` is 'LoadBalancer'",
            ),
            (
                "/spec/loadBalancerSourceRanges",
                json!(["10.0.0.0/8"]),
                "spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
            ),
            (
                "/spec/clusterIPs",
                json!(["10.0.0.1", "10.0.0.2"]),
                "spec.clusterIPs: Invalid value: [\"10.0.0.1\",\"10.0.0.2\"]: may specify no more than one IP for \
                 each IP family",
            ),
            (
                "/spec/ipFamilies",
                json!(["IPv6"]),
                "spec.clusterIPs[0]: Invalid value: \"10.0.0.1\": expected an IPv6 value as indicated by \
                 `ipFamilies[0]`",
            ),
        ],
    );
    let old =
        with(&base, &[("/spec/externalIPs", json!(["010.0.0.9"])), ("/spec/externalTrafficPolicy", json!("Cluster"))]);
    let new = with(&old, &[("/spec/ports/0/port", json!(81))]);
    assert_eq!(told(update(&gvk("", "Service"), &new, &old, "")), [""; 0], "stored addresses are tolerated");
}

#[test]
fn autoscalers() {
    let base = json!({"spec": {"minReplicas": 1, "maxReplicas": 3, "scaleTargetRef":
        {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}, "metrics": [{"type": "Resource", "resource":
            {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]}});
    let target = "/spec/metrics/0/resource/target";
    refused(
        &gvk("autoscaling", "HorizontalPodAutoscaler"),
        &base,
        &[
            ("/spec/maxReplicas", json!(0), "spec.maxReplicas: Required value: must be set and greater than 0"),
            (
                "/spec/minReplicas",
                json!(5),
                "spec.maxReplicas: Invalid value: 3: must be greater than or equal to `minReplicas`",
            ),
            (
                "/spec/scaleTargetRef/apiVersion",
                json!("v1"),
                "spec.scaleTargetRef.apiVersion: Invalid value: \"v1\": apiVersion must specify API group",
            ),
            (
                &format!("{target}/averageValue"),
                json!("1"),
                "spec.metrics[0].resource.target.averageValue: Forbidden: may not set both a target raw value and a \
                 target utilization",
            ),
            (
                "/spec/behavior",
                json!({"scaleUp": {"stabilizationWindowSeconds": 4000, "policies":
                    [{"type": "Pods", "value": 1, "periodSeconds": 1}]}}),
                "spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 4000: must be less than or equal to \
                 3600",
            ),
        ],
    );
}
