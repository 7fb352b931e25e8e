//! Cluster DNS: our own, or CoreDNS where images come from a registry.

use client::ApiErrorExt;
use serde_json::{Value, json};

use crate::{
    client::Cluster,
    config::ClusterConfiguration,
    constants::CONTROL_PLANE_LABEL,
    error::{Context, Error, Result, fail},
    host::Host,
    images,
    patches::Patches,
    rbac,
};

const MANIFEST: &str = include_str!("../../../deploy/addons/cluster-dns.yaml");
const LABEL: &str = "kube-dns";
/// All Deployments that serve the cluster's DNS.
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/kube-system/deployments?labelSelector=k8s-app%3Dkube-dns";

/// The objects of the addon.
pub fn objects(host: &dyn Host, cluster: &ClusterConfiguration, patches: Option<&Patches>) -> Result<Vec<Value>> {
    let mut objects = if images::builds_dns(cluster) { super::render(MANIFEST, cluster)? } else { coredns(cluster)? };
    if let Some(patches) = patches {
        for object in &mut objects {
            if object.get("kind").and_then(Value::as_str) == Some("Deployment") {
                *object = patches.apply(host, "corednsdeployment", object.take())?;
            }
        }
    }
    Ok(objects)
}

/// Brings the objects into the cluster. What users may have changed stays: the Corefile and the number of replicas.
pub async fn apply(host: &dyn Host, api: &Cluster, objects: Vec<Value>) -> Result<()> {
    let replicas = if api.is_told() { None } else { replicas(api).await? };
    for mut object in objects {
        match object.get("kind").and_then(Value::as_str) {
            Some("ConfigMap") => api.create_if_absent(host, &object).await?,
            Some("Service") => service(host, api, object).await?,
            Some("Deployment") => {
                if let Some(replicas) = replicas {
                    object["spec"]["replicas"] = replicas.into();
                }
                api.create_or_update(host, &object).await?;
            }
            _ => api.create_or_update(host, &object).await?,
        }
    }
    Ok(())
}

/// Replicas of the Deployment that is there.
async fn replicas(api: &Cluster) -> Result<Option<i64>> {
    let list = api.get(DEPLOYMENTS).await?;
    let items = list.as_ref().and_then(|l| l.get("items")).and_then(Value::as_array);
    match items.map(Vec::as_slice) {
        None | Some([]) => Ok(None),
        Some([one]) => Ok(one.pointer("/spec/replicas").and_then(Value::as_i64)),
        Some(several) => fail!("multiple DNS addon deployments found: {}", several.len()),
    }
}

/// A Service keeps its address only when it is updated, and the address may be taken by itself: `Invalid`.
async fn service(host: &dyn Host, api: &Cluster, mut object: Value) -> Result<()> {
    if api.is_told() {
        return api.create_or_update(host, &object).await;
    }
    let refused = match api.create_once(&object).await {
        Ok(_) => return Ok(()),
        Err(error) if error.is_already_exists() || error.is_invalid() => error,
        Err(_) => return api.create_or_update(host, &object).await,
    };
    object["metadata"]["resourceVersion"] = "0".into();
    api.replace_once(&object)
        .await
        .map_err(|error| if error.is_not_found() { refused } else { error })
        .map_err(|error| Error::new(crate::client::error_text(&error)))
        .context("unable to create/update the DNS service")?;
    Ok(())
}

/// The objects of CoreDNS.
fn coredns(cluster: &ClusterConfiguration) -> Result<Vec<Value>> {
    let domain = &cluster.networking.dns_domain;
    let watch = json!(["list", "watch"]);
    Ok(vec![
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "coredns", "namespace": "kube-system"},
            "data": {"Corefile": corefile(domain)},
        }),
        rbac::cluster_role(
            "system:coredns",
            json!([
                {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": watch},
                {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": watch},
            ]),
        ),
        rbac::cluster_binding("system:coredns", "system:coredns", &[rbac::service_account("coredns")]),
        json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "coredns", "namespace": "kube-system"},
        }),
        deployment(cluster),
        coredns_service(cluster)?,
    ])
}

/// CoreDNS's configuration.
fn corefile(domain: &str) -> String {
    format!(
        ".:53 {{
    errors
    health {{
       lameduck 5s
    }}
    ready
    kubernetes {domain} in-addr.arpa ip6.arpa {{
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }}
    prometheus :9153
    forward . /etc/resolv.conf {{
       max_concurrent 1000
    }}
    cache 30 {{
       disable success {domain}
       disable denial {domain}
    }}
    loop
    reload
    loadbalance
}}
"
    )
}

fn coredns_service(cluster: &ClusterConfiguration) -> Result<Value> {
    let port = |name: &str, port: u16, protocol: &str| json!({"name": name, "port": port, "protocol": protocol, "targetPort": port});
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": LABEL,
            "namespace": "kube-system",
            "labels": {
                "k8s-app": LABEL,
                "kubernetes.io/cluster-service": "true",
                "kubernetes.io/name": "CoreDNS",
            },
            "annotations": {"prometheus.io/port": "9153", "prometheus.io/scrape": "true"},
        },
        "spec": {
            "clusterIP": cluster.dns_address()?.to_string(),
            "ports": [port("dns", 53, "UDP"), port("dns-tcp", 53, "TCP"), port("metrics", 9153, "TCP")],
            "selector": {"k8s-app": LABEL},
        },
    }))
}

fn deployment(cluster: &ClusterConfiguration) -> Value {
    let port =
        |name: &str, port: u16, protocol: &str| json!({"name": name, "containerPort": port, "protocol": protocol});
    let container = json!({
        "name": "coredns",
        "image": images::dns(cluster),
        "imagePullPolicy": "IfNotPresent",
        "args": ["-conf", "/etc/coredns/Corefile"],
        "resources": {"limits": {"memory": "170Mi"}, "requests": {"cpu": "100m", "memory": "70Mi"}},
        "ports": [
            port("dns", 53, "UDP"),
            port("dns-tcp", 53, "TCP"),
            port("metrics", 9153, "TCP"),
            port("liveness-probe", 8080, "TCP"),
            port("readiness-probe", 8181, "TCP"),
        ],
        "livenessProbe": {
            "httpGet": {"path": "/health", "port": "liveness-probe", "scheme": "HTTP"},
            "initialDelaySeconds": 60, "timeoutSeconds": 5, "successThreshold": 1, "failureThreshold": 5,
        },
        "readinessProbe": {"httpGet": {"path": "/ready", "port": "readiness-probe", "scheme": "HTTP"}},
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
        },
        "volumeMounts": [{"name": "config-volume", "mountPath": "/etc/coredns", "readOnly": true}],
    });
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "coredns", "namespace": "kube-system", "labels": {"k8s-app": LABEL}},
        "spec": {
            "replicas": 2,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "selector": {"matchLabels": {"k8s-app": LABEL}},
            "template": {
                "metadata": {"labels": {"k8s-app": LABEL}},
                "spec": {
                    "priorityClassName": "system-cluster-critical",
                    "serviceAccountName": "coredns",
                    "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{
                        "weight": 100,
                        "podAffinityTerm": {
                            "labelSelector": {"matchExpressions": [
                                {"key": "k8s-app", "operator": "In", "values": [LABEL]},
                            ]},
                            "topologyKey": "kubernetes.io/hostname",
                        },
                    }]}},
                    "tolerations": [
                        {"key": "CriticalAddonsOnly", "operator": "Exists"},
                        {"key": CONTROL_PLANE_LABEL, "effect": "NoSchedule"},
                    ],
                    "nodeSelector": {"kubernetes.io/os": "linux"},
                    "dnsPolicy": "Default",
                    "containers": [container],
                    "volumes": [{
                        "name": "config-volume",
                        "configMap": {"name": "coredns", "items": [{"key": "Corefile", "path": "Corefile"}]},
                    }],
                },
            },
        },
    })
}
