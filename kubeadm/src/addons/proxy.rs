//! kube-proxy.

use serde_json::{Value, json};

use crate::{
    config::{ClusterConfiguration, component::ComponentConfig},
    constants::BOOTSTRAPPERS,
    error::Result,
    host::Host,
    images, manifests,
    phases::upload::component_map,
    rbac, yaml,
};

/// The objects of the addon.
pub fn objects(
    host: &dyn Host,
    cluster: &ClusterConfiguration,
    config: &ComponentConfig,
    server: &str,
) -> Result<Vec<Value>> {
    let mut objects = vec![
        json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "kube-proxy", "namespace": "kube-system"},
        }),
        rbac::cluster_binding("kubeadm:node-proxier", "system:node-proxier", &[rbac::service_account("kube-proxy")]),
    ];
    let tokens = [rbac::group(BOOTSTRAPPERS)];
    objects.extend(rbac::reader("kube-proxy", "kube-system", "configmaps", "kube-proxy", &tokens));
    let data = json!({"config.conf": config.yaml()?, "kubeconfig.conf": yaml::to_yaml(&kubeconfig(server))?});
    let mut map = component_map("kube-proxy", data, config);
    map["metadata"]["labels"] = json!({"app": "kube-proxy"});
    objects.push(map);
    objects.push(daemon_set(host, cluster));
    Ok(objects)
}

fn kubeconfig(server: &str) -> Value {
    let account = "/var/run/secrets/kubernetes.io/serviceaccount";
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "default",
            "cluster": {"certificate-authority": format!("{account}/ca.crt"), "server": server},
        }],
        "contexts": [{"name": "default", "context": {"cluster": "default", "namespace": "default", "user": "default"}}],
        "current-context": "default",
        "users": [{"name": "default", "user": {"tokenFile": format!("{account}/token")}}],
    })
}

fn daemon_set(host: &dyn Host, cluster: &ClusterConfiguration) -> Value {
    let mut env = vec![
        json!({"name": "NODE_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "spec.nodeName"}}}),
    ];
    env.extend(manifests::environment(host, &[]));
    json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "kube-proxy", "namespace": "kube-system", "labels": {"k8s-app": "kube-proxy"}},
        "spec": {
            "selector": {"matchLabels": {"k8s-app": "kube-proxy"}},
            "updateStrategy": {"type": "RollingUpdate"},
            "template": {
                "metadata": {"labels": {"k8s-app": "kube-proxy"}},
                "spec": {
                    "priorityClassName": "system-node-critical",
                    "hostNetwork": true,
                    "serviceAccountName": "kube-proxy",
                    "nodeSelector": {"kubernetes.io/os": "linux"},
                    "tolerations": [{"operator": "Exists"}],
                    "containers": [{
                        "name": "kube-proxy",
                        "image": images::component(cluster, "kube-proxy"),
                        "imagePullPolicy": "IfNotPresent",
                        "command": [
                            "/usr/local/bin/kube-proxy",
                            "--config=/var/lib/kube-proxy/config.conf",
                            "--hostname-override=$(NODE_NAME)",
                        ],
                        "env": env,
                        "securityContext": {"privileged": true},
                        "volumeMounts": [
                            {"name": "kube-proxy", "mountPath": "/var/lib/kube-proxy"},
                            {"name": "xtables-lock", "mountPath": "/run/xtables.lock", "readOnly": false},
                            {"name": "lib-modules", "mountPath": "/lib/modules", "readOnly": true},
                        ],
                    }],
                    "volumes": [
                        {"name": "kube-proxy", "configMap": {"name": "kube-proxy"}},
                        {"name": "xtables-lock", "hostPath": {"path": "/run/xtables.lock", "type": "FileOrCreate"}},
                        {"name": "lib-modules", "hostPath": {"path": "/lib/modules"}},
                    ],
                },
            },
        },
    })
}
