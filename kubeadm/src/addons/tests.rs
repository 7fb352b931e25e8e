use serde_json::{Value, json};

use super::{dns, network, proxy};
use crate::{
    config::{
        ClusterConfiguration,
        component::{self, ComponentConfig, PROXY_API_VERSION},
        defaults::cluster_static,
    },
    host::recorder::Recorder,
};

fn cluster(repository: &str) -> ClusterConfiguration {
    let mut cluster = ClusterConfiguration {
        kubernetes_version: "v1.36.0".into(),
        image_repository: repository.into(),
        ..ClusterConfiguration::default()
    };
    cluster.networking.pod_subnet = "10.244.0.0/16".into();
    cluster_static(&mut cluster);
    cluster
}

fn one<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    objects.iter().find(|o| o["kind"] == kind && o["metadata"]["name"] == name).unwrap()
}

#[test]
fn our_manifests_are_filled_in() {
    let cluster = cluster("");
    let host = Recorder::new();
    let network = network::objects(&cluster).unwrap();
    let dns = dns::objects(&host, &cluster, None).unwrap();
    for object in network.iter().chain(&dns) {
        let text = object.to_string();
        assert!(!text.contains("${"), "{text}");
    }
    assert_eq!(one(&dns, "Service", "kube-dns")["spec"]["clusterIP"], "10.96.0.10");
    let image = &one(&dns, "Deployment", "coredns")["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(image, "registry.k8s.io/cluster-dns:v1.36.0");
}

#[test]
fn coredns_from_a_registry() {
    let objects = dns::objects(&Recorder::new(), &cluster("mirror"), None).unwrap();
    let deployment = one(&objects, "Deployment", "coredns");
    assert_eq!(deployment["spec"]["template"]["spec"]["containers"][0]["image"], "mirror/coredns:v1.14.2");
    assert_eq!(deployment["spec"]["replicas"], 2);
    let corefile = one(&objects, "ConfigMap", "coredns")["data"]["Corefile"].as_str().unwrap();
    assert!(
        corefile.contains("    kubernetes cluster.local in-addr.arpa ip6.arpa {\n       pods insecure\n"),
        "{corefile}"
    );
    let service = one(&objects, "Service", "kube-dns");
    assert_eq!(service["metadata"]["labels"]["kubernetes.io/name"], "CoreDNS");
}

#[test]
fn the_proxy() {
    let host = Recorder::new().with_variable("HTTP_PROXY", "p");
    let cluster = cluster("");
    let mut config = ComponentConfig::new(None, PROXY_API_VERSION, "KubeProxyConfiguration");
    let endpoint = crate::config::ApiEndpoint { advertise_address: "10.0.0.1".into(), bind_port: 6443 };
    component::complete_proxy(&host, &mut config, &cluster, &endpoint);
    let objects = proxy::objects(&host, &cluster, &config, "https://api:6443").unwrap();
    let map = one(&objects, "ConfigMap", "kube-proxy");
    assert_eq!(
        map["data"]["config.conf"],
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nbindAddress: 0.0.0.0\nclientConnection:\n  kubeconfig: \
         /var/lib/kube-proxy/kubeconfig.conf\nclusterCIDR: 10.244.0.0/16\nkind: KubeProxyConfiguration\n"
    );
    let text = |key: &str| map["data"][key].as_str().unwrap();
    let mark = component::checksum([text("config.conf"), text("kubeconfig.conf")]);
    assert_eq!(map["metadata"]["annotations"]["kubeadm.kubernetes.io/component-config.hash"], mark);
    assert_eq!(map["metadata"]["labels"], json!({"app": "kube-proxy"}));
    assert!(text("kubeconfig.conf").contains("    server: https://api:6443\n"));
    let container = &one(&objects, "DaemonSet", "kube-proxy")["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["command"][2], "--hostname-override=$(NODE_NAME)");
    assert_eq!(container["env"][1], json!({"name": "HTTP_PROXY", "value": "p"}));
    let binding = one(&objects, "ClusterRoleBinding", "kubeadm:node-proxier");
    assert_eq!(binding["roleRef"]["name"], "system:node-proxier");
}

#[test]
fn another_pod_network_is_left_alone() {
    let directory = std::path::Path::new("/etc/cni/net.d");
    assert!(!network::is_configured(&Recorder::new(), directory));
    let own = Recorder::new().with_file("/etc/cni/net.d/10-timonel.conflist", "{}");
    assert!(!network::is_configured(&own, directory));
    let other = own.with_file("/etc/cni/net.d/10-flannel.conflist", "{}");
    assert!(network::is_configured(&other, directory));
}
