//! kubeadm's phases that talk to an API server, against a real one that serves with kubeadm's own certificates.
//!
//! What starts containers and processes is no part of this: it needs a machine of its own.

use std::process::Command;

use harness::{ApiServer, process::binary};
use kubeadm::{
    config::{Discovery, JoinConfiguration, Period, Timeouts, TokenDiscovery},
    discovery,
    host::LocalHost,
    kubeconfig::Kubeconfig,
    phases::summary,
    token::Token,
};
use serde_json::{Value, json};
use tempfile::TempDir;

const TOKEN: &str = "abcdef.0123456789abcdef";

/// An API server on certificates that kubeadm made, and the directory they are in.
struct Cluster {
    directory: TempDir,
    server: ApiServer,
}

/// Writes the configuration of a cluster with small keys.
fn configure(directory: &TempDir, port: &str) {
    let path = directory.path();
    let text = format!(
        "
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
bootstrapTokens: [{{token: {TOKEN}}}]
localAPIEndpoint: {{advertiseAddress: 127.0.0.1, bindPort: {port}}}
nodeRegistration: {{name: node, criSocket: 'unix:///run/containerd/containerd.sock'}}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
certificatesDir: {}
encryptionAlgorithm: ECDSA-P256
",
        path.join("pki").display()
    );
    std::fs::write(path.join("kubeadm.yaml"), text).expect("configuration file");
}

/// Runs kubeadm; what it printed.
fn kubeadm(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(binary("kubeadm")).args(arguments).output().expect("kubeadm runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

impl Cluster {
    async fn start() -> Self {
        let directory = TempDir::new().expect("temporary directory");
        configure(&directory, "6443");
        let config = directory.path().join("kubeadm.yaml").display().to_string();
        let said = kubeadm(&["init", "phase", "certs", "all", "--config", &config]).expect("certificates");
        assert!(said.contains("[certs] Generating \"apiserver\" certificate and key\n"), "{said}");
        let pki = directory.path().join("pki").display().to_string();
        let flag = |name: &str, file: &str| format!("--{name}={pki}/{file}");
        let flags = [
            flag("client-ca-file", "ca.crt"),
            flag("tls-cert-file", "apiserver.crt"),
            flag("tls-private-key-file", "apiserver.key"),
            flag("service-account-key-file", "sa.pub"),
            flag("service-account-signing-key-file", "sa.key"),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/12".to_owned(),
            "--allow-privileged=true".to_owned(),
            "--enable-bootstrap-token-auth=true".to_owned(),
        ];
        let server = ApiServer::start_with(&flags.iter().map(String::as_str).collect::<Vec<_>>()).await;
        configure(&directory, server.url().rsplit(':').next().unwrap_or_default());
        let cluster = Self { directory, server };
        cluster.phase(&["kubeconfig", "admin"]).expect("admin.conf");
        cluster.phase(&["kubeconfig", "super-admin"]).expect("super-admin.conf");
        cluster
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// One phase of init.
    fn phase(&self, path: &[&str]) -> Result<String, String> {
        let (config, directory) = (self.path("kubeadm.yaml"), self.directory.path().display().to_string());
        let words = [&["init", "phase"][..], path, &["--config", &config, "--kubeconfig-dir", &directory]].concat();
        kubeadm(&words)
    }

    fn admin(&self) -> Kubeconfig {
        let text = std::fs::read_to_string(self.path("admin.conf")).expect("admin.conf");
        Kubeconfig::parse(&text).expect("a kubeconfig")
    }

    async fn get(&self, path: &str) -> Value {
        let request = harness::server::http_get(path);
        self.server.admin().await.request(request).await.expect("an object")
    }

    async fn patch(&self, path: &str, patch: &Value) {
        let request = http::Request::patch(path)
            .header("content-type", "application/merge-patch+json")
            .body(serde_json::to_vec(patch).expect("JSON"))
            .expect("a request");
        self.server.admin().await.request::<Value>(request).await.expect("patched");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn phases_store_the_cluster() {
    let cluster = Cluster::start().await;
    for phase in [&["upload-config", "all"][..], &["bootstrap-token"], &["addon", "all"]] {
        // Twice: whatever is there is brought to the same state.
        cluster.phase(phase).expect("a phase");
        cluster.phase(phase).expect("the same phase");
    }
    let config = cluster.get("/api/v1/namespaces/kube-system/configmaps/kubeadm-config").await;
    let text = config["data"]["ClusterConfiguration"].as_str().expect("a document");
    assert!(text.contains("kind: ClusterConfiguration\nkubernetesVersion: v1.36.0\n"), "{text}");
    for path in [
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/kubeadm:cluster-admins",
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/kubeadm:node-autoapprove-bootstrap",
        "/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system/roles/kubeadm:nodes-kubeadm-config",
        "/api/v1/namespaces/kube-system/configmaps/kubelet-config",
        "/api/v1/namespaces/kube-system/services/kube-dns",
        "/apis/apps/v1/namespaces/kube-system/daemonsets/kube-proxy",
        "/apis/apps/v1/namespaces/kube-system/deployments/coredns",
    ] {
        cluster.get(path).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens() {
    let cluster = Cluster::start().await;
    cluster.phase(&["upload-config", "kubeadm"]).expect("the first use makes the administrator one");
    let admin = cluster.path("admin.conf");
    let token = |words: &[&str]| kubeadm(&[&["token"], words, &["--kubeconfig", &admin]].concat());
    assert_eq!(token(&["list"]).expect("an empty list"), "");
    assert_eq!(
        token(&["create", TOKEN, "--description", "mine", "--ttl", "0"]).expect("a token"),
        format!("{TOKEN}\n")
    );
    let again = token(&["create", TOKEN]).expect_err("the id is taken");
    assert!(again.starts_with("error: a token with id \"abcdef\" already exists\n"), "{again}");
    let list = token(&["list"]).expect("a list");
    let row = list.lines().nth(1).expect("a row");
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(
        cells,
        [
            TOKEN,
            "<forever>",
            "<never>",
            "authentication,signing",
            "mine",
            "system:bootstrappers:kubeadm:default-node-token"
        ]
    );
    let command = token(&["create", "--print-join-command"]).expect("a command");
    assert!(
        command.starts_with("kubeadm join 127.0.0.1:") && command.contains("--discovery-token-ca-cert-hash sha256:")
    );
    assert_eq!(token(&["delete", TOKEN]).expect("gone"), "bootstrap token \"abcdef\" deleted\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_trusts_only_what_is_signed_and_pinned() {
    let cluster = Cluster::start().await;
    cluster.phase(&["bootstrap-token"]).expect("cluster-info");
    let path = "/api/v1/namespaces/kube-public/configmaps/cluster-info";
    let info = cluster.get(path).await;
    let text = info["data"]["kubeconfig"].as_str().expect("a kubeconfig").to_owned();
    let parsed = Token::parse(TOKEN).expect("a token");
    let pin = summary::pins(&LocalHost::default(), &cluster.admin()).expect("a pin").remove(0);
    let endpoint = cluster.server.url().trim_start_matches("https://").to_owned();
    let discover = async |pin: &str| {
        let config = JoinConfiguration {
            discovery: Discovery {
                bootstrap_token: Some(TokenDiscovery {
                    token: TOKEN.into(),
                    api_server_endpoint: endpoint.clone(),
                    ca_cert_hashes: vec![pin.to_owned()],
                    unsafe_skip_ca_verification: false,
                }),
                file: None,
                tls_bootstrap_token: TOKEN.into(),
            },
            timeouts: Some(Timeouts { discovery: Some(Period::seconds(1)), ..Timeouts::default() }),
            ..JoinConfiguration::default()
        };
        discovery::discover(&LocalHost::default(), &config).await.map_err(|error| error.to_string())
    };
    let unsigned = discover(&pin).await.expect_err("there is no signature");
    assert!(
        unsigned.ends_with("could not find a JWS signature in the cluster-info ConfigMap for token ID \"abcdef\""),
        "{unsigned}"
    );
    let sign = |signature: String| json!({"data": {"jws-kubeconfig-abcdef": signature}});
    cluster.patch(path, &sign(discovery::signature(&parsed, "another text"))).await;
    let forged = discover(&pin).await.expect_err("the signature is of another text");
    assert!(forged.contains("failed to verify JWS signature"), "{forged}");
    cluster.patch(path, &sign(discovery::signature(&parsed, &text))).await;
    let wrong = format!("sha256:{}", "0".repeat(64));
    let unpinned = discover(&wrong).await.expect_err("the authority is not pinned");
    assert!(
        unpinned.contains("cluster CA found in cluster-info ConfigMap is invalid: none of the public keys"),
        "{unpinned}"
    );
    let found = discover(&pin).await.expect("a trusted cluster");
    assert_eq!(found.server(), Some(cluster.server.url().as_str()));
    assert_eq!(found.user().and_then(|user| user.get("token")), Some(&Value::from(TOKEN)));
}
