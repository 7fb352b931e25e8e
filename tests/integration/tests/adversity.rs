//! What goes wrong outside: certificates, disks, etcd. Each gives a clear error, nothing crashes, nothing is lost.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use harness::{
    ApiServer, Kubectl,
    process::{Process, free_port},
    server::{ADMIN_TOKEN, http_get},
    wait_until,
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

fn config_map(name: &str, bytes: usize) -> ConfigMap {
    let object = json!({"metadata": {"name": name}, "data": {"key": "x".repeat(bytes)}});
    serde_json::from_value(object).expect("a ConfigMap")
}

fn config_maps(client: &Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), "default")
}

/// The Status of a failed request.
fn status(error: kube::Error) -> Value {
    match error {
        kube::Error::Api(status) => serde_json::to_value(&*status).expect("a Status"),
        other => panic!("not a Status: {other}"),
    }
}

fn stock(kubeconfig: &Path) -> Kubectl {
    Kubectl::new(Kubectl::stock().pop().expect("STOCK_KUBECTL names a kubectl"), kubeconfig)
}

/// A certificate authority whose certificates end when a test says.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "test-ca");
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    /// Certificate and key, as files.
    fn issue(&self, directory: &Path, name: &str, last_year: i32) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:masters");
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(last_year, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        let files = (directory.join(format!("{name}.crt")), directory.join(format!("{name}.key")));
        std::fs::write(&files.0, certificate.pem()).expect("certificate file");
        std::fs::write(&files.1, key.serialize_pem()).expect("key file");
        files
    }

    fn file(&self, directory: &Path) -> PathBuf {
        let file = directory.join("ca.crt");
        std::fs::write(&file, self.0.pem()).expect("certificate file");
        file
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_certificates_are_refused_and_named() {
    let directory = TempDir::new().expect("a directory");
    let authority = Authority::new();
    let ca = authority.file(directory.path());
    let (served, served_key) = authority.issue(directory.path(), "server", 2021);
    let server = ApiServer::start_with(&[
        &format!("--client-ca-file={}", ca.display()),
        &format!("--tls-cert-file={}", served.display()),
        &format!("--tls-private-key-file={}", served_key.display()),
    ])
    .await;
    let kubeconfig = server.kubeconfig_file(ADMIN_TOKEN);
    let as_user = |name: &str, last_year: i32| {
        let (certificate, key) = authority.issue(directory.path(), name, last_year);
        let user = format!("--client-certificate={} --client-key={}", certificate.display(), key.display());
        let url = server.url();
        let anonymous = directory.path().join("empty");
        stock(&anonymous).run(&format!("get namespaces {user} --server={url} --insecure-skip-tls-verify"))
    };
    let valid = tokio::task::block_in_place(|| as_user("valid", 2200));
    assert_eq!(valid.code, 0, "{}", valid.err);
    let expired = tokio::task::block_in_place(|| as_user("expired", 2021));
    assert_eq!(expired.code, 1);
    assert!(expired.err.contains("You must be logged in to the server"), "{}", expired.err);
    let log = std::fs::read_to_string(server.path().join("log")).expect("the log");
    assert!(log.contains("certificate has expired or is not yet valid"), "{log}");
    // The server's own: clients that verify it say why they do not go on.
    let verified = tokio::task::block_in_place(|| {
        let text = std::fs::read_to_string(&kubeconfig).expect("the kubeconfig");
        let file = directory.path().join("verifying");
        let trusted = format!("certificate-authority: {}", ca.display());
        std::fs::write(&file, text.replace("insecure-skip-tls-verify: true", &trusted)).expect("kubeconfig");
        stock(&file).run("get namespaces")
    });
    assert_eq!(verified.code, 1);
    assert!(verified.err.contains("certificate has expired or is not yet valid"), "{}", verified.err);
}

/// A small file system.
struct Disk(TempDir);

impl Disk {
    fn new() -> Self {
        let directory = TempDir::new().expect("a directory");
        let disk = Self(directory);
        disk.mount("size=48m", &[]);
        disk
    }

    fn mount(&self, options: &str, more: &[&str]) {
        let mounted = Command::new("mount")
            .args(more)
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(self.0.path())
            .status()
            .expect("mount");
        assert!(mounted.success());
    }

    fn grow(&self) {
        self.mount("remount,size=96m", &[]);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_writes_and_loses_nothing() {
    let disk = Disk::new();
    let store = disk.0.path().join("store");
    let mut server = ApiServer::start_with(&[&format!("--embedded-store-dir={}", store.display())]).await;
    let client = server.admin().await;
    let maps = config_maps(&client);
    let mut stored = 0;
    let refused = loop {
        match maps.create(&PostParams::default(), &config_map(&format!("m{stored}"), 900_000)).await {
            Ok(_) => stored += 1,
            Err(error) => break status(error),
        }
        assert!(stored < 100, "the disk never gets full");
    };
    assert_eq!(refused["code"], 500, "{refused}");
    assert!(refused["message"].as_str().is_some_and(|m| m.contains("mvcc: database space exceeded")), "{refused}");
    let count = async |maps: &Api<ConfigMap>| {
        let all = maps.list(&ListParams::default()).await.expect("list").items;
        all.iter().filter(|map| map.metadata.name.as_ref().is_some_and(|name| name.starts_with('m'))).count()
    };
    assert_eq!(count(&maps).await, stored, "what is stored can be read, what was refused is not there");
    server.restart().await;
    let maps = config_maps(&server.admin().await);
    assert_eq!(count(&maps).await, stored, "after a kill");
    disk.grow();
    wait_until("writes to go on", || async {
        maps.create(&PostParams::default(), &config_map("more", 900_000)).await.map_err(|error| error.to_string())
    })
    .await;
    maps.delete("m0", &DeleteParams::default()).await.expect("delete");
    assert_eq!(count(&maps).await, stored, "one more, one less");
}

fn etcd(directory: &Path, ports: [u16; 2]) -> Process {
    let [client, peer] = ports.map(|port| format!("http://127.0.0.1:{port}"));
    let arguments = [
        format!("--data-dir={}", directory.join("data").display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
    ];
    Process::start(Path::new("/usr/bin/etcd"), &arguments, directory.join("etcd.log"))
}

/// Waits until somebody connects to a port, and hangs up.
async fn asked(port: u16) {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a port");
    listener.accept().await.expect("a connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_etcd_is_told_and_waited_for() {
    let directory = TempDir::new().expect("a directory");
    let ports = [free_port(), free_port()];
    let flag = format!("--etcd-servers=http://127.0.0.1:{}", ports[0]);
    let flags = &[flag.as_str()];
    let late = async {
        asked(ports[0]).await;
        etcd(directory.path(), ports)
    };
    let (server, mut store) = tokio::join!(ApiServer::start_with(flags), late);
    let client = server.admin().await;
    let maps = config_maps(&client);
    maps.create(&PostParams::default(), &config_map("kept", 10)).await.expect("create");
    store.kill();
    let refused = maps.create(&PostParams::default(), &config_map("lost", 10)).await.map_err(status);
    let refused = refused.expect_err("no etcd, no write");
    assert!(matches!(refused["code"].as_u64(), Some(500 | 503 | 504)), "{refused}");
    wait_until("the server to be unready", || async {
        match client.request_text(http_get("/readyz")).await {
            Err(error) if error.to_string().contains("[-]etcd failed") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    client.request_text(http_get("/livez?exclude=etcd")).await.expect("it lives");
    let _store = etcd(directory.path(), ports);
    wait_until("writes to go on", || async {
        maps.create(&PostParams::default(), &config_map("again", 10)).await.map_err(|error| error.to_string())
    })
    .await;
    let names: Vec<String> = maps
        .list(&ListParams::default())
        .await
        .expect("list")
        .items
        .into_iter()
        .filter_map(|map| map.metadata.name)
        .collect();
    assert!(names.contains(&"kept".to_owned()) && !names.contains(&"lost".to_owned()), "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_says_what_is_wrong_with_a_manifest() {
    let server = ApiServer::start().await;
    let kubectl = stock(&server.kubeconfig_file(ADMIN_TOKEN));
    tokio::task::block_in_place(|| {
        for (manifest, wanted) in [
            ("kind: ConfigMap\n\tbad", "error converting YAML to JSON"),
            ("apiVersion: v1\nmetadata: {name: x}\n", "kind not set"),
            ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: [1]\n", "cannot unmarshal"),
            ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndatas: {}\n", "unknown field \"datas\""),
            (
                "apiVersion: v1\nkind: Nothing\nmetadata: {name: x}\n",
                "no matches for kind \"Nothing\" in version \"v1\"",
            ),
            ("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec: {replicas: many}\n", "of type int32"),
        ] {
            let output = kubectl.run_with("create -f -", manifest);
            assert_eq!(output.code, 1, "{manifest}");
            assert!(output.err.contains(wanted), "{manifest}: {}", output.err);
        }
        let large =
            format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: x}}\ndata: {{k: {}}}\n", "x".repeat(4 << 20));
        let output = kubectl.run_with("create -f -", &large);
        assert!(output.err.contains("Request entity too large: limit is 3145728"), "{}", output.err);
        let wrong = stock(&server.kubeconfig_file("wrong-token")).run("get pods");
        assert!(wrong.err.contains("You must be logged in to the server (Unauthorized)"), "{}", wrong.err);
    });
}
