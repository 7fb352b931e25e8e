use serde_json::{Value, json};

use super::{control_plane, etcd, etcd::Member};
use crate::{
    config::{
        ApiEndpoint, Arg, ClusterConfiguration, ExternalEtcd, HostPathMount, LocalEtcd, defaults::cluster_static,
    },
    host::recorder::Recorder,
};

fn cluster() -> ClusterConfiguration {
    let mut cluster = ClusterConfiguration { kubernetes_version: "v1.36.0".into(), ..ClusterConfiguration::default() };
    cluster_static(&mut cluster);
    cluster
}

fn endpoint() -> ApiEndpoint {
    ApiEndpoint { advertise_address: "10.0.0.1".into(), bind_port: 6443 }
}

fn pod(host: &Recorder, cluster: &ClusterConfiguration, name: &str) -> Value {
    let endpoint = endpoint();
    let inputs = control_plane::Inputs { host, cluster, endpoint: &endpoint, timeouts: None };
    inputs.component(name).unwrap().to_value()
}

fn command(pod: &Value) -> Vec<String> {
    let words = pod.pointer("/spec/containers/0/command").unwrap().as_array().unwrap();
    words.iter().map(|w| w.as_str().unwrap().to_owned()).collect()
}

fn flag<'a>(command: &'a [String], name: &str) -> Option<&'a str> {
    command.iter().find_map(|word| word.strip_prefix(&format!("--{name}=")))
}

#[test]
fn the_api_server() {
    let host = Recorder::new().with_directory("/usr/share/ca-certificates");
    let pod = pod(&host, &cluster(), "kube-apiserver");
    let command = command(&pod);
    assert_eq!(command[0], "kube-apiserver");
    assert!(command[1..].is_sorted());
    for (name, value) in [
        ("advertise-address", "10.0.0.1"),
        ("audit-log-path", "/var/log/kubernetes/audit/audit.log"),
        ("audit-policy-file", "/etc/kubernetes/pki/audit-policy.yaml"),
        ("encryption-provider-config", "/etc/kubernetes/pki/encryption.yaml"),
        ("authorization-mode", "Node,RBAC"),
        ("etcd-servers", "https://127.0.0.1:2379"),
        ("kubelet-preferred-address-types", "InternalIP,ExternalIP,Hostname"),
        ("service-account-issuer", "https://kubernetes.default.svc.cluster.local"),
        ("service-cluster-ip-range", "10.96.0.0/12"),
        ("tls-private-key-file", "/etc/kubernetes/pki/apiserver.key"),
    ] {
        assert_eq!(flag(&command, name), Some(value), "{name}");
    }
    let annotation = "kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint";
    assert_eq!(pod["metadata"]["annotations"][annotation], "10.0.0.1:6443");
    assert_eq!(pod["metadata"]["labels"], json!({"component": "kube-apiserver", "tier": "control-plane"}));
    let spec = &pod["spec"];
    assert_eq!(spec["priority"], 2_000_001_000);
    assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    let volumes: Vec<&str> = spec["volumes"].as_array().unwrap().iter().map(|v| v["name"].as_str().unwrap()).collect();
    assert_eq!(volumes, ["audit-log", "ca-certs", "k8s-certs", "usr-share-ca-certificates"]);
    let container = &spec["containers"][0];
    assert_eq!(container["image"], "registry.k8s.io/kube-apiserver:v1.36.0");
    assert_eq!(container["resources"], json!({"requests": {"cpu": "250m"}}));
    assert_eq!(
        container["startupProbe"],
        json!({
            "httpGet": {"host": "10.0.0.1", "path": "/livez", "port": "probe-port", "scheme": "HTTPS"},
            "failureThreshold": 24, "initialDelaySeconds": 10, "periodSeconds": 10, "timeoutSeconds": 15,
        })
    );
    assert_eq!(
        container["readinessProbe"],
        json!({
            "httpGet": {"host": "10.0.0.1", "path": "/readyz", "port": "probe-port", "scheme": "HTTPS"},
            "failureThreshold": 3, "periodSeconds": 1, "timeoutSeconds": 15,
        })
    );
}

#[test]
fn arguments_of_the_user() {
    let mut cluster = cluster();
    let arg = |name: &str, value: &str| Arg { name: name.into(), value: value.into() };
    cluster.api_server.extra_args =
        vec![arg("v", "4"), arg("authorization-config", "/a"), arg("secure-port", "7443"), arg("v", "5")];
    cluster.api_server.extra_volumes = vec![HostPathMount {
        name: "audit".into(),
        host_path: "/var/log/audit".into(),
        mount_path: "/audit".into(),
        read_only: false,
        path_type: "DirectoryOrCreate".into(),
    }];
    cluster.api_server.extra_envs = vec![json!({"name": "HTTPS_PROXY", "value": "mine"})];
    let host = Recorder::new().with_variable("HTTPS_PROXY", "theirs").with_variable("no_proxy", "x");
    let pod = pod(&host, &cluster, "kube-apiserver");
    let command = command(&pod);
    assert_eq!(command[command.len() - 4..], ["--v=4", "--authorization-config=/a", "--secure-port=7443", "--v=5"]);
    assert_eq!(flag(&command, "authorization-mode"), None);
    assert_eq!(command.iter().filter(|w| w.starts_with("--secure-port")).count(), 1);
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["env"], json!([{"name": "no_proxy", "value": "x"}, {"name": "HTTPS_PROXY", "value": "mine"}]));
    assert!(container["volumeMounts"].as_array().unwrap().contains(&json!({"name": "audit", "mountPath": "/audit"})));
}

#[test]
fn stores_of_the_api_server() {
    let mut embedded = cluster();
    embedded.api_server.extra_args =
        vec![Arg { name: "embedded-store-dir".into(), value: "/var/lib/timonel/store".into() }];
    assert!(!embedded.has_local_etcd());
    let command_of = |cluster| command(&pod(&Recorder::new(), cluster, "kube-apiserver"));
    assert!(!command_of(&embedded).iter().any(|word| word.starts_with("--etcd")));
    let mut external = cluster();
    external.etcd.local = None;
    external.etcd.external = Some(ExternalEtcd {
        endpoints: vec!["https://a:2379".into(), "https://b:2379".into()],
        ca_file: "/opt/etcd/ca.crt".into(),
        ..ExternalEtcd::default()
    });
    let pod = pod(&Recorder::new(), &external, "kube-apiserver");
    let command = command(&pod);
    assert_eq!(flag(&command, "etcd-servers"), Some("https://a:2379,https://b:2379"));
    assert_eq!(flag(&command, "etcd-cafile"), Some("/opt/etcd/ca.crt"));
    assert_eq!(flag(&command, "etcd-certfile"), None);
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    assert!(
        volumes
            .contains(&json!({"name": "etcd-certs-0", "hostPath": {"path": "/opt/etcd", "type": "DirectoryOrCreate"}}))
    );
}

#[test]
fn the_controller_manager_and_the_scheduler() {
    let host = Recorder::new();
    let plain = command(&pod(&host, &cluster(), "kube-controller-manager"));
    assert_eq!(flag(&plain, "allocate-node-cidrs"), None);
    assert_eq!(flag(&plain, "cluster-signing-key-file"), Some("/etc/kubernetes/pki/ca.key"));
    let mut with_pods = cluster();
    with_pods.networking.pod_subnet = "10.244.0.0/16".into();
    let external_ca = Recorder::new().with_file("/etc/kubernetes/pki/ca.crt", "x");
    let manager = pod(&external_ca, &with_pods, "kube-controller-manager");
    let command_ = command(&manager);
    assert_eq!(flag(&command_, "cluster-cidr"), Some("10.244.0.0/16"));
    assert_eq!(flag(&command_, "cluster-signing-key-file"), Some(""));
    with_pods.networking.pod_subnet = "fd00:2::/48,10.244.0.0/16".into();
    with_pods.networking.service_subnet = "fd00:1::/112,10.96.0.0/16".into();
    let dual = command(&pod(&host, &with_pods, "kube-controller-manager"));
    assert_eq!(flag(&dual, "cluster-cidr"), Some("fd00:2::/48,10.244.0.0/16"));
    assert_eq!(flag(&dual, "service-cluster-ip-range"), Some("fd00:1::/112,10.96.0.0/16"));
    let server = command(&pod(&host, &with_pods, "kube-apiserver"));
    assert_eq!(flag(&server, "service-cluster-ip-range"), Some("fd00:1::/112,10.96.0.0/16"));
    assert_eq!(with_pods.dns_address().unwrap().to_string(), "fd00:1::a");
    let container = &manager["spec"]["containers"][0];
    assert!(container.get("readinessProbe").is_none());
    assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/healthz");
    assert_eq!(container["ports"][0]["containerPort"], 10257);
    let scheduler = pod(&host, &cluster(), "kube-scheduler");
    assert_eq!(
        command(&scheduler),
        [
            "kube-scheduler",
            "--authentication-kubeconfig=/etc/kubernetes/scheduler.conf",
            "--authorization-kubeconfig=/etc/kubernetes/scheduler.conf",
            "--bind-address=127.0.0.1",
            "--kubeconfig=/etc/kubernetes/scheduler.conf",
            "--leader-elect=true"
        ]
    );
    assert_eq!(scheduler["spec"]["containers"][0]["readinessProbe"]["httpGet"]["host"], "127.0.0.1");
}

#[test]
fn a_member_of_etcd() {
    let host = Recorder::new();
    let endpoint = endpoint();
    let mut cluster = cluster();
    let make = |cluster: &ClusterConfiguration, members: &[Member]| {
        etcd::Inputs { host: &host, cluster, endpoint: &endpoint, node: "node", members, timeouts: None }
            .static_pod()
            .to_value()
    };
    let pod = make(&cluster, &[]);
    let words = command(&pod);
    assert_eq!(flag(&words, "initial-cluster"), Some("node=https://10.0.0.1:2380"));
    assert_eq!(flag(&words, "listen-client-urls"), Some("https://127.0.0.1:2379,https://10.0.0.1:2379"));
    assert_eq!(flag(&words, "feature-gates"), Some("InitialCorruptCheck=true"));
    assert_eq!(flag(&words, "watch-progress-notify-interval"), Some("5s"));
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["image"], "registry.k8s.io/etcd:3.6.8-0");
    assert_eq!(
        container["livenessProbe"]["httpGet"],
        json!({"host": "127.0.0.1", "path": "/livez", "port": "probe-port", "scheme": "HTTP"})
    );
    assert_eq!(container["ports"][0]["containerPort"], 2381);
    let members = [
        Member { name: "a".into(), peer_url: "https://10.0.0.9:2380".into() },
        Member { name: "node".into(), peer_url: "https://10.0.0.1:2380".into() },
    ];
    let joined = command(&make(&cluster, &members));
    assert_eq!(flag(&joined, "initial-cluster"), Some("a=https://10.0.0.9:2380,node=https://10.0.0.1:2380"));
    assert_eq!(flag(&joined, "initial-cluster-state"), Some("existing"));
    cluster.etcd.local = Some(LocalEtcd { image_tag: "3.4.23-0".into(), ..cluster.local_etcd() });
    let old = make(&cluster, &[]);
    assert_eq!(flag(&command(&old), "experimental-watch-progress-notify-interval"), Some("5s"));
    assert_eq!(old["spec"]["containers"][0]["readinessProbe"]["httpGet"]["path"], "/health");
}

#[test]
fn manifests_are_private() {
    let host = Recorder::new();
    super::write(&host, "etcd", "a: b\n").unwrap();
    assert_eq!(host.mode("/etc/kubernetes/manifests"), Some(0o700));
    assert_eq!(host.mode("/etc/kubernetes/manifests/etcd.yaml"), Some(0o600));
}
